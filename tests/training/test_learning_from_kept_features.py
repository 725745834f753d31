"""Trainings on kept maps: the same as with maps made anew, in one process or two, stopped or not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

import tilth
from support.kept_features import diffusion_model
from support.resuming import run_two, told
from support.training_sample import catalog_of, make_rows, metrics
from tilth.models.encoder_folder import save_encoder
from tilth.training.feature_cache import FeatureCache
from tilth.training.step import Stepper

STEPS = 6


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four tiles to learn from, two to validate on, and a noise predictor."""
    folder = tmp_path_factory.mktemp("data")
    rows = make_rows(folder, "t", 4, split="train", size=(32, 32)) + make_rows(folder, "v", 2, split="val", size=(32, 32))
    catalog_of(rows).save(folder / "catalog.parquet")
    save_encoder(diffusion_model(), folder / "predictor", left_out=())
    return folder


def train(data: Path, out: Path, *, resume: bool = False, loop: dict | None = None, **settings) -> list[float]:
    """Losses of all steps, without whatever does not go with kept maps."""
    tilth.finetune(
        task="segment",
        method="ddpm",
        labelled=[data / "catalog.parquet"],
        initial_weights=data / "predictor",
        out=out,
        resume=resume,
        network={"name": "ddpm_segmentor", "options": {"noise": "fixed"}},
        weak={"size": 32, "scale_min": 1, "scale_max": 1, "horizontal_flip": 0, "vertical_flip": 0, "rot90": False},
        loop={
            "steps": STEPS,
            "batch_size": 2,
            "accelerator": "cpu",
            "log_every": 1,
            "checkpoint_every": 2,
            "learning_rate": 2e-3,
            **(loop or {}),
        },
        settings={"stretch": {"probability": 0}, **settings},
    )
    return [line["loss"] for line in metrics(out) if line["kind"] == "train"]


@pytest.fixture(scope="module")
def online(data, tmp_path_factory):
    return train(data, tmp_path_factory.mktemp("run") / "online")


@pytest.mark.parametrize(("dtype", "off"), [("fp16", 1e-3), ("int8", 1e-2)])
def test_losses_are_those_of_maps_that_are_made_anew(data, online, tmp_path, dtype, off):
    losses = train(data, tmp_path / "run", cache="disk", cache_folder=str(tmp_path / "kept"), cache_dtype=dtype)
    assert losses == pytest.approx(online, rel=off)
    assert losses != online
    assert losses[-1] < losses[0]
    recipe = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert recipe["settings"]["cache"] == "disk"
    # What is kept is the encoder's; the model is whole.
    model = tilth.Segmenter.load(tmp_path / "run")
    assert sum(weights.numel() for weights in model.network.encoder.parameters()) > 1000
    assert sorted(file.name for file in (tmp_path / "kept").iterdir()) == ["features-00000.bin", "features.json", "features.lock"]


def test_a_training_that_was_stopped_goes_on_as_if_it_had_not_been(data, tmp_path, monkeypatch):
    kept = {"cache": "auto", "cache_folder": str(tmp_path / "kept"), "cache_dtype": "int8"}
    train(data, tmp_path / "whole", **kept)
    inner = Stepper.take

    def stop(stepper, step, micro_batches):
        if step == 3:
            raise KeyboardInterrupt
        return inner(stepper, step, micro_batches)

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "take", stop)
        with pytest.raises(KeyboardInterrupt):
            train(data, tmp_path / "run", **kept)
    train(data, tmp_path / "run", resume=True, **kept)
    assert told(tmp_path / "run") == told(tmp_path / "whole")


def test_a_command_that_was_stopped_while_it_made_features_may_be_given_again(data, tmp_path, monkeypatch):
    kept = {"cache": "disk", "cache_folder": str(tmp_path / "kept")}
    inner, made = FeatureCache._make, []

    def stop(cache, numbers, device):
        if len(made) == 4:
            raise KeyboardInterrupt
        made.append(numbers[0])
        return inner(cache, numbers, device)

    with monkeypatch.context() as patch:
        patch.setattr(FeatureCache, "_make", stop)
        with pytest.raises(KeyboardInterrupt):
            train(data, tmp_path / "run", loop={"steps": 1}, **kept)
    assert (tmp_path / "kept" / "features-00000.part").is_file()
    assert len(train(data, tmp_path / "run", loop={"steps": 1}, **kept)) == 1


@pytest.mark.slow
def test_two_processes_and_loader_processes_learn_as_one_does(server, data, tmp_path):
    one = train(data, tmp_path / "one", cache="disk", cache_folder=str(tmp_path / "kept"), loop={"denominator": "global"})
    recipe = yaml.safe_load((tmp_path / "one" / "recipe.yaml").read_text())
    recipe["settings"]["cache_folder"] = str(tmp_path / "other")
    recipe["loop"] |= {"devices": 2, "workers": 1}
    recipe["out"] = str(tmp_path / "two")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    run_two(server, ["finetune", "segment", "--config", str(tmp_path / "recipe.yaml")], tmp_path / "log")
    two = [line["loss"] for line in metrics(tmp_path / "two") if line["kind"] == "train"]
    assert two == pytest.approx(one, rel=1e-3)
    first, second = (np.fromfile(tmp_path / name / "features-00000.bin", np.uint8) for name in ("kept", "other"))
    assert np.array_equal(first, second)
    headers = [json.loads((tmp_path / name / "features.json").read_text()) for name in ("kept", "other")]
    assert headers[0] == headers[1]


@pytest.mark.slow
def test_both_types_reach_the_score_of_maps_that_are_made_anew(data, tmp_path):
    scores = {}
    for name, settings in {"online": {}, "fp16": {"cache_dtype": "fp16"}, "int8": {"cache_dtype": "int8"}}.items():
        folder = {"cache": "disk", "cache_folder": str(tmp_path / f"kept {name}")} if settings else {}
        train(data, tmp_path / name, loop={"steps": 60, "validate_every": 60}, **settings, **folder)
        scores[name] = [line["mIoU"] for line in metrics(tmp_path / name) if line["kind"] == "val"][-1]
    # The classes are patches of a few pixels in strong noise; other seeds of the head differ by five points and more.
    assert abs(scores["fp16"] - scores["online"]) < 0.005
    assert abs(scores["int8"] - scores["online"]) < 0.02
