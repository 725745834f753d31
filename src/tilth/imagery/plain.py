"""Plain images and NumPy arrays, without GDAL: clusters often have none.

Pixels are taken as stored: an EXIF orientation is not applied, since masks drawn for an image do not follow it.
"""

from __future__ import annotations

import io
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from tilth.errors import DataError, UnreadableFileError
from tilth.imagery.raster import Pixels, RasterInfo, Window, finite, window_inside

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})

_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_COLOUR_16 = frozenset({b"\x10\x02", b"\x10\x04", b"\x10\x06"})
# Pillow warns from MAX_IMAGE_PIXELS on and refuses twice as many.
_MOST_PIXELS = 2 * 89_478_485
# An evenly coloured JPEG of that many pixels is about as large; so smaller ones need no second look.
_SMALL_JPEG = 2**20
# What Pillow's decoders raise on damaged files, besides OSError.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
    UnidentifiedImageError,
    Image.DecompressionBombError,
)

# The image decoded last: windows of one large image are read one after the other, and each would decode all of it again.
_last = threading.local()


def is_beyond_pillow(path: Path) -> bool:
    """Say whether an image is left to GDAL.

    Such are PNGs of 16-bit colour (or 16-bit grey with alpha), which Pillow would silently cut down to 8 bits, and PNGs and JPEGs of more
    pixels than Pillow takes for an honest picture, as large scenes have.
    """
    suffix = path.suffix.lower()
    if suffix == ".png":
        with path.open("rb") as file:
            head = file.read(26)
        width, height = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
        return head[:8] == _PNG_START and (head[24:26] in _PNG_COLOUR_16 or width * height > _MOST_PIXELS)
    if suffix in {".jpg", ".jpeg"} and path.stat().st_size > _SMALL_JPEG:
        with path.open("rb") as file:
            return _jpeg_pixels(file) > _MOST_PIXELS
    return False


def _jpeg_pixels(file: BinaryIO) -> int:
    """Look for the size of a JPEG in its markers; 0 where none is found."""
    if file.read(2) != b"\xff\xd8":
        return 0
    while len(marker := file.read(4)) == 4 and marker[0] == 0xFF:
        # A start of frame; three of the numbers in between mean something else.
        if 0xC0 <= marker[1] <= 0xCF and marker[1] not in {0xC4, 0xC8, 0xCC}:
            frame = file.read(5)
            return int.from_bytes(frame[1:3], "big") * int.from_bytes(frame[3:5], "big")
        file.seek(int.from_bytes(marker[2:4], "big") - 2, io.SEEK_CUR)
    return 0


def image_info(uri: str) -> RasterInfo:
    """Read the header of a plain image; a palette image counts as red, green, blue."""
    with _opened(uri) as image:
        mode = _image_mode(image)
        count = 1 if mode in {"L", "LA", "1", "I;16", "I"} else 3
        dtype = "uint16" if mode in {"I;16", "I"} else "uint8"
        return _plain_info(uri, image.width, image.height, count, dtype)


def image_pixels(uri: str, window: Window | None, *, indices: bool = False) -> Pixels:
    """Read a window of a plain image.

    Args:
        uri: path of the image.
        window: default the whole image.
        indices: return palette indices (and 0/1 of bilevel images) as they are stored, as labels need them; else colours.
    """
    stored = _decode(uri, indices)
    window = window_inside(uri, window, stored.data.shape[2], stored.data.shape[1])
    rows, columns = slice(window.row, window.row + window.height), slice(window.column, window.column + window.width)
    # Copies, so that a caller who writes into them does not alter the image that is kept.
    return Pixels(stored.data[:, rows, columns].copy(), stored.valid[rows, columns].copy())


def encoded_pixels(uri: str, encoded: bytes | BinaryIO, *, indices: bool = False) -> Pixels:
    """Decode the bytes of an image file, as :func:`image_pixels` decodes a file; ``uri`` only names it in messages."""
    with _opened(uri, io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded) as image:
        pixels = _stored(uri, image, indices)
    return Pixels(np.ascontiguousarray(pixels.data), pixels.valid)


def array_info(uri: str) -> RasterInfo:
    """Read the header of an ``.npy`` file."""
    array = _array(uri)
    return _plain_info(uri, array.shape[2], array.shape[1], array.shape[0], array.dtype.name)


def array_pixels(uri: str, window: Window | None) -> Pixels:
    """Read a window of an ``.npy`` file of shape (C, H, W) or (H, W); only that window is read from disk."""
    array = _array(uri)
    window = window_inside(uri, window, array.shape[2], array.shape[1])
    data = np.array(array[:, window.row : window.row + window.height, window.column : window.column + window.width])
    return Pixels(data, finite(data))


def _plain_info(uri: str, width: int, height: int, count: int, dtype: str) -> RasterInfo:
    return RasterInfo(uri, width, height, count, dtype, crs=None, transform=None, nodata=None, band_names=("",) * count)


@contextmanager
def _opened(uri: str, source: BinaryIO | None = None) -> Iterator[Image.Image]:
    """Open an image; damage met while it is open becomes one clear line that names the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(source or uri)
        with image:
            yield image
    except DataError:
        raise
    except Image.DecompressionBombError:
        raise UnreadableFileError(
            f"{uri}: more pixels than a plain image may have; convert it to GeoTIFF, which is read window by window"
        ) from None
    except _DAMAGE as error:
        reason = (
            "no image that can be read"
            if isinstance(error, UnidentifiedImageError)
            else " ".join(str(error).split()) or type(error).__name__
        )
        raise UnreadableFileError(f"{uri}: truncated or damaged: {reason}") from None


def _image_mode(image: Image.Image) -> str:
    """Return the mode an image is shown in: palettes, CMYK and the like become RGB, with alpha where there is one."""
    if image.mode in {"L", "1", "I;16", "I", "RGB", "RGBA", "LA"}:
        return image.mode
    if image.mode.startswith("I;16"):
        return "I;16"
    return "RGBA" if "transparency" in image.info or image.mode in {"PA", "RGBa"} else "RGB"


def _decode(uri: str, indices: bool) -> Pixels:
    status = Path(uri).stat()
    key = (os.getpid(), uri, status.st_mtime_ns, status.st_size, status.st_ino, indices)
    kept: tuple[Any, Pixels] | None = getattr(_last, "image", None)
    if kept is not None and kept[0] == key:
        return kept[1]
    with _opened(uri) as image:
        pixels = _stored(uri, image, indices)
    _last.image = (key, pixels)
    return pixels


def _stored(uri: str, image: Image.Image, indices: bool) -> Pixels:
    if indices and image.mode in {"P", "1"}:
        stored: NDArray[Any] = np.array(image).astype(np.uint8)[None]
        return Pixels(stored, np.ones(stored.shape[1:], dtype=np.bool_))
    return _colours(uri, image)


def _colours(uri: str, image: Image.Image) -> Pixels:
    mode = _image_mode(image)
    image = image.convert("L") if mode == "1" else image if mode in {image.mode, "I;16"} else image.convert(mode)
    array = np.array(image)
    if mode in {"I;16", "I"}:
        if array.size and (int(array.min()) < 0 or int(array.max()) > np.iinfo(np.uint16).max):
            raise DataError(f"{uri}: values {array.min()} to {array.max()} do not fit 16 bits; write it as GeoTIFF")
        array = array.astype(np.uint16)
    array = array[..., None] if array.ndim == 2 else array
    valid = np.ones(array.shape[:2], dtype=np.bool_)
    if mode in {"LA", "RGBA"}:
        array, valid = array[..., :-1], array[..., -1] > 0
    # A view: whoever takes a window of it copies that alone, bands first.
    return Pixels(array.transpose(2, 0, 1), valid)


def _array(uri: str) -> NDArray[Any]:
    """Map an ``.npy`` file as (C, H, W)."""
    try:
        array: NDArray[Any] = np.load(uri, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise UnreadableFileError(f"{uri}: truncated or damaged: {' '.join(str(error).split())}") from None
    if array.ndim not in {2, 3} or 0 in array.shape or array.dtype.kind not in "buif":
        raise DataError(f"{uri}: expected real numbers of shape (C, H, W) or (H, W), found {array.dtype} of shape {array.shape}")
    array = array.view(np.uint8) if array.dtype == np.bool_ else array
    return array[None] if array.ndim == 2 else array
