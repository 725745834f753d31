"""Validation without labels: the method's own loss on tiles that are not learnt from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch

from tilth.augment.config import WeakConfig
from tilth.catalog.table import Catalog
from tilth.methods.base import Method, Stream
from tilth.models.inference import evaluating
from tilth.models.segmenter import Segmenter
from tilth.training.config import LoopConfig
from tilth.training.order import Order
from tilth.training.streams import TileDataset, collate, to_batch

_STREAM = "validation"


class HeldOutLoss:
    """Scores a training at one crop of every held-out tile: at its own scale, unturned, always the same crop."""

    def __init__(
        self, method: Method, tiles: Catalog, loop: LoopConfig, weak: WeakConfig, device: torch.device, on_bad: Callable[[str, str], None]
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            method: one that needs no labels.
            tiles: held out; at least one.
            loop: its batch size and seed.
            weak: its crop size.
            device: where to compute.
            on_bad: told identifier and reason of a tile that cannot be read, at every validation.
        """
        fixed = WeakConfig(size=weak.size, scale_min=1, scale_max=1, horizontal_flip=0, vertical_flip=0)
        order = Order(loop.seed, {_STREAM: Stream("unlabelled")}, {_STREAM: len(tiles)}, len(tiles))
        self._method, self._device, self._on_bad, self._size = method, device, on_bad, weak.size
        self._dataset = TileDataset(order, {_STREAM: tiles}, len(method.model.scheme), fixed)
        self._count = len(tiles)
        self._batch = loop.batch_size // (loop.devices * loop.nodes * loop.accumulate)

    @torch.no_grad()
    def __call__(self, _exported: Segmenter) -> Mapping[str, float]:
        """Compute the loss over all tiles together; NaN where nothing in them counts.

        Raises:
            RunError: several tiles in a row cannot be read.
        """
        method = self._method
        names = (method.score.name, *method.also_scored)
        total, counted = (torch.zeros(len(names), dtype=torch.float64, device=self._device) for _ in range(2))
        with evaluating(method.trained):
            for start in range(0, self._count, self._batch):
                slots = range(start, min(start + self._batch, self._count))
                samples = [self._dataset[(_STREAM, 0, slot)] for slot in slots]
                for tile_id, reason in (bad for sample in samples for bad in sample.bad):
                    self._on_bad(tile_id, reason)
                whole = [sample for sample in samples if not sample.bad]  # a bad tile's neighbour has its own slot
                if whole:
                    batch = to_batch(collate(whole), method.model.sensor, self._size, self._device)
                    error, count = method.validation_sums(batch)
                    total, counted = total + error, counted + count
        pairs = zip(names, total.tolist(), counted.tolist(), strict=True)
        return {name: above / below if below > 0 else math.nan for name, above, below in pairs}
