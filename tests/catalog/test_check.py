"""Broken files are found and named. Every test breaks one thing and looks for it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from tilth.catalog import check_tile
from tilth.catalog.build import build_catalog
from tilth.catalog.check import check_catalog
from tilth.catalog.config import BuildConfig
from tilth.catalog.table import Catalog
from tilth.sensors import get_sensor

from .conftest import noise


@pytest.fixture
def catalog(pairs):
    return build_catalog(BuildConfig(inputs=(str(pairs),), sensor="rgb"))


def found(report):
    return [(item.what, item.tile_id) for item in report.findings]


def test_sound_catalog_is_ok(catalog):
    report = check_catalog(catalog)
    assert report.ok
    assert report.findings == ()
    assert (report.tiles, report.files) == (8, 15)
    assert sum(report.class_pixels["tiny"].values()) == 7 * 20 * 12


def test_missing_files(catalog, pairs):
    (pairs / "images" / "i0.png").unlink()
    (pairs / "masks" / "i1.png").unlink()
    report = check_catalog(catalog)
    assert found(report) == [("missing file", "pairs/i0"), ("missing file", "pairs/i1")]
    assert report.errors[1].file == str(pairs / "masks" / "i1.png")
    assert found(check_catalog(catalog, pixels=False)) == found(report)


@pytest.mark.parametrize("name", ["images/i2.png", "masks/i2.png"])
def test_truncated_files(catalog, pairs, name):
    file = pairs / name
    file.write_bytes(file.read_bytes()[:-40])
    report = check_catalog(catalog)
    assert found(report) == [("unreadable", "pairs/i2")]
    assert report.errors[0].file == str(file)


def test_references_that_count_for_nothing_are_named(catalog, pairs, tmp_path):
    labels = catalog.column("label")
    assert check_catalog(catalog.with_columns(reference=labels)).ok
    size = np.asarray(Image.open(labels[1])).shape
    for name, shape, value in (("small", (3, 4), 0), ("strange", size, 77)):
        Image.fromarray(np.full(shape, value, np.uint8)).save(tmp_path / f"{name}.png")
    references = [str(tmp_path / "gone.png"), str(tmp_path / "small.png"), str(tmp_path / "strange.png"), *labels[3:]]
    report = check_catalog(catalog.with_columns(reference=references))
    assert report.ok
    assert [(item.what, item.tile_id) for item in report.warnings] == [("reference", f"pairs/i{number}") for number in range(3)]
    texts = ("no such file", "they must share one grid", "value 77")
    assert all(text in item.found for text, item in zip(texts, report.warnings, strict=True))
    assert len(check_catalog(catalog.with_columns(reference=references), pixels=False).warnings) == 2


def test_truncated_jpeg(tmp_path):
    file = tmp_path / "a.jpg"
    Image.fromarray(noise("j", 64, 64, 3)).save(file)
    catalog = build_catalog(BuildConfig(inputs=(str(tmp_path),), sensor="rgb"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert found(check_catalog(catalog)) == [("unreadable", f"{tmp_path.name}/a")]


def test_truncated_geotiff(tmp_path, write_scene):
    file = write_scene(tmp_path / "s.tif", noise("s", 3, 64, 64))
    catalog = build_catalog(BuildConfig(inputs=(str(file),), sensor="rgb"))
    file.write_bytes(file.read_bytes()[:5000])
    assert found(check_catalog(catalog)) == [("unreadable", f"{tmp_path.name}/s")]


def test_image_that_shrank_no_longer_holds_its_window(catalog, pairs):
    Image.fromarray(noise("x", 12, 19, 3)).save(pairs / "images" / "i3.png")
    report = check_catalog(catalog)
    assert found(report) == [("size", "pairs/i3"), ("label size", "pairs/i3")]
    assert "19 x 12" in report.errors[0].found


def test_label_of_another_size(catalog, pairs):
    Image.fromarray(noise("x", 13, 20) % 3).save(pairs / "masks" / "i3.png")
    assert found(check_catalog(catalog)) == [("label size", "pairs/i3")]


@pytest.mark.parametrize(
    ("crs", "corner", "wrong"),
    [("EPSG:32631", 500_000.0, False), ("EPSG:32631", 500_030.0, True), ("EPSG:32632", 500_000.0, True)],
)
def test_label_on_another_grid(tmp_path, write_scene, scheme, crs, corner, wrong):
    image = write_scene(tmp_path / "i.tif", noise("i", 3, 12, 20))
    label = write_scene(tmp_path / "l.tif", noise("l", 1, 12, 20) % 3, crs=crs, transform=(10.0, 0.0, corner, 0.0, -10.0, 5_000_000.0))
    row = {"tile_id": "t", "image": str(image), "label": str(label), "window": (0, 0, 20, 12), "sensor": "rgb", "scheme": "tiny"}
    catalog = Catalog.from_rows([row | {"label_kind": "clean"}], {"rgb": get_sensor("rgb")}, {"tiny": scheme})
    report = check_catalog(catalog)
    assert [item.what for item in report.errors] == (["label grid"] if wrong else [])
    assert not wrong or str(label) in report.errors[0].found


def test_other_bands(catalog, pairs):
    Image.fromarray(noise("x", 12, 20)).save(pairs / "images" / "i3.png")
    report = check_catalog(catalog)
    assert found(report) == [("bands", "pairs/i3")]
    assert (report.errors[0].expected, report.errors[0].found) == ("3 (rgb)", "1")


def test_label_value_outside_the_scheme_is_named_and_counted(catalog, pairs):
    mask = noise("x", 12, 20) % 3
    mask[0, :5], mask[1, :2], mask[2, 0] = 7, 9, 255
    Image.fromarray(mask).save(pairs / "masks" / "i4.png")
    report = check_catalog(catalog)
    assert found(report) == [("label value", "pairs/i4")]
    assert report.errors[0].found == "7 (5 pixels), 9 (2 pixels)"
    assert report.errors[0].expected == "0 to 2 or 255 (tiny)"


def test_coloured_mask_is_no_label(catalog, pairs):
    Image.fromarray(noise("x", 12, 20, 3)).save(pairs / "masks" / "i4.png")
    assert found(check_catalog(catalog)) == [("label value", "pairs/i4")]


def test_constant_image(catalog, pairs):
    Image.fromarray(np.full((12, 20, 3), (9, 8, 7), np.uint8)).save(pairs / "images" / "i5.png")
    report = check_catalog(catalog)
    assert found(report) == [("constant", "pairs/i5")]
    assert report.errors[0].found == "[9, 8, 7] throughout"


def test_one_flat_band_is_not_constant(catalog, pairs):
    image = noise("x", 12, 20, 3)
    image[..., 0] = 0
    Image.fromarray(image).save(pairs / "images" / "i5.png")
    assert check_catalog(catalog).ok


def test_not_finite_no_data_and_constant_among_valid_pixels(tmp_path, write_scene):
    values = np.random.default_rng(0).normal(-12, 3, (2, 8, 8)).astype(np.float32)
    broken, empty, flat = values.copy(), np.full_like(values, -9999), np.full_like(values, -9999)
    broken[1, 0, :3] = np.nan
    flat[:, 2:5, 2:5] = -10
    for name, data in {"broken": broken, "empty": empty, "flat": flat, "good": values}.items():
        write_scene(tmp_path / f"{name}.tif", data, nodata=-9999)
    report = check_catalog(build_catalog(BuildConfig(inputs=(str(tmp_path),), sensor="s1", prefix="t")))
    assert found(report) == [("not finite", "t/broken"), ("no data", "t/empty"), ("constant", "t/flat")]
    assert report.errors[0].found == "3 of 64 pixels NaN or infinite"


def test_nan_declared_as_nodata_is_fine(tmp_path, write_scene):
    values = np.random.default_rng(0).normal(-12, 3, (2, 8, 8)).astype(np.float32)
    values[:, 0] = np.nan
    write_scene(tmp_path / "a.tif", values, nodata=float("nan"))
    assert check_catalog(build_catalog(BuildConfig(inputs=(str(tmp_path),), sensor="s1"))).ok


def test_label_without_any_labelled_pixel_and_absent_classes_are_warnings(catalog, pairs):
    for index in range(8):
        if index != 6:
            Image.fromarray(np.where(noise(f"m{index}", 12, 20) > 99, 1, 0).astype(np.uint8)).save(pairs / "masks" / f"i{index}.png")
    Image.fromarray(np.full((12, 20), 255, np.uint8)).save(pairs / "masks" / "i4.png")
    report = check_catalog(catalog)
    assert report.ok
    assert found(report) == [("all ignored", "pairs/i4"), ("class absent", "")]
    assert "class 2 'rare' (tiny)" in report.warnings[1].expected


def window_rows(splits):
    """Windows of 8 pixels, 8 apart, then one that overlaps the first two."""
    windows = [(0, 0, 8, 8), (8, 0, 8, 8), (4, 4, 8, 8)]
    return [
        {"tile_id": f"w{index}", "image": "/none.png", "window": window, "sensor": "rgb", "split": split}
        for index, (window, split) in enumerate(zip(windows, splits, strict=True))
    ]


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        (("train", "val", None), []),
        (("train", "train", "train"), []),
        (("train", "val", "val"), ["w0"]),
        (("train", "val", "test"), ["w0", "w1"]),
    ],
)
def test_pixels_in_two_splits_are_an_error(splits, expected):
    report = check_catalog(Catalog.from_rows(window_rows(splits), {"rgb": get_sensor("rgb")}), pixels=False)
    assert [item.tile_id for item in report.errors if item.what == "split overlap"] == expected


def test_every_tile_is_read_once(catalog, monkeypatch):
    reads = []
    original = check_tile.read_pixels
    monkeypatch.setattr(check_tile, "read_pixels", lambda *arguments: reads.append(arguments) or original(*arguments))
    ticks = []
    check_catalog(catalog, progress=lambda done, total: ticks.append((done, total)))
    assert len(reads) == len(set(reads)) == 8
    assert ticks[-1] == (8, 8)
    check_catalog(catalog, pixels=False)
    assert len(reads) == 8


def test_report_as_json_and_text_and_what_remains(catalog, pairs):
    (pairs / "images" / "i0.png").unlink()
    report = check_catalog(catalog)
    tree = json.loads(report.to_json())
    assert tree["ok"] is False
    assert tree["findings"][0]["what"] == "missing file"
    assert report.summary().splitlines()[0] == "8 tiles in 15 files: 1 errors, 0 warnings"
    assert "images/i0.png (pairs/i0): missing file" in report.summary()
    assert report.sound(catalog).column("tile_id") == [f"pairs/i{index}" for index in range(1, 8)]
