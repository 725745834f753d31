"""Pixels in: windows of any raster GDAL reads, and of plain images without GDAL.

``jpg``, ``png``, ``bmp`` and ``webp`` go through Pillow, ``npy`` through NumPy (memory-mapped), tiles of a packed catalog
(``images-00003.arrow#17``) through a memory map, everything else through rasterio, which is imported only then.
"""

from __future__ import annotations

import functools
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilth.classes import IGNORE_INDEX
from tilth.errors import DataError, MissingFileError, UnreadableFileError
from tilth.imagery import gdal, packed, plain
from tilth.imagery.raster import Pixels, RasterInfo, Window, thinned_positions, thinning

__all__ = ["Pixels", "RasterInfo", "Window", "read_info", "read_label", "read_overview", "read_pixels"]

_REMOTE = re.compile(r"^(/vsi|[A-Za-z][A-Za-z0-9_+.-]+:)")


def read_info(uri: str) -> RasterInfo:
    """Read a raster's header.

    A palette image counts as its three colour bands here; :func:`read_label` reads the same file as one band of indices.

    Args:
        uri: path, URL or GDAL name (``/vsi...``, subdataset) of a raster.

    Raises:
        MissingFileError: no such file.
        UnreadableFileError: truncated, damaged or of an unknown format.
        DataError: no band, or complex numbers.
        MissingExtraError: the format needs rasterio and it is not installed.
    """
    return _HEADERS[_reader(uri)](uri)


def read_pixels(uri: str, window: Window | None = None) -> Pixels:
    """Read all bands of a window (default: the whole raster).

    An alpha channel is no band: where it is 0, pixels are not valid. Values are those stored, without scale or offset of the file.

    Args:
        uri: as for :func:`read_info`.
        window: must lie inside the raster.

    Returns:
        Pixels: data (C, h, w), and valid (h, w), False where any band is nodata, masked out or not finite.

    Raises:
        DataError: the window reaches outside the raster.
        MissingFileError: no such file.
        UnreadableFileError: truncated, damaged or of an unknown format.
        MissingExtraError: the format needs rasterio and it is not installed.
    """
    return _PIXELS[_reader(uri)](uri, window)


def read_overview(uri: str, longest_side: int) -> Pixels:
    """Read a whole raster thinned by nearest neighbour (through its overviews where it has some), in bounded memory for GDAL rasters.

    Args:
        uri: as for :func:`read_info`.
        longest_side: no side of the result is longer, in pixels; a smaller raster is returned as it is.

    Raises:
        As :func:`read_pixels`.
    """
    if _reader(uri) == "raster":
        return gdal.raster_overview(uri, longest_side)
    pixels = read_pixels(uri)
    height, width = pixels.valid.shape
    thin_width, thin_height = thinning(width, height, longest_side)
    rows, columns = thinned_positions(height, thin_height)[:, None], thinned_positions(width, thin_width)
    return Pixels(pixels.data[:, rows, columns], pixels.valid[rows, columns])


def read_label(uri: str, window: Window | None = None) -> NDArray[np.uint8]:
    """Read a one-band label raster: class ids, with 255 = ignore where nodata, masked out or not a number.

    A palette image gives its indices. Other number types are accepted as long as every valid value is an integer from 0 to 255.

    Args:
        uri: as for :func:`read_info`.
        window: must lie inside the raster; default the whole raster.

    Returns:
        uint8 (h, w).

    Raises:
        DataError: more than one band, a value that is no integer from 0 to 255 (file and value are named), or a window outside.
        MissingFileError: no such file.
        UnreadableFileError: truncated, damaged or of an unknown format.
        MissingExtraError: the format needs rasterio and it is not installed.
    """
    pixels = _LABELS[_reader(uri)](uri, window)
    if pixels.data.shape[0] != 1:
        raise DataError(
            f"{uri}: a label needs one band of class ids, found {pixels.data.shape[0]} bands; "
            "if its colours stand for classes, convert them to ids first"
        )
    values, valid = pixels.data[0], pixels.valid
    if values.dtype == np.uint8:
        # Pixels belong to the caller, so they may be written into.
        label: NDArray[np.uint8] = values
        label[~valid] = IGNORE_INDEX
        return label
    _check_ids(uri, values[valid])
    label = np.full(values.shape, IGNORE_INDEX, dtype=np.uint8)
    # Only valid values are converted: NaN has no integer.
    label[valid] = values[valid].astype(np.uint8)
    return label


def _check_ids(uri: str, values: NDArray[Any]) -> None:
    wrong = (values < 0) | (values > IGNORE_INDEX)
    if values.dtype.kind == "f":
        wrong |= values != np.rint(values)
    if wrong.any():
        raise DataError(f"{uri}: label value {values[wrong][0].item():g} found; class ids are integers from 0 to {IGNORE_INDEX}")


def _reader(uri: str) -> str:
    """Choose the reader: ``packed``, or by suffix ``image``, ``array`` or ``raster``."""
    if packed.is_packed(uri):
        return "packed"
    try:
        # Small windows are read in less time than path objects take.
        mode = os.stat(uri).st_mode  # noqa: PTH116 - asked at every read; a path object takes longer
    except (OSError, ValueError):
        if _REMOTE.match(uri):
            return "raster"
        raise MissingFileError(f"{uri}: no such file") from None
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        # Opening a pipe waits for ever.
        raise UnreadableFileError(f"{uri}: is a pipe or a device; rasters are read in any order, so give a file")
    suffix = os.path.splitext(uri)[1].lower()  # noqa: PTH122 - as above
    if suffix == ".npy":
        return "array"
    return "image" if suffix in plain.IMAGE_SUFFIXES and not plain.is_beyond_pillow(Path(uri)) else "raster"


_HEADERS: dict[str, Callable[[str], RasterInfo]] = {
    "packed": packed.packed_info,
    "image": plain.image_info,
    "array": plain.array_info,
    "raster": gdal.raster_info,
}
_PIXELS: dict[str, Callable[[str, Window | None], Pixels]] = {
    "packed": packed.packed_pixels,
    "image": plain.image_pixels,
    "array": plain.array_pixels,
    "raster": gdal.raster_pixels,
}
# Labels are indices where a palette says how to show them.
_LABELS: dict[str, Callable[[str, Window | None], Pixels]] = _PIXELS | {
    "packed": functools.partial(packed.packed_pixels, indices=True),
    "image": functools.partial(plain.image_pixels, indices=True),
}
