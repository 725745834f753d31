"""Streams: how the tile of a slot gets from disk to the training device.

Rank *r* of R takes slots [r B / R, (r + 1) B / R) of a step. So neither the number of workers nor of ranks nor an interruption changes
what is trained on.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from tilth import seeds
from tilth.augment.config import WeakConfig
from tilth.augment.normalise import normalise
from tilth.augment.weak import WeakGeometry, plan_weak, weak_view
from tilth.batch import Batch
from tilth.catalog.confidence import FULL, UNKNOWN, confidence_place, read_confidence
from tilth.catalog.table import Catalog, Tile
from tilth.classes import IGNORE_INDEX
from tilth.errors import ConfigError, DataError, RunError, TilthError
from tilth.imagery.read import Window, read_label, read_pixels
from tilth.sensors import Sensor
from tilth.training.order import Key, Order

_ATTEMPTS = 8
"""Neighbours tried in place of an unreadable tile before the run gives up."""

_BITS = 8
"""Bits of a class id: above them there is room for a confidence."""


@dataclass(frozen=True)
class Sample:
    """One tile's source pixels, before the weak view is made on the device.

    Attributes:
        stored: (C, h, w) in the stored type; the pixels the crop depends on, no more.
        valid: bool (h, w).
        mask: uint8 (h, w), 255 = ignore.
        geometry: how the crop lies in those pixels.
        tile_id: catalog identifier.
        draw: seed of the sample.
        bad: unreadable tiles met on the way, with the reason.
        confidence: uint8 (h, w), percents, 255 = not known; None where the stream does not ask for it.
    """

    stored: NDArray[Any]
    valid: NDArray[np.bool_]
    mask: NDArray[np.uint8]
    geometry: WeakGeometry
    tile_id: str
    draw: int
    bad: tuple[tuple[str, str], ...]
    confidence: NDArray[np.uint8] | None = None


class TileDataset(Dataset[Sample]):
    """Reads the sample that belongs to a (stream, step, slot)."""

    def __init__(self, order: Order, catalogs: Mapping[str, Catalog], num_classes: int, weak: WeakConfig) -> None:
        self.order = order
        self.catalogs = catalogs
        self.num_classes = num_classes
        self.weak = weak
        taught = [rows for name, rows in catalogs.items() if order.streams[name].source == "labelled"]
        self._schemes = {name for rows in taught for name in rows.schemes}

    def __getitem__(self, key: Key) -> Sample:
        """Read a sample; an unreadable tile is replaced by its neighbour in the catalog and reported with the sample."""
        stream, step, slot = key
        catalog = self.catalogs[stream]
        first = self.order.index(stream, step, slot)
        tied = self.order.tied(stream, step, slot)
        bad: list[tuple[str, str]] = []
        for attempt in range(min(_ATTEMPTS, len(catalog))):
            row = (first + attempt) % len(catalog)
            if row in tied:
                continue
            tile = catalog.tile(row)
            draw = seeds.derive(self.order.seed, "draw", stream, step, slot, tile.tile_id)
            try:
                sample = self._read(tile, draw, tuple(bad), catalog.sensors[tile.sensor], self.order.streams[stream].source == "labelled")
                return self._with_confidence(sample, catalog, row) if self.order.streams[stream].confidence else sample
            except (TilthError, OSError) as error:
                bad.append((tile.tile_id, str(error)))
        raise RunError(f"stream {stream!r}: {len(bad)} tiles in a row cannot be read, the last says: {bad[-1][1]}; run tilth catalog check")

    def _read(self, tile: Tile, draw: int, bad: tuple[tuple[str, str], ...], sensor: Sensor, taught: bool) -> Sample:
        geometry = plan_weak(seeds.generator(draw, "weak"), tile.window.height, tile.window.width, self.weak)
        part = geometry.window
        window = Window(tile.window.column + part.column, tile.window.row + part.row, part.width, part.height)
        pixels = read_pixels(tile.image, window)
        if len(pixels.data) != len(sensor):
            raise DataError(f"{tile.image}: {len(pixels.data)} bands, sensor {sensor.name!r} has {len(sensor)}")
        mask = self._labels(tile, window) if taught else self._compared_labels(tile, window)
        return Sample(pixels.data, pixels.valid, mask, geometry, tile.tile_id, draw, bad)

    def _with_confidence(self, sample: Sample, catalog: Catalog, row: int) -> Sample:
        """Add how sure the maker of the label was; a tile of which nobody said counts in full."""
        place, part = confidence_place(catalog, row), sample.geometry.window
        if place is None:
            return dataclasses.replace(sample, confidence=np.full(sample.mask.shape, FULL, np.uint8))
        uri, whole = place
        window = Window(whole.column + part.column, whole.row + part.row, part.width, part.height)
        return dataclasses.replace(sample, confidence=read_confidence(uri, window))

    def _labels(self, tile: Tile, window: Window) -> NDArray[np.uint8]:
        if tile.label is None:
            return np.full((window.height, window.width), IGNORE_INDEX, np.uint8)
        mask = read_label(tile.label, window)
        wrong = (mask >= self.num_classes) & (mask != IGNORE_INDEX)
        if wrong.any():
            value = int(mask[wrong][0])
            raise DataError(
                f"{tile.label}: label value {value} is outside the scheme (0 to {self.num_classes - 1}, {IGNORE_INDEX} = ignore)"
            )
        return mask

    def _compared_labels(self, tile: Tile, window: Window) -> NDArray[np.uint8]:
        """Labels that are only compared with: those of another scheme or that cannot be read count as none."""
        try:
            return self._labels(tile if tile.scheme in self._schemes else dataclasses.replace(tile, label=None), window)
        except (TilthError, OSError):
            return np.full((window.height, window.width), IGNORE_INDEX, np.uint8)


@dataclass(frozen=True)
class RawBatch:
    """Samples of one stream, padded to one size; moves to the device as stored (8 or 16 bits a value).

    Attributes:
        stored: (B, C, h, w).
        valid: bool (B, h, w), False in the padding.
        mask: uint8 (B, h, w), 255 in the padding.
        geometry: one a sample.
        tile_id: catalog identifiers.
        draw: seeds of the samples.
        bad: unreadable tiles met, with the reason.
        confidence: uint8 (B, h, w), percents, 255 = not known, also in the padding; None where the stream does not ask for it.
    """

    stored: torch.Tensor
    valid: torch.Tensor
    mask: torch.Tensor
    geometry: list[WeakGeometry]
    tile_id: list[str]
    draw: list[int]
    bad: list[tuple[str, str]]
    confidence: torch.Tensor | None = None

    def pin_memory(self) -> RawBatch:
        """Called by the loader where a GPU will fetch the batch."""
        return RawBatch(
            self.stored.pin_memory(),
            self.valid.pin_memory(),
            self.mask.pin_memory(),
            self.geometry,
            self.tile_id,
            self.draw,
            self.bad,
            None if self.confidence is None else self.confidence.pin_memory(),
        )


def collate(samples: Sequence[Sample]) -> RawBatch:
    """Pad samples to the largest height and width among them and stack them."""
    height = max(sample.valid.shape[0] for sample in samples)
    width = max(sample.valid.shape[1] for sample in samples)
    # One type that holds all: files of one sensor may be stored in different ones.
    dtype = np.result_type(*(sample.stored.dtype for sample in samples))
    stored = np.zeros((len(samples), len(samples[0].stored), height, width), dtype)
    valid = np.zeros((len(samples), height, width), np.bool_)
    mask = np.full((len(samples), height, width), IGNORE_INDEX, np.uint8)
    for index, sample in enumerate(samples):
        rows, columns = sample.valid.shape
        stored[index, :, :rows, :columns] = sample.stored
        valid[index, :rows, :columns] = sample.valid
        mask[index, :rows, :columns] = sample.mask
    return RawBatch(
        torch.from_numpy(stored),
        torch.from_numpy(valid),
        torch.from_numpy(mask),
        [sample.geometry for sample in samples],
        [sample.tile_id for sample in samples],
        [sample.draw for sample in samples],
        [item for sample in samples for item in sample.bad],
        _collate_confidence(samples, mask.shape),
    )


def _collate_confidence(samples: Sequence[Sample], shape: tuple[int, ...]) -> torch.Tensor | None:
    """Pad and stack the confidence of samples, if they have any."""
    if samples[0].confidence is None:
        return None
    confidence = np.full(shape, UNKNOWN, np.uint8)
    for index, sample in enumerate(samples):
        assert sample.confidence is not None, "samples of one stream are alike"
        rows, columns = sample.confidence.shape
        confidence[index, :rows, :columns] = sample.confidence
    return torch.from_numpy(confidence)


def to_batch(raw: RawBatch, sensor: Sensor, size: int, device: torch.device) -> Batch:
    """Make the weak view of a batch on the training device, and normalise it."""
    stored = raw.stored.to(device, non_blocking=True)
    mask, valid = raw.mask.to(device, non_blocking=True), raw.valid.to(device, non_blocking=True)
    if raw.confidence is not None:
        # Both take the nearest pixel, so they go the same way as one number.
        mask = mask.to(torch.int32) + (raw.confidence.to(device, non_blocking=True).to(torch.int32) << _BITS)
    image, mask, valid = weak_view(stored, mask, valid, raw.geometry, size, sensor)
    batch = Batch(image=normalise(image, valid, sensor), mask=mask, valid=valid, tile_id=raw.tile_id, draw=raw.draw)
    if raw.confidence is not None:
        percents = mask >> _BITS
        batch["mask"] = mask & IGNORE_INDEX
        batch["confidence"] = torch.where(percents == UNKNOWN, 1.0, percents.to(torch.float32) / FULL)
    return batch


class _Schedule:
    """The keys of every micro-batch of one rank, from a step on."""

    def __init__(self, streams: Sequence[str], steps: range, slots: Sequence[range]) -> None:
        self.streams, self.steps, self.slots = streams, steps, slots

    def __iter__(self) -> Iterator[list[Key]]:
        for step in self.steps:
            for slots in self.slots:
                yield [(stream, step, slot) for stream in self.streams for slot in slots]

    def __len__(self) -> int:
        return len(self.steps) * len(self.slots)


class _Collate:
    """Sorts the samples of a micro-batch back into streams."""

    def __init__(self, streams: Sequence[str]) -> None:
        self.streams = streams

    def __call__(self, samples: list[Sample]) -> dict[str, RawBatch]:
        size = len(samples) // len(self.streams)
        return {stream: collate(samples[place * size : (place + 1) * size]) for place, stream in enumerate(self.streams)}


def build_loader(
    dataset: TileDataset, steps: range, *, accumulate: int, rank: int, ranks: int, workers: int, pin_memory: bool
) -> DataLoader[Any]:
    """Build the loader of one rank: ``accumulate`` dictionaries of raw batches for each step.

    Raises:
        ConfigError: the batch cannot be cut evenly over ranks and accumulation steps.
    """
    total = dataset.order.batch_size
    if total % (ranks * accumulate):
        raise ConfigError(
            f"batch_size {total} cannot be cut evenly over {ranks} devices and {accumulate} accumulation steps; choose a multiple"
        )
    size = total // (ranks * accumulate)
    own = range(rank * total // ranks, (rank + 1) * total // ranks)
    slots = [range(start, start + size) for start in range(own.start, own.stop, size)]
    streams = list(dataset.order.streams)
    return DataLoader(
        dataset,
        batch_sampler=_Schedule(streams, steps, slots),
        collate_fn=_Collate(streams),
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=_stand_apart,
        persistent_workers=False,
    )


def plain_errors(loader: Iterable[Any]) -> Iterator[Any]:
    """Go through a loader; what tilth raised in a worker process arrives as the one line it was, without the worker's traceback."""
    try:
        yield from loader
    except TilthError as error:
        text = str(error)
        if not text.startswith("Caught "):
            raise
        raise type(error)(text.strip().splitlines()[-1].partition(": ")[2]) from None


def _stand_apart(_worker: int) -> None:
    """Ctrl-C and termination reach a whole process group; only the main process decides what they mean, and ends its workers itself."""
    os.setpgrp()
    torch.set_num_threads(1)
