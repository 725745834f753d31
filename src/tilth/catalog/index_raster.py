"""Index rasters that a build makes: uint8 GeoTIFFs that say what they were made from, so that a stopped build goes on where it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilth.classes import IGNORE_INDEX
from tilth.errors import TilthError
from tilth.imagery.made_from import STAMP, stamp_in
from tilth.imagery.read import RasterInfo, Window, read_info, read_label

BLOCK = 2048
"""Side of the blocks that are held in memory, in pixels; a multiple of the tiles of the file."""

Blocks = Iterable[tuple[Window, NDArray[np.uint8]]]


def write_index_raster(target: Path, like: RasterInfo, stamp: str, make: Callable[[], Blocks]) -> int:
    """Write an index raster in one go, block by block, unless a whole one of the same stamp is there.

    Args:
        target: GeoTIFF to write; 255 is its nodata.
        like: header whose grid it gets.
        stamp: as :func:`tilth.imagery.made_from.stamp_of` makes it.
        make: gives the blocks, uint8 (h, w), that cover the grid.

    Returns:
        Pixels with a label, that is other than 255.

    Raises:
        UsageError: the target is a file that was not made by tilth.
        TilthError: the place cannot be written to.
    """
    from tilth.imagery.geotiff import Legend, raster_file

    kept = _labelled_pixels(target, stamp)
    if kept is not None:
        return kept
    labelled = 0
    grid: dict[str, Any] = {"width": like.width, "height": like.height, "crs": like.crs, "transform": like.transform}
    with raster_file(target, count=1, dtype="uint8", legend=Legend(tags={STAMP: stamp}, nodata=IGNORE_INDEX), **grid) as write:
        for window, block in make():
            write(block, window.column, window.row)
            labelled += int(np.count_nonzero(block != IGNORE_INDEX))
    return labelled


def blocks_of(info: RasterInfo, side: int = BLOCK) -> Iterator[Window]:
    """Cut a grid into blocks, row by row."""
    for row in range(0, info.height, side):
        for column in range(0, info.width, side):
            yield Window(column, row, min(side, info.width - column), min(side, info.height - row))


def _labelled_pixels(target: Path, stamp: str) -> int | None:
    """Count the labelled pixels of a raster that is there, whole and of this stamp; None where there is none."""
    if stamp_in(target) != stamp:
        return None
    try:
        info = read_info(str(target))
        counts = (np.count_nonzero(read_label(str(target), window) != IGNORE_INDEX) for window in blocks_of(info))
        return int(sum(counts))
    # Whatever a damaged file makes the reader say, it is not whole and is written anew.
    except (TilthError, OSError):
        return None
