"""Doubts about scaling and band order: planted errors raise them, sound landscapes of every sensor raise none."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from tilth.catalog.statistics import RasterStatistics, pixel_statistics
from tilth.catalog.suspicion import order_suspicions, scale_suspicions
from tilth.imagery.landscape.config import LandscapeConfig
from tilth.imagery.landscape.generate import generate_landscape
from tilth.imagery.landscape.observation import observe
from tilth.imagery.raster import Pixels, RasterInfo
from tilth.sensors import Sensor, get_sensor, sensor_names

SCENES = 5


@cache
def landscape(index: int, gsd_m: float):
    return generate_landscape(LandscapeConfig(seed=3, index=index, height=160, width=160, gsd_m=gsd_m))


@cache
def scenes(sensor: str, season: str = "summer") -> tuple[np.ndarray, ...]:
    gsd_m = 10.0 if get_sensor(sensor).bands[-1].gsd_m else 2.0
    return tuple(observe(landscape(index, gsd_m), get_sensor(sensor), season=season, illumination=index) for index in range(SCENES))


def measure(images) -> list[RasterStatistics]:
    result = []
    for data in images:
        info = RasterInfo("x", data.shape[2], data.shape[1], data.shape[0], data.dtype.name, None, None, None, ("",) * len(data))
        result.append(pixel_statistics(Pixels(data, np.ones(data.shape[1:], dtype=bool)), info))
    return result


def doubts(images, sensor: Sensor) -> list[str]:
    statistics = measure(images)
    return [*scale_suspicions(statistics, sensor), *order_suspicions(statistics, sensor)]


@pytest.mark.parametrize("season", ["summer", "winter"])
@pytest.mark.parametrize("name", [*sensor_names(), "s1+s2_l2a"])
def test_sound_landscapes_raise_no_doubt(name, season):
    assert doubts(scenes(name, season), get_sensor(name)) == []


@pytest.mark.parametrize(
    ("name", "first", "second", "word"),
    [
        ("rgb", "red", "blue", "exchanged"),
        ("rgbn", "red", "nir", "out of order"),
        ("rgbn", "green", "nir", "out of order"),
        ("gf2", "blue", "nir", "out of order"),
        ("s2_l2a", "B04", "B02", "exchanged"),
        ("s2_l1c", "B04", "B02", "exchanged"),
        ("s2_l2a", "B03", "B08", "out of order"),
        ("s2_l2a_10", "B04", "B07", "out of order"),
        ("hls", "red", "nir", "out of order"),
        ("hls", "red", "blue", "exchanged"),
        ("s1", "VV", "VH", "exchanged"),
        ("s1+s2_l2a", "B03", "B08", "out of order"),
    ],
)
def test_exchanged_bands_are_doubted(name, first, second, word):
    sensor = get_sensor(name)
    order = list(range(len(sensor)))
    one, other = sensor.band_names.index(first), sensor.band_names.index(second)
    order[one], order[other] = other, one
    found = doubts([data[order] for data in scenes(name)], sensor)
    assert len(found) == 1
    assert word in found[0]


@pytest.mark.parametrize("name", ["s2_l2a", "s2_l1c", "s2_l2a_10"])
def test_a_band_moved_to_the_end_is_doubted(name):
    """Sorted by text, B8A comes behind B12."""
    sensor = get_sensor(name)
    place = sensor.band_names.index("B8A")
    found = doubts([np.concatenate([np.delete(data, place, axis=0), data[place : place + 1]]) for data in scenes(name)], sensor)
    assert len(found) == 1
    assert "B12" in found[0]


def test_exchanged_colours_of_water_are_doubted():
    """Half smooth blue water, half rough grey ground: sound as it is, doubted with red and blue exchanged."""
    random = np.random.default_rng(0)
    images = []
    for _ in range(5):
        data = random.integers(60, 200, (1, 96, 96)).astype(np.float64) + random.normal(0, 3, (3, 96, 96))
        data[:, :40] = np.array([40, 90, 170])[:, None, None] + random.normal(0, 1, (3, 40, 96))
        images.append(np.clip(data, 0, 255).astype(np.uint8))
    assert doubts(images, get_sensor("rgb")) == []
    found = doubts([image[::-1] for image in images], get_sensor("rgb"))
    assert len(found) == 1
    assert "5 of 5 images" in found[0]


def sea(name: str, dark: float = 1.0) -> list[np.ndarray]:
    """Open water: bright in blue, next to nothing beyond red, with the swell in all bands alike."""
    sensor = get_sensor(name)
    levels = np.interp(
        [band.centre_nm for band in sensor.bands], (440, 490, 560, 660, 860, 2200), (0.022, 0.022, 0.018, 0.008, 0.005, 0.002)
    )
    images = []
    for index in range(8):
        rows, columns = np.indices((96, 96))
        swell = 1 + 0.1 * np.sin(columns / 20 + index) + 0.03 * np.random.default_rng(index).normal(size=rows.shape)
        physical = dark * levels[:, None, None] * swell
        stored = [(band - item.offset) / item.scale for band, item in zip(physical, sensor.bands, strict=True)]
        images.append(np.clip(stored, 1, None).astype(sensor.dtype))
    return images


@pytest.mark.parametrize("name", ["s2_l2a", "s2_l2a_10", "s2_l2a_9", "hls", "rgbn"])
def test_the_open_sea_raises_no_doubt(name):
    assert doubts(sea(name), get_sensor(name)) == []


def test_the_open_sea_as_a_picture_of_eight_bits_is_doubted():
    images = [np.clip(data / 10_000 / 0.03 * 255, 0, 255).astype(np.uint8) for data in sea("s2_l2a")]
    assert "8-bit picture" in doubts(images, get_sensor("s2_l2a"))[0]


def scaled(name, change, dtype):
    return [change(data.astype(np.float64)).astype(dtype) for data in scenes(name)]


@pytest.mark.parametrize(
    ("name", "change", "dtype", "words"),
    [
        ("s2_l2a", lambda x: np.clip(x * 6.5535, 0, 65535), "uint16", "65535"),
        ("s2_l2a", lambda x: x / 10_000, "float32", "reflectance already"),
        ("s2_l2a", lambda x: np.clip(x / 10_000 / 0.4 * 255, 0, 255), "uint8", "8-bit picture"),
        ("s2_l2a", lambda x: x + 1000, "uint16", "offset"),
        ("s2_l1c", lambda x: x + 1000, "uint16", "B10"),
        ("hls", lambda x: x * 100, "int32", "reflectance lies in 0 to 1"),
        ("rgb", lambda x: x / 255, "float32", "already divided by 255"),
        ("rgb", lambda x: x * 256, "uint16", "8 bits end at 255"),
        ("rgb", lambda x: x // 20, "uint8", "nearly black"),
        ("s1", lambda x: x * 100, "int16", "hundredths"),
        ("s1", lambda x: 10 ** (x / 10), "float32", "linear"),
        ("s1", lambda x: -x, "float32", "sign lost"),
        ("s1", lambda x: np.clip((x + 30) * 8, 0, 255), "uint8", "8-bit picture"),
        ("s1", lambda x: 10 ** (x / 20) * 3000, "uint16", "amplitude"),
        ("s1+s2_l2a", lambda x: np.concatenate([x[:2] * 100, x[2:]]), "float32", "hundredths"),
    ],
)
def test_wrong_scaling_is_doubted_with_the_numbers(name, change, dtype, words):
    found = scale_suspicions(measure(scaled(name, change, dtype)), get_sensor(name))
    assert len(found) == 1
    assert words in found[0]
    assert any(character.isdigit() for character in found[0])


def test_a_sensor_of_its_own_is_judged_by_what_it_declares():
    band = {"name": "height", "kind": "other", "mean": 300, "std": 200, "low": 0, "high": 1000}
    sensor = Sensor.parse({"name": "dem", "bands": [band], "dtype": "float32", "unit": "m", "rgb": ["height"] * 3}, source="test")
    metres = [np.random.default_rng(index).normal(400, 50, (1, 64, 64)).astype(np.float32) for index in range(3)]
    assert doubts(metres, sensor) == []
    assert "400,000" in doubts([np.full_like(data, 400_000) + data for data in metres], sensor)[0].replace("4.004e+05", "400,000")


def test_one_odd_image_among_sound_ones_raises_no_doubt():
    images = list(scenes("s2_l2a"))
    odd = np.clip(images[0].astype(np.float64) * 6.5, 0, 65535).astype(np.uint16)[::-1]
    assert doubts([*images, odd], get_sensor("s2_l2a")) == []


def test_images_without_content_are_passed_over():
    sensor = get_sensor("rgb")
    assert doubts([np.zeros((3, 64, 64), np.uint8)], sensor) == []
    assert doubts([np.full((4, 64, 64), 9, np.uint8)], sensor) == []
    assert doubts([], sensor) == []
