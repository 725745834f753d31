"""Sets with radar, optical bands and noisy labels: LMDB stores and folders of GeoTIFF become the same kind of catalog, pixel for pixel."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from support import public_stores
from support.public_stores import assert_labels, contents, draw, prepare, store, tile_records
from tilth.datasets.joining import check_joined, join_rasters
from tilth.datasets.shelf import load_card
from tilth.errors import DataError
from tilth.imagery.read import read_label, read_pixels
from tilth.imagery.write import write_raster
from tilth.sensors import get_sensor

REFERENCE = Path(__file__).parents[2].parent / "shared" / "reference" / "cromss" / "data_processing.npz"


def test_four_seasons_are_four_tiles_of_one_place(tmp_path):
    truth = public_stores.plant_nol(tmp_path / "set")
    catalog, lines = prepare("ssl4eo-s12-nol", tmp_path / "set", tmp_path / "out")
    assert_labels(catalog, truth, "ssl4eo-s12-nol")
    assert catalog.counts("label_kind") == {"noisy": 12}
    assert catalog.counts("split") == {"train": 12}
    assert set(catalog.counts("location_id").values()) == {4}
    assert len(lines) == 1
    assert "3 places here, 103,793 as published" in lines[0]
    tile = catalog.tile(5)
    expected = np.concatenate([draw(1, (4, 2, 24, 24), 0, 256, "uint8")[1], draw(51, (4, 13, 24, 24), 0, 256, "uint8")[1]])
    np.testing.assert_array_equal(read_pixels(tile.image).data, expected)


def test_quantised_numbers_reach_the_network_between_0_and_1(tmp_path):
    public_stores.plant_nol(tmp_path / "set", places=1)
    catalog, _ = prepare("ssl4eo-s12-nol", tmp_path / "set", tmp_path / "out")
    sensor = catalog.sensor()
    assert (sensor.name, sensor.dtype, len(sensor)) == ("s1_8bit+s2_l1c_8bit", "uint8", 15)
    stored = np.arange(256)
    for band, original in zip(sensor.bands, get_sensor("s1+s2_l1c").bands, strict=True):
        physical = stored * band.scale + band.offset
        np.testing.assert_allclose((physical - band.mean) / band.std, stored / 255, atol=1e-12)
        # Two deviations below the mean, and two above.
        np.testing.assert_allclose(physical[[0, -1]], [original.mean - 2 * original.std, original.mean + 2 * original.std])


@pytest.mark.parametrize(
    ("name", "plant", "splits"),
    [
        ("ssl4eo-s12-dw", lambda folder: public_stores.plant_tiles(folder, "dw_", 11), {"train": 3, "test": 3}),
        ("ssl4eo-s12-osm", lambda folder: public_stores.plant_tiles(folder, "osm_", 14), {"train": 3, "test": 3}),
        ("dfc2020-lmdb", public_stores.plant_dfc_stores, {"train": 2, "test": 2}),
    ],
)
def test_store_becomes_a_catalog_with_exact_pixels_and_labels(name, plant, splits, tmp_path):
    truth = plant(tmp_path / "set")
    before = contents(tmp_path / "set")
    catalog, _ = prepare(name, tmp_path / "set", tmp_path / "out")
    assert contents(tmp_path / "set") == before
    assert_labels(catalog, truth, name)
    assert catalog.counts("split") == splits
    assert catalog.sensor().name == "s1+s2_l1c"
    tile = next(tile for tile in catalog.tiles() if tile.split == "train")
    side = tile.window.width
    kind = "float64" if name == "dfc2020-lmdb" else "float32"
    expected = np.concatenate([draw(0, (2, side, side), -30, 0, kind), draw(50, (13, side, side), 0, 10_000, "uint16")]).astype(np.float32)
    np.testing.assert_array_equal(read_pixels(tile.image).data, expected)


@pytest.mark.skipif(not REFERENCE.exists(), reason="needs the reference fixtures")
@pytest.mark.parametrize(
    ("card", "label", "case"), [("ssl4eo-s12-dw", "dw_", "dw"), ("ssl4eo-s12-osm", "osm_", "osm"), ("dfc2020-lmdb", "lbl_", "dfc")]
)
def test_labels_are_decoded_as_the_reference_does(card, label, case, tmp_path):
    fixture = np.load(REFERENCE)
    records = tile_records(0, 24, fixture[f"{case}_raw"], label, named=case != "dfc", dtype="float64" if case == "dfc" else "float32")
    store(tmp_path / "set" / f"{label}dfc_dw_osm_train", records)
    catalog, _ = prepare(card, tmp_path / "set", tmp_path / "out")
    target = fixture[f"{case}_target"]
    # The official program keeps "unknown" as a ninth class of DFC2020, which its loss cannot take.
    target = np.where(target == 8, 255, target) if case == "dfc" else target
    np.testing.assert_array_equal(read_label(catalog.tile(0).label), target)


@pytest.mark.parametrize(("layer", "decibels"), [("s12", "float32"), ("s12", "float64"), ("s2", "float32"), ("s1", "float64")])
def test_contest_folders_become_joined_images(layer, decibels, tmp_path):
    truth = public_stores.plant_dfc(tmp_path / "set")
    for file in (tmp_path / "set").rglob("*_s1_*.tif"):
        public_stores.raster(file, read_pixels(str(file)).data.astype(decibels))
    catalog, lines = prepare("dfc2020", tmp_path / "set", tmp_path / "out", layer=layer)
    assert_labels(catalog, truth, "dfc2020")
    assert catalog.counts("split") == {"train": 2, "test": 2}
    assert all("as published" in line for line in lines)
    radar, optical = draw(0, (2, 16, 16), -30, 0, "float32"), draw(0, (13, 16, 16), 0, 9000, "uint16")
    expected = {"s12": np.concatenate([radar, optical.astype(np.float32)]), "s2": optical, "s1": radar}[layer]
    tile = next(tile for tile in catalog.tiles() if tile.tile_id.endswith("/0"))
    np.testing.assert_array_equal(read_pixels(tile.image).data, expected)
    assert catalog.table["geometry"].null_count == 0


def test_trees_of_bands_are_joined_and_seasons_paired_by_date(tmp_path):
    truth = public_stores.plant_trees(tmp_path / "set", seasons=2)
    catalog, lines = prepare("ssl4eo-s12", tmp_path / "set", tmp_path / "out")
    assert lines == []
    assert_labels(catalog, truth, "ssl4eo-s12")
    assert catalog.counts("location_id") == {"ssl4eo-s12/0000000": 2, "ssl4eo-s12/0000001": 2}
    assert catalog.counts("split") == {"train": 4}
    times = [time.strftime("%Y%m%dT%H%M%S") for time in catalog.column("datetime")]
    assert times == [f"{date}T054639" for date in public_stores.DATES[:2]] * 2
    for tile, season in zip([tile for tile in catalog.tiles() if "/0000001/" in tile.tile_id], range(2), strict=True):
        levels = read_pixels(tile.image).data
        assert levels.shape == (15, 24, 24)
        expected = [-10 - season, -20 - season, *(100 * (number + 1) + 10 * season + 1 for number in range(13))]
        np.testing.assert_allclose(levels[:, 12, 12], expected)
        assert (levels == levels[:, :1, :1]).all()


def test_missing_season_of_one_sensor_is_named(tmp_path):
    public_stores.plant_trees(tmp_path / "set", seasons=2)
    scene = min((tmp_path / "set" / "s1" / "0000001").iterdir())
    for file in scene.iterdir():
        file.unlink()
    with pytest.raises(
        DataError, match=r"0000001/20200302\S*/B2.tif: 2 of 4 images lack a band or a season, expected one of each .*s1/0000001"
    ):
        prepare("ssl4eo-s12", tmp_path / "set", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    catalog, lines = prepare("ssl4eo-s12", tmp_path / "set", tmp_path / "out", partial=True)
    assert len(catalog) == 2
    assert any("left out" in line for line in lines)


def test_two_rasters_for_one_image_are_refused(tmp_path):
    public_stores.plant_dfc(tmp_path / "set")
    file = min((tmp_path / "set").rglob("*_s1_*_p0.tif"))
    shutil.copy(file, file.with_name(file.name.replace("_p0", "_copy_p0")))
    with pytest.raises(DataError, match=r"_p0.tif: the same raster of a place as \S*_p0.tif; keep one of them"):
        prepare("dfc2020", tmp_path / "set", tmp_path / "out")


@dataclass(frozen=True)
class Raster:
    path: str
    values: dict[str, str]
    source: int = 0


@pytest.mark.parametrize(("radar", "told"), [(("0305", "0912", "1211"), True), (("0305", "0620", "1130"), False)])
def test_places_whose_sensors_lack_different_seasons_are_told(radar, told):
    layer = load_card("ssl4eo-s12").layer("s12")
    layer = layer.model_copy(update={"joined": (layer.joined[0], layer.pattern[0])})
    images = [Raster(f"s2c/7/2020{day}/B2.tif", {"location": "7", "stem": f"2020{day}"}) for day in ("0302", "0611", "1208")]
    scenes = [f"S1{letter}_2020{day}" for letter, day in zip("BAB", radar, strict=True)]
    found = [Raster(f"s1/7/{scene}/VV.tif", {"location": "7", "scene": scene}) for scene in scenes]
    joined = join_rasters(layer, images, lambda _: found)
    assert [joined[image.path][0] for image in images] == [item.path for item in found]
    lines: list[str] = []
    assert check_joined(layer, images, joined, partial=False, warn=lines.append) == {image.path for image in images}
    assert lines == (
        [
            f"s2c/7/20200611/B2.tif: 93 days from s1/7/{scenes[1]}/VV.tif, and 1 of 3 images are made of rasters more than 60 days apart; "
            "a place may lack one season of one sensor and another of the other: remove those without a partner"
        ]
        if told
        else []
    )


CARD = """
name: hill
title: Hill
description: One image.
licence: {name: mine}
layers: [{pattern: "images/{stem}.tif", sensor: rgb}]
labels: [{pattern: "labels/{stem}.tif", classes_of: worldcover, align: resample}]
"""


def test_labels_on_another_grid_are_brought_onto_that_of_the_image_by_nearest_neighbour(tmp_path):
    card, folder = tmp_path / "hill.yaml", tmp_path / "set"
    card.write_text(CARD)
    public_stores.raster(folder / "images" / "a.tif", np.zeros((3, 24, 24), np.uint8))
    (folder / "labels.zip").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 of 1 images have no mask, .*; labels.zip lies there: unpack it first"):
        prepare(str(card), folder, tmp_path / "out")
    (folder / "labels").mkdir()
    truth = draw(0, (24, 24), 0, 11, "uint8")
    stored = np.array([*range(10, 91, 10), 95, 100], np.uint8)[truth]
    # Each pixel is four in the label, and others lie around: what is between two classes would be a third.
    fine = np.pad(stored.repeat(2, axis=0).repeat(2, axis=1), 6, constant_values=10)
    label = folder / "labels" / "a.tif"
    write_raster(label, fine[None], crs="EPSG:32633", transform=(5, 0, 365_970, 0, -5, 5_800_030))
    assert_labels(prepare(str(card), folder, tmp_path / "out")[0], {"a": truth}, "set")
    write_raster(label, stored[None], crs="EPSG:32633", transform=(10, 0, 466_000, 0, -10, 5_800_000))
    with pytest.raises(DataError, match=r"lies at \(366000.0, 5800000.0\), that of its mask"):
        prepare(str(card), folder, tmp_path / "far")


def test_missing_band_is_named(tmp_path):
    public_stores.plant_trees(tmp_path / "set", places=1, seasons=2)
    min((tmp_path / "set" / "s2c" / "0000000").rglob("B11.tif")).unlink()
    with pytest.raises(DataError, match=r"1 of 2 images lack a band or a season"):
        prepare("ssl4eo-s12", tmp_path / "set", tmp_path / "out")
