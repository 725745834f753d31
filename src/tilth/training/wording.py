"""Lengths of time, as people say them."""

from __future__ import annotations


def time_in_words(seconds: float) -> str:
    """Say a time in the largest unit of which there are at least two: ``0.043 s``, ``12 s``, ``3.5 min``, ``2.0 d``."""
    for name, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {name}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
