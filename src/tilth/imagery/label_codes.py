"""Labels that come coded - other numbers than class ids, or colours - and how they become class ids.

Labels are small: whatever they come as, they become uint8 index rasters beside the catalog. Originals are never touched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from tilth.classes import IGNORE_INDEX
from tilth.errors import DataError, TilthError, UsageError
from tilth.imagery import plain
from tilth.imagery.codes import LabelCodes
from tilth.imagery.files import atomic_path
from tilth.imagery.made_from import STAMP, stamp_in, stamp_of
from tilth.imagery.palette import read_palette
from tilth.imagery.raster import Pixels, RasterInfo, Window
from tilth.imagery.read import read_info, read_label, read_pixels

__all__ = ["LabelCodes", "decode", "write_coded_label"]

_STRIP_PIXELS = 2**22
_COUNTED_KINDS = 4096
"""Unlisted values counted before a file is given up: a photograph taken for a mask has millions."""
_NAMED_KINDS = 3


def decode(stored: NDArray[Any], valid: NDArray[np.bool_], codes: LabelCodes, source: str) -> NDArray[np.uint8]:
    """Turn coded labels into class ids.

    Args:
        stored: (1, h, w), (3, h, w) or (4, h, w). For values, several bands must agree (grey saved as colour); for colours, one band is
            grey. A fourth band is opacity: 0 means "no label".
        valid: bool (h, w); False gives 255.
        codes: what the values or colours mean.
        source: file named in messages.

    Returns:
        uint8 (h, w): class ids, 255 where there is no label.

    Raises:
        DataError: another number of bands, bands that do not agree, or (``unlisted: refuse``) a value that is not listed; file, value and
            number of pixels are named.
    """
    label, unlisted = _decode(stored, valid, codes, source)
    _refuse(unlisted, codes, source)
    return label


def write_coded_label(source_uri: str, target_path: str | Path, codes: LabelCodes, *, overwrite: bool = False) -> Path:
    """Write the index raster of a coded label on the grid of the original, in one go and strip by strip.

    A target that is whole and was made from the same source with the same codes is left as it is, so that a stopped job goes on where it
    was; see :func:`tilth.imagery.made_from.stamp_of`.

    Args:
        source_uri: coded label raster.
        target_path: ``.tif`` (deflate, 255 is nodata, with the source's georeference) or ``.png``.
        codes: what the stored values mean.
        overwrite: write anew in any case.

    Returns:
        The path of the index raster.

    Raises:
        UsageError: another suffix, the target is the source, or (without ``overwrite``) a file that was not made by tilth.
        DataError: as :func:`decode`; nothing is written then.
        MissingFileError: no such source.
        TilthError: the place cannot be written to.
    """
    target = Path(target_path)
    if target.suffix.lower() not in {".tif", ".tiff", ".png"}:
        raise UsageError(f"{target}: labels are written as .tif or .png")
    if target.exists() and Path(source_uri).exists() and target.samefile(source_uri):
        raise UsageError(f"{target}: is the label itself; originals are not replaced")
    info = read_info(source_uri)
    stamp = stamp_of(["codes", codes.model_dump(mode="json")], [info])
    if overwrite or not _is_made(target, stamp):
        (_write_png if target.suffix.lower() == ".png" else _write_tif)(info, target, codes, stamp)
    return target


def _decode(
    stored: NDArray[Any], valid: NDArray[np.bool_], codes: LabelCodes, source: str
) -> tuple[NDArray[np.uint8], Counter[int | float]]:
    """Turn codes into ids, and count the pixels of each unlisted value (or packed colour)."""
    if stored.ndim != 3 or stored.shape[0] not in {1, 3, 4}:
        raise DataError(f"{source}: a label has 1 band, or 3 (or 4) of colour; found shape {stored.shape}")
    if stored.shape[0] == 4:
        valid = valid & (stored[3] > 0)
    keys: NDArray[Any] = _packed(stored, source) if codes.colours else _single(stored, valid, source)
    label = _colour_table(tuple(codes.colours.items()), codes.tolerance)[keys] if codes.colours else _look_up(keys, codes.values)
    label[~valid] = IGNORE_INDEX
    # Ignored on purpose and unlisted both gave 255; only these pixels need a second look.
    doubtful = keys[valid & (label == IGNORE_INDEX)]
    strange = doubtful[~_is_ignored(doubtful, codes)]
    kinds, counts = np.unique(strange, return_counts=True) if codes.unlisted == "refuse" else ((), ())
    return label, Counter(dict(zip((kind.item() for kind in kinds), (int(count) for count in counts), strict=True)))


def _packed(stored: NDArray[Any], source: str) -> NDArray[np.uint32]:
    """Pack the colour bands of (1|3|4, h, w) into one number a pixel."""
    if stored.dtype != np.uint8:
        raise DataError(f"{source}: colours of 8 bits are expected, found {stored.dtype}; list 'values' if the numbers are codes")
    red, green, blue = stored[:3] if stored.shape[0] > 1 else stored[[0, 0, 0]]
    packed: NDArray[np.uint32] = (red.astype(np.uint32) << 16) | (green.astype(np.uint32) << 8) | blue
    return packed


def _single(stored: NDArray[Any], valid: NDArray[np.bool_], source: str) -> NDArray[Any]:
    """Return the one band of values; grey saved as three equal bands counts as one."""
    for band in stored[1:3]:
        if (band != stored[0])[valid].any():
            raise DataError(f"{source}: the bands of this label differ, so it holds colours; list 'colours' instead of 'values'")
    first: NDArray[Any] = stored[0]
    return first


@lru_cache(maxsize=4)
def _colour_table(items: tuple[tuple[str, int], ...], tolerance: int) -> NDArray[np.uint8]:
    """Class id by packed colour, for all 2**24 of them: one look-up a pixel, however many classes."""
    cube = np.full((256, 256, 256), IGNORE_INDEX, dtype=np.uint8)
    for name, target in items:
        cube[tuple(slice(max(0, level - tolerance), level + tolerance + 1) for level in bytes.fromhex(name))] = target
    cube.setflags(write=False)
    return cube.reshape(-1)


def _look_up(keys: NDArray[Any], table: dict[int, int]) -> NDArray[np.uint8]:
    """Class id by stored value; 255 for values that are not listed."""
    if keys.dtype in {np.dtype(np.uint8), np.dtype(np.uint16)}:
        short = np.full(int(np.iinfo(keys.dtype).max) + 1, IGNORE_INDEX, dtype=np.uint8)
        for key, target in table.items():
            if 0 <= key < short.size:
                short[key] = target
        found: NDArray[np.uint8] = short[keys]
        return found
    label = np.full(keys.shape, IGNORE_INDEX, dtype=np.uint8)
    for key, target in table.items():
        label[keys == key] = target
    return label


def _is_ignored(keys: NDArray[Any], codes: LabelCodes) -> NDArray[np.bool_]:
    """Say which values or packed colours are listed as "no label"."""
    if codes.values:
        return np.isin(keys, [value for value, target in codes.values.items() if target == IGNORE_INDEX])
    ignored = np.zeros(keys.shape, dtype=np.bool_)
    for name in (name for name, target in codes.colours.items() if target == IGNORE_INDEX):
        levels = zip(bytes.fromhex(name), (16, 8, 0), strict=True)
        near = [np.abs(((keys >> shift) & 255).astype(np.int16) - level) <= codes.tolerance for level, shift in levels]
        ignored |= np.logical_and.reduce(near)
    return ignored


def _refuse(unlisted: Counter[int | float], codes: LabelCodes, source: str) -> None:
    if not unlisted:
        return
    what = "colour" if codes.colours else "value"

    def spell(kind: float) -> str:
        return f"#{int(kind):06X}" if codes.colours else f"{kind:g}"

    named = ", ".join(f"{what} {spell(kind)} in {count:,} pixels" for kind, count in unlisted.most_common(_NAMED_KINDS))
    more = f" and {len(unlisted) - _NAMED_KINDS:,} more {what}s" if len(unlisted) > _NAMED_KINDS else ""
    listed = [f"#{name}" for name in codes.colours] or [str(value) for value in sorted(codes.values)]
    shown = ", ".join(listed[:12]) + (f", ... ({len(listed)})" if len(listed) > 12 else "")
    lossy = "; JPEG alters colours, so masks need a lossless format" if source.lower().endswith((".jpg", ".jpeg")) else ""
    raise DataError(f"{source}: {named}{more}, expected {shown}; list what is missing, or set unlisted: ignore{lossy}")


def _strips(info: RasterInfo) -> Iterator[Window]:
    """Windows over the whole width, of bounded size, that begin at multiples of 256 rows."""
    height = max(256, _STRIP_PIXELS // info.width // 256 * 256)
    for row in range(0, info.height, height):
        yield Window(0, row, info.width, min(height, info.height - row))


def _decoded_strips(info: RasterInfo, codes: LabelCodes) -> Iterator[tuple[Window, NDArray[np.uint8]]]:
    """Decode strip by strip; what is unlisted is counted over the whole file, then refused."""
    unlisted: Counter[int | float] = Counter()
    palette = read_palette(info.uri) if codes.colours and info.count == 1 and not _is_plain(info.uri) else None
    for window in _strips(info):
        pixels = _stored(info.uri, window, codes)
        if palette is not None:
            pixels = Pixels(palette[:, pixels.data[0]], pixels.valid)
        label, strange = _decode(pixels.data, pixels.valid, codes, info.uri)
        unlisted += strange
        if len(unlisted) > _COUNTED_KINDS:
            break
        yield window, label
    _refuse(unlisted, codes, info.uri)


def _stored(uri: str, window: Window, codes: LabelCodes) -> Pixels:
    """Read what codes speak of: the indices of a palette image for values, its colours for colours."""
    if codes.values and _is_plain(uri) and not plain.is_beyond_pillow(Path(uri)):
        return plain.image_pixels(uri, window, indices=True)
    return read_pixels(uri, window)


def _is_plain(uri: str) -> bool:
    """Say whether a file is read without GDAL."""
    return Path(uri).suffix.lower() in {*plain.IMAGE_SUFFIXES, ".npy"}


def _write_tif(info: RasterInfo, target: Path, codes: LabelCodes, stamp: str) -> None:
    from tilth.imagery.geotiff import Legend, raster_file

    legend = Legend(tags={STAMP: stamp}, nodata=IGNORE_INDEX)
    with raster_file(
        target, width=info.width, height=info.height, count=1, dtype="uint8", crs=info.crs, transform=info.transform, legend=legend
    ) as write:
        for window, label in _decoded_strips(info, codes):
            write(label, window.column, window.row)


def _write_png(info: RasterInfo, target: Path, codes: LabelCodes, stamp: str) -> None:
    whole = np.empty((info.height, info.width), dtype=np.uint8)
    for window, label in _decoded_strips(info, codes):
        whole[window.row : window.row + window.height] = label
    text = PngImagePlugin.PngInfo()
    text.add_text(STAMP, stamp)
    with atomic_path(target) as temporary:
        try:
            Image.fromarray(whole).save(temporary, format="PNG", pnginfo=text, compress_level=6)
        except OSError as error:
            raise TilthError(f"{target}: cannot be written: {error.strerror or error}") from error


def _is_made(target: Path, stamp: str) -> bool:
    """Say whether a target is there, whole, and carries this stamp."""
    if stamp_in(target) != stamp:
        return False
    try:
        for window in _strips(read_info(str(target))):
            read_label(str(target), window)
    # Whatever a damaged file makes the readers say, it is not whole and is written anew.
    except (TilthError, OSError):
        return False
    return True
