"""Separable resampling with per-sample geometry, by Pillow's rules, in batches on any device.

Each output is a weighted sum of a few source pixels ("taps"). That is the product with a very sparse matrix per sample and axis. Summing
gathered lines does a small share of a dense product's work, and it lets 8-bit data stay in whole numbers: Pillow's fixed-point sums come
out exactly, also where 64-bit floats are slow or missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Pillow's fixed point for 8-bit images: 32 bits less 8 for the value and 2 for head room.
_PRECISION_BITS = 22
# Elements of one intermediate sum: on a CPU small enough for its cache, on an accelerator large enough to fill it.
_CHUNK_CPU = 1 << 20
_CHUNK_ACCELERATOR = 1 << 27


class Taps(NamedTuple):
    """Where outputs come from along one axis.

    Attributes:
        sources: int64 (outputs, K) or (B, outputs, K), positions of source pixels.
        weights: float64, same shape; rows sum to 1, or to 0 for an output in padding.
    """

    sources: NDArray[np.int64]
    weights: NDArray[np.float64]


def linear_taps(length: int, new_length: int, outputs: NDArray[np.integer[Any]]) -> Taps:
    """Weights of Pillow's bilinear filter: a triangle of half-width ``max(length / new_length, 1)`` source pixels.

    Args:
        length: source pixels along the axis.
        new_length: pixels after the resize.
        outputs: (n,) positions in the resized axis, each in [0, new_length).

    Returns:
        Taps (n, K); taps that fall off the border have weight 0 and repeat the last pixel, the others are renormalised.
    """
    scale = length / new_length
    support = max(scale, 1.0)
    centre = (outputs + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    end = np.minimum((centre + support + 0.5).astype(np.int64), length)
    positions = first[:, None] + np.arange(max(int((end - first).max()), 1))
    weights = np.maximum(1.0 - np.abs((positions - centre[:, None] + 0.5) * (1.0 / support)), 0.0)
    weights[positions >= end[:, None]] = 0.0
    # cumsum adds from left to right, as Pillow does; sum() would add in pairs and could differ in the last bit.
    return Taps(np.minimum(positions, length - 1), weights / weights.cumsum(axis=1)[:, -1:])


def nearest_sources(length: int, new_length: int, outputs: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Source pixel of each output of Pillow's nearest filter.

    Args:
        length: source pixels along the axis.
        new_length: pixels after the resize.
        outputs: (n,) positions in the resized axis, each in [0, new_length).

    Returns:
        int64 (n,), positions in the source axis.
    """
    scale = length / new_length
    # Pillow steps from output to output by addition; a product would round to another pixel where a position is nearly whole.
    steps = np.full(int(outputs.max()) + 1, scale)
    steps[0] = 0.5 * scale
    sources: NDArray[np.int64] = np.minimum(np.cumsum(steps)[outputs].astype(np.int64), length - 1)
    return sources


def stack_taps(taps: Sequence[Taps]) -> Taps:
    """Make one (B, n, K) of B taps (n, k), adding taps without weight up to the largest k."""
    most = max(one.sources.shape[1] for one in taps)

    def widen(values: NDArray[Any]) -> NDArray[Any]:
        return np.pad(values, ((0, 0), (0, most - values.shape[1])))

    return Taps(np.stack([widen(one.sources) for one in taps]), np.stack([widen(one.weights) for one in taps]))


def resample_linear(source: Tensor, columns: Taps, rows: Taps) -> Tensor:
    """Resample a batch along the columns, then along the rows.

    Args:
        source: (B, C, h, w), uint8 or float32, finite.
        columns: Taps (B, W, K), positions in [0, w).
        rows: Taps (B, H, K), positions in [0, h).

    Returns:
        float32 (B, C, H, W). For uint8 both passes round to whole numbers, half up, in Pillow's fixed point.
    """
    samples, bands, height, width = source.shape
    new_height, new_width = rows.sources.shape[1], columns.sources.shape[1]
    planes = source.reshape(samples * bands, height, width)
    result = torch.empty((samples * bands, new_height, new_width), dtype=torch.float32, device=source.device)
    column_taps, row_taps = _to_device(columns, bands, source), _to_device(rows, bands, source)
    budget = _CHUNK_CPU if source.device.type == "cpu" else _CHUNK_ACCELERATOR
    step = max(budget // max(new_width * max(height, new_height), 1), 1)
    for start in range(0, samples * bands, step):
        part = slice(start, start + step)
        # Lines to be summed are made contiguous memory: copying whole lines is far cheaper than picking single pixels.
        wide = _sum_lines(planes[part].transpose(1, 2), column_taps, part)
        result[part] = _sum_lines(wide.transpose(1, 2), row_taps, part)
    return result.view(samples, bands, new_height, new_width)


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


def _to_device(taps: Taps, bands: int, source: Tensor) -> tuple[Tensor, Tensor]:
    """Taps per plane: int64 sources and, for uint8 data, int32 fixed-point weights, else float32."""
    if source.dtype == torch.uint8:
        weights = torch.from_numpy((taps.weights * (1 << _PRECISION_BITS) + 0.5).astype(np.int32))
    else:
        weights = torch.from_numpy(taps.weights.astype(np.float32))
    sources = torch.from_numpy(taps.sources)
    return sources.to(source.device).repeat_interleave(bands, 0), weights.to(source.device).repeat_interleave(bands, 0)


def _sum_lines(lines: Tensor, taps: tuple[Tensor, Tensor], part: slice) -> Tensor:
    """Weighted sums of lines: (N, L, D) to (N, outputs, D), same dtype."""
    sources, weights = taps[0][part], taps[1][part]
    planes, outputs, count = sources.shape
    length, depth = lines.shape[1:]
    table = lines.reshape(planes * length, depth)
    offset = torch.arange(planes, device=lines.device).view(-1, 1, 1) * length
    index = (sources + offset).view(planes * outputs, count)
    factor = weights.reshape(planes * outputs, count, 1)
    whole = lines.dtype == torch.uint8
    total = torch.full(
        (planes * outputs, depth),
        1 << (_PRECISION_BITS - 1) if whole else 0,
        dtype=torch.int32 if whole else torch.float32,
        device=lines.device,
    )
    for tap in range(count):
        total.addcmul_(table.index_select(0, index[:, tap]), factor[:, tap])
    if whole:
        # At most 255 and a rounding error of the weights, so neither the sum nor the result can overflow.
        total = total.bitwise_right_shift_(_PRECISION_BITS).to(torch.uint8)
    return total.view(planes, outputs, depth)
