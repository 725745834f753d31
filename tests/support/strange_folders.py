"""Small folders of imagery in the many layouts that people have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tilth.imagery.write import write_raster
from tilth.seeds import generator

UTM = "EPSG:32632"


def noise(key: str, *shape: int, high: int = 256) -> np.ndarray:
    return generator("strange folders", key).integers(0, high, size=shape)


def picture(path: Path, size: int = 64, bands: int = 3) -> Path:
    """A smooth 8-bit picture, so that JPEG keeps it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = noise(path.name, size // 8, size // 8, bands, high=200).astype(np.uint8)
    array = np.clip(coarse.repeat(8, axis=0).repeat(8, axis=1).astype(int) + noise(path.name, size, size, bands, high=40), 0, 255)
    Image.fromarray(array.astype(np.uint8).squeeze()).save(path, **({"quality": 95} if path.suffix == ".jpg" else {}))
    return path


def blobs(key: str, values: list[int], size: int = 64) -> np.ndarray:
    """A label of square patches."""
    chosen = noise(key, size // 16, size // 16, high=len(values))
    chosen.flat[: len(values)] = np.arange(len(values))[: chosen.size]
    return np.array(values)[chosen].repeat(16, axis=0).repeat(16, axis=1)


def mask(path: Path, values: list[int], size: int = 64) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = blobs(path.name, values, size)
    Image.fromarray(array.astype(np.uint8 if array.max() < 256 else np.uint16)).save(path)
    return path


def colour_mask(path: Path, colours: list[tuple[int, int, int]], size: int = 64) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(colours, dtype=np.uint8)[blobs(path.name, list(range(len(colours))), size)]).save(path)
    return path


def raster(
    path: Path,
    data: np.ndarray,
    *,
    east: float | None = 500_000.0,
    north: float = 5_000_000.0,
    pixel: float = 10.0,
    crs: str = UTM,
    names: tuple[str, ...] | None = None,
    nodata: float | None = None,
) -> Path:
    """A GeoTIFF of (C, h, w); without a place where ``east`` is None."""
    path.parent.mkdir(parents=True, exist_ok=True)
    transform = None if east is None else (pixel, 0.0, east, 0.0, -pixel, north)
    return write_raster(path, data, crs=None if east is None else crs, transform=transform, band_names=names, nodata=nodata)


def reflectance(key: str, bands: int, size: int = 64, dtype: str = "uint16") -> np.ndarray:
    """Reflectance x 10000 as over fields: bands of rising brightness."""
    level = np.linspace(600, 3000, bands)[:, None, None]
    return (level * (0.7 + 0.6 * noise(key, bands, size, size, high=1000) / 1000)).astype(dtype)


def pairs(root: Path, count: int = 4, values: tuple[int, ...] = (0, 1, 2), images: str = "images", masks: str = "masks") -> Path:
    """A folder of pictures and masks."""
    for index in range(count):
        picture(root / images / f"i{index}.jpg")
        mask(root / masks / f"i{index}.png", list(values))
    return root
