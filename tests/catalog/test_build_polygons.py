"""Polygons as labels. Oracles: pixel centres in polygons by shapely, one by one; rasterio.features on the whole grid."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from pyproj import Transformer
from rasterio.features import rasterize

from tilth.catalog import index_raster, vector_labels
from tilth.catalog.build import build_catalog
from tilth.catalog.config import BuildConfig
from tilth.errors import ConfigError, DataError, MissingFileError, UnreadableFileError, UsageError
from tilth.imagery.grid import map_position
from tilth.imagery.raster import RasterInfo, Window
from tilth.imagery.read import read_label

from .conftest import noise, write_scheme

UTM, GRID = "EPSG:32631", (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0)
SHAPES = [
    shapely.box(500_033, 4_999_650, 500_300, 4_999_912),
    shapely.Polygon([(500_200, 4_999_980), (500_470, 4_999_700), (500_150, 4_999_600)]),
    shapely.box(500_100, 4_999_700, 500_180, 4_999_790).difference(shapely.box(500_120, 4_999_720, 500_150, 4_999_760)),
    shapely.MultiPolygon([shapely.box(500_400, 4_999_800, 500_450, 4_999_900), shapely.box(499_000, 4_999_000, 500_080, 4_999_630)]),
]
NAMES = ["field", "water", "Rare", "field"]


@pytest.fixture
def scene(tmp_path, write_scene) -> Path:
    """One scene of 40 x 50 pixels of 10 m."""
    write_scheme(tmp_path)
    return write_scene(tmp_path / "scenes" / "s.tif", noise("s", 3, 40, 50), transform=GRID)


def polygons(path: Path, shapes=SHAPES, values=NAMES, crs: str | None = UTM, to: str | None = None, column: str = "kind", **more) -> Path:
    frame = geopandas.GeoDataFrame({column: values}, geometry=list(shapes), crs=crs)
    frame = frame.to_crs(to) if to else frame
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_file(path, **more)
    return path


def build(scenes, labels, notes=None, **options):
    options = {"label_column": "kind", "derived": str(Path(labels).parent / "made")} | options
    config = BuildConfig.parse({"inputs": [str(scenes)], "sensor": "rgb", "labels": str(labels)} | options)
    return build_catalog(config, notes=[] if notes is None else notes, problems=[])


def by_centre(shapes, ids, transform=GRID, size=(40, 50), outside=255):
    """The oracle: the last polygon that holds the centre of a pixel."""
    a, b, c, d, e, f = transform
    label = np.full(size, outside, np.uint8)
    for row, column in itertools.product(range(size[0]), range(size[1])):
        across, down = column + 0.5, row + 0.5
        centre = shapely.Point(a * across + b * down + c, d * across + e * down + f)
        for shape, number in zip(shapes, ids, strict=True):
            if shape.contains(centre):
                label[row, column] = number
    return label


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".shp", ".fgb", ".parquet"])
def test_a_pixel_takes_the_last_polygon_that_holds_its_centre(tmp_path, scene, suffix):
    # The spatial index of a FlatGeobuf changes the order of its features.
    options = {"SPATIAL_INDEX": "NO"} if suffix == ".fgb" else {}
    file = polygons(tmp_path / f"land{suffix}", to="EPSG:4326" if suffix == ".geojson" else None, **options)
    catalog = build(scene.parent, file)
    tile = catalog.tile(0)
    assert tile.label == str(tmp_path / "made" / "labels" / "scenes" / "s.tif")
    assert (tile.label_kind, tile.scheme) == ("clean", "tiny")
    expected = by_centre(SHAPES, [1, 0, 2, 1])
    assert set(np.unique(expected)) == {0, 1, 2, 255}
    assert np.array_equal(read_label(tile.label), expected)


def test_polygons_in_another_system_are_brought_to_each_image(tmp_path, scene, write_scene):
    import pyproj

    x, y = pyproj.Transformer.from_crs(UTM, "EPSG:3857", always_xy=True).transform(500_000, 5_000_000)
    mercator = (14.0, 0.0, x, 0.0, -14.0, y)
    write_scene(tmp_path / "scenes" / "m.tif", noise("m", 3, 40, 50), crs="EPSG:3857", transform=mercator)
    catalog = build(scene.parent, polygons(tmp_path / "land.gpkg", to="EPSG:4258"))
    there = geopandas.GeoSeries(SHAPES, crs=UTM).to_crs("EPSG:3857")
    labels = {Path(tile.image).stem: read_label(tile.label) for tile in catalog.tiles()}
    assert np.array_equal(labels["m"], by_centre(there, [1, 0, 2, 1], mercator))
    # Pixels whose centre lies within a hair of an edge may fall on either side after two transformations.
    assert (labels["s"] != by_centre(SHAPES, [1, 0, 2, 1])).mean() < 0.005


def test_a_rotated_image_is_followed(tmp_path, scene, write_scene):
    turned = (8.0, 5.0, 499_950.0, 5.0, -8.0, 4_999_850.0)
    write_scene(scene, noise("s", 3, 40, 50), transform=turned)
    label = read_label(build(scene.parent, polygons(tmp_path / "land.gpkg")).tile(0).label)
    expected = by_centre(SHAPES, [1, 0, 2, 1], turned)
    assert (expected != 255).sum() > 300
    assert np.array_equal(label, expected)


def test_blocks_give_what_one_grid_gives(tmp_path, scene, monkeypatch):
    draw = np.random.default_rng(3)
    x, y = draw.uniform(500_000, 500_500, 60), draw.uniform(4_999_600, 5_000_000, 60)
    shapes = [shapely.Point(a, b).buffer(r, 3) for a, b, r in zip(x, y, draw.uniform(5, 80, 60), strict=True)]
    ids = draw.integers(0, 3, 60)
    monkeypatch.setattr(index_raster.blocks_of, "__defaults__", (16,))
    label = read_label(build(scene.parent, polygons(tmp_path / "land.gpkg", shapes, ids)).tile(0).label)
    whole = rasterize(list(zip(shapes, ids.tolist(), strict=True)), (40, 50), fill=255, transform=rasterio.Affine(*GRID), dtype="uint8")
    assert np.array_equal(label, whole)


def test_values_are_named_listed_or_ids(tmp_path, scene):
    file = polygons(tmp_path / "land.gpkg", values=[10, 20, 30, 20])
    label_values = {10: "water", 20: "FIELD", 30: "ignore"}
    label = read_label(build(scene.parent, file, label_values=label_values, outside="rare").tile(0).label)
    assert np.array_equal(label, by_centre(SHAPES, [0, 1, 255, 1], outside=2))
    ids = polygons(tmp_path / "ids.gpkg", values=[0.0, 2.0, 255.0, 1.0])
    assert np.array_equal(read_label(build(scene.parent, ids).tile(0).label), by_centre(SHAPES, [0, 2, 255, 1]))


def test_values_without_a_class_are_refused_and_all_listed(tmp_path, scene):
    file = polygons(tmp_path / "land.gpkg", values=["feild", "water", "marsh", None])
    with pytest.raises(
        DataError, match=r"land\.gpkg: column 'kind': 3 of 4 values have no class: 'feild' \(1 features\), 'marsh'.*'null'.*'field'"
    ):
        build(scene.parent, file)
    # A listing is a code of its own: what it leaves out is not taken for an id.
    with pytest.raises(DataError, match=r"1 of 2 values have no class: '1' \(3 features\)"):
        build(scene.parent, polygons(tmp_path / "ids.gpkg", values=[0, 1, 1, 1]), label_values={0: "water"})
    with pytest.raises(ConfigError, match=r"label_values\.0: scheme 'tiny' has no class 'watr'; did you mean 'water'"):
        build(scene.parent, tmp_path / "ids.gpkg", label_values={0: "watr"})
    assert not (tmp_path / "made").exists()


def test_classes_of_another_scheme_are_mapped(tmp_path, scene):
    classes = "\n".join(f"  - {{name: {name}, colour: [1, 2, {i}]}}" for i, name in enumerate(("lake", "river", "wood", "ice")))
    (tmp_path / "fine.yaml").write_text(f"name: fine\nclasses:\n{classes}\n")
    coarse = (tmp_path / "classes.json").read_text().replace("}", "", 0)
    mapped = coarse.rstrip("}\n") + ', "mappings": {"fine": {"lake": "water", "river": "water", "wood": "field", "ice": "ignore"}}}'
    (tmp_path / "classes.json").write_text(mapped)
    file = polygons(tmp_path / "land.gpkg", values=["lake", "wood", "Ice", "river"])
    label = read_label(build(scene.parent, file, label_scheme=str(tmp_path / "fine.yaml")).tile(0).label)
    assert np.array_equal(label, by_centre(SHAPES, [0, 1, 255, 0]))


def test_images_without_polygons_are_ignored_counted_and_named(tmp_path, scene, write_scene):
    write_scene(tmp_path / "scenes" / "far.tif", noise("far", 3, 8, 8), transform=(10, 0, 700_000, 0, -10, 5_000_000))
    file, notes = polygons(tmp_path / "land.gpkg"), []
    catalog = build(scene.parent, file, notes)
    assert np.array_equal(read_label(catalog.tile(0).label), np.full((8, 8), 255))
    assert len(notes) == 1
    assert "1 of 2 images are touched by no polygon; their labels are all 255 (ignored)" in notes[0]
    assert "far.tif" in notes[0]
    notes.clear()
    catalog = build(scene.parent, file, notes, outside="field")
    assert np.array_equal(read_label(catalog.tile(0).label), np.ones((8, 8)))
    assert "say field everywhere" in notes[0]


def test_odd_shapes_are_repaired_or_left_out_and_noted(tmp_path, scene):
    bow = shapely.Polygon([(500_000, 4_999_903), (500_200, 4_999_700), (500_200, 4_999_903), (500_000, 4_999_700)])
    shapes = [bow, None, shapely.Point(500_100, 4_999_800), shapely.Polygon(), shapely.force_3d(SHAPES[1], 9.0)]
    file, notes = polygons(tmp_path / "land.gpkg", shapes, ["field", "nonsense", "water", "water", "water"]), []
    label = read_label(build(scene.parent, file, notes).tile(0).label)
    assert np.array_equal(label, by_centre([shapely.make_valid(bow), SHAPES[1]], [1, 0]))
    assert [note.partition(": ")[2] for note in notes] == [
        "2 features without a shape left out (feature 1, 3, counted from 0)",
        "1 features that are no polygons left out (feature 2, counted from 0)",
        "1 features with a shape that crosses itself repaired (feature 0, counted from 0)",
    ]


def test_a_file_for_each_image_is_found_by_name(tmp_path, scene, write_scene):
    write_scene(tmp_path / "scenes" / "bare.tif", noise("far", 3, 8, 8), transform=GRID)
    (tmp_path / "truth").mkdir()
    polygons(tmp_path / "truth" / "s_land.geojson", to="EPSG:4326")
    catalog = build(scene.parent, tmp_path / "truth", label_name="{stem}_land", derived=str(tmp_path / "made"))
    assert [tile.label is None for tile in catalog.tiles()] == [True, False]
    assert np.array_equal(read_label(catalog.tile(1).label), by_centre(SHAPES, [1, 0, 2, 1]))


def test_a_second_build_is_the_first_byte_for_byte_and_makes_only_what_is_missing(tmp_path, scene, write_scene):
    write_scene(tmp_path / "scenes" / "t.tif", noise("t", 3, 30, 30), transform=GRID)
    file = polygons(tmp_path / "land.gpkg")
    first = build(scene.parent, file).save(tmp_path / "first.parquet").read_bytes()
    made = sorted((tmp_path / "made").rglob("*.tif"))
    content, dates = [path.read_bytes() for path in made], [path.stat().st_mtime_ns for path in made]
    os.truncate(made[1], 300)
    assert build(scene.parent, file).save(tmp_path / "again.parquet").read_bytes() == first
    assert [path.read_bytes() for path in made] == content
    assert made[0].stat().st_mtime_ns == dates[0]
    polygons(file, values=["water"] * 4)
    build(scene.parent, file)
    assert set(np.unique(read_label(str(made[0])))) == {0, 255}


def test_a_build_that_was_stopped_goes_on(tmp_path, scene, write_scene, monkeypatch):
    write_scene(tmp_path / "scenes" / "t.tif", noise("t", 3, 30, 30), transform=GRID)
    file = polygons(tmp_path / "land.gpkg")
    whole = build(scene.parent, file, derived=str(tmp_path / "whole"))
    burn, calls = vector_labels._burn, []

    def stop_at_second(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return burn(*arguments)

    monkeypatch.setattr(vector_labels, "_burn", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        build(scene.parent, file)
    assert [path.name for path in (tmp_path / "made").rglob("*") if path.is_file()] == ["s.tif"]
    again = build(scene.parent, file)
    assert len(calls) == 3
    for one, other in zip(whole.tiles(), again.tiles(), strict=True):
        assert Path(one.label).read_bytes() == Path(other.label).read_bytes()


def test_an_empty_layer_is_said_to_be_empty(tmp_path, scene):
    (tmp_path / "e.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    with pytest.raises(DataError, match=r"e\.geojson: holds no feature"):
        build(scene.parent, tmp_path / "e.geojson")


def test_files_in_the_way_are_not_replaced(tmp_path, scene):
    target = tmp_path / "made" / "labels" / "scenes" / "s.tif"
    target.parent.mkdir(parents=True)
    target.write_bytes(scene.read_bytes())
    with pytest.raises(UsageError, match="was not made by tilth"):
        build(scene.parent, polygons(tmp_path / "land.gpkg"))
    assert target.read_bytes() == scene.read_bytes()


def test_an_image_without_a_place_is_refused(tmp_path, scene):
    from tilth.imagery.write import write_raster

    write_raster(scene, noise("s", 3, 8, 8), crs=None, transform=None)
    with pytest.raises(DataError, match=r"s\.tif: has no CRS, so the polygons of .*land\.gpkg have no place"):
        build(scene.parent, polygons(tmp_path / "land.gpkg"))


def test_wrong_layers_and_columns_are_named(tmp_path, scene):
    two = polygons(tmp_path / "two.gpkg", layer="fields")
    polygons(two, layer="lakes", mode="a")
    geopandas.GeoDataFrame({"kind": []}, geometry=[], crs=UTM).to_file(tmp_path / "empty.gpkg", layer="none")
    (tmp_path / "bad.gpkg").write_text("no table")
    point = polygons(tmp_path / "points.gpkg", [shapely.Point(0, 0)], ["water"])
    plain = polygons(tmp_path / "plain.gpkg")
    for file, options, error, message in [
        (two, {}, DataError, "holds 2 layers; choose one with label_layer; choices: fields, lakes"),
        (two, {"label_layer": "field"}, DataError, "no layer 'field'; did you mean 'fields'"),
        (plain, {"label_column": "kinds"}, DataError, "has no column 'kinds'; did you mean 'kind'"),
        (plain, {"label_column": None}, DataError, "say with label_column which attribute names the class; choices: kind"),
        (tmp_path / "empty.gpkg", {}, DataError, "holds no feature"),
        (point, {}, DataError, r"no polygon among 1 features \(Point\)"),
        (tmp_path / "bad.gpkg", {}, UnreadableFileError, "cannot be read as polygons"),
        (polygons(tmp_path / "nowhere.gpkg", crs=None), {}, DataError, "has no CRS"),
        (tmp_path / "gone.gpkg", {}, MissingFileError, "gone.gpkg"),
        (plain, {"outside": "feld"}, ConfigError, "outside: scheme 'tiny' has no class 'feld'; did you mean 'field'"),
        (plain, {"layout": "pairs"}, ConfigError, "polygons are labels of scenes"),
        (plain, {"label_codes": {"values": {1: 1}}}, ConfigError, "label_codes are for label rasters"),
        (plain, {"derived": None}, UsageError, "give derived"),
    ]:
        with pytest.raises(error, match=message):
            build(scene.parent, file, **options)
    assert not (tmp_path / "made").exists()
    assert len(build(scene.parent, two, label_layer="lakes")) == 1


def on_ground(shapes, crs, transform, size):
    """The oracle in longitude and latitude: which pixel centres lie in a shape."""
    to_degrees = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    columns, rows = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    x, y = map_position(transform, columns, rows)
    longitude, latitude = to_degrees.transform(x, y)
    turned = [shapely.contains_xy(shape, longitude + turn, latitude) for shape in shapes for turn in (-360, 0, 360)]
    return np.where(np.any(turned, axis=0), 0, 255)


@pytest.mark.parametrize(
    ("shape", "crs", "corner", "pixel"),
    [
        pytest.param(shapely.box(-30, 35, 90, 75), "EPSG:32633", (500_000, 5_500_000), 10.0, id="a continent"),
        pytest.param(shapely.box(-180, -90, 180, 90), "EPSG:32633", (500_000, 5_500_000), 10.0, id="the world"),
        pytest.param(shapely.box(14, 49.64, 16, 50.6), "EPSG:32633", (500_000, 5_500_000), 10.0, id="long edges"),
        pytest.param(shapely.box(14.99, 49.62, 15.0142, 49.7), "EPSG:32633", (500_900, 5_499_800), 0.25, id="fine pixels"),
        pytest.param(shapely.box(170, 10, 179.999, 20), "EPSG:32601", (172_000, 1_660_000), 10.0, id="up to the antimeridian"),
        pytest.param(shapely.box(170, 10, 190, 15), "EPSG:32601", (172_000, 1_660_000), 10.0, id="beyond 180 degrees"),
        pytest.param(shapely.box(-178, 80, 10, 90), "EPSG:3413", (-100_000, 100_000), 1000.0, id="the pole"),
        pytest.param(shapely.box(-170, 40, 170, 42), "EPSG:32633", (500_000, 5_500_000), 10.0, id="elsewhere"),
    ],
)
def test_edges_run_on_the_ground_whatever_the_crs_of_the_image(tmp_path, shape, crs, corner, pixel):
    transform = (pixel, 0.0, float(corner[0]), 0.0, -pixel, float(corner[1]))
    found = vector_labels.read_polygons(
        str(polygons(tmp_path / "p.gpkg", [shape], ["field"], "EPSG:4326")), "kind", None, lambda *_: {"field": 0}
    )
    image = RasterInfo("i.tif", 200, 200, 3, "uint8", crs, transform, None, ("", "", ""))
    vector_labels.rasterise(found, image, 255, tmp_path / "label.tif")
    wrong = read_label(str(tmp_path / "label.tif")) != on_ground([shape], crs, transform, 200)
    # Centres that lie closer to an edge than it is drawn may fall on either side: a twentieth of a pixel along a side of the image or two.
    assert wrong.sum() <= 20


def test_a_polygon_that_the_crs_of_the_image_cannot_hold_is_refused(tmp_path):
    found = vector_labels.read_polygons(
        str(polygons(tmp_path / "p.gpkg", [shapely.box(0, -80, 170, 80)], ["field"], "EPSG:4326")), "kind", None, lambda *_: {"field": 0}
    )
    # Seen from the middle of the Earth, a quarter of the globe away is infinitely far.
    image = RasterInfo("limb.tif", 64, 64, 3, "uint8", "+proj=gnom +R=6371000", (1e7, 0, 0, 0, -1e7, 3.2e8), None, ("", "", ""))
    with pytest.raises(DataError, match=r"p\.gpkg: feature 0 .* near limb\.tif, to where the CRS .* has no place"):
        vector_labels.rasterise(found, image, 255, tmp_path / "label.tif")
    assert not (tmp_path / "label.tif").exists()


def test_large_polygons_are_cut_to_the_block_and_rasterised_the_same(tmp_path, monkeypatch):
    angle = np.linspace(0, 2 * np.pi, 20_000)
    radius = 1000 * (1 + 0.3 * np.sin(40 * angle))
    shape = shapely.Polygon(np.stack([500_000 + radius * np.cos(angle), 5_000_000 + radius * np.sin(angle)], axis=1))
    found = vector_labels.read_polygons(str(polygons(tmp_path / "p.gpkg", [shape], ["field"])), "kind", None, lambda *_: {"field": 0})
    image = RasterInfo("i.tif", 300, 300, 3, "uint8", UTM, (9.0, 1.0, 498_500.0, 1.0, -9.0, 5_001_300.0), None, ("", "", ""))
    edges = []

    def counted(pairs, **options):
        pairs = list(pairs)
        edges.append(sum(shapely.get_num_coordinates(item) for item, _ in pairs))
        return rasterize(pairs, **options)

    monkeypatch.setattr("rasterio.features.rasterize", counted)
    whole = vector_labels._burn(found.shapes, found.ids, shapely.STRtree(found.shapes), image, Window(0, 0, 300, 300), 255)
    edges.clear()
    block = vector_labels._burn(found.shapes, found.ids, shapely.STRtree(found.shapes), image, Window(220, 130, 40, 40), 255)
    assert {0, 255} == set(np.unique(block))
    assert np.array_equal(block, whole[130:170, 220:260])
    assert edges[0] < 5_000
