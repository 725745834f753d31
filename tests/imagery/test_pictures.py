"""Pictures of pixels and labels. Oracles: closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from tilth.classes import ClassScheme, LandClass
from tilth.errors import DataError, SensorMismatchError
from tilth.imagery.picture import NO_DATA_GREY, colourise, overlay, to_rgb
from tilth.sensors import get_sensor

SCHEME = ClassScheme(name="two", classes=(LandClass(name="a", colour=(10, 20, 30)), LandClass(name="b", colour=(200, 100, 0))))


def test_eight_bit_pixels_are_shown_as_they_are():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 7), dtype=np.uint8)
    assert (to_rgb(pixels, None, get_sensor("rgb")) == pixels.transpose(1, 2, 0)).all()


def test_bands_are_ordered_by_the_sensor():
    pixels = np.arange(4, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    assert to_rgb(pixels, None, get_sensor("gf2"))[0, 0].tolist() == [2, 1, 0]


def test_low_is_black_high_is_white_and_beyond_is_clipped():
    band = get_sensor("s1").bands[0]
    ramp = np.array([band.low - 9, band.low, (band.low + band.high) / 2, band.high, band.high + 9], np.float32)
    assert to_rgb(np.stack([ramp, ramp])[:, None], None, get_sensor("s1"))[0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_scaled_integers():
    pixels = np.full((12, 1, 1), 1000, np.uint16)
    sensor = get_sensor("s2_l2a")
    expected = [round(0.1 / sensor.bands[index].high * 255) for index in sensor.rgb_indices]
    assert to_rgb(pixels, None, sensor)[0, 0].tolist() == expected


def test_pixels_that_are_not_valid_or_not_finite_are_grey():
    pixels = np.zeros((2, 1, 3), np.float32)
    pixels[1, 0, 1] = np.nan
    picture = to_rgb(pixels, np.array([[True, True, False]]), get_sensor("s1"))
    assert (picture[0, 1:] == NO_DATA_GREY).all()
    assert not (picture[0, 0] == NO_DATA_GREY).all()


def test_other_band_count_is_refused():
    with pytest.raises(SensorMismatchError, match="expected \\(3, h, w\\)"):
        to_rgb(np.zeros((4, 2, 2), np.uint8), None, get_sensor("rgb"))


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_classes_take_their_colours_and_ignored_pixels_grey(dtype):
    mask = np.array([[0, 1, 255]], dtype=dtype)
    assert colourise(mask, SCHEME)[0].tolist() == [[10, 20, 30], [200, 100, 0], [NO_DATA_GREY] * 3]


@pytest.mark.parametrize(("value", "dtype"), [(2, np.uint8), (254, np.uint8), (-1, np.int64), (300, np.int64)])
def test_value_outside_the_scheme_is_refused(value, dtype):
    with pytest.raises(DataError, match=f"value {value} is outside"):
        colourise(np.array([[0, value]], dtype=dtype), SCHEME)


def test_overlay_mixes_and_leaves_ignored_pixels_alone():
    picture = np.full((1, 2, 3), 100, np.uint8)
    assert overlay(picture, np.array([[1, 255]], np.uint8), SCHEME, opacity=0.25)[0].tolist() == [[125, 100, 75], [100, 100, 100]]
