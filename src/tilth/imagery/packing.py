"""Shards out: records of tiles, and the Arrow IPC file that holds them; read back by :mod:`tilth.imagery.packed`."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tilth.errors import TilthError
from tilth.imagery import packed, plain
from tilth.imagery.files import atomic_path
from tilth.imagery.raster import RasterInfo, Window
from tilth.imagery.read import read_info, read_label, read_pixels

Codec = Literal["raw", "zstd", "original"]

FORMAT = 1
"""Raised when a reader of the old format would misunderstand the new one."""

ALIGNMENT = 64
"""Records take a multiple of so many bytes, so that numbers of every type lie at multiples of their size."""

SHARD_SUFFIX = ".arrow"
STAMP_KEY = b"tilth"
KEPT_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
"""Image files that codec ``original`` keeps as they are."""

SCHEMA = pa.schema(
    [
        pa.field("tile_id", pa.string(), nullable=False),
        pa.field("shape", pa.list_(pa.int32(), 3), nullable=False),
        pa.field("dtype", pa.string(), nullable=False),
        pa.field("codec", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("crc32", pa.uint32(), nullable=False),
        pa.field("data", pa.large_binary(), nullable=False),
        pa.field("mask", pa.large_binary()),
        pa.field("crs", pa.string()),
        pa.field("transform", pa.list_(pa.float64(), 6)),
        pa.field("nodata", pa.float64()),
        pa.field("band_names", pa.list_(pa.string()), nullable=False),
    ]
)
"""Columns of a shard. ``size`` is the length of ``data`` without padding, ``mask`` the packed bits of ``valid``, row by row."""

_BATCH_BYTES = 16 * 2**20
_ZSTD_LEVEL = 3


@dataclass(frozen=True)
class Record:
    """One tile as it is stored.

    Attributes:
        tile_id: of the first row of the catalog that shows it.
        codec: ``raw`` (the numbers themselves), ``zstd``, or ``original`` (an image file).
        data: its bytes.
        shape: (C, h, w).
        dtype: NumPy name of the type, stored with the lowest byte first.
        mask: uint8 (h, ceil(w / 8)), bits of ``valid``; None where all pixels are valid or the image file says it.
        header: what :func:`tilth.imagery.read.read_info` tells of the tile.
    """

    tile_id: str
    codec: str
    data: Any
    shape: tuple[int, int, int]
    dtype: str
    mask: NDArray[np.uint8] | None
    header: RasterInfo

    @property
    def stored_bytes(self) -> int:
        """Bytes in the shard, without the header."""
        return padded(len(self.data)) + (0 if self.mask is None else self.mask.nbytes)


def padded(size: int) -> int:
    """Round a size up to whole units of :data:`ALIGNMENT`."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def kept_whole(uri: str, codec: Codec, window: Window) -> bool:
    """Say whether a tile may be stored as the image file that it is: if its window turns out to be all of it."""
    path = Path(uri)
    kept = codec == "original" and window[:2] == (0, 0) and path.suffix.lower() in KEPT_SUFFIXES
    return kept and path.is_file() and not plain.is_beyond_pillow(path)


def image_record(tile_id: str, uri: str, window: Window, codec: Codec, header: Callable[[str], RasterInfo] = read_info) -> Record:
    """Read a tile and make its record.

    Args:
        tile_id: name to store.
        uri: raster it is taken from.
        window: the tile's pixels.
        codec: how to store it; ``original`` keeps whole jpg and png files and stores the rest raw.
        header: reads a raster's header; many tiles share one.

    Raises:
        MissingFileError: no such file.
        DataError: it cannot be read.
    """
    info = header(uri)
    if kept_whole(uri, codec, window) and window[2:] == (info.width, info.height):
        encoded = Path(uri).read_bytes()
        # Decoded once to be sure that it can be.
        plain.encoded_pixels(uri, encoded)
        return Record(tile_id, "original", encoded, (info.count, info.height, info.width), info.dtype, None, info)
    pixels = read_pixels(uri, window)
    mask = None if pixels.valid.all() else np.packbits(pixels.valid, axis=1)
    return array_record(tile_id, pixels.data, mask, codec, _cut(info, window))


def label_record(tile_id: str, uri: str, window: Window, codec: Codec, header: Callable[[str], RasterInfo] = read_info) -> Record:
    """As :func:`image_record` for a label: class ids, with 255 where there is none, whatever the file stores them as."""
    info = header(uri)
    label = read_label(uri, window)
    if kept_whole(uri, codec, window) and window[2:] == (info.width, info.height):
        shape = (info.count, info.height, info.width)
        return Record(tile_id, "original", Path(uri).read_bytes(), shape, info.dtype, None, info)
    return array_record(tile_id, label[None], None, codec, _cut(info, window))


def array_record(tile_id: str, data: NDArray[Any], mask: NDArray[np.uint8] | None, codec: Codec, header: RasterInfo) -> Record:
    """Make the record of pixels that are in memory.

    Args:
        tile_id: name to store.
        data: (C, h, w).
        mask: uint8 (h, ceil(w / 8)), bits of ``valid``; None where all pixels are valid.
        codec: how to store them; ``original`` stores them raw.
        header: of the tile.
    """
    little = np.ascontiguousarray(data, dtype=data.dtype.newbyteorder("<"))
    stored: Any = little.reshape(-1).view(np.uint8).data
    used = "raw"
    if codec == "zstd":
        smaller = pa.Codec("zstd", compression_level=_ZSTD_LEVEL).compress(stored, asbytes=True)
        # What does not shrink is read faster as it is.
        stored, used = (smaller, "zstd") if len(smaller) < len(stored) else (stored, "raw")
    bands, height, width = data.shape
    return Record(tile_id, used, stored, (bands, height, width), data.dtype.name, mask, header)


def _cut(info: RasterInfo, window: Window) -> RasterInfo:
    """Cut a header down to a window: its size, and where its upper left corner lies."""
    transform = info.transform
    if transform is not None:
        a, b, c, d, e, f = transform
        transform = (a, b, c + window.column * a + window.row * b, d, e, f + window.column * d + window.row * e)
    return RasterInfo(info.uri, window.width, window.height, info.count, info.dtype, info.crs, transform, info.nodata, info.band_names)


@contextmanager
def shard_file(path: str | Path, stamp: str) -> Iterator[Callable[[Record], None]]:
    """Write a shard, whole or not at all; some megabytes of it are in memory at a time.

    Args:
        path: the file to write, ``.arrow``.
        stamp: what tells a shard that is still right from one that must be made anew; see :func:`read_stamp`.

    Yields:
        A function that appends a record.

    Raises:
        TilthError: the place cannot be written to, or is full.
    """
    schema = SCHEMA.with_metadata({STAMP_KEY: stamp.encode()})
    waiting: list[Record] = []
    gathered = 0
    with atomic_path(path) as temporary:
        try:
            with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:

                def append(record: Record) -> None:
                    nonlocal gathered
                    waiting.append(record)
                    gathered += record.stored_bytes
                    if gathered >= _BATCH_BYTES:
                        writer.write_batch(_batch(waiting, schema))
                        waiting.clear()
                        gathered = 0

                yield append
                if waiting:
                    writer.write_batch(_batch(waiting, schema))
        except TilthError:
            raise
        except OSError as error:
            raise TilthError(f"{path}: cannot be written: {error.strerror or error}") from error


def read_stamp(path: str | Path) -> tuple[str, list[str]] | None:
    """Return the stamp of a shard and the tile ids of its rows, in order; None if there is no whole shard.

    Its pixels are not looked at.
    """
    try:
        with pa.memory_map(str(path)) as source:
            reader = pa.ipc.open_file(source)
            stamp = (reader.schema.metadata or {}).get(STAMP_KEY)
            if stamp is None or not reader.schema.equals(SCHEMA):
                return None
            batches = (reader.get_batch(place) for place in range(reader.num_record_batches))
            return stamp.decode(), [name for batch in batches for name in batch.column("tile_id").to_pylist()]
    except (pa.ArrowException, OSError, ValueError):
        return None


def shard_checksum(path: str | Path) -> int | None:
    """Return one checksum of those of all records of a shard, in order; None if there is no whole shard. Its pixels are not looked at."""
    try:
        with pa.memory_map(str(path)) as source:
            reader = pa.ipc.open_file(source)
            checksum = 0
            for place in range(reader.num_record_batches):
                checksum = zlib.crc32(reader.get_batch(place).column("crc32").to_numpy().tobytes(), checksum)
            return checksum
    except (pa.ArrowException, OSError, ValueError, KeyError):
        return None


def record_uri(shard: str | Path, row: int) -> str:
    """Name a row of a shard as readers understand it."""
    uri = f"{shard}#{row}"
    assert packed.is_packed(uri), f"{shard} is not called .arrow"
    return uri


def _batch(records: list[Record], schema: pa.Schema) -> pa.RecordBatch:
    data = np.zeros(sum(padded(len(record.data)) for record in records), np.uint8)
    ends = np.cumsum([0, *(padded(len(record.data)) for record in records)], dtype=np.int64)
    for record, start in zip(records, ends[:-1].tolist(), strict=True):
        data[start : start + len(record.data)] = np.frombuffer(record.data, np.uint8)
    headers = [record.header for record in records]
    columns = {
        "tile_id": [record.tile_id for record in records],
        "shape": [record.shape for record in records],
        "dtype": [record.dtype for record in records],
        "codec": [record.codec for record in records],
        "size": [len(record.data) for record in records],
        "crc32": [zlib.crc32(record.data) for record in records],
        "mask": [None if record.mask is None else record.mask.tobytes() for record in records],
        "crs": [header.crs for header in headers],
        "transform": [header.transform for header in headers],
        "nodata": [header.nodata for header in headers],
        "band_names": [list(header.band_names) for header in headers],
    }
    binary = pa.Array.from_buffers(pa.large_binary(), len(records), [None, pa.py_buffer(ends), pa.py_buffer(data)])
    arrays = [binary if field.name == "data" else pa.array(columns[field.name], field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
