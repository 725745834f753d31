"""The catalog as a table and as a file. Oracles: geopandas and pyarrow read the file; moved trees."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from tilth.catalog.table import Catalog, Tile
from tilth.errors import CatalogError, MissingFileError
from tilth.imagery.read import Window
from tilth.sensors import get_sensor


def test_saved_catalog_opens_equal(make_catalog, tmp_path):
    catalog = make_catalog(folder=tmp_path)
    opened = Catalog.open(catalog.save(tmp_path / "deep" / "catalog.parquet"))
    assert opened.table.equals(catalog.table)
    assert opened.sensors == catalog.sensors
    assert opened.schemes == catalog.schemes


def test_geopandas_reads_crs_and_footprints(make_catalog, tmp_path):
    import geopandas

    boxes = [shapely.box(x, 45, x + 0.5, 46) for x in range(12)]
    catalog = make_catalog().with_columns(geometry=[shapely.to_wkb(box) for box in boxes])
    frame = geopandas.read_parquet(catalog.save(tmp_path / "c.parquet"))
    assert frame.crs == "OGC:CRS84"
    assert all(shape.equals(box) for shape, box in zip(frame.geometry, boxes, strict=True))
    assert list(frame["tile_id"]) == catalog.column("tile_id")
    assert catalog.to_geopandas().geometry.geom_equals(frame.geometry).all()


def test_geopandas_reads_a_catalog_without_footprints(make_catalog, tmp_path):
    import geopandas

    frame = geopandas.read_parquet(make_catalog().save(tmp_path / "c.parquet"))
    assert frame.geometry.isna().all()


def test_metadata_follow_geoparquet(make_catalog, tmp_path):
    catalog = make_catalog(2).with_columns(geometry=[shapely.to_wkb(shapely.box(0, 0, 1, 1)), None])
    metadata = pq.read_schema(catalog.save(tmp_path / "c.parquet")).metadata
    geo = json.loads(metadata[b"geo"])
    assert geo["version"] == "1.1.0"
    assert geo["primary_column"] == "geometry"
    assert geo["columns"]["geometry"] == {"encoding": "WKB", "geometry_types": ["Polygon"]}
    assert json.loads(metadata[b"tilth"])["schema_version"] == 1


def test_paths_are_relative_on_disk_so_a_moved_tree_opens(make_catalog, tmp_path):
    tree = tmp_path / "tree"
    file = make_catalog(folder=tree / "data").save(tree / "catalogs" / "c.parquet")
    assert pq.read_table(file)["image"][0].as_py() == "../data/images/0000.png"
    shutil.move(tree, tmp_path / "elsewhere")
    moved = Catalog.open(tmp_path / "elsewhere" / "catalogs" / "c.parquet")
    assert moved.tile(0).image == str(tmp_path / "elsewhere" / "data" / "images" / "0000.png")
    assert moved.tile(1).label is None


def test_links_inside_the_tree_stay_links(make_catalog, tmp_path):
    (tmp_path / "bulk").mkdir()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "images").symlink_to(tmp_path / "bulk")
    file = make_catalog(folder=tmp_path / "tree").save(tmp_path / "tree" / "c.parquet")
    assert pq.read_table(file)["image"][0].as_py() == "images/0000.png"


def test_opened_through_a_linked_folder_the_files_are_found(make_catalog, tmp_path):
    (tmp_path / "real" / "catalogs").mkdir(parents=True)
    (tmp_path / "real" / "images").mkdir()
    (tmp_path / "real" / "images" / "0000.png").touch()
    make_catalog(folder=tmp_path / "real").save(tmp_path / "real" / "catalogs" / "c.parquet")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "catalogs")
    assert Path(Catalog.open(tmp_path / "link" / "c.parquet").tile(0).image).is_file()


def test_remote_uris_are_kept_as_they_are(make_catalog, tmp_path):
    remote = ["s3://bucket/a.tif", "/vsicurl/https://host/b.tif", "https://host/c.tif"]
    catalog = make_catalog(3).with_columns(image=remote)
    file = catalog.save(tmp_path / "c.parquet")
    assert Catalog.open(file).column("image") == remote == pq.read_table(file)["image"].to_pylist()


def test_unknown_columns_survive(make_catalog, tmp_path):
    catalog = make_catalog().with_columns(entropy=np.linspace(0, 1, 12), tags=[["a"], []] * 6)
    opened = Catalog.open(catalog.save(tmp_path / "c.parquet"))
    assert opened.column("entropy") == catalog.column("entropy")
    assert opened.filter(split="val").column("tags") == catalog.filter(split="val").column("tags")
    joined = Catalog.concat([opened.take([0]), make_catalog().take([1])])
    assert joined.column("entropy") == [0.0, None]


def test_newer_schema_is_refused(make_catalog, tmp_path):
    file = make_catalog().save(tmp_path / "c.parquet")
    table = pq.read_table(file)
    metadata = dict(table.schema.metadata)
    metadata[b"tilth"] = metadata[b"tilth"].replace(b'"schema_version": 1', b'"schema_version": 2')
    pq.write_table(table.replace_schema_metadata(metadata), file)
    with pytest.raises(CatalogError, match=r"schema 2 is newer than 1.*upgrade"):
        Catalog.open(file)


def test_what_is_no_catalog_is_refused(tmp_path):
    with pytest.raises(MissingFileError, match=r"no such catalog.*tilth catalog build"):
        Catalog.open(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(CatalogError, match="not a readable Parquet file"):
        Catalog.open(tmp_path / "text.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(CatalogError, match="not a tilth catalog"):
        Catalog.open(tmp_path / "other.parquet")


def test_truncated_catalog_is_refused(make_catalog, tmp_path):
    file = make_catalog().save(tmp_path / "c.parquet")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CatalogError, match="not a readable Parquet file"):
        Catalog.open(file)


def test_tile_has_every_field(make_catalog):
    tile = make_catalog().tile(0)
    assert tile == Tile(
        "t/0000", "/data/images/0000.png", Window(0, 0, 64, 48), "/data/masks/0000.png", "clean", "rgb", "tiny", "train", None
    )
    assert isinstance(tile.window, Window)
    assert make_catalog().tile(-1).tile_id == "t/0011"
    with pytest.raises(IndexError):
        make_catalog().tile(12)


def test_tiles_and_tile_agree(make_catalog):
    catalog = make_catalog(5000)
    walked = list(catalog.tiles())
    assert len(walked) == 5000
    assert all(walked[index] == catalog.tile(index) for index in (0, 1, 4095, 4096, 4999))


def test_filter_takes_values_collections_and_none(make_catalog):
    catalog = make_catalog()
    expected = {value: [row["tile_id"] for row in catalog.table.to_pylist() if row["split"] == value] for value in ("train", "val", None)}
    assert catalog.filter(split="train").column("tile_id") == expected["train"]
    assert catalog.filter(split=None).column("tile_id") == expected[None]
    assert len(catalog.filter(split=["val", None])) == len(expected["val"]) + len(expected[None])
    assert len(catalog.filter(split={"train"}, label_kind="clean")) == 2
    assert len(catalog.filter(split=[])) == 0
    assert len(catalog.with_columns(rank=np.arange(12)).filter(rank=range(3))) == 3


def test_filter_by_what_is_not_there_says_so(make_catalog):
    with pytest.raises(CatalogError, match="did you mean 'split'"):
        make_catalog().filter(spilt="train")
    with pytest.raises(CatalogError, match="holds int64"):
        make_catalog().with_columns(rank=np.arange(12)).filter(rank="first")


def test_labelled_needs_a_file_and_a_kind(make_catalog):
    catalog = make_catalog()
    assert len(catalog.labelled()) == 6
    assert len(catalog.with_columns(label_kind=["none"] * 12).labelled()) == 0


def test_take_keeps_the_given_order(make_catalog):
    assert make_catalog().take([3, 0]).column("tile_id") == ["t/0003", "t/0000"]
    with pytest.raises(CatalogError, match="twice"):
        make_catalog().take([1, 1])
    with pytest.raises(CatalogError, match="0 to 11"):
        make_catalog().take([12])


def test_an_empty_catalog_works_as_any_other(make_catalog, tmp_path):
    empty = make_catalog().take([])
    assert len(empty) == len(empty.labelled()) == 0
    opened = Catalog.open(empty.save(tmp_path / "c.parquet"))
    assert len(opened) == 0
    assert opened.fingerprint() == empty.fingerprint()
    with pytest.raises(CatalogError, match="exactly one sensor"):
        empty.sensor()


def test_sensor_and_scheme_must_be_one(make_catalog, scheme):
    catalog = make_catalog()
    assert catalog.sensor() == get_sensor("rgb")
    assert catalog.scheme() == scheme
    other = Catalog.from_rows([{"tile_id": "x", "image": "/x.tif", "window": (0, 0, 1, 1), "sensor": "s1"}], {"s1": get_sensor("s1")})
    with pytest.raises(CatalogError, match=r"exactly one sensor, found rgb \(12 tiles\), s1 \(1 tiles\)"):
        Catalog.concat([catalog, other]).sensor()
    with pytest.raises(CatalogError, match="exactly one scheme, found none"):
        other.scheme()


def test_concat_refuses_what_contradicts(make_catalog):
    catalog = make_catalog()
    with pytest.raises(CatalogError, match="'t/0000' occurs more than once"):
        Catalog.concat([catalog, catalog])
    renamed = get_sensor("gf2").model_copy(update={"name": "rgb"})
    other = Catalog.from_rows([{"tile_id": "x", "image": "/x.tif", "window": (0, 0, 1, 1), "sensor": "rgb"}], {"rgb": renamed})
    with pytest.raises(CatalogError, match="sensor 'rgb' is defined in two different ways"):
        Catalog.concat([catalog, other])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label_kind": "perfect"}, "label_kind 'perfect' is unknown"),
        ({"sensor": "rbg"}, "did you mean 'rgb'"),
        ({"scheme": "huge"}, "scheme 'huge' is named by rows but not defined"),
        ({"window": (0, 0, 0, 5)}, "has no pixels"),
        ({"window": (0, 0, 5)}, "window"),
        ({"image": None}, "'image' has 1 empty"),
    ],
)
def test_rows_that_no_stage_could_use_are_refused(make_catalog, change, message):
    row = {"tile_id": "x", "image": "/x.png", "window": (0, 0, 4, 4), "sensor": "rgb"} | change
    with pytest.raises(CatalogError, match=message):
        make_catalog([row])


def test_fingerprint_sees_rows_definitions_and_file_sizes(make_catalog, pairs):
    catalog = make_catalog(4, folder=pairs)
    original = catalog.fingerprint()
    assert original == make_catalog(4, folder=pairs).fingerprint()
    assert original != catalog.take([1, 0, 2, 3]).fingerprint()
    assert original != catalog.with_columns(split=["train"] * 4).fingerprint()
    assert original != catalog.with_columns(extra=[1, 2, 3, None]).fingerprint()
    (pairs / "images" / "0000.png").write_bytes(b"12345")
    sized = catalog.fingerprint()
    assert sized != original
    (pairs / "images" / "0000.png").write_bytes(b"123456")
    assert catalog.fingerprint() != sized


def test_fingerprint_does_not_depend_on_where_the_tree_lies(make_catalog, pairs, tmp_path):
    catalog = make_catalog(4, folder=pairs).with_columns(score=[0.5, None, 1.0, 2.0])
    file = catalog.save(pairs / "c.parquet")
    assert Catalog.open(file).fingerprint() == catalog.fingerprint()
    shutil.move(pairs, tmp_path / "moved")
    assert Catalog.open(tmp_path / "moved" / "c.parquet").fingerprint() == catalog.fingerprint()


def test_catalog_passes_to_worker_processes(make_catalog):
    catalog = make_catalog()
    assert pickle.loads(pickle.dumps(catalog)).tile(3) == catalog.tile(3)


def test_the_table_needs_no_gdal_and_no_pandas(make_catalog, tmp_path):
    make_catalog().save(tmp_path / "c.parquet")
    program = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in {"rasterio", "geopandas", "shapely", "pandas", "torch", "matplotlib", "scipy", "odc"}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
from tilth.catalog.table import Catalog

catalog = Catalog.open(sys.argv[1]).filter(split="train").take([0])
catalog.save(sys.argv[1])
catalog.fingerprint()
assert catalog.tile(0).split == "train"
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "c.parquet")], check=True)
