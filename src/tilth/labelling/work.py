"""The shards of a job, made by one process or by many, and what the last of them makes of all.

Processes that do the same job into the same folder share its shards: each takes one that nobody has. Whoever finds all of them made joins
them; two that do so write the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from tilth.errors import DataError, TilthError
from tilth.labelling.config import Part
from tilth.labelling.folder import LABELS, TRUST, begun, clear, identity_of
from tilth.labelling.outcome import CATALOG_FILE, Outcome
from tilth.labelling.plan import Plan
from tilth.labelling.shards import FILES, Settings, finished, make_shard
from tilth.labelling.tile_label import Labeller

Progress = Callable[[int, int], None]
"""Told how many tiles are done, and how many there are."""


@dataclass(frozen=True)
class Labelling:
    """What was done.

    Attributes:
        outcome: the catalog and its record; None while shards are missing that others are to make.
        made: tiles that were labelled, or judged, now.
        missing: tiles that nobody has come to yet.
    """

    outcome: Outcome | None
    made: int
    missing: int


@dataclass(frozen=True)
class Job:
    """What is to be done.

    Attributes:
        plan: the tiles and their shards.
        out: the folder.
        settings: how rasters are written.
        part: the share of the shards that this process may make.
        max_bad_share: share of the tiles, rounded up, that may come to nothing; never all of them.
        record: name of the file that is written last.
    """

    plan: Plan
    out: Path
    settings: Settings
    part: Part
    max_bad_share: float
    record: str


def do_job(
    job: Job, labeller: Callable[[], Labeller], join: Callable[[pa.Table], Outcome], say: Callable[[str], None], progress: Progress | None
) -> Labelling:
    """Make the shards that are missing and nobody else makes; if all are there, join them.

    Args:
        job: what is to be done.
        labeller: makes what judges tiles; called if there is a tile to judge.
        join: makes catalog and record of what all shards say, in the order of the work.
        say: told what is being done.
        progress: told how many tiles are done.

    Raises:
        DataError: too many tiles cannot be read.
        OutputExistsError: the folder holds something else.
        TilthError: another process is at work there for another model or pool, or the folder cannot be written to.
    """
    plan, out, kind = job.plan, job.out, TRUST if job.settings.given else LABELS
    # A catalog without any tile is of no use to anybody.
    allowed = min(math.ceil(job.max_bad_share * len(plan)), len(plan) - 1)
    with begun(out, plan, kind) as claims:
        missing = [number for number, shard in enumerate(plan.shards) if finished(out, shard) is None]
        if missing:
            # Until all is made again, it would name rasters of two kinds.
            for name in (CATALOG_FILE, job.record):
                (out / name).unlink(missing_ok=True)
        done = len(plan) - _tiles(plan, missing)
        made = bad = 0
        working: Labeller | None = None
        for number in filter(job.part.holds, missing):
            if not claims.take(number):
                continue
            # Another process may have made it since.
            if finished(out, plan.shards[number]) is None:
                if progress is not None:
                    progress(done + made, len(plan))
                working = working or labeller()
                bad += make_shard(out, plan, number, working, job.settings)
                made += _tiles(plan, [number])
                _refuse(bad, allowed, job, [number])
            claims.let_go(number)
        tables = [finished(out, shard) for shard in plan.shards]
        left = [number for number, table in enumerate(tables) if table is None]
        if left:
            return Labelling(None, made, _tiles(plan, left))
        whole = pa.concat_tables([table for table in tables if table is not None])
        _refuse(len(whole) - whole["problem"].null_count, allowed, job, range(len(tables)))
        say("writing the catalog")
        if identity_of(out) != plan.identity:
            raise TilthError(f"{out}: another process has begun to label into it for another model or pool; choose another --out for one")
        outcome = join(whole)
        if claims.alone():
            clear(out, {name for column in FILES for name in whole[column].drop_null().to_pylist()})
    return Labelling(outcome, made, 0)


def _tiles(plan: Plan, numbers: Sequence[int]) -> int:
    return sum(plan.shards[number].stop - plan.shards[number].start for number in numbers)


def _refuse(bad: int, allowed: int, job: Job, numbers: Iterable[int]) -> None:
    """Refuse too many unreadable tiles.

    Raises:
        DataError: with one of them and its reason.
    """
    if bad <= allowed:
        return
    plan = job.plan
    for number in numbers:
        table = finished(job.out, plan.shards[number])
        places = [] if table is None else [place for place, problem in enumerate(table["problem"].to_pylist()) if problem is not None]
        if table is not None and places:
            tile = plan.catalog.tile(int(plan.order[plan.shards[number].start + places[0]]))
            raise DataError(
                f"{bad} of {len(plan)} tiles cannot be {'judged' if job.settings.given else 'labelled'}, more than max_bad_share allows "
                f"({allowed}); one of them, {tile.tile_id!r}: {table['problem'][places[0]].as_py()}; see tilth catalog check"
            )
