"""The recipes of the diffusion paper: every row is what its table says, from the publishers' folders to a score."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import tilth
from support.land_use_sets import plant_gid, plant_minifrance
from tilth.catalog.table import Catalog
from tilth.errors import ConfigError
from tilth.recipes.config import StageConfig, expand
from tilth.recipes.plan import prepare
from tilth.recipes.run import load_recipe

FINETUNE, BASELINES, PRETRAIN = (load_recipe(f"ddpm-{name}") for name in ("finetune", "baselines", "pretrain"))
ROWS, OTHERS = tuple(FINETUNE.choices["row"]), tuple(BASELINES.choices["row"])
SMALL = {"steps": 2, "batch": 2, "size": 64, "window": 64, "precision": "32", "accelerator": "cpu", "workers": 0, "validate_every": 2}
TINY = {"unet_options": {"width": 16, "norm_groups": 8}}


def stages(recipe: Any, row: str, **values: Any) -> list[StageConfig]:
    given = {"data": "data", "weights": "w.pth", "row": row} | values
    if recipe.choices["row"][row].get("weights", "") is None:
        del given["weights"]
    return expand(recipe, Path("out"), given)


@pytest.mark.parametrize("row", ROWS)
def test_rows_of_the_first_tables_are_maps_and_times_of_their_names(row):
    train, score = prepare(stages(FINETUNE, row), Path("out"))
    options = train.options.network.options
    table, _, name = row.partition("-")
    wanted: dict[str, Any] = {"side": "decoder", "strides": [16, 8, 4, 2], "times": [50, 100, 150], "head": "mlp"}
    if table == "table1":
        side, _, part = name.partition("-")
        wanted |= {"side": side} | ({"head": "uper"} if part == "uper" else {"strides": [int(part)]} if part else {})
    elif table == "table2":
        wanted["times"] = [int(time) for time in name.split("-")]
    assert {key: options[key] for key in wanted} == wanted
    assert train.options.network.name == "ddpm_segmentor"
    assert (train.options.initial_weights is None) == (row == "random")
    assert (score.options.split, score.options.over) == (("test",), ("paper12",))


@pytest.mark.parametrize("share", ["S", "M", "L"])
def test_every_share_is_trained_on_as_many_samples(share):
    """Section 10 of ddpm.md: 300, 15 and 6 passes, about 1.4 million samples each, of 388 images in 1521 tiles, 40 % of them."""
    tiles = 388 * 39 * 39 * 0.4
    percent, passes = {"S": (2, 300), "M": (40, 15), "L": (100, 6)}[share]
    for recipe in (FINETUNE, BASELINES):
        (train, _) = prepare(stages(recipe, "random", share=share), Path("out"))
        assert train.options.labelled_percent == percent
        assert train.options.loop.steps * train.options.loop.batch_size == pytest.approx(tiles * percent / 100 * passes, rel=1e-3)
        assert (train.options.loop.learning_rate, train.options.loop.weight_decay) == (2e-4, 1e-4)
        schedule = train.options.loop.schedule
        assert (schedule.kind, schedule.warmup_steps, schedule.final_share) == ("cosine", 0, 0)
        assert (train.options.weak.scale_min, train.options.weak.scale_max, train.options.weak.rot90) == (1, 1, True)


@pytest.mark.parametrize("mode", ["frozen", "tuned"])
def test_mode_says_whether_the_encoder_learns(mode):
    for recipe in (FINETUNE, BASELINES):
        transfer = prepare(stages(recipe, "random", mode=mode), Path("out"))[0].options.loop.transfer
        assert transfer.frozen == {"frozen": "always", "tuned": "never"}[mode]


@pytest.mark.parametrize("row", OTHERS)
@pytest.mark.parametrize("target", ["minifrance", "gid-15"])
def test_options_of_every_baseline_validate_and_its_network_is_known(row, target):
    train, score = prepare(stages(BASELINES, row, target=target), Path("out"))
    network = train.options.network
    assert network.pretrained == (row in {"imagenet", "setr", "segformer"})
    assert (train.options.initial_weights is None) == (row not in {"mae", "scalemae", "ma3e"})
    assert score.options.over == (("paper12",) if target == "minifrance" else ())
    from tilth.models.networks import resolve

    if network.name is None:
        assert resolve(network).encoder


def test_pretraining_is_as_long_as_the_paper_says():
    """Section 6: 200,000 steps, of which the last tenth on imagery of the target; AdamW to 1e-5 in 10,000 steps, then constant."""
    (train,) = prepare(expand(PRETRAIN, Path("out"), {"data": "data"}), Path("out"))
    loop = train.options.loop
    assert (loop.steps, loop.learning_rate, loop.weight_decay, loop.betas) == (200_000, 1e-5, 0.01, (0.9, 0.999))
    assert (loop.schedule.kind, loop.schedule.warmup(loop.steps), loop.clip_norm) == ("constant", 10_000, 1.0)
    assert loop.learning_rate * loop.schedule.warmup_from == pytest.approx(1e-6)
    assert train.options.settings["target_share"] == 0.1
    assert loop.average_decay == 0.9999
    assert train.options.weak.size == 256


def test_rows_without_weights_take_none():
    with pytest.raises(ConfigError, match=r"values.row=random means without weights, and values.weights=w.pth gives some"):
        expand(FINETUNE, Path("out"), {"data": "data", "row": "random", "weights": "w.pth"})


def test_page_names_every_row():
    page = (Path(__file__).parents[2] / "docs" / "ddpm-paper.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z0-9-]+)`", page))
    assert {*ROWS, *OTHERS, *PRETRAIN.choices["row"]} <= named
    assert {name for name in named if name.startswith("table")} <= set(ROWS)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("ddpm")
    plant_minifrance(folder / "minifrance")
    plant_gid(folder / "gid-15", 15, images=4)
    plant_gid(folder / "gid-5", 5, images=6)
    values = {"minifrance": str(folder / "minifrance"), "gid_15": str(folder / "gid-15"), "gid_5": str(folder / "gid-5")}
    tilth.run(recipe="ddpm-data", out=folder / "data", values=values)
    return folder / "data"


def test_data_of_all_variants_follow_from_the_publishers_folders(data):
    for name in ("minifrance-tile", "minifrance-image", "minifrance-city", "gid-15-tile", "gid-15-image"):
        catalog = Catalog.open(data / f"{name}.parquet")
        assert {"train", "val", "test"} <= set(catalog.counts("split"))
        assert (data / f"{name}.csv").is_file()
        assert len(catalog) == {"m": 8, "g": 8}[name[0]]
    assert Catalog.open(data / "gid-pool.parquet").counts("split") == {"pool": 4}
    assert Catalog.open(data / "minifrance-pool.parquet").counts("split") == {"pool": 2}


@pytest.mark.slow
@pytest.mark.parametrize("row", ["table1-decoder", "table1-encoder-16", "table2-0"])
def test_row_runs_from_a_pretraining_to_a_score(row, data, tmp_path):
    network = {"name": "ddpm_segmentor", "options": {"unet": "ddpm_sr3_64", **TINY}}
    pre = SMALL | {"data": str(data), "network": network, "row": "two-step", "steps": 4, "preview_every": 0}
    tilth.run(recipe="ddpm-pretrain", out=tmp_path / "pre", values={key: pre[key] for key in pre if key in PRETRAIN.values})
    weights = str(tmp_path / "pre" / "runs" / "two-step-minifrance")
    values = SMALL | {"data": str(data), "weights": weights, "row": row, "share": "L"}
    tilth.run(recipe="ddpm-finetune", out=tmp_path / "out", values=values)
    scores = json.loads((tmp_path / "out" / "scores" / f"{row}-minifrance-L-frozen-0" / "metrics.json").read_text())
    assert scores["group"]["name"] == "paper12"


@pytest.mark.slow
def test_baseline_runs_to_a_score(data, tmp_path):
    network = {"encoder": "test_convnext", "decoder": "segformer", "options": {"decoder_segmentation_channels": 16}}
    values = SMALL | {"data": str(data), "row": "segformer", "share": "L", "target": "gid-15", "network": network}
    tilth.run(recipe="ddpm-baselines", out=tmp_path / "out", values=values)
    scores = json.loads((tmp_path / "out" / "scores" / "segformer-gid-15-L-tuned-0" / "metrics.json").read_text())
    assert (len(scores["classes"]), scores["group"]) == (15, None)
