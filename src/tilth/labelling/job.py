"""Labelling from beginning to end: a pool and a model in, label rasters and their catalog out, by one process or by many.

Processes that do the same job into the same folder share its shards: each takes one that nobody has. Whoever finds all of them made joins
them into the catalog; two that do so write the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tilth.catalog.table import Catalog
from tilth.errors import CatalogError, DataError, SensorMismatchError, TilthError, UsageError
from tilth.evaluation.samples import sensor_difference
from tilth.labelling.config import Part
from tilth.labelling.folder import begun, clear, identity_of, refuse_foreign
from tilth.labelling.outcome import CATALOG_FILE, RECORD_FILE, Outcome, join
from tilth.labelling.plan import Plan, plan_labels
from tilth.labelling.shards import FILES, Settings, finished, make_shard
from tilth.labelling.tile_label import Labeller
from tilth.models.identity import model_hash
from tilth.models.tiles import Running

if TYPE_CHECKING:
    from tilth.models.segmenter import Segmenter

Progress = Callable[[int, int], None]
"""Told how many tiles are labelled, and how many there are."""


@dataclass(frozen=True)
class Request:
    """What is wanted.

    Attributes:
        running: how the model is run.
        flips: views that are averaged, a key of :data:`tilth.models.flips.FLIPS`.
        ignore_below: pixels whose highest probability is less get 255.
        confidence: write confidence, too.
        shard_tiles: tiles of a shard.
        part: the share of the shards that this process may make.
        max_bad_share: share of the tiles, rounded up, that may turn out unreadable; never all of them.
        workers: threads that read ahead, and as many that write.
    """

    running: Running = field(default_factory=Running)
    flips: str = "none"
    ignore_below: float = 0.0
    confidence: bool = False
    shard_tiles: int = 256
    part: Part = field(default_factory=Part)
    max_bad_share: float = 0.05
    workers: int = 2


@dataclass(frozen=True)
class Labelling:
    """What was done.

    Attributes:
        outcome: the catalog and its record; None while shards are missing that others are to make.
        made: tiles that were labelled now.
        missing: tiles that nobody has labelled yet.
    """

    outcome: Outcome | None
    made: int
    missing: int


def label_pool(
    pool: Catalog,
    segmenter: Segmenter,
    out: Path,
    request: Request,
    *,
    model: str = "",
    say: Callable[[str], None] = lambda _: None,
    progress: Progress | None = None,
) -> Labelling:
    """Label the tiles of a pool.

    Shards that are made already of the same tiles, files, model and settings are kept. The same call goes on after any interruption and
    ends with the same files; another model or other settings make everything anew.

    Args:
        pool: tiles of the model's sensor; labels they have are not looked at.
        segmenter: the model.
        out: folder for ``catalog.parquet``, ``label.json``, ``masks/``, ``confidence/`` and ``shards/``.
        request: what is wanted.
        model: what to call the model in the record.
        say: told what is being done.
        progress: told how many tiles are labelled.

    Returns:
        What was done.

    Raises:
        CatalogError: an empty pool.
        SensorMismatchError: tiles of another sensor than the model's.
        UsageError: settings that make no sense, or somebody's own file is in the way.
        OutputExistsError: the folder holds something else.
        DataError: too many tiles cannot be read.
        TilthError: another process is at work there for another model or pool, or the folder cannot be written to.
    """
    _check(pool, segmenter, request)
    refuse_foreign(out)
    say("looking at the files of the pool")
    plan = plan_labels(pool, labelling_identity(segmenter, request), request.shard_tiles)
    settings = Settings(segmenter.scheme, request.confidence, request.workers)
    # A catalog without any label is of no use to anybody.
    allowed = min(math.ceil(request.max_bad_share * len(plan)), len(plan) - 1)
    with begun(out, plan) as claims:
        missing = [number for number, shard in enumerate(plan.shards) if finished(out, shard) is None]
        if missing:
            # Until all is made again, it would name rasters of two kinds.
            for name in (CATALOG_FILE, RECORD_FILE):
                (out / name).unlink(missing_ok=True)
        done = len(plan) - _tiles(plan, missing)
        made = bad = 0
        labeller: Labeller | None = None
        for number in filter(request.part.holds, missing):
            if not claims.take(number):
                continue
            # Another process may have made it since.
            if finished(out, plan.shards[number]) is None:
                if progress is not None:
                    progress(done + made, len(plan))
                labeller = labeller or Labeller(
                    segmenter, request.running, flips=request.flips, ignore_below=request.ignore_below, readers=request.workers
                )
                bad += make_shard(out, plan, number, labeller, settings)
                made += _tiles(plan, [number])
                _refuse(bad, allowed, out, plan, [number])
            claims.let_go(number)
        tables = [finished(out, shard) for shard in plan.shards]
        left = [number for number, table in enumerate(tables) if table is None]
        if left:
            return Labelling(None, made, _tiles(plan, left))
        whole = pa.concat_tables([table for table in tables if table is not None])
        _refuse(len(whole) - whole["problem"].null_count, allowed, out, plan, range(len(tables)))
        say("writing the catalog")
        if identity_of(out) != plan.identity:
            raise TilthError(f"{out}: another process has begun to label into it for another model or pool; choose another --out for one")
        which = {"name": model, "sha256": model_hash(segmenter), "flips": request.flips}
        which |= {name: value for name, value in asdict(request.running).items() if name in {"window", "overlap", "precision"}}
        outcome = join(plan, whole, out, segmenter.scheme, which, request.ignore_below)
        if claims.alone():
            clear(out, {name for column in FILES for name in whole[column].drop_null().to_pylist()})
    return Labelling(outcome, made, 0)


def _check(pool: Catalog, segmenter: Segmenter, request: Request) -> None:
    """Refuse what cannot be done before anything is."""
    if not len(pool):
        raise CatalogError("the pool has no tile; give catalogs with tiles, or other splits")
    if not 0 <= request.ignore_below <= 1:
        raise UsageError(f"ignore_below {request.ignore_below:g}: expected a probability, 0 to 1")
    for name, sensor in pool.sensors.items():
        if sensor != segmenter.sensor and name in pool.counts("sensor"):
            raise SensorMismatchError(
                f"tiles of the pool are of sensor {sensor.name!r}, the model wants {segmenter.sensor.name!r}: "
                f"{sensor_difference(sensor, segmenter.sensor)}; use tiles of the model's sensor and scale, or a model of theirs"
            )


def labelling_identity(segmenter: Segmenter, request: Request) -> str:
    """Hash what labels depend on besides the tiles; not the device nor the size of batches, which change no more than rounding."""
    settings = {name: value for name, value in asdict(request.running).items() if name not in {"device", "batch_size"}}
    settings |= {"flips": request.flips, "ignore_below": request.ignore_below, "confidence": request.confidence}
    return hashlib.sha256(json.dumps([model_hash(segmenter), settings]).encode()).hexdigest()


def _tiles(plan: Plan, numbers: list[int]) -> int:
    return sum(plan.shards[number].stop - plan.shards[number].start for number in numbers)


def _refuse(bad: int, allowed: int, out: Path, plan: Plan, numbers: Any) -> None:
    """Refuse too many unreadable tiles.

    Raises:
        DataError: with one of them and its reason.
    """
    if bad <= allowed:
        return
    for number in numbers:
        table = finished(out, plan.shards[number])
        places = [] if table is None else [place for place, problem in enumerate(table["problem"].to_pylist()) if problem is not None]
        if table is not None and places:
            tile = plan.catalog.tile(int(plan.order[plan.shards[number].start + places[0]]))
            raise DataError(
                f"{bad} of {len(plan)} tiles cannot be labelled, more than max_bad_share allows ({allowed}); one of them, "
                f"{tile.tile_id!r}: {table['problem'][places[0]].as_py()}; see tilth catalog check"
            )
