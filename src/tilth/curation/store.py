"""Scores on disk: one Arrow file for every so many tiles, whole or not there, mapped into memory when they are used.

A shard says in its metadata what it was made from. The same tiles, model and settings find it done; any other make it anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tilth.catalog.duplicates import SIDE
from tilth.catalog.rows import window_array
from tilth.catalog.shards import ShardPlan, image_facts, shard_stamp, write_table
from tilth.catalog.table import Catalog
from tilth.curation.entropy import READINGS
from tilth.curation.scorer import Scored
from tilth.errors import UnreadableFileError

_PORTRAIT_BYTES = SIDE * SIDE
_DIGEST_BYTES = 16

NUMBERS = ("confidence", "valid", "brightness", "contrast", "bright")
"""Columns of one float32 a tile; null where there is nothing to say."""


def plan_shards(catalog: Catalog, kind: str, identity: str, shard_tiles: int) -> tuple[ShardPlan, ...]:
    """Divide the rows of a catalog among shards, in order.

    Args:
        catalog: N tiles.
        kind: first part of the names of files, such as ``pool``.
        identity: what else scores depend on: model and settings.
        shard_tiles: rows of a shard.
    """
    table = catalog.table
    ids, images = table["tile_id"].to_pylist(), table["image"].to_pylist()
    windows = window_array(table).tolist()
    facts: dict[str, tuple[str, list[int]]] = {}
    plans = []
    for number, start in enumerate(range(0, len(catalog), shard_tiles)):
        stop = min(start + shard_tiles, len(catalog))
        listed = []
        for row in range(start, stop):
            if images[row] not in facts:
                facts[images[row]] = image_facts(images[row])
            listed.append([ids[row], *windows[row], facts[images[row]]])
        plans.append(ShardPlan(f"{kind}-{number:05d}.arrow", start, stop, shard_stamp(identity, listed)))
    return tuple(plans)


def write_shard(path: Path, stamp: str, scored: Iterable[Scored], classes: int, width: int) -> None:
    """Write the scores of tiles in one go.

    Args:
        path: the file.
        stamp: what they are made from.
        scored: of each tile.
        classes: number of classes K of the model.
        width: length d of features.

    Raises:
        TilthError: the place cannot be written to.
    """
    items = list(scored)
    looks, opinions = [item.look for item in items], [item.opinion for item in items]
    columns: dict[str, Any] = {
        f"entropy_{name}": pa.array([None if one is None else float(one.entropies[place]) for one in opinions], pa.float64())
        for place, name in enumerate(READINGS)
    }
    columns["confidence"] = pa.array([None if one is None else one.confidence for one in opinions], pa.float32())
    for name in NUMBERS[1:]:
        values = [None if look is None or np.isnan(getattr(look, name)) else getattr(look, name) for look in looks]
        columns[name] = pa.array(values, pa.float32())
    columns["problem"] = pa.array([item.problem for item in items], pa.string())
    empty = np.zeros(classes, np.int32)
    columns["pixels"] = _lists([empty if one is None else one.pixels for one in opinions], np.int32, classes)
    columns["digest"] = pa.array([None if look is None else look.digest for look in looks], pa.binary(_DIGEST_BYTES))
    drawn = [None if look is None or look.portrait is None else look.portrait.tobytes() for look in looks]
    columns["portrait"] = pa.array(drawn, pa.binary(_PORTRAIT_BYTES))
    nothing = np.zeros(width, np.float32)
    columns["feature"] = _lists([nothing if one is None else one.feature for one in opinions], np.float32, width)
    write_table(path, stamp, pa.table(columns))


class Scores:
    """The scores of N tiles: numbers in memory, features and portraits on disk.

    Attributes:
        table: columns of numbers, digests and class pixels, N rows.
        features: unit vectors, zeros for tiles without.
        drawn: bool (N,), tiles that have a portrait.
        identity: hash of what the scores were made from.
    """

    def __init__(self, folder: Path, plans: Sequence[ShardPlan]) -> None:
        """Open shards that are all there.

        Raises:
            UnreadableFileError: one is not, or is damaged.
        """
        self.identity = hashlib.sha256(json.dumps([plan.stamp for plan in plans]).encode()).hexdigest()
        tables, features, portraits, drawn = [], [], [], []
        for plan in plans:
            try:
                table = pa.ipc.open_file(pa.memory_map(str(folder / plan.name))).read_all()
            except (OSError, pa.ArrowException) as error:
                raise UnreadableFileError(
                    f"{folder / plan.name}: scores cannot be read ({error}); remove the file, and curate again"
                ) from None
            features.append(_matrix(table["feature"], np.float32))
            portraits.append(_bytes(table["portrait"], _PORTRAIT_BYTES))
            drawn.append(table["portrait"].is_valid().to_numpy())
            # What is used all the time comes into memory; the rest stays where it is.
            tables.append(table.drop_columns(["feature", "portrait"]))
        self.table = pa.concat_tables(tables).combine_chunks()
        self.features = MappedRows(features)
        self.drawn: NDArray[np.bool_] = np.concatenate(drawn)
        self._portraits = MappedRows(portraits)

    def __len__(self) -> int:
        """Return N."""
        return int(self.table.num_rows)

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Get a column of numbers: float64 (N,), NaN where there is none."""
        found: NDArray[np.float64] = self.table[name].cast(pa.float64()).fill_null(float("nan")).to_numpy()
        return found

    def entropies(self, reading: str) -> NDArray[np.float64]:
        """Get the entropies of a reading: float64 (N,), NaN where there is none."""
        return self.numbers(f"entropy_{reading}")

    def pixels(self) -> NDArray[np.int32]:
        """Get the pixels that the model gives to each class: int32 (N, K)."""
        found: NDArray[np.int32] = _matrix(self.table["pixels"], np.int32)
        return found

    def digests(self) -> NDArray[np.uint64]:
        """Get the hashes of pixels: uint64 (N, 2), zeros where there is none."""
        return np.ascontiguousarray(_bytes(self.table["digest"].fill_null(bytes(_DIGEST_BYTES)), _DIGEST_BYTES)).view(np.uint64)

    def portraits(self, rows: NDArray[np.int64]) -> NDArray[np.int8]:
        """Copy portraits of tiles that have one: int8 (n, 32, 32)."""
        return self._portraits.take(rows).view(np.int8).reshape(-1, SIDE, SIDE)


class MappedRows:
    """Rows that lie in several arrays, one after the other."""

    def __init__(self, parts: Sequence[NDArray[Any]]) -> None:
        self._parts = list(parts)
        self._starts = np.cumsum([0, *map(len, self._parts)])

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self._starts[-1])

    def take(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        """Copy rows by position."""
        owners = np.searchsorted(self._starts, positions, side="right") - 1
        found = np.empty((len(positions), *self._parts[0].shape[1:]), dtype=self._parts[0].dtype)
        for owner in np.unique(owners).tolist():
            mine = np.flatnonzero(owners == owner)
            found[mine] = self._parts[owner][positions[mine] - self._starts[owner]]
        return found

    def part(self, start: int, stop: int) -> NDArray[Any]:
        """Copy the rows from start to stop."""
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        pieces = []
        while start < stop:
            end = min(stop, int(self._starts[first + 1]))
            pieces.append(self._parts[first][start - self._starts[first] : end - self._starts[first]])
            start, first = end, first + 1
        return np.concatenate(pieces) if pieces else self._parts[0][:0]


@dataclass(frozen=True)
class ChosenRows:
    """Some of many rows, by position."""

    rows: MappedRows
    positions: NDArray[np.int64]

    def __len__(self) -> int:
        """Return how many."""
        return len(self.positions)

    def take(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        """Copy some of them."""
        return self.rows.take(self.positions[positions])

    def part(self, start: int, stop: int) -> NDArray[Any]:
        """Copy those from start to stop."""
        wanted = self.positions[start:stop]
        whole = len(wanted) and wanted[-1] - wanted[0] == len(wanted) - 1 and bool((np.diff(wanted) == 1).all())
        return self.rows.part(int(wanted[0]), int(wanted[-1]) + 1) if whole else self.rows.take(wanted)


def _lists(rows: Sequence[NDArray[Any]], kind: type, length: int) -> pa.FixedSizeListArray:
    flat: NDArray[Any] = np.asarray(rows, dtype=kind).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), length)


def _matrix(column: pa.ChunkedArray, kind: type) -> NDArray[Any]:
    """A column of lists of one length as (N, length), without a copy where it is one piece."""
    length = column.type.list_size
    pieces: list[NDArray[Any]] = [
        np.asarray(chunk.flatten().to_numpy(zero_copy_only=False), kind).reshape(-1, length) for chunk in column.chunks
    ]
    return pieces[0] if len(pieces) == 1 else np.concatenate([np.zeros((0, length), kind), *pieces])


def _bytes(column: pa.ChunkedArray, length: int) -> NDArray[np.uint8]:
    """A column of byte strings of one length as uint8 (N, length), whatever stands where there is none; without a copy if one piece."""
    pieces: list[NDArray[np.uint8]] = []
    for chunk in column.chunks:
        data = np.frombuffer(chunk.buffers()[1], np.uint8)
        pieces.append(data[chunk.offset * length : (chunk.offset + len(chunk)) * length].reshape(-1, length))
    return pieces[0] if len(pieces) == 1 else np.concatenate([np.zeros((0, length), np.uint8), *pieces])
