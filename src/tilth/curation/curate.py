"""Curation from beginning to end: a pool, a model, perhaps labelled tiles; out comes a folder with the selection and its reasons."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tilth.catalog.overlap import shares_pixels
from tilth.catalog.table import Catalog
from tilth.curation.config import DiversityConfig, EntropyReading, FilterConfig, ScoringConfig
from tilth.curation.decide import Labelled, Plan, decide
from tilth.curation.entropy import background_classes
from tilth.curation.outcome import describe_rows, make_record
from tilth.curation.scoring import Progress, Work, plan_work, scoring_identity
from tilth.errors import CatalogError, DataError, OutputExistsError, SensorMismatchError, UsageError
from tilth.imagery.files import folder_lock, make_folder, remove_empty
from tilth.imagery.write import write_json
from tilth.models.identity import model_hash
from tilth.models.tiles import Running

if TYPE_CHECKING:
    from tilth.models.segmenter import Segmenter

CATALOG_FILE = "catalog.parquet"
"""The tiles that were selected, in the order of the pool."""

DECISIONS_FILE = "decisions.parquet"
"""All tiles, kept and dropped."""

RECORD_FILE = "curation.json"
"""Counts, clusters and classes; written last."""

SCORES_FOLDER = "scores"
_SCORES_FILE = "scores.json"
# What a killed process leaves behind; see imagery.files.atomic_path.
_TEMPORARY_NAME = re.compile(r"^\.(catalog|decisions|curation|report)\.\d+-\d+\.(parquet|json|html)$")
_CENTRES_FILE = "clusters.safetensors"

Score = Callable[[Work, Progress | None], int]
"""Makes the missing shards of a catalog; see :func:`tilth.curation.scoring.score_here`."""


@dataclass(frozen=True)
class Curation:
    """What was done.

    Attributes:
        catalog: the tiles that were selected.
        decisions: all tiles of the pool, with the same columns.
        record: content of ``curation.json``.
        scored: tiles that were looked at now.
        kept: tiles whose scores were there.
    """

    catalog: Catalog
    decisions: Catalog
    record: dict[str, Any]
    scored: int
    kept: int


@dataclass(frozen=True)
class Request:
    """What is wanted.

    Attributes:
        tiles: how many tiles to select; None for all that pass the filters.
        entropy: which reading gives the order.
        scoring: what is asked of every tile.
        filters: which tiles are dropped.
        diversity: how places are shared out.
        labelled_split: rows of the labelled tiles that clusters are found of; None for all.
    """

    tiles: int | None = None
    entropy: EntropyReading = "foreground"
    scoring: ScoringConfig = field(default_factory=ScoringConfig)
    filters: FilterConfig = field(default_factory=FilterConfig)
    diversity: DiversityConfig = field(default_factory=DiversityConfig)
    labelled_split: str | None = "train"


def curate_pool(
    pool: Catalog,
    segmenter: Segmenter,
    out: Path,
    request: Request,
    running: Running,
    score: Score,
    *,
    labelled: Catalog | None = None,
    model: str = "",
    say: Callable[[str], None] = lambda _: None,
    progress: Progress | None = None,
) -> Curation:
    """Select tiles of a pool.

    Tiles are scored once, shard by shard; what is on disk already of the same tiles, model and settings is used. The same call goes on
    after any interruption, and ends with the same files.

    Args:
        pool: tiles to choose among; labels are not looked at.
        segmenter: the model that scores them.
        out: folder for ``catalog.parquet``, ``decisions.parquet``, ``curation.json`` and ``scores/``.
        request: what is wanted.
        running: how the model is run.
        score: makes shards, in this process or elsewhere.
        labelled: tiles with labels; copies of any of them, and tiles that show pixels of them, are dropped. Needed for quotas that follow
            them.
        model: what to call the model in the record.
        say: told what is being done.
        progress: told how many tiles are scored.

    Returns:
        What was done.

    Raises:
        CatalogError: an empty pool, or no labelled tile.
        SensorMismatchError: tiles of another sensor than the model's.
        UsageError: no labelled tiles for quotas that follow them, more tiles wanted than there are, or unknown background classes.
        OutputExistsError: the folder holds something else, or scores of another model or other settings.
        DataError: no tile can be read, or none passes the filters.
    """
    plan, chosen = _check(pool, segmenter, request, labelled)
    identity = scoring_identity(segmenter, request.scoring, running)
    with _begun(out, identity):
        scores_folder = out / SCORES_FOLDER
        works = {"pool": plan_work(pool, scores_folder, "pool", identity, request.scoring.shard_tiles)}
        if labelled is not None:
            works["labelled"] = plan_work(labelled, scores_folder, "labelled", identity, request.scoring.shard_tiles)
        _clear(out, works)
        scored = 0
        for name in sorted(works):
            say(f"scoring the {name} tiles")
            scored += score(works[name], progress)
        found = {name: work.scores() for name, work in works.items()}
        _refuse_unreadable(found["pool"].table["problem"], pool)
        beside = None if labelled is None else Labelled(labelled, found["labelled"], chosen)
        ground = np.zeros(len(pool), dtype=bool) if labelled is None else shares_pixels(pool, labelled)
        made = decide(found["pool"], plan, pool.table["source"], ground, beside, scores_folder / _CENTRES_FILE, say)
        say("writing catalogs")
        which = {
            "name": model,
            "sha256": model_hash(segmenter),
            "scoring": request.scoring.model_dump(mode="json", exclude={"shard_tiles"}),
        }
        which |= {name: value for name, value in asdict(running).items() if name in {"window", "overlap", "precision"}}
        decisions = describe_rows(pool, found["pool"], plan, made, beside)
        record = make_record(pool, found["pool"], plan, made, beside, segmenter.scheme, which)
        catalog = decisions.take(np.sort(made.taken))
        decisions.save(out / DECISIONS_FILE)
        catalog.save(out / CATALOG_FILE)
        write_json(out / RECORD_FILE, record)
    everything = sum(len(work.catalog) for work in works.values())
    return Curation(catalog, decisions, record, scored, everything - scored)


def _check(pool: Catalog, segmenter: Segmenter, request: Request, labelled: Catalog | None) -> tuple[Plan, np.ndarray]:
    """Refuse what cannot be done before anything is; gives the plan and the labelled rows that clusters are found of."""
    if not len(pool):
        raise CatalogError("the pool has no tile; give catalogs with tiles, or other splits")
    if request.tiles is not None and request.tiles > len(pool):
        raise UsageError(
            f"--tiles {request.tiles}: the pool has only {len(pool)} tiles; ask for fewer, or leave it out to keep all that pass"
        )
    by_labels = request.tiles is not None and request.diversity.quotas == "labelled"
    if by_labels and labelled is None:
        raise UsageError(
            "diversity.quotas=labelled shares places out as the labelled tiles are; give --labelled CATALOG, or choose equal or none"
        )
    for what, tiles in (("pool", pool), ("labelled tiles", labelled)):
        for name, sensor in () if tiles is None else tiles.sensors.items():
            if sensor != segmenter.sensor and tiles is not None and name in tiles.counts("sensor"):
                raise SensorMismatchError(
                    f"the {what} are of sensor {name!r} (bands {', '.join(sensor.band_names)}, {sensor.dtype}), the model wants "
                    f"{segmenter.sensor.name!r} (bands {', '.join(segmenter.sensor.band_names)}, {segmenter.sensor.dtype}); "
                    "use tiles of the model's sensor and scale, or a model of theirs"
                )
    rows = np.zeros(0, dtype=np.int64)
    if labelled is not None:
        with_label = (labelled.table["label"].is_valid().to_numpy()) & (np.array(labelled.column("label_kind")) != "none")
        splits = np.array(labelled.column("split"), dtype=object)
        rows = np.flatnonzero(with_label & ((splits == request.labelled_split) if request.labelled_split is not None else True))
        if by_labels and not rows.size:
            there = ", ".join(sorted({str(name or "none") for name in splits[with_label].tolist()}))
            if not there:
                raise CatalogError(f"--labelled: none of its {len(labelled)} tiles has a label; build the catalog with masks")
            raise CatalogError(f"--labelled: no labelled tile in split {request.labelled_split!r}; splits there: {there}")
    background = background_classes(segmenter.scheme, request.scoring.background)
    return Plan(request.tiles, request.entropy, request.filters, request.diversity, background), rows


@contextmanager
def _begun(out: Path, identity: str) -> Iterator[None]:
    """Make the folder and work in it alone; take it back after a failure, unless scores are there to go on from.

    Raises:
        OutputExistsError: it is a file, holds something else, or scores of another model or other settings.
        TilthError: it cannot be made, or another process is at work in it.
    """
    if out.exists() and not out.is_dir():
        raise OutputExistsError(f"{out}: is a file; curation needs a folder: choose another --out")
    note = out / SCORES_FOLDER / _SCORES_FILE
    there = sorted(path.name for path in (*out.glob("*"), *note.parent.glob("*")) if path != note.parent and not path.name.startswith("."))
    if there:
        try:
            known = json.loads(note.read_text(encoding="utf-8"))["identity"]
        except (OSError, ValueError, KeyError, TypeError):
            raise OutputExistsError(f"{out}: holds {', '.join(there[:3])} and no curation of tilth; choose another --out") from None
        if known != identity:
            raise OutputExistsError(
                f"{out}: holds scores of another model, or of other scoring or inference settings; remove it, or choose another --out"
            )
    made = [*make_folder(note.parent)]
    with folder_lock(out, "curating into"):
        write_json(note, {"identity": identity})
        try:
            yield
        except Exception:
            if made and not any(note.parent.glob("*.arrow")):
                note.unlink(missing_ok=True)
                remove_empty(made)
            raise


def _clear(out: Path, works: dict[str, Work]) -> None:
    """Remove shards of a former division, and what a killed process left half written."""
    planned = {plan.name for work in works.values() for plan in work.plans}
    for path in out.iterdir():
        if _TEMPORARY_NAME.match(path.name):
            path.unlink(missing_ok=True)
    for path in (out / SCORES_FOLDER).iterdir():
        # Those of labelled tiles that are not asked for this time may be next time.
        surplus = path.suffix == ".arrow" and path.name.partition("-")[0] in works and path.name not in planned
        if surplus or path.name.startswith("."):
            path.unlink(missing_ok=True)


def _refuse_unreadable(problems: Any, pool: Catalog) -> None:
    if problems.null_count == 0:
        raise DataError(f"none of the {len(pool)} tiles of the pool can be read; the first: {problems[0].as_py()}")
