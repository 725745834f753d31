"""From labels of a model to a model that learnt from them: through the command line, killed on the way or not."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

import tilth
from support.prefork import Server
from support.resuming import check_same, run_two, stop_after
from support.training_sample import NETWORK, metrics, tiny_model


def words(*catalogs: Path, out: Path, more: tuple[str, ...] = ()) -> list[str]:
    settings = {
        "network.encoder": NETWORK.encoder,
        "network.options": "{decoder_channels: [8, 8, 8, 8, 8]}",
        "weak.size": "32",
        "loop.steps": "6",
        "loop.batch_size": "4",
        "loop.log_every": "1",
        "loop.checkpoint_every": "2",
        "loop.validate_every": "6",
        "loop.learning_rate": "0.003",
        "loop.accelerator": "cpu",
        "inference.window": "64",
        "settings.confidence_weighting": "linear",
    }
    settings |= dict(item.split("=", 1) for item in more if not item.startswith("--"))
    flags = [item for item in more if item.startswith("--")]
    given = [word for catalog in catalogs for word in ("--labelled", str(catalog))]
    return ["pretrain", "sep", *given, "--out", str(out), *flags, *(f"{key}={value}" for key, value in settings.items())]


@pytest.fixture(scope="module")
def pseudo(data, tmp_path_factory) -> Path:
    """The catalog of a pool that a model labelled."""
    folder = tmp_path_factory.mktemp("pseudo")
    tiny_model().save(folder / "model")
    running = {"window": 64, "device": "cpu"}
    tilth.label(
        model=folder / "model", catalogs=data[1], out=folder / "out", confidence=True, pictures=0, ignore_below=0.35, inference=running
    )
    return folder / "out" / "catalog.parquet"


def test_labels_of_a_model_are_learnt_and_a_killed_run_ends_with_the_same_bytes(server: Server, pseudo, tmp_path):
    runs = [tmp_path / name for name in ("whole", "stopped")]
    commands = [words(pseudo, out=run) for run in runs]
    assert server.run(commands[0], tmp_path / "log") == 0, (tmp_path / "log").read_text()
    lines = metrics(runs[0])
    assert all(0.33 < line["label_confidence"] <= 1 for line in lines)
    # The pool has no split: its labels are for training, and none are there to validate on.
    assert all(line["kind"] == "train" for line in lines)
    streams = json.loads((runs[0] / "data.json").read_text())["streams"]
    assert (streams["labelled"]["tiles"], streams["labelled"]["splits"]) == (7, {"train": 7})
    assert stop_after(server, commands[1], runs[1], 3, signal.SIGKILL) == -signal.SIGKILL
    assert server.run([*commands[1], "--resume", "loop.workers=1"], tmp_path / "log") == 0, (tmp_path / "log").read_text()
    check_same(runs[1], runs[0])


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(server: Server, pseudo, tmp_path):
    common = ("loop.denominator=global", "loop.steps=5", "loop.learning_rate=0.0003")
    one, two = tmp_path / "one", tmp_path / "two"
    assert server.run(words(pseudo, out=one, more=common), tmp_path / "log") == 0, (tmp_path / "log").read_text()
    run_two(server, words(pseudo, out=two, more=(*common, "loop.devices=2")), tmp_path / "log")
    for left, right in zip(metrics(one), metrics(two), strict=True):
        for name in ("loss_labelled", "label_confidence"):
            assert right[name] == pytest.approx(left[name], rel=1e-3), left["step"]
