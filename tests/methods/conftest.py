from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

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

    def logits(name: str) -> torch.Tensor:
        blocks = F.interpolate(arrays[f"input:loss_a_{name}_lo"].float(), scale_factor=4, mode="nearest")
        return facts["gain"] * blocks + 0.5 * arrays[f"input:loss_a_{name}"].float()

    batch, size = facts["batch"], facts["size"]
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
