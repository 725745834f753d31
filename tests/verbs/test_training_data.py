"""Which tiles a training sees, and which weights it starts from."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import tilth
from support.tiny_farm import TRAINING, grow, plant, tree
from tilth.catalog.table import Catalog
from tilth.cli.main import main
from tilth.errors import CatalogError, ConfigError, RunError, SensorMismatchError, TilthError
from tilth.imagery.write import write_raster
from tilth.verbs.console import Console
from tilth.verbs.train_data import TrainingTiles, choose_tiles
from tilth.verbs.train_options import FinetuneOptions, PretrainOptions


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    root = plant(tmp_path_factory.mktemp("farm"))
    grow(root)
    return root


def learnt_from(farm: Path, **options) -> set[str]:
    tiles = choose_tiles(FinetuneOptions(task="segment", labelled=(farm / "catalog.parquet",), out=farm / "x", **options))
    return set(tiles.labelled.column("tile_id"))


def with_pool(farm: Path, *pool: Path, **options) -> TrainingTiles:
    given = {"method": "s4p", "labelled": (farm / "catalog.parquet",), "unlabelled": pool, "out": farm / "x", "labelled_tiles": 4} | options
    parsed = PretrainOptions(**given)
    return choose_tiles(parsed, parsed.unlabelled, parsed.unlabelled_split)


def test_labelled_subsets_lie_inside_each_other(farm):
    sets = [learnt_from(farm, labelled_tiles=count) for count in range(1, 11)]
    assert [len(found) for found in sets] == list(range(1, 11))
    assert all(small < large for small, large in itertools.pairwise(sets))
    assert learnt_from(farm, labelled_percent=50) == sets[4]
    assert learnt_from(farm) == sets[9]


def test_pool_holds_neither_the_labelled_tiles_nor_those_kept_for_scores(farm):
    catalog = Catalog.open(farm / "catalog.parquet")
    tiles = with_pool(farm, farm / "catalog.parquet")
    found = set(tiles.pool.column("tile_id"))
    assert found == set(catalog.filter(split="train").column("tile_id")) - set(tiles.labelled.column("tile_id"))
    assert set(tiles.validation.column("tile_id")) == set(catalog.filter(split="val").column("tile_id"))
    assert tiles.left_out == 4


def test_pool_of_the_same_files_under_other_names_shows_no_labelled_or_held_out_pixel(farm, tmp_path):
    """A plain catalog over the folder that the labelled catalog is made of, in windows of another size."""
    for size in (64, 32, 128):
        tilth.catalog_build(
            inputs=[farm / "land" / "images"], layout="plain", sensor="rgb", window_px=size, out=tmp_path / f"{size}.parquet"
        )
        plain = Catalog.open(tmp_path / f"{size}.parquet")
        plain.with_columns(tile_id=[f"other/{name}" for name in plain.column("tile_id")]).save(tmp_path / f"{size}.parquet")
    catalog = Catalog.open(farm / "catalog.parquet")
    tiles = with_pool(farm, tmp_path / "32.parquet")
    rest = catalog.filter(tile_id=set(catalog.filter(split="train").column("tile_id")) - set(tiles.labelled.column("tile_id")))
    assert len(tiles.pool) == 4 * len(rest)
    assert tiles.left_out == 4 * (len(catalog) - len(rest))
    covered = {(tile.image, tile.window.column // 64, tile.window.row // 64) for tile in tiles.pool.tiles()}
    assert covered == {(tile.image, tile.window.column // 64, tile.window.row // 64) for tile in rest.tiles()}
    # Splits that are asked for are the caller's to give.
    asked = with_pool(farm, tmp_path / "32.parquet", unlabelled_split=("train", "val", "test"))
    assert asked.left_out == 4 * 4
    with pytest.raises(CatalogError, match="no tile left for the unlabelled pool"):
        with_pool(farm, tmp_path / "128.parquet", labelled_tiles=None)


def test_console_tells_how_many_tiles_were_left_out_and_of_tiles_too_small_for_a_crop(farm, tmp_path):
    console, options = Heard(), TRAINING | {"weak": {"size": 128, "scale_min": 1.0, "scale_max": 1.5}}
    catalog = [farm / "catalog.parquet"]
    tilth.pretrain(method="s4p", labelled=catalog, unlabelled=catalog, labelled_tiles=4, out=tmp_path / "run", console=console, **options)
    assert "unlabelled pool: 6 tiles; 4 left out, which show labelled tiles or tiles of other splits" in console.lines
    said = [line for line in console.lines if "padding" in line]
    assert len(said) == 1
    assert "largest tile has 64 pixels a side, 96 at most when resized, and weak.size is 128" in said[0]
    console = Heard()
    tilth.finetune(task="segment", labelled=catalog, out=tmp_path / "other", console=console, **TRAINING)
    assert not any("padding" in line or "pool" in line for line in console.lines)


def test_number_of_labelled_tiles_counts_over_all_catalogs(farm, tmp_path):
    other = Catalog.open(farm / "catalog.parquet")
    other.with_columns(tile_id=[f"other/{name}" for name in other.column("tile_id")]).save(tmp_path / "other.parquet")
    both = (farm / "catalog.parquet", tmp_path / "other.parquet")
    found = choose_tiles(FinetuneOptions(task="segment", labelled=both, out=farm / "x", labelled_tiles=5)).labelled
    assert len(found) == 5
    assert sum(name.startswith("other/") for name in found.column("tile_id")) in (2, 3)


def test_tiles_set_aside_between_splits_stay_out_of_the_pool(farm, tmp_path):
    catalog = Catalog.open(farm / "catalog.parquet")
    splits = catalog.column("split")
    aside = splits.index("train", len(splits) // 2)
    catalog.with_columns(split=[None if place == aside else name for place, name in enumerate(splits)]).save(tmp_path / "aside.parquet")
    catalog.with_columns(split=[None] * len(catalog)).save(tmp_path / "whole.parquet")
    tilth.landscapes(out=tmp_path / "land", scenes=1, first=9, size=64)
    tilth.catalog_build(
        inputs=[tmp_path / "land" / "images"], labels=tmp_path / "land" / "masks", sensor="rgb", split="train", out=tmp_path / "l.parquet"
    )
    alone = {"labelled": (tmp_path / "l.parquet",), "labelled_tiles": None}
    found = with_pool(farm, tmp_path / "aside.parquet", **alone).pool
    assert catalog.column("tile_id")[aside] not in found.column("tile_id")
    assert len(with_pool(farm, tmp_path / "whole.parquet", **alone).pool) == len(catalog)
    # Nor do they come in by another catalog of the same files.
    held = with_pool(farm, tmp_path / "whole.parquet", labelled=(tmp_path / "aside.parquet",)).pool
    assert catalog.column("tile_id")[aside] not in held.column("tile_id")


def test_run_says_what_it_was_trained_on(farm):
    place = farm / "with-pool"
    tilth.pretrain(
        method="s4p", labelled=[farm / "catalog.parquet"], unlabelled=[farm / "catalog.parquet"], labelled_tiles=4, out=place, **TRAINING
    )
    streams = json.loads((place / "data.json").read_text())["streams"]
    assert streams["labelled"]["tiles"] == 4
    assert streams["validation"]["splits"] == {"val": 3}
    assert all(stream["splits"] == {"train": 6} for name, stream in streams.items() if "unlabelled" in name)


def test_training_starts_from_the_given_weights(farm):
    still = TRAINING | {"loop": TRAINING["loop"] | {"learning_rate": 1e-12, "weight_decay": 0.0}}
    started = farm / "started"
    tilth.finetune(task="segment", labelled=[farm / "catalog.parquet"], out=started, initial_weights=farm / "run", **still)
    before, after = (load_file(folder / "model" / "model.safetensors") for folder in (farm / "run", started))
    fresh = farm / "fresh"
    tilth.finetune(task="segment", labelled=[farm / "catalog.parquet"], out=fresh, **(still | {"loop": still["loop"] | {"seed": 5}}))
    other = load_file(fresh / "model" / "model.safetensors")
    weights = [name for name, value in before.items() if value.is_floating_point() and "running" not in name]
    assert all(torch.allclose(before[name], after[name], atol=1e-9) for name in weights)
    assert not all(torch.allclose(before[name], other[name], atol=1e-9) for name in weights)


def test_initial_weights_of_another_sensor_are_refused(farm, tmp_path):
    draw = np.random.default_rng(0)
    place = {"crs": "EPSG:32632", "transform": (1.0, 0.0, 5e5, 0.0, -1.0, 5e6)}
    for kind, data in (
        ("images", draw.integers(0, 255, (4, 64, 64), dtype=np.uint8)),
        ("masks", draw.integers(0, 2, (64, 64), dtype=np.uint8)),
    ):
        write_raster(tmp_path / "four" / kind / "a.tif", data, **place)
    scheme = (farm / "land" / "classes.json").read_text()
    (tmp_path / "four" / "classes.json").write_text(scheme)
    tilth.catalog_build(inputs=[tmp_path / "four"], sensor="rgbn", split="train", out=tmp_path / "four.parquet")
    with pytest.raises(SensorMismatchError, match="a model for sensor 'rgb', the catalog has 'rgbn'"):
        tilth.finetune(task="segment", labelled=[tmp_path / "four.parquet"], out=tmp_path / "run", initial_weights=farm / "run", **TRAINING)
    with pytest.raises(SensorMismatchError, match="the unlabelled tiles have sensor 'rgbn', the model 'rgb'"):
        tilth.pretrain(
            method="s4p", labelled=[farm / "catalog.parquet"], unlabelled=[tmp_path / "four.parquet"], out=tmp_path / "run", **TRAINING
        )
    assert not (tmp_path / "run").exists()


def test_resuming_a_finished_run_changes_nothing(farm):
    before = {name: (farm / "run" / name).read_bytes() for name in tree(farm / "run") if (farm / "run" / name).is_file()}
    options = {"task": "segment", "labelled": [farm / "catalog.parquet"], "out": farm / "run", "resume": True}
    result = tilth.finetune(**options, **TRAINING)
    assert "finished before" in result.summary[0]
    assert {name: (farm / "run" / name).read_bytes() for name in before} == before
    with pytest.raises(RunError, match=r"loop.steps \(2 -> 3\)"):
        tilth.finetune(**options, **(TRAINING | {"loop": TRAINING["loop"] | {"steps": 3}}))


def test_failure_in_the_first_step_leaves_no_run_and_a_later_one_does(farm, tmp_path, monkeypatch):
    from tilth.methods.supervised import METHOD

    work = METHOD.step

    def fail_at(wanted):
        def step(self, batches, step):
            if step == wanted:
                raise CatalogError("no such tile")
            return work(self, batches, step)

        return step

    options = {"task": "segment", "labelled": [farm / "catalog.parquet"], "out": tmp_path / "run", **TRAINING}
    monkeypatch.setattr(METHOD, "step", fail_at(0))
    with pytest.raises(CatalogError):
        tilth.finetune(**options)
    assert tree(tmp_path) == []
    monkeypatch.setattr(METHOD, "step", fail_at(1))
    with pytest.raises(CatalogError):
        tilth.finetune(**options)
    assert (tmp_path / "run" / "metrics.jsonl").is_file()


def test_check_ends_with_one_on_errors_and_with_zero_when_it_writes_the_sound_rest(farm, tmp_path):
    from PIL import Image

    for kind in ("images", "masks"):
        (tmp_path / "pairs" / kind).mkdir(parents=True)
    draw = np.random.default_rng(0)
    for number, value in enumerate((0, 1, 77)):
        Image.fromarray(draw.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "pairs" / "images" / f"{number}.png")
        Image.fromarray(np.full((64, 64), value, np.uint8)).save(tmp_path / "pairs" / "masks" / f"{number}.png")
    (tmp_path / "pairs" / "classes.json").write_text((farm / "land" / "classes.json").read_text())
    tilth.catalog_build(inputs=[tmp_path / "pairs"], sensor="rgb", out=tmp_path / "c.parquet")
    found = tilth.catalog_check(catalog=tmp_path / "c.parquet")
    assert (found.exit_code, found.values["errors"]) == (1, 1)
    found = tilth.catalog_check(catalog=tmp_path / "c.parquet", clean=tmp_path / "clean.parquet")
    assert found.exit_code == 0
    assert len(Catalog.open(tmp_path / "clean.parquet")) == 2


class Heard(Console):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    status = warn = say


def test_python_call_is_silent_unless_it_brings_a_console(farm, tmp_path, capsys):
    console = Heard()
    tilth.evaluate(model=farm / "run", catalog=farm / "catalog.parquet", out=tmp_path / "x", gallery=0, console=console)
    assert capsys.readouterr() == ("", "")
    assert "scoring tile 3/3" in console.lines


def test_validation_tiles_that_do_not_fit_the_model_are_refused_before_the_run_begins(farm, tmp_path):
    draw = np.random.default_rng(0)
    place = {"crs": "EPSG:32632", "transform": (1.0, 0.0, 5e5, 0.0, -1.0, 5e6)}
    write_raster(tmp_path / "four" / "images" / "a.tif", draw.integers(0, 255, (4, 64, 64), dtype=np.uint8), **place)
    write_raster(tmp_path / "four" / "masks" / "a.tif", draw.integers(0, 2, (64, 64), dtype=np.uint8), **place)
    (tmp_path / "four" / "classes.json").write_text((farm / "land" / "classes.json").read_text())
    tilth.catalog_build(inputs=[tmp_path / "four"], sensor="rgbn", split="val4", out=tmp_path / "four.parquet")
    catalogs = [farm / "catalog.parquet", tmp_path / "four.parquet"]
    with pytest.raises(SensorMismatchError, match="split 'val4', to validate on: the tiles are of sensor 'rgbn', the model wants 'rgb'"):
        tilth.finetune(task="segment", labelled=catalogs, validation_split="val4", out=tmp_path / "run", **TRAINING)
    catalog = Catalog.open(farm / "catalog.parquet")
    scheme = next(iter(catalog.schemes.values()))
    turned = scheme.model_copy(update={"name": "turned", "classes": scheme.classes[::-1]})
    names = [turned.name if split == "val" else scheme.name for split in catalog.column("split")]
    table = catalog.table.set_column(catalog.table.schema.get_field_index("scheme"), "scheme", [names])
    Catalog(table, catalog.sensors, {scheme.name: scheme, turned.name: turned}).save(tmp_path / "turned.parquet")
    with pytest.raises(CatalogError, match="split 'val', to validate on: the labels follow scheme 'turned'"):
        tilth.finetune(task="segment", labelled=[tmp_path / "turned.parquet"], out=tmp_path / "run", **TRAINING)
    assert not (tmp_path / "run").exists()


def test_scheme_of_another_name_with_the_same_classes_is_the_same(farm, tmp_path):
    catalog = Catalog.open(farm / "catalog.parquet")
    scheme = next(iter(catalog.schemes.values()))
    renamed = scheme.model_copy(update={"name": "renamed"})
    table = catalog.table.set_column(catalog.table.schema.get_field_index("scheme"), "scheme", [["renamed"] * len(catalog)])
    Catalog(table, catalog.sensors, {"renamed": renamed}).save(tmp_path / "renamed.parquet")
    tilth.finetune(task="segment", labelled=[tmp_path / "renamed.parquet"], initial_weights=farm / "run", out=tmp_path / "run", **TRAINING)
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
    names = [tmp_path / "renamed.parquet", farm / "catalog.parquet"]
    scores = [tilth.evaluate(model=farm / "run", catalog=name, out=tmp_path / name.stem, gallery=0).values for name in names]
    assert scores[0] == scores[1]


def test_settings_that_cannot_be_served_leave_no_run(farm, tmp_path):
    catalog = [farm / "catalog.parquet"]
    with pytest.raises(TilthError, match=r"no average is kept; set loop.average_decay"):
        tilth.pretrain(
            method="s4p",
            labelled=catalog,
            unlabelled=catalog,
            labelled_tiles=4,
            out=tmp_path / "run",
            settings={"teacher": "average"},
            **TRAINING,
        )
    plateau = TRAINING | {"loop": TRAINING["loop"] | {"schedule": {"kind": "plateau"}}}
    with pytest.raises(ConfigError, match="plateau waits for validation scores, and there is no validation"):
        tilth.finetune(task="segment", labelled=catalog, out=tmp_path / "run", validation_split=None, **plateau)
    assert tree(tmp_path) == []
    tilth.finetune(task="segment", labelled=catalog, out=tmp_path / "run", **plateau)


def test_recipe_of_a_run_is_runnable_as_it_is(farm, tmp_path):
    """Also of one that had no validation tiles, and of one with the settings of a method."""
    catalog = Catalog.open(farm / "catalog.parquet")
    catalog.filter(split=["train", "test"]).save(tmp_path / "no-val.parquet")
    base = {"labelled": [tmp_path / "no-val.parquet"], **TRAINING}
    tilth.finetune(task="segment", out=tmp_path / "a", **base)
    tilth.pretrain(method="s4p", unlabelled=base["labelled"], labelled_tiles=4, out=tmp_path / "b", **base)
    for name, verb in (("a", "finetune"), ("b", "pretrain")):
        assert json.loads((tmp_path / name / "data.json").read_text())["verb"] == verb
        assert main([verb, "--config", str(tmp_path / name / "recipe.yaml"), "--out", str(tmp_path / f"{name}-again")]) == 0
        first, second = (tmp_path / folder / "model" / "model.safetensors" for folder in (name, f"{name}-again"))
        assert first.read_bytes() == second.read_bytes()


def test_resuming_takes_catalogs_by_what_they_hold_and_windows_as_given(farm, tmp_path):
    shutil.copytree(farm / "run", tmp_path / "run")
    here = (farm / "land" / ".." / "catalog.parquet").as_posix()
    options = {"task": "segment", "out": tmp_path / "run", "resume": True} | TRAINING
    assert "finished before" in tilth.finetune(**options | {"labelled": [here], "inference": {"window": 96}}).summary[0]
    other = Catalog.open(farm / "catalog.parquet").filter(split=["val", "train"])
    other.take(range(1, len(other))).save(tmp_path / "fewer.parquet")
    with pytest.raises(RunError, match=r"the data of .* changed since the run began"):
        tilth.finetune(**options | {"labelled": [tmp_path / "fewer.parquet"]})
