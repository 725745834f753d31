"""``tilth curate``: of a large pool of tiles, those that are worth learning from, with a reason for every tile."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic

from tilth.config import Config
from tilth.curation.config import DiversityConfig, EntropyReading, FilterConfig, ScoringConfig
from tilth.errors import needs_extra
from tilth.verbs.console import Console
from tilth.verbs.options import SideBySideConfig
from tilth.verbs.pool import open_pool
from tilth.verbs.registry import Result, verb

if TYPE_CHECKING:
    from tilth.curation.curate import Curation, Score
    from tilth.models.segmenter import Segmenter

_LISTED = 5
"""Tiles that cannot be read that are named with their reason."""


class RayConfig(Config):
    """A Ray cluster to score tiles on."""

    address: str | None = pydantic.Field(None, description="local, auto, or the address of a cluster; by default this process does it")
    workers: int = pydantic.Field(2, ge=1, description="processes that score")
    gpus: float = pydantic.Field(0, ge=0, description="GPUs of each of them")


class CurateOptions(Config):
    """Options of ``tilth curate``."""

    unlabelled: tuple[Path, ...] = pydantic.Field(
        min_length=1, json_schema_extra={"positional": True}, description="catalogs of the pool; labels are not looked at"
    )
    model: Path = pydantic.Field(description="model or run folder that scores the tiles, trained on labelled ones")
    out: Path = pydantic.Field(description="folder for catalog.parquet, decisions.parquet, curation.json, scores and pictures")
    labelled: tuple[Path, ...] = pydantic.Field((), description="catalogs with labels, that say which kinds of imagery are wanted")
    tiles: int | None = pydantic.Field(None, ge=1, description="how many tiles to select; by default all that pass the filters")
    entropy: EntropyReading = pydantic.Field(
        "foreground",
        description="entropy that gives the order: of all classes but background as printed in S5, of all classes, or of foreground alone",
    )
    unlabelled_split: tuple[str | None, ...] = pydantic.Field(
        ("train",), description="rows of the pool to use; a catalog without any split is used whole"
    )
    labelled_split: str | None = pydantic.Field("train", description="labelled rows that clusters are found of; null for all")
    workers: int = pydantic.Field(2, ge=1, le=256, description="threads that read ahead, of each process that scores")
    report: bool = pydantic.Field(True, description="draw pictures of what was kept and dropped, and write report.html")
    pictures: int = pydantic.Field(12, ge=1, le=400, description="tiles drawn of each reason")
    scoring: ScoringConfig = pydantic.Field(default_factory=ScoringConfig, description="what is asked of every tile")
    filters: FilterConfig = pydantic.Field(default_factory=FilterConfig, description="which tiles are dropped for what they are")
    diversity: DiversityConfig = pydantic.Field(default_factory=DiversityConfig, description="how places are shared out")
    inference: SideBySideConfig = pydantic.Field(default_factory=SideBySideConfig, description="how tiles are scored")
    ray: RayConfig = pydantic.Field(default_factory=RayConfig, description="score on a Ray cluster")

    @pydantic.field_validator("unlabelled", "labelled", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @pydantic.field_validator("ray", mode="before")
    @classmethod
    def _address_alone(cls, value: Any) -> Any:
        return {"address": value} if isinstance(value, str) else value


@verb("curate", CurateOptions)
def curate(options: CurateOptions, console: Console) -> Result:
    """Choose of a large pool the tiles worth learning from, with reasons.

    Tiles are scored once with the model, and the scores are kept: the same command goes on after an interruption, and another selection
    from the same scores takes seconds.
    """
    from tilth.catalog.table import Catalog
    from tilth.curation.curate import CATALOG_FILE, DECISIONS_FILE, RECORD_FILE, Request, curate_pool
    from tilth.models.segmenter import Segmenter
    from tilth.models.tiles import Running

    if options.report:
        # Told now, and not after hours of scoring.
        with needs_extra("report", "pictures of what was kept and dropped (report=false leaves them out)"):
            import matplotlib  # noqa: F401 - only to see whether it is there

            import tilth.reporting.curation
    inference = options.inference.arguments()
    running = Running(**inference)
    segmenter = Segmenter.load(options.model, "cpu")
    pool = open_pool(options.unlabelled, options.unlabelled_split)
    request = Request(options.tiles, options.entropy, options.scoring, options.filters, options.diversity, options.labelled_split)
    found = curate_pool(
        pool,
        segmenter,
        options.out,
        request,
        running,
        _scoring(options, segmenter, running),
        labelled=Catalog.concat([Catalog.open(path) for path in options.labelled]) if options.labelled else None,
        model=options.model.name,
        say=console.status,
        progress=lambda done, total: console.status(f"scoring tile {done}/{total}"),
    )
    outputs = {"catalog": options.out / CATALOG_FILE, "decisions": options.out / DECISIONS_FILE, "record": options.out / RECORD_FILE}
    if options.report:
        from tilth.curation.pictures import draw_sheets

        console.status("drawing pictures")
        sheets = draw_sheets(found.decisions, options.out / "pictures", count=options.pictures)
        outputs["report"] = tilth.reporting.curation.build_curation_page(found.record, sheets, options.out / "report.html")
    _warn(found, console)
    return Result(summary=_summary(found), outputs=outputs, values=_values(found))


def _scoring(options: CurateOptions, segmenter: Segmenter, running: Any) -> Score:
    """How shards are made: in this process, or on a cluster."""
    from tilth.curation.scorer import TileScorer
    from tilth.curation.scoring import score_here

    address = options.ray.address
    if address is None:
        return lambda work, progress: score_here(work, lambda: TileScorer(segmenter, options.scoring, running, options.workers), progress)
    from functools import partial

    from tilth.curation.ray_pass import model_scorer, score_on_ray

    make = partial(model_scorer, options.model.absolute(), options.scoring, running, options.workers)
    workers, gpus = options.ray.workers, options.ray.gpus
    return lambda work, progress: score_on_ray(work, make, address=address, workers=workers, gpus=gpus, progress=progress)


def _warn(found: Curation, console: Console) -> None:
    record = found.record
    problems = found.decisions.filter(reason="unreadable")
    for name, problem in list(zip(problems.column("tile_id"), problems.column("problem"), strict=True))[:_LISTED]:
        console.warn(f"tile {name!r} cannot be used: {problem}")
    if not record["background"] and record["filters"]["foreground_guard"]:
        console.warn("no class of the model is called background, so every pixel is foreground; scoring.background=[name] says otherwise")
    wanted = record["wanted"]
    if wanted is not None and record["selected"] < wanted:
        console.warn(f"{record['selected']} tiles were selected of {wanted} wanted; {record['passed']} passed the filters")
    asked, made = record["diversity"]["clusters"], len(record["clusters"])
    if 0 < made < asked:
        console.warn(f"{made} clusters instead of {asked}: there are not more tiles that differ to find clusters of")


def _summary(found: Curation) -> tuple[str, ...]:
    record = found.record
    lines = [f"{record['selected']} of {record['tiles']} tiles selected, {record['passed']} passed the filters ({found.scored} scored now)"]
    lines += [f"  {what}: {count}" for what, count in _reasons(record).items()]
    if record["clusters"]:
        places = f"{record['shortfall']} places of clusters that ran short" if record["shortfall"] else "no cluster ran short"
        steps = record["clustering"]
        lines.append(f"{len(record['clusters'])} clusters after {steps['steps']} steps of k-means; {places}")
    return tuple(lines)


def _reasons(record: Mapping[str, Any]) -> dict[str, int]:
    return {f"kept, {name}": count for name, count in record["kept"].items()} | {
        f"dropped, {name}": count for name, count in record["dropped"].items()
    }


def _values(found: Curation) -> dict[str, Any]:
    record = found.record
    return {
        **{name: record[name] for name in ("tiles", "passed", "selected", "shortfall", "kept", "dropped")},
        "scored": found.scored,
        "kept_scores": found.kept,
    }
