"""Find the black surroundings that mosaics have where there is no image, in files that do not say so.

Drone and aerial mosaics are often cut into rectangles with black outside the flown area, without a nodata value, and then
JPEG-compressed, which turns pure black near the edge of the image into nearly black. A surrounding is told from dark water, roofs and
shadow by four things together: every band is at most 10; it touches the edge of the raster; it is large; and inside, away from what
compression blurs, it is of one single value. Over 1,419 8-bit images of towns, coasts and fields, the five surroundings there are had one
value all through their inside; the blackest lake, which a contrast stretch had clipped to 0, had it in 99.3 %. Water clipped still harder
would be taken for a surrounding: such scenes need the rule switched off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilth.errors import needs_extra
from tilth.imagery.raster import Window
from tilth.imagery.read import read_info, read_overview

DARK = 10
"""Highest stored value, in every band, of a pixel that may be surrounding. Chosen on a JPEG mosaic: the ring that compression blurs."""

BLACKEST = 2
"""Highest value that the inside may have: coarse JPEG tables store black as up to 2."""

PURE_SHARE = 0.999
"""Smallest share of the inside that has one single value; see above for what was measured."""

BLUR_PIXELS = 17
"""How far into a surrounding compression reaches: a JPEG block of halved chroma, and the pixel that interpolation adds."""

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
        inside: NDArray[np.bool_] = self.cells[rows[:, None], columns] & self.is_dark(data)
        return inside

    @staticmethod
    def is_dark(data: NDArray[Any]) -> NDArray[np.bool_]:
        """Say which pixels of uint8 (C, h, w) may belong to a surrounding if they lie where one is: bool (h, w)."""
        dark: NDArray[np.bool_] = data.max(axis=0) <= DARK
        return dark


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
    with needs_extra("geo", "finding black surroundings"):
        from scipy import ndimage

    info = read_info(uri)
    if info.nodata is not None:
        return None
    overview = read_overview(uri, longest_side)
    if not overview.valid.all():
        return None
    brightest = overview.data.max(axis=0)
    regions, count = ndimage.label(brightest <= DARK)
    sizes = np.bincount(regions.ravel(), minlength=count + 1)
    at_edge = np.unique(np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]]))
    pixels_a_cell = (info.width * info.height) / brightest.size
    smallest = max(MIN_PIXELS / pixels_a_cell, MIN_CELLS)
    # Beyond the raster's edge the surrounding goes on, so it is not worn away from there.
    steps = math.ceil(BLUR_PIXELS / math.sqrt(pixels_a_cell))
    inside = ndimage.binary_erosion(regions > 0, structure=np.ones((3, 3)), iterations=steps, border_value=1)
    chosen = [
        region for region in at_edge if region > 0 and sizes[region] >= smallest and _is_pure(brightest[inside & (regions == region)])
    ]
    if not chosen:
        return None
    cells = ndimage.binary_dilation(np.isin(regions, chosen), structure=np.ones((3, 3)))
    return BlackBorder(info.width, info.height, cells)


def _is_pure(values: NDArray[Any]) -> bool:
    """Say whether values, the brightest band of each pixel inside a region, are nearly all one and the same black."""
    if values.size == 0:
        return False
    return bool(np.bincount(values, minlength=BLACKEST + 1)[: BLACKEST + 1].max() >= PURE_SHARE * values.size)
