"""Which sensor is proposed, from bands, types and numbers; and what is written where none fits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

import tilth
from support.strange_folders import noise, picture, raster, reflectance

S2 = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")


def proposed(folder: Path) -> dict:
    return tilth.inspect(folder=folder).values["imagery"][0]["sensor"]


def sentinel2(chosen: tuple[str, ...], factor: float = 1.0, dtype: str = "uint16", blue: float = 300) -> np.ndarray:
    data = reflectance("s2", 13).astype(float)
    data[1] = blue + noise("blue", 64, 64, high=400)
    data[10] = 5 + noise("cirrus", 64, 64, high=20)
    return (data[[S2.index(name) for name in chosen]] * factor).astype(dtype)


NINE = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B11", "B12")
COLOURS = ("blue", "green", "red", "nir", "swir1", "swir2")
NO_B10 = tuple(name for name in S2 if name != "B10")
DECIBELS = -np.linspace(10, 17, 2)[:, None, None] - noise("db", 2, 64, 64, high=400) / 100


@pytest.mark.parametrize(
    ("data", "names", "name", "built_in", "scale"),
    [
        (noise("a", 3, 64, 64).astype("uint8"), None, "rgb", True, "8-bit picture, digital numbers"),
        (noise("b", 4, 64, 64).astype("uint8"), None, "rgbn", True, "8-bit picture, digital numbers"),
        (noise("c", 4, 64, 64).astype("uint8"), ("blue", "green", "red", "nir"), "gf2", True, "8-bit picture, digital numbers"),
        (noise("d", 6, 64, 64).astype("uint8"), None, "composite_8bit", False, "8-bit picture, no physical unit"),
        (DECIBELS.astype("float32"), ("VV", "VH"), "s1", True, "decibels"),
        (DECIBELS.astype("float32"), None, "s1", True, "decibels"),
        ((DECIBELS * 100).astype("int16"), ("VV", "VH"), "s1_int16", False, "0.01 dB"),
        ((10 ** (DECIBELS / 10)).astype("float32"), ("VV", "VH"), "radar_linear", False, "no decibels"),
        (sentinel2(S2), S2, "s2_l1c", True, "reflectance x 10000"),
        (sentinel2(S2), None, "s2_l1c", True, "reflectance x 10000"),
        (sentinel2(NO_B10), NO_B10, "s2_l2a", True, "reflectance x 10000"),
        (sentinel2(NO_B10), None, "s2_l2a", True, "reflectance x 10000"),
        (sentinel2(NINE), NINE, "s2_l2a_9", True, "reflectance x 10000"),
        (sentinel2(NINE, blue=1300), NINE, "s2_l1c_9", True, "reflectance x 10000"),
        (sentinel2(S2, dtype="int16"), S2, "s2_l1c_int16", False, "reflectance x 10000"),
        (sentinel2(("B04", "B03", "B02", "B08")), ("B4", "B3", "B2", "B8"), "s2_l2a_4_made", False, "reflectance x 10000"),
        (sentinel2(NO_B10, 6.5535), NO_B10, "s2_l2a_made", False, "reflectance x 65535 (16-bit display scale, as EO Browser writes)"),
        (sentinel2(NO_B10, 1e-4, "float32"), NO_B10, "s2_l2a_float32", False, "reflectance 0 to 1"),
        (reflectance("h", 6, dtype="int16"), COLOURS, "hls", True, "reflectance x 10000"),
        (reflectance("i", 7, dtype="int16"), ("coastal", *COLOURS), "measured", False, "reflectance x 10000"),
        ((5000 + noise("n", 13, 64, 64)).astype("uint16"), S2, "normalised", False, "numbers scaled per band, no reflectance"),
    ],
)  # fmt: skip
def test_a_sensor_is_proposed(tmp_path: Path, data: np.ndarray, names: tuple[str, ...] | None, name: str, built_in: bool, scale: str):
    raster(tmp_path / "a.tif", data, names=names)
    found = proposed(tmp_path)
    assert (found["name"], found["built_in"], found["scale"]) == (name, built_in, scale)
    assert found["reasons"]


def test_a_pool_of_pictures_is_rgb(tmp_path: Path):
    picture(tmp_path / "a.jpg")
    assert proposed(tmp_path)["name"] == "rgb"


def test_a_sensor_that_the_user_names_is_taken(tmp_path: Path):
    raster(tmp_path / "a.tif", sentinel2(NINE), names=NINE)
    tilth.inspect(folder=tmp_path, sensor="s2_l1c_9", out=tmp_path / "out")
    stages = yaml.safe_load((tmp_path / "out" / "recipe.yaml").read_text())["stages"]
    assert stages[0]["options"]["sensor"] == "s2_l1c_9"
    assert not (tmp_path / "out" / "sensor.yaml").exists()


def test_a_measured_sensor_holds_the_statistics_of_the_images(tmp_path: Path):
    data = [reflectance(f"m{index}", 5, dtype="int16") for index in range(3)]
    for index, part in enumerate(data):
        raster(tmp_path / "images" / f"{index}.tif", part, names=("a", "b", "c", "d", "slope"))
    tilth.inspect(folder=tmp_path, out=tmp_path / "out")
    sensor = tilth.get_sensor(str(tmp_path / "out" / "sensor.yaml"))
    together = np.stack(data).astype(float).transpose(1, 0, 2, 3).reshape(5, -1)
    for place, band in enumerate(sensor.bands):
        factor = 1.0 if band.name == "slope" else 1e-4
        assert band.scale == factor
        assert band.mean == pytest.approx(together[place].mean() * factor, rel=1e-3)
        assert band.std == pytest.approx(together[place].std() * factor, rel=1e-3)
        assert band.low < band.mean < band.high
    assert [band.kind for band in sensor.bands] == ["optical"] * 4 + ["other"]
    assert sensor.dtype == "int16"


def test_a_written_sentinel_2_sensor_keeps_the_physics_of_the_built_in_one(tmp_path: Path):
    raster(tmp_path / "images" / "a.tif", sentinel2(NO_B10, 6.5535), names=NO_B10)
    tilth.inspect(folder=tmp_path, out=tmp_path / "out")
    sensor, known = tilth.get_sensor(str(tmp_path / "out" / "sensor.yaml")), tilth.get_sensor("s2_l2a")
    assert [(band.name, band.mean, band.std) for band in sensor.bands] == [(band.name, band.mean, band.std) for band in known.bands]
    assert all(band.scale == pytest.approx(1 / 65535) for band in sensor.bands)


def test_an_offset_that_is_still_in_is_taken_out(tmp_path: Path):
    raster(tmp_path / "images" / "a.tif", sentinel2(S2) + np.uint16(1000), names=S2)
    tilth.inspect(folder=tmp_path, out=tmp_path / "out")
    assert {band.offset for band in tilth.get_sensor(str(tmp_path / "out" / "sensor.yaml")).bands} == {-0.1}
