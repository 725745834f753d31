"""Labelling from beginning to end: a pool and a model in, label rasters and their catalog out, by one process or by many."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilth.catalog.table import Catalog
from tilth.errors import CatalogError, SensorMismatchError, UsageError
from tilth.evaluation.samples import sensor_difference
from tilth.labelling.config import Part
from tilth.labelling.folder import refuse_foreign
from tilth.labelling.outcome import RECORD_FILE, join
from tilth.labelling.plan import plan_labels
from tilth.labelling.shards import Settings
from tilth.labelling.tile_label import Labeller
from tilth.labelling.work import Job, Labelling, Progress, do_job
from tilth.models.identity import model_hash
from tilth.models.tiles import Running

if TYPE_CHECKING:
    from tilth.models.segmenter import Segmenter


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
    return do_job(
        Job(plan, out, settings, request.part, request.max_bad_share, RECORD_FILE),
        lambda: Labeller(segmenter, request.running, flips=request.flips, ignore_below=request.ignore_below, readers=request.workers),
        lambda whole: join(plan, whole, out, segmenter.scheme, model_facts(segmenter, request, model), request.ignore_below),
        say,
        progress,
    )


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


def model_facts(segmenter: Segmenter, request: Request, name: str) -> dict[str, Any]:
    """Say for a record which model was run, and how."""
    running = {key: value for key, value in asdict(request.running).items() if key in {"window", "overlap", "precision"}}
    return {"name": name, "sha256": model_hash(segmenter), "flips": request.flips} | running
