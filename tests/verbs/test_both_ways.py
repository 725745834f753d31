"""Every verb does the same by Python keyword call and by words of the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import tilth
from support.tiny_farm import TRAINING, WORDS, plant, tree
from tilth.catalog.table import Catalog
from tilth.cli.main import main
from tilth.imagery.read import read_label


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Walk the whole way twice; returns the folder made by Python calls and the one made by typed words."""
    torch.set_num_threads(1)
    called, typed = tmp_path_factory.mktemp("called"), tmp_path_factory.mktemp("typed")
    plant(called)
    training = {"labelled": [called / "catalog.parquet"], **TRAINING}
    tilth.finetune(task="segment", out=called / "runs" / "supervised-0", **training)
    tilth.pretrain(method="s4p", unlabelled=[called / "catalog.parquet"], labelled_tiles=4, out=called / "runs" / "s4p-0", **training)
    for name in ("supervised", "s4p"):
        place = called / "scores" / f"{name}-0"
        tilth.evaluate(model=called / "runs" / f"{name}-0", catalog=called / "catalog.parquet", out=place, inference=TRAINING["inference"])
    groups = {name: called / "scores" / f"{name}-{{seed}}" for name in ("supervised", "s4p")}
    tilth.compare(groups=groups, out=called / "comparison")
    scenes = sorted((called / "land" / "images").iterdir())[:2]
    tilth.predict(model=called / "runs" / "s4p-0", scenes=scenes[:1], out=called / "map.tif", confidence=True)
    tilth.predict(model=called / "runs" / "s4p-0", scenes=scenes, out=called / "maps")
    tilth.catalog_check(catalog=called / "catalog.parquet", out=called / "findings.json")
    tilth.catalog_show(catalog=called / "catalog.parquet", out=called / "sheet.png")
    tilth.report(
        out=called / "report.html", runs=[called / "runs" / "*"], evaluations=[called / "scores" / "*"], comparisons=[called / "comparison"]
    )
    for words in lines(typed):
        assert main(words) == 0, words
    return called, typed


def lines(root: Path) -> list[list[str]]:
    """The same way as command lines."""
    land, catalog = f"{root}/land", f"{root}/catalog.parquet"
    training = ["--labelled", catalog, *WORDS]
    return [
        ["landscapes", land, "--scenes", "4", "--size", "128", "--seed", "3"],
        [
            *("catalog", "build", f"{land}/images", "--labels", f"{land}/masks", "--sensor", "rgb"),
            *("--window-px", "64", "--out", f"{root}/tiles.parquet"),
        ],
        ["catalog", "split", f"{root}/tiles.parquet", "--block-m", "100", "--out", catalog],
        ["finetune", "segment", "--out", f"{root}/runs/supervised-0", *training],
        ["pretrain", "s4p", "--unlabelled", catalog, "--labelled-tiles", "4", "--out", f"{root}/runs/s4p-0", *training],
        *(
            ["evaluate", f"{root}/runs/{name}-0", catalog, "--out", f"{root}/scores/{name}-0", "inference.window=64", "inference.overlap=0"]
            for name in ("supervised", "s4p")
        ),
        [
            "compare",
            f"groups.supervised={root}/scores/supervised-{{seed}}",
            f"groups.s4p={root}/scores/s4p-{{seed}}",
            "--out",
            f"{root}/comparison",
        ],
        ["predict", f"{root}/runs/s4p-0", f"{land}/images/scene_000.tif", "--out", f"{root}/map.tif", "--confidence"],
        ["predict", f"{root}/runs/s4p-0", f"{land}/images/scene_000.tif", f"{land}/images/scene_001.tif", "--out", f"{root}/maps"],
        ["catalog", "check", catalog, "--out", f"{root}/findings.json"],
        ["catalog", "show", catalog, "--out", f"{root}/sheet.png"],
        [
            *("report", "--out", f"{root}/report.html", "--runs", f"{root}/runs/*", "--evaluations", f"{root}/scores/*"),
            *("--comparisons", f"{root}/comparison"),
        ],
    ]


def test_both_ways_leave_the_same_files(ways):
    called, typed = ([name for name in tree(folder) if "tfevents" not in name] for folder in ways)
    assert called == typed


@pytest.mark.parametrize("name", ["land/images/scene_000.tif", "land/masks/scene_003.tif", "sheet.png", "comparison/comparison.json"])
def test_files_are_byte_for_byte_the_same(ways, name):
    called, typed = ways
    assert (called / name).read_bytes() == (typed / name).read_bytes()


@pytest.mark.parametrize("name", ["supervised-0", "s4p-0"])
def test_trained_weights_are_byte_for_byte_the_same(ways, name):
    called, typed = (folder / "runs" / name / "model" / "model.safetensors" for folder in ways)
    assert called.read_bytes() == typed.read_bytes()


def test_catalogs_hold_the_same_tiles_wherever_they_lie(ways):
    called, typed = (Catalog.open(folder / "catalog.parquet") for folder in ways)
    assert called.fingerprint() == typed.fingerprint()


def test_scores_and_findings_are_the_same(ways):
    called, typed = (
        [json.loads((folder / "scores" / "s4p-0" / "metrics.json").read_text())[key] for key in ("confusion", "scores", "tiles")]
        for folder in ways
    )
    assert called == typed
    counts = [
        {key: value for key, value in json.loads((folder / "findings.json").read_text()).items() if key != "catalog"} for folder in ways
    ]
    assert counts[0] == counts[1]


def test_map_of_one_scene_is_that_of_several(ways):
    called, typed = ways
    maps = [read_label(str(folder / place)) for folder in (called, typed) for place in ("map.tif", "maps/scene_000.tif")]
    assert all(np.array_equal(maps[0], other) for other in maps[1:])
    assert (called / "map_confidence.tif").is_file()
    assert (typed / "maps" / "scene_001.tif").is_file()


def test_report_shows_every_run_and_score(ways):
    for folder in ways:
        text = (folder / "report.html").read_text()
        assert all(name in text for name in ("supervised-0", "s4p-0"))


def test_settings_of_the_method_are_written_out_in_the_run(ways):
    import yaml

    recipe = yaml.safe_load((ways[1] / "runs" / "s4p-0" / "recipe.yaml").read_text())
    assert "verb" not in recipe
    assert recipe["settings"]["threshold"] > 0.5
    assert recipe["loop"]["weight_decay"] == 0.01
