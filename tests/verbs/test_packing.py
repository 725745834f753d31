"""``tilth pack`` as users meet it, and trainings on what it leaves behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tilth
from support.tiny_farm import TRAINING, plant
from tilth.catalog.table import Catalog
from tilth.cli.main import main

LOOP = TRAINING["loop"] | {"steps": 6, "validate_every": 3}


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = plant(tmp_path_factory.mktemp("farm"))
    for codec in ("raw", "original"):
        tilth.pack(catalog=folder / "catalog.parquet", out=folder / codec, codec=codec, measure=False)
    return folder


def losses(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    dropped = {"time_s", "tiles_per_s", "memory_gb"}
    return [{name: value for name, value in line.items() if name not in dropped} for line in lines]


@pytest.mark.parametrize("packed", ["raw", "original"])
def test_training_on_packed_tiles_gives_the_same_losses_and_weights(farm, tmp_path, packed):
    runs = {}
    for name, catalog in (("files", farm / "catalog.parquet"), ("packed", farm / packed / "catalog.parquet")):
        options = TRAINING | {"loop": LOOP | {"workers": 1}}
        tilth.finetune(task="segment", labelled=[catalog], out=tmp_path / name, **options)
        runs[name] = tmp_path / name
    assert losses(runs["packed"]) == losses(runs["files"])
    assert len([line for line in losses(runs["files"]) if "loss" in line]) == 6
    weights = [(run / "model" / "model.safetensors").read_bytes() for run in runs.values()]
    assert weights[0] == weights[1]


def test_scores_on_packed_tiles_are_the_same(farm, tmp_path):
    tilth.finetune(task="segment", labelled=[farm / "catalog.parquet"], out=tmp_path / "run", **TRAINING)
    found = []
    for name, catalog in (("files", farm / "catalog.parquet"), ("packed", farm / "raw" / "catalog.parquet")):
        tilth.evaluate(
            model=tmp_path / "run", catalog=catalog, out=tmp_path / name, split=["train", "val"], inference=TRAINING["inference"]
        )
        found.append(json.loads((tmp_path / name / "metrics.json").read_text()))
    # Intervals too: they draw tiles of one image together, which packing must not pull apart.
    same = ("summary", "per_class", "intervals", "images", "tiles", "confusion")
    assert {name for name in same if name in found[0]} >= {"intervals", "images", "tiles"}
    for name in same:
        assert found[0].get(name) == found[1].get(name)
    assert found[0]["images"]


def test_command_line_tells_what_it_wrote_and_how_fast_it_is_read(farm, tmp_path, capsys):
    assert main(["pack", str(farm / "catalog.parquet"), "--out", str(tmp_path / "packed"), "--workers", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("16 tiles, 0.3 MiB in 2 shards (2 written, 0 kept) in ")
    assert "times as fast as from the original files" in lines[1]
    assert lines[2].endswith("packed/catalog.parquet")
    assert main(["pack", str(farm / "catalog.parquet"), "--out", str(tmp_path / "packed")]) == 0
    assert "(0 written, 2 kept)" in capsys.readouterr().out
    assert main(["catalog", "check", str(tmp_path / "packed" / "catalog.parquet")]) == 0
    assert "0 errors" in capsys.readouterr().out
    assert main(["pack", str(farm / "catalog.parquet"), "--out", str(tmp_path / "packed"), "--codec", "zstd"]) == 1
    assert capsys.readouterr().err.strip().endswith("remove the folder, or choose another --out")
    assert main(["pack", str(farm / "catalog.parquet"), "--out", str(tmp_path / "packed"), "--codec", "zst"]) == 2
    assert "zstd" in capsys.readouterr().err


def test_tiles_left_out_are_named(farm, tmp_path, capsys):
    catalog = Catalog.open(farm / "catalog.parquet")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    images = [str(broken), *catalog.column("image")[1:]]
    catalog.with_columns(image=images).save(tmp_path / "catalog.parquet")
    words = ["pack", str(tmp_path / "catalog.parquet"), "--out", str(tmp_path / "packed")]
    assert main(words) == 1
    assert "cannot be packed" in capsys.readouterr().err
    assert main([*words, "--skip-bad"]) == 0
    captured = capsys.readouterr()
    assert f"left out tile {catalog.tile(0).tile_id!r}: {broken}" in captured.err
    assert "1 tiles left out" in captured.out
