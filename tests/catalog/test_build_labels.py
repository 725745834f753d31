"""Labels of other codes, schemes and grids. Oracles: brute force over pixels; rasterio.warp.reproject; what was written."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio import Affine
from rasterio.warp import Resampling, reproject

from tilth.catalog import align
from tilth.catalog.build import build_catalog
from tilth.catalog.config import BuildConfig
from tilth.catalog.discover import Problem
from tilth.classes import ClassScheme
from tilth.errors import ConfigError, DataError, UsageError
from tilth.imagery.read import read_info, read_label

from .conftest import CLASSES, noise, write_scheme

UTM, GRID = "EPSG:32631", (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0)


@pytest.fixture
def scene(tmp_path, write_scene) -> Path:
    write_scheme(tmp_path)
    return write_scene(tmp_path / "scenes" / "s.tif", noise("s", 3, 40, 50), transform=GRID)


def build(scenes, labels, notes=None, problems=None, **options):
    options = {"derived": str(Path(scenes).parent / "made")} | options
    tree = {"inputs": [str(scenes)], "sensor": "rgb", "labels": str(labels)} | options
    return build_catalog(BuildConfig.parse(tree), notes=[] if notes is None else notes, problems=problems)


def fine_scheme(folder: Path, count: int = 4) -> str:
    names = ("lake", "river", "wood", "ice")[:count]
    tree = {"name": "fine", "classes": [{"name": name, "colour": [i, i, i]} for i, name in enumerate(names)]}
    (folder / "fine.json").write_text(json.dumps(tree))
    return str(folder / "fine.json")


def map_from_fine(folder: Path, mapping) -> None:
    tree = json.loads((folder / "classes.json").read_text())
    (folder / "classes.json").write_text(json.dumps(tree | {"mappings": {"fine": mapping}}))


FINE = {"lake": "water", "river": "water", "wood": "field", "ice": "ignore"}


def test_labels_that_need_nothing_write_nothing(tmp_path, scene, write_scene):
    label = write_scene(tmp_path / "labels" / "s.tif", noise("l", 1, 40, 50) % 3, transform=GRID)
    assert build(scene.parent, label.parent, derived=None).tile(0).label == str(label)
    build(scene.parent, label.parent)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("as_file", [True, False])
def test_codes_become_ids_by_name_or_number(tmp_path, scene, write_scene, as_file):
    stored = np.array([10, 20, 95], np.uint8)[noise("l", 1, 40, 50) % 3]
    write_scene(tmp_path / "labels" / "s.tif", stored, transform=GRID)
    codes = {"values": {10: "Field", 20: 2, 95: "ignore"}}
    if as_file:
        (tmp_path / "codes.yaml").write_text("values: {10: Field, 20: 2, 95: ignore}\n")
    tile = build(scene.parent, tmp_path / "labels", label_codes=str(tmp_path / "codes.yaml") if as_file else codes).tile(0)
    expected = np.select([stored == 10, stored == 20], [1, 2], 255)[0]
    assert np.array_equal(read_label(tile.label), expected)
    assert read_info(tile.label).transform == GRID


def test_colours_of_pairs_become_ids_and_a_bad_mask_is_left_out(tmp_path):
    root = tmp_path / "pairs"
    write_colours = np.array([(60, 16, 152), (226, 169, 41), (0, 0, 0)], np.uint8)
    for name in ("a", "b"):
        ids = noise(name, 12, 20) % 3
        for kind in ("images", "masks"):
            (root / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(f"i{name}", 12, 20, 3)).save(root / "images" / f"{name}.png")
        Image.fromarray(write_colours[ids]).save(root / "masks" / f"{name}.png")
    broken = write_colours[noise("b", 12, 20) % 3]
    broken[0, 0] = (1, 2, 3)
    Image.fromarray(broken).save(root / "masks" / "b.png")
    write_scheme(root)
    codes = {"colours": {"#3C1098": "water", "E2A929": "field", "000000": "ignore"}}
    options = {"inputs": [str(root)], "sensor": "rgb", "label_codes": codes, "derived": str(tmp_path / "made")}
    problems: list[Problem] = []
    catalog = build_catalog(BuildConfig.parse(options), problems=problems)
    assert catalog.column("tile_id") == ["pairs/a"]
    expected = noise("a", 12, 20) % 3
    assert np.array_equal(read_label(catalog.tile(0).label), np.where(expected == 2, 255, expected))
    assert problems[0].file == str(root / "images" / "b.png")
    assert "010203" in problems[0].reason
    with pytest.raises(DataError, match="010203"):
        build_catalog(BuildConfig.parse(options | {"strict": True}))


def test_a_scheme_is_mapped_many_to_one(tmp_path, scene, write_scene):
    ids = noise("l", 1, 40, 50) % 4
    write_scene(tmp_path / "labels" / "s.tif", ids, transform=GRID)
    map_from_fine(tmp_path, FINE)
    catalog = build(scene.parent, tmp_path / "labels", label_scheme=fine_scheme(tmp_path))
    assert np.array_equal(read_label(catalog.tile(0).label), np.array([0, 0, 1, 255])[ids[0]])
    assert catalog.scheme().names == CLASSES
    codes = {"values": {100: "lake", 101: "wood", 0: "ignore"}}
    write_scene(tmp_path / "labels" / "s.tif", np.array([100, 101, 0], np.uint8)[ids % 3], transform=GRID)
    catalog = build(scene.parent, tmp_path / "labels", label_scheme=fine_scheme(tmp_path), label_codes=codes)
    assert np.array_equal(read_label(catalog.tile(0).label), np.array([0, 1, 255])[ids[0] % 3])


def test_a_legend_with_gaps_is_refused_before_anything_is_written(tmp_path, scene, write_scene):
    write_scene(tmp_path / "labels" / "s.tif", noise("l", 1, 40, 50) % 4, transform=GRID)
    fine = fine_scheme(tmp_path)
    for mapping, options, message in [
        (None, {"label_scheme": fine}, "scheme 'tiny' does not say what classes of 'fine' mean; add to it: mappings: {fine: {lake: CLASS"),
        ({"lake": "water", "2": 1}, {"label_scheme": fine}, "maps 2 of 4 classes of 'fine'; no entry for river, ice; add them"),
        ({"lake": "watr"}, {"label_scheme": fine}, "no class 'watr' to map to; did you mean 'water'"),
        (FINE | {"sea": "water"}, {"label_scheme": fine}, "scheme 'fine' has no class 'sea'; choices"),
        (FINE | {9: 1}, {"label_scheme": fine}, "maps class 9 of 'fine', which has classes 0 to 3"),
        (FINE, {"label_codes": {"values": {1: 7}}}, "class 7 is not in scheme 'tiny', which has classes 0 to 2"),
        (FINE, {"label_codes": {"values": {1: "feild"}}}, "label_codes: scheme 'tiny' has no class 'feild'; did you mean 'field'"),
        (FINE, {"label_codes": {"value": {1: 1}}}, "did you mean 'values'"),
    ]:
        write_scheme(tmp_path)
        if mapping is not None:
            map_from_fine(tmp_path, mapping)
        with pytest.raises(ConfigError, match=message):
            build(scene.parent, tmp_path / "labels", **options)
    assert not (tmp_path / "made").exists()


def test_a_value_outside_of_the_legend_stops_the_build_and_leaves_no_file(tmp_path, scene, write_scene):
    stored = noise("l", 1, 40, 50) % 4
    stored[0, 3, 4] = 17
    write_scene(tmp_path / "labels" / "s.tif", stored, transform=GRID)
    map_from_fine(tmp_path, FINE)
    with pytest.raises(DataError, match=r"labels/s\.tif.*17"):
        build(scene.parent, tmp_path / "labels", label_scheme=fine_scheme(tmp_path))
    assert not (tmp_path / "made").exists()


def test_mappings_survive_a_catalog(tmp_path, scene, write_scene):
    from tilth.catalog.table import Catalog

    write_scene(tmp_path / "labels" / "s.tif", noise("l", 1, 40, 50) % 3, transform=GRID)
    map_from_fine(tmp_path, {"lake": "water", "1": "water", "2": 1, "ice": "ignore"})
    catalog = build(scene.parent, tmp_path / "labels")
    assert Catalog.open(catalog.save(tmp_path / "c.parquet")).scheme() == catalog.scheme()
    assert catalog.scheme().mapping_from(ClassScheme.load(fine_scheme(tmp_path))) == {0: 0, 1: 0, 2: 1, 3: 255, 255: 255}


@pytest.mark.parametrize(
    ("crs", "grid", "size"),
    [
        (UTM, (30.0, 0.0, 499_900.0, 0.0, -30.0, 5_000_050.0), (12, 30)),
        (UTM, (3.0, 0.0, 500_001.0, 0.0, -3.0, 4_999_903.0), (200, 120)),
        (UTM, (8.0, 3.0, 499_900.0, 3.0, -8.0, 4_999_950.0), (60, 70)),
        ("EPSG:4326", (0.0002, 0.0, 2.9995, 0.0, -0.0002, 45.1540), (40, 30)),
        ("EPSG:3857", (14.0, 0.0, 333_900.0, 0.0, -14.0, 5_645_650.0), (30, 40)),
    ],
)
@pytest.mark.parametrize("side", [16, 1024])
def test_a_label_of_another_grid_is_taken_at_pixel_centres(tmp_path, scene, write_scene, monkeypatch, crs, grid, size, side):
    monkeypatch.setattr(align, "_SIDE", side)
    monkeypatch.setattr(align, "_LARGEST", 3000)
    stored = noise("l", 1, *size) % 3
    stored[0, 5:9] = 255
    write_scene(tmp_path / "labels" / "s.tif", stored, crs=crs, transform=grid)
    label = read_label(build(scene.parent, tmp_path / "labels", align="resample").tile(0).label)
    expected = np.full((40, 50), 255, np.uint8)
    reproject(
        stored[0],
        expected,
        src_transform=Affine(*grid),
        src_crs=crs,
        src_nodata=255,
        dst_transform=Affine(*GRID),
        dst_crs=UTM,
        dst_nodata=255,
        resampling=Resampling.nearest,
        tolerance=0,
    )
    assert (expected != 255).mean() > 0.15
    assert (label != expected).mean() <= (0 if crs == UTM else 0.005)
    if crs == UTM and not grid[1]:
        rows, columns = np.mgrid[:40, :50]
        column = np.floor((500_000 + (columns + 0.5) * 10 - grid[2]) / grid[0]).astype(int)
        row = np.floor((5_000_000 - (rows + 0.5) * 10 - grid[5]) / grid[4]).astype(int)
        inside = (column >= 0) & (row >= 0) & (column < size[1]) & (row < size[0])
        by_hand = np.where(inside, stored[0][row.clip(0, size[0] - 1), column.clip(0, size[1] - 1)], 255)
        assert np.array_equal(label, by_hand)


def test_nodata_that_is_no_class_and_other_types_keep_their_meaning(tmp_path, scene, write_scene):
    stored = (noise("l", 1, 20, 25) % 3).astype(np.int16)
    stored[0, :4] = -9999
    grid = (20.0, 0.0, 500_000.0, 0.0, -20.0, 5_000_000.0)
    write_scene(tmp_path / "labels" / "s.tif", stored, transform=grid, nodata=-9999)
    label = read_label(build(scene.parent, tmp_path / "labels", align="resample").tile(0).label)
    assert np.array_equal(label, np.where(stored[0] < 0, 255, stored[0]).repeat(2, axis=0).repeat(2, axis=1))


def test_one_large_coded_label_serves_many_images(tmp_path, scene, write_scene):
    write_scene(tmp_path / "scenes" / "t.tif", noise("t", 3, 40, 50), transform=(10, 0, 500_500, 0, -10, 5_000_000))
    write_scene(tmp_path / "scenes" / "far.tif", noise("f", 3, 40, 50), transform=(10, 0, 600_500, 0, -10, 5_000_000))
    stored = np.array([10, 20], np.uint8)[noise("l", 1, 40, 100) % 2]
    world = write_scene(tmp_path / "world.tif", stored, transform=GRID)
    notes: list[str] = []
    catalog = build(scene.parent, world, notes, align="resample", label_codes={"values": {10: "water", 20: "rare"}})
    labels = {Path(tile.image).stem: read_label(tile.label) for tile in catalog.tiles()}
    ids = np.where(stored[0] == 10, 0, 2)
    assert np.array_equal(labels["s"], ids[:, :50])
    assert np.array_equal(labels["t"], ids[:, 50:])
    assert (labels["far"] == 255).all()
    assert "1 of 3 images are covered by no label" in notes[0]
    assert len(list((tmp_path / "made" / "decoded").rglob("*.tif"))) == 1


def test_another_grid_is_refused_unless_resampling_is_asked_for_and_possible(tmp_path, scene, write_scene):
    write_scene(tmp_path / "labels" / "s.tif", noise("l", 1, 20, 25) % 3, transform=(20.0, 0.0, 500_000.0, 0.0, -20.0, 5_000_000.0))
    with pytest.raises(DataError, match=r"scenes/s\.tif: image has 50 x 40 .*labels/s\.tif 25 x 20.*or set align to resample"):
        build(scene.parent, tmp_path / "labels")
    Image.fromarray(noise("l", 20, 25) % 3).save(tmp_path / "labels" / "s.png")
    (tmp_path / "labels" / "s.tif").unlink()
    with pytest.raises(DataError, match="without a CRS and a geotransform of both it cannot be resampled"):
        build(scene.parent, tmp_path / "labels", align="resample")
    write_scene(tmp_path / "labels" / "s.tif", noise("l", 1, 40, 50) % 3, transform=GRID)
    (tmp_path / "labels" / "s.png").unlink()
    with pytest.raises(UsageError, match="give derived"):
        build(scene.parent, tmp_path / "labels", derived=None, label_codes={"values": {0: 0, 1: 1, 2: 2}})


def test_a_label_without_a_way_to_its_image_is_named(tmp_path, scene, write_scene):
    site = 'LOCAL_CS["site",UNIT["metre",1]]'
    write_scene(tmp_path / "labels" / "s.tif", noise("l", 1, 40, 50) % 3, crs=site, transform=GRID)
    with pytest.raises(
        DataError, match=r'labels/s\.tif: cannot be resampled from LOCAL_CS\["site".* to EPSG:\d+, that of .*scenes/s\.tif: '
    ):
        build(scene.parent, tmp_path / "labels", align="resample")


def test_a_label_that_was_moved_is_resampled_again(tmp_path, scene, write_scene):
    write_scene(tmp_path / "labels" / "s.tif", np.ones((1, 4, 5), np.uint8), transform=(100.0, *GRID[1:4], -100.0, GRID[5]))
    label = tmp_path / "labels" / "s.tif"
    first = build(scene.parent, tmp_path / "labels", align="resample").tile(0).label
    assert (read_label(first) == 1).all()
    with rasterio.open(label, "r+") as file:
        file.transform = Affine(100.0, 0.0, GRID[2] + 200.0, 0.0, -100.0, GRID[5])
    # A mask beside the label counts, too.
    build(scene.parent, tmp_path / "labels", align="resample")
    assert (read_label(first)[:, :20] == 255).all()
    with rasterio.open(f"{label}.msk", "w", driver="GTiff", width=5, height=4, count=1, dtype="uint8") as file:
        file.write(np.zeros((1, 4, 5), np.uint8))
        file.update_tags(INTERNAL_MASK_FLAGS_1="2")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(build, scene.parent, tmp_path / "labels", align="resample").result()
    assert (read_label(first) == 255).all()
