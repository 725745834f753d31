"""Samples whose image was turned into maps before: rows of a store in place of pixels.

Tiles are cut into crops that do not move: side by side from the upper left, the last ones shifted back to end at the border, and padded
where a tile is smaller. An epoch goes over all crops; of each, one of the ways it is kept is drawn.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from tilth import seeds
from tilth.augment.weak import WeakDraw, WeakGeometry
from tilth.batch import Batch
from tilth.catalog.rows import window_array
from tilth.catalog.table import Catalog
from tilth.errors import RunError
from tilth.imagery.read import Window
from tilth.models.diffusion.feature_rows import RowLayout
from tilth.models.diffusion.feature_store import FeatureStore
from tilth.models.windows import window_starts
from tilth.training.order import Key, Order

_ATTEMPTS = 8
_UNREADABLE = "could not be read when its features were kept"


@dataclass(frozen=True)
class Crop:
    """A part of a tile.

    Attributes:
        row: of the catalog.
        number: which crop of its tile.
        geometry: where it lies; unturned.
    """

    row: int
    number: int
    geometry: WeakGeometry


def crops_of(catalog: Catalog, size: int) -> list[Crop]:
    """Cut all tiles of a catalog into crops of ``size`` pixels."""
    crops = []
    for row, (_, _, width, height) in enumerate(window_array(catalog.table).tolist()):
        places = [(y, x) for y in window_starts(height, size, size) for x in window_starts(width, size, size)]
        for number, (y, x) in enumerate(places):
            window = Window(x, y, min(size, width - x), min(size, height - y))
            crops.append(Crop(row, number, WeakGeometry(window, height, width, WeakDraw(height, width, x, y))))
    return crops


def turned(geometry: WeakGeometry, variant: int) -> WeakGeometry:
    """Lay a crop in one of the eight ways of a square; 0 leaves it."""
    draw = dataclasses.replace(geometry.draw, hflip=bool(variant & 1), vflip=bool(variant & 2), quarter_turns=variant >> 2)
    return dataclasses.replace(geometry, draw=draw)


@dataclass(frozen=True)
class FeatureSample:
    """One crop as it is kept.

    Attributes:
        row: uint8 (row_bytes,), see :class:`tilth.models.diffusion.feature_rows.RowLayout`.
        layout: of the row.
        tile_id: catalog identifier.
        draw: seed of the sample.
        bad: unreadable tiles met on the way, with the reason.
    """

    row: NDArray[np.uint8]
    layout: RowLayout
    tile_id: str
    draw: int
    bad: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class RawFeatures:
    """Samples of one stream side by side, still as they are kept; becomes numbers on the training device.

    Attributes:
        rows: uint8 (B, row_bytes).
        layout: of each row.
        tile_id: catalog identifiers.
        draw: seeds of the samples.
        bad: unreadable tiles met, with the reason.
    """

    rows: Tensor
    layout: RowLayout
    tile_id: list[str]
    draw: list[int]
    bad: list[tuple[str, str]]

    @classmethod
    def of(cls, samples: Sequence[FeatureSample]) -> RawFeatures:
        """Stack samples of one layout."""
        return cls(
            torch.from_numpy(np.stack([sample.row for sample in samples])),
            samples[0].layout,
            [sample.tile_id for sample in samples],
            [sample.draw for sample in samples],
            [item for sample in samples for item in sample.bad],
        )

    def pin_memory(self) -> RawFeatures:
        """Called by the loader where a GPU will fetch the batch."""
        return dataclasses.replace(self, rows=self.rows.pin_memory())

    def to_batch(self, device: torch.device) -> Batch:
        """Make a batch with ``features`` and without ``image``."""
        found = self.layout.unpack(self.rows.to(device, non_blocking=True))
        return Batch(features=found.maps, mask=found.mask, valid=found.valid, tile_id=self.tile_id, draw=self.draw)


class FeatureDataset(Dataset[FeatureSample]):
    """Reads the sample that belongs to a (stream, step, slot) from a store.

    Attributes:
        order: over the crops.
        crops: of all tiles.
    """

    def __init__(self, order: Order, stream: str, catalog: Catalog, crops: Sequence[Crop], store: FeatureStore) -> None:
        """Take what is to be read; the store need not be filled yet.

        Args:
            order: over the tiles.
            stream: the one stream there is.
            catalog: its tiles.
            crops: of these.
            store: holds rows of all of them.
        """
        self.order = dataclasses.replace(order, sizes={stream: len(crops)})
        self.crops = crops
        self._store = store
        self._ids = catalog.column("tile_id")

    def __getitem__(self, key: Key) -> FeatureSample:
        """Read a sample; one of a tile that could not be read is replaced by a crop of the next tile, and reported."""
        stream, step, slot = key
        first = self.order.index(stream, step, slot)
        bad: list[tuple[str, str]] = []
        left_out: set[int] = set()
        for place in range(first, first + len(self.crops)):
            crop = self.crops[place % len(self.crops)]
            # All crops of a large tile that cannot be read are one failure.
            if crop.row in left_out:
                continue
            tile_id = self._ids[crop.row]
            draw = seeds.derive(self.order.seed, "draw", stream, step, slot, tile_id)
            variant = int(seeds.generator(draw, "weak").integers(self._store.variants))
            row = self._store.read(self._store.number(tile_id, crop.number, variant))
            if self._store.layout.readable(row):
                return FeatureSample(row, self._store.layout, tile_id, draw, tuple(bad))
            bad.append((tile_id, _UNREADABLE))
            left_out.add(crop.row)
            if len(bad) == _ATTEMPTS:
                break
        raise RunError(f"stream {stream!r}: {len(bad)} tiles in a row cannot be read; run tilth catalog check")
