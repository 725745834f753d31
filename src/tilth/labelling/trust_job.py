"""A label-trust map from beginning to end: labels and a model in, rasters of trust and their catalog out, by one process or by many."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tilth.catalog import schema, uris
from tilth.catalog.confidence import FULL, UNKNOWN, WINDOW_COLUMN
from tilth.catalog.table import Catalog
from tilth.evaluation.samples import labelled_tiles
from tilth.imagery.write import write_json
from tilth.labelling.folder import TRUST, refuse_foreign
from tilth.labelling.job import Request, labelling_identity, model_facts
from tilth.labelling.outcome import CATALOG_FILE, Outcome, below, in_catalog_order, mean_of, per_class, problems_of
from tilth.labelling.plan import Plan, plan_labels
from tilth.labelling.shards import Settings
from tilth.labelling.trust import Truster, voices
from tilth.labelling.work import Job, Labelling, Progress, do_job
from tilth.labelling.wrong_labels import judge_trust

if TYPE_CHECKING:
    from tilth.models.segmenter import Segmenter

RECORD_FILE = "trust.json"
"""Counts, classes, and the tiles that have no trust; written last."""

RECORD_VERSION = 1
"""Raised when readers of the old record would misunderstand the new one."""

MEAN_COLUMN = "mean_trust"
"""Column of the catalog: mean trust over the labelled pixels of a tile, 0 to 1; null without any."""


NOISE_TILES = 200
"""Labelled tiles that tell of the noise of a map, at most; evenly spread over the catalog."""


def trust_labels(
    catalog: Catalog,
    segmenter: Segmenter,
    out: Path,
    request: Request,
    *,
    estimate_noise: bool = False,
    model: str = "",
    say: Callable[[str], None] = lambda _: None,
    progress: Progress | None = None,
) -> Labelling:
    """Say of the labels of a catalog how sure one may be that they are right.

    Shards that are made already of the same tiles, files, labels, model and settings are kept. The same call goes on after any interruption
    and ends with the same files.

    Args:
        catalog: tiles of the model's sensor, with labels of the model's classes; those without a label are left out.
        segmenter: the model; of one with branches all have their say.
        out: folder for ``catalog.parquet``, ``trust.json``, ``confidence/`` and ``shards/``.
        request: what is wanted; ``ignore_below`` and ``confidence`` mean nothing here.
        estimate_noise: first find which classes the labels take for which others, and allow for it (:mod:`tilth.labelling.label_noise`).
        model: what to call the model in the record.
        say: told what is being done.
        progress: told how many tiles are done.

    Returns:
        What was done. The catalog has all columns of the one that was given, and ``confidence_raster``, ``confidence_window`` and
        ``mean_trust``.

    Raises:
        CatalogError: no labelled tile, or labels of other classes than the model's.
        SensorMismatchError: tiles of another sensor than the model's.
        OutputExistsError: the folder holds something else.
        UsageError: settings that make no sense, or somebody's own file is in the way.
        DataError: too many tiles cannot be read.
        TilthError: another process is at work there for another model or catalog, or the folder cannot be written to.
    """
    labelled = labelled_tiles(segmenter, catalog)
    refuse_foreign(out, TRUST)
    say("looking at the files of the catalog")
    kind = f"{TRUST} allowing for noise" if estimate_noise else TRUST
    identity = hashlib.sha256(f"{kind} {RECORD_VERSION} {labelling_identity(segmenter, request)}".encode()).hexdigest()
    plan = plan_labels(labelled, identity, request.shard_tiles, given=True)

    truster = Truster(segmenter, request.running, flips=request.flips, readers=request.workers)
    noise = None
    if estimate_noise:
        say("finding which classes the labels take for which others")
        rows = np.unique(np.linspace(0, len(labelled) - 1, min(len(labelled), NOISE_TILES)).round().astype(int))
        noise = truster.learn_noise([labelled.tile(int(row)) for row in rows])
        if noise is not None:
            truster.allow_for(noise)

    def finish(whole: pa.Table) -> Outcome:
        facts = model_facts(segmenter, request, model) | {"branches": list(voices(segmenter))}
        given_as = None if noise is None else noise.numpy().round(4).tolist()
        return _join(plan, whole, out, facts, len(catalog), say, request.workers, given_as)

    return do_job(
        Job(plan, out, Settings(segmenter.scheme, True, request.workers, given=True), request.part, request.max_bad_share, RECORD_FILE),
        lambda: truster,
        finish,
        say,
        progress,
    )


def _join(
    plan: Plan,
    whole: pa.Table,
    out: Path,
    model: dict[str, Any],
    tiles: int,
    say: Callable[[str], None],
    threads: int,
    given_as: list[list[float]] | None,
) -> Outcome:
    """Write the catalog and the record; the same work writes the same bytes."""
    found = in_catalog_order(plan, whole)
    problems = [problem for _, problem in problems_of(plan, found)]
    kept = pc.is_null(found["problem"])
    table, found = plan.catalog.table.filter(kept), found.filter(kept)
    columns = {
        schema.CONFIDENCE_COLUMN: below(uris.absolute_uri(out), found["sure"]),
        WINDOW_COLUMN: table["window"],
        MEAN_COLUMN: found["confidence"],
    }
    catalog = Catalog(table, plan.catalog.sensors, plan.catalog.schemes).with_columns(**columns)
    catalog.save(out / CATALOG_FILE)
    if schema.REFERENCE_COLUMN in table.column_names:
        say("comparing trust with clean labels")
    unused: list[dict[str, str]] = []
    against = judge_trust(catalog, lambda name, problem: unused.append({"tile_id": name, "problem": problem}), threads)
    pixels, percents = (per_class(found, name) for name in ("pixels", "percents"))
    record = {
        "schema_version": RECORD_VERSION,
        "tiles": tiles,
        "judged": len(catalog),
        "model": model,
        "scheme": catalog.scheme().name,
        "given_as": given_as,
        "confidence": {"unit": "percent", "full": FULL, "unknown": UNKNOWN},
        "mean_trust": _quotient(percents.sum(), pixels.sum()),
        "mean_trust_of_tiles": mean_of(found["confidence"]),
        "classes": [
            {"name": name, "pixels": int(count), "mean_trust": _quotient(total, count)}
            for name, count, total in zip(catalog.scheme().names, pixels.sum(0), percents.sum(0), strict=True)
        ],
        "against_reference": against,
        "unused_references": unused,
        "not_judged": problems,
    }
    write_json(out / RECORD_FILE, record)
    return Outcome(catalog, record)


def _quotient(percents: np.int64, pixels: np.int64) -> float | None:
    return float(percents) / (FULL * float(pixels)) if pixels else None
