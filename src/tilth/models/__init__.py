"""Networks, and the folders that hold them. Names are imported on first use: most of them need torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tilth.models.by_name import available, create
    from tilth.models.weights.load import load_weights, official_state_dict

_HOMES = {
    "create": "tilth.models.by_name",
    "available": "tilth.models.by_name",
    "load_weights": "tilth.models.weights.load",
    "official_state_dict": "tilth.models.weights.load",
}

__all__ = ["available", "create", "load_weights", "official_state_dict"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tilth.models' has no attribute {name!r}")
    found = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """List the public names, also those not imported yet."""
    return sorted({*globals(), *__all__})
