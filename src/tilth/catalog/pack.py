"""Pack the tiles of a catalog: pixels and labels copied one after the other into a few large files that are read with hardly any work.

Training reads small windows in random order, which formats made for storage answer slowly: each read decodes whole blocks. Packing
decodes once. A packed catalog is a catalog like any other; only its ``image``, ``label`` and ``reference`` name rows of shards.
"""

from __future__ import annotations

import functools
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from tilth.catalog import origin, schema
from tilth.catalog.pack_folder import CATALOG_NAME, RECORD_NAME, begun, clear, refuse_full_disk, refuse_others, whole_shard
from tilth.catalog.pack_plan import Entry, Plan, Shard, make_plan
from tilth.catalog.rows import window_array
from tilth.catalog.table import Catalog
from tilth.errors import CatalogError, DataError, MissingExtraError, MissingFileError
from tilth.imagery.packing import FORMAT, Codec, Record, record_uri, shard_file
from tilth.imagery.read import read_info, read_pixels
from tilth.imagery.write import write_json
from tilth.seeds import generator

__all__ = ["PackReport", "measure_reading", "pack_catalog"]

_HEADERS_KEPT = 256


@dataclass(frozen=True)
class PackReport:
    """What packing did.

    Attributes:
        catalog: the packed catalog.
        path: its file.
        stored_bytes: size of all shards.
        made: shards written now.
        kept: shards that were there and right.
        left_out: tile ids of rows that could not be read, with the reason where it was met now.
    """

    catalog: Catalog
    path: Path
    stored_bytes: int
    made: int
    kept: int
    left_out: dict[str, str]


def pack_catalog(
    catalog: Catalog,
    out: str | Path,
    *,
    shard_mb: int = 512,
    codec: Codec = "raw",
    workers: int = 4,
    skip_bad: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> PackReport:
    """Copy the pixels and labels of every tile into shards, and write a catalog of them.

    What was interrupted, however harshly, goes on with the same call and ends in the same bytes. A failure leaves whole shards or nothing.
    A later call keeps the shards whose source files have the size and time of change they had, and makes the others anew.

    Args:
        catalog: tiles to pack; those that show the same window of the same raster share a record.
        out: folder for ``catalog.parquet`` and the shards; new, empty, or of an earlier call with the same tiles and settings.
        shard_mb: largest size of a shard in MiB, unless one tile is larger.
        codec: ``raw`` keeps the numbers as they are and reads fastest; ``zstd`` compresses them without loss; ``original`` keeps whole
            jpg and png files as they are and stores everything else raw.
        workers: threads that read; each holds two tiles at most.
        skip_bad: leave out rows whose pixels or label cannot be read, instead of stopping at the first.
        progress: told (records done, records in all).

    Returns:
        What was done. Reading any window of a packed tile gives the pixels, ``valid`` and labels that reading the original gives.

    Raises:
        CatalogError: the catalog is empty, or no tile is left.
        OutputExistsError: the folder holds something else, or the pack of other tiles or settings.
        DataError: a tile cannot be read; it is named.
        TilthError: the disk has no room, the folder cannot be written to, or is being packed by another process.
    """
    if not len(catalog):
        raise CatalogError("pack: the catalog is empty")
    folder = Path(out)
    plan = make_plan(catalog, shard_mb * 2**20, codec)
    refuse_others(folder, plan, codec, shard_mb)
    found: dict[str, list[str] | None] = {}
    reasons: dict[str, str] = {}
    with begun(folder, found):
        # Another process may have finished a pack since the first look.
        refuse_others(folder, plan, codec, shard_mb)
        found |= {shard.name: whole_shard(folder, shard, skip_bad) for shard in plan.shards}
        missing = [shard for shard in plan.shards if found[shard.name] is None]
        refuse_full_disk(folder, missing, codec)
        clear(folder, plan, missing)
        write_json(folder / RECORD_NAME, {"format": FORMAT, "identity": plan.identity, "codec": codec, "shard_mb": shard_mb})
        total, done = sum(len(shard.entries) for shard in missing), 0
        for shard in missing:
            with shard_file(folder / shard.name, shard.stamp) as append:
                for record in _records(shard, codec, workers, reasons, skip_bad):
                    if record is not None:
                        append(record)
                    done += 1
                    if progress is not None:
                        progress(done, total)
            found[shard.name] = whole_shard(folder, shard, skip_bad)
        packed, left_out = _packed_catalog(catalog, plan, folder, {name: ids or [] for name, ids in found.items()})
        if not len(packed):
            raise CatalogError(f"pack: none of the {len(catalog)} tiles can be read; the first: {next(iter(reasons.values()), 'unknown')}")
        path = packed.save(folder / CATALOG_NAME)
    size = sum((folder / shard.name).stat().st_size for shard in plan.shards)
    kept = len(plan.shards) - len(missing)
    return PackReport(packed, path, size, len(missing), kept, {name: reasons.get(name, "found unreadable before") for name in left_out})


def measure_reading(before: Catalog, after: Catalog, *, count: int = 32) -> tuple[float, float]:
    """Read some tiles in random order from their original files, then from the shards.

    Args:
        before: the catalog that was packed.
        after: its pack.
        count: tiles read at most.

    Returns:
        Seconds for the originals and for the packed tiles; files that were just packed mostly lie in memory still.
    """
    chosen = generator("measure reading", len(after)).permutation(len(after))[:count].tolist()
    positions = {name: row for row, name in enumerate(before.column("tile_id"))}
    packed = [after.tile(row) for row in chosen]
    originals = [before.tile(positions[tile.tile_id]) for tile in packed]
    seconds = []
    for tiles in (originals, packed):
        read_pixels(tiles[0].image, tiles[0].window)
        began = time.perf_counter()
        for tile in tiles:
            read_pixels(tile.image, tile.window)
        seconds.append(time.perf_counter() - began)
    return seconds[0], seconds[1]


def _records(shard: Shard, codec: Codec, workers: int, reasons: dict[str, str], skip_bad: bool) -> Iterator[Record | None]:
    """Read the records of a shard in threads, in order and not far ahead; None for one that cannot be read."""
    # Thousands of tiles share one scene, and naming a coordinate system takes longer than reading a tile.
    header = functools.lru_cache(_HEADERS_KEPT)(read_info)
    waiting: deque[tuple[Entry, Future[Record]]] = deque()

    def first() -> Record | None:
        entry, future = waiting.popleft()
        try:
            return future.result()
        except MissingExtraError:
            raise
        except (DataError, MissingFileError, OSError) as error:
            if not skip_bad:
                raise DataError(
                    f"tile {entry.tile_id!r} cannot be packed: {error}; leave out such tiles with --skip-bad, which goes on from the "
                    "shards that are done, or see tilth catalog check"
                ) from None
            reasons[entry.tile_id] = str(error)
            return None

    pool = ThreadPoolExecutor(workers, thread_name_prefix="pack")
    try:
        for entry in shard.entries:
            waiting.append((entry, pool.submit(shard.record, entry, codec, header)))
            if len(waiting) >= 2 * workers:
                yield first()
        while waiting:
            yield first()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _packed_catalog(catalog: Catalog, plan: Plan, folder: Path, found: dict[str, list[str]]) -> tuple[Catalog, list[str]]:
    """Make the catalog of what is in the shards; returns it with the tile ids of rows that are left out."""
    places: dict[str, list[str | None]] = {"images": [], "labels": [], "references": []}
    for shard in plan.shards:
        stored = {tile_id: row for row, tile_id in enumerate(found[shard.name])}
        file = os.path.abspath(folder / shard.name)  # noqa: PTH100 - links are kept, as in catalog.uris
        places[shard.kind] += [record_uri(file, stored[entry.tile_id]) if entry.tile_id in stored else None for entry in shard.entries]
    found_at = {"image": (plan.images, places["images"]), "label": (plan.labels, places["labels"])}
    if plan.references is not None:
        found_at[schema.REFERENCE_COLUMN] = plan.references, places["references"]
    columns: dict[str, list[str | None]] = {}
    sound = np.ones(len(catalog), np.bool_)
    for name, (records, stored_at) in found_at.items():
        columns[name] = [None if place < 0 else stored_at[place] for place in records.tolist()]
        sound &= np.array([place < 0 or uri is not None for place, uri in zip(records.tolist(), columns[name], strict=True)])
    rows = np.flatnonzero(sound)
    sizes = window_array(catalog.table)[rows].copy()
    sizes[:, :2] = 0
    four = pa.list_(pa.int32(), 4)
    packed = catalog.take(rows).with_columns(
        window=pa.FixedSizeListArray.from_arrays(pa.array(sizes.reshape(-1)), type=four),
        **{name: pa.array([uris[row] for row in rows.tolist()], pa.string()) for name, uris in columns.items()},
        **{
            schema.ORIGIN_COLUMN: origin.source_images(catalog.table).take(pa.array(rows)),
            origin.WINDOW_COLUMN: pa.FixedSizeListArray.from_arrays(
                pa.array(origin.source_windows(catalog.table)[rows].reshape(-1)), type=four
            ),
        },
    )
    ids = catalog.column("tile_id")
    return packed, [ids[row] for row in np.flatnonzero(~sound).tolist()]
