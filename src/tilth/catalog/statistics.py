"""What the pixels of one raster are like: level, spread and correlation of its bands, from a thinned read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilth.imagery.raster import Pixels, RasterInfo, Window, thinned_positions, thinning, window_inside
from tilth.imagery.read import read_info, read_overview, read_pixels

DISTINCT_MOST = 1024
"""Distinct values are counted up to this."""

PATCH_SIDE = 8
"""Side of the patches whose colour and texture are measured, in pixels of the thinned raster."""

PATCHES_MOST = 256
"""Patches kept of a raster."""

# Stored numbers read at once from a window that is thinned afterwards: bounds memory to some 64 MB.
_READ_NUMBERS = 1 << 24


@dataclass(frozen=True)
class BandStatistics:
    """One band over the valid pixels of a thinned raster, in stored units.

    Attributes:
        minimum: smallest value.
        maximum: largest value.
        mean: mean.
        std: standard deviation.
        p02: value below which 2 % of the pixels lie.
        p50: median.
        p98: value below which 98 % of the pixels lie.
        zeros: share of valid pixels that are exactly 0, in [0, 1].
        distinct: number of different values, counted up to :data:`DISTINCT_MOST`.
    """

    minimum: float
    maximum: float
    mean: float
    std: float
    p02: float
    p50: float
    p98: float
    zeros: float
    distinct: int


@dataclass(frozen=True, eq=False)
class RasterStatistics:
    """All bands of a thinned raster or window.

    Attributes:
        info: the header.
        bands: one entry a band; empty where no pixel is valid.
        valid_share: share of pixels that are valid, in [0, 1].
        correlation: float64 (C, C), Pearson over valid pixels; NaN where a band does not vary.
        patches: float32 (2, C, n), mean and standard deviation in stored units of at most :data:`PATCHES_MOST` square patches without
            a pixel that is not valid, spread evenly; what is smooth is told from what is not.
    """

    info: RasterInfo
    bands: tuple[BandStatistics, ...]
    valid_share: float
    correlation: NDArray[np.float64]
    patches: NDArray[np.float32]


def raster_statistics(uri: str, window: Window | None = None, longest_side: int = 512) -> RasterStatistics:
    """Measure the bands of a raster, thinned by nearest neighbour; memory does not grow with the raster.

    Args:
        uri: as for :func:`tilth.imagery.read.read_info`.
        window: must lie inside the raster; default the whole raster.
        longest_side: no side of what is looked at is longer, in pixels.

    Raises:
        As :func:`tilth.imagery.read.read_pixels`.
    """
    info = read_info(uri)
    window = window_inside(uri, window, info.width, info.height)
    whole = window == (0, 0, info.width, info.height)
    return pixel_statistics(read_overview(uri, longest_side) if whole else _thinned_window(info, window, longest_side), info)


def pixel_statistics(pixels: Pixels, info: RasterInfo) -> RasterStatistics:
    """Measure pixels that were read already; see :func:`raster_statistics`.

    Args:
        pixels: data (C, h, w) and what of it is valid.
        info: header of the raster they come from.
    """
    patches = _patches(pixels)
    valid = pixels.valid.reshape(-1)
    values = pixels.data.reshape(len(pixels.data), -1)
    values = values if valid.all() else values[:, valid]
    count = values.shape[1]
    if not count:
        nothing = np.full((len(values), len(values)), np.nan)
        return RasterStatistics(info, (), 0.0, nothing, patches)
    return RasterStatistics(
        info=info,
        bands=tuple(_band(band) for band in values),
        valid_share=count / valid.size,
        correlation=correlations(values),
        patches=patches,
    )


def thin(pixels: Pixels, longest_side: int) -> Pixels:
    """Thin pixels by nearest neighbour so that no side is longer than given, in pixels."""
    height, width = pixels.valid.shape
    thin_width, thin_height = thinning(width, height, longest_side)
    if (thin_width, thin_height) == (width, height):
        return pixels
    rows, columns = thinned_positions(height, thin_height)[:, None], thinned_positions(width, thin_width)
    return Pixels(pixels.data[:, rows, columns], pixels.valid[rows, columns])


def correlations(values: NDArray[Any]) -> NDArray[np.float64]:
    """Pearson correlation of bands (C, n): float64 (C, C), NaN where a band does not vary."""
    centred = values - values.mean(axis=1, dtype=np.float64, keepdims=True)
    products = centred @ centred.T
    length = np.sqrt(np.diagonal(products))
    # Rounding of the mean leaves a trace of variation in constant bands of large values.
    length = np.where(length <= 1e-9 * np.abs(values).max(axis=1) * np.sqrt(values.shape[1]), np.nan, length)
    result: NDArray[np.float64] = np.clip(products / length / length[:, None], -1, 1)
    return result


def _patches(pixels: Pixels) -> NDArray[np.float32]:
    """Mean and standard deviation of square patches: float32 (2, C, n)."""
    count, height, width = pixels.data.shape
    side = min(PATCH_SIDE, height, width)
    down, across = height // side, width // side
    region = (slice(0, down * side), slice(0, across * side))
    whole = pixels.valid[region].reshape(down, side, across, side).all(axis=(1, 3)).reshape(-1)
    chosen = np.flatnonzero(whole)
    chosen = chosen[thinned_positions(chosen.size, min(chosen.size, PATCHES_MOST))] if chosen.size else chosen
    data = pixels.data[:, *region].reshape(count, down, side, across, side).transpose(0, 1, 3, 2, 4).reshape(count, down * across, side**2)
    cut = data[:, chosen].astype(np.float32)
    return np.stack([cut.mean(axis=2), cut.std(axis=2)])


def _band(values: NDArray[Any]) -> BandStatistics:
    p02, p50, p98 = np.percentile(values, (2, 50, 98)).tolist()
    return BandStatistics(
        minimum=float(values.min()),
        maximum=float(values.max()),
        mean=float(values.mean(dtype=np.float64)),
        std=float(values.std(dtype=np.float64)),
        p02=p02,
        p50=p50,
        p98=p98,
        zeros=float((values == 0).mean()),
        distinct=min(DISTINCT_MOST, np.unique(values).size),
    )


def _thinned_window(info: RasterInfo, window: Window, longest_side: int) -> Pixels:
    """Read a window in strips of rows and keep the pixels that a thinning keeps."""
    column, row, width, height = window
    thin_width, thin_height = thinning(width, height, longest_side)
    rows, columns = thinned_positions(height, thin_height), thinned_positions(width, thin_width)
    strip = max(1, _READ_NUMBERS // (info.count * width))
    data, valid = [], []
    for top in range(0, height, strip):
        kept = rows[(rows >= top) & (rows < top + strip)] - top
        if kept.size:
            part = read_pixels(info.uri, Window(column, row + top, width, min(strip, height - top)))
            data.append(part.data[:, kept[:, None], columns])
            valid.append(part.valid[kept[:, None], columns])
    return Pixels(np.concatenate(data, axis=1), np.concatenate(valid, axis=0))
