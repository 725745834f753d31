"""Which record of a packed store lies in which shard: settled before a pixel is read, so that work can stop and go on anywhere."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilth.catalog import schema, uris
from tilth.catalog.rows import window_array
from tilth.catalog.table import Catalog
from tilth.errors import TilthError
from tilth.imagery import references
from tilth.imagery.packed import containing_file
from tilth.imagery.packing import FORMAT, Codec, Record, image_record, kept_whole, label_record, padded
from tilth.imagery.read import RasterInfo, Window, read_info

# Tile id, type, shape and the like, in bytes a record.
_HEADER_BYTES = 512
# Tiles that are read to see how large they become.
_TRIED = 16
_MARGIN = {"raw": 1.0, "original": 1.0, "zstd": 1.2}


@dataclass(frozen=True)
class Entry:
    """One record to be made: the pixels that one or several tiles of the catalog show.

    Attributes:
        tile_id: of the first of them.
        uri: raster they lie in.
        window: their pixels.
        size: bytes it takes as it seems.
    """

    tile_id: str
    uri: str
    window: Window
    size: int


@dataclass(frozen=True)
class Shard:
    """One file to be made.

    Attributes:
        kind: ``images``, ``labels`` or ``references``.
        name: file name.
        stamp: hash of everything that decides what is in it.
        entries: its records in order.
    """

    kind: str
    name: str
    stamp: str
    entries: tuple[Entry, ...]

    def record(self, entry: Entry, codec: Codec, header: Callable[[str], RasterInfo]) -> Record:
        """Read a tile; see :func:`tilth.imagery.packing.image_record`."""
        make = image_record if self.kind == "images" else label_record
        return make(entry.tile_id, entry.uri, entry.window, codec, header)


@dataclass(frozen=True)
class Plan:
    """A packed store as it will be.

    Attributes:
        identity: hash of the records and settings; the same when only other columns of the catalog changed.
        shards: the files, images first.
        images: for every row of the catalog, its place among the image records.
        labels: the same among the label records, -1 without label.
        references: the same among the records of clean labels; None where the catalog has no such column.
    """

    identity: str
    shards: tuple[Shard, ...]
    images: NDArray[np.int64]
    labels: NDArray[np.int64]
    references: NDArray[np.int64] | None = None


def make_plan(catalog: Catalog, shard_bytes: int, codec: Codec) -> Plan:
    """Give every record its shard: in the catalog's order, a new shard where the next record would make one too large.

    Rows that show the same window of the same raster share a record. Nothing but the sizes of files is looked at.

    Args:
        catalog: what to pack.
        shard_bytes: no shard is larger, unless one tile is.
        codec: how tiles are stored.
    """
    windows = [Window(*row) for row in window_array(catalog.table).tolist()]
    ids = catalog.column("tile_id")
    columns = {"images": "image", "labels": "label", "references": schema.REFERENCE_COLUMN}
    names = {kind: catalog.column(column) for kind, column in columns.items() if column in catalog.table.column_names}
    depths = {name: len(sensor) * np.dtype(sensor.dtype).itemsize for name, sensor in catalog.sensors.items()}
    depth = {kind: [1] * len(ids) for kind in names} | {"images": [depths[name] for name in catalog.column("sensor")]}
    files = _Files([uri for listed in names.values() for uri in listed if uri is not None])
    shards: list[Shard] = []
    places: dict[str, NDArray[np.int64]] = {}
    everything: list[str] = []
    for kind, listed in names.items():
        found: dict[tuple[str, Window], int] = {}
        entries: list[Entry] = []
        rows = np.full(len(ids), -1, np.int64)
        for row, (tile_id, uri, window) in enumerate(zip(ids, listed, windows, strict=True)):
            if uri is None:
                continue
            rows[row] = found.setdefault((uri, window), len(entries))
            if rows[row] == len(entries):
                size = window.width * window.height * depth[kind][row]
                if codec == "original" and kept_whole(uri, codec, window):
                    size = min(size, files.size(uri))
                entries.append(Entry(tile_id, uri, window, padded(size) + _HEADER_BYTES))
        places[kind] = rows
        groups = _groups(entries, shard_bytes)
        shards += [
            Shard(kind, f"{kind}-{number:05d}.arrow", _stamp(kind, codec, part, files, sources=True), part)
            for number, part in enumerate(groups)
        ]
        everything.append(_stamp(kind, codec, entries, files, sources=False))
    identity = hashlib.sha256(json.dumps([codec, shard_bytes, *everything]).encode()).hexdigest()
    return Plan(identity, tuple(shards), places["images"], places["labels"], places.get("references"))


def needed_bytes(shards: Sequence[Shard], codec: Codec) -> int:
    """Estimate what shards will take on disk, from the sizes of some of their tiles; those that cannot be read count for nothing."""
    entries = [(shard, entry) for shard in shards for entry in shard.entries]
    estimated = tried = taken = 0
    for shard, entry in entries[:: max(1, len(entries) // _TRIED)]:
        try:
            record = shard.record(entry, codec, read_info)
        except (TilthError, OSError):
            continue
        estimated += entry.size
        tried += 1
        taken += record.stored_bytes + _HEADER_BYTES
    # No tile could be read: the sensor says how large they are.
    ratio = taken / estimated * _MARGIN[codec] if tried else 1.0
    return round(sum(entry.size for _, entry in entries) * ratio)


class _Files:
    """What distinguishes source files: a name that is the same wherever their tree lies, and size and time of change of all behind it."""

    def __init__(self, listed: Sequence[str]) -> None:
        self._root = uris.common_folder(listed)
        self._facts: dict[str, tuple[int, ...]] = {}

    def name(self, uri: str) -> str:
        return uri if uris.is_remote(uri) or not self._root else uri[len(self._root) :].lstrip(os.sep)

    def size(self, uri: str) -> int:
        """Size in bytes of the file itself; -1 for what is no local file."""
        return references.file_state(containing_file(uri))[0]

    def facts(self, uri: str) -> tuple[int, ...]:
        """Size in bytes and time of change in nanoseconds; -1 for what is no local file. Of masks, sidecars and sources, too."""
        file = containing_file(uri)
        if file not in self._facts:
            states = map(references.file_state, references.files_behind(file))
            self._facts[file] = tuple(number for state in states for number in state[:2])
        return self._facts[file]


def _groups(entries: Sequence[Entry], shard_bytes: int) -> list[tuple[Entry, ...]]:
    groups: list[list[Entry]] = []
    filled = 0
    for entry in entries:
        if not groups or filled + entry.size > shard_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(entry)
        filled += entry.size
    return [tuple(group) for group in groups]


def _stamp(kind: str, codec: str, entries: Sequence[Entry], files: _Files, *, sources: bool) -> str:
    listed: list[Any] = [
        [entry.tile_id, files.name(entry.uri), *entry.window, *(files.facts(entry.uri) if sources else ())] for entry in entries
    ]
    return hashlib.sha256(json.dumps([FORMAT, kind, codec, listed]).encode()).hexdigest()
