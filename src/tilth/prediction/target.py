"""The grid of a map that is not the grid of its scene."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tilth.errors import DataError, UsageError
from tilth.imagery.gdal import rasterio_module
from tilth.imagery.raster import RasterInfo, Window

_NEARLY = 0.01
"""Grids that differ by less than this part of a pixel are one: writers round."""

_LARGEST = 2**42
"""Pixels of a map; GeoTIFF cannot address many more tiles."""

_WIDE, _SPARSE = 2**30, 0.01
"""A mosaic of more pixels than this, of which scenes cover a smaller part than this, is a mistake: scenes of other places."""

_EDGE_POINTS = 21
"""Points a side when an outline is taken into another CRS, where straight lines bend."""


def grid_for(info: RasterInfo, crs: str | None, resolution: float | None, *, upright: bool = False) -> RasterInfo | None:
    """Work out the grid of a map.

    With a resolution, pixel edges lie on whole multiples of it, so maps of neighbouring scenes fit each other.

    Args:
        info: header of the scene.
        crs: of the map; None for the scene's.
        resolution: side of a pixel in units of that CRS; None for about the scene's.
        upright: whether a scene that is rotated needs another grid, too.

    Returns:
        Header with the grid of the map; None where that is the grid of the scene.

    Raises:
        UsageError: a CRS that is none, a resolution that is not greater than 0, coarser than the scene is wide or absurdly fine, or a
            scene without a place on the Earth.
    """
    if crs is None and resolution is None and not (upright and _is_rotated(info)):
        return None
    if resolution is not None and not (resolution > 0 and math.isfinite(resolution)):
        raise UsageError(f"resolution {resolution:g}: expected the side of a pixel in units of the CRS, greater than 0")
    if info.crs is None or info.transform is None:
        raise UsageError(f"{info.uri}: has no CRS and no place on the Earth, so it cannot be resampled; leave out --crs and --resolution")
    source, target = _parse(info.crs), _parse(crs or info.crs)
    if source == target and not _is_rotated(info) and _same_size(info, resolution):
        return None
    if resolution is not None:
        return replace(_multiples(info, target, resolution), crs=info.crs if source == target else _name(target))
    from rasterio._err import CPLE_BaseError  # not public, yet what an impossible projection ends in
    from rasterio.errors import RasterioError
    from rasterio.warp import calculate_default_transform

    try:
        affine, width, height = calculate_default_transform(source, target, info.width, info.height, *_bounds(info))
    except (RasterioError, CPLE_BaseError) as error:
        raise UsageError(f"{info.uri}: cannot be taken into {crs}: {' '.join(str(error).split())}") from None
    return replace(
        info, width=int(width), height=int(height), crs=info.crs if source == target else _name(target), transform=tuple(affine)[:6]
    )


def union_grid(base: RasterInfo, infos: Sequence[RasterInfo]) -> RasterInfo:
    """Grow a grid, north up, by whole pixels until it holds all of these rasters.

    Raises:
        DataError: they are so far apart that hardly a pixel of it would lie in one of them.
        UsageError: one has no place in the CRS of the grid.
    """
    boxes = [_box(base, info) for info in infos]
    left, top = min(box[0] for box in boxes), min(box[1] for box in boxes)
    right, bottom = max(box[2] for box in boxes), max(box[3] for box in boxes)
    whole, covered = (right - left) * (bottom - top), sum((box[2] - box[0]) * (box[3] - box[1]) for box in boxes)
    if whole > _WIDE and covered < _SPARSE * whole:
        raise DataError(
            f"the {len(infos)} scenes lie far apart: their mosaic of {right - left:,} x {bottom - top:,} pixels would be empty but for "
            f"{100 * covered / whole:.2g} %; map them one by one, or those that are close together"
        )
    return replace(_shifted(base, left, top), width=right - left, height=bottom - top)


def part_grid(whole: RasterInfo, info: RasterInfo) -> tuple[RasterInfo, Window]:
    """Find the part of a grid that a raster covers: its header and its place."""
    left, top, right, bottom = _box(whole, info)
    left, top, right, bottom = max(left, 0), max(top, 0), min(right, whole.width), min(bottom, whole.height)
    return replace(_shifted(whole, left, top), width=right - left, height=bottom - top), Window(left, top, right - left, bottom - top)


def aligned(whole: RasterInfo, info: RasterInfo) -> Window | None:
    """Say where a raster lies on a grid, if it does, shifted by whole pixels; None otherwise."""
    assert whole.transform is not None
    assert info.transform is not None
    assert whole.crs is not None
    assert info.crs is not None
    if _parse(whole.crs) != _parse(info.crs):
        return None
    (a, b, x, d, e, y), (a1, b1, x1, d1, e1, y1) = whole.transform, info.transform
    # Along the raster the difference of the pixels adds up.
    stretched = max(abs(a1 - a) * info.width / abs(a), abs(e1 - e) * info.height / abs(e))
    column, row = (x1 - x) / a, (y1 - y) / e
    if stretched > _NEARLY or any((b, d, b1, d1)) or abs(column - round(column)) > _NEARLY or abs(row - round(row)) > _NEARLY:
        return None
    return Window(round(column), round(row), info.width, info.height)


def area_grid(info: RasterInfo, area: Window) -> RasterInfo:
    """Cut a part out of a grid."""
    return replace(_shifted(info, area.column, area.row), width=area.width, height=area.height)


def _shifted(info: RasterInfo, column: int, row: int) -> RasterInfo:
    if info.transform is None:
        return info
    a, b, c, d, e, f = info.transform
    return replace(info, transform=(a, b, c + a * column + b * row, d, e, f + d * column + e * row))


def _box(grid: RasterInfo, info: RasterInfo) -> tuple[int, int, int, int]:
    """First column and row, and those after the last, of the pixels of an upright grid that hold a raster."""
    assert grid.transform is not None
    assert grid.crs is not None
    a, _, x, _, e, y = grid.transform
    left, bottom, right, top = _bounds_in(info, _parse(grid.crs))
    columns, rows = sorted(((left - x) / a, (right - x) / a)), sorted(((top - y) / e, (bottom - y) / e))
    return (
        math.floor(columns[0] + _NEARLY),
        math.floor(rows[0] + _NEARLY),
        math.ceil(columns[1] - _NEARLY),
        math.ceil(rows[1] - _NEARLY),
    )


def _bounds(info: RasterInfo) -> tuple[float, float, float, float]:
    """Left, bottom, right, top of the corners."""
    assert info.transform is not None
    a, b, c, d, e, f = info.transform
    corners = [(column, row) for column in (0, info.width) for row in (0, info.height)]
    x, y = [a * column + b * row + c for column, row in corners], [d * column + e * row + f for column, row in corners]
    return min(x), min(y), max(x), max(y)


def _is_rotated(info: RasterInfo) -> bool:
    return info.transform is not None and any(info.transform[index] for index in (1, 3))


def _same_size(info: RasterInfo, resolution: float | None) -> bool:
    assert info.transform is not None
    sides = abs(info.transform[0]), abs(info.transform[4])
    return resolution is None or all(abs(side - resolution) * max(info.width, info.height) < _NEARLY * resolution for side in sides)


def _multiples(info: RasterInfo, target: Any, resolution: float) -> RasterInfo:
    """The pixels of this size, on whole multiples of it, that hold a raster."""
    left, bottom, right, top = _bounds_in(info, target)
    if resolution > min(right - left, top - bottom):
        raise UsageError(
            f"resolution {resolution:g} is coarser than {info.uri} is wide ({min(right - left, top - bottom):g}); "
            f"it counts in units of the CRS: {_unit(target)}"
        )
    first, above = math.floor(left / resolution + _NEARLY), math.ceil(top / resolution - _NEARLY)
    width, height = math.ceil(right / resolution - _NEARLY) - first, above - math.floor(bottom / resolution + _NEARLY)
    if width * height > _LARGEST:
        raise UsageError(
            f"resolution {resolution:g} makes a map of {width:,} x {height:,} pixels of {info.uri}; it counts in units of the CRS: "
            f"{_unit(target)}"
        )
    transform = (resolution, 0.0, first * resolution, 0.0, -resolution, above * resolution)
    return replace(info, width=width, height=height, transform=transform)


def _bounds_in(info: RasterInfo, target: Any) -> tuple[float, float, float, float]:
    """Left, bottom, right, top in another CRS."""
    assert info.crs is not None
    if _parse(info.crs) == target:
        return _bounds(info)
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import RasterioError
    from rasterio.warp import transform_bounds

    try:
        left, bottom, right, top = transform_bounds(_parse(info.crs), target, *_bounds(info), densify_pts=_EDGE_POINTS)
    except (RasterioError, CPLE_BaseError) as error:
        raise UsageError(f"{info.uri}: cannot be taken into {_name(target)[:40]}: {' '.join(str(error).split())}") from None
    if not all(map(math.isfinite, (left, bottom, right, top))):
        raise UsageError(f"{info.uri}: cannot be taken into {_name(target)[:40]}: it has no place there")
    return left, bottom, right, top


def _parse(crs: str) -> Any:
    rasterio = rasterio_module()
    try:
        return rasterio.CRS.from_user_input(crs)
    # rasterio lets the failure to read the digits of "EPSG:x" through as it is.
    except (rasterio.errors.CRSError, ValueError):
        raise UsageError(f"unknown coordinate reference system {crs!r}; give EPSG:code or WKT") from None


def _name(crs: Any) -> str:
    code = crs.to_epsg(confidence_threshold=100)
    return f"EPSG:{code}" if code else str(crs.to_wkt())


def _unit(crs: Any) -> str:
    return "degrees" if crs.is_geographic else f"{crs.linear_units}s"
