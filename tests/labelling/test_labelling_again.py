"""Labelling again: what is made is kept, what changed is made anew; in parts, by several processes, after a kill or a failure."""

from __future__ import annotations

import multiprocessing
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from support.curation_world import SIDE, catalog_of, picture, save
from support.dying import die_at_sync
from support.labelling_calls import SHARD, TILES, files, label, rows
from tilth.errors import TilthError
from tilth.imagery.claims import Claims
from tilth.labelling import shards
from tilth.labelling.config import Part
from tilth.labelling.job import Request, labelling_identity
from tilth.models.segmenter import Segmenter
from tilth.models.tiles import Running


def test_same_command_again_does_nothing_anew_and_leaves_the_same_bytes(world, labelled, tmp_path):
    shutil.copytree(labelled, tmp_path / "out")
    before = files(tmp_path / "out")
    again = label(world, tmp_path / "out", ignore_below=0.5, workers=1, inference={"window": SIDE, "device": "cpu", "batch_size": 9})
    assert again.values["made"] == 0
    assert files(tmp_path / "out") == before


@pytest.mark.parametrize("change", [{"ignore_below": 0.6}, {"confidence": False}])
def test_other_settings_make_everything_anew(world, labelled, tmp_path, change):
    shutil.copytree(labelled, tmp_path / "out")
    changed = label(world, tmp_path / "out", **({"ignore_below": 0.5} | change))
    assert changed.values["made"] == TILES
    label(world, tmp_path / "fresh", **({"ignore_below": 0.5} | change))
    assert files(tmp_path / "out") == files(tmp_path / "fresh")


def test_what_labels_depend_on_is_in_their_stamp_and_nothing_else(model):
    requests = [
        Request(),
        Request(Running(window=64)),
        Request(Running(overlap=1)),
        Request(Running(precision="bf16-mixed")),
        Request(flips="both"),
        Request(ignore_below=0.1),
        Request(confidence=True),
    ]
    assert len({labelling_identity(model, request) for request in requests}) == len(requests)
    other = Request(Running(device="cuda", batch_size=9), part=Part(2, 3), workers=7, max_bad_share=1, shard_tiles=3)
    assert labelling_identity(model, other) == labelling_identity(model, Request())


def test_another_model_makes_everything_anew(world, labelled, tmp_path):
    model = Segmenter.load(world / "model")
    for parameter in model.network.segmentation_head.parameters():
        parameter.data.mul_(-1)
    model.save(tmp_path / "other")
    shutil.copytree(labelled, tmp_path / "out")
    assert label(world, tmp_path / "out", model=tmp_path / "other").values["made"] == TILES


def test_only_what_changed_or_is_lost_is_made_again(world, tmp_path):
    shutil.copytree(world, tmp_path / "world")
    here, out = tmp_path / "world", tmp_path / "out"
    label(here, out)
    whole = files(out)
    (out / "masks" / "plain_00.png").unlink()
    (out / "masks" / "plain_12.png").write_bytes(b"cut short")
    (out / "masks" / "old.png").write_bytes((out / "masks" / "plain_01.png").read_bytes())
    again = label(here, out)
    assert again.values["made"] == 2 * SHARD
    assert files(out) == whole
    save(here / "pool", "plain_06", picture(999))
    assert label(here, out).values["made"] == SHARD
    changed = files(out)
    assert changed["masks/plain_06.png"] != whole["masks/plain_06.png"]
    assert changed["masks/plain_00.png"] == whole["masks/plain_00.png"]


def test_pool_that_grows_is_labelled_where_it_grew(world, tmp_path):
    more = [save(tmp_path / "more", f"more_{number}", picture(300 + number)) for number in range(3)]
    catalog_of(more).save(tmp_path / "more.parquet")
    label(world, tmp_path / "out")
    again = label(world, tmp_path / "out", catalogs=[world / "pool.parquet", tmp_path / "more.parquet"])
    assert again.values["made"] == 6
    assert len(rows(tmp_path / "out")) == TILES + 2


def test_parts_make_together_what_one_makes(world, labelled, tmp_path):
    out = tmp_path / "out"
    made = []
    for part in ("3/3", "1/3", "2/3"):
        assert not (out / "catalog.parquet").exists()
        made.append(label(world, out, ignore_below=0.5, part=part).values)
    assert [values["made"] for values in made] == [5, 10, 8]
    assert [values["missing"] for values in made] == [18, 8, 0]
    assert files(out) == files(labelled)


def test_catalog_of_a_finished_job_is_withdrawn_while_it_is_made_anew(world, labelled, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(labelled, out)
    assert label(world, out, part="1/2").values["missing"] > 0
    assert not (out / "catalog.parquet").exists()


def _label_in_a_process(world: Path, out: Path, ready: Any, more: dict[str, Any]) -> None:
    ready.wait()
    label(world, out, ignore_below=0.5, **more)


def test_processes_that_start_at_once_share_the_work(world, labelled, tmp_path):
    out, fork = tmp_path / "out", multiprocessing.get_context("fork")
    ready = fork.Barrier(3)
    children = [fork.Process(target=_label_in_a_process, args=(world, out, ready, {"workers": number + 1})) for number in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(100)
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert files(out) == files(labelled)


def test_other_job_in_the_same_folder_waits_its_turn(world, labelled, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(labelled, out)
    fork = multiprocessing.get_context("fork")
    begun, over = fork.Event(), fork.Event()

    def work() -> None:
        with Claims(out / "shards" / ".claims") as claims:
            claims.join()
            claims.take(0)
            begun.set()
            over.wait(60)

    child = fork.Process(target=work)
    child.start()
    begun.wait(60)
    before = files(out)
    with pytest.raises(TilthError, match="another process is labelling into it for another model or pool"):
        label(world, out, ignore_below=0.9)
    assert files(out) == before
    # The same job leaves to the other what that has claimed.
    (out / "shards" / "shard-00000.arrow").unlink()
    assert label(world, out, ignore_below=0.5).values == {"made": 0, "missing": SHARD}
    over.set()
    child.join(60)
    assert label(world, out, ignore_below=0.5).values["made"] == SHARD
    assert files(out) == before


@pytest.mark.parametrize("moments", [(100, 151), pytest.param((2, 154), marks=pytest.mark.slow)], ids=["few", "more"])
def test_killed_labelling_goes_on_to_the_same_bytes(world, labelled, tmp_path, moments):
    whole, out = files(labelled), tmp_path / "out"
    # Three syncs for each of 52 files: the content twice, and the folder.
    for moment in moments:
        shutil.rmtree(out, ignore_errors=True)
        assert die_at_sync(moment, label, world, out, ignore_below=0.5) == -signal.SIGKILL
        label(world, out, ignore_below=0.5)
        assert files(out) == whole


def test_failure_in_the_first_shard_does_not_lock_the_folder(world, labelled, tmp_path, monkeypatch):
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shards, "write_table", full)
        with pytest.raises(OSError, match="No space left") as failure:
            label(world, tmp_path / "out", ignore_below=0.5)
    # The error holds what was going on, as it does in a notebook.
    assert failure.tb is not None
    assert torch.is_grad_enabled()
    assert not (tmp_path / "out").exists()
    label(world, tmp_path / "out", ignore_below=0.5)
    assert files(tmp_path / "out") == files(labelled)


def test_shard_of_another_model_does_not_speak_for_rasters_that_were_overwritten(world, tmp_path, monkeypatch):
    """The label of one pixel is as many bytes whatever it says, so that only the shard could tell."""
    catalog_of([save(tmp_path / "p", "one", picture(1, 1, 1))]).save(tmp_path / "one.parquet")
    pool = {"catalogs": tmp_path / "one.parquet"}
    model = Segmenter.load(world / "model")
    for parameter in model.network.segmentation_head.parameters():
        parameter.data.copy_(parameter.data.roll(1, 0))
    model.save(tmp_path / "other")
    label(world, tmp_path / "out", **pool)
    before = files(tmp_path / "out")

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shards, "write_table", stopped)
        with pytest.raises(KeyboardInterrupt):
            label(world, tmp_path / "out", model=tmp_path / "other", **pool)
    changed = files(tmp_path / "out")["masks/one.png"]
    assert changed != before["masks/one.png"]
    assert len(changed) == len(before["masks/one.png"])
    label(world, tmp_path / "out", **pool)
    assert files(tmp_path / "out") == before
