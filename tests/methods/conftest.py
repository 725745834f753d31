from __future__ import annotations

import json
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

_FOLDER = Path(__file__).parents[1] / "fixtures" / "s5"


def _ignored(rectangles: list[list[int]], batch: int, size: int) -> torch.Tensor:
    found = torch.zeros(batch, size, size, dtype=torch.bool)
    for sample, y, x, height, width in rectangles:
        found[sample, y : y + height, x : x + width] = True
    return found


@pytest.fixture(scope="session")
def recorded() -> SimpleNamespace:
    """Logits, labels, boxes and results recorded from the published FixMatch arithmetic."""
    facts = json.loads((_FOLDER / "loss_a.json").read_text())
    arrays = {name: torch.from_numpy(value) for name, value in np.load(_FOLDER / "loss_a.npz").items()}

    batch, size, classes = facts["batch"], facts["size"], facts["classes"]

    def value(key: str, *shape: int) -> torch.Tensor:
        draw = np.random.default_rng(zlib.crc32(key.encode()))
        return torch.from_numpy(draw.standard_normal(shape).astype(np.float32))

    def logits(name: str) -> torch.Tensor:
        blocks = value(f"input:loss_a_{name}_lo", batch, classes, size // 4, size // 4)
        blocks = blocks.repeat_interleave(4, 2).repeat_interleave(4, 3)
        return facts["gain"] * blocks + 0.5 * value(f"input:loss_a_{name}", batch, classes, size, size)

    box = torch.zeros(batch, size, size, dtype=torch.bool)
    for sample, found in enumerate(facts["boxes1"]):
        if found is not None:
            y, x, height, width = found
            box[sample, y : y + height, x : x + width] = True
    return SimpleNamespace(
        facts=facts,
        arrays=arrays,
        logits=logits,
        box=box,
        valid=~_ignored(facts["ignore_u_rects"], batch, size),
        valid_partner=~_ignored(facts["ignore_mix_rects"], batch, size),
    )
