"""Scenes to map, and maps to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from tilth.imagery.write import write_raster

TRANSFORM = (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0)


def noise(height: int, width: int, bands: int = 3, seed: int = 0) -> np.ndarray:
    """Random pixels uint8 (bands, height, width), none of them black."""
    return np.random.default_rng(seed).integers(20, 250, (bands, height, width)).astype(np.uint8)


def hilly(height: int, width: int) -> np.ndarray:
    """Smooth pixels uint8 (3, height, width), which resampling hardly changes."""
    rows, columns = np.mgrid[:height, :width] / 40
    return np.stack([120 + 90 * np.sin(rows + band) * np.cos(columns * (1 + band / 3)) for band in range(3)]).astype(np.uint8)


def write(path: Path, data: np.ndarray, *, column: int = 0, row: int = 0, crs: str | None = "EPSG:32633", **more: Any) -> str:
    """Write a scene of which the upper left pixel lies at this column and row of a common grid of 10 m."""
    a, b, c, d, e, f = more.pop("transform", TRANSFORM)
    place = (a, b, c + a * column + b * row, d, e, f + d * column + e * row)
    return str(write_raster(path, data, crs=crs, transform=place if crs else None, **more))


def read(path: Path | str) -> np.ndarray:
    """All bands, or the one band, of a raster."""
    with rasterio.open(path) as dataset:
        data = dataset.read()
    return data[0] if len(data) == 1 else data
