"""How much ground pixels cover and how long lines are on it, whatever the map projection does to them.

Pixel size times pixel size is not it: World Mercator shows Manila 7 % and Web Mercator shows Berlin 170 % too large.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilth.imagery.gdal import rasterio_module
from tilth.imagery.raster import Window

Transform = tuple[float, float, float, float, float, float]
"""Affine coefficients (a, b, c, d, e, f) from pixel to CRS coordinates."""

# WGS 84 ellipsoid: semi-major axis in metres and first eccentricity.
_AXIS_M = 6378137.0
_ECCENTRICITY = 0.0818191908426215

_BLOCK = 128
"""Columns taken to have one ground area within a row."""

_VALUES = 256


def equal_area(longitude: NDArray[np.float64], latitude: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Project degrees so that area on the plane is area on the WGS 84 ellipsoid.

    Cylindrical equal-area projection, Snyder 1987, eq. 3-12 and 10-14.

    Returns:
        x and y in metres, shaped like the input.
    """
    e = _ECCENTRICITY
    sine = np.sin(np.radians(latitude))
    q = (1 - e**2) * (sine / (1 - (e * sine) ** 2) - np.log((1 - e * sine) / (1 + e * sine)) / (2 * e))
    return _AXIS_M * np.radians(longitude), _AXIS_M * q / 2


def value_areas_m2(values: NDArray[np.uint8], window: Window, crs: str, transform: Transform) -> NDArray[np.float64] | None:
    """Measure the ground that each value of a window covers.

    Every row is measured by itself, in blocks of columns, so the sum over a scene hardly depends on how it is cut into windows.

    Args:
        values: uint8 (h, w), such as class ids.
        window: where they lie; h rows and w columns.
        crs: ``EPSG:code`` or WKT.
        transform: of the raster that the window belongs to.

    Returns:
        float64 (256,), square metres by value; None where the CRS has no place on the Earth.
    """
    found = pixel_areas_m2(window, crs, transform)
    if found is None:
        return None
    columns, pixel = found
    offsets = (np.arange(window.height) * _VALUES)[:, None]
    areas = np.zeros(_VALUES)
    for index, (left, right) in enumerate(pairwise(columns.tolist())):
        counts = np.bincount((values[:, left:right] + offsets).ravel(), minlength=window.height * _VALUES)
        areas += pixel[:, index] @ counts.reshape(window.height, _VALUES)
    return areas


def pixel_areas_m2(window: Window, crs: str, transform: Transform) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
    """Measure the ground of one pixel, row by row, in blocks of columns that are taken to have one value.

    Args:
        window: n rows and columns of the raster.
        crs: ``EPSG:code`` or WKT.
        transform: of the raster that the window belongs to.

    Returns:
        Edges of the blocks in columns of the window, int64 (b + 1,), and square metres a pixel, float64 (n, b); None where the CRS has
        no place on the Earth.
    """
    columns = np.append(np.arange(0, window.width, _BLOCK), window.width)
    rows = np.arange(window.height + 1)
    degrees = _node_degrees(window.column + columns, window.row + rows, crs, transform)
    if degrees is None:
        return None
    # A window across the antimeridian must not reach around the globe.
    x, y = equal_area(np.unwrap(degrees[0], period=360, axis=1), degrees[1])
    # Area of a quadrilateral: half the cross product of its diagonals.
    falling, rising = (x[1:, 1:] - x[:-1, :-1], y[1:, 1:] - y[:-1, :-1]), (x[1:, :-1] - x[:-1, 1:], y[1:, :-1] - y[:-1, 1:])
    blocks = np.abs(falling[0] * rising[1] - falling[1] * rising[0]) / 2
    return columns, blocks / np.diff(columns)


def row_length_m(row: float, width: int, crs: str, transform: Transform) -> float | None:
    """Measure how far a row of pixels reaches on the ground.

    Args:
        row: in pixels from the upper edge of the raster.
        width: columns of the raster.
        crs: ``EPSG:code`` or WKT.
        transform: of the raster.

    Returns:
        Metres along the row; None where the CRS has no place on the Earth.
    """
    degrees = _node_degrees(np.linspace(0, width, 65), np.array([row]), crs, transform)
    if degrees is None:
        return None
    longitude, latitude = np.radians(np.unwrap(degrees[0][0], period=360)), np.radians(degrees[1][0])
    middle = (latitude[1:] + latitude[:-1]) / 2
    # Radii of curvature along the parallel and the meridian (Snyder 1987, eq. 4-20 and 4-18).
    flat = 1 - (_ECCENTRICITY * np.sin(middle)) ** 2
    along, across = _AXIS_M / np.sqrt(flat) * np.cos(middle), _AXIS_M * (1 - _ECCENTRICITY**2) / flat**1.5
    return float(np.hypot(along * np.diff(longitude), across * np.diff(latitude)).sum())


def pixel_size_m(width: int, height: int, crs: str, transform: Transform) -> tuple[float, float] | None:
    """Measure the pixels of a raster on the ground, along its middle row and its middle column.

    Args:
        width: columns of the raster.
        height: rows of the raster.
        crs: ``EPSG:code`` or WKT.
        transform: of the raster.

    Returns:
        Mean width and height of a pixel in metres; None where the CRS has no place on the Earth.
    """
    a, b, c, d, e, f = transform
    along = row_length_m(height / 2, width, crs, transform)
    # Rows and columns exchanged, a column is a row.
    across = row_length_m(width / 2, height, crs, (b, a, c, e, d, f))
    return None if along is None or across is None else (along / width, across / height)


def to_degrees(x: NDArray[np.float64], y: NDArray[np.float64], crs: str) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Turn map coordinates into longitude and latitude (EPSG:4326).

    Args:
        x: of any shape.
        y: of the same shape.
        crs: ``EPSG:code`` or WKT.

    Returns:
        Longitude and latitude in degrees, shaped like ``x``. None where the CRS has no place on the Earth, such as the local grid of a
        site, or where any of the points has none.
    """
    rasterio_module()
    # Not among rasterio's public errors, yet this is what a local grid or a point outside of a projection ends in.
    from rasterio._err import CPLE_BaseError
    from rasterio.crs import CRS
    from rasterio.errors import CRSError, RasterioError
    from rasterio.warp import transform as reproject

    try:
        degrees = reproject(CRS.from_user_input(crs), "EPSG:4326", x.ravel().tolist(), y.ravel().tolist())
    except (CRSError, RasterioError, CPLE_BaseError):
        return None
    longitude, latitude = (np.asarray(axis, dtype=np.float64).reshape(x.shape) for axis in degrees)
    return (longitude, latitude) if bool(np.isfinite(longitude).all() and np.isfinite(latitude).all()) else None


def _node_degrees(
    columns: NDArray[Any], rows: NDArray[Any], crs: str, transform: Transform
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Longitude and latitude (rows, columns) of the nodes of a grid of pixel positions; None where one has none."""
    across, down = (np.asarray(axis, dtype=np.float64) for axis in np.meshgrid(columns, rows))
    a, b, c, d, e, f = transform
    return to_degrees(a * across + b * down + c, d * across + e * down + f, crs)
