"""Area of interest: the part of a scene that is to be mapped, from a vector file or from bounds."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilth.errors import DataError, MissingFileError, UnreadableFileError, UsageError, needs_extra
from tilth.imagery.grid import short_crs
from tilth.imagery.raster import RasterInfo, Window

_PIECES = 64
"""Edges are cut into pieces no longer than this part of the area before they are taken into another CRS, where straight lines bend."""


@dataclass(frozen=True)
class Interest:
    """What is wanted of a scene.

    Attributes:
        window: the smallest rectangle of pixels of the scene that holds it.
        shapes: polygons in the scene's CRS; None where the whole rectangle is wanted.
        transform: of the scene; affine coefficients (a, b, c, d, e, f).
    """

    window: Window
    shapes: tuple[Any, ...] | None
    transform: tuple[float, float, float, float, float, float]

    def mask(self, window: Window) -> NDArray[np.bool_]:
        """Say which pixels of a window of the scene are wanted: those whose centres lie inside.

        Whole rows of the area are drawn whatever the columns of the window, so a centre on an edge falls to the same side in all.

        Returns:
            bool (h, w).
        """
        area = self.window
        wanted = np.zeros((window.height, window.width), dtype=np.bool_)
        left, right = max(window.column, area.column), min(window.column + window.width, area.column + area.width)
        top, bottom = max(window.row, area.row), min(window.row + window.height, area.row + area.height)
        if left >= right or top >= bottom:
            return wanted
        rows, columns = slice(top - window.row, bottom - window.row), slice(left - window.column, right - window.column)
        if self.shapes is None:
            wanted[rows, columns] = True
            return wanted
        from rasterio import Affine
        from rasterio.features import rasterize

        a, b, c, d, e, f = self.transform
        place = Affine(a, b, c + a * area.column + b * window.row, d, e, f + d * area.column + e * window.row)
        drawn = rasterize(self.shapes, out_shape=(window.height, area.width), transform=place, default_value=1, dtype="uint8")
        wanted[rows, columns] = drawn[rows, left - area.column : right - area.column] > 0
        return wanted

    def identity(self) -> list[Any]:
        """Say what is wanted, JSON-ready: the rectangle, and a hash of the polygons."""
        shapes = b"".join(shape.wkb for shape in self.shapes or ())
        return [*self.window, hashlib.sha256(shapes).hexdigest() if shapes else None]


def area_from_file(path: str | Path, info: RasterInfo) -> Interest:
    """Find the polygons of a vector file in a scene.

    Args:
        path: GeoPackage, GeoJSON, Shapefile or whatever else GDAL reads, in any CRS.
        info: header of the scene.

    Raises:
        MissingFileError: no such file.
        UnreadableFileError: no vector file.
        DataError: it names no CRS, holds no polygon, or none of them touches the scene.
        UsageError: the scene has no place on the Earth.
    """
    with needs_extra("geo", "areas of interest"):
        import geopandas
        import shapely

    transform = _placed(info, "--area")
    if not Path(path).exists():
        raise MissingFileError(f"{path}: no such file")
    try:
        frame = geopandas.read_file(path)
    # What reads the file has no root of its own for its errors.
    except Exception as error:
        raise UnreadableFileError(f"{path}: cannot be read as a vector file: {' '.join(str(error).split())}") from None
    shapes = frame.geometry[frame.geom_type.isin(["Polygon", "MultiPolygon"]) & ~frame.geometry.is_empty]
    if shapes.empty:
        raise DataError(f"{path}: holds no polygon, so there is no area to map")
    if shapes.crs is None:
        raise DataError(f"{path}: names no CRS, so its polygons have no place; set it in the file")
    if shapes.crs != info.crs:
        left, bottom, right, top = shapes.total_bounds
        step = max(right - left, top - bottom) / _PIECES
        shapes = shapes.segmentize(step).to_crs(info.crs) if step > 0 else shapes.to_crs(info.crs)
    x, y = shapely.get_coordinates(shapes.array).T
    window = _window(x, y, info, transform, str(path))
    return Interest(window, tuple(shapes), transform)


def area_from_bounds(bounds: Sequence[float], info: RasterInfo, crs: str | None = None) -> Interest:
    """Find a rectangle of coordinates in a scene; all pixels that it touches are wanted.

    Args:
        bounds: lowest x, lowest y, highest x, highest y.
        info: header of the scene.
        crs: theirs, ``EPSG:code`` or WKT; by default the scene's.

    Raises:
        UsageError: not four numbers in this order, a CRS that is none, a scene without a place on the Earth, or bounds outside of it.
    """
    transform = _placed(info, "--bounds")
    if len(bounds) != 4 or not all(map(math.isfinite, bounds)) or bounds[0] >= bounds[2] or bounds[1] >= bounds[3]:
        shown = ", ".join(f"{value:g}" for value in bounds)
        raise UsageError(f"bounds {shown}: expected four numbers, lowest x, lowest y, highest x, highest y")
    left, bottom, right, top = bounds
    steps = np.linspace(0, 1, _PIECES + 1)
    across, down = left + (right - left) * steps, bottom + (top - bottom) * steps
    x = np.concatenate([across, across, np.full_like(down, left), np.full_like(down, right)])
    y = np.concatenate([np.full_like(across, bottom), np.full_like(across, top), down, down])
    if crs is not None:
        x, y = _reprojected(x, y, crs, info)
    return Interest(_window(x, y, info, transform, "the rectangle of the bounds"), None, transform)


def _placed(info: RasterInfo, option: str) -> tuple[float, float, float, float, float, float]:
    if info.crs is None or info.transform is None:
        raise UsageError(f"{info.uri}: has no CRS and no place on the Earth, so no area of it can be found; leave out {option}")
    return info.transform


def _reprojected(x: NDArray[np.float64], y: NDArray[np.float64], crs: str, info: RasterInfo) -> tuple[Any, Any]:
    from rasterio._err import CPLE_BaseError  # not public, yet what an impossible projection ends in
    from rasterio.crs import CRS
    from rasterio.errors import CRSError, RasterioError
    from rasterio.warp import transform

    try:
        known = CRS.from_user_input(crs)
    except (CRSError, ValueError):
        raise UsageError(f"unknown coordinate reference system {crs!r} of the bounds; give EPSG:code or WKT") from None
    try:
        there = transform(known, CRS.from_user_input(info.crs), x.tolist(), y.tolist())
    except (RasterioError, CPLE_BaseError) as error:
        raise UsageError(f"the bounds cannot be taken from {crs} into the CRS of {info.uri}: {' '.join(str(error).split())}") from None
    return np.asarray(there[0]), np.asarray(there[1])


def _window(x: NDArray[Any], y: NDArray[Any], info: RasterInfo, transform: tuple[float, ...], what: str) -> Window:
    """Rectangle of pixels that hold these points, cut to the scene."""
    a, b, c, d, e, f = transform
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise DataError(f"{info.uri}: {what} cannot be taken into its CRS {short_crs(info.crs)}; is the CRS of {what} right?")
    scale = a * e - b * d
    columns, rows = (e * (x - c) - b * (y - f)) / scale, (a * (y - f) - d * (x - c)) / scale
    # A corner that lies on the edge of a pixel but for rounding is no reason to take one more.
    left, right = max(0, math.floor(columns.min() + 1e-6)), min(info.width, math.ceil(columns.max() - 1e-6))
    top, bottom = max(0, math.floor(rows.min() + 1e-6)), min(info.height, math.ceil(rows.max() - 1e-6))
    if not (left < right and top < bottom):
        first, last, upper, lower = (f"{value:z.0f}" for value in (columns.min(), columns.max(), rows.min(), rows.max()))
        reach = f"columns {first} to {last}, rows {upper} to {lower} of {info.width} x {info.height} pixels"
        raise DataError(f"{info.uri}: {what} lies outside of it ({reach}; the scene is in {short_crs(info.crs)})")
    return Window(left, top, right - left, bottom - top)
