from __future__ import annotations

import importlib
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from support.training_sample import NETWORK, tiles_and_pool
from tilth.batch import Batch
from tilth.catalog.table import Catalog
from tilth.classes import ClassScheme, LandClass
from tilth.methods.base import build_method
from tilth.models.segmenter import build_segmenter
from tilth.sensors import get_sensor

_FOLDER = Path(__file__).parents[1] / "fixtures" / "s5"


def noise(key: str, *shape: int) -> Tensor:
    """The numbers that recorded inputs are made of."""
    draw = np.random.default_rng(zlib.crc32(key.encode()))
    return torch.from_numpy(draw.standard_normal(shape).astype(np.float32))


def _inside(rectangles: list[list[int]], batch: int, size: int) -> Tensor:
    """Mark rectangles (sample, y, x, height, width)."""
    found = torch.zeros(batch, size, size, dtype=torch.bool)
    for sample, y, x, height, width in rectangles:
        found[sample, y : y + height, x : x + width] = True
    return found


@pytest.fixture(scope="session")
def recorded() -> SimpleNamespace:
    """Logits, images, labels, boxes and results recorded from the published arithmetic of all variants."""
    facts = json.loads((_FOLDER / "loss_a.json").read_text())
    arrays = {name: torch.from_numpy(value) for name, value in np.load(_FOLDER / "loss_a.npz").items()}
    batch, size, classes = facts["batch"], facts["size"], facts["classes"]

    def image(name: str) -> Tensor:
        return noise(f"input:loss_a_{name}", batch, 3, size, size)

    def logits(name: str) -> Tensor:
        blocks = noise(f"input:loss_a_{name}_lo", batch, classes, size // 4, size // 4)
        blocks = blocks.repeat_interleave(4, 2).repeat_interleave(4, 3)
        return facts["gain"] * blocks + 0.5 * noise(f"input:loss_a_{name}", batch, classes, size, size)

    def bits(name: str, *shape: int) -> Tensor:
        return torch.from_numpy(np.unpackbits(arrays[name].numpy())[: np.prod(shape)].reshape(shape).astype(np.bool_))

    def boxes(found: list[list[int] | None]) -> Tensor:
        return _inside([[sample, *box] for sample, box in enumerate(found) if box is not None], batch, size)

    return SimpleNamespace(
        facts=facts,
        arrays=arrays,
        batch=batch,
        size=size,
        image=image,
        logits=logits,
        bits=bits,
        box=boxes(facts["boxes1"]),
        box_2=boxes(facts["boxes2"]),
        half=boxes(facts["wscl_cut_rects_yxhw"]),
        valid=~_inside(facts["ignore_u_rects"], batch, size),
        valid_partner=~_inside(facts["ignore_mix_rects"], batch, size),
    )


class Replay:
    """A step of a variant on recorded images and boxes, with recorded logits in the network's place.

    Attributes:
        method: the variant, of 16 classes.
        module: where it is written.
        logits: recorded logits by name, with gradient.
        passes: images that the student was shown, pass by pass.
    """

    def __init__(self, recorded: SimpleNamespace, patch: pytest.MonkeyPatch, variant: str, settings: dict[str, Any]) -> None:
        self.recorded, self.patch = recorded, patch
        classes = tuple(LandClass(name=f"c{index}", colour=(index, 0, 0)) for index in range(recorded.facts["classes"]))
        model = build_segmenter(NETWORK, get_sensor("rgb"), ClassScheme(name="sixteen", classes=classes))
        self.method = build_method("s4p", {"variant": variant, **settings}, model)
        self.module = importlib.import_module(f"tilth.methods.s4p.{variant}")
        self.logits: dict[str, Tensor] = {}
        self.passes: list[Tensor] = []
        self.method.teach = self._teach  # type: ignore[method-assign]  # recorded logits take its place
        # One strong view of each image, as in recorded mixtures; partners follow.
        self.replace("strong_view", lambda _image, _sensor, _draws, _config, view=0: self._strong(view))

    def replace(self, name: str, value: Any) -> None:
        self.patch.setattr(self.module, name, value)

    def given(self, name: str) -> Tensor:
        if name not in self.logits:
            self.logits[name] = self.recorded.logits(name).requires_grad_()
        return self.logits[name]

    def batches(self) -> dict[str, Batch]:
        """Labelled, unlabelled and partner batch as recorded."""
        found = {}
        for seed, (stream, name, valid) in enumerate(
            [
                ("labelled", "img_x", torch.ones_like(self.recorded.valid)),
                ("unlabelled", "img_u_w", self.recorded.valid),
                ("partner", "img_u_w_mix", self.recorded.valid_partner),
            ]
        ):
            mask = self.recorded.arrays["mask_x"].long() if stream == "labelled" else torch.full(valid.shape, 255)
            count = self.recorded.batch
            found[stream] = Batch(
                image=self.recorded.image(name),
                mask=mask,
                valid=valid.clone(),
                tile_id=[f"{stream}{place}" for place in range(count)],
                draw=[100 * seed + place for place in range(count)],
            )
        return found

    def _strong(self, view: int) -> Tensor:
        return torch.cat([self.recorded.image(f"img_u_s{view + 1}"), self.recorded.image(f"img_u_s{view + 1}_mix")])

    def _teach(self, image: Tensor) -> Tensor:
        found = []
        for name, logits in (("img_u_w", "logits_u_w"), ("img_u_w_mix", "logits_u_w_mix")):
            known, said = self.recorded.image(name), self.recorded.logits(logits)
            found += [(row, said[place]) for place, row in enumerate(known)]
        return torch.stack([next(said for row, said in found if torch.equal(row, one)) for one in image])


@pytest.fixture(scope="session")
def catalogs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Catalog, Catalog]:
    """Labelled tiles and a pool, in memory."""
    return tiles_and_pool(tmp_path_factory.mktemp("tiles"))


@pytest.fixture
def replay(recorded: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Replay]:
    """Build a :class:`Replay` of a variant with settings."""

    def build(variant: str, **settings: Any) -> Replay:
        return Replay(recorded, monkeypatch, variant, settings)

    return build
