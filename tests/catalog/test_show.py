"""Summaries and contact sheets. Oracles: counts by hand; the pixels of the sheet."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from tilth.catalog.build import build_catalog
from tilth.catalog.config import BuildConfig
from tilth.catalog.show import contact_sheet, format_summary, summarise
from tilth.errors import CatalogError
from tilth.imagery.read import read_label

from .conftest import CLASSES, noise


@pytest.fixture
def catalog(pairs):
    return build_catalog(BuildConfig(inputs=(str(pairs),), sensor="rgb", licence="CC0-1.0", datetime="2020-05-06"))


def test_summary_counts_what_there_is(catalog):
    summary = summarise(catalog)
    json.dumps(summary)
    assert summary["splits"]["train"] == {"tiles": 4, "labelled": 4}
    assert summary["splits"]["test"] == {"tiles": 1, "labelled": 0}
    assert summary["splits"]["none"] == {"tiles": 1, "labelled": 1}
    assert summary["label_kinds"] == {"clean": 7, "none": 1}
    assert summary["licences"] == {"CC0-1.0": 8}
    assert summary["sizes"] == {"20 x 12": 8}
    assert summary["dates"] == ["2020-05-06", "2020-05-06"]
    assert summary["area_km2"] is None
    pixels = Counter(value for tile in catalog.labelled().tiles() for value in read_label(tile.label).ravel().tolist())
    assert [item["pixels"] for item in summary["classes"]["tiny"]] == [pixels[index] for index in range(3)]
    assert sum(item["share"] for item in summary["classes"]["tiny"]) == pytest.approx(1)


def test_summary_reads_as_text(catalog, pairs):
    (pairs / "masks" / "i0.png").write_bytes(b"")
    text = format_summary(summarise(catalog))
    assert text.splitlines()[0] == "8 tiles in 8 images, 7 labelled"
    assert "licence: CC0-1.0 (8)" in text
    assert all(name in text for name in CLASSES)
    assert "1 labels cannot be read" in text
    assert "classes of" not in format_summary(summarise(catalog, labels=False))


def test_summary_of_scenes_gives_area_and_of_nothing_gives_zeros(tmp_path, write_scene, catalog):
    scene = write_scene(tmp_path / "s.tif", noise("s", 3, 100, 100))
    summary = summarise(build_catalog(BuildConfig(inputs=(str(scene),), sensor="rgb")))
    assert summary["area_km2"] == pytest.approx(1.0, rel=1e-3)
    assert "ground covered: 1.001 km2" in format_summary(summary)
    assert format_summary(summarise(catalog.take([]))).startswith("0 tiles in 0 images, 0 labelled")


def test_sheet_shows_image_label_and_class_colours(catalog, pairs, tmp_path):
    Image.fromarray(np.full((12, 20, 3), (0, 0, 250), np.uint8)).save(pairs / "images" / "i0.png")
    Image.fromarray(np.full((12, 20), 255, np.uint8)).save(pairs / "masks" / "i0.png")
    sheet = np.asarray(Image.open(contact_sheet(catalog.take([0, 1]), tmp_path / "out" / "sheet.png")).convert("RGB"))
    # An ignored label shows the image alone: the picture twice, 240 x 144 pixels each.
    assert (sheet == (0, 0, 250)).all(axis=-1).sum() == 2 * 240 * 144
    for item in catalog.scheme().classes:
        assert (sheet == item.colour).all(axis=-1).sum() >= 200


def test_sheet_is_a_function_of_catalog_and_seed(catalog, tmp_path):
    files = [contact_sheet(catalog, tmp_path / f"{index}.png", count=4, seed=seed) for index, seed in enumerate((0, 0, 1))]
    first, again, other = (file.read_bytes() for file in files)
    assert first == again != other


def test_sheet_survives_broken_files_and_long_names(catalog, pairs, tmp_path):
    (pairs / "images" / "i0.png").write_bytes(b"")
    (pairs / "masks" / "i1.png").unlink()
    catalog = catalog.with_columns(tile_id=["x" * 80 + str(index) for index in range(8)])
    assert Image.open(contact_sheet(catalog, tmp_path / "sheet.png")).width > 500
    assert Image.open(contact_sheet(catalog.take([6]), tmp_path / "plain.png")).width > 500


def test_sheet_of_nothing_is_refused(catalog, tmp_path):
    with pytest.raises(CatalogError, match="the catalog is empty"):
        contact_sheet(catalog.take([]), tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()
