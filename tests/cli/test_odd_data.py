"""Data that look wrong and are right: each works, and gives what it should."""

import json
import os

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from PIL import Image

from support.bad_imagery import CLASSES, PLACE, ROTATED, SCHEME, SIDE, ids, noise, tif
from support.tiny_farm import tree
from tilth.catalog.table import Catalog
from tilth.cli.main import main
from tilth.imagery.read import read_label, read_pixels
from tilth.imagery.write import write_json

SMALL = ["inference.window=32", "inference.overlap=8"]


def predict(weeds, scene, out, *more: str, model: str = "rgb") -> np.ndarray:
    """Predict a scene; returns the class ids of its map."""
    assert main(["predict", str(weeds / f"model_{model}"), str(scene), "--out", str(out), *SMALL, *more]) == 0
    with rasterio.open(out) as dataset:
        return dataset.read(1)


def expected(weeds, tmp_path, pixels: np.ndarray) -> np.ndarray:
    """The map of plain pixels (3, h, w)."""
    np.save(tmp_path / "plain.npy", pixels)
    return predict(weeds, tmp_path / "plain.npy", tmp_path / "plain.tif", "--overwrite")


SOUND = noise(3, SIDE, SIDE)

# file, pixels that it shows, part of the warning
SCENES = {
    "south up": ("scenes/south_up.tif", SOUND[:, ::-1], None),
    "rotated": ("scenes/rotated.tif", SOUND, None),
    "across the antimeridian": ("scenes/dateline.tif", SOUND, None),
    "one pixel": ("scenes/pixel.tif", SOUND[:, :1, :1], None),
    "without a CRS": ("scenes/no_crs.tif", SOUND, "no_crs.tif: has no CRS, so the map has none"),
    "with a CRS but no place": ("scenes/crs_only.tif", SOUND, "has a CRS but no geotransform"),
    "placed by control points": ("scenes/gcps.tif", SOUND, "ground control points only, so the map has no CRS; bring it onto a grid first"),
    "png called jpg": ("plain/png.jpg", SOUND, "has no CRS"),
}


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_odd_scene_has_the_map_of_its_pixels_on_its_own_grid(name, weeds, tmp_path, capsys):
    file, pixels, warning = SCENES[name]
    found = predict(weeds, weeds / file, tmp_path / "map.tif")
    err = capsys.readouterr().err
    assert [line for line in err.splitlines() if "warning" in line and (warning or "") in line] if warning else "warning" not in err
    np.testing.assert_array_equal(found, expected(weeds, tmp_path, pixels))
    with rasterio.open(tmp_path / "map.tif") as made, rasterio.open(weeds / file) as scene:
        assert made.transform.almost_equals(scene.transform)
        assert made.crs == scene.crs


def test_picked_bands_of_300_are_those_that_were_asked_for(weeds, tmp_path):
    found = predict(weeds, weeds / "scenes" / "bands_300.tif", tmp_path / "map.tif", "--bands", "300,1,17")
    np.testing.assert_array_equal(found, expected(weeds, tmp_path, noise(300, 8, 8)[[299, 0, 16]]))


@pytest.mark.parametrize("file", ["plain/cmyk.jpg", "plain/palette.png", "scenes/jpeg.tif"])
def test_odd_colours_are_mapped_as_they_look(file, weeds, tmp_path):
    with Image.open(weeds / file) as image:
        shown = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    assert np.abs(shown.astype(int) - SOUND).mean() < 25
    found = predict(weeds, weeds / file, tmp_path / "map.tif")
    # Two decoders of JPEG may differ by a level.
    assert (found == expected(weeds, tmp_path, shown)).mean() > 0.97


def test_not_a_number_is_no_data_in_map_and_check(weeds, tmp_path):
    scene = weeds / "scenes" / "nan_nodata.tif"
    found = predict(weeds, scene, tmp_path / "map.tif", model="s1")
    hole = np.zeros((SIDE, SIDE), dtype=bool)
    hole[:8], hole[8, 0] = True, True
    np.testing.assert_array_equal(found == 255, hole)
    assert main(["catalog", "build", str(scene), "--sensor", "s1", "--out", str(tmp_path / "x.parquet")]) == 0
    assert main(["catalog", "check", str(tmp_path / "x.parquet")]) == 0


def test_scene_without_a_pixel_of_data_has_an_empty_map_and_a_warning(weeds, tmp_path, capsys):
    assert (predict(weeds, weeds / "scenes" / "no_data.tif", tmp_path / "map.tif") == 255).all()
    assert "no pixel there has data, so all of the map is no data" in capsys.readouterr().err


def build(tmp_path, *words: str) -> Catalog:
    assert main(["catalog", "build", *words, "--sensor", "rgb", "--out", str(tmp_path / "x.parquet")]) == 0
    return Catalog.open(tmp_path / "x.parquet")


@pytest.mark.parametrize(
    ("folder", "values"),
    [
        ("pairs_16_bit", ids()),
        ("pairs_palette", ids()),
        ("pairs_nan", np.where(ids() == 0, 255, ids())),
        ("pairs_twice", ids()),
        ("splits_windows", ids()),
    ],
)
def test_odd_mask_holds_the_ids_that_were_meant(folder, values, weeds, tmp_path, capsys):
    catalog = build(tmp_path, str(weeds / folder))
    err = capsys.readouterr().err
    tile = catalog.tile(0)
    np.testing.assert_array_equal(read_label(tile.label, tile.window), values)
    assert catalog.column("split") == ["train" if folder == "splits_windows" else None]
    assert ("a.tif: its image has the mask a.png" in err) == (folder == "pairs_twice")
    # NaN leaves class 0 without a pixel; that is a warning.
    assert main(["catalog", "check", str(tmp_path / "x.parquet")]) == 0


def test_colours_and_codes_typed_in_braces_become_ids(weeds, tmp_path):
    colours = {f"#{bytes(colour).hex()}": name for colour, name in zip(SCHEME.colours, CLASSES, strict=True)}
    catalog = build(tmp_path, str(weeds / "pairs_colour"), "--label-codes", json.dumps({"colours": colours}))
    np.testing.assert_array_equal(read_label(catalog.tile(0).label), ids())


def centres(transform: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    a, b, c, d, e, f = transform
    row, column = np.mgrid[:SIDE, :SIDE] + 0.5
    return a * column + b * row + c, d * column + e * row + f


@pytest.mark.parametrize(("scene", "transform"), [("sound", PLACE), ("rotated", ROTATED)])
@pytest.mark.parametrize("shapes", ["sound", "bow"])
def test_polygons_lie_where_pixel_centres_lie_in_them(scene, transform, shapes, weeds, tmp_path):
    words = [
        "--labels",
        str(weeds / "vectors" / f"{shapes}.gpkg"),
        "--label-column",
        "kind",
        "--scheme",
        str(weeds / "schemes" / "six.json"),
    ]
    catalog = build(tmp_path, str(weeds / "scenes" / f"{scene}.tif"), *words)
    x, y = centres(transform)
    wanted, edge = np.full((SIDE, SIDE), 255), np.zeros((SIDE, SIDE), dtype=bool)
    frame = geopandas.read_file(weeds / "vectors" / f"{shapes}.gpkg")
    for shape, kind in zip(shapely.make_valid(frame.geometry.array), frame["kind"], strict=True):
        wanted[shapely.contains_xy(shape, x, y)] = CLASSES.index(kind)
        edge |= shapely.distance(shape.boundary, shapely.points(x, y)) < 1e-6
    assert (wanted != 255).mean() > 0.2
    np.testing.assert_array_equal(read_label(catalog.tile(0).label)[~edge], wanted[~edge])


@pytest.mark.parametrize(("crs", "east"), [("EPSG:32660", 833_978.0), ("EPSG:3857", 20_037_508.34)])
def test_footprints_across_the_antimeridian_do_not_span_the_globe(crs, east, tmp_path):
    tif(tmp_path / "a.tif", noise(3, SIDE, SIDE), crs=crs, transform=(10.0, 0.0, east - 245, 0.0, -10.0, 240.0))
    shapes = build(tmp_path, str(tmp_path / "a.tif"), "--window-px", "16").to_geopandas().geometry
    assert len(shapes) == 9
    assert (shapes.bounds.maxx - shapes.bounds.minx).max() < 0.002
    assert (shapes.bounds.maxx > 180).sum() == 3
    assert shapes.translate(-90).to_crs("EPSG:6933").area.to_numpy() == pytest.approx(160 * 160, rel=0.02)


def test_polygons_of_a_rotated_map_cover_the_same_ground(weeds, tmp_path):
    areas = {}
    for name in ("sound", "rotated"):
        assert main(["polygons", str(weeds / "maps" / f"{name}.tif"), "--out", str(tmp_path / f"{name}.gpkg")]) == 0
        frame = geopandas.read_file(tmp_path / f"{name}.gpkg")
        assert frame.is_valid.all()
        assert frame.area.sum() == pytest.approx(SIDE * SIDE * 100)
        areas[name] = frame.groupby("class")["area_m2"].sum()
    assert areas["rotated"].to_dict() == pytest.approx(areas["sound"].to_dict(), rel=1e-3)


@pytest.mark.parametrize("name", ["odd_tag", "class_17"])
def test_map_without_names_of_classes_is_used_with_numbers(name, weeds, tmp_path):
    source = str(weeds / "maps" / f"{name}.tif")
    assert main(["polygons", source, "--out", str(tmp_path / "p.gpkg")]) == 0
    last = 17 if name == "class_17" else 5
    assert set(geopandas.read_file(tmp_path / "p.gpkg")["class"]) == {f"class {value}" for value in (0, 1, 2, 3, 4, last)}
    assert main(["sample", source, "--samples", "30", "--minimum", "2", "--out", str(tmp_path / "p.csv")]) == 0
    assert main(["report", "--out", str(tmp_path / "r.html"), f"maps=[{{path: {source}}}]"]) == 0


def test_table_from_a_spreadsheet_keeps_its_first_column(weeds, tmp_path):
    words = ["catalog", "import", str(weeds / "tables" / "mark.csv"), "--sensor", "rgb", "--out", str(tmp_path / "x.parquet")]
    assert main(words) == 0
    assert Catalog.open(tmp_path / "x.parquet").column("split") == ["train"]


def test_links_in_circles_are_followed_once(weeds, tmp_path, capsys):
    assert len(build(tmp_path, str(weeds / "links"))) == 1
    capsys.readouterr()
    assert main(["inspect", str(weeds / "links")]) == 0
    assert "1 image" in capsys.readouterr().out


NAMES = [
    "a 'quoted' \"name\"",
    "ünï cødé 图",
    "line\nbreak",
    "100%",
    "#hash",
    "[x]*?",
    "{stem}",
    "-dash",
    " leading",
    "a;b&c<d>",
    "é" * 100,
]


def test_names_that_are_hard_to_type_go_all_the_way(weeds, tmp_path):
    data = tmp_path / "data"
    for number, name in enumerate(NAMES):
        place = (10.0, 0.0, 500_000.0 + 500 * number, 0.0, -10.0, 5_000_000.0)
        tif(data / "images" / f"{name}.tif", noise(3, SIDE, SIDE, seed=number), transform=place)
        tif(data / "masks" / f"{name}.tif", ids(seed=number), transform=place)
    write_json(data / "classes.json", SCHEME.model_dump(mode="json"))
    catalog = build(tmp_path, str(data), "--split", "test")
    assert {os.path.basename(name).removesuffix(".tif") for name in catalog.column("image")} == set(NAMES)  # noqa: PTH119 - names, not paths
    assert main(["catalog", "check", str(tmp_path / "x.parquet"), "--duplicates", "none"]) == 0
    assert main(["pack", str(tmp_path / "x.parquet"), "--out", str(tmp_path / "pack"), "--no-measure"]) == 0
    assert (
        main(["evaluate", str(weeds / "model_rgb"), str(tmp_path / "pack" / "catalog.parquet"), "--out", str(tmp_path / "e"), *SMALL]) == 0
    )
    packed = Catalog.open(tmp_path / "pack" / "catalog.parquet")
    for tile, other in zip(catalog.tiles(), packed.tiles(), strict=True):
        np.testing.assert_array_equal(read_label(tile.label), read_label(other.label))
        np.testing.assert_array_equal(read_pixels(tile.image).data, read_pixels(other.image).data)
    for number in (0, 2, 6):
        scene, made = data / "images" / f"{NAMES[number]}.tif", tmp_path / "maps" / f"{NAMES[number]}.tif"
        found = predict(weeds, scene, made)
        np.testing.assert_array_equal(found, expected(weeds, tmp_path, noise(3, SIDE, SIDE, seed=number)))
        assert main(["polygons", str(made), "--out", str(made.with_suffix(".gpkg"))]) == 0
    ends = (".gpkg", ".tif", ".tif.aux.xml")
    assert tree(tmp_path / "maps") == sorted(f"{NAMES[number]}{end}" for number in (0, 2, 6) for end in ends)


def test_work_of_others_in_an_output_folder_stays(weeds, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("mine")
    evaluate = ["evaluate", str(weeds / "model_rgb"), str(weeds / "beyond.parquet"), "--out", str(tmp_path), *SMALL]
    assert main(evaluate) == 1
    assert tree(tmp_path) == ["thesis.txt"]
    assert main([word.replace("beyond", "sound") for word in evaluate]) == 0
    assert main(["predict", str(weeds / "model_rgb"), str(weeds / "scenes" / "sound.tif"), "--out", str(tmp_path), *SMALL]) == 0
    assert main(["landscapes", str(tmp_path), "--scenes", "1", "--size", "64"]) == 0
    assert (tmp_path / "thesis.txt").read_text() == "mine"
