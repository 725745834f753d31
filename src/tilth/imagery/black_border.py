"""Find the black surroundings that mosaics have where there is no image, in files that do not say so.

Drone and aerial mosaics are often cut into rectangles with black outside the flown area, without a nodata value, and then JPEG-compressed,
which turns pure black into nearly black. A surrounding is told from dark water, roofs and shadow by four things together: every band
is at most 10; it touches the edge of the raster; it is large; and at least half of it is black to within the compression's noise,
which sensor noise keeps real surfaces from being.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilth.imagery.raster import Window
from tilth.imagery.read import read_info, read_overview

DARK = 10
"""Highest stored value, in every band, of a pixel that may be surrounding. Chosen on a JPEG mosaic: the ring that compression blurs."""

PURE = 2
"""Highest stored value that counts as black: chroma rounding turns (0, 0, 0) into values up to 2."""

MIN_PIXELS = 4096
"""Smallest surrounding, in pixels of the raster; thinned, at least :data:`MIN_CELLS` cells."""

MIN_CELLS = 16

OVERVIEW_SIDE = 2048
"""The decision is taken on a raster thinned to this side, so memory does not grow with the scene."""


@dataclass(frozen=True)
class BlackBorder:
    """Black surroundings of one raster.

    Attributes:
        width: columns of the raster.
        height: rows of the raster.
        cells: bool (h, w) on the thinned raster, True where a surrounding is, widened by one cell.
    """

    width: int
    height: int
    cells: NDArray[np.bool_]

    def mask(self, data: NDArray[Any], window: Window) -> NDArray[np.bool_]:
        """Say which pixels of a window lie in a black surrounding.

        Args:
            data: uint8 (C, h, w), the window's pixels.
            window: where they lie in the raster.

        Returns:
            bool (h, w).
        """
        high, wide = self.cells.shape
        rows = (np.arange(window.row, window.row + window.height) * high) // self.height
        columns = (np.arange(window.column, window.column + window.width) * wide) // self.width
        inside: NDArray[np.bool_] = self.cells[rows[:, None], columns] & (data.max(axis=0) <= DARK)
        return inside


def find_black_border(uri: str, longest_side: int = OVERVIEW_SIDE) -> BlackBorder | None:
    """Look for black surroundings of an 8-bit optical raster.

    Args:
        uri: a raster of uint8, not empty.
        longest_side: side of the thinned raster that decides, in pixels.

    Returns:
        The surroundings, or None where there are none or where the raster itself says which pixels are valid.

    Raises:
        DataError: the raster cannot be read; see :func:`tilth.imagery.read.read_pixels`.
    """
    from scipy import ndimage

    info = read_info(uri)
    overview = read_overview(uri, longest_side)
    if info.nodata is not None or not overview.valid.all():
        return None
    brightest = overview.data.max(axis=0)
    regions, count = ndimage.label(brightest <= DARK)
    if count == 0:
        return None
    sizes = np.bincount(regions.ravel(), minlength=count + 1)
    black = np.bincount(regions[brightest <= PURE], minlength=count + 1)
    at_edge = np.unique(np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]]))
    pixels_a_cell = (info.width * info.height) / brightest.size
    smallest = max(MIN_PIXELS / pixels_a_cell, MIN_CELLS)
    chosen = [region for region in at_edge if region > 0 and sizes[region] >= smallest and 2 * black[region] >= sizes[region]]
    if not chosen:
        return None
    cells = ndimage.binary_dilation(np.isin(regions, chosen), structure=np.ones((3, 3)))
    return BlackBorder(info.width, info.height, cells)
