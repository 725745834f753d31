"""Which tiles a training sees, and which weights it starts from."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import tilth
from support.tiny_farm import TRAINING, grow, plant, tree
from tilth.catalog.table import Catalog
from tilth.errors import CatalogError, RunError, SensorMismatchError
from tilth.imagery.write import write_raster
from tilth.verbs.console import Console
from tilth.verbs.train import FinetuneOptions, PretrainOptions, _labelled, _pool


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    root = plant(tmp_path_factory.mktemp("farm"))
    grow(root)
    return root


def learnt_from(farm: Path, **options) -> set[str]:
    chosen, _ = _labelled(FinetuneOptions(task="segment", labelled=(farm / "catalog.parquet",), out=farm / "x", **options))
    return set(chosen.column("tile_id"))


def test_labelled_subsets_lie_inside_each_other(farm):
    sets = [learnt_from(farm, labelled_tiles=count) for count in range(1, 11)]
    assert [len(found) for found in sets] == list(range(1, 11))
    assert all(small < large for small, large in itertools.pairwise(sets))
    assert learnt_from(farm, labelled_percent=50) == sets[4]
    assert learnt_from(farm) == sets[9]


def test_pool_holds_neither_the_labelled_tiles_nor_those_kept_for_scores(farm):
    catalog = Catalog.open(farm / "catalog.parquet")
    options = PretrainOptions(
        method="s4p", labelled=(farm / "catalog.parquet",), unlabelled=(farm / "catalog.parquet",), out=farm / "x", labelled_tiles=4
    )
    labelled, validation = _labelled(options)
    pool = _pool(options.unlabelled, options.unlabelled_split, labelled)
    assert pool is not None
    assert validation is not None
    found = set(pool.column("tile_id"))
    assert found == set(catalog.filter(split="train").column("tile_id")) - set(labelled.column("tile_id"))
    assert set(validation.column("tile_id")) == set(catalog.filter(split="val").column("tile_id"))


def test_tiles_set_aside_between_splits_stay_out_of_the_pool(farm, tmp_path):
    catalog = Catalog.open(farm / "catalog.parquet")
    splits = catalog.column("split")
    aside = splits.index("train", len(splits) // 2)
    catalog.with_columns(split=[None if place == aside else name for place, name in enumerate(splits)]).save(tmp_path / "aside.parquet")
    catalog.with_columns(split=[None] * len(catalog)).save(tmp_path / "whole.parquet")
    none_taken = catalog.take([])
    found = _pool((tmp_path / "aside.parquet",), ("train",), none_taken)
    assert found is not None
    assert catalog.column("tile_id")[aside] not in found.column("tile_id")
    whole = _pool((tmp_path / "whole.parquet",), ("train",), none_taken)
    assert whole is not None
    assert len(whole) == len(catalog)


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
