"""The same pass on a Ray cluster: Ray Data hands shards to workers, each of which holds the model and writes what it made to a shared disk.

A shard appears whole, under a name that follows from its place. So a worker that dies costs the shard it was at, which Ray gives to
another, and a shard that is made twice is the same twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tilth.curation.config import ScoringConfig
from tilth.curation.scorer import TileScorer
from tilth.curation.scoring import Progress, Work
from tilth.errors import RunError, needs_extra
from tilth.models.segmenter import Segmenter
from tilth.models.tiles import Running

MakeScorer = Callable[[], TileScorer]
"""Makes the scorer of a worker, in the worker."""


def score_on_ray(
    work: Work, make_scorer: MakeScorer, *, address: str, workers: int, gpus: float = 0, progress: Progress | None = None
) -> int:
    """Make the shards that are missing on a Ray cluster.

    Args:
        work: tiles and folder; the folder must be the same for all machines.
        make_scorer: called once in every worker; must be picklable.
        address: of the cluster, ``auto`` for the one this machine belongs to, or ``local`` for one on this machine alone.
        workers: processes that score.
        gpus: GPUs of each.
        progress: told as shards come in.

    Returns:
        Number of tiles that were scored.

    Raises:
        MissingExtraError: Ray is not installed.
        RunError: the cluster cannot be reached, or shards are missing in the end.
    """
    with needs_extra("ray", "curation on a Ray cluster"):
        import ray

    missing = work.missing()
    if not missing:
        return 0
    done = len(work.catalog) - work.rows(missing)
    own = not ray.is_initialized()
    if own:
        _start(address, workers)
    try:
        for number in _numbers(work, missing, make_scorer, workers, gpus):
            done += work.rows([number])
            if progress is not None:
                progress(done, len(work.catalog))
    except ray.exceptions.RayError as error:
        raise RunError(f"{work.folder}: the Ray cluster gave up: {_last_line(error)}; the same command goes on from what is done") from None
    finally:
        if own:
            ray.shutdown()
    lost = work.missing()
    if lost:
        raise RunError(
            f"{work.folder}: {len(lost)} of {len(missing)} shards are missing; is the folder the same for all machines of the cluster?"
        )
    return work.rows(missing)


def model_scorer(folder: Path, scoring: ScoringConfig, running: Running, readers: int) -> TileScorer:
    """Load a model folder and make its scorer; what a worker starts with."""
    return TileScorer(Segmenter.load(folder), scoring, replace(running, device=running.device.partition(":")[0]), readers)


class _Worker:
    """Lives in a process of the cluster and makes one shard after the other."""

    def __init__(self, shared: Any) -> None:
        import ray

        make_scorer: MakeScorer
        self._work: Work
        self._work, make_scorer = ray.get(shared[0])
        self._scorer = make_scorer()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        for number in batch["shard"].tolist():
            # One that was handed out again may be there already.
            if not self._work.is_made(number):
                self._work.make(number, self._scorer)
        return batch


def _start(address: str, workers: int) -> None:
    import ray

    try:
        if address == "local":
            ray.init(address="local", num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise RunError(
            f"ray.address={address}: no cluster there: {_last_line(error)}; ray.address=local starts one on this machine"
        ) from None


def _numbers(work: Work, missing: list[int], make_scorer: MakeScorer, workers: int, gpus: float) -> Any:
    """Numbers of shards as they are done."""
    import ray
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    shards = ray.data.from_items([{"shard": number} for number in missing], override_num_blocks=len(missing))
    done = shards.map_batches(
        _Worker,
        # Put down once: a catalog of a million tiles is large.
        fn_constructor_args=([ray.put((work, make_scorer))],),
        batch_size=1,
        num_gpus=gpus or None,
        # Actors that die are started again, and what they were at is given out again, as often as needed: Ray Data's default.
        compute=ray.data.ActorPoolStrategy(size=min(workers, len(missing))),
    )
    for row in done.iter_rows():
        yield int(row["shard"])


def _last_line(error: Exception) -> str:
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)[:300]
