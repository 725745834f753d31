"""Scenes in other coordinates, resolutions and orders of bands, and several that become one map."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import rasterio
from rasterio.warp import Resampling, reproject

from support.mapping import TRANSFORM, hilly, noise, read, write
from support.tiny_models import TinySegmenter
from tilth.errors import SensorMismatchError, TilthWarning, UsageError
from tilth.imagery.read import Window, read_info
from tilth.prediction.scene import predict_scene
from tilth.prediction.sources import open_mosaic, open_scene
from tilth.sensors import get_sensor

RGB = get_sensor("rgb")
WINDOWS = {"window": 32, "overlap": 12}
ROTATED = (8.0, 3.0, 500_000.0, 3.0, -8.0, 5_000_000.0)


def cut(folder, data, boxes, **more) -> list[str]:
    """Cut a scene into boxes of (first row, last row, first column, last column)."""
    return [
        write(folder / f"part_{index}.tif", data[:, top:bottom, left:right], column=left, row=top, **more)
        for index, (top, bottom, left, right) in enumerate(boxes)
    ]


@pytest.mark.parametrize("panel", [50, 500])
def test_mosaic_equals_the_scene_it_was_cut_from(tmp_path, panel):
    data = noise(150, 130)
    whole = predict_scene(TinySegmenter(), write(tmp_path / "scene.tif", data), tmp_path / "whole.tif", **WINDOWS)
    # Borders inside of windows; the third part lies over the others.
    parts = cut(tmp_path, data, [(0, 70, 0, 61), (0, 83, 61, 130), (40, 150, 20, 130), (70, 150, 0, 20)])
    result = predict_scene(TinySegmenter(), open_mosaic(parts, RGB), tmp_path / "map.tif", **WINDOWS, panel=panel)
    np.testing.assert_array_equal(read(result.path), read(whole.path))
    assert result.class_pixels == whole.class_pixels
    assert read_info(str(result.path)).transform == TRANSFORM


def test_mosaic_shows_the_first_scene_with_data_and_gaps(tmp_path):
    first, second = np.full((3, 40, 60), 50, dtype=np.uint8), np.full((3, 50, 40), 90, dtype=np.uint8)
    first[:, 10:20, 40:50] = 0
    uris = [
        write(tmp_path / "a.tif", first, nodata=0),
        write(tmp_path / "b.tif", second, column=35, row=-5, nodata=0),
        write(tmp_path / "c.tif", second[:, :10, :10], column=-20, row=60, nodata=0),
    ]
    scene = open_mosaic(uris, RGB)
    a, b, _, d, e, _ = TRANSFORM
    assert (scene.info.width, scene.info.height) == (95, 75)
    assert scene.info.transform == (a, b, 500_000.0 - 200, d, e, 5_000_000.0 + 50)
    pixels = scene.read(Window(0, 0, 95, 75))
    expected, valid = np.zeros((75, 95)), np.zeros((75, 95), dtype=bool)
    for column, row, image in ((0, 65, second[:, :10, :10]), (55, 0, second), (20, 5, first)):
        there = image[0] > 0
        height, width = there.shape
        expected[row : row + height, column : column + width][there] = image[0][there]
        valid[row : row + height, column : column + width] |= there
    np.testing.assert_array_equal(pixels.valid, valid)
    np.testing.assert_array_equal(pixels.data[0][valid], expected[valid])
    # Read in pieces it is the same.
    for window in (Window(10, 3, 50, 40), Window(70, 60, 25, 15), Window(0, 70, 8, 5)):
        column, row, width, height = window
        piece = scene.read(window)
        np.testing.assert_array_equal(piece.valid, valid[row : row + height, column : column + width])
        np.testing.assert_array_equal(piece.data, pixels.data[:, row : row + height, column : column + width])
    result = predict_scene(TinySegmenter(), scene, tmp_path / "map.tif", **WINDOWS)
    np.testing.assert_array_equal(read(result.path) == 255, ~valid)


def test_scene_in_another_crs_joins_a_mosaic(tmp_path):
    data = hilly(200, 200)
    left = write(tmp_path / "left.tif", data[:, :, :120])
    right = tmp_path / "right.tif"
    with rasterio.open(write(tmp_path / "scene.tif", data)) as scene, rasterio.vrt.WarpedVRT(scene, crs="EPSG:3857") as warped:
        moved = warped.read(window=rasterio.windows.Window(100, 0, warped.width - 100, warped.height))
        place = warped.window_transform(rasterio.windows.Window(100, 0, warped.width - 100, warped.height))
    write(right, moved, crs="EPSG:3857", transform=tuple(place)[:6], nodata=0)
    mosaic = open_mosaic([left, right], RGB)
    assert mosaic.info.crs == "EPSG:32633"
    a, _, x, _, e, y = mosaic.info.transform
    column, row = round((500_000 - x) / a), round((5_000_000 - y) / e)
    pixels = mosaic.read(Window(column, row, 200, 200))
    np.testing.assert_array_equal(pixels.data[:, :, :120], data[:, :, :120])
    inner = pixels.valid[:, 120:]
    assert inner.mean() > 0.95
    assert np.abs(pixels.data[:, :, 120:].astype(int) - data[:, :, 120:])[:, inner].max() <= 6


@pytest.mark.parametrize(("crs", "resolution"), [("EPSG:32634", None), ("EPSG:3857", 20.0), (None, 25.0), ("EPSG:4326", 0.0002)])
def test_scene_is_resampled_on_request(tmp_path, crs, resolution):
    data = hilly(160, 200)
    data[:, 50:70, 60:90] = 0
    uri = write(tmp_path / "scene.tif", data, nodata=0)
    scene = open_scene(uri, RGB, crs=crs, resolution=resolution)
    info = scene.info
    assert info.crs == (crs or "EPSG:32633")
    if resolution:
        assert (info.transform[0], info.transform[4]) == (resolution, -resolution)
        # On whole multiples, so that neighbours fit.
        assert info.transform[2] / resolution == pytest.approx(round(info.transform[2] / resolution))
    expected = np.zeros((3, info.height, info.width), dtype=np.uint8)
    with rasterio.open(uri) as dataset:
        reproject(
            rasterio.band(dataset, [1, 2, 3]),
            expected,
            dst_transform=rasterio.Affine(*info.transform),
            dst_crs=info.crs,
            src_nodata=0,
            dst_nodata=0,
            resampling=Resampling.bilinear,
            UNIFIED_SRC_NODATA="NO",
        )
    pixels = scene.read(Window(0, 0, info.width, info.height))
    # At the edge of no data a hundredth of a pixel, by which the two ways may differ, decides.
    assert (pixels.valid != (expected > 0).all(axis=0)).mean() < 5e-4
    assert np.abs(pixels.data.astype(int) - expected)[:, pixels.valid].max() <= 1
    result = predict_scene(TinySegmenter(), scene, tmp_path / "map.tif", **WINDOWS)
    with rasterio.open(result.path) as dataset:
        assert dataset.crs == rasterio.CRS.from_user_input(info.crs)
        assert dataset.shape == (info.height, info.width)
    np.testing.assert_array_equal(read(result.path) == 255, ~pixels.valid)
    # The same ground, however it is mapped.
    own = predict_scene(TinySegmenter(), uri, tmp_path / "own.tif", **WINDOWS)
    assert sum(result.class_area_m2.values()) == pytest.approx(sum(own.class_area_m2.values()), rel=0.03)


def test_a_grid_that_is_the_scenes_own_is_not_resampled(tmp_path):
    uri = write(tmp_path / "scene.tif", noise(50, 60))
    assert open_scene(uri, RGB, crs="EPSG:32633", resolution=10.0).parts[0].uri == uri


def test_rotated_scene_keeps_its_grid_and_ground(tmp_path):
    uri = write(tmp_path / "scene.tif", noise(60, 80), transform=ROTATED)
    result = predict_scene(TinySegmenter(), uri, tmp_path / "map.tif", **WINDOWS)
    assert read_info(str(result.path)).transform == ROTATED
    pixel = abs(ROTATED[0] * ROTATED[4] - ROTATED[1] * ROTATED[3])
    assert sum(result.class_area_m2.values()) == pytest.approx(60 * 80 * pixel / 0.9996**2, rel=1e-3)
    upright = open_scene(uri, RGB, resolution=8.0)
    assert (upright.info.transform[1], upright.info.transform[3]) == (0, 0)
    valid = upright.read(Window(0, 0, upright.info.width, upright.info.height)).valid
    assert valid.sum() * 64 == pytest.approx(60 * 80 * pixel, rel=0.05)


def test_black_surroundings_of_a_resampled_scene_stay_nodata(tmp_path):
    data = noise(300, 200)
    rows, columns = np.mgrid[:300, :200]
    data[:, rows + columns < 130] = 1
    uri = write(tmp_path / "scene.tif", data)
    scene = open_scene(uri, RGB, resolution=20.0)
    assert scene.black_border
    pixels = scene.read(Window(0, 0, 100, 150))
    expected = ~(2 * (np.mgrid[:150, :100].sum(axis=0)) + 1 < 130)
    # Within a pixel of the edge bilinear interpolation mixes both.
    assert (pixels.valid == expected).mean() > 0.98
    assert pixels.valid[140:, 90:].all()
    assert not pixels.valid[:20, :20].any()


@pytest.mark.parametrize("bands", [("3", "2", "1"), ("Red", "green", "BLUE"), ("red", "2", "1")])
def test_bands_are_picked_and_put_in_order(tmp_path, bands):
    data = noise(50, 60, bands=4)
    names = ("Blue", "Green", "Red", "NIR")
    data[3, 10:20, 10:20] = 0
    straight = write(tmp_path / "straight.tif", data[[2, 1, 0]], nodata=0)
    uri = write(tmp_path / "scene.tif", data, band_names=names, nodata=0)
    expected = predict_scene(TinySegmenter(), straight, tmp_path / "expected.tif", **WINDOWS)
    result = predict_scene(TinySegmenter(), open_scene(uri, RGB, bands=bands), tmp_path / "map.tif", **WINDOWS)
    # A hole in a band that nobody asked for is none.
    assert result.valid_pixels == 3000
    np.testing.assert_array_equal(read(result.path), read(expected.path))
    np.save(tmp_path / "scene.npy", data)
    array = open_scene(tmp_path / "scene.npy", RGB, bands=("3", "2", "1"))
    np.testing.assert_array_equal(array.read(Window(5, 6, 7, 8)).data, data[[2, 1, 0], 6:14, 5:12])


@pytest.mark.parametrize(
    ("bands", "dtype", "names", "given", "error", "message"),
    [
        (5, "uint8", None, (), SensorMismatchError, r"has 5 bands; .* pick those by name or number, in this order: --bands 1,2,3"),
        (4, "uint8", ("Blue", "Green", "Red", "NIR"), (), SensorMismatchError, r"has 4 bands; .* --bands red,green,blue"),
        (
            3,
            "uint8",
            ("Blue", "Green", "Red"),
            (),
            SensorMismatchError,
            r"'Blue' where 'red' belongs.*in this order: --bands red,green,blue",
        ),
        (2, "uint8", None, (), SensorMismatchError, r"has 2 bands; .* cannot be made up"),
        (3, "uint16", None, (), SensorMismatchError, r"stores uint16; .* write a copy in uint8"),
        (4, "uint8", None, ("1", "2"), SensorMismatchError, r"has 2 bands; the model expects"),
        (4, "uint8", None, ("1", "2", "5"), UsageError, r"no band '5'; give numbers from 1 to 4"),
        (4, "uint8", ("Blue", "Green", "Red", "NIR"), ("rd", "green", "blue"), UsageError, r"no band 'rd'; did you mean 'Red'\?"),
    ],
)
def test_bands_that_do_not_fit_are_refused_with_the_way_out(tmp_path, bands, dtype, names, given, error, message):
    uri = write(tmp_path / "scene.tif", noise(20, 20, bands=bands).astype(dtype), band_names=names)
    with pytest.raises(error, match=message):
        open_scene(uri, RGB, bands=given)


@pytest.mark.parametrize(
    ("crs", "resolution", "message"),
    [
        ("EPSG:nonsense", None, "unknown coordinate reference system"),
        (None, -3.0, "greater than 0"),
        ("EPSG:4326", 10.0, r"resolution 10 is coarser than .* units of the CRS: degrees"),
    ],
)
def test_grids_that_make_no_sense_are_refused(tmp_path, crs, resolution, message):
    uri = write(tmp_path / "scene.tif", noise(20, 20))
    with pytest.raises(UsageError, match=message):
        open_scene(uri, RGB, crs=crs, resolution=resolution)


def test_scene_without_a_place_can_neither_be_resampled_nor_join_a_mosaic(tmp_path):
    uri = write(tmp_path / "scene.tif", noise(20, 20), crs=None)
    with pytest.raises(UsageError, match="cannot be resampled"):
        open_scene(uri, RGB, resolution=2.0)
    with pytest.raises(UsageError, match="no place in a mosaic"):
        open_mosaic([uri, uri], RGB)


@pytest.mark.parametrize(("metres", "warned"), [(10.0, False), (14.0, False), (7.0, False), (20.0, True), (3.0, True)])
def test_pixels_of_another_size_on_the_ground_are_warned_of(tmp_path, metres, warned):
    sensor = get_sensor("s1")
    data = np.random.default_rng(0).normal(-12, 4, (2, 40, 40)).astype(np.float32)
    uri = write(tmp_path / "scene.tif", data, transform=(metres, 0.0, 5e5, 0.0, -metres, 5e6))
    model = TinySegmenter(sensor)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        predict_scene(model, uri, tmp_path / "map.tif", **WINDOWS)
    texts = [str(item.message) for item in caught if issubclass(item.category, TilthWarning)]
    assert len(texts) == warned
    if warned:
        assert f"its pixels cover {metres:g} m, those of sensor 's1' 10 m" in texts[0]
        # Ten metres on the ground are a little less on the map, near the central meridian of UTM.
        assert float(texts[0].rpartition(" ")[2]) == pytest.approx(10 * 0.9996, rel=1e-3)
        with warnings.catch_warnings():
            warnings.simplefilter("error", TilthWarning)
            predict_scene(model, open_scene(uri, sensor, resolution=10.0), tmp_path / "resampled.tif", **WINDOWS)
