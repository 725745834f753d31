"""Packed tiles: pixels that lie uncompressed (or nearly so) one after the other in a few large files, read by one look-up and one copy.

A shard is an Arrow IPC file, one row a tile, that any Arrow tool opens; ``tilth pack`` makes them, see :mod:`tilth.imagery.packing`. A
tile's URI is ``images-00003.arrow#17``: shard and row. A shard is mapped into memory when it is first asked for; reading touches only the
pages of its tile. Mappings are only read from, so threads share them, and a forked process goes on with those of its parent.
"""

from __future__ import annotations

import hashlib
import io
import math
import mmap
import os
import threading
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tilth.errors import MissingFileError, TilthError, UnreadableFileError
from tilth.imagery import plain
from tilth.imagery.files import atomic_path
from tilth.imagery.raster import Pixels, RasterInfo, Window, window_inside

if TYPE_CHECKING:
    import pyarrow as pa

KEPT_MAPPED = 256
"""Shards kept mapped a process; each takes a file descriptor and address space, but no memory of its own."""

CACHE_VARIABLE = "TILTH_CACHE"
"""Environment variable that names the folder for copies of remote shards; by default ``~/.cache/tilth``."""

_MARK = ".arrow#"
_shards: dict[str, _Shard] = {}
_copies: dict[str, str] = {}
_local = threading.local()


def is_packed(uri: str) -> bool:
    """Tell whether a URI names a tile of a shard: ``<shard>.arrow#<row>``."""
    _, mark, row = uri.rpartition(_MARK)
    return bool(mark) and row.isdecimal()


def containing_file(uri: str) -> str:
    """Return the file that a URI's pixels lie in: the shard of a packed tile, else the URI itself.

    Example:
        >>> containing_file("/data/images-00003.arrow#17"), containing_file("/data/a#1.png")
        ('/data/images-00003.arrow', '/data/a#1.png')
    """
    return uri.rpartition("#")[0] if is_packed(uri) else uri


def packed_info(uri: str) -> RasterInfo:
    """Read the header of a packed tile: that of the raster it was taken from, cut down to the tile."""
    shard, row = _located(uri)
    _, _, bands, height, width, kind, _ = shard.index[row].tolist()
    header = {name: shard.headers[name][row].as_py() for name in ("crs", "transform", "nodata", "band_names")}
    transform = header["transform"]
    return RasterInfo(
        uri=uri,
        width=width,
        height=height,
        count=bands,
        dtype=shard.kinds[kind][0].name,
        crs=header["crs"],
        transform=None if transform is None else tuple(transform),
        nodata=header["nodata"],
        band_names=tuple(header["band_names"]),
    )


def packed_pixels(uri: str, window: Window | None, *, indices: bool = False) -> Pixels:
    """Read a window of a packed tile.

    Args:
        uri: shard and row, as :func:`is_packed` knows them.
        window: default the whole tile; must lie inside it.
        indices: of an image file kept as it was, return palette indices, as labels need them; else colours.

    Raises:
        MissingFileError: no such shard.
        UnreadableFileError: the shard is truncated or damaged, or has no such row.
        DataError: the window reaches outside the tile.
    """
    shard, row = _located(uri)
    offset, size, bands, height, width, kind, mask = shard.index[row].tolist()
    dtype, codec = shard.kinds[kind]
    if codec == "raw":
        stored: NDArray[Any] = np.ndarray((bands, height, width), dtype, shard.mapped, offset)
    elif codec == "zstd":
        stored = _decompressed(uri, shard, offset, size, (bands, height, width), dtype)
    else:
        return _decoded(uri, shard, (offset, size), window, indices)
    if window is None:
        data = stored.copy() if codec == "raw" else stored
        wide, high, column, row = width, height, 0, 0
    else:
        column, row, wide, high = window_inside(uri, window, width, height)
        data = stored[:, row : row + high, column : column + wide].copy()
    if mask < 0:
        return Pixels(data, np.ones((high, wide), np.bool_))
    # Eight pixels of a row a byte, the first in the highest bit.
    bits: NDArray[np.uint8] = np.ndarray((height, -(-width // 8)), np.uint8, shard.mapped, mask)
    first = column // 8
    unpacked = np.unpackbits(bits[row : row + high, first : (column + wide + 7) // 8], axis=1)
    return Pixels(data, unpacked[:, column - 8 * first : column - 8 * first + wide].astype(np.bool_))


def check_packed(uri: str) -> None:
    """Compare the bytes of a packed tile with the checksum that was taken when it was written.

    Raises:
        MissingFileError: no such shard.
        UnreadableFileError: they differ, or the shard is damaged in another way.
    """
    shard, row = _located(uri)
    offset, size = shard.index[row, :2].tolist()
    if zlib.crc32(memoryview(shard.mapped)[offset : offset + size]) != shard.headers["crc32"][row].as_py():
        raise UnreadableFileError(f"{uri}: damaged: the pixels are not those that were written; remove the shard and pack again")


class _Shard:
    """One mapped shard.

    Attributes:
        status: what tells the file from one that replaced it.
        mapped: its bytes.
        index: int64 (rows, 7): offset and size of the record in bytes, bands, height, width, place in ``kinds``, and offset of
            the packed bits of ``valid``, -1 where all pixels are valid.
        kinds: type and codec of records.
        headers: the columns that only headers need.
    """

    def __init__(self, path: str, status: tuple[int, ...]) -> None:
        import pyarrow as pa

        self.status = status
        try:
            with Path(path).open("rb") as file:
                self.mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            whole = pa.py_buffer(self.mapped)
            reader = pa.ipc.open_file(whole)
            batches = [reader.get_batch(place) for place in range(reader.num_record_batches)]
            for batch in batches:
                batch.validate(full=True)
            self.kinds: list[tuple[np.dtype[Any], str]] = []
            parts = [self._rows(batch, whole.address) for batch in batches]
            self.index: NDArray[np.int64] = np.concatenate(parts) if parts else np.empty((0, 7), np.int64)
            columns = pa.Table.from_batches(batches, schema=reader.schema)
            self.headers: dict[str, Any] = {name: columns[name] for name in ("crs", "transform", "nodata", "band_names", "crc32")}
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UnreadableFileError(f"{path}: no whole shard of packed tiles, truncated or damaged: {reason}; pack again") from None

    def _rows(self, batch: pa.RecordBatch, start: int) -> NDArray[np.int64]:
        """Place of every record of a batch in the file; see ``index``."""
        count = len(batch)
        offsets, _ = _places(batch.column("data"), start)
        masks, mask_sizes = _places(batch.column("mask"), start)
        sizes = batch.column("size").to_numpy()
        shapes = batch.column("shape").flatten().to_numpy().reshape(count, 3).astype(np.int64)
        named = zip(batch.column("dtype").to_pylist(), batch.column("codec").to_pylist(), strict=True)
        pairs = [(np.dtype(dtype).newbyteorder("<"), str(codec)) for dtype, codec in named]
        self.kinds += [pair for pair in dict.fromkeys(pairs) if pair not in self.kinds]
        places = {pair: place for place, pair in enumerate(self.kinds)}
        kinds = np.array([places[pair] for pair in pairs], np.int64)
        raw = np.array([codec == "raw" for _, codec in pairs], np.bool_)
        bytes_a_value = np.array([dtype.itemsize for dtype, _ in pairs], np.int64)
        wrong = raw & (sizes != shapes.prod(axis=1) * bytes_a_value)
        wrong |= (masks >= 0) & (mask_sizes != shapes[:, 1] * -(-shapes[:, 2] // 8))
        wrong |= (offsets + sizes > len(self.mapped)) | (offsets < 0) | (shapes < 1).any(axis=1)
        if wrong.any():
            raise ValueError(f"{int(wrong.sum())} records do not have the size their shape asks for")
        return np.column_stack([offsets, sizes, shapes, kinds, masks])


def _places(column: Any, start: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Offset in the file and length of every cell of a binary column, both in bytes; -1 and 0 for nulls."""
    count = len(column)
    _, offsets, values = column.buffers()
    if column.null_count == count or values is None:
        return np.full(count, -1, np.int64), np.zeros(count, np.int64)
    ends: NDArray[np.int64] = np.frombuffer(offsets, np.int64, count=count + 1, offset=8 * column.offset)
    absent = column.is_null().to_numpy(zero_copy_only=False)
    return np.where(absent, -1, ends[:-1] + (values.address - start)), np.where(absent, 0, np.diff(ends))


def _located(uri: str) -> tuple[_Shard, int]:
    """Find the shard and the row of a packed tile; a shard that was replaced meanwhile is mapped anew."""
    path, _, row = uri.rpartition("#")
    file = _local_copy(path) if "://" in path else path
    try:
        found = os.stat(file)  # noqa: PTH116 - a path object takes longer to make than this to answer
    except OSError:
        raise MissingFileError(f"{path}: no such shard; packed tiles need the files that tilth pack wrote beside their catalog") from None
    status = (found.st_mtime_ns, found.st_size, found.st_ino)
    shard = _shards.get(file)
    if shard is None or shard.status != status:
        # Two threads may both map it; one mapping is forgotten. A lock would be held for ever in a process forked meanwhile.
        _shards.pop(file, None)
        for oldest in list(_shards)[: max(0, len(_shards) - KEPT_MAPPED + 1)]:
            _shards.pop(oldest, None)
        shard = _shards[file] = _Shard(file, status)
    place = int(row)
    if place >= len(shard.index):
        raise UnreadableFileError(f"{uri}: the shard has {len(shard.index)} tiles, no row {place}; the catalog belongs to another pack")
    return shard, place


def _decompressed(uri: str, shard: _Shard, offset: int, size: int, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
    import pyarrow as pa

    codec = getattr(_local, "zstd", None)
    if codec is None:
        codec = _local.zstd = pa.Codec("zstd")
    try:
        stored = codec.decompress(pa.py_buffer(shard.mapped).slice(offset, size), decompressed_size=math.prod(shape) * dtype.itemsize)
    except (pa.ArrowException, OSError) as error:
        raise UnreadableFileError(f"{uri}: damaged: {' '.join(str(error).split())}; pack again") from None
    # Arrow made these bytes for us alone: what is returned may be written to.
    return np.frombuffer(stored, dtype).reshape(shape)


def _decoded(uri: str, shard: _Shard, place: tuple[int, int], window: Window | None, indices: bool) -> Pixels:
    """Decode an image file that was kept as it was, as :func:`tilth.imagery.plain.image_pixels` decodes the file."""
    offset, size = place
    pixels = plain.encoded_pixels(uri, io.BytesIO(shard.mapped[offset : offset + size]), indices=indices)
    if window is None:
        return pixels
    column, row, wide, high = window_inside(uri, window, pixels.valid.shape[1], pixels.valid.shape[0])
    rows, columns = slice(row, row + high), slice(column, column + wide)
    return Pixels(pixels.data[:, rows, columns].copy(), pixels.valid[rows, columns].copy())


def _local_copy(url: str) -> str:
    """Copy a remote shard to the local cache, once, and return where it lies; see :data:`CACHE_VARIABLE`. Nothing is ever removed there.

    Raises:
        MissingFileError: no such object.
        UnreadableFileError: the store cannot be reached, or its protocol needs a library that is not installed.
    """
    known = _copies.get(url)
    if known is not None:
        return known
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(url)
        about = system.info(path)
        told = "|".join(str(about.get(name)) for name in ("size", "ETag", "mtime", "created", "LastModified"))
        name = hashlib.sha256(f"{url}|{told}".encode()).hexdigest()[:32]
        base = Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "tilth")
        target = base / "shards" / f"{name}.arrow"
        if not target.is_file():
            with atomic_path(target) as temporary:
                system.get_file(path, str(temporary))
    except FileNotFoundError:
        raise MissingFileError(f"{url}: no such shard in that store") from None
    except TilthError:
        raise
    except Exception as error:
        # Every store raises errors of its own library.
        raise UnreadableFileError(f"{url}: cannot be fetched: {' '.join(str(error).split()) or type(error).__name__}") from None
    return _copies.setdefault(url, str(target))
