"""What passes in and out of rasters: a window, a header, a block of pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilth.errors import DataError


class Window(NamedTuple):
    """A rectangle of pixels: column and row of its upper left pixel, width and height, all in pixels."""

    column: int
    row: int
    width: int
    height: int


@dataclass(frozen=True)
class RasterInfo:
    """What a raster's header says.

    Attributes:
        uri: where it was read from.
        width: columns in pixels.
        height: rows in pixels.
        count: number of bands; an alpha channel is no band, it is part of what is ``valid``.
        dtype: NumPy name of the stored type, one for all bands.
        crs: ``EPSG:code`` or WKT; None for a plain image.
        transform: affine coefficients (a, b, c, d, e, f) from pixel to CRS coordinates, or None.
        nodata: stored value that means "no data", or None.
        band_names: descriptions of the bands; empty strings where there are none.
    """

    uri: str
    width: int
    height: int
    count: int
    dtype: str
    crs: str | None
    transform: tuple[float, float, float, float, float, float] | None
    nodata: float | None
    band_names: tuple[str, ...]


@dataclass(frozen=True)
class Pixels:
    """A window of pixels.

    Attributes:
        data: (C, h, w) in the stored type.
        valid: bool (h, w); False where any band is nodata, masked out or not finite.
        origin: row and column of the first pixel in the raster that they come from, where that matters and is known.
    """

    data: NDArray[Any]
    valid: NDArray[np.bool_]
    origin: tuple[int, int] = field(default=(0, 0), kw_only=True)


def window_inside(uri: str, window: Window | None, width: int, height: int) -> Window:
    """Return the window, by default the whole raster, after checking that it lies inside.

    Raises:
        DataError: empty, or reaching outside; the message names window and raster.
    """
    if window is None:
        return Window(0, 0, width, height)
    column, row, wide, high = window
    if wide < 1 or high < 1 or column < 0 or row < 0 or column + wide > width or row + high > height:
        raise DataError(
            f"{uri}: window of {wide} x {high} pixels at column {column}, row {row} "
            f"does not lie inside the raster of {width} x {height} pixels"
        )
    return Window(int(column), int(row), int(wide), int(high))


def finite(data: NDArray[Any]) -> NDArray[np.bool_]:
    """Say where all bands of (C, h, w) are finite numbers: bool (h, w)."""
    if data.dtype.kind != "f":
        return np.ones(data.shape[1:], dtype=np.bool_)
    result: NDArray[np.bool_] = np.isfinite(data).all(axis=0)
    return result


def thinning(width: int, height: int, longest_side: int) -> tuple[int, int]:
    """Width and height of a raster thinned so that no side is longer than ``longest_side``; never enlarged."""
    factor = max(1.0, width / longest_side, height / longest_side)
    return max(1, min(longest_side, round(width / factor))), max(1, min(longest_side, round(height / factor)))


def thinned_positions(size: int, thinned: int) -> NDArray[np.int64]:
    """Positions of the pixels that stand for the ``thinned`` cells of an axis: the middle of each cell."""
    return ((np.arange(thinned, dtype=np.int64) * 2 + 1) * size) // (2 * thinned)
