"""How much ground pixels cover, whatever the map projection does to areas."""

from __future__ import annotations

import math

import numpy as np

from tilth.imagery.gdal import rasterio_module
from tilth.imagery.raster import Window

# Cylindrical equal-area on the WGS 84 ellipsoid (EASE-Grid 2.0): area in it is area on the ground.
_EQUAL_AREA = "EPSG:6933"


def ground_area_m2(window: Window, crs: str, transform: tuple[float, float, float, float, float, float]) -> float | None:
    """Measure the ground that a window covers.

    Pixel size times pixel size is not it: World Mercator shows Manila 7 % and Web Mercator shows Berlin 170 % too large.

    Args:
        window: a rectangle of pixels.
        crs: ``EPSG:code`` or WKT.
        transform: affine coefficients from pixel to CRS coordinates.

    Returns:
        Square metres, or None where the CRS has no place on the Earth.
    """
    rasterio_module()
    from rasterio.errors import CRSError, RasterioError
    from rasterio.warp import transform as reproject

    # Straight edges become curves: eight points a side follow them.
    steps = np.arange(8) / 8
    column, row, width, height = window
    columns = np.concatenate([column + width * steps, np.full(8, column + width), column + width * (1 - steps), np.full(8, column)])
    rows = np.concatenate([np.full(8, row), row + height * steps, np.full(8, row + height), row + height * (1 - steps)])
    a, b, c, d, e, f = transform
    try:
        x, y = (np.asarray(axis) for axis in reproject(crs, _EQUAL_AREA, a * columns + b * rows + c, d * columns + e * rows + f))
    except (CRSError, RasterioError):
        return None
    # Relative to the first corner: the products of absolute coordinates would cancel digits away.
    x, y = x - x[0], y - y[0]
    area = abs(float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))) / 2
    return area if math.isfinite(area) else None
