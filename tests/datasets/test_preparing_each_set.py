"""Every card that comes with tilth, on a stand-in in the original layout: exact masks, splits, sensor, licence; originals untouched."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tilth
from support import public_sets
from support.public_pools import STAND_INS
from tilth.catalog.table import Catalog
from tilth.datasets.options import PrepareConfig
from tilth.datasets.prepare import prepare_dataset
from tilth.datasets.shelf import card_names, load_card
from tilth.imagery.read import read_info, read_label

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "vhr" / "dubai_mbrsc"


def prepare(name: str, folder: Path, out: Path, **options: object) -> tuple[Catalog, list[str]]:
    """Prepare, and return the saved catalog and the warnings."""
    lines: list[str] = []
    done = prepare_dataset(PrepareConfig(name=name, folder=folder, **options), out, warn=lines.append)
    assert done.path == out.absolute() / "catalog.parquet"
    catalog = Catalog.open(done.path)
    assert catalog.fingerprint() == done.catalog.fingerprint()
    return catalog, lines


def digest(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.rglob("*")) if file.is_file()
    }


def assert_masks(catalog: Catalog, truth: public_sets.Ids, prefix: str) -> None:
    """Every labelled tile holds exactly these ids, and no label is missing; a stand-in fits into one window."""
    labelled = {tile.tile_id.removesuffix("_r0_c0"): tile for tile in catalog.tiles() if tile.label}
    assert set(labelled) == {f"{prefix}/{name}" for name in truth}
    for name, ids in truth.items():
        np.testing.assert_array_equal(read_label(labelled[f"{prefix}/{name}"].label), ids)


def assert_georeferenced(catalog: Catalog) -> None:
    tile = catalog.tile(0)
    image, label = read_info(tile.image), read_info(tile.label)
    assert image.crs == "EPSG:32633"
    assert (label.crs, label.transform) == (image.crs, image.transform)
    assert catalog.table["geometry"].null_count == 0
    # Near infrared is shown as red.
    assert catalog.sensor().rgb == ("nir", "red", "green")


SETS = {
    "loveda": (public_sets.plant_loveda, {"train": 4, "val": 4, "test": 4}, {}, "rgb"),
    "isprs-potsdam": (public_sets.plant_potsdam, {"train": 24, "test": 14}, {}, "rgb"),
    "isprs-vaihingen": (public_sets.plant_vaihingen, {"train": 16, "test": 17}, {}, "irrg"),
    "dubai-mbrsc": (public_sets.plant_dubai, {None: 72}, {}, "rgb"),
    "image-mask": (public_sets.plant_pairs, {"train": 3, "val": 1, "test": 2}, {"sensor": "rgb", "prefix": "image-mask"}, "rgb"),
}


@pytest.mark.parametrize("name", SETS)
def test_stand_in_becomes_a_catalog_with_exact_masks(name, tmp_path):
    plant, splits, options, sensor = SETS[name]
    truth = plant(tmp_path / "set")
    before = digest(tmp_path / "set")
    catalog, lines = prepare(name, tmp_path / "set", tmp_path / "out", **options)
    assert_masks(catalog, truth, name)
    assert catalog.counts("split") == splits
    assert set(catalog.counts("sensor")) == {sensor}
    assert digest(tmp_path / "set") == before
    if sensor == "irrg":
        assert_georeferenced(catalog)
    card = load_card(name)
    if card.homepage:
        assert set(catalog.counts("licence")) == {card.licence.name}
        assert set(catalog.counts("source")) == {card.title}
    # Stand-ins of two images a folder are smaller than what was published; nothing else is odd.
    assert all("as published" in line for line in lines)
    assert len(lines) == (3 if name == "loveda" else 0)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == sorted(
        ["catalog.parquet", "dataset.json"] + ["masks"] * (name != "image-mask")
    )


def test_every_card_has_a_stand_in():
    # Those of radar and optical bands, and of land use, are prepared in test_preparing_radar_and_optical and ..._land_use_sets.
    radar = {"ssl4eo-s12", "ssl4eo-s12-nol", "ssl4eo-s12-dw", "ssl4eo-s12-osm", "dfc2020", "dfc2020-lmdb"}
    land_use = {"minifrance", "dfc2022", "gid-15", "gid-5"}
    assert set(card_names()) == {*SETS, *STAND_INS, *radar, *land_use, "image-mask-colours"}


def test_plain_masks_are_used_where_they_lie(tmp_path):
    truth = public_sets.plant_pairs(tmp_path / "set")
    catalog, _ = prepare("image-mask", tmp_path / "set", tmp_path / "out", sensor="rgb", licence="CC0-1.0", source="me")
    assert_masks(catalog, truth, "set")
    assert all(Path(tile.label).parent == tmp_path / "set" / "masks" for tile in catalog.tiles())
    assert catalog.counts("licence") == {"CC0-1.0": 6}
    assert catalog.counts("source") == {"me": 6}
    assert catalog.scheme().names == ("land", "water")


def test_without_split_files_there_are_no_splits(tmp_path):
    public_sets.plant_pairs(tmp_path / "set", splits=False)
    catalog, lines = prepare("image-mask", tmp_path / "set", tmp_path / "out", sensor="rgb")
    assert catalog.counts("split") == {None: 6}
    assert lines == []


def test_colour_masks_follow_the_scheme_of_the_folder(tmp_path):
    truth = public_sets.plant_pairs(tmp_path / "set")
    table = np.array([[9, 9, 9], [0, 0, 255]], np.uint8)
    for name, ids in truth.items():
        truth[name] = ids % 2
        Image.fromarray(table[ids % 2]).save(tmp_path / "set" / "masks" / f"{name}.png")
    catalog, _ = prepare("image-mask-colours", tmp_path / "set", tmp_path / "out", sensor="rgb")
    assert_masks(catalog, truth, "set")


def test_other_layer_of_a_place_is_taken_on_request(tmp_path):
    truth = public_sets.plant_potsdam(tmp_path / "set", bands=4)
    catalog, _ = prepare("isprs-potsdam", tmp_path / "set", tmp_path / "out", layer="rgbn")
    assert_masks(catalog, truth, "isprs-potsdam")
    assert catalog.sensor().band_names == ("red", "green", "blue", "nir")


def test_scenes_are_cut_as_asked(tmp_path):
    truth = public_sets.plant_pairs(tmp_path / "set")
    catalog, _ = prepare("image-mask", tmp_path / "set", tmp_path / "out", sensor="rgb", window_px=16, stride_px=12)
    # 40 pixels: windows at 0, 12 and 24, which ends at the edge.
    assert len(catalog) == 6 * 9
    assert {tile.window for tile in catalog.tiles()} == {(column, row, 16, 16) for column in (0, 12, 24) for row in (0, 12, 24)}
    tile = next(tile for tile in catalog.tiles() if tile.tile_id == "set/p3_r12_c24")
    np.testing.assert_array_equal(read_label(tile.label, tile.window), truth["p3"][12:28, 24:40])


def test_big_scenes_are_cut_by_default_and_whole_on_request():
    card = load_card("isprs-vaihingen")
    assert PrepareConfig(name="x", folder=".").windows(card).window_px == 1024
    assert PrepareConfig(name="x", folder=".", stride_px=512).windows(card).stride_px == 512
    assert PrepareConfig(name="x", folder=".", window_px=0).windows(card).window_px is None


def test_partial_goes_on_with_what_is_there(tmp_path):
    truth = public_sets.plant_loveda(tmp_path / "set")
    gone = next(name for name in truth if name.startswith("Val/Urban"))
    (tmp_path / "set" / "Val" / "Urban" / "masks_png" / f"{gone.split('/')[-1]}.png").unlink()
    del truth[gone]
    catalog, lines = prepare("loveda", tmp_path / "set", tmp_path / "out", partial=True)
    assert_masks(catalog, truth, "loveda")
    assert [line for line in lines if "1 of 8 images have no mask" in line and "kept without a label" in line]
    assert catalog.filter(tile_id=f"loveda/{gone}").column("label_kind") == ["none"]


def test_out_folder_inside_the_data_set_is_not_searched(tmp_path):
    truth = public_sets.plant_loveda(tmp_path / "set")
    for _ in range(2):
        catalog, _ = prepare("loveda", tmp_path / "set", tmp_path / "set" / "out")
        assert_masks(catalog, truth, "loveda")


def test_own_card_is_one_file(tmp_path):
    """Two cities in folders, noisy palette masks, a split by city."""
    folder = tmp_path / "mine"
    truth = {}
    for seed, city in enumerate(("ulm", "bonn")):
        public_sets.picture(folder / city / "a.tif", seed, bands=4)
        ids = public_sets.draw(seed, 3).astype(np.uint8)
        palette = Image.fromarray(ids, mode="P")
        palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
        palette.save(folder / city / "a_osm.png")
        truth[f"{city}/a"] = np.array([255, 0, 1], np.uint8)[ids]
    card = """
        name: cities
        title: Two cities
        description: Made for a test.
        homepage: https://example.org
        licence: {name: ODbL-1.0, commercial: true}
        layers: [{pattern: "{city}/{stem}.tif", sensor: rgbn, gsd_m: 0.05}]
        labels:
          - pattern: "{city}/{stem}_osm.png"
            trust: noisy
            classes: {roof: "#FF0000", tree: "#00FF00"}
            values: {0: ignore, 1: roof, 2: tree}
        splits: {by: city, stems: {train: ulm}, rest: test, protocol: ours}
    """
    (tmp_path / "cities.yaml").write_text("\n".join(line[8:] for line in card.splitlines()))
    catalog, lines = prepare(str(tmp_path / "cities.yaml"), folder, tmp_path / "out")
    assert_masks(catalog, truth, "cities")
    assert lines == []
    assert dict(zip(catalog.column("tile_id"), catalog.column("split"), strict=True)) == {"cities/bonn/a": "test", "cities/ulm/a": "train"}
    assert catalog.counts("label_kind") == {"noisy": 2}


def test_verb_says_what_was_done(tmp_path):
    public_sets.plant_dubai(tmp_path / "set")
    result = tilth.datasets_prepare(name="dubai-mbrsc", folder=tmp_path / "set", out=tmp_path / "out")
    assert result.summary[0] == "72 tiles of 72 images, 72 with labels (no split 72); 72 masks decoded"
    assert result.summary[1].startswith("cite: Humans in the Loop.")
    assert result.values == {"tiles": 72, "labelled": 72, "images": 72, "decoded": 72}
    assert json.loads((tmp_path / "out" / "dataset.json").read_text()) == {"name": "dubai-mbrsc", "folder": "../set"}


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared data")
def test_class_shares_of_dubai_equal_those_its_readme_states(tmp_path):
    catalog, lines = prepare("image-mask", SHARED, tmp_path / "out", sensor="rgb")
    assert lines == []
    assert catalog.counts("split") == {"train": 70, "val": 14, "test": 14}
    pixels: Counter[int] = Counter()
    for tile in catalog.tiles():
        pixels += Counter(dict(enumerate(np.bincount(read_label(tile.label).reshape(-1), minlength=256).tolist())))
    shares = {name: 100 * pixels[index] / pixels.total() for index, name in enumerate(catalog.scheme().names)}
    expected = {"water": 14.29, "land_unpaved": 51.77, "road": 9.59, "building": 12.62, "vegetation": 10.52}
    assert shares == pytest.approx(expected, abs=0.01)
    assert 100 * pixels[255] / pixels.total() == pytest.approx(1.21, abs=0.01)
