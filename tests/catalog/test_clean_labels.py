"""Clean labels beside noisy ones: a second catalog of the same tiles becomes the column ``reference``."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tilth.catalog.build import build_catalog
from tilth.catalog.config import BuildConfig
from tilth.catalog.table import Catalog
from tilth.errors import CatalogError
from tilth.imagery.read import read_label

from .conftest import noise

LAND = [{"name": "land", "colour": [0, 255, 0]}, {"name": "water", "colour": [0, 0, 255]}]


@pytest.fixture
def scenes(tmp_path, write_scene):
    """Two images, each with a noisy and a clean label of one scheme."""
    (tmp_path / "classes.json").write_text(json.dumps({"name": "flood", "classes": LAND}))
    for index, name in enumerate("ab"):
        write_scene(tmp_path / "images" / f"{name}.tif", noise(name, 3, 32, 48))
        for kind in ("noisy", "clean"):
            write_scene(tmp_path / kind / f"{name}.tif", np.full((1, 32, 48), index if kind == "clean" else 0, np.uint8))
    return tmp_path


def build(root, kind, **options):
    tree = {"inputs": [str(root / "images")], "sensor": "rgb", "labels": str(root / kind), "scheme": str(root / "classes.json")}
    return build_catalog(BuildConfig.parse(tree | {"window_px": 16, "label_kind": kind, "prefix": "place"} | options))


def test_labels_of_the_clean_catalog_become_references_tile_by_tile(scenes):
    clean = build(scenes, "clean")
    # In another order, and without one tile.
    clean.take(list(range(len(clean) - 2, -1, -1))).save(scenes / "clean.parquet")
    noisy = build(scenes, "noisy", references=str(scenes / "clean.parquet"))
    references = noisy.column("reference")
    assert references[-1] is None
    for row in range(len(noisy) - 1):
        tile = noisy.tile(row)
        assert (read_label(references[row], tile.window) == ("/b_" in tile.tile_id)).all()
        assert tile.label is not None
        assert "noisy" in tile.label


def test_the_column_survives_saving(scenes):
    build(scenes, "clean").save(scenes / "clean.parquet")
    build(scenes, "noisy", references=str(scenes / "clean.parquet")).save(scenes / "noisy.parquet")
    again = Catalog.open(scenes / "noisy.parquet")
    assert {path.rsplit("/", 2)[-2] for path in again.column("reference")} == {"clean"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"prefix": "elsewhere"}, r"clean.parquet: none of its 12 tiles is among the 12 of this catalog, such as 'place/a_r0_c0'"),
        ({"window_px": 32, "stride_px": 16}, r"tile 'place/a_r0_c0' is window \(0, 0, 32, 32\), here \(0, 0, 16, 16\)"),
        ({"scheme": "other.json"}, "has labels of scheme 'other', here of 'flood'; give both the same scheme"),
    ],
)
def test_a_catalog_of_other_tiles_or_classes_is_refused_in_one_line(scenes, monkeypatch, options, said):
    monkeypatch.chdir(scenes)
    (scenes / "other.json").write_text(json.dumps({"name": "other", "classes": LAND[::-1]}))
    build(scenes, "clean", **options).save("clean.parquet")
    with pytest.raises(CatalogError, match=said) as caught:
        build(scenes, "noisy", references="clean.parquet")
    assert "\n" not in str(caught.value)
