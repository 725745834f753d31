"""Synthetic landscapes: exact truth, seen by any sensor, with labels as wrong as one likes.

A controlled laboratory (what helps against which kind of label noise?) and the embedded data of demo and tests. Names are imported
on first use: the command line reads the configurations without loading NumPy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tilth.imagery.landscape.config import SEASONS, Composition, LandscapeConfig, NoiseConfig, ScenesConfig, Season
    from tilth.imagery.landscape.generate import Landscape, generate_landscape
    from tilth.imagery.landscape.label_noise import noisy_labels
    from tilth.imagery.landscape.observation import observe
    from tilth.imagery.landscape.scenes import write_scenes
    from tilth.imagery.landscape.scheme import landscape_scheme

_HOMES = {
    "SEASONS": "config",
    "Composition": "config",
    "LandscapeConfig": "config",
    "NoiseConfig": "config",
    "ScenesConfig": "config",
    "Season": "config",
    "Landscape": "generate",
    "generate_landscape": "generate",
    "landscape_scheme": "scheme",
    "noisy_labels": "label_noise",
    "observe": "observation",
    "write_scenes": "scenes",
}

__all__ = [
    "SEASONS",
    "Composition",
    "Landscape",
    "LandscapeConfig",
    "NoiseConfig",
    "ScenesConfig",
    "Season",
    "generate_landscape",
    "landscape_scheme",
    "noisy_labels",
    "observe",
    "write_scenes",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found
