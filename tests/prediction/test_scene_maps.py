from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
from PIL import Image
from rio_cogeo.cogeo import cog_validate

from support.listing import listing
from support.tiny_models import SCHEME, TinySegmenter
from tilth.errors import MissingFileError, RunError, SensorMismatchError, UnreadableFileError, UsageError
from tilth.imagery.read import read_info, read_pixels
from tilth.imagery.write import write_raster
from tilth.models.inference import predict_tile
from tilth.prediction.scene import predict_scene
from tilth.reporting.maps import read_map
from tilth.sensors import get_sensor

TRANSFORM = (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0)


def scene(path, height=100, width=70, bands=3, dtype="uint8", *, crs="EPSG:32633", transform=TRANSFORM, holes=True, **more) -> str:
    draw = np.random.default_rng(0)
    data = draw.integers(20, 250, (bands, height, width)).astype(dtype)
    if holes:
        data[:, : height // 4, : width // 3] = 0
    return str(write_raster(path, data, crs=crs, transform=transform, nodata=0 if holes else None, **more))


def oracle(uri: str, window: int, overlap: int, model: TinySegmenter | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Classes, percent, and where the class is clear, of the whole scene in memory; blending is checked against brute force elsewhere.

    Convolutions round otherwise in batches of other sizes; a class is clear where it leads by more than that.
    """
    pixels = read_pixels(uri)
    probabilities = predict_tile(model or TinySegmenter(), pixels, window=window, overlap=overlap)
    classes = np.where(pixels.valid, probabilities.argmax(0).numpy(), 255)
    percent = np.where(pixels.valid, np.rint(probabilities.max(0).values.numpy() * 100), 255)
    first, second = probabilities.topk(2, dim=0).values.numpy()
    clear = (first - second > 2e-5) | ~pixels.valid
    assert clear.mean() > 0.99
    return classes.astype(np.uint8), percent.astype(np.uint8), clear


def band(path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return dataset.read(1)


@pytest.mark.parametrize(("height", "width"), [(100, 70), (33, 129), (7, 9), (16, 16), (1, 40)])
@pytest.mark.parametrize(("window", "overlap"), [(16, 6), (32, 0), (24, 20)])
def test_map_equals_prediction_of_the_whole_scene_at_once(tmp_path, height, width, window, overlap):
    uri = scene(tmp_path / "scene.tif", height, width)
    result = predict_scene(TinySegmenter(), uri, tmp_path / "map.tif", window=window, overlap=overlap, confidence=True)
    classes, percent, clear = oracle(uri, window, overlap)
    np.testing.assert_array_equal(band(result.path)[clear], classes[clear])
    # Half a percent may round either way.
    assert np.abs(band(result.confidence_path).astype(int) - percent).max() <= 1


@pytest.mark.parametrize("panel", [5, 64, 200])
@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_labels_do_not_depend_on_batches_and_panels(tmp_path, panel, batch_size):
    uri = scene(tmp_path / "scene.tif", 61, 103)
    # Classes so level that most pixels are decided by the last bits.
    model = TinySegmenter()
    model.second.weight.data *= 1e-7
    model.second.bias.data *= 1e-7
    one = predict_scene(model, uri, tmp_path / "one.tif", window=16, overlap=6)
    other = predict_scene(model, uri, tmp_path / "other.tif", window=16, overlap=6, batch_size=batch_size, panel=panel)
    assert min(one.class_pixels.values()) > 50
    assert (tmp_path / "one.tif").read_bytes() == (tmp_path / "other.tif").read_bytes()
    assert one.class_area_m2 == pytest.approx(other.class_area_m2)


def test_map_is_a_valid_cog_on_the_grid_of_the_scene(tmp_path):
    uri = scene(tmp_path / "scene.tif", 1100, 900)
    result = predict_scene(TinySegmenter(), uri, tmp_path / "map.tif", window=256, overlap=64, confidence=True)
    for path in (result.path, result.confidence_path):
        assert cog_validate(path, strict=True) == (True, [], [])
        with rasterio.open(path) as dataset:
            assert dataset.crs.to_epsg() == 32633
            assert tuple(dataset.transform)[:6] == TRANSFORM
            assert (dataset.count, dataset.dtypes[0], dataset.nodata, dataset.shape) == (1, "uint8", 255, (1100, 900))
            assert dataset.overviews(1)
            assert dataset.tags()["TILTH_SENSOR"] == "rgb"
    with rasterio.open(result.path) as dataset:
        table, tags = dataset.colormap(1), dataset.tags()
    assert tuple(table[value][:3] for value in range(4)) == SCHEME.colours
    assert json.loads(tags["CLASS_NAMES"]) == list(SCHEME.names)
    assert (tags["CLASS_0"], tags["TILTH_SCHEME"]) == ("water", "four")
    assert "<Category>bare &amp; dry</Category>" in (tmp_path / "map.tif.aux.xml").read_text()


def test_pixels_without_image_stay_nodata_and_counts_add_up(tmp_path):
    uri = scene(tmp_path / "scene.tif", 100, 70)
    calls = []
    result = predict_scene(
        TinySegmenter(),
        uri,
        tmp_path / "map.tif",
        window=16,
        overlap=6,
        confidence=True,
        progress=lambda done, total: calls.append((done, total)),
    )
    valid = read_pixels(uri).valid
    assert 0 < valid.sum() < valid.size
    for path in (result.path, result.confidence_path):
        np.testing.assert_array_equal(band(path) == 255, ~valid)
    assert result.valid_pixels == valid.sum() == sum(result.class_pixels.values())
    assert (result.width, result.height, result.georeferenced, result.black_border) == (70, 100, True, False)
    classes = band(result.path)
    assert result.class_pixels == {name: int((classes == index).sum()) for index, name in enumerate(SCHEME.names)}
    assert calls[-1][0] == calls[-1][1]
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})
    assert result.seconds > 0


def test_scene_without_a_valid_pixel_is_all_nodata(tmp_path):
    data = np.zeros((3, 40, 40), dtype=np.uint8)
    uri = str(write_raster(tmp_path / "scene.tif", data, crs="EPSG:32633", transform=TRANSFORM, nodata=0))
    model = TinySegmenter()
    result = predict_scene(model, uri, tmp_path / "map.tif", window=16, overlap=6)
    assert (band(result.path) == 255).all()
    assert result.valid_pixels == 0
    assert model.batches == []


def test_radar_scene_with_nan_is_predicted_around_it(tmp_path):
    data = np.random.default_rng(0).normal(-12, 4, (2, 50, 40)).astype(np.float32)
    data[0, 10:20, 5:15] = np.nan
    uri = str(write_raster(tmp_path / "scene.tif", data, crs="EPSG:32633", transform=TRANSFORM))
    model = TinySegmenter(get_sensor("s1"))
    result = predict_scene(model, uri, tmp_path / "map.tif", window=16, overlap=6)
    classes, _, clear = oracle(uri, 16, 6, model)
    np.testing.assert_array_equal(band(result.path)[clear], classes[clear])
    np.testing.assert_array_equal(band(result.path) == 255, np.isnan(data[0]))


def test_plain_image_works_and_says_that_it_has_no_place(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)).save(tmp_path / "scene.png")
    result = predict_scene(TinySegmenter(), tmp_path / "scene.png", tmp_path / "map.tif", window=16, overlap=6)
    assert not result.georeferenced
    assert result.class_area_m2 is None
    assert result.valid_pixels == 2000
    assert read_info(str(result.path)).crs is None


def test_scene_on_a_local_grid_is_mapped_without_areas(tmp_path):
    grid = 'LOCAL_CS["site",UNIT["metre",1],AXIS["x",EAST],AXIS["y",NORTH]]'
    result = predict_scene(TinySegmenter(), scene(tmp_path / "scene.tif", crs=grid), tmp_path / "map.tif", window=32, overlap=8)
    assert result.georeferenced
    assert result.class_area_m2 is None
    assert read_map(result.path).classes[0].area_m2 is None


def test_black_surroundings_stay_nodata_unless_told_otherwise(tmp_path):
    data = np.random.default_rng(0).integers(40, 200, (3, 300, 200)).astype(np.uint8)
    rows, columns = np.mgrid[:300, :200]
    data[:, rows + columns < 130] = 1
    uri = str(write_raster(tmp_path / "scene.tif", data, crs="EPSG:32633", transform=TRANSFORM))
    kept = predict_scene(TinySegmenter(), uri, tmp_path / "map.tif", window=64, overlap=16)
    np.testing.assert_array_equal(band(kept.path) == 255, rows + columns < 130)
    assert kept.black_border
    told = predict_scene(TinySegmenter(), uri, tmp_path / "told.tif", window=64, overlap=16, black_border=False)
    assert told.valid_pixels == 60_000
    assert not told.black_border


@pytest.mark.parametrize(
    ("crs", "transform", "expected"),
    [
        # UTM at its central meridian: scale 0.9996, so the ground is larger than the map by 1 / 0.9996^2.
        ("EPSG:32633", TRANSFORM, 100 / 0.9996**2),
        # Web Mercator at 60 degrees north: twice too large along each axis, but for the flattening.
        ("EPSG:3857", (10.0, 0.0, 0.0, 0.0, -10.0, 8_399_737.9), 25.1),
        # A degree is 111.3 km along the equator and 110.6 km along a meridian.
        ("EPSG:4326", (0.001, 0.0, 10.0, 0.0, -0.001, 0.05), 111.3195 * 110.574),
    ],
)
def test_area_is_ground_not_map(tmp_path, crs, transform, expected):
    uri = scene(tmp_path / "scene.tif", crs=crs, transform=transform)
    result = predict_scene(TinySegmenter(), uri, tmp_path / "map.tif", window=32, overlap=6)
    for name, pixels in result.class_pixels.items():
        assert result.class_area_m2[name] == pytest.approx(pixels * expected, rel=3e-3)


@pytest.mark.parametrize(
    ("bands", "dtype", "names", "sensor", "message"),
    [
        (4, "uint8", None, "rgb", r"has 4 bands; the model expects sensor 'rgb': 3 bands of uint8 \(red, green, blue\)"),
        (1, "uint8", None, "rgb", "has 1 band; the model expects"),
        (3, "uint16", None, "rgb", "stores uint16; the model expects"),
        (3, "uint8", ("Blue", "Green", "Red"), "rgb", "band 1 is described as 'Blue' where 'red' belongs"),
        (12, "uint16", tuple(f"B{index}" for index in range(1, 13)), "s2_l2a", "band 9 is described as 'B9' where 'B8A' belongs"),
    ],
)
def test_scene_of_another_sensor_is_refused_in_one_line(tmp_path, bands, dtype, names, sensor, message):
    uri = scene(tmp_path / "scene.tif", bands=bands, dtype=dtype, band_names=names)
    with pytest.raises(SensorMismatchError, match=message) as caught:
        predict_scene(TinySegmenter(get_sensor(sensor)), uri, tmp_path / "map.tif")
    assert "scene.tif" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert listing(tmp_path) == ["scene.tif"]


@pytest.mark.parametrize(
    ("names", "sensor"),
    [
        (("R", "G", "B"), "rgb"),
        (("", "green", ""), "rgb"),
        (("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "b8a", "B9", "B11", "B12"), "s2_l2a"),
    ],
)
def test_foreign_missing_and_differently_spelt_band_names_are_accepted(tmp_path, names, sensor):
    found = get_sensor(sensor)
    uri = scene(tmp_path / "scene.tif", 20, 20, bands=len(found), dtype=found.dtype, band_names=names)
    assert (
        predict_scene(TinySegmenter(found), uri, tmp_path / "map.tif", window=16, overlap=4).valid_pixels == 400 - 5 * 6
    )  # but for the hole


def test_failures_leave_nothing_and_the_old_map_as_it_was(tmp_path, capfd):
    uri = scene(tmp_path / "scene.tif", 600, 600)
    broken = tmp_path / "broken.tif"
    broken.write_bytes((tmp_path / "scene.tif").read_bytes()[:-200_000])
    sick = TinySegmenter()
    sick.second.bias.data[1] = float("nan")
    (tmp_path / "map.tif").write_text("old")

    cases = [
        (UnreadableFileError, {"scene": broken}),
        (MissingFileError, {"scene": tmp_path / "gone.tif"}),
        (RunError, {"segmenter": sick}),
        (UsageError, {"out": uri}),
        (UsageError, {"out": tmp_path / "deep" / "map.png"}),
        (UsageError, {"overlap": 900}),
    ]
    before = listing(tmp_path)
    for error, changed in cases:
        arguments = {
            "segmenter": TinySegmenter(),
            "scene": uri,
            "out": tmp_path / "map.tif",
            "confidence": True,
            "window": 128,
            "overlap": 32,
            "overwrite": True,
        } | changed
        with pytest.raises(error) as caught:
            predict_scene(**arguments)
        assert "\n" not in str(caught.value)
        assert listing(tmp_path) == before
        assert (tmp_path / "map.tif").read_text() == "old"
    assert capfd.readouterr() == ("", "")
