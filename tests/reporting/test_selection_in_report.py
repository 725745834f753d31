"""The page on a training by CromSS: curves of its selection, and tiles with what its branches believe."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from support import report_sample as sample
from support.training_sample import NETWORK, SCHEME, make_rows
from tilth.catalog.table import Catalog
from tilth.models.config import FusionConfig
from tilth.models.segmenter import build_segmenter
from tilth.reporting import ReportInput, build_report
from tilth.reporting.collect import read_run
from tilth.reporting.runs import charts, configurations
from tilth.reporting.selection import draw_tiles, selection_charts, selection_section
from tilth.sensors import get_sensor

BRANCHES = {"red": ("red",), "others": ("green", "blue")}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as CromSS leaves it, with its model and the catalog that it learnt from; nothing in it is to be changed."""
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("cromss")
    folder = sample.make_run(home / "cromss-0", method="cromss", steps=60)
    network = NETWORK.model_copy(update={"fusion": FusionConfig(branches=BRANCHES)})
    build_segmenter(network, get_sensor("rgb"), SCHEME, seed=1).save(folder / "model")
    rows = make_rows(home / "tiles", "train", 4, split="train") + make_rows(home / "tiles", "val", 2, split="val")
    for row in rows:
        row["reference"] = row["label"]
    Catalog.from_rows(rows, {"rgb": get_sensor("rgb")}, {SCHEME.name: SCHEME}).save(home / "noisy.parquet")
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    recipe |= {"labelled": [str(home / "noisy.parquet")], "labelled_split": "train", "settings": {"selected_share": 0.25}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    for step in (20, 40, 60):
        record = {"step": step, "kind": "train", "agreement": 0.5 + step / 200, "right": 0.7, "loss_red": 1.0}
        for name in BRANCHES:
            record |= {f"weight_{name}": 1 - step / 200, f"agrees_{name}": 0.6, f"trust_{name}": 0.4, f"right_selected_{name}": 0.8}
            record |= {f"{kind}_{name}/{place}": 0.3 for kind in ("selected", "predicted") for place in range(len(SCHEME))}
        lines.append(json.dumps(record))
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_selection_has_curves_by_branch_and_by_class(run):
    groups = configurations([read_run(run)])
    made = {chart.title: chart for chart in selection_charts(groups, [])}
    assert list(made) == [
        "Mean weight of a label",
        "Labels that a branch predicts itself",
        "Mean weight as a teacher",
        "Labels that are right",
        "Pixels on which the modalities agree",
        *(f"{title}, branch {name}" for title in ("Selected labels by class", "Predictions by class") for name in ("others", "red")),
    ]
    assert [line.name for line in made["Labels that are right"].series] == ["others", "red", "all labels"]
    assert made["Mean weight of a label"].series[0].curve.values == (0.9, 0.8, 0.7)
    assert [line.name for line in made["Selected labels by class, branch red"].series] == list(SCHEME.names)
    # Agreement of modalities is not what agreement means elsewhere.
    assert not [chart for chart in charts(groups, []) if "held-back" in chart.title]


def test_other_methods_have_no_such_curves(tmp_path):
    groups = configurations([read_run(sample.make_run(tmp_path / "s4p", steps=60))])
    assert selection_charts(groups, []) == []
    assert selection_section(groups, 3) is None
    assert [chart for chart in charts(groups, []) if "held-back" in chart.title]


def test_tiles_show_labels_confidence_selection_and_prediction_of_every_branch(run):
    tiles = draw_tiles(read_run(run), 3)
    assert len({tile.tile_id for tile in tiles}) == 3
    assert all(tile.tile_id.startswith("train/") for tile in tiles)
    names = [layer.name for layer in tiles[0].viewer.layers]
    assert names[:3] == ["Image", "Given label", "Reference"]
    assert names[3:] == [f"{kind}, {name}" for name in BRANCHES for kind in ("Confidence", "Not selected", "Predicted")]
    assert draw_tiles(read_run(run), 3) == tiles


def test_a_quarter_of_each_class_is_selected(run, tmp_path):
    import base64
    import io

    tile = draw_tiles(read_run(run), 1)[0]
    layers = {
        layer.name: np.asarray(Image.open(io.BytesIO(base64.b64decode(layer.picture.uri.partition(",")[2]))))
        for layer in tile.viewer.layers
    }
    given, left = layers["Given label"], layers["Not selected, red"]
    assert given.shape == left.shape == (48, 40)
    for place in range(len(SCHEME)):
        pixels = left[given == place]
        # Index 0 is the grey of those that count in full; equal ones at the threshold are all selected.
        assert (pixels == 0).sum() >= int(0.25 * len(pixels))
        assert (pixels == 0).sum() < 0.35 * len(pixels)


def test_page_shows_them_and_is_small(run, tmp_path):
    page = build_report(ReportInput(runs=[run]), tmp_path / "report.html").read_text()
    assert "Selection among noisy labels" in page
    assert page.count("Not selected, red") >= 3
    without = build_report(ReportInput(runs=[run], selection_tiles=0), tmp_path / "without.html").read_text()
    assert "Selection among noisy labels" not in without
    assert len(page) - len(without) < 150_000


def test_a_tile_or_reference_that_is_gone_costs_no_other_picture(run, tmp_path):
    catalog = Catalog.open(Path(yaml.safe_load((run / "recipe.yaml").read_text())["labelled"][0]))
    first = draw_tiles(read_run(run), 1)[0].tile_id
    images = [str(tmp_path / "gone.png") if tile.tile_id == first else tile.image for tile in catalog.tiles()]
    catalog.with_columns(image=images, reference=[str(tmp_path / "gone.png")] * len(catalog)).save(tmp_path / "noisy.parquet")
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    recipe = yaml.safe_load((moved / "recipe.yaml").read_text()) | {"labelled": [str(tmp_path / "noisy.parquet")]}
    (moved / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    tiles = draw_tiles(read_run(moved), 2)
    assert len(tiles) == 2
    assert first not in [tile.tile_id for tile in tiles]
    assert "Reference" not in [layer.name for layer in tiles[0].viewer.layers]
    (moved / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"settings": {"selected_share": "most"}}))
    page = build_report(ReportInput(runs=[moved]), tmp_path / "report.html").read_text()
    assert "No pictures: settings of run" in page


def test_page_is_made_where_the_tiles_are_gone(run, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    recipe = yaml.safe_load((moved / "recipe.yaml").read_text())
    (moved / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"labelled": [str(tmp_path / "gone.parquet")]}))
    page = build_report(ReportInput(runs=[moved]), tmp_path / "report.html").read_text()
    assert "No pictures:" in page
    assert "gone.parquet: no such catalog file" in page
