"""What a training on diffusion features may start from: encoder folders, networks alone, published files, models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from support.training_sample import SCHEME, write_catalogs
from tilth.cli.main import main
from tilth.models.by_name import create
from tilth.models.config import NetworkConfig
from tilth.models.encoder_folder import save_encoder
from tilth.models.folder import save_network
from tilth.models.segmenter import Segmenter, build_segmenter
from tilth.models.weights.load import official_state_dict
from tilth.sensors import get_sensor

UNET = {"width": 8, "norm_groups": 4, "res_blocks": 1, "multipliers": [1, 2, 2, 4, 4]}
WORDS = "{width: 8, norm_groups: 4, res_blocks: 1, multipliers: [1, 2, 2, 4, 4]}"
PREDICTOR = "encoder.unet."


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Catalogs, and one noise predictor in three kinds of clothes."""
    folder = tmp_path_factory.mktemp("start")
    write_catalogs(folder, size=(48, 40))
    options = {"unet_options": UNET, "schedule": "sr3_cosine"}
    model = build_segmenter(NetworkConfig(name="ddpm_segmentor", options=options), get_sensor("rgb"), SCHEME, seed=7)
    save_encoder(model, folder / "encoder")
    network = create("ddpm_sr3_64", 3, **UNET)
    network.load_state_dict(model.network.encoder.unet.state_dict())
    save_network(network, folder / "network")
    torch.save(official_state_dict(network), folder / "published.pt")
    return folder


def finetune(place: Path, out: Path, start: Path, *settings: str) -> int:
    usual = ["weak.size=32", "loop.steps=1", "loop.batch_size=2", "loop.accelerator=cpu", "loop.transfer.frozen=always"]
    words = [
        "--labelled",
        str(place / "labelled.parquet"),
        "--out",
        str(out),
        "--initial-weights",
        str(start),
        "--validation-split",
        "null",
    ]
    return main(["finetune", "segment", *words, *usual, "network.name=ddpm_segmentor", *settings])


def predictor(folder: Path) -> dict[str, torch.Tensor]:
    return {name.partition(PREDICTOR)[2]: value for name, value in load_file(folder / "model.safetensors").items() if PREDICTOR in name}


def check_taken(place: Path, out: Path) -> dict[str, object]:
    """The noise predictor is the one that was started from; returns the options of the network."""
    found, wanted = predictor(out / "model"), predictor(place / "encoder")
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    return dict(Segmenter.load(out).config.network.options)


def test_an_encoder_folder_brings_its_weights_and_wishes_say_what_is_made_of_them(place, tmp_path, capsys):
    wishes = "network.options={times: [0, 100], head: uper, channels: 8, strides: [8, 4]}"
    assert finetune(place, tmp_path / "run", place / "encoder", wishes) == 0
    options = check_taken(place, tmp_path / "run")
    assert (options["times"], options["head"], options["strides"]) == ([0, 100], "uper", [8, 4])
    assert (options["schedule"], options["unet_options"]) == ("sr3_cosine", UNET)
    assert "not looked at" not in capsys.readouterr().err
    assert finetune(place, tmp_path / "other", place / "encoder", "network.options={noise_levels: [0.1], schedule: linear}") == 0
    options = check_taken(place, tmp_path / "other")
    assert options["schedule"] == "sr3_cosine"
    assert "times" not in options
    assert "network.options.schedule: not looked at" in capsys.readouterr().err


def test_a_network_alone_brings_its_weights_and_how_to_build_it(place, tmp_path):
    assert finetune(place, tmp_path / "run", place / "network", "network.options={times: [20]}") == 0
    options = check_taken(place, tmp_path / "run")
    assert (options["unet"], options["times"], options["schedule"]) == ("ddpm_sr3_64", [20], "sr3_linear")
    kept = json.loads((tmp_path / "run" / "initial_weights.json").read_text())
    assert kept["sha256"]


def test_a_published_file_fills_the_noise_predictor_that_is_asked_for(place, tmp_path, capsys):
    options = f"network.options.unet_options={WORDS}"
    assert finetune(place, tmp_path / "run", place / "published.pt", options) == 0
    check_taken(place, tmp_path / "run")
    assert finetune(place, tmp_path / "other", place / "published.pt") != 0
    said = capsys.readouterr().err
    assert "tensors have shapes of another network" in said
    assert not (tmp_path / "other").exists()


def test_a_published_file_becomes_an_encoder_folder(place, tmp_path):
    words = ["import-weights", str(place / "published.pt"), "--as", "ddpm_segmentor", "--out", str(tmp_path / "imported")]
    assert main([*words, f"options.unet_options={WORDS}", "--classes", "2"]) == 0
    assert finetune(place, tmp_path / "run", tmp_path / "imported") == 0
    check_taken(place, tmp_path / "run")


def test_a_model_is_learnt_on_with_and_a_network_of_another_kind_refused(place, tmp_path, capsys):
    model = build_segmenter(NetworkConfig(name="ddpm_segmentor", options={"unet_options": UNET}), get_sensor("rgb"), SCHEME)
    model.save(tmp_path / "model")
    assert finetune(place, tmp_path / "run", tmp_path / "model", "network.options={times: [0]}") == 0
    assert "network.options.times: not looked at" in capsys.readouterr().err
    save_network(create("cromss_mid2_resnet50", num_classes=2, encoder="resnet18"), tmp_path / "fusion")
    assert finetune(place, tmp_path / "other", tmp_path / "fusion") != 0
    assert "holds cromss_mid2_resnet50, and ddpm_segmentor starts from a noise predictor" in capsys.readouterr().err
