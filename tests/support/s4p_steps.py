"""Batches and methods for single steps of the S4P variants on tiny networks."""

from __future__ import annotations

from typing import Any

import torch

from support.training_sample import tiny_model
from tilth.batch import Batch
from tilth.methods.base import Method, build_method
from tilth.models.segmenter import Segmenter

SIZE = 32

VARIANTS = ("fixmatch", "unimatch", "corrmatch", "wscl")

# A fresh network is sure of nothing: thresholds lie among its confidences.
SETTINGS: dict[str, dict[str, Any]] = {
    "fixmatch": {"threshold": 0.36},
    "unimatch": {"threshold": 0.36},
    "corrmatch": {"threshold_start": 0.36, "projection_width": 8, "proposals": 16},
    "wscl": {"mix_probability": 1.0},
}


def make_batch(seed: int, count: int = 3, *, ignored: bool = False, bands: int = 3, size: int = SIZE) -> Batch:
    """Noise with padding in the first two images; all labels 255 if ``ignored``."""
    draw = torch.Generator().manual_seed(seed)
    valid = torch.ones(count, size, size, dtype=torch.bool)
    valid[0, 20:], valid[1, :, 25:] = False, False
    image = torch.randn(count, bands, size, size, generator=draw).masked_fill(~valid[:, None], -2.0)
    mask = torch.randint(0, 3, (count, size, size), generator=draw).masked_fill(~valid, 255)
    if ignored:
        mask.fill_(255)
    tiles, draws = [f"{seed}/{place}" for place in range(count)], [seed * 100 + place for place in range(count)]
    return Batch(image=image, mask=mask, valid=valid, tile_id=tiles, draw=draws)


def make_batches(bands: int = 3, size: int = SIZE, count: int = 3, **kinds: Batch) -> dict[str, Batch]:
    """One batch of each stream of S4P."""
    made = {
        name: make_batch(seed, count, ignored=seed > 1, bands=bands, size=size)
        for name, seed in (("labelled", 1), ("unlabelled", 2), ("partner", 3))
    }
    return {**made, **kinds}


def make_method(variant: str = "fixmatch", model: Segmenter | None = None, **settings: Any) -> Method:
    """A variant around a tiny network in training mode."""
    method = build_method("s4p", {"variant": variant, **SETTINGS[variant], **settings}, model or tiny_model())
    method.trained.train()
    return method
