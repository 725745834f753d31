"""MiniFrance, DFC2022 and GID on stand-ins in the original layouts: masks, windows, places without labels, and the splits of a paper."""

import ast
import csv
import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilth
from support.land_use_sets import plant_dfc2022, plant_gid, plant_minifrance
from support.public_sets import Ids, mask
from tilth.catalog.config import SplitConfig
from tilth.catalog.split import split_catalog, subset
from tilth.catalog.table import Catalog
from tilth.classes import get_scheme
from tilth.datasets.options import PrepareConfig
from tilth.datasets.prepare import prepare_dataset
from tilth.datasets.shelf import load_card
from tilth.errors import CatalogError, ConfigError, DataError
from tilth.imagery.read import read_label, read_pixels
from tilth.sensors import get_sensor

SETS: dict[str, tuple[Callable[[Path], Ids], dict[str | None, int]]] = {
    "minifrance": (plant_minifrance, {None: 10}),
    "dfc2022": (plant_dfc2022, {"train": 4, "pool": 2, "val": 2}),
    "gid-15": (partial(plant_gid, classes=15), {None: 4}),
    "gid-5": (partial(plant_gid, classes=5), {None: 4}),
}


def prepare(name: str, folder: Path, out: Path, **options: Any) -> tuple[Catalog, list[str]]:
    lines: list[str] = []
    done = prepare_dataset(PrepareConfig(name=name, folder=folder, **options), out, warn=lines.append)
    return Catalog.open(done.path), lines


@pytest.mark.parametrize("name", SETS)
def test_stand_in_becomes_a_catalog_with_exact_masks(name, tmp_path):
    plant, splits = SETS[name]
    truth = plant(tmp_path / "set")
    catalog, lines = prepare(name, tmp_path / "set", tmp_path / "out")
    assert catalog.counts("split") == splits
    assert all("images here" in line for line in lines)
    # Two windows fit into an image; the rest of 16 pixels is left out.
    assert {tile.window for tile in catalog.tiles()} == {(0, 0, 256, 256), (256, 0, 256, 256)}
    seen = set()
    for tile in catalog.labelled().tiles():
        place = tile.tile_id.removeprefix(f"{name}/").rpartition("_r")[0]
        column, row, width, height = tile.window
        np.testing.assert_array_equal(read_label(tile.label, tile.window), truth[place][row : row + height, column : column + width])
        seen.add(place)
    assert seen == set(truth)
    assert catalog.scheme() == get_scheme("minifrance" if name in {"minifrance", "dfc2022"} else name)


def test_rest_at_the_border_is_taken_on_request_and_other_windows_keep_the_rule(tmp_path):
    plant_minifrance(tmp_path / "set")
    shifted, _ = prepare("minifrance", tmp_path / "set", tmp_path / "out", edge="shift")
    assert {tile.window[:2] for tile in shifted.tiles()} == {(x, y) for x in (0, 256, 272) for y in (0, 16)}
    smaller, _ = prepare("minifrance", tmp_path / "set", tmp_path / "out2", window_px=128)
    assert {tile.window[:2] for tile in smaller.tiles()} == {(x, y) for x in (0, 128, 256, 384) for y in (0, 128)}
    with pytest.raises(ConfigError, match="prepare: edge=drop needs window_px: images stay whole"):
        prepare("minifrance", tmp_path / "set", tmp_path / "out4", window_px=0, edge="drop")
    # An image that is smaller than a window is not lost.
    whole, _ = prepare("minifrance", tmp_path / "set", tmp_path / "out3", window_px=1024)
    assert {tile.window for tile in whole.tiles()} == {(0, 0, 528, 272)}


def test_bands_of_gid_with_near_infrared_keep_their_order(tmp_path):
    plant_gid(tmp_path / "set", 15)
    catalog, _ = prepare("gid-15", tmp_path / "set", tmp_path / "out", layer="nir_rgb")
    assert catalog.sensor().band_names == ("nir", "red", "green", "blue")
    assert read_pixels(catalog.tile(0).image, catalog.tile(0).window).data.shape == (4, 256, 256)


def test_city_without_labels_is_a_pool_and_a_lost_mask_is_an_error(tmp_path):
    plant_minifrance(tmp_path / "set")
    (tmp_path / "set" / "Nantes" / "UrbanAtlas" / "44-1_UA2012.tif").unlink()
    with pytest.raises(DataError, match=r"44-1.tif: 1 of 4 images have no mask, expected Nantes/UrbanAtlas/44-1_UA2012.tif"):
        prepare("minifrance", tmp_path / "set", tmp_path / "out")
    for file in (tmp_path / "set").rglob("*_UA2012.tif"):
        file.unlink()
    with pytest.raises(DataError, match="5 of 5 images have no mask"):
        prepare("minifrance", tmp_path / "set", tmp_path / "out")


def test_value_that_is_no_class_is_refused(tmp_path):
    truth = plant_gid(tmp_path / "set", 5)
    stem = next(iter(truth))
    (tmp_path / "set" / "label_5classes" / f"{stem}_label.tif").unlink()
    mask(tmp_path / "set" / "label_5classes" / f"{stem}_label.tif", np.full((272, 528, 3), 77, np.uint8))
    with pytest.raises(DataError, match="colour #4D4D4D in 143,616 pixels"):
        prepare("gid-5", tmp_path / "set", tmp_path / "out")


def test_published_layouts_are_those_that_torchgeo_reads():
    pytest.importorskip("torchgeo")
    archives = load_card("dfc2022").archives
    spec = importlib.util.find_spec("torchgeo")
    tree = ast.parse((Path(str(spec and spec.origin)).parent / "datasets" / "dfc2022.py").read_text())
    (metadata,) = [
        ast.literal_eval(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", None) == "metadata" and node.value is not None
    ]
    assert {entry["filename"]: entry["md5"] for entry in metadata.values()} == {name: item.md5 for name, item in archives.items()}
    assert {entry["directory"] for entry in metadata.values()} == set(load_card("dfc2022").splits.folders)


@pytest.fixture(scope="module")
def france(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiles of 16 pixels of the stand-in: 33 x 17 an image, four images with labels."""
    folder = tmp_path_factory.mktemp("france")
    plant_minifrance(folder / "set")
    prepare("minifrance", folder / "set", folder / "out", window_px=16)
    return folder / "out" / "catalog.parquet"


THIRDS = {"train": 0.4, "val": 0.1, "test": 0.5}
SUBSETS = {"S": 2, "M": 40, "L": 100}


def split(catalog: Path, out: Path, **options: Any) -> Catalog:
    tilth.catalog_split(catalog=catalog, out=out, **({"fractions": THIRDS} | options))
    return Catalog.open(out)


def test_split_of_the_paper_is_by_tile_and_its_subsets_are_nested(france, tmp_path):
    manifest = tmp_path / "tiles.csv"
    options = {"unit": "tile", "unlabelled": "pool", "subsets": SUBSETS, "seed": 3}
    catalog = split(france, tmp_path / "tile.parquet", manifest=manifest, **options)
    labelled = 4 * 33 * 17
    counts = catalog.counts("split")
    assert counts["pool"] == 33 * 17
    assert {name: counts[name] for name in THIRDS} == pytest.approx({name: share * labelled for name, share in THIRDS.items()}, abs=1)
    assert {name.split("/")[1] for name in catalog.filter(split="pool").column("tile_id")} == {"Lorient"}
    rows = list(csv.DictReader(manifest.open()))
    assert [row["tile_id"] for row in rows] == catalog.column("tile_id")
    assert {row["seed"] for row in rows} == {"3"}
    assert [(int(row["column"]), int(row["row"])) for row in rows] == [tile.window[:2] for tile in catalog.tiles()]
    # What a training takes by labelled_percent are the tiles that the manifest names, each subset inside the next.
    members: set[str] = set()
    for name, percent in SUBSETS.items():
        members |= {row["tile_id"] for row in rows if row["subset"] == name}
        assert set(subset(catalog, percent=percent, drop_others=True).column("tile_id")) == members
    assert len(members) == counts["train"]
    with pytest.raises(ConfigError, match=r"a manifest is a CSV file; expected a name that ends in .csv"):
        split(france, tmp_path / "o.parquet", manifest=france)
    again = split(france, tmp_path / "again.parquet", **options)
    assert again.column("split") == catalog.column("split")
    assert again.column("subset") == catalog.column("subset")


@pytest.mark.parametrize(("whole", "places"), [({"unit": "image"}, 5), ({"group": "^minifrance/([^/]+)/"}, 4)])
def test_images_and_cities_stay_whole_on_request(whole, places, france, tmp_path):
    fractions = {"train": 0.5, "test": 0.5}
    catalog = split(france, tmp_path / "out.parquet", unlabelled="pool", fractions=fractions, rank_labels=False, **whole)
    homes: dict[str, set[str]] = {}
    for name, split_name in zip(catalog.column("tile_id"), catalog.column("split"), strict=True):
        city, stem = name.rpartition("_r")[0].split("/")[1:]
        homes.setdefault(city if "group" in whole else stem, set()).add(split_name)
    assert len(homes) == places
    assert all(len(found) == 1 for found in homes.values())
    assert {"train", "test", "pool"} == set(catalog.counts("split"))


def test_images_are_set_aside_before_the_others_are_divided(france, tmp_path):
    options = {"unit": "tile", "set_aside": {"pool": 2}, "rank_labels": False}
    catalog = split(france, tmp_path / "out.parquet", **options)
    pool = set(catalog.filter(split="pool").counts("image"))
    assert len(pool) == 2
    assert not pool & set(catalog.filter(split=list(THIRDS)).counts("image"))
    others = [set(split(france, tmp_path / "o.parquet", **options, seed=seed).filter(split="pool").counts("image")) for seed in range(1, 6)]
    assert any(other != pool for other in others)
    with pytest.raises(CatalogError, match="set_aside: 5 images asked for as 'pool', 5 are there to be divided"):
        split(france, tmp_path / "o.parquet", set_aside={"pool": 5})
    with pytest.raises(CatalogError, match=r"2 images cannot fill 3 splits \(train, val, test\); ask for fewer splits"):
        split(france, tmp_path / "o.parquet", unit="image", set_aside={"pool": 3})


def test_images_of_another_set_are_left_out_by_name(tmp_path):
    """The ten images of the fine set are among those of the coarse one, under the same names in another folder."""
    plant_gid(tmp_path / "coarse", 5, images=4)
    plant_gid(tmp_path / "fine", 15, images=2)
    prepare("gid-5", tmp_path / "coarse", tmp_path / "gid-5")
    fine, _ = prepare("gid-15", tmp_path / "fine", tmp_path / "gid-15")
    names = {Path(image).name for image in fine.counts("image")}
    catalog = split(
        tmp_path / "gid-5" / "catalog.parquet",
        tmp_path / "pool.parquet",
        unit="image",
        fractions={"train": 1.0},
        without=(tmp_path / "gid-15" / "catalog.parquet",),
        rank_labels=False,
    )
    assert catalog.counts("split") == {"train": 4, None: 4}
    only = split(tmp_path / "pool.parquet", tmp_path / "only.parquet", keep_splits=True, only=("train",), rank_labels=False)
    assert only.column("tile_id") == catalog.filter(split="train").column("tile_id")
    with pytest.raises(CatalogError, match="only: no tile in split val; splits there: none, train"):
        split(tmp_path / "pool.parquet", tmp_path / "only.parquet", keep_splits=True, only=("val",), rank_labels=False)
    assert {Path(tile.image).name for tile in catalog.tiles() if tile.split is None} == names
    plant_minifrance(tmp_path / "france")
    prepare("minifrance", tmp_path / "france", tmp_path / "minifrance")
    with pytest.raises(CatalogError, match=r"minifrance/catalog.parquet has no image of this catalog by file name: '13-1' there, 'GF2"):
        split(tmp_path / "only.parquet", tmp_path / "o.parquet", without=(tmp_path / "minifrance" / "catalog.parquet",))


def test_dots_belong_to_names_of_images(tmp_path):
    """Only the suffix is left out of the comparison: ``a.2.tif`` is not ``a.1.png``."""

    def catalog(name: str, *images: str) -> Path:
        rows = [{"tile_id": f"{name}/{image}", "image": f"/{name}/{image}", "window": (0, 0, 8, 8), "sensor": "rgb"} for image in images]
        return Catalog.from_rows(rows, {"rgb": get_sensor("rgb")}).save(tmp_path / f"{name}.parquet")

    config = SplitConfig(unit="image", fractions={"train": 1.0}, without=(catalog("fine", "a.1.png"),), rank_labels=False)
    found = split_catalog(Catalog.open(catalog("coarse", "a.1.tif", "a.2.tif")), config)
    assert found.column("split") == [None, "train"]


def test_labels_of_splits_that_are_not_asked_for_are_not_read(france, tmp_path, monkeypatch):
    monkeypatch.setattr("tilth.catalog.split.label_ranks", lambda *_: pytest.fail("read"))
    pool = split(france, tmp_path / "pool.parquet", unit="tile", unlabelled="pool", only=("pool",), subsets=SUBSETS)
    assert pool.counts("split") == {"pool": 33 * 17}


def test_subsets_without_labels_to_rank_are_refused(france, tmp_path):
    with pytest.raises(CatalogError, match="no labelled tile in split 'train'; splits there: learn, test"):
        split(france, tmp_path / "o.parquet", unit="tile", fractions={"learn": 0.5, "test": 0.5}, subsets=SUBSETS)


def test_ten_images_become_six_two_and_two():
    rows = [
        {"tile_id": f"{image}/{part}", "image": f"/gid/{image}.tif", "window": (256 * part, 0, 256, 256), "sensor": "rgb"}
        for image in range(10)
        for part in range(3)
    ]
    config = SplitConfig(unit="image", fractions={"train": 0.6, "val": 0.2, "test": 0.2})
    catalog = split_catalog(Catalog.from_rows(rows, {"rgb": get_sensor("rgb")}), config)
    assert {name: len(catalog.filter(split=name).counts("image")) for name in config.fractions} == {"train": 6, "val": 2, "test": 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep_splits": True, "unit": "tile"}, "keep_splits leaves all splits as they are; leave unit out"),
        ({"set_aside": {"train": 3}}, "set_aside: 'train' is one of fractions"),
        ({"set_aside": {"pool": 0}}, "set_aside.pool"),
        ({"subsets": {"S": 2}, "rank_labels": False}, "label_tiles, label_percent and subsets need rank_labels"),
        ({"unit": "city"}, "unit"),
        ({"unit": "tile", "group": "(a)"}, "unit 'tile' and group both say what stays together"),
        ({"group": "city"}, "group needs exactly one group"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        SplitConfig.parse(options)


def test_places_are_needed_to_divide_places(tmp_path):
    plant_gid(tmp_path / "set", 5)
    prepare("gid-5", tmp_path / "set", tmp_path / "out")
    with pytest.raises(CatalogError, match="unit=location: there are tiles without location_id"):
        split(tmp_path / "out" / "catalog.parquet", tmp_path / "o.parquet", unit="location")
    with pytest.raises(CatalogError, match=r"group: '/\(city\)' is not found in tile id 'gid-5/GF2_PMS1__L1A0000000000"):
        split(tmp_path / "out" / "catalog.parquet", tmp_path / "o.parquet", group="/(city)")
    with pytest.raises(CatalogError, match="is not found in tile id 'gid-5/GF2_PMS1__L1A0000000000"):
        split(tmp_path / "out" / "catalog.parquet", tmp_path / "o.parquet", group="^gid-5/|(city)")
    with pytest.raises(CatalogError, match="no tile is left to be divided"):
        split(tmp_path / "out" / "catalog.parquet", tmp_path / "o.parquet", without=(tmp_path / "out" / "catalog.parquet",))
