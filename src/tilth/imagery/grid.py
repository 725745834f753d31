"""Where pixels lie, and whether two rasters lie on one grid."""

from __future__ import annotations

import math
from typing import Any

from tilth.imagery.area import Transform, pixel_size_m
from tilth.imagery.raster import RasterInfo, Window

_TOLERANCE_PX = 0.01
"""The far corners may differ by so much of a pixel: writers round."""


def grid_difference(image: RasterInfo, other: RasterInfo, what: str = "label") -> str | None:
    """Say how the grid of a raster differs from an image's, for the end of a message that names the image.

    A raster without a geotransform or a CRS is taken to lie where the image lies.

    Args:
        image: header of the image.
        other: header of the raster that belongs to it.
        what: what the other raster is to the image.

    Returns:
        One clause that names the other file and both grids; None where the grids are one.
    """
    if (image.width, image.height) != (other.width, other.height):
        return (
            f"image has {image.width} x {image.height} pixels, its {what} {other.uri} {other.width} x {other.height}; "
            "they must share one grid"
        )
    if image.transform is None or other.transform is None:
        return None
    if image.crs != other.crs and None not in (image.crs, other.crs):
        return f"CRS is {short_crs(image.crs)}, that of its {what} {other.uri} {short_crs(other.crs)}; warp the {what} first"
    a, b, _, d, e, _ = image.transform
    pixel = max(math.hypot(a, d), math.hypot(b, e))
    for column, row in ((0, 0), (image.width, 0), (0, image.height), (image.width, image.height)):
        here, there = map_position(image.transform, column, row), map_position(other.transform, column, row)
        if math.dist(here, there) > _TOLERANCE_PX * pixel:
            return f"pixel (column {column}, row {row}) lies at {here}, that of its {what} {other.uri} at {there}; warp the {what} first"
    return None


def short_crs(crs: str | None) -> str:
    """Shorten the name of a CRS, which may be a page of WKT, for a message."""
    return str(crs)[:40]


def map_position(transform: Transform, column: Any, row: Any) -> tuple[Any, Any]:
    """Say where pixel positions lie in map coordinates; numbers or arrays, counted from the outer corner of the first pixel."""
    a, b, c, d, e, f = transform
    return a * column + b * row + c, d * column + e * row + f


def pixel_position(transform: Transform, x: Any, y: Any) -> tuple[Any, Any]:
    """Say at which column and row map coordinates lie; the inverse of :func:`map_position`."""
    a, b, c, d, e, f = transform
    determinant = a * e - b * d
    return (e * (x - c) - b * (y - f)) / determinant, (a * (y - f) - d * (x - c)) / determinant


def window_transform(transform: Transform, window: Window) -> Transform:
    """Return the transform of a window of a raster."""
    a, b, _, d, e, _ = transform
    x, y = map_position(transform, window.column, window.row)
    return a, b, x, d, e, y


def pixel_ratio(source: RasterInfo, grid: RasterInfo) -> tuple[float, float]:
    """Tell how large the pixels of a raster are on another grid: what smoothing follows when it is resampled.

    Args:
        source: header of the raster, with a transform.
        grid: header of the grid, with a transform.

    Returns:
        Pixels of the grid that a pixel of the source is wide and high, measured on the ground in the middle of both.
    """
    (source_wide, source_high), (wide, high) = _pixel_sides(source), _pixel_sides(grid)
    return source_wide / wide, source_high / high


def shares_ground(first: RasterInfo, second: RasterInfo) -> bool:
    """Say whether the surrounding rectangles of two rasters overlap; both have a CRS and a transform."""
    from rasterio.warp import transform_bounds

    assert first.crs is not None
    assert second.crs is not None
    west, south, east, north = transform_bounds(first.crs, second.crs, *_bounds(first))
    left, bottom, right, top = _bounds(second)
    return bool(west < right and left < east and south < top and bottom < north)


def _bounds(info: RasterInfo) -> tuple[float, float, float, float]:
    """West, south, east and north end in map coordinates."""
    assert info.transform is not None
    corners = [map_position(info.transform, column, row) for column in (0, info.width) for row in (0, info.height)]
    xs, ys = zip(*corners, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _pixel_sides(info: RasterInfo) -> tuple[float, float]:
    """Width and height of a pixel: in metres on the ground, or in units of a CRS without a place on the Earth."""
    assert info.transform is not None
    found = None if info.crs is None else pixel_size_m(info.width, info.height, info.crs, info.transform)
    a, b, _, d, e, _ = info.transform
    return found or (math.hypot(a, d), math.hypot(b, e))
