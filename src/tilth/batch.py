"""Batch: what passes from the loader to a method."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from torch import Tensor


class Batch(TypedDict):
    """B tiles of one stream on the training device (the torchgeo convention).

    Attributes:
        image: float32 (B, C, H, W), normalised, bands in Sensor order; pixels that are not ``valid`` hold the sensor's fill value.
        mask: int64 (B, H, W), class ids, 255 = ignore. All 255 where a tile has no label.
        valid: bool (B, H, W), False where padded or nodata.
        tile_id: B identifiers, as in the catalog.
        draw: B seeds, one a sample, a pure function of (seed, stream, step, slot, tile); every augmentation of the sample derives from it.
    """

    image: Tensor
    mask: Tensor
    valid: Tensor
    tile_id: list[str]
    draw: list[int]
