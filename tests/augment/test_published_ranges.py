"""Ranges in which published networks want values. Numbers of the published program lie in tests/fixtures/cromss/ranges.npz."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydantic
import pytest
import torch

from tilth.augment.normalise import check_linear, normalise
from tilth.errors import ConfigError
from tilth.sensor_ranges import same_input
from tilth.sensors import Band, Sensor, get_sensor

NUMBERS = np.load(Path(__file__).parents[1] / "fixtures" / "cromss" / "ranges.npz")
SUBSETS = {
    "3": [3, 2, 1],
    "9": [1, 2, 3, 4, 5, 6, 7, 11, 12],
    "9_rgb": [3, 2, 1, 4, 5, 6, 7, 11, 12],
    "10": [1, 2, 3, 4, 5, 6, 7, 8, 11, 12],
    "12": [band for band in range(13) if band != 10],
    "13": list(range(13)),
}


def of_subset(subset: str, kind: str) -> Sensor:
    return get_sensor("s2_l1c" + ("" if subset == "13" else f"_{subset}") + kind)


def shown(stored: np.ndarray, sensor: Sensor) -> np.ndarray:
    return normalise(torch.from_numpy(stored)[None], None, sensor)[0].numpy()


@pytest.mark.parametrize("subset", SUBSETS)
def test_quantising_is_exact_for_every_subset_of_bands(subset):
    wanted = NUMBERS[f"s2_clip_uint8_{'92' if subset == '9_rgb' else subset}"]
    found = shown(NUMBERS["s2_uint16"][SUBSETS[subset]], of_subset(subset, "_quantised"))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(np.rint(found * 255).astype(np.uint8), wanted)
    np.testing.assert_array_equal(found, wanted.astype(np.float64).__truediv__(255).astype(np.float32))


def test_radar_is_quantised_in_decibels():
    wanted = NUMBERS["s1_clip_uint8"]
    np.testing.assert_array_equal(np.rint(shown(NUMBERS["s1_float32"], get_sensor("s1_quantised")) * 255).astype(np.uint8), wanted)


@pytest.mark.parametrize(
    ("name", "key"), [("s1_quantised+s2_l1c_9_quantised", "item_s12_9B"), ("s1_quantised+s2_l1c_quantised", "dfc_item_s12_13B")]
)
def test_both_sensors_together_are_the_published_input(name, key):
    optical = NUMBERS["s2_uint16"][SUBSETS["9" if "9" in key else "13"]]
    stored = np.concatenate([NUMBERS["s1_float32"], optical.astype(np.float32)])
    np.testing.assert_allclose(shown(stored, get_sensor(name)), NUMBERS[key], atol=1e-7)


@pytest.mark.parametrize("subset", ["3", "9", "12", "13"])
def test_tiles_stored_in_8_bits_are_divided_by_255(subset):
    sensor = get_sensor("s1_8bit") + of_subset(subset, "_8bit")
    assert sensor.dtype == "uint8"
    found = shown(np.concatenate([NUMBERS["s1_stored"], NUMBERS["s2_stored"][SUBSETS[subset]]]), sensor)
    np.testing.assert_allclose(found.mean((1, 2)), NUMBERS[f"item_channelmean_{subset}B"], atol=1e-6)
    if subset == "9":
        np.testing.assert_allclose(found[:, :8, :8], NUMBERS["item_img_9B_season2_crop8"], atol=1e-6)


def test_8_bits_stand_for_reflectance():
    wanted = NUMBERS["norm10000_13B_season0_crop8"]
    np.testing.assert_allclose(shown(NUMBERS["s2_stored0"], get_sensor("s2_l1c_8bit_physical"))[:, :8, :8], wanted, atol=1e-6)
    # The published program can do this for all bands only, since it takes their numbers from what is left of them.
    nine = SUBSETS["9"]
    found = shown(NUMBERS["s2_stored0"][nine], get_sensor("s2_l1c_9_8bit_physical"))
    np.testing.assert_allclose(found[:, :8, :8], wanted[nine], atol=1e-6)
    np.testing.assert_allclose(shown(NUMBERS["s2_uint16"], get_sensor("s2_l1c_physical")), NUMBERS["s2_div10000_13"], atol=1e-6)


def test_clipped_deviations_from_the_mean():
    np.testing.assert_allclose(shown(NUMBERS["s2_uint16"], get_sensor("s2_l1c_clipped")), NUMBERS["s2_zscore_13"], atol=1e-5)
    np.testing.assert_allclose(shown(NUMBERS["s1_float32"], get_sensor("s1_clipped")), NUMBERS["s1_zscore"], atol=1e-5)


@pytest.mark.parametrize("name", ["s1_quantised", "s1_clipped", "s1_physical"])
def test_decibels_that_are_no_numbers_are_filled_and_change_no_other(name):
    sensor, stored = get_sensor(name), NUMBERS["s1_float32"].copy()
    spoilt, valid = stored.copy(), torch.ones(1, 24, 24, dtype=torch.bool)
    spoilt[0, 0, :3] = np.nan, -np.inf, np.inf
    spoilt[:, 1, 1] = 1e6
    valid[0, 0, :3] = valid[0, 1, 1] = False
    found = normalise(torch.from_numpy(spoilt)[None], valid, sensor)[0]
    # What they were must not show; percentiles are those of the others.
    stored[:, ~valid[0].numpy()] = 3.0
    wanted = normalise(torch.from_numpy(stored)[None], valid, sensor)[0]
    assert torch.isfinite(found).all()
    assert torch.equal(found, wanted)
    without_mask = normalise(torch.from_numpy(spoilt)[None], None, sensor)[0]
    # Of a sensor in decibels, what is no number is filled band by band, however values are cut.
    filled = normalise(torch.from_numpy(spoilt)[None], torch.zeros(1, 24, 24, dtype=torch.bool), sensor)[0]
    assert torch.equal(without_mask[0, 0, :3], filled[0, 0, :3])
    assert torch.isfinite(without_mask).all()
    empty = normalise(torch.full((1, 2, 4, 4), torch.nan), torch.zeros(1, 4, 4, dtype=torch.bool), sensor)
    assert torch.isfinite(empty).all()


def test_percentiles_are_those_of_each_image():
    stored = NUMBERS["s1_float32"]
    both = torch.from_numpy(np.stack([stored, stored * 2]))
    found = normalise(both, None, get_sensor("s1_clipped"))
    assert torch.equal(found[0], normalise(both[:1], None, get_sensor("s1_clipped"))[0])
    assert torch.equal(found[1], normalise(both[1:], None, get_sensor("s1_clipped"))[0])


def test_networks_for_stored_and_for_quantised_tiles_see_the_same():
    assert same_input(get_sensor("s1_8bit+s2_l1c_9_8bit"), get_sensor("s1_quantised+s2_l1c_9_quantised"))
    assert same_input(get_sensor("s2_l1c"), get_sensor("s2_l1c"))
    # A branch of a sum is stored in whatever type its tiles are.
    branch = get_sensor("s2_l1c_8bit").model_copy(update={"dtype": "float32"})
    assert same_input(branch, get_sensor("s2_l1c_quantised"))
    for first, second in [
        ("s2_l1c", "s2_l1c_quantised"),
        ("s2_l1c_8bit", "s2_l1c_8bit_physical"),
        ("s2_l1c_clipped", "s2_l1c"),
        ("s2_l1c_9_8bit", "s2_l1c_9_rgb_quantised"),
        ("s1_clipped", "s1"),
        ("s2_l1c_physical", "s2_l1c_8bit_physical"),
    ]:
        assert not same_input(get_sensor(first), get_sensor(second))
        assert not same_input(get_sensor(second), get_sensor(first))


def test_sensors_travel_as_json_and_those_without_limits_as_before():
    for name in ("s1_clipped+s2_l1c_9_quantised", "s2_l1c_8bit"):
        sensor = get_sensor(name)
        assert sensor.name == name
        assert Sensor.model_validate(json.loads(json.dumps(sensor.model_dump(mode="json")))) == sensor
    assert set(get_sensor("s1").bands[0].model_dump()) == set(Band.model_fields) - {"clip", "clip_percentiles", "levels"}


@pytest.mark.parametrize("name", ["rgb_8bit", "rgb_quantised", "s2_l1c_8bit_quantised", "gf2_clipped"])
def test_8_bits_are_not_quantised_once_more(name):
    with pytest.raises(ConfigError, match="is stored in 8 bits already; leave out _"):
        get_sensor(name)
    for twice in ("s2_l1c_quantised_quantised", "s1_physical_8bit", "s1_quantised_clipped", "s2_l1c_clipped_quantised"):
        with pytest.raises(ConfigError, match="has its range already; leave out one of the two endings"):
            get_sensor(twice)
    with pytest.raises(ConfigError, match="unknown sensor"):
        get_sensor("s3_quantised")


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"clip": (2, 1)}, "clip: the second value"),
        ({"clip_percentiles": (1, 120)}, "percents, 0 to 100"),
        ({"levels": 256}, "give clip, too"),
        ({"levels": 1, "clip": (0, 1)}, "greater than or equal to 2"),
    ],
)
def test_wrong_limits_are_refused(limits, message):
    with pytest.raises((ConfigError, pydantic.ValidationError), match=message):
        Band(name="x", mean=0, std=1, low=0, high=1, **limits)


def test_what_multiplies_and_adds_only_refuses_limits():
    check_linear(get_sensor("s2_l1c_8bit"))
    with pytest.raises(ConfigError, match="cuts values of band B01 before the network"):
        check_linear(get_sensor("s2_l1c_quantised"))
