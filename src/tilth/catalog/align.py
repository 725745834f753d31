"""Label rasters of another grid, resampled onto their image's by nearest neighbour."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilth.catalog.index_raster import Blocks, blocks_of, write_index_raster
from tilth.classes import IGNORE_INDEX
from tilth.errors import DataError, needs_extra
from tilth.imagery.gdal import rasterio_module
from tilth.imagery.grid import map_position, pixel_position, short_crs, window_transform
from tilth.imagery.made_from import grid_settings, stamp_of
from tilth.imagery.read import RasterInfo, Window, read_info, read_label

_SIDE = 1024
_LARGEST = 2**26
"""Pixels of the label read at once; a finer label is taken in smaller pieces."""

_TOLERANCE_PX = 0.01
"""Of the transformation between two CRS."""


def align_label(label: str, image: RasterInfo, target: Path) -> int:
    """Write a label on the grid of its image: for each pixel the class at its centre, 255 where the label has none.

    Args:
        label: one-band raster of class ids, with CRS and geotransform.
        image: header of the image, with CRS and geotransform.
        target: GeoTIFF to write, unless it is there already, whole and made from the same.

    Returns:
        Pixels with a label.

    Raises:
        DataError: values that are no class ids, or there is no way from one CRS to the other.
        UnreadableFileError: the label is damaged.
    """
    with needs_extra("geo", "resampling"):
        from rasterio._err import CPLE_BaseError

    info = read_info(label)
    stamp = stamp_of(["nearest", grid_settings(image)], [info])

    def make() -> Blocks:
        for window in blocks_of(image, _SIDE):
            try:
                block = _resampled(info, image, window)
            # The errors of PROJ and of GDAL's warper; what cannot be read has been named already.
            except (rasterio_module().errors.RasterioError, CPLE_BaseError) as error:
                ways = f"from {short_crs(info.crs)} to {short_crs(image.crs)}"
                reason = " ".join(str(error).split())[:120]
                raise DataError(f"{label}: cannot be resampled {ways}, that of its image {image.uri}: {reason}") from None
            yield window, block

    return write_index_raster(target, image, stamp, make)


def _resampled(label: RasterInfo, image: RasterInfo, window: Window) -> NDArray[np.uint8]:
    """Resample one block; in quarters where it needs too much of a finer label."""
    seen = _window_below(label, image, window)
    block = np.full((window.height, window.width), IGNORE_INDEX, dtype=np.uint8)
    if seen is None:
        return block
    if seen.width * seen.height > _LARGEST and window.width * window.height > 1:
        for part in _quarters(window):
            rows = slice(part.row - window.row, part.row - window.row + part.height)
            columns = slice(part.column - window.column, part.column - window.column + part.width)
            block[rows, columns] = _resampled(label, image, part)
        return block
    from rasterio.warp import Resampling, reproject

    # GDAL never changes a value where 255 is no data on both sides.
    reproject(
        read_label(label.uri, seen),
        block,
        src_transform=_affine(label, seen),
        src_crs=label.crs,
        src_nodata=IGNORE_INDEX,
        dst_transform=_affine(image, window),
        dst_crs=image.crs,
        dst_nodata=IGNORE_INDEX,
        resampling=Resampling.nearest,
        tolerance=_TOLERANCE_PX,
    )
    return block


def _window_below(label: RasterInfo, image: RasterInfo, window: Window) -> Window | None:
    """Find the part of a label that lies under a block of its image; None where there is none."""
    from rasterio.warp import transform

    steps = np.linspace(0, 1, 17)
    across, down = (axis.ravel() for axis in np.meshgrid(steps * window.width, steps * window.height))
    assert image.transform is not None
    assert label.transform is not None
    x, y = map_position(image.transform, window.column + across, window.row + down)
    if image.crs != label.crs:
        x, y = (np.asarray(axis) for axis in transform(image.crs, label.crs, x.tolist(), y.tolist()))
    columns, rows = pixel_position(label.transform, x, y)
    known = np.isfinite(columns) & np.isfinite(rows)
    if not known.any():
        return None
    # A margin for what lies between the points looked at.
    margin = 2 + 0.02 * max(np.ptp(columns[known]), np.ptp(rows[known]))
    left, right = max(0, int(columns[known].min() - margin)), min(label.width, int(columns[known].max() + margin) + 1)
    top, bottom = max(0, int(rows[known].min() - margin)), min(label.height, int(rows[known].max() + margin) + 1)
    return Window(left, top, right - left, bottom - top) if left < right and top < bottom else None


def _quarters(window: Window) -> Iterator[Window]:
    column, row, width, height = window
    for top, high in ((0, height // 2), (height // 2, height - height // 2)):
        for left, wide in ((0, width // 2), (width // 2, width - width // 2)):
            if wide and high:
                yield Window(column + left, row + top, wide, high)


def _affine(info: RasterInfo, window: Window) -> Any:
    from rasterio import Affine

    assert info.transform is not None
    return Affine(*window_transform(info.transform, window))
