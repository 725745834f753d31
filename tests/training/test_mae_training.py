"""MAE through the command line: resumed runs equal undisturbed ones, two processes learn as one does."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from support.prefork import Server
from support.resuming import check_same, run_two, stop_after
from support.training_sample import make_trainer, metrics
from tilth.models.config import NetworkConfig
from tilth.models.encoder_folder import load_encoder
from tilth.training.checkpoint import load_checkpoint


def words(labelled: Path, pool: Path, out: Path, *more: str) -> list[str]:
    """Return the command line of a short MAE with validation, on tiles of 48 x 40 pixels that are padded."""
    settings = {
        "network.name": "upernet_vit_b",
        "network.image_size": "40",
        "network.options": "{width: 32, depth: 4, heads: 4, decoder_channels: 8, patch: 8}",
        "weak.size": "40",
        "loop.steps": "12",
        "loop.batch_size": "4",
        "loop.log_every": "1",
        "loop.checkpoint_every": "4",
        "loop.validate_every": "3",
        "loop.learning_rate": "0.002",
        "loop.accelerator": "cpu",
        "settings.decoder_width": "32",
        "settings.decoder_depth": "1",
        "settings.decoder_heads": "4",
    }
    settings |= dict(item.split("=", 1) for item in more if not item.startswith("--"))
    flags = [item for item in more if item.startswith("--")]
    catalogs = ["--unlabelled", str(labelled), "--unlabelled", str(pool), "--out", str(out)]
    return ["pretrain", "mae", *catalogs, *flags, *(f"{key}={value}" for key, value in settings.items())]


@pytest.fixture(scope="module")
def whole(server: Server, data, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    assert server.run(words(*data, run), run.with_suffix(".log")) == 0, run.with_suffix(".log").read_text()
    return run


def test_run_learns_and_tells_its_loss_on_held_out_tiles(whole):
    lines = metrics(whole)
    trained = [line["loss_masked"] for line in lines if line["kind"] == "train"]
    validated = [line for line in lines if line["kind"] == "val"]
    assert [line["step"] for line in validated] == [3, 6, 9, 12]
    assert set(validated[0]) == {"step", "kind", "time_s", "validation_loss"}
    assert validated[-1]["validation_loss"] < validated[0]["validation_loss"] < 1.2
    assert trained[-1] < trained[0]
    finished = yaml.safe_load((whole / "finished.json").read_text())
    assert finished["best_validation_loss"] == pytest.approx(min(line["validation_loss"] for line in validated), rel=1e-6)


def test_decoder_is_in_the_checkpoint_and_not_in_what_is_exported(whole):
    state = load_checkpoint(whole / "checkpoints" / "last.safetensors")["model"]
    assert "decoder.mask_token" in state
    assert "model.network.encoder.position_embedding" in state
    names = set(load_file(whole / "model" / "model.safetensors"))
    assert names
    assert all(name.startswith("encoder.") and "pyramid" not in name for name in names)


def test_lowest_loss_is_the_best_and_its_encoder_is_kept(catalogs, tmp_path):
    network = NetworkConfig(
        name="upernet_vit_b", image_size=40, options={"width": 16, "depth": 4, "heads": 2, "decoder_channels": 8, "patch": 8}
    )
    settings = {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}
    scores, seen = iter([0.9, 0.5, 0.7]), []

    def validate(model):
        seen.append(model.network.encoder.position_embedding.detach().clone())
        return {"validation_loss": next(scores)}

    loop = {"steps": 3, "validate_every": 1, "learning_rate": 0.1}
    made = {"catalogs": catalogs, "method": "mae", "settings": settings, "network": network, "validate": validate}
    trainer, _ = make_trainer(tmp_path / "run", loop, **made)
    assert trainer.fit().best_score == 0.5
    assert load_encoder(tmp_path / "run").tensors["encoder.position_embedding"].equal(seen[1])


def test_killed_again_and_again_run_ends_with_the_same_bytes(server, data, whole, tmp_path):
    run, draw = tmp_path / "run", random.Random(7)
    command = words(*data, run)
    assert stop_after(server, command, run, 0, signal.SIGKILL) == -signal.SIGKILL
    for steps in (draw.randint(1, 4), draw.randint(5, 9)):
        # A run this short may be over before it is killed.
        assert stop_after(server, [*command, "--resume"], run, steps, signal.SIGKILL) in (-signal.SIGKILL, 0)
    assert server.run([*command, "--resume", "loop.workers=1"], run.with_suffix(".log")) == 0, run.with_suffix(".log").read_text()
    check_same(run, whole)


def test_interrupted_run_goes_on_exactly_and_takes_no_other_settings(server, data, whole, tmp_path):
    run = tmp_path / "run"
    command = words(*data, run)
    process = server.start(command, run.with_suffix(".log"))
    ends = time.monotonic() + 60
    while not (run / "metrics.jsonl").is_file():
        assert time.monotonic() < ends
        time.sleep(0.002)
    os.kill(process, signal.SIGINT)
    assert server.wait(process) in (130, 0)
    assert server.run([*command, "--resume", "settings.mask_ratio=0.5"], tmp_path / "log") == 1
    assert "settings.mask_ratio (0.75 -> 0.5)" in (tmp_path / "log").read_text()
    assert server.run([*command, "--resume"], run.with_suffix(".log")) == 0, run.with_suffix(".log").read_text()
    check_same(run, whole)


def test_recipe_of_a_run_does_the_same_again(server, data, whole, tmp_path):
    run = tmp_path / "again"
    again = ["pretrain", "--config", str(whole / "recipe.yaml"), "--out", str(run)]
    assert server.run(again, tmp_path / "log") == 0, (tmp_path / "log").read_text()
    check_same(run, whole)


def test_two_processes_have_the_losses_of_one(server, data, tmp_path):
    common = ["loop.denominator=global", "loop.steps=5", "loop.learning_rate=0.0003", "loop.checkpoint_every=2"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert server.run(words(*data, one, *common), tmp_path / "log") == 0, (tmp_path / "log").read_text()
    run_two(server, words(*data, two, *common, "loop.devices=2"), tmp_path / "log")
    for left, right in zip(metrics(one), metrics(two), strict=True):
        assert left["step"] == right["step"]
        for name in {"loss_masked", "validation_loss"} & left.keys():
            assert right[name] == pytest.approx(left[name], rel=1e-4), left["step"]


def test_mixed_precision_accumulation_and_checkpointing_train(server, data, tmp_path):
    run = tmp_path / "run"
    more = ["loop.precision=bf16-mixed", "loop.accumulate=2", "loop.checkpointing=yes", "loop.steps=3", "loop.clip_norm=1"]
    assert server.run(words(*data, run, *more), tmp_path / "log") == 0, (tmp_path / "log").read_text()
    assert 0 < metrics(run)[0]["loss_masked"] < 1.5
