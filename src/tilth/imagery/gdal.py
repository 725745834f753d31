"""Rasters that GDAL reads, through rasterio, which is imported on first use.

Open datasets are kept, a few a thread: opening costs more than reading a small window. GDAL handles may pass neither between threads
nor through a fork, so each thread of each process has its own.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilth.errors import DataError, MissingFileError, UnreadableFileError, needs_extra
from tilth.imagery.raster import Pixels, RasterInfo, Window, finite, thinning, window_inside

KEPT_OPEN = 16
"""Datasets kept open a thread."""

CACHE_BYTES = 256 * 2**20
"""What :func:`bounded_cache` lets GDAL keep of decoded blocks; by itself it takes a twentieth of the machine's memory."""

_local = threading.local()
# warnings.catch_warnings alters state that all threads share.
_opening = threading.Lock()
# Datasets inherited by fork: closing one could wait for a GDAL lock that a thread of the parent held, so they are kept and never used.
_inherited: list[Any] = []


def rasterio_module() -> ModuleType:
    """Import rasterio.

    Raises:
        MissingExtraError: it is not installed.
    """
    with needs_extra("geo", "GeoTIFF and other GDAL rasters"):
        import rasterio
    return rasterio  # type: ignore[no-any-return]  # rasterio carries no types


@contextmanager
def bounded_cache() -> Iterator[None]:
    """Bound what GDAL keeps of decoded blocks, in all threads, as long as the block of code runs."""
    with rasterio_module().Env(GDAL_CACHEMAX=CACHE_BYTES):
        yield


def raster_info(uri: str) -> RasterInfo:
    """Read a raster's header through GDAL; see :func:`tilth.imagery.read.read_info`."""
    with _dataset(uri) as dataset:
        indexes = _bands(uri, dataset)
        crs, affine = dataset.crs, dataset.transform
        return RasterInfo(
            uri=uri,
            width=dataset.width,
            height=dataset.height,
            count=len(indexes),
            dtype=_stored_type(uri, dataset, indexes),
            crs=_crs_name(crs) if crs else None,
            transform=None if affine.is_identity else tuple(affine)[:6],
            nodata=dataset.nodata,
            band_names=tuple(dataset.descriptions[index - 1] or "" for index in indexes),
        )


def raster_pixels(uri: str, window: Window | None) -> Pixels:
    """Read all bands of a window through GDAL; see :func:`tilth.imagery.read.read_pixels`."""
    with _dataset(uri) as dataset:
        column, row, width, height = window_inside(uri, window, dataset.width, dataset.height)
        return _read(uri, dataset, {"window": ((row, row + height), (column, column + width))})


def raster_overview(uri: str, longest_side: int) -> Pixels:
    """Read a raster thinned by nearest neighbour through GDAL; see :func:`tilth.imagery.read.read_overview`."""
    with _dataset(uri) as dataset:
        width, height = thinning(dataset.width, dataset.height, longest_side)
        return _read(uri, dataset, {"out_shape": (height, width)})


def _read(uri: str, dataset: Any, region: dict[str, Any]) -> Pixels:
    indexes = _bands(uri, dataset)
    if "out_shape" in region:
        region = {"out_shape": (len(indexes), *region["out_shape"])}
    data: NDArray[Any] = dataset.read(indexes, out_dtype=_stored_type(uri, dataset, indexes), **region)
    valid = finite(data)
    flags = {flag.name for index in indexes for flag in dataset.mask_flag_enums[index - 1]}
    if "nodata" in flags:
        valid &= (dataset.read_masks(indexes, **region) > 0).all(axis=0)
    elif flags != {"all_valid"}:
        # One mask for the whole dataset (alpha or .msk): the first band's stands for all.
        one = {"out_shape": region["out_shape"][1:]} if "out_shape" in region else region
        valid &= dataset.read_masks(indexes[0], **one) > 0
    return Pixels(data, valid)


def _bands(uri: str, dataset: Any) -> list[int]:
    """Return the 1-based positions of bands that are no alpha channel.

    GDAL tags the fourth band of many 8-bit files as alpha although it is near infrared; a description says what it really is.
    """
    indexes = [
        index
        for index, (meaning, name) in enumerate(zip(dataset.colorinterp, dataset.descriptions, strict=True), start=1)
        if meaning.name != "alpha" or (name and "alpha" not in name.lower())
    ]
    if not indexes:
        raise DataError(f"{uri}: holds no raster band; for a container name one of its subdatasets")
    return indexes


def _stored_type(uri: str, dataset: Any, indexes: list[int]) -> str:
    types = {dataset.dtypes[index - 1] for index in indexes}
    if any(name.startswith("complex") for name in types):
        raise DataError(f"{uri}: complex numbers ({', '.join(sorted(types))}); store amplitude or decibels")
    return np.result_type(*(np.dtype(name) for name in types)).name


def _crs_name(crs: Any) -> str:
    # Only an exact match: a CRS that merely resembles a registered one is kept as it is, in full.
    code = crs.to_epsg(confidence_threshold=100)
    return f"EPSG:{code}" if code else str(crs.to_wkt())


@contextmanager
def _dataset(uri: str) -> Iterator[Any]:
    """Give an open dataset; what GDAL reports while it is used becomes one clear line that names the file."""
    rasterio = rasterio_module()
    try:
        # A libjpeg warning means grey pixels instead of missing ones.
        with rasterio.Env(GDAL_ERROR_ON_LIBJPEG_WARNING="YES"):
            yield _opened(uri, rasterio)
    except rasterio.errors.RasterioError as error:
        _kept().pop(_key(uri), None)
        reason = " ".join(str(error.__cause__ or error).split())
        if "://" in uri and ("404" in reason or "does not exist" in reason):
            raise MissingFileError(f"{uri}: no such file: {reason}") from None
        raise UnreadableFileError(f"{uri}: cannot be read, truncated, damaged or of an unknown format: {reason}") from None


def _opened(uri: str, rasterio: ModuleType) -> Any:
    kept, key = _kept(), _key(uri)
    dataset = kept.get(key)
    if dataset is None:
        with _opening, warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            dataset = kept[key] = rasterio.open(uri)
        if len(kept) > KEPT_OPEN:
            kept.popitem(last=False)[1].close()
    kept.move_to_end(key)
    return dataset


def _kept() -> OrderedDict[tuple[Any, ...], Any]:
    """Return this thread's open datasets, in order of last use; empty in a process that was just forked."""
    if getattr(_local, "process", None) != os.getpid():
        _inherited.append(getattr(_local, "kept", None))
        _local.process, _local.kept = os.getpid(), OrderedDict()
    kept: OrderedDict[tuple[Any, ...], Any] = _local.kept
    return kept


def _key(uri: str) -> tuple[Any, ...]:
    """Return what tells a file from one that replaced it under the same name."""
    try:
        status = Path(uri).stat()
    except OSError:
        return (uri,)
    return uri, status.st_mtime_ns, status.st_size, status.st_ino
