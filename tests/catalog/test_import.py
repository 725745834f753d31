"""Catalogs of tables that exist already. Oracles: the table itself; catalogs built from the same files."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from PIL import Image
from pyarrow import csv

from tilth.catalog.build import build_catalog
from tilth.catalog.config import BuildConfig
from tilth.catalog.discover import Problem
from tilth.catalog.from_table import import_table
from tilth.catalog.import_config import ImportConfig
from tilth.catalog.table import Catalog
from tilth.errors import ConfigError, DataError, MissingFileError, SensorMismatchError, TilthWarning, UnreadableFileError, UsageError
from tilth.imagery.read import Window

from .conftest import noise, write_scheme


def read(table, problems=None, **options) -> Catalog:
    return import_table(table, ImportConfig.parse({"sensor": "rgb"} | options), problems=problems)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three images of 20 x 12 pixels in two folders, two masks, a scheme."""
    root = tmp_path / "data"
    for name in ("a/one", "a/two", "b/one"):
        for kind in ("images", "masks"):
            (root / kind / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(name, 12, 20, 3)).save(root / "images" / f"{name}.png")
        Image.fromarray(noise(name, 12, 20) % 3).save(root / "masks" / f"{name}.png")
    write_scheme(root)
    return root


def rows(**more):
    columns = {
        "path": ["images/a/one.png", "images/a/two.png", "images/b/one.png"],
        "mask": ["masks/a/one.png", None, "masks/b/one.png"],
        "cloud": [0.1, 0.2, 0.3],
    }
    return pa.table(columns | more)


NAMES = {"image": "path", "label": "mask"}


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_columns_are_named_and_the_rest_is_kept(images, suffix):
    table = rows(when=["2019-09-04", "2020-01-01T10:30:00", None], split=["train", None, "val"])
    file = images / f"tiles{suffix}"
    (pq.write_table if suffix == ".parquet" else csv.write_csv)(table, file)
    columns = {**NAMES, "datetime": "when"}
    catalog = read(file, columns=columns, scheme=str(images / "classes.json"), split="pool", source="here", label_kind="noisy")
    assert catalog.column("tile_id") == ["tiles/images/a/one", "tiles/images/a/two", "tiles/images/b/one"]
    assert catalog.column("image") == [str(images / path) for path in table["path"].to_pylist()]
    assert catalog.column("label") == [str(images / "masks/a/one.png"), None, str(images / "masks/b/one.png")]
    assert catalog.column("label_kind") == ["noisy", "none", "noisy"]
    assert catalog.column("scheme") == ["tiny", None, "tiny"]
    assert catalog.column("split") == ["train", "pool", "val"]
    assert catalog.counts("source") == {"here": 3}
    assert catalog.column("cloud") == [0.1, 0.2, 0.3]
    assert catalog.column("datetime") == [datetime(2019, 9, 4, tzinfo=UTC), datetime(2020, 1, 1, 10, 30, tzinfo=UTC), None]
    assert [tile.window for tile in catalog.tiles()] == [Window(0, 0, 20, 12)] * 3
    saved = Catalog.open(catalog.save(images / "out" / "catalog.parquet"))
    assert saved.table.equals(catalog.table)
    assert pq.read_table(images / "out" / "catalog.parquet")["image"][0].as_py() == "../images/a/one.png"


def test_windows_come_from_columns_a_list_or_an_option(images):
    table = rows(x=[0, 4, 8], y=[0, 0, 2], w=[8, 8, 8], h=[6, 6, 6]).drop_columns("mask")
    pq.write_table(table, images / "tiles.parquet")
    columns = {"image": "path", "col": "x", "row": "y", "width": "w", "height": "h"}
    catalog = read(images / "tiles.parquet", columns=columns)
    assert [tile.window for tile in catalog.tiles()] == [Window(0, 0, 8, 6), Window(4, 0, 8, 6), Window(8, 2, 8, 6)]
    assert catalog.column("tile_id")[2] == "tiles/images/b/one_r2_c8"
    assert catalog.column("crs") == [None] * 3
    listed = table.append_column("window", pa.array([[0, 0, 8, 6], [4, 0, 8, 6], [8, 2, 8, 6]]))
    pq.write_table(listed, images / "listed.parquet")
    assert read(images / "listed.parquet", columns={"image": "path"}, prefix="tiles").column("window") == catalog.column("window")
    assert set(map(tuple, read(images / "tiles.parquet", columns={"image": "path"}, window_px=8).column("window"))) == {(0, 0, 8, 8)}


def test_references_are_found_from_the_table_and_places_without_name_are_none(images, tmp_path):
    table = rows(clean=["masks/a/two.png", "masks/b/one.png", None], location_id=["here", "", None])
    pq.write_table(table, images / "tiles.parquet")
    catalog = read(images / "tiles.parquet", columns=NAMES | {"reference": "clean"}, scheme=str(images / "classes.json"))
    assert catalog.column("reference") == [str(images / "masks" / name) for name in ("a/two.png", "b/one.png")] + [None]
    assert catalog.column("location_id") == ["here", None, None]
    assert Catalog.open(catalog.save(tmp_path / "elsewhere.parquet")).column("reference") == catalog.column("reference")


def test_headers_give_what_a_build_of_the_same_files_gives(tmp_path, write_scene):
    for index in range(3):
        write_scene(tmp_path / "scenes" / f"s{index}.tif", noise(str(index), 3, 30, 40), transform=(10, 0, 5e5 + 400 * index, 0, -10, 5e6))
    built = build_catalog(BuildConfig(inputs=(str(tmp_path / "scenes"),), sensor="rgb"))
    csv.write_csv(pa.table({"image": [f"scenes/s{index}.tif" for index in range(3)]}), tmp_path / "list.csv")
    imported = read(tmp_path / "list.csv", prefix="x")
    for name in ("image", "window", "crs", "geometry"):
        assert imported.column(name) == built.column(name)


def test_unreadable_images_are_left_out_and_named(images):
    (images / "images/a/two.png").write_bytes(b"no image")
    pq.write_table(rows().drop_columns("mask"), images / "tiles.parquet")
    problems: list[Problem] = []
    catalog = read(images / "tiles.parquet", problems, columns={"image": "path"})
    assert catalog.column("tile_id") == ["tiles/images/a/one", "tiles/images/b/one"]
    assert catalog.column("cloud") == [0.1, 0.3]
    assert [problem.file for problem in problems] == [str(images / "images/a/two.png")]
    pq.write_table(pa.table({"image": ["masks/a/one.png"]}), images / "masks.parquet")
    with pytest.raises(SensorMismatchError, match="bands 1"):
        read(images / "masks.parquet")
    pq.write_table(pa.table({"image": ["images/a/two.png"]}), images / "one.parquet")
    with pytest.raises(DataError, match=r"two\.png.*none of 1 images"):
        read(images / "one.parquet")


def test_windows_outside_of_their_image_are_found_where_headers_are_read(images):
    table = pa.table({"image": ["images/a/one.png"] * 2, "window": [[0, 0, 8, 8], [16, 0, 8, 8]]})
    pq.write_table(table, images / "tiles.parquet")
    assert len(read(images / "tiles.parquet")) == 2
    with pytest.raises(DataError, match=r"window \[16, 0, 8, 8\] .* reaches outside of its 20 x 12 pixels, as 1 windows"):
        read(images / "tiles.parquet", headers=True)


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".parquet"])
def test_footprints_of_vector_files_end_in_degrees(images, suffix):
    shapes = geopandas.GeoSeries([shapely.box(5e5 + 100 * i, 5e6, 5e5 + 100 * i + 100, 5e6 + 100) for i in range(3)], crs="EPSG:32631")
    frame = geopandas.GeoDataFrame({"image": rows()["path"].to_pylist(), "rank": [3, 1, 2]}, geometry=shapes)
    file = images / f"tiles{suffix}"
    there = frame.to_crs(4326) if suffix == ".geojson" else frame
    there.to_parquet(file) if suffix == ".parquet" else there.to_file(file)
    catalog = read(file, window_px=8)
    expected = shapes.to_crs("OGC:CRS84")
    assert np.allclose(shapely.bounds(catalog.to_geopandas().geometry.to_numpy()), expected.bounds.to_numpy(), atol=1e-7)
    assert catalog.column("rank") == [3, 1, 2]


def test_wrong_root_is_said_and_a_right_one_taken(images, tmp_path):
    pq.write_table(rows().drop_columns("mask"), tmp_path / "tiles.parquet")
    options = {"columns": {"image": "path"}, "window_px": 8}
    with pytest.warns(TilthWarning, match="is root right"):
        read(tmp_path / "tiles.parquet", **options)
    assert read(tmp_path / "tiles.parquet", root=str(images), **options).column("image")[0] == str(images / "images/a/one.png")


@pytest.mark.parametrize(
    ("columns", "options", "error", "message"),
    [
        ({"images": ["a.png"]}, {}, DataError, r"no column 'image'; name it with columns\.image=NAME; choices: images"),
        ({"image": ["a.png"]}, {"columns": {"label": "msk"}}, DataError, r"no column 'msk' \(columns\.label\)"),
        ({"image": ["a.png"]}, {"columns": {"lable": "x"}}, ConfigError, "did you mean 'label'"),
        ({"image": [1]}, {}, DataError, "holds int64, expected paths"),
        ({"image": ["a.png", None]}, {}, DataError, "1 empty cells"),
        ({"image": ["a.png"]}, {"headers": False}, UsageError, "has no windows; give window_px"),
        ({"image": ["a.png"], "x": [1]}, {"columns": {"col": "x"}}, DataError, "no column for row, width, height"),
        ({"image": ["a.png"], "window": [[0, 0, 8]]}, {}, DataError, "windows must be whole numbers"),
        ({"image": ["a.png", "a.png"]}, {"window_px": 8}, DataError, "1 tile ids occur more than once, first 't/a'"),
        ({"image": ["a.png"], "label": ["b.png"]}, {"window_px": 8}, DataError, "labels need a class scheme"),
        ({"image": ["a.png"], "datetime": ["spring"]}, {"window_px": 8}, DataError, "no times in ISO 8601"),
        ({"image": ["a.png"], "label_kind": ["clear"], "label": ["b"]}, {"window_px": 8, "scheme": "s"}, DataError, "label_kind 'clear'"),
    ],
)
@pytest.mark.filterwarnings("ignore::tilth.errors.TilthWarning")
def test_wrong_tables_say_what_is_wrong(tmp_path, columns, options, error, message):
    write_scheme(tmp_path)
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    options = options | ({"scheme": str(tmp_path / "classes.json")} if "scheme" in options else {})
    with pytest.raises(error, match=message):
        read(tmp_path / "t.parquet", **options)


def test_wrong_files_say_what_is_wrong(tmp_path):
    (tmp_path / "bad.parquet").write_text("no table")
    (tmp_path / "bad.gpkg").write_text("no table")
    (tmp_path / "t.xlsx").write_text("")
    (tmp_path / "none.csv").write_text("image\n")
    for name, error, message in [
        ("bad.parquet", UnreadableFileError, "cannot be read as a table"),
        ("bad.gpkg", UnreadableFileError, "cannot be read as a table"),
        ("t.xlsx", UsageError, r"a table ends in \.parquet"),
        ("none.csv", DataError, "holds no row"),
        ("gone.csv", MissingFileError, "no such table"),
    ]:
        with pytest.raises(error, match=message):
            read(tmp_path / name)


def test_labels_on_another_grid_are_left_out_where_headers_are_read(tmp_path, write_scene):
    for name, corner in (("a", 5e5), ("b", 5e5 + 30)):
        write_scene(tmp_path / f"{name}.tif", noise(name, 3, 12, 20))
        write_scene(tmp_path / f"{name}_label.tif", noise(name, 1, 12, 20) % 3, transform=(10.0, 0.0, corner, 0.0, -10.0, 5e6))
    write_scheme(tmp_path)
    lines = (
        "image,label,col,row,width,height\na.tif,a_label.tif,0,0,8,8\nb.tif,b_label.tif,0,0,8,8\nb.tif,,8,0,8,8\na.tif,gone.tif,8,0,8,8\n"
    )
    (tmp_path / "t.csv").write_text(lines)
    options = {"scheme": str(tmp_path / "classes.json"), "headers": True}
    problems: list[Problem] = []
    assert read(tmp_path / "t.csv", problems, **options).column("window") == [[0, 0, 8, 8], [8, 0, 8, 8]]
    assert sorted(Path(problem.file).name for problem in problems) == ["a.tif", "b.tif"]
    assert any("b_label.tif at (500030.0" in problem.reason for problem in problems)
    assert any("gone.tif: no such file" in problem.reason for problem in problems)
    (tmp_path / "t.csv").write_text(lines.splitlines()[0] + "\n" + lines.splitlines()[2] + "\n")
    with pytest.raises(DataError, match=r"b\.tif: .*none of 1 images can be used"):
        read(tmp_path / "t.csv", **options)


def test_ids_are_texts_although_they_look_like_numbers(images):
    (images / "t.csv").write_text("key,path,place,split,cloud\n0001,images/a/one.png,007,1,2\n001,images/a/two.png,7,1,3\n")
    catalog = read(images / "t.csv", columns={"tile_id": "key", "image": "path", "location_id": "place"})
    assert catalog.column("tile_id") == ["0001", "001"]
    assert catalog.column("location_id") == ["007", "7"]
    assert catalog.column("cloud") == [2, 3]


def test_wrong_columns_of_a_csv_say_what_is_wrong(images):
    for text, options, error, message in [
        ("image,image\na.png,a.png\n", {}, DataError, "has the column 'image' 2 times"),
        ("image,col,row,width,height\na.png,0,0,8,\n", {}, DataError, "column 'height' has 1 empty cells"),
        ("path\na.png\n", {"columns": {"image": "path", "label": "path"}}, ConfigError, "'path' is named for image, label"),
    ]:
        (images / "t.csv").write_text(text)
        with pytest.raises(error, match=message):
            read(images / "t.csv", **options)
