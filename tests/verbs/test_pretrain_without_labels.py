"""Pre-training without labels: which tiles it sees, what it leaves, what goes on from there, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import tilth
from support.tiny_farm import plant, tree
from support.wrong_calls import Case, refuse
from tilth.catalog.table import Catalog
from tilth.cli.main import main
from tilth.errors import CatalogError, ConfigError, SensorMismatchError
from tilth.imagery.write import write_raster
from tilth.models.encoder_folder import load_encoder
from tilth.verbs.console import Console
from tilth.verbs.train_data import choose_unlabelled
from tilth.verbs.train_options import PretrainOptions

NETWORK = {
    "name": "upernet_vit_b",
    "image_size": 32,
    "options": {"width": 16, "depth": 4, "heads": 2, "decoder_channels": 8, "patch": 8},
}
TRAINING = {
    "weak": {"size": 32, "scale_min": 1.0, "scale_max": 1.5},
    "loop": {"steps": 2, "batch_size": 2, "log_every": 1, "accelerator": "cpu"},
    "inference": {"window": 64, "overlap": 0},
}
SETTINGS = {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}
MAE = TRAINING | {"method": "mae", "network": NETWORK, "settings": SETTINGS}


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    root = plant(tmp_path_factory.mktemp("farm"))
    tilth.catalog_build(inputs=[root / "land" / "images"], layout="plain", sensor="rgb", window_px=64, out=root / "plain.parquet")
    plain = Catalog.open(root / "plain.parquet")
    plain.with_columns(tile_id=[f"other/{name}" for name in plain.column("tile_id")]).save(root / "plain.parquet")
    tilth.pretrain(unlabelled=[root / "catalog.parquet"], out=root / "mae", **MAE)
    return root


class Heard(Console):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def chosen(*pool: Path, **options):
    parsed = PretrainOptions(method="mae", unlabelled=pool, out="x", **options)
    return choose_unlabelled(parsed, parsed.unlabelled, parsed.unlabelled_split)


def names(catalog: Catalog) -> set[str]:
    return set(catalog.column("tile_id"))


def test_it_learns_from_the_training_split_and_validates_on_the_next(farm):
    catalog = Catalog.open(farm / "catalog.parquet")
    tiles = chosen(farm / "catalog.parquet")
    assert tiles.labelled is None
    assert names(tiles.pool) == names(catalog.filter(split="train"))
    assert names(tiles.validation) == names(catalog.filter(split="val"))


def test_catalog_without_splits_is_used_whole_and_not_validated_on(farm):
    tiles = chosen(farm / "plain.parquet")
    assert len(tiles.pool) == len(Catalog.open(farm / "plain.parquet"))
    assert tiles.validation is None


def test_target_is_chosen_like_the_pool_and_validated_on_alone(farm, tmp_path):
    everything = Catalog.open(farm / "plain.parquet")
    first, rest = everything.take(np.arange(4)), everything.take(np.arange(4, len(everything)))
    target = first.with_columns(split=["train", "train", "val", "test"]).save(tmp_path / "target.parquet")
    archive = rest.with_columns(split=["train"] * (len(rest) - 1) + ["val"]).save(tmp_path / "archive.parquet")
    whole = everything.with_columns(tile_id=[f"again/{name}" for name in names_in_order(everything)]).save(tmp_path / "whole.parquet")
    ids = names_in_order(first)
    tiles = choose_unlabelled(PretrainOptions(method="ddpm", out="x"), (archive,), ("train",), (target,))
    assert names(tiles.target) == set(ids[:2])
    assert names(tiles.validation) == {ids[2]}
    assert names(tiles.pool) == set(names_in_order(rest)[:-1])
    # What the target keeps for tests does not come in by the pool.
    tiles = choose_unlabelled(PretrainOptions(method="ddpm", out="x"), (whole,), ("train",), (target,))
    assert names(tiles.pool) == {f"again/{name}" for name in names_in_order(everything) if name not in ids[2:]}
    # A target without tiles to validate on leaves those of the pool.
    train = first.with_columns(split=["train"] * 4).save(tmp_path / "train.parquet")
    tiles = choose_unlabelled(PretrainOptions(method="ddpm", out="x"), (archive,), ("train",), (train,))
    assert names(tiles.validation) == {names_in_order(rest)[-1]}


def names_in_order(catalog: Catalog) -> list[str]:
    return list(catalog.column("tile_id"))


def test_what_one_catalog_keeps_for_tests_does_not_come_in_by_another(farm):
    catalog = Catalog.open(farm / "catalog.parquet")
    held = catalog.filter(split={"val", "test"})
    tiles = chosen(farm / "plain.parquet", farm / "catalog.parquet")
    assert tiles.left_out == len(held)
    closed = {(tile.image, tile.window) for tile in held.tiles()}
    assert not closed & {(tile.image, tile.window) for tile in tiles.pool.tiles()}
    everything = chosen(farm / "catalog.parquet", unlabelled_split=("train", "val", "test"))
    assert len(everything.pool) == len(catalog)
    assert everything.validation is None


def test_run_leaves_an_encoder_with_its_sensor(farm):
    config = json.loads((farm / "mae" / "model" / "config.json").read_text())
    assert config["model_type"] == "tilth-encoder"
    assert "scheme" not in config
    assert load_encoder(farm / "mae").config.sensor == tilth.get_sensor("rgb")
    streams = json.loads((farm / "mae" / "data.json").read_text())["streams"]
    assert {name: set(stream["splits"]) for name, stream in streams.items()} == {"unlabelled": {"train"}, "validation": {"val"}}


def test_finished_run_is_not_done_again(farm):
    before = {name: (farm / "mae" / name).read_bytes() for name in tree(farm / "mae") if (farm / "mae" / name).is_file()}
    result = tilth.pretrain(unlabelled=[farm / "catalog.parquet"], out=farm / "mae", resume=True, **MAE)
    assert "finished before" in result.summary[0]
    assert {name: (farm / "mae" / name).read_bytes() for name in before} == before


@pytest.mark.parametrize("verb", ["finetune", "s4p", "mae"])
def test_other_trainings_go_on_from_the_encoder_with_all_else_fresh(farm, tmp_path, verb):
    catalog, console = farm / "catalog.parquet", Heard()
    still = TRAINING | {"loop": TRAINING["loop"] | {"learning_rate": 1e-12, "weight_decay": 0.0, "seed": 5, "export": "last"}}
    common = {"initial_weights": farm / "mae", "out": tmp_path / "run", "console": console} | still
    if verb == "finetune":
        tilth.finetune(task="segment", labelled=[catalog], **common)
    elif verb == "s4p":
        tilth.pretrain(method="s4p", labelled=[catalog], unlabelled=[catalog], labelled_tiles=4, **common)
    else:
        tilth.pretrain(method="mae", unlabelled=[catalog], settings=SETTINGS, **common)
    said = [line for line in console.lines if "decoder and class layer start fresh" in line]
    assert len(said) == (verb != "mae")
    prefix = "" if verb == "mae" else "network."
    found = load_file(tmp_path / "run" / "model" / "model.safetensors")
    for name, value in load_encoder(farm / "mae").tensors.items():
        assert torch.allclose(found[prefix + name], value, atol=1e-9), name
    if verb == "finetune":
        tilth.finetune(task="segment", labelled=[catalog], out=tmp_path / "plain", network=NETWORK, **still)
        fresh = load_file(tmp_path / "plain" / "model" / "model.safetensors")
        others = [name for name in found if name.startswith(("network.decoder", "network.segm", "network.encoder.pyramid"))]
        assert others
        assert all(torch.allclose(found[name], fresh[name], atol=1e-4) for name in others if "running" not in name)


def test_it_starts_from_a_model_of_classes_too(farm, tmp_path):
    catalog = farm / "catalog.parquet"
    tilth.finetune(task="segment", labelled=[catalog], out=tmp_path / "classes", network=NETWORK, **TRAINING)
    still = MAE | {"loop": TRAINING["loop"] | {"learning_rate": 1e-12, "weight_decay": 0.0}}
    tilth.pretrain(unlabelled=[catalog], out=tmp_path / "run", initial_weights=tmp_path / "classes", **still)
    theirs = load_file(tmp_path / "classes" / "model" / "model.safetensors")
    for name, value in load_encoder(tmp_path / "run").tensors.items():
        assert torch.allclose(theirs[f"network.{name}"], value, atol=1e-9), name


def test_encoder_can_be_imported_and_stays_an_encoder(farm, tmp_path):
    result = tilth.import_weights(
        file=str(farm / "mae"), as_="upernet_vit_b", out=tmp_path / "model", image_size=48, options=NETWORK["options"]
    )
    assert result.values["verdict"] != "complete"
    assert (
        load_encoder(tmp_path / "model")
        .tensors["encoder.blocks.0.norm1.weight"]
        .equal(load_encoder(farm / "mae").tensors["encoder.blocks.0.norm1.weight"])
    )


def test_bands_of_two_sensors_and_pixels_without_data(tmp_path):
    tilth.landscapes(out=tmp_path / "land", scenes=3, size=64, sensor="s1+s2_l2a", labelled=0)
    files = sorted((tmp_path / "land" / "unlabelled").glob("*.tif"))
    assert files
    empty = np.full((14, 64, 64), -9999, np.float32)
    place = {"crs": "EPSG:32632", "transform": (10.0, 0.0, 5e5, 0.0, -10.0, 5e6), "nodata": -9999.0}
    write_raster(tmp_path / "land" / "unlabelled" / "empty.tif", empty, **place)
    tilth.catalog_build(inputs=[tmp_path / "land" / "unlabelled"], sensor="s1+s2_l2a", out=tmp_path / "pool.parquet")
    options = MAE | {"loop": TRAINING["loop"] | {"batch_size": 1, "steps": 4}}
    tilth.pretrain(unlabelled=[tmp_path / "pool.parquet"], out=tmp_path / "run", **options)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss_masked"] for line in lines]
    assert losses.count(0.0) == 1
    assert all(np.isfinite(losses))
    assert load_encoder(tmp_path / "run").tensors["encoder.patch_embedding.weight"].shape[1] == 14


def test_encoder_of_another_sensor_is_refused(farm, tmp_path):
    tilth.landscapes(out=tmp_path / "land", scenes=2, size=64, sensor="s1")
    tilth.catalog_build(inputs=[tmp_path / "land" / "images"], layout="plain", sensor="s1", out=tmp_path / "s1.parquet")
    with pytest.raises(SensorMismatchError, match="a model for sensor 'rgb', the catalog has 's1'"):
        tilth.pretrain(unlabelled=[tmp_path / "s1.parquet"], initial_weights=farm / "mae", out=tmp_path / "run", **MAE)
    with pytest.raises((SensorMismatchError, CatalogError)):
        chosen(tmp_path / "s1.parquet", farm / "catalog.parquet").pool.sensor()
    assert not (tmp_path / "run").exists()


def test_split_that_is_learnt_from_is_not_validated_on(farm):
    with pytest.raises(ConfigError, match="both learnt from and validated on"):
        chosen(farm / "catalog.parquet", validation_split="train")


POOL = ["--unlabelled", "{farm}/catalog.parquet", "--out", "{out}/run"]
SHAPE = "network.options={width: 16, depth: 4, heads: 2, decoder_channels: 8}"
SMALL = ["network.name=upernet_vit_b", SHAPE, "weak.size=32", "loop.steps=1", "loop.batch_size=2", "loop.accelerator=cpu"]
CASES: dict[str, Case] = {
    "nothing to learn from": (["pretrain", "mae", "--out", "{out}/run"], 2, ("missing --unlabelled", "'mae'")),
    "labels": (["pretrain", "mae", "--labelled", "{farm}/catalog.parquet", *POOL], 2, ("learns without labels", "--unlabelled")),
    "some of the labels": (["pretrain", "mae", "--labelled-tiles", "3", *POOL], 2, ("learns without labels", "labelled_tiles")),
    "finetune": (
        ["finetune", "segment", "--method", "mae", "--labelled", "{farm}/catalog.parquet", "--out", "{out}/run"],
        2,
        ("use tilth pretrain mae",),
    ),
    "target of a method without an end": (["pretrain", "mae", *POOL, "--target", "{farm}/plain.parquet"], 2, ("--target", "leave it out")),
    "s4p without labels": (["pretrain", "s4p", *POOL], 2, ("missing --labelled", "'s4p'")),
    "network without patches": (["pretrain", "mae", *POOL], 2, ("resnet18 + unet cannot leave patches out", "upernet_vit_b")),
    "crop of one patch": (["pretrain", "mae", *POOL, *SMALL, "weak.size=16"], 2, ("too small to hide", "enlarge weak.size")),
    "average": (["pretrain", "mae", *POOL, *SMALL, "loop.average_decay=0.9"], 2, ("loop.average_decay",)),
    "mistyped setting": (["pretrain", "mae", *POOL, *SMALL, "settings.mask_ration=0.5"], 2, ("did you mean 'mask_ratio'?",)),
    "all hidden": (["pretrain", "mae", *POOL, *SMALL, "settings.mask_ratio=1"], 2, ("mask_ratio: expected less than 1",)),
    "decoder that does not fit": (["pretrain", "mae", *POOL, *SMALL, "settings.decoder_width=30"], 2, ("multiple of 4",)),
    "no such split": (["pretrain", "mae", *POOL, *SMALL, "--unlabelled-split", "no"], 1, ("split no", "splits there")),
    "no such validation split": (["pretrain", "mae", *POOL, *SMALL, "--validation-split", "vla"], 1, ("'vla'", "validation_split=null")),
    "plateau without validation": (
        ["pretrain", "mae", *POOL, *SMALL, "validation_split=null", "loop.schedule.kind=plateau"],
        2,
        ("waits for validation scores",),
    ),
    "map by an encoder": (
        ["predict", "{farm}/mae", "{farm}/land/images/scene_000.tif", "--out", "{out}/x.tif"],
        1,
        ("an encoder alone", "tilth finetune segment"),
    ),
    "scores of an encoder": (["evaluate", "{farm}/mae", "{farm}/catalog.parquet", "--out", "{out}/x"], 1, ("an encoder alone",)),
}


@pytest.mark.parametrize("name", CASES)
def test_wrong_call_is_one_line(farm, tmp_path, capsys, name):
    refuse(CASES[name], farm, tmp_path, main, capsys.readouterr)
