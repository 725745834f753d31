"""A small world to try verbs on: scenes of 128 pixels, a catalog of 64-pixel tiles with splits, a network of few weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tilth

NETWORK = {"encoder": "resnet10t", "options": {"decoder_channels": [16, 8, 8, 8, 8]}}
TRAINING: dict[str, Any] = {
    "network": NETWORK,
    "weak": {"size": 32, "scale_min": 1.0, "scale_max": 1.5},
    "loop": {"steps": 2, "batch_size": 2, "log_every": 1, "accelerator": "cpu"},
    "inference": {"window": 64, "overlap": 0},
}
"""Options of a training that takes a second."""

WORDS = [
    "network.encoder=resnet10t",
    "network.options.decoder_channels=[16,8,8,8,8]",
    *("weak.size=32", "weak.scale_min=1.0", "weak.scale_max=1.5"),
    *("loop.steps=2", "loop.batch_size=2", "loop.log_every=1", "loop.accelerator=cpu"),
    *("inference.window=64", "inference.overlap=0"),
]
"""The same as words of the command line."""


def plant(folder: Path) -> Path:
    """Make scenes, ``tiles.parquet`` without splits, and ``catalog.parquet`` with all three."""
    tilth.landscapes(out=folder / "land", scenes=4, size=128, seed=3)
    images, masks = folder / "land" / "images", folder / "land" / "masks"
    tilth.catalog_build(inputs=[images], labels=masks, sensor="rgb", window_px=64, out=folder / "tiles.parquet")
    tilth.catalog_split(catalog=folder / "tiles.parquet", block_m=100, out=folder / "catalog.parquet")
    return folder


def grow(folder: Path, name: str = "run") -> Path:
    """Train for two steps on a planted folder; returns the run folder."""
    tilth.finetune(task="segment", labelled=[folder / "catalog.parquet"], out=folder / name, **TRAINING)
    return folder / name


def tree(folder: Path) -> list[str]:
    """Everything below a folder, hidden files too."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
