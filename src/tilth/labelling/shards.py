"""One shard of the work: its tiles are labelled, their rasters written, and last the file that says so."""

from __future__ import annotations

import functools
import itertools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tilth.catalog.shards import ShardPlan, read_whole, write_table
from tilth.classes import ClassScheme
from tilth.errors import DataError, MissingFileError
from tilth.imagery.read import RasterInfo, read_info
from tilth.labelling.plan import Plan
from tilth.labelling.rasters import LabelFiles, Placed, write_labels
from tilth.labelling.tile_label import Labeller, TileLabel

SHARDS = "shards"
"""Folder of what is known of tiles, one file a shard."""

NUMBERS = ("confidence", "entropy", "ignored")
"""Columns of one float32 a tile; null where there is nothing to say."""

FILES = ("mask", "sure")
"""Columns of names of files below the folder of the job: class ids, and how sure the model is of them."""

# Labels of an image with more pixels are written while its tiles are computed; of smaller ones threads write them meanwhile.
_HELD_PIXELS = 2**22
# Images that wait to be written, for every thread that writes.
_WAITING = 4


@dataclass(frozen=True)
class Settings:
    """How label rasters are written.

    Attributes:
        scheme: classes of the model.
        confidence: whether to write confidence, too.
        writers: threads that write.
        given: labels are given; only how sure one may be of them is written, and its sum for each class kept (column ``percents``).
    """

    scheme: ClassScheme
    confidence: bool = False
    writers: int = 2
    given: bool = False


def finished(folder: Path, plan: ShardPlan) -> pa.Table | None:
    """Read what a shard found; None unless it is whole, made from what it would be made from now, and its rasters are where they were."""
    table = read_whole(folder / SHARDS / plan.name, plan.stamp)
    if table is None:
        return None
    for name in FILES:
        found = dict(zip(table[name].to_pylist(), table[f"{name}_file_bytes"].to_pylist(), strict=True))
        found.pop(None, None)
        if any(_size(folder / file) != size for file, size in found.items()):
            return None
    return table


def make_shard(folder: Path, plan: Plan, number: int, labeller: Labeller, settings: Settings) -> int:
    """Label the tiles of a shard and write what was found; doing so twice leaves the same bytes.

    Args:
        folder: of the job.
        plan: of the whole work.
        number: of the shard.
        labeller: has the model.
        settings: of the rasters.

    Returns:
        Tiles that have no label, because they cannot be read or judged.

    Raises:
        UsageError: a file that was not made by tilth is in the way.
        TilthError: the folder cannot be written to.
    """
    shard = plan.shards[number]
    tiles = list(plan.catalog.take(plan.order[shard.start : shard.stop]).tiles())
    rows: list[_Row] = []
    write = functools.partial(
        write_labels, folder, scheme=settings.scheme, stamp=shard.stamp, confidence=settings.confidence, given=settings.given
    )

    # Closed whatever happens: the model would stay in evaluation mode, and gradients off, for as long as somebody holds the error.
    with closing(labeller(tiles)) as found, ThreadPoolExecutor(settings.writers, thread_name_prefix="label-write") as pool:
        results = zip(tiles, found, strict=True)

        def placed(count: int, fault: str | None) -> Iterator[Placed]:
            """Pass on the labels of the next tiles; what there is to say of each is kept."""
            for tile, label in itertools.islice(results, count):
                rows.append(_Row.of(fault or label))
                if fault is None and isinstance(label, TileLabel):
                    yield tile.window, label

        waiting: deque[tuple[slice, Future[LabelFiles]]] = deque()
        try:
            for image, group in itertools.groupby(plan.images[shard.start : shard.stop].tolist()):
                start, count = len(rows), sum(1 for _ in group)
                stem, info = plan.stems[image].as_py(), _header(tiles[start].image)
                if isinstance(info, str):
                    list(placed(count, info))
                    continue
                labels = placed(count, None)
                small = info.width * info.height <= _HELD_PIXELS
                first = list(labels) if small else list(itertools.islice(labels, 1))
                if not first:
                    continue
                place = slice(start, start + count)
                if small:
                    waiting.append((place, pool.submit(write, stem, info, first)))
                else:
                    _note(rows, place, write(stem, info, itertools.chain(first, labels)))
                while len(waiting) > _WAITING * settings.writers:
                    _note(rows, waiting[0][0], waiting.popleft()[1].result())
            for place, future in waiting:
                _note(rows, place, future.result())
        finally:
            pool.shutdown(cancel_futures=True)
    write_table(folder / SHARDS / shard.name, shard.stamp, _table(rows, labeller.classes, settings.given))
    return sum(row.problem is not None for row in rows)


@dataclass
class _Row:
    """What is kept of one tile."""

    problem: str | None = None
    pixels: NDArray[np.int64] | None = None
    sums: NDArray[np.int64] | None = None
    confidence: float | None = None
    entropy: float | None = None
    ignored: float | None = None
    files: LabelFiles | None = None

    @classmethod
    def of(cls, found: TileLabel | str) -> _Row:
        if isinstance(found, str):
            return cls(found)
        return cls(None, found.pixels, found.sums, found.confidence, found.entropy, found.ignored)


def _note(rows: list[_Row], place: slice, files: LabelFiles) -> None:
    """Keep which files the tiles of an image are in; one without a label is in none."""
    for row in rows[place]:
        row.files = files if row.problem is None else None


def _table(rows: list[_Row], classes: int, given: bool) -> pa.Table:
    columns: dict[str, Any] = {name: pa.array([getattr(row, name) for row in rows], pa.float32()) for name in NUMBERS}
    columns["problem"] = pa.array([row.problem for row in rows], pa.string())
    columns["pixels"] = _lists([row.pixels for row in rows], classes)
    if given:
        columns["percents"] = _lists([row.sums for row in rows], classes)
    for name in FILES:
        columns[name] = pa.array([None if row.files is None else getattr(row.files, name) for row in rows], pa.string())
        sizes = [0 if row.files is None else getattr(row.files, f"{name}_bytes") for row in rows]
        columns[f"{name}_file_bytes"] = pa.array(sizes, pa.int64())
    return pa.table(columns)


def _lists(values: list[NDArray[np.int64] | None], classes: int) -> pa.Array:
    """One number for each class and tile; 0 where there is nothing."""
    filled = np.stack([np.zeros(classes, np.int64) if value is None else value for value in values])
    return pa.FixedSizeListArray.from_arrays(pa.array(filled.reshape(-1)), classes)


def _header(uri: str) -> RasterInfo | str:
    try:
        return read_info(uri)
    except (DataError, MissingFileError, OSError) as error:
        return " ".join(str(error).split())


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return -1
