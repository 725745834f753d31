"""Building from folders. Oracles: what was written; rasterio and pyproj for footprints."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
import shapely
from PIL import Image

from tilth.catalog.build import build_catalog
from tilth.catalog.config import BuildConfig
from tilth.catalog.discover import Problem
from tilth.catalog.geometry import covered_km2, footprints
from tilth.errors import ConfigError, DataError, MissingFileError, SensorMismatchError, TilthWarning, UsageError
from tilth.imagery.read import RasterInfo, Window

from .conftest import noise, write_scheme


def build(*inputs, problems=None, **options):
    return build_catalog(BuildConfig.parse({"inputs": [str(item) for item in inputs], "sensor": "rgb"} | options), problems=problems)


def test_pairs_are_matched_by_stem_with_splits_and_scheme(pairs, scheme):
    catalog = build(pairs, source="tests", licence="CC0-1.0")
    assert catalog.column("tile_id") == [f"pairs/i{index}" for index in range(8)]
    assert catalog.column("split") == ["train"] * 4 + ["val"] * 2 + ["test", None]
    assert catalog.tile(3).label == str(pairs / "masks" / "i3.png")
    assert catalog.tile(6).label is None
    assert catalog.column("label_kind") == ["clean"] * 6 + ["none", "clean"]
    assert catalog.tile(0).window == Window(0, 0, 20, 12)
    assert catalog.scheme() == scheme
    assert catalog.counts("licence") == {"CC0-1.0": 8}


def test_images_in_no_split_file_take_the_option(pairs):
    assert build(pairs, unsplit="pool").column("split")[-1] == "pool"


def test_split_file_with_unknown_stem_is_named(pairs):
    (pairs / "splits" / "val.txt").write_text("i4\n\ngone\nlost\n")
    with pytest.raises(DataError, match=r"val\.txt: 2 of 3 lines name no image, first 'gone' in line 3"):
        build(pairs)


def test_stem_in_two_splits_is_named(pairs):
    (pairs / "splits" / "val.txt").write_text("i0\n")
    with pytest.raises(DataError, match=r"'i0' is also in train\.txt"):
        build(pairs)


def test_masks_without_image_are_reported(pairs):
    Image.fromarray(noise("m", 12, 20) % 3).save(pairs / "masks" / "stray.png")
    problems: list[Problem] = []
    assert len(build(pairs, problems=problems)) == 8
    assert problems == [Problem(str(pairs / "masks" / "stray.png"), "mask without image")]


def test_unreadable_files_are_left_out_and_named(pairs):
    (pairs / "images" / "i0.png").write_bytes(b"no image")
    (pairs / "masks" / "i1.png").write_bytes(b"")
    problems: list[Problem] = []
    catalog = build(pairs, problems=problems)
    assert len(catalog) == 6
    assert [problem.file for problem in problems] == [str(pairs / "images" / name) for name in ("i0.png", "i1.png")]
    assert "masks/i1.png" in problems[1].reason
    with pytest.raises(DataError, match=r"i0\.png"):
        build(pairs, strict=True)
    with pytest.warns(TilthWarning, match=r"i0\.png.*and 1 more"):
        build(pairs)


def test_mask_of_another_size_is_left_out_and_named(pairs):
    Image.fromarray(noise("m", 12, 21) % 3).save(pairs / "masks" / "i2.png")
    problems: list[Problem] = []
    assert len(build(pairs, problems=problems)) == 7
    assert "20 x 12" in problems[0].reason
    assert "21 x 12" in problems[0].reason


def test_nothing_usable_is_an_error(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"a\.png.*none of 1 images"):
        build(tmp_path)


def test_plain_folders_are_searched_deeply_and_in_order(tmp_path):
    for name in ("b/y.png", "a/x.jpg", "a/deep/z.png", ".hidden/q.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(name, 6, 5, 3)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    catalog = build(tmp_path, prefix="pool", split="train")
    assert catalog.column("tile_id") == ["pool/a/deep/z", "pool/a/x", "pool/b/y"]
    assert catalog.counts("split") == {"train": 3}
    assert len(catalog.labelled()) == 0


def test_folders_of_one_name_are_told_apart(tmp_path):
    for name in ("one/images", "two/images"):
        (tmp_path / name).mkdir(parents=True)
        Image.fromarray(noise(name, 6, 5, 3)).save(tmp_path / name / "x.png")
    assert build(tmp_path / "one" / "images", tmp_path / "two" / "images").column("tile_id") == ["one/images/x", "two/images/x"]


def test_two_files_of_one_stem_are_refused(tmp_path):
    for name in ("x.png", "x.jpg"):
        Image.fromarray(noise(name, 6, 5, 3)).save(tmp_path / name)
    with pytest.raises(DataError, match=r"x\.png and .*x\.jpg would share"):
        build(tmp_path)
    assert len(build(tmp_path, suffixes=[".jpg"])) == 1


def test_scenes_are_cut_into_windows_with_their_labels(tmp_path, write_scene):
    scene = write_scene(tmp_path / "scenes" / "s_20190904.tif", noise("s", 3, 50, 70))
    label = write_scene(tmp_path / "truth" / "s_20190904_label.tif", noise("l", 1, 50, 70) % 3)
    write_scheme(tmp_path / "truth")
    catalog = build(
        scene.parent,
        labels=str(label.parent),
        label_name="{stem}_label",
        window_px=32,
        stride_px=32,
        label_kind="noisy",
        datetime_pattern="_([0-9]{8})",
    )
    assert catalog.column("tile_id") == [f"scenes/s_20190904_r{row}_c{column}" for row in (0, 18) for column in (0, 32, 38)]
    assert catalog.tile(5).window == Window(38, 18, 32, 32)
    assert set(catalog.column("label")) == {str(label)}
    assert catalog.counts("label_kind") == {"noisy": 6}
    assert catalog.counts("crs") == {"EPSG:32631": 6}
    assert catalog.column("datetime")[0] == datetime(2019, 9, 4, tzinfo=UTC)
    dropped = build(scene, labels=str(label), label_name="{stem}_label", window_px=32, edge="drop")
    assert dropped.column("tile_id") == ["scenes/s_20190904_r0_c0", "scenes/s_20190904_r0_c32"]


def test_labels_beside_scenes_are_no_scenes(tmp_path, write_scene):
    write_scene(tmp_path / "s.tif", noise("s", 3, 8, 8))
    write_scene(tmp_path / "s_mask.tif", noise("l", 1, 8, 8) % 3)
    write_scheme(tmp_path)
    catalog = build(tmp_path, layout="scenes", label_name="{stem}_mask")
    assert [tile.label for tile in catalog.tiles()] == [str(tmp_path / "s_mask.tif")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": (8, 9)}, "9 x 8"),
        ({"crs": "EPSG:32632"}, "EPSG:32631.*EPSG:32632"),
        ({"transform": (10.0, 0.0, 500_005.0, 0.0, -10.0, 5_000_000.0)}, r"lies at \(500000"),
    ],
)
def test_label_on_another_grid_stops_the_build_naming_both(tmp_path, write_scene, change, message):
    size = change.pop("size", (8, 8))
    write_scene(tmp_path / "scenes" / "s.tif", noise("s", 3, 8, 8))
    write_scene(tmp_path / "labels" / "s.tif", noise("l", 1, *size) % 3, **change)
    write_scheme(tmp_path)
    with pytest.raises(DataError, match=rf"scenes/s\.tif.*{message}.*") as error:
        build(tmp_path / "scenes", labels=str(tmp_path / "labels"))
    assert "labels/s.tif" in str(error.value)


def test_footprints_are_where_pyproj_puts_them(tmp_path, write_scene):
    from pyproj import Transformer

    scene = write_scene(tmp_path / "s.tif", noise("s", 3, 100, 100))
    catalog = build(scene, window_px=50)
    shape = catalog.to_geopandas().geometry[3]
    corners = Transformer.from_crs("EPSG:32631", "OGC:CRS84", always_xy=True).transform(
        [500_500, 500_500, 501_000, 501_000], [4_999_500, 4_999_000, 4_999_000, 4_999_500]
    )
    assert np.allclose(np.array(shape.exterior.coords)[:4].T, corners, atol=1e-9)
    assert shape.exterior.is_ccw
    # 1 km x 1 km; the scale of UTM at its central meridian is 0.9996 each way.
    assert covered_km2(catalog.table["geometry"]) == pytest.approx(1 / 0.9996**2, rel=1e-4)


def test_a_local_grid_has_no_footprint(tmp_path, write_scene):
    grid = 'LOCAL_CS["site",UNIT["metre",1],AXIS["x",EAST],AXIS["y",NORTH]]'
    catalog = build(write_scene(tmp_path / "s.tif", noise("s", 3, 40, 40), crs=grid), window_px=20)
    assert catalog.column("geometry") == [None] * 4


def test_a_window_outside_of_its_projection_costs_no_other_its_footprint():
    infos = [
        RasterInfo(name, 10, 10, 1, "uint8", "EPSG:32631", (1, 0, left, 0, -1, 5e6), None, ("",))
        for name, left in (("far", 1e12), ("near", 5e5))
    ]
    shapes = footprints(infos, np.array([[0, 0, 10, 10]] * 2), np.arange(2))
    assert [shape is None for shape in shapes] == [True, False]


def test_ground_seen_twice_counts_once(tmp_path, write_scene):
    scene = write_scene(tmp_path / "s.tif", noise("s", 3, 100, 100))
    once = build(scene, window_px=100).table["geometry"]
    assert covered_km2(build(scene, window_px=50, stride_px=25).table["geometry"]) == pytest.approx(covered_km2(once), rel=1e-5)


def test_other_bands_than_the_sensor_are_counted_and_named(tmp_path):
    Image.fromarray(noise("a", 6, 5, 3)).save(tmp_path / "a.png")
    for name in "bcde":
        Image.fromarray(noise(name, 6, 5)).save(tmp_path / f"{name}.png")
    with pytest.raises(SensorMismatchError, match=r"bands 3, 4 of 5 images differ \(bands 1 in 4\): .*b\.png, .*c\.png, .*d\.png, \.\.\."):
        build(tmp_path)


def test_other_type_than_the_sensor_is_named(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 4, 4), np.float32))
    with pytest.raises(SensorMismatchError, match=r"type uint8, 1 of 1 images differ \(type float32 in 1\)"):
        build(tmp_path)


def test_labels_need_a_scheme(pairs):
    (pairs / "classes.json").unlink()
    with pytest.raises(DataError, match=r"labels need a class scheme; put classes\.json"):
        build(pairs)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sensor": "rbg"}, ConfigError, "did you mean"),
        ({"layout": "plain", "labels": "truth"}, ConfigError, "has no labels"),
        ({"stride_px": 3}, ConfigError, "stride_px needs window_px"),
        ({"stride_px": 9, "window_px": 8}, ConfigError, "must not exceed"),
        ({"datetime": "yesterday"}, ConfigError, "ISO 8601"),
        ({"datetime_pattern": "["}, ConfigError, "not a regular expression"),
        ({"label_name": "mask"}, ConfigError, "must contain {stem}"),
        ({"window_pix": 8}, ConfigError, "did you mean 'window_px'"),
        ({"layout": "scenes", "labels": "nowhere"}, MissingFileError, "nowhere"),
        ({"layout": "pairs", "label_folder": "truth"}, DataError, "'truth'"),
        ({"inputs": ["nowhere"]}, MissingFileError, "nowhere: no such file or folder"),
        ({"window_px": 64, "edge": "drop"}, DataError, "no image is as large"),
    ],
)
def test_wrong_requests_say_what_is_wrong(pairs, options, error, message):
    with pytest.raises(error, match=message):
        build(pairs, **options)


def test_layouts_are_not_mixed(pairs, tmp_path):
    (tmp_path / "plain").mkdir()
    with pytest.raises(UsageError, match="not a folder of image/mask pairs"):
        build(pairs, tmp_path / "plain")


def test_footprint_is_null_where_nothing_is_georeferenced(pairs):
    assert build(pairs).table["geometry"].null_count == 8


def test_scenes_of_several_systems_share_one_catalog(tmp_path, write_scene):
    write_scene(tmp_path / "a.tif", noise("a", 3, 8, 8))
    write_scene(tmp_path / "b.tif", noise("b", 3, 8, 8), crs="EPSG:4326", transform=(0.1, 0.0, 7.0, 0.0, -0.1, 50.0))
    bounds = shapely.bounds(build(tmp_path, window_px=8).to_geopandas().geometry.to_numpy())
    assert np.allclose(bounds[1], [7.0, 49.2, 7.8, 50.0])
    assert 2.9 < bounds[0][0] < 3.1
