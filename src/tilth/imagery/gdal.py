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
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilth.errors import DataError, MissingFileError, UnreadableFileError, needs_extra
from tilth.imagery import references
from tilth.imagery.raster import Pixels, RasterInfo, Window, finite, thinning, window_inside

KEPT_OPEN = 16
"""Datasets kept open a thread."""

CACHE_BYTES = 64 * 2**20
"""What :func:`bounded_cache` lets GDAL keep of decoded blocks; by itself it takes a twentieth of the machine's memory."""

_STRICT = "GDAL_ERROR_ON_LIBJPEG_WARNING"

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
    with _opened_raster(uri) as opened:
        dataset, indexes = opened.dataset, opened.indexes
        crs, affine = dataset.crs, dataset.transform
        return RasterInfo(
            uri=uri,
            width=dataset.width,
            height=dataset.height,
            count=len(indexes),
            dtype=opened.dtype,
            crs=_crs_name(crs) if crs else None,
            transform=None if affine.is_identity else tuple(affine)[:6],
            nodata=dataset.nodata,
            band_names=tuple(dataset.descriptions[index - 1] or "" for index in indexes),
        )


def raster_pixels(uri: str, window: Window | None, bands: tuple[int, ...] | None = None) -> Pixels:
    """Read a window through GDAL; see :func:`tilth.imagery.read.read_pixels`.

    Args:
        uri: of the raster.
        window: must lie inside; None for the whole raster.
        bands: 0-based positions among the bands that are no alpha channel, in the order wanted; None for all. Others are neither read
            nor asked whether they are valid.
    """
    with _opened_raster(uri) as everything:
        opened = everything if bands is None else everything.pick(bands)
        column, row, width, height = window_inside(uri, window, opened.width, opened.height)
        return _read(opened, {"window": ((row, row + height), (column, column + width))})


def raster_overview(uri: str, longest_side: int) -> Pixels:
    """Read a raster thinned by nearest neighbour through GDAL; see :func:`tilth.imagery.read.read_overview`."""
    with _opened_raster(uri) as opened:
        width, height = thinning(opened.width, opened.height, longest_side)
        return _read(opened, {"out_shape": (height, width)})


def raster_tags(uri: str) -> dict[str, str]:
    """Read the text that a raster keeps by name (TIFF metadata of the dataset as a whole).

    Raises:
        UnreadableFileError: truncated, damaged or of an unknown format.
        MissingExtraError: rasterio is not installed.
    """
    with _opened_raster(uri) as opened:
        return dict(opened.dataset.tags())


def has_control_points(uri: str) -> bool:
    """Say whether a raster names the places of some pixels only, as radar scenes in slant range do; false for what GDAL cannot read."""
    try:
        with _opened_raster(uri) as opened:
            return bool(opened.dataset.gcps[0])
    except UnreadableFileError:
        return False


def raster_files(uri: str) -> list[str]:
    """Name the files that a raster is made of: itself, its sidecars, and what a virtual raster refers to.

    Raises:
        UnreadableFileError: truncated, damaged or of an unknown format.
        MissingExtraError: rasterio is not installed.
    """
    with _opened_raster(uri) as opened:
        return [str(name) for name in opened.dataset.files]


@dataclass
class _Opened:
    """An open dataset, with what its header says that every read needs; asking GDAL again takes longer than reading a small window."""

    uri: str
    dataset: Any
    width: int
    height: int

    def pick(self, bands: tuple[int, ...]) -> _Opened:
        """As if the dataset held these of its bands only."""
        picked = _Opened(self.uri, self.dataset, self.width, self.height)
        picked.__dict__["indexes"] = [self.indexes[band] for band in bands]
        return picked

    @cached_property
    def indexes(self) -> list[int]:
        return _bands(self.uri, self.dataset)

    @cached_property
    def dtype(self) -> str:
        return _stored_type(self.uri, self.dataset, self.indexes)

    @cached_property
    def flags(self) -> frozenset[str]:
        enums = self.dataset.mask_flag_enums
        return frozenset(flag.name for index in self.indexes for flag in enums[index - 1])

    @cached_property
    def absent(self) -> NDArray[Any] | None:
        """The stored number that means "no data", (C, 1, 1), where comparing with it is all that GDAL's mask does; else None."""
        kind = np.dtype(self.dtype)
        values = [self.dataset.nodatavals[index - 1] for index in self.indexes]
        same = {self.dataset.dtypes[index - 1] for index in self.indexes} == {self.dtype}
        if self.flags != {"nodata"} or not same or kind.kind not in "iu" or kind.itemsize > 4 or None in values:
            return None
        if any(value != np.rint(value) or not np.iinfo(kind).min <= value <= np.iinfo(kind).max for value in values):
            return None
        return np.array(values).astype(kind)[:, None, None]


def _read(opened: _Opened, region: dict[str, Any]) -> Pixels:
    dataset, indexes = opened.dataset, opened.indexes
    if "out_shape" in region:
        region = {"out_shape": (len(indexes), *region["out_shape"])}
    data: NDArray[Any] = dataset.read(indexes, out_dtype=opened.dtype, **region)
    valid = finite(data)
    if "nodata" in opened.flags:
        if opened.absent is not None and "window" in region:
            valid &= (data != opened.absent).all(axis=0)
        else:
            valid &= (dataset.read_masks(indexes, **region) > 0).all(axis=0)
    elif opened.flags != {"all_valid"}:
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
def _opened_raster(uri: str) -> Iterator[_Opened]:
    """Give an open dataset; what GDAL reports while it is used becomes one clear line that names the file."""
    rasterio = rasterio_module()
    key = _key(uri)
    try:
        # A libjpeg warning means grey pixels instead of missing ones.
        if len(key) > 1:
            # A GDAL environment takes longer to enter than a small window to read; only remote files need more of it than this option.
            if not rasterio.env.get_gdal_config(_STRICT):
                rasterio.env.set_gdal_config(_STRICT, "YES")
                _keep_quiet(rasterio)
            environment: Any = nullcontext()
        else:
            environment = rasterio.Env(**{_STRICT: "YES"})
        with environment:
            yield _opened(uri, key, rasterio)
    except rasterio.errors.RasterioError as error:
        _let_go(key)
        reason = " ".join(str(error.__cause__ or error).split())
        if "://" in uri and ("404" in reason or "does not exist" in reason):
            raise MissingFileError(f"{uri}: no such file: {reason}") from None
        if Path(uri).is_dir():
            raise UnreadableFileError(f"{uri}: is a folder; give a raster that lies in it") from None
        raise UnreadableFileError(f"{uri}: cannot be read, truncated, damaged or of an unknown format: {reason}") from None


def _let_go(key: tuple[Any, ...]) -> None:
    """Forget a dataset that failed, and the error it left with GDAL: the next call in this thread would end in it, whatever its file."""
    lost = _kept().pop(key, None)
    if lost is None:
        return
    with suppress(Exception):
        lost.dataset.colorinterp  # noqa: B018 - raises what is left, which clears it
    with suppress(Exception):
        lost.dataset.close()


def _keep_quiet(rasterio: ModuleType) -> None:
    """Keep what GDAL says outside of an environment off the terminal; what ends in a failure is raised as well."""
    if not rasterio.env.get_gdal_config("CPL_LOG"):
        rasterio.env.set_gdal_config("CPL_LOG", os.devnull)


def _opened(uri: str, key: tuple[Any, ...], rasterio: ModuleType) -> _Opened:
    kept = _kept()
    opened = kept.get(key)
    if opened is None:
        # GDAL shares what a virtual raster refers to among those that are open.
        for outdated in (
            [known for known in kept if known[0] == uri or references.is_virtual(known[0])] if references.is_virtual(uri) else ()
        ):
            kept.pop(outdated).dataset.close()
        with _opening, warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            dataset = rasterio.open(uri)
        opened = kept[key] = _Opened(uri, dataset, dataset.width, dataset.height)
        if len(kept) > KEPT_OPEN:
            kept.popitem(last=False)[1].dataset.close()
    kept.move_to_end(key)
    return opened


def _kept() -> OrderedDict[tuple[Any, ...], _Opened]:
    """Return this thread's open datasets, in order of last use; empty in a process that was just forked."""
    if getattr(_local, "process", None) != os.getpid():
        _inherited.append(getattr(_local, "kept", None))
        _local.process, _local.kept = os.getpid(), OrderedDict()
    kept: OrderedDict[tuple[Any, ...], _Opened] = _local.kept
    return kept


def _key(uri: str) -> tuple[Any, ...]:
    """Return what tells a file, and all that a virtual raster refers to, from what replaced it under the same name."""
    state = references.file_state(uri)
    if state[0] < 0:
        return (uri,)
    if not references.is_virtual(uri):
        return uri, state
    return uri, *map(references.file_state, references.files_behind(uri))
