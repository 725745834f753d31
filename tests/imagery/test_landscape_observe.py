"""Synthetic landscapes as sensors see them."""

import numpy as np
import pytest

from tilth.errors import ConfigError, UsageError
from tilth.imagery.landscape import LandscapeConfig, generate_landscape, landscape_scheme, observe
from tilth.imagery.landscape.materials import material
from tilth.sensors import Band, Sensor, get_sensor, sensor_names


@pytest.fixture(scope="module")
def landscape():
    return generate_landscape(LandscapeConfig(seed=4, height=192, width=192, gsd_m=10))


def physical(landscape, name, **options):
    sensor = get_sensor(name)
    stored = observe(landscape, sensor, **options).astype(float)
    return {band.name: stored[channel] * band.scale + band.offset for channel, band in enumerate(sensor.bands)}


@pytest.mark.parametrize("name", [*sensor_names(), "s1+s2_l2a", "s1+s2_l1c", "rgb+s1"])
def test_every_sensor_stores_its_own_type_unit_and_plausible_values(landscape, name):
    sensor = get_sensor(name)
    stored = observe(landscape, sensor)
    assert stored.shape == (len(sensor), 192, 192)
    assert stored.dtype == sensor.dtype
    for channel, band in enumerate(sensor.bands):
        values = stored[channel].astype(float) * band.scale + band.offset
        assert np.isfinite(values).all()
        assert values.std() > 0
        assert abs(values.mean() - band.mean) < 3 * band.std, band.name
        if band.kind == "radar":
            assert -50 < values.min() < values.max() < 15
        else:
            assert -0.01 < values.min() < values.max() < 1.6


def test_same_request_gives_the_same_bytes_and_another_acquisition_does_not(landscape):
    sensor = get_sensor("s1+s2_l2a")
    first = observe(landscape, sensor)
    assert first.tobytes() == observe(landscape, sensor).tobytes()
    assert not np.array_equal(first, observe(landscape, sensor, illumination=1))
    assert not np.array_equal(first, observe(landscape, sensor, season="winter"))


def test_a_sum_of_sensors_sees_what_its_parts_see(landscape):
    both = physical(landscape, "s1+s2_l2a", season="spring")
    for name in ("s1", "s2_l2a"):
        for band, values in physical(landscape, name, season="spring").items():
            # Integers are rounded and cannot go below 0, where noise leads over dark water.
            assert np.allclose(both[band] if name == "s1" else both[band].clip(0), values, atol=1e-4), band


def test_leaves_water_and_soil_differ_as_physics_has_it(landscape):
    seen = physical(landscape, "s2_l2a")
    index = (seen["B08"] - seen["B04"]) / (seen["B08"] + seen["B04"])
    scheme = landscape_scheme()
    trees, water, bare = (index[landscape.label == scheme.index(name)].mean() for name in ("trees", "water", "bare"))
    assert trees > bare + 0.3
    assert water < bare - 0.3
    radar = physical(landscape, "s1")
    assert (
        radar["VV"][landscape.label == scheme.index("building")].mean() > radar["VV"][landscape.label == scheme.index("water")].mean() + 6
    )
    assert (radar["VV"].mean() - radar["VH"].mean()) > 4


def test_crops_follow_the_seasons():
    landscape = generate_landscape(LandscapeConfig(seed=4, height=256, width=256, gsd_m=10))
    here = {name: landscape.material == material(name) for name in ("cereal", "maize", "conifer")}
    index = {}
    for season in ("spring", "summer"):
        seen = physical(landscape, "s2_l2a", season=season)
        ratio = (seen["B08"] - seen["B04"]) / (seen["B08"] + seen["B04"])
        index[season] = {name: float(ratio[where].mean()) for name, where in here.items()}
    assert index["spring"]["cereal"] > index["summer"]["cereal"] + 0.15
    assert index["summer"]["maize"] > index["spring"]["maize"] + 0.15
    assert abs(index["summer"]["conifer"] - index["spring"]["conifer"]) < 0.1


@pytest.mark.parametrize("looks", [1.0, 4.0, 16.0])
def test_speckle_multiplies_power_by_gamma_noise_of_the_looks_asked_for(landscape, looks):
    sensor = get_sensor("s1")
    clean = observe(landscape, sensor, looks=1e9)
    ratio = 10 ** ((observe(landscape, sensor, looks=looks) - clean).astype(float) / 10)
    assert ratio.mean() == pytest.approx(1, abs=0.02)
    assert ratio.var() == pytest.approx(1 / looks, rel=0.06)


def test_the_atmosphere_brightens_blue_and_darkens_water_vapour_bands(landscape):
    top, ground = physical(landscape, "s2_l1c"), physical(landscape, "s2_l2a")
    assert top["B01"].mean() > ground["B01"].mean() + 0.02
    assert top["B09"].mean() < 0.7 * ground["B09"].mean()
    assert top["B10"].mean() < 0.01


def test_coarser_bands_are_blurred(landscape):
    # B8A (20 m) lies next to B08 (10 m) in wavelength; only the footprint differs.
    seen = physical(landscape, "s2_l2a")
    rough = {name: np.abs(np.diff(seen[name], axis=1)).mean() / seen[name].mean() for name in ("B08", "B8A")}
    assert rough["B8A"] < 0.8 * rough["B08"]


def test_pictures_of_different_scenes_have_different_stretch():
    means = [
        observe(generate_landscape(LandscapeConfig(seed=4, index=index, height=96, width=96)), get_sensor("rgb")).mean((1, 2))
        for index in range(5)
    ]
    assert np.std(means, axis=0).min() > 3


def band(**values):
    return Band(mean=0, std=1, low=0, high=1, **values)


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        ([band(name="dem", kind="other")], "dem"),
        ([band(name="green")], "centre_nm"),
        ([band(name="RR", kind="radar")], "VV, VH"),
    ],
)
def test_bands_that_cannot_be_simulated_are_named(landscape, bands, message):
    sensor = Sensor(name="own", bands=tuple(bands), dtype="float32", unit="any", rgb=(bands[0].name,) * 3)
    with pytest.raises(ConfigError, match=message):
        observe(landscape, sensor)


def test_unknown_season_and_impossible_looks_are_refused(landscape):
    with pytest.raises(UsageError, match="summer"):
        observe(landscape, get_sensor("rgb"), season="sumer")
    with pytest.raises(UsageError, match="looks"):
        observe(landscape, get_sensor("s1"), looks=0)
