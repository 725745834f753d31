"""The recipes of CromSS with the paper's values, and small: pre-training and transfer of every kind of row."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch

import tilth
from tilth.catalog.table import Catalog
from tilth.classes import ClassScheme, LandClass
from tilth.errors import ConfigError
from tilth.recipes.config import StageConfig, expand
from tilth.recipes.plan import prepare
from tilth.recipes.run import load_recipe
from tilth.sensors import get_sensor

TRANSFER = load_recipe("cromss-transfer")
ROWS = tuple(TRANSFER.choices["row"])
MODES = ("frozen", "finetuned")
SMALL = {"steps": 2, "batch": 2, "devices": 1, "size": 32, "window": 32, "precision": "32", "accelerator": "cpu", "workers": 0, "pass": 1}
TARGETS = {"dfc2020": ("pspnet", 986, 256), "dw": ("deeplabv3plus", 3574, 496), "osm": ("fpn", 1375, 480)}
VITS = {"satmae": ("cromss_upernet_satmae_l", 96), "dofa": ("cromss_upernet_dofa_l", 224)}


def transfer(row: str, mode: str = "frozen", **values: Any) -> list[StageConfig]:
    given = {"data": "data", "weights": "w.pth", "row": row, "mode": mode} | values
    if "random" in row:
        del given["weights"]
    return expand(TRANSFER, Path("out"), given)


@pytest.mark.parametrize("row", ROWS)
def test_every_row_and_column_is_what_its_table_says(row):
    """Section 7.1 of cromss.md: decoder, crop, 50 passes of batches of 32, Adam, cosine to 1e-5 in 40 passes, CE and Dice."""
    decoder, images, size = TARGETS[row.partition("-")[0]]
    vit = next((found for kind, found in VITS.items() if kind in row), None)
    for mode in MODES:
        train, score = prepare(transfer(row, mode), Path("out"))
        options, loop = train.options, train.options.loop
        assert options.network.name == (vit[0] if vit else f"cromss_{decoder}_resnet50")
        assert options.weak.size == (vit[1] if vit else size)
        assert (options.weak.scale_min, options.weak.scale_max, options.weak.rotation) == (1, 1, 0.2)
        assert (loop.steps, loop.batch_size) == (50 * (images // 32), 32)
        assert (loop.optimiser, loop.learning_rate, loop.weight_decay, loop.no_decay) == ("adam", 5e-4, 1e-8, "nothing")
        assert loop.schedule.hold_steps == images // 32
        assert loop.learning_rate * loop.schedule.final_share == pytest.approx(1e-5)
        assert loop.schedule.decay_share == 40 / 50
        assert loop.transfer.frozen == {"frozen": "always", "finetuned": "never"}[mode]
        assert loop.transfer.frozen_bn == "track"
        assert options.settings == {"terms": "cd"}
        assert (options.initial_weights is None) == ("random" in row)
        assert (loop.export, options.validation_split) == ("last", None)
        assert score.options.split == ("test",)
        assert (score.options.published, score.options.whole_batches) == (True, 1)


def test_rows_are_those_of_the_three_tables():
    assert {name: sum(row.startswith(f"{name}-") for row in ROWS) for name in TARGETS} == {"dfc2020": 16, "dw": 16, "osm": 15}
    takes = {row: stage.options["take"] for row in ROWS for stage in transfer(row)[:1]}
    for row, take in takes.items():
        sensor = row.split("-")[1]
        wanted = {"moco": "mocoq", "decur": f"decur{sensor}", "dino": "dinot", "cromss": f"{sensor}:encoder"}
        assert take == wanted.get(row.split("-")[2]), row


def test_frozen_at_first_asks_for_its_steps():
    with pytest.raises(ConfigError, match="frozen_steps"):
        transfer("dw-s1-moco", "first")
    train, _ = prepare(transfer("dw-s1-moco", "first", frozen_steps=100), Path("out"))
    assert (train.options.loop.transfer.frozen, train.options.loop.transfer.frozen_steps) == ("first", 100)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"row": "dw-s1-random", "weights": "w.pth"}, "values.row=dw-s1-random means without weights, and values.weights=w.pth gives some"),
        ({"mode": "frozen", "frozen_steps": 9}, "values.mode=frozen means without frozen_steps"),
    ],
)
def test_what_contradicts_a_row_is_refused_in_one_line(given, said):
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        expand(TRANSFER, Path("out"), {"data": "data"} | given)
    assert "\n" not in str(caught.value)


def pretraining(**values: Any) -> Any:
    (task,) = prepare(expand(load_recipe("cromss-pretrain"), Path("out"), {"data": "data"} | values), Path("out"))
    return task


def test_pretraining_has_the_recommended_numbers():
    """Section 4.11 of cromss.md."""
    from tilth.methods.base import choose_method

    options = pretraining().options
    method, settings = choose_method("cromss", options.settings)
    config = method.Config.parse(settings)
    assert (config.selection, config.selected_share, config.ramp, config.ramp_passes, config.confidence) == ("class", 0.5, "exp", 80, "ce")
    assert (config.prior, config.prior_share, config.uniform_share, config.terms, config.consistency) == ("ts", 0.15, 0.05, "cd", "ce")
    loop = options.loop
    assert (loop.optimiser, loop.learning_rate, loop.weight_decay, loop.betas) == ("adam", 0.005, 1e-8, (0.9, 0.999))
    schedule = loop.schedule
    assert (schedule.kind, schedule.watch, schedule.factor, schedule.patience, schedule.threshold) == ("plateau", "loss", 0.5, 31, 1e-4)
    assert (loop.batch_size, loop.devices, loop.steps, loop.validate_every, loop.seed) == (1024, 8, 20_000, 100, 42)
    assert (options.network.name, options.network.fusion.kind) == ("cromss_unet_resnet50", "mid")
    assert [str(path) for path in options.labelled] == ["data/nol-13/catalog.parquet"]


def test_baselines_and_the_released_program_are_choices():
    assert [str(path) for path in pretraining(row="late-9").options.labelled] == ["data/nol-9/catalog.parquet"]
    plain = pretraining(method="s12", row="late-9").options
    assert (plain.settings["selection"], plain.settings["prior_share"], plain.settings["uniform_share"]) == ("off", 0, 0)
    alone = pretraining(method="s2", row="mid-9").options
    assert (alone.network.fusion.use, alone.loop.schedule.watch) == (("s2_l1c_9_8bit",), "score")
    official = pretraining(preset="official_program").options.settings
    assert (official["ranked_over"], official["rare_class"]) == ("process", "drop")


def plant(folder: Path, sensor: str, split: dict[str, int], seasons: int = 1) -> Path:
    """Tiles of 40 pixels in a sensor's stored numbers, in patches of three classes, and their catalog."""
    folder.mkdir(parents=True)
    found = get_sensor(sensor)
    scheme = ClassScheme(name="three", classes=tuple(LandClass(name=name, colour=(place, 0, 0)) for place, name in enumerate("abc")))
    rows = []
    for name, count in split.items():
        for index in range(count * seasons):
            draw = np.random.default_rng([index, len(name)])
            mask = draw.integers(0, 3, (5, 5)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
            middle = 128 if found.dtype == "uint8" else 1000
            image = (middle + 30.0 * mask[None] + draw.normal(0, 10, (len(found), 40, 40))).astype(found.dtype)
            for file, data in ((f"{name}{index}.tif", image), (f"{name}{index}_label.tif", mask[None])):
                with rasterio.open(
                    folder / file, "w", driver="GTiff", width=40, height=40, count=len(data), dtype=data.dtype, crs="EPSG:32632"
                ) as raster:
                    raster.write(data)
            row = {"tile_id": f"{name}/{index}", "image": str(folder / f"{name}{index}.tif"), "window": (0, 0, 40, 40), "sensor": sensor}
            row |= {"label": str(folder / f"{name}{index}_label.tif"), "label_kind": "noisy", "scheme": scheme.name, "split": name}
            if seasons > 1:
                row |= {"location_id": f"{name}{index // seasons}"}
            rows.append(row)
    return Catalog.from_rows(rows, {sensor: found}, {scheme.name: scheme}).save(folder / "catalog.parquet")


@pytest.mark.slow
def test_pretrained_encoder_goes_through_both_columns_of_a_table(tmp_path):
    torch.set_num_threads(1)
    plant(tmp_path / "data" / "nol-9", "s1_8bit+s2_l1c_9_8bit", {"train": 2, "val": 1}, seasons=2)
    plant(tmp_path / "data" / "dw-s2-9", "s2_l1c_9_quantised", {"train": 2, "test": 3})
    pre = {"row": "mid-9", "data": str(tmp_path / "data"), "encoder": "resnet18", "ramp_passes": 1}
    tilth.run(recipe="cromss-pretrain", out=tmp_path / "pre", values=SMALL | pre)
    for mode in MODES:
        given = {
            "row": "dw-s2-cromss-mid-9",
            "mode": mode,
            "data": str(tmp_path / "data"),
            "weights": str(tmp_path / "pre/runs/cromss-mid-9"),
        }
        network = {"name": "cromss_deeplabv3plus_resnet50", "options": {"encoder": "resnet18"}}
        tilth.run(recipe="cromss-transfer", out=tmp_path / "out", values=SMALL | given | {"network": network, "whole_batches": 2})
        scores = json.loads((tmp_path / "out" / "scores" / f"{mode}-dw-s2-cromss-mid-9" / "metrics.json").read_text())
        assert set(scores["published"]) == {"OA", "AA (published)", "mIoU", "mF1", "mPrecision", "mRecall"}
        assert len(scores["tiles"]) == 2
