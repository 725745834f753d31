"""Raw batches: samples of one stream side by side, as stored, and what becomes of them on the training device."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tilth.augment.normalise import normalise
from tilth.augment.weak import WeakGeometry, weak_view
from tilth.batch import Batch
from tilth.catalog.confidence import FULL, UNKNOWN
from tilth.classes import IGNORE_INDEX
from tilth.sensors import Sensor
from tilth.training.feature_samples import RawFeatures
from tilth.training.samples import Sample


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
        seasons: uint8 (B, T, h, w), labels of all seasons, 255 in the padding and where a place has fewer; None where the stream does not
            ask for them.
        reference: uint8 (B, h, w), clean labels, 255 in the padding; None where the stream does not ask for them or the catalog has none.
    """

    stored: Tensor
    valid: Tensor
    mask: Tensor
    geometry: list[WeakGeometry]
    tile_id: list[str]
    draw: list[int]
    bad: list[tuple[str, str]]
    confidence: Tensor | None = None
    seasons: Tensor | None = None
    reference: Tensor | None = None

    def pin_memory(self) -> RawBatch:
        """Called by the loader where a GPU will fetch the batch."""
        pinned: dict[str, Any] = {name: value.pin_memory() for name, value in vars(self).items() if isinstance(value, Tensor)}
        return dataclasses.replace(self, **pinned)


AnyRaw = RawBatch | RawFeatures
"""What a loader gives for a stream."""


def collate(samples: Sequence[Sample]) -> RawBatch:
    """Pad samples to the largest height and width among them and stack them."""
    height = max(sample.valid.shape[0] for sample in samples)
    width = max(sample.valid.shape[1] for sample in samples)
    # One type that holds all: files of one sensor may be stored in different ones.
    dtype = np.result_type(*(sample.stored.dtype for sample in samples))
    stored = np.zeros((len(samples), len(samples[0].stored), height, width), dtype)
    valid = np.zeros((len(samples), height, width), np.bool_)
    for index, sample in enumerate(samples):
        rows, columns = sample.valid.shape
        stored[index, :, :rows, :columns] = sample.stored
        valid[index, :rows, :columns] = sample.valid
    mask = _stack([sample.mask for sample in samples], height, width)
    assert mask is not None, "every sample has a mask"
    seasons = [sample.seasons for sample in samples]
    if seasons[0] is not None:
        most = max(len(one) for one in seasons if one is not None)
        seasons = [_lengthen(one, most) for one in seasons if one is not None]
    return RawBatch(
        torch.from_numpy(stored),
        torch.from_numpy(valid),
        mask,
        [sample.geometry for sample in samples],
        [sample.tile_id for sample in samples],
        [sample.draw for sample in samples],
        [item for sample in samples for item in sample.bad],
        _stack([sample.confidence for sample in samples], height, width),
        _stack(seasons, height, width),
        _stack([sample.reference for sample in samples], height, width),
    )


def to_batch(raw: RawBatch | RawFeatures, sensor: Sensor, size: int, device: torch.device) -> Batch:
    """Make the weak view of a batch on the training device, and normalise it; kept maps become numbers again."""
    if isinstance(raw, RawFeatures):
        return raw.to_batch(device)
    stored, valid, mask = (tensor.to(device, non_blocking=True) for tensor in (raw.stored, raw.valid, raw.mask))
    further = {"confidence": raw.confidence, "seasons": raw.seasons, "reference": raw.reference}
    # All take the nearest pixel, so they go the same way side by side.
    beside = {
        name: (value if value.ndim == 4 else value.unsqueeze(1)).to(device, non_blocking=True)
        for name, value in further.items()
        if value is not None
    }
    maps = torch.cat([mask.unsqueeze(1), *beside.values()], 1) if beside else mask
    image, maps, valid = weak_view(stored, maps, valid, raw.geometry, size, sensor)
    image = normalise(image, valid, sensor)
    if not beside:
        return Batch(image=image, mask=maps, valid=valid, tile_id=raw.tile_id, draw=raw.draw)
    found = dict(zip(beside, torch.split(maps[:, 1:], [value.shape[1] for value in beside.values()], 1), strict=True))
    batch = Batch(image=image, mask=maps[:, 0].contiguous(), valid=valid, tile_id=raw.tile_id, draw=raw.draw)
    if "confidence" in found:
        percents = found["confidence"].squeeze(1)
        batch["confidence"] = torch.where(percents == UNKNOWN, 1.0, percents.to(torch.float32) / FULL)
    if "seasons" in found:
        batch["seasons"] = found["seasons"].contiguous()
    if "reference" in found:
        batch["reference"] = found["reference"].squeeze(1).contiguous()
    return batch


def _stack(maps: Sequence[NDArray[np.uint8] | None], height: int, width: int) -> Tensor | None:
    """Pad maps (..., h, w) with 255 and stack them; none if there are none."""
    known = [one for one in maps if one is not None]
    if not known:
        return None
    assert len(known) == len(maps), "samples of one stream are alike"
    stacked = np.full((len(known), *known[0].shape[:-2], height, width), IGNORE_INDEX, np.uint8)
    for index, one in enumerate(known):
        stacked[index, ..., : one.shape[-2], : one.shape[-1]] = one
    return torch.from_numpy(stacked)


def _lengthen(seasons: NDArray[Any], count: int) -> NDArray[np.uint8]:
    """Add seasons without labels up to a number: uint8 (count, h, w)."""
    return np.pad(seasons, ((0, count - len(seasons)), (0, 0), (0, 0)), constant_values=IGNORE_INDEX)
