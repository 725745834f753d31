"""On a Ray cluster the same scores come out, and a worker that dies costs nothing but its time."""

from __future__ import annotations

import functools
import os
import signal
from pathlib import Path

import pytest

from support.curation_world import SIDE
from tilth.catalog.table import Catalog
from tilth.curation.config import ScoringConfig
from tilth.curation.ray_pass import model_scorer, score_on_ray
from tilth.curation.scorer import TileScorer
from tilth.curation.scoring import Work, plan_work, score_here, scoring_identity
from tilth.errors import RunError
from tilth.models.tiles import Running

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow

SCORING, RUNNING = ScoringConfig(shard_tiles=2), Running(window=SIDE)


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


def work_of(world: Path, out: Path, model) -> Work:
    catalog = Catalog.open(world / "pool.parquet")
    return plan_work(catalog, out, "pool", scoring_identity(model, SCORING, RUNNING), SCORING.shard_tiles)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def dying_scorer(folder: Path, mark: Path):
    """The scorer of a worker that is killed while it is at its third shard, once."""
    scorer = model_scorer(folder, SCORING, RUNNING, 1)
    inner, seen = scorer.__class__.__call__, []

    class Dying:
        classes, width = scorer.classes, scorer.width

        def __call__(self, tiles):
            seen.append(len(tiles))
            for index, one in enumerate(inner(scorer, tiles)):
                if len(seen) == 3 and index == 1 and not mark.exists():
                    mark.write_text(str(os.getpid()))
                    os.kill(os.getpid(), signal.SIGKILL)
                yield one

    return Dying()


def test_two_workers_one_of_them_killed_leave_what_one_process_leaves(world, model, tmp_path):
    alone = work_of(world, tmp_path / "alone", model)
    assert score_here(alone, lambda: TileScorer(model, SCORING, RUNNING)) == 23
    shared = work_of(world, tmp_path / "shared", model)
    # A shard that is there is not made again.
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "pool-00004.arrow").write_bytes((tmp_path / "alone" / "pool-00004.arrow").read_bytes())
    # Workers cannot import this file, so the function travels as it is.
    ray.cloudpickle.register_pickle_by_value(__import__("sys").modules[__name__])
    told = []
    make = functools.partial(dying_scorer, world / "model", tmp_path / "died")
    made = score_on_ray(shared, make, address="local", workers=2, progress=lambda done, total: told.append((done, total)))
    assert (tmp_path / "died").exists()
    assert made == 21
    assert told[-1] == (23, 23)
    assert len(told) == 11
    assert files(tmp_path / "shared") == files(tmp_path / "alone")
    assert score_on_ray(shared, make, address="local", workers=2) == 0
    assert not ray.is_initialized()


def test_cluster_that_is_not_there_is_named(world, model, tmp_path):
    work = work_of(world, tmp_path / "out", model)
    with pytest.raises(RunError, match=r"ray\.address=auto: no cluster there"):
        score_on_ray(work, functools.partial(model_scorer, world / "model", SCORING, RUNNING, 1), address="auto", workers=1)


def test_verb_scores_on_a_cluster(world, tmp_path):
    import tilth

    options = {
        "unlabelled": world / "pool.parquet",
        "model": world / "model",
        "report": False,
        "inference": {"window": SIDE, "device": "cpu"},
    }
    tilth.curate(out=tmp_path / "here", **options)
    result = tilth.curate(out=tmp_path / "there", ray="local", **options)
    assert result.values["scored"] == 23
    assert files(tmp_path / "there" / "scores") == files(tmp_path / "here" / "scores")
    assert (tmp_path / "there" / "catalog.parquet").read_bytes() == (tmp_path / "here" / "catalog.parquet").read_bytes()
