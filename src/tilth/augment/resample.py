"""Separable resampling with per-sample geometry, by Pillow's rules, in batches on any device.

Each output is a weighted sum of a few source pixels ("taps"). That is the product with a very sparse matrix per sample and axis. Summing
gathered lines does a small share of a dense product's work, and it lets 8-bit data stay in whole numbers: Pillow's fixed-point sums come
out exactly, also where 64-bit floats are slow or missing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Pillow's fixed point for 8-bit images: 32 bits less 8 for the value and 2 for head room.
_PRECISION_BITS = 22
# Elements of one intermediate sum: on a CPU small enough for its cache, on an accelerator large enough to fill it.
_CHUNK_CPU = 1 << 18
_CHUNK_ACCELERATOR = 1 << 27


class Taps(NamedTuple):
    """Where the n outputs along one axis of B samples come from.

    Attributes:
        sources: int64 (K, B, n), positions of source pixels.
        weights: float64, same shape; sum to 1 over the K, or to 0 for an output in padding. Or int32: the same in fixed point.
    """

    sources: NDArray[np.int64]
    weights: NDArray[np.float64] | NDArray[np.int32]

    def fixed(self) -> Taps:
        """Weights in Pillow's fixed point, for 8-bit images."""
        return Taps(self.sources, (self.weights * (1 << _PRECISION_BITS) + 0.5).astype(np.int32))

    def of(self, sample: int) -> Taps:
        """Those of one sample, without the last ones that only others need."""
        count, weights = len(self.weights), self.weights[:, sample : sample + 1]
        while count > 1 and not weights[count - 1].any():
            count -= 1
        return Taps(self.sources[:count, sample : sample + 1], weights[:count])


def linear_taps(length: NDArray[np.int64], new_length: NDArray[np.int64], outputs: NDArray[np.int64]) -> Taps:
    """Weights of Pillow's bilinear filter: a triangle of half-width ``max(length / new_length, 1)`` source pixels.

    Args:
        length: (B, 1) source pixels along each axis.
        new_length: (B, 1) pixels after the resize.
        outputs: (B, n) positions in the resized axis, each in [0, new_length).

    Returns:
        Taps (K, B, n) with the largest K that one needs. Taps that fall off the border have weight 0 and repeat the last pixel; the
        others are renormalised.
    """
    centre, slope, first, end = _triangles(length, new_length, outputs)
    positions = first + np.arange(max(int((end - first).max()), 1)).reshape(-1, 1, 1)
    weights = np.maximum(1.0 - np.abs((positions - centre + 0.5) * slope), 0.0)
    weights[positions >= end] = 0.0
    # cumsum adds in order, as Pillow does; sum() may add in pairs and could differ in the last bit.
    return Taps(np.minimum(positions, length - 1), weights / weights.cumsum(axis=0)[-1])


def linear_reach(
    length: NDArray[np.int64], new_length: NDArray[np.int64], outputs: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First source pixel with a weight in each output, and the one after the last: (B, n) each; arguments as for :func:`linear_taps`.

    The nearest pixel (:func:`nearest_sources`) lies between them.
    """
    centre, slope, first, end = _triangles(length, new_length, outputs)
    # Rounded, a triangle may end exactly on the pixel at its foot.
    first += np.abs((first - centre + 0.5) * slope) >= 1.0
    end -= np.abs((end - 1 - centre + 0.5) * slope) >= 1.0
    return first, end


def _triangles(
    length: NDArray[np.int64], new_length: NDArray[np.int64], outputs: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Centre of each output's triangle, its slope, the first source pixel under it, and the one after the last."""
    scale = length / new_length
    support = np.maximum(scale, 1.0)
    centre = (outputs + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    end = np.minimum((centre + support + 0.5).astype(np.int64), length)
    return centre, 1.0 / support, first, end


def nearest_sources(length: NDArray[np.int64], new_length: NDArray[np.int64], outputs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Source pixel of each output of Pillow's nearest filter.

    Args:
        length: (B, 1) source pixels along each axis.
        new_length: (B, 1) pixels after the resize.
        outputs: (B, n) positions in the resized axis, each in [0, new_length).

    Returns:
        int64 (B, n), positions in the source axis.
    """
    # Pillow steps from output to output by addition; a product would round to another pixel where a position is nearly whole.
    steps = np.empty((len(outputs), int(outputs.max()) + 1))
    steps[:] = length / new_length
    steps[:, 0] *= 0.5
    sources: NDArray[np.int64] = np.minimum(steps.cumsum(axis=1)[np.arange(len(outputs))[:, None], outputs].astype(np.int64), length - 1)
    return sources


def resample_linear(source: Tensor, columns: Taps, rows: Taps, result: Tensor | None = None) -> Tensor:
    """Resample a batch along the columns, then along the rows.

    Args:
        source: (B, C, h, w), uint8 or float32, finite.
        columns: Taps (K, B, W), positions in [0, w); fixed for uint8.
        rows: Taps (K, B, H), positions in [0, h); fixed for uint8.
        result: where to write, contiguous; a new tensor if None.

    Returns:
        float32 (B, C, H, W). For uint8 both passes round to whole numbers, half up, in Pillow's fixed point.
    """
    samples, bands, height, width = source.shape
    new_height, new_width = rows.sources.shape[2], columns.sources.shape[2]
    if result is None:
        result = torch.empty((samples, bands, new_height, new_width), dtype=torch.float32, device=source.device)
    wide = source.new_empty(samples * bands, new_width, height)
    _sum_lines(source.reshape(-1, height, width).transpose(1, 2), columns, wide)
    _sum_lines(wide.transpose(1, 2), rows, result.view(-1, new_height, new_width))
    return result


def take_nearest(planes: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pick single pixels.

    Args:
        planes: (B, h, w), any dtype.
        rows: int64 (B, H), positions in [0, h).
        columns: int64 (B, W), positions in [0, w).

    Returns:
        A new (B, H, W) of the same dtype.
    """
    samples, height, width = planes.shape
    offset = torch.arange(samples, device=planes.device).view(-1, 1) * height
    lines = planes.reshape(samples * height, width).index_select(0, (rows + offset).view(-1)).view(samples, -1, width)
    return lines.gather(2, columns.unsqueeze(1).expand(-1, rows.shape[1], -1))


def _sum_lines(lines: Tensor, taps: Taps, result: Tensor) -> None:
    """Write weighted sums of the lines of each plane, (N, L, D), into (N, outputs, D)."""
    planes, length, depth = lines.shape
    whole, on = lines.dtype == torch.uint8, lines.device
    count, samples, outputs = taps.sources.shape
    offsets = np.arange(0, planes * length, length).reshape(samples, -1, 1)
    index = torch.from_numpy(taps.sources[:, :, None] + offsets).to(on)
    factors = torch.from_numpy(taps.weights).to(torch.int32 if whole else torch.float32).to(on).view(count, samples, 1, outputs, 1)
    # Lines are made contiguous memory: copying whole lines is far cheaper than picking single pixels.
    table, found = lines.reshape(-1, depth), result.view(samples, -1, outputs, depth)
    step = max((_CHUNK_CPU if on.type == "cpu" else _CHUNK_ACCELERATOR) // (samples * outputs * depth), 1)
    for bands in (slice(start, start + step) for start in range(0, found.shape[1], step)):
        part = found[:, bands]
        total = torch.full(part.shape, 1 << (_PRECISION_BITS - 1) if whole else 0, dtype=factors.dtype, device=on)
        for one, factor in zip(index[:, :, bands].flatten(1), factors, strict=True):
            total.addcmul_(table.index_select(0, one).view(part.shape), factor)
        # At most 255 and a rounding error of the weights, so neither the sum nor the result can overflow.
        part.copy_(total.bitwise_right_shift_(_PRECISION_BITS) if whole else total)
