"""Batch: what passes from the loader to a method."""

from __future__ import annotations

from typing import TYPE_CHECKING, NotRequired, TypedDict

if TYPE_CHECKING:
    from torch import Tensor


class Batch(TypedDict):
    """B tiles of one stream on the training device (the torchgeo convention).

    Attributes:
        image: float32 (B, C, H, W), normalised, bands in Sensor order; pixels that are not ``valid`` hold the sensor's fill value.
        features: instead of ``image``, maps of a frozen encoder that were kept: float32 (B, c, h, w), finest first. Only there in trainings
            that keep them.
        mask: int64 (B, H, W), class ids, 255 = ignore. All 255 where a tile has no label.
        valid: bool (B, H, W), False where padded or nodata.
        tile_id: B identifiers, as in the catalog.
        confidence: float32 (B, H, W), 0 to 1, how sure the maker of each label was; 1 where nobody said; without meaning
            where the mask is 255. Only there where a stream asks for it.
        seasons: int64 (B, T, H, W), labels of all seasons of each place, the one of ``mask`` among them, in the same crop; 255 = ignore,
            also where a place has fewer than T. T is the most of a place in the batch. Only there where a stream asks for it.
        reference: int64 (B, H, W), clean labels to compare with, never to learn from; 255 where there is none. Only there where a stream
            asks for it and the catalog has some.
        draw: B seeds, one a sample, a pure function of (seed, stream, step, slot, tile); every augmentation of the sample derives from it.
    """

    image: NotRequired[Tensor]
    features: NotRequired[list[Tensor]]
    mask: Tensor
    valid: Tensor
    confidence: NotRequired[Tensor]
    seasons: NotRequired[Tensor]
    reference: NotRequired[Tensor]
    tile_id: list[str]
    draw: list[int]
