"""How numbers look in a report: one rule per quantity, so that equal things read equal everywhere.

Scores are fractions in [0, 1] in files and percent with one decimal on the page; what is missing or not a number is an en dash that
says "absent" on hover and to screen readers. A narrow no-break space stands between a number and its unit and between thousands.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

SPACE = "\u202f"
ABSENT = Markup('<span class="absent" title="absent"><span aria-hidden="true">–</span><span class="hidden">absent</span></span>')  # noqa: RUF001 - the en dash is meant


def finite(value: Any) -> float | None:
    """Return a number as float, or None for null, NaN, infinities, booleans and anything that is not a number.

    Example:
        >>> finite(1), finite(float("nan")), finite("x")
        (1.0, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def percent(value: Any, decimals: int = 1) -> str:
    """Write a fraction in [0, 1] as percent; absent values as an en dash.

    Example:
        >>> percent(0.5423).replace(SPACE, " ")
        '54.2 %'
    """
    number = finite(value)
    return ABSENT if number is None else f"{number * 100:.{decimals}f}{SPACE}%"


def interval(ends: Any, decimals: int = 1) -> str:
    """Write the ends of an interval of fractions in points of 100, in brackets; nothing where there is none.

    Example:
        >>> interval((0.4893, 0.5361))
        '[48.9, 53.6]'
    """
    if ends is None or any(finite(end) is None for end in ends):
        return ""
    low, high = (f"{end * 100:.{decimals}f}".replace("-", "\u2212") for end in ends)
    return f"[{low}, {high}]"


def bare_points(value: Any, signed: bool = False) -> str:
    """Write a fraction in points of 100 with one decimal; with ``signed``, plus or a true minus before it unless it reads as zero."""
    number = finite(value)
    if number is None:
        return ABSENT
    text = f"{number * 100:+.1f}" if signed else f"{number * 100:.1f}"
    return text[1:] if text in {"+0.0", "-0.0"} else text.replace("-", "\u2212")


def points(value: Any) -> str:
    """Write a difference of fractions as signed points of 100, with the unit."""
    text = bare_points(value, signed=True)
    return text if finite(value) is None else f"{text}{SPACE}points"


def spread(value: Any) -> str:
    """Write a standard deviation of fractions as ``± 1.2`` percentage points; nothing when there is none."""
    number = finite(value)
    return "" if number is None else f"±{SPACE}{number * 100:.1f}"


def whole(value: Any) -> str:
    """Write a count with thousands set apart."""
    number = finite(value)
    return ABSENT if number is None else f"{round(number):,}".replace(",", SPACE)


def significant(value: Any, digits: int = 3) -> str:
    """Write a number with the given significant digits: plain between 0.001 and a million, else as ``2.5e-04``."""
    number = finite(value)
    if number is None:
        return ABSENT
    if number == 0:
        return "0"
    size = math.floor(math.log10(abs(number)))
    if not -4 < size < 6:
        return f"{number:.{digits - 1}e}".replace("-", "\u2212")
    return f"{number:,.{max(digits - 1 - size, 0)}f}".replace(",", SPACE).replace("-", "\u2212")


def duration(seconds: Any) -> str:
    """Write seconds as ``42 s``, ``7 min 30 s`` or ``2 h 05 min``."""
    number = finite(seconds)
    if number is None:
        return ABSENT
    if number < 10:
        return f"{number:.1f}{SPACE}s"
    total = round(number)
    if total < 60:
        return f"{total}{SPACE}s"
    if total < 3600:
        return f"{total // 60}{SPACE}min {total % 60:02d}{SPACE}s"
    return f"{total // 3600}{SPACE}h {total % 3600 // 60:02d}{SPACE}min"


def quantity(value: Any, unit: str, digits: int = 3) -> str:
    """Write a number with its unit."""
    text = significant(value, digits)
    return text if finite(value) is None else f"{text}{SPACE}{unit}"


def parameters(value: Any) -> str:
    """Write a count of parameters as ``24.4 million`` or, when small, in full."""
    number = finite(value)
    if number is None or number < 1e5:
        return whole(value)
    return f"{number / 1e6:.{1 if number >= 1e6 else 2}f}{SPACE}million"


def area_unit(square_metres: float) -> tuple[float, str]:
    """Return the unit that reads best for an area, m², hectares or km²: its size in m² and its sign."""
    return (1.0, "m²") if square_metres < 1e4 else (1e4, "ha") if square_metres < 1e8 else (1e6, "km²")


def area(square_metres: Any, among: float | None = None) -> str:
    """Write an area in m², hectares or km², whichever reads best for it, or for the larger area ``among`` which it is listed."""
    number = finite(square_metres)
    if number is None:
        return ABSENT
    size = number if among is None else among
    scale, unit = area_unit(size)
    decimals = 2 if size / scale < 100 else 1 if size / scale < 1000 else 0
    return f"{number / scale:,.{decimals}f}".replace(",", SPACE) + f"{SPACE}{unit}"


def length(metres: Any) -> str:
    """Write a length in centimetres, metres or kilometres, without needless zeros."""
    number = finite(metres)
    if number is None:
        return ABSENT
    size, unit = (number * 100, "cm") if number < 1 else (number, "m") if number < 2000 else (number / 1000, "km")
    return f"{size:.4g}{SPACE}{unit}"


def cell(share: Any) -> str:
    """Write a share in a heat map cell, in percent without the sign; what is rarer than 0.05 % but not zero as ``<0.1``."""
    number = finite(share)
    if number is None:
        return ABSENT
    if 0 < number < 0.0005:
        return "<0.1"
    return "0" if number == 0 else f"{number * 100:.1f}"


def plain(value: Any) -> str:
    """Write a setting or fact: numbers with at most six digits, lists with commas, yes and no; None as absent."""
    if value is None or value == "" or (isinstance(value, float) and not math.isfinite(value)):
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return whole(value) if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:.6g}".replace("-", "\u2212")
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_inner(item)}" for key, item in value.items()) or ABSENT
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return ", ".join(_inner(item) for item in value) or ABSENT
    return str(value)


def _inner(value: Any) -> str:
    """Write a member of a list or mapping: as :func:`plain`, but without markup, which would be escaped inside a longer text."""
    text = plain(value)
    return "none" if text is ABSENT else text
