"""The ways in which weights are published, in the order in which they are tried: what only one program writes before what many write."""

from __future__ import annotations

import importlib
from functools import cache

from tilth.models.weights.layout import Layout

MODULES = (
    "s5_rvsa",
    "s5_vit",
    "s5_swin",
    "s5_deeplab",
    "cromss",
    "cromss_transfer",
    "diffusion",
    "vit",
    "swin",
    "resnet",
)


@cache
def all_layouts() -> tuple[Layout, ...]:
    """Import every layout."""
    return tuple(layout for name in MODULES for layout in importlib.import_module(f"{__name__}.{name}").LAYOUTS)
