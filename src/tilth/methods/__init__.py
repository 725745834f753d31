"""How a network learns: one file a method, found by its name."""

from __future__ import annotations

import pkgutil

_SHARED_PARTS = frozenset({"base", "counting", "losses"})


def method_names() -> tuple[str, ...]:
    """Names of the methods there are: the modules of this room that are not shared parts. Loads none of them."""
    return tuple(sorted(item.name for item in pkgutil.iter_modules(__path__) if item.name not in _SHARED_PARTS))
