"""Files out: text, JSON and rasters, each in one go; see :func:`tilth.imagery.files.atomic_path`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tilth.errors import DataError
from tilth.imagery.files import atomic_path

if TYPE_CHECKING:
    from tilth.classes import Colour

__all__ = ["atomic_path", "json_text", "write_json", "write_raster", "write_text"]


def write_text(path: str | Path, text: str) -> Path:
    """Write a UTF-8 text file in one go; see :func:`atomic_path`.

    Returns:
        The path written.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def write_json(path: str | Path, value: Any) -> Path:
    """Write JSON in one go: indented, keys in the given order, a newline at the end.

    Args:
        path: the file to write.
        value: nested mappings, sequences, strings, numbers, paths and NumPy scalars or arrays. Numbers that JSON cannot hold
            (NaN and the infinities) become null.

    Returns:
        The path written.

    Raises:
        TypeError: a value of another kind.
    """
    return write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """Return what :func:`write_json` writes."""
    return json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_raster(
    path: str | Path,
    data: NDArray[Any],
    *,
    crs: str | None,
    transform: tuple[float, float, float, float, float, float] | None,
    nodata: float | None = None,
    band_names: Sequence[str] | None = None,
    colours: Sequence[Colour] | None = None,
    class_names: Sequence[str] | None = None,
    tags: Mapping[str, str] | None = None,
    cog: bool = False,
) -> Path:
    """Write a raster as a tiled, DEFLATE-compressed GeoTIFF in one go.

    Args:
        path: the file to write, ending in ``.tif`` or ``.tiff``.
        data: (C, h, w) or (h, w) in the type to store; bool is stored as uint8.
        crs: ``EPSG:code`` or WKT; None for a plain grid.
        transform: affine coefficients (a, b, c, d, e, f) from pixel to CRS coordinates, or None.
        nodata: stored value that means "no data", or None.
        band_names: one description a band.
        colours: 8-bit RGB by value, for one uint8 band; values beyond the list are black, nodata is transparent.
        class_names: names by value, for one uint8 band: GDAL category names (in a sidecar, where desktop tools look for them)
            and tags ``CLASS_NAMES``, ``CLASS_0`` ... inside the file.
        tags: further text by name, kept inside the file.
        cog: write a Cloud Optimized GeoTIFF with overviews instead of a plain tiled one.

    Returns:
        The path written.

    Raises:
        DataError: shapes, types, names or colours that do not fit together.
        MissingExtraError: rasterio is not installed.
        TilthError: the place cannot be written to.
    """
    from tilth.imagery.geotiff import Legend, raster_file

    bands = data[None] if data.ndim == 2 else data
    if bands.ndim != 3 or 0 in bands.shape:
        raise DataError(f"{path}: expected data of shape (C, h, w) or (h, w) without empty axes, found {data.shape}")
    bands = bands.astype(np.uint8) if bands.dtype == np.bool_ else bands
    legend = Legend(colours=tuple(colours or ()), class_names=tuple(class_names or ()), tags=dict(tags or {}), nodata=nodata)
    count, height, width = bands.shape
    names = None if band_names is None else tuple(band_names)
    with raster_file(
        path,
        width=width,
        height=height,
        count=count,
        dtype=bands.dtype.name,
        crs=crs,
        transform=transform,
        legend=legend,
        band_names=names,
        cog=cog,
    ) as writer:
        writer(bands, 0, 0)
    return Path(path)


def _plain(value: Any) -> Any:
    """Turn a value into what JSON knows."""
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
