"""How runs begin and end, where the official S5 program does not (s5_pretrain.md section 12, defects B4, B5 and B7)."""

from __future__ import annotations

import json

import pytest
import torch.distributed as distributed
from safetensors.torch import load_file

from support.resuming import WEIGHTS, run_two
from support.s4p_steps import SETTINGS, VARIANTS
from support.training_sample import catalog_of, make_rows, make_trainer, metrics, words
from tilth.models.segmenter import Segmenter
from tilth.training.checkpoint import load_checkpoint

# The last step is that of a log line, of a validation and of a checkpoint, of two of them, or of none.
LAST = {
    "all": ["loop.steps=4", "loop.validate_every=2", "loop.checkpoint_every=2", "loop.log_every=2"],
    "none": ["loop.steps=3", "loop.validate_every=100", "loop.checkpoint_every=100", "loop.log_every=100"],
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_process_alone_trains_every_method_and_names_nothing_after_a_wrapper(catalogs, tmp_path, variant):
    """B4: without a launcher the published program fails: a loader argument given twice, calls and names of the parallel wrapper."""
    trainer, _ = make_trainer(tmp_path / "run", {"steps": 2}, catalogs=catalogs, settings={"variant": variant, **SETTINGS[variant]})
    trainer.fit()
    assert not distributed.is_initialized()
    kept = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.safetensors")["model"]
    exported = load_file(tmp_path / "run" / WEIGHTS)
    assert not [name for name in (*kept, *exported) if "module." in name]
    Segmenter.load(tmp_path / "run")


def test_validation_tiles_are_those_of_the_catalog_and_need_no_other_file(server, data, tmp_path):
    """B5: the published program looks its validation list up in a folder that nobody has."""
    log, short = tmp_path / "log", ["loop.steps=2", "loop.validate_every=1"]
    assert server.run(words(*data, tmp_path / "with", *short), log) == 0, log.read_text()
    assert [line["step"] for line in metrics(tmp_path / "with") if line["kind"] == "val"] == [1, 2]
    described = json.loads((tmp_path / "with" / "data.json").read_text())["streams"]["validation"]
    assert described["tiles"] == 3
    # Nowhere else are tiles looked for: a catalog without any for validation trains without.
    alone = catalog_of(make_rows(tmp_path / "alone", "only", 4, split="train")).save(tmp_path / "alone.parquet")
    assert server.run(words(alone, data[1], tmp_path / "without", *short), log) == 0, log.read_text()
    assert not [line for line in metrics(tmp_path / "without") if line["kind"] == "val"]
    assert (tmp_path / "without" / WEIGHTS).is_file()
    # One that was asked for and is not there is told before the first step.
    assert server.run(words(alone, data[1], tmp_path / "wrong", *short, "validation_split=holdout"), log) in (1, 2)
    assert "holdout" in log.read_text()
    assert len(log.read_text().splitlines()) == 1
    assert not (tmp_path / "wrong").exists()


@pytest.mark.parametrize("last", ["all", pytest.param("none", marks=pytest.mark.slow)])
def test_all_processes_leave_at_the_last_step(server, data, tmp_path, last):
    """B7: in the published program only the first process leaves at the last step, and the others wait for ever."""
    # Both must end by themselves: the server kills what does not within its limit, and that is no code 0.
    run_two(server, words(*data, tmp_path / "run", *LAST[last], "loop.devices=2"), tmp_path / "log")
    assert json.loads((tmp_path / "run" / "finished.json").read_text())["steps"] == int(LAST[last][0].rpartition("=")[2])
    assert not [name for name in load_file(tmp_path / "run" / WEIGHTS) if "module." in name]
