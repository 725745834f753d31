"""Windows in metres, joined sensors, names of places. Oracles: closed-form sizes of degrees on the ellipsoid; what was written."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import pytest

from tilth.catalog.build import build_catalog
from tilth.catalog.config import BuildConfig
from tilth.catalog.discover import Problem
from tilth.catalog.table import Catalog
from tilth.errors import ConfigError, DataError, MissingFileError, SensorMismatchError, UsageError
from tilth.imagery.area import pixel_size_m
from tilth.imagery.read import read_pixels

from .conftest import noise

GRID = (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0)


def build(inputs, problems=None, **options):
    return build_catalog(BuildConfig.parse({"inputs": [str(inputs)], "sensor": "rgb"} | options), problems=problems)


def degree_m(latitude: float) -> tuple[float, float]:
    """Length of a degree of longitude and of latitude on WGS 84, in metres: the series of the NGA."""
    p = math.radians(latitude)
    along = 111412.84 * math.cos(p) - 93.5 * math.cos(3 * p) + 0.118 * math.cos(5 * p)
    return along, 111132.92 - 559.82 * math.cos(2 * p) + 1.175 * math.cos(4 * p) - 0.0023 * math.cos(6 * p)


@pytest.mark.parametrize("latitude", [0.0, 37.0, -46.0])
def test_pixels_in_degrees_are_measured_on_the_ellipsoid(latitude):
    found = pixel_size_m(100, 80, "EPSG:4326", (0.0001, 0, 7.0, 0, -0.0001, latitude + 0.004))
    assert found == pytest.approx([side * 0.0001 for side in degree_m(latitude)], rel=1e-5)


def test_pixels_of_web_mercator_shrink_with_latitude():
    # y of 52 degrees north; the scale there is 1 / cos(latitude) on the sphere.
    y = 6378137 * math.log(math.tan(math.pi / 4 + math.radians(52) / 2))
    width, height = pixel_size_m(100, 100, "EPSG:3857", (10, 0, 1_490_000, 0, -10, y + 500))
    assert width == pytest.approx(10 * degree_m(52)[0] / (6378137 * math.radians(1)), rel=1e-5)
    assert height == pytest.approx(10 * degree_m(52)[1] / (6378137 * math.radians(1)) * math.cos(math.radians(52)), rel=1e-4)


@pytest.mark.parametrize(
    ("crs", "grid", "side"),
    [
        ("EPSG:32631", GRID, 32),
        ("EPSG:32631", (2.5, 0.0, 500_000.0, 0.0, -2.5, 5_000_000.0), 128),
        ("EPSG:32631", (6.0, 8.0, 500_000.0, 8.0, -6.0, 5_000_000.0), 32),
        ("EPSG:3857", (10.0, 0.0, 1_490_000.0, 0.0, -10.0, 6_800_000.0), 52),
        ("EPSG:4326", (0.0001, 0.0, 7.0, 0.0, -0.0001, 37.0), 32),
    ],
)
def test_windows_in_metres_follow_each_image(tmp_path, write_scene, crs, grid, side):
    scene = write_scene(tmp_path / "s.tif", noise("s", 3, 200, 260), crs=crs, transform=grid)
    catalog = build(scene, window_m=320, stride_m=160)
    assert catalog.tile(0).window.width == pytest.approx(side, abs=1)
    widths = {tile.window.width for tile in catalog.tiles()}
    assert widths == {catalog.tile(0).window.height}
    steps = sorted({tile.window.column for tile in catalog.tiles()})
    assert steps[1] == pytest.approx(side / 2, abs=1)


def test_windows_in_metres_need_ground_and_square_pixels(tmp_path, write_scene):
    site = 'LOCAL_CS["site",UNIT["metre",1],AXIS["x",EAST],AXIS["y",NORTH]]'
    local = write_scene(tmp_path / "local.tif", noise("s", 3, 50, 60), crs=site)
    north = write_scene(tmp_path / "north.tif", noise("s", 3, 50, 60), crs="EPSG:4326", transform=(1e-4, 0, 20.0, 0, -1e-4, 68.0))
    plain = write_scene(tmp_path / "plain.tif", noise("s", 3, 50, 60), transform=GRID)
    np.save(tmp_path / "array.npy", noise("s", 3, 50, 60))
    for image, options, error, message in [
        (local, {"window_m": 100}, DataError, r"local\.tif: has no place on the Earth, so windows in metres cannot be cut; use window_px"),
        (tmp_path / "array.npy", {"window_m": 100}, DataError, "has no place on the Earth"),
        (north, {"window_m": 100}, DataError, r"pixels are 4\.1\d x 11\.2 m on the ground, too far from square"),
        (plain, {"window_m": 4}, DataError, "pixels are 10 m on the ground, more than a window or step of 4 m"),
        (plain, {"window_m": 640, "edge": "drop"}, DataError, "no image is as large as a window of 640 m"),
        (plain, {"window_m": 100, "window_px": 10}, ConfigError, "give window_px or window_m, not both"),
        (plain, {"window_m": 100, "stride_m": 101}, ConfigError, r"stride_m \(101\) must not exceed window_m \(100\)"),
        (plain, {"stride_m": 100}, ConfigError, "stride_m needs window_m"),
        (plain, {"window_m": 0}, ConfigError, "greater than 0"),
    ]:
        with pytest.raises(error, match=message):
            build(image, **options)


@pytest.fixture
def radar_and_optical(tmp_path, write_scene):
    """Two places with twelve optical and two radar bands; one of them with radar of another resolution; a third without radar."""
    for index, name in enumerate(("p1_20190904", "p2_20200101", "p3_20210101")):
        left = 500_000.0 + 1000 * index
        optical = noise(name, 12, 20, 24).astype(np.uint16) * 40 + 1
        write_scene(tmp_path / "s2" / f"{name}.tif", optical, transform=(10.0, 0.0, left, 0.0, -10.0, 5_000_000.0))
        if index < 2:
            step = 10.0 * (index + 1)
            radar = -noise(f"r{name}", 2, 20 // (index + 1), 24 // (index + 1)).astype(np.float32) / 10
            write_scene(tmp_path / "s1" / f"{name}_vv.tif", radar, transform=(step, 0.0, left, 0.0, -step, 5_000_000.0))
    return tmp_path


@pytest.mark.parametrize("sensor", ["s2_l2a+s1", "s1+s2_l2a"])
def test_sensors_of_one_place_are_joined_in_the_order_of_the_sum(radar_and_optical, sensor):
    root, problems = radar_and_optical, []
    options = {
        "layers": {"s1": str(root / "s1")},
        "layer_name": "{stem}_vv",
        "derived": str(root / "made"),
        "datetime_pattern": "_([0-9]{8})",
    }
    catalog = build(root / "s2", problems, sensor=sensor, window_px=12, **options)
    assert problems == [Problem(str(root / "s2" / "p3_20210101.tif"), f"layer s1 has no raster named p3_20210101_vv in {root / 's1'}")]
    assert catalog.counts("location_id") == {"p1_20190904": 4, "p2_20200101": 4}
    assert catalog.column("datetime")[0] == datetime(2019, 9, 4, tzinfo=UTC)
    assert catalog.column("tile_id")[3] == "s2/p1_20190904_r8_c12"
    catalog = Catalog.open(catalog.save(root / "catalog.parquet"))
    optical, radar = (read_pixels(str(root / path)).data for path in ("s2/p1_20190904.tif", "s1/p1_20190904_vv.tif"))
    parts = [optical.astype(np.float32), radar]
    expected = np.concatenate(parts if sensor.startswith("s2") else parts[::-1])
    tile = catalog.tile(3)
    pixels = read_pixels(tile.image, tile.window)
    assert pixels.data.dtype == np.float32
    assert pixels.valid.all()
    assert np.array_equal(pixels.data, expected[:, 8:20, 12:24])
    # The second place: radar of 20 m, bilinear on the optical grid.
    coarse, fine = read_pixels(str(root / "s1/p2_20200101_vv.tif")).data, read_pixels(catalog.tile(4).image)
    bands = slice(12, 14) if sensor.startswith("s2") else slice(0, 2)
    # Centre of pixel (row 3, column 5) in coarse pixels, counted from centres: row 1.25, column 2.25.
    by_hand = 0.75 * (0.75 * coarse[:, 1, 2] + 0.25 * coarse[:, 1, 3]) + 0.25 * (0.75 * coarse[:, 2, 2] + 0.25 * coarse[:, 2, 3])
    assert fine.data[bands, 3, 5] == pytest.approx(by_hand, rel=1e-4)


def test_layers_that_do_not_fit_are_named(radar_and_optical, write_scene):
    root = radar_and_optical
    good = {"sensor": "s2_l2a+s1", "layers": {"s1": str(root / "s1")}, "layer_name": "{stem}_vv", "derived": str(root / "made")}
    write_scene(root / "one" / "p1_20190904.tif", noise("x", 1, 20, 24).astype(np.float32), transform=GRID)
    (root / "twice" / "deep").mkdir(parents=True)
    for place in ("twice", "twice/deep"):
        write_scene(root / place / "p1_20190904.tif", noise("x", 2, 20, 24).astype(np.float32), transform=GRID)
    for options, error, message in [
        ({"layers": {"s3": "x"}}, ConfigError, r"layers\.s3: no part of sensor 's2_l2a\+s1'; choices: s1, s2_l2a"),
        ({"layers": {"s1": "x", "s2_l2a": "y"}}, ConfigError, "so layers must name 1 of them"),
        ({"sensor": "s2_l2a"}, ConfigError, r"layers\.s1: no part of sensor 's2_l2a'"),
        ({"layers": {}}, ConfigError, "layer_name needs layers"),
        ({"layers": {"s1": "nowhere"}}, MissingFileError, "no such folder or file of a layer"),
        (
            {"layer_name": "{stem}"},
            DataError,
            "layer s1 has no raster named p1_20190904 .*; none of 3 images has all its layers; set layer_name",
        ),
        ({"strict": True}, DataError, r"p3_20210101\.tif: layer s1 has no raster named p3_20210101_vv"),
        (
            {"layers": {"s1": str(root / "one")}, "layer_name": "{stem}"},
            SensorMismatchError,
            r"sensor 's1' has bands 2, 1 of 1 images differ.*one/p1",
        ),
        ({"layers": {"s1": str(root / "twice")}, "layer_name": "{stem}"}, DataError, "layer s1 has 2 rasters named p1_20190904"),
        ({"derived": None}, UsageError, "give derived"),
    ]:
        with pytest.raises(error, match=message):
            build(root / "s2", [], **(good | options))
    assert not (root / "made").exists()


def test_names_of_places_are_found_in_file_names(tmp_path, write_scene):
    for name in ("t31_spring", "t31_autumn", "other"):
        write_scene(tmp_path / f"{name}.tif", noise(name, 3, 8, 8))
    catalog = build(tmp_path, location_pattern="^(t[0-9]+)_")
    assert catalog.column("location_id") == [None, "t31", "t31"]
    assert build(tmp_path).column("location_id") == [None] * 3
    with pytest.raises(ConfigError, match="location_pattern needs exactly one group"):
        build(tmp_path, location_pattern="x")


def test_a_layer_may_be_of_a_sensor_of_your_own(radar_and_optical):
    root = radar_and_optical
    bands = "\n".join(f"  - {{name: {name}, kind: radar, mean: -12, std: 5, low: -25, high: 0}}" for name in ("VV_dB", "VH_dB"))
    (root / "radar.yaml").write_text(f"name: mine\ndtype: float32\nunit: dB\nrgb: [VV_dB, VH_dB, VH_dB]\nbands:\n{bands}\n")
    options = {"layers": {"radar": str(root / "s1")}, "layer_name": "{stem}_vv", "derived": str(root / "made")}
    catalog = build(root / "s2", [], sensor=f"s2_l2a+{root / 'radar.yaml'}", **options)
    assert catalog.sensor().band_names[-2:] == ("VV_dB", "VH_dB")
    assert read_pixels(catalog.tile(0).image).data.shape == (14, 20, 24)
