"""Networks that look at wavelengths learn them from the sensor of a Segmenter, and guess nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tilth.classes import ClassScheme, LandClass
from tilth.errors import ConfigError
from tilth.models import create
from tilth.models.config import NetworkConfig
from tilth.models.segmenter import Segmenter, build_segmenter
from tilth.sensors import Band, Sensor, get_sensor

TINY: dict[str, Any] = {"width": 32, "depth": 4, "heads": 2, "decoder_channels": 8}
SCHEME = ClassScheme(name="two", classes=tuple(LandClass(name=name, colour=(place,) * 3) for place, name in enumerate("ab")))


def band(name: str, centre_nm: float | None, kind: Any = "optical") -> Band:
    return Band(name=name, centre_nm=centre_nm, kind=kind, mean=0.0, std=1.0, low=0.0, high=1.0)


def sensor(*bands: Band) -> Sensor:
    return Sensor(name="some", bands=bands, dtype="float32", unit="reflectance", rgb=(bands[0].name,) * 3)


INFRARED_FIRST = sensor(band("nir", 830), band("red", 655), band("green", 560))


def model(seen: Sensor, encoder: str = "dofa", **options: Any) -> Segmenter:
    config = NetworkConfig(name=f"cromss_upernet_{encoder}_l", image_size=32, options=TINY | options)
    return build_segmenter(config, seen, SCHEME)


@pytest.mark.parametrize(
    ("seen", "wanted"),
    [
        (INFRARED_FIRST, (0.83, 0.655, 0.56)),
        (get_sensor("gf2"), (0.49, 0.56, 0.665, 0.842)),
        (get_sensor("s1"), (3.75, 3.75)),
        (sensor(band("green", 560), band("HH", None, "radar"), band("heat", 10900, "other")), (0.56, 3.75, 10.9)),
    ],
    ids=["infrared first", "blue first", "radar", "mixed"],
)
def test_wavelengths_are_those_of_the_sensor_in_its_order(seen: Sensor, wanted: tuple[float, ...], tmp_path: Path) -> None:
    built = model(seen).eval()
    assert built.network.encoder.wavelengths == pytest.approx(wanted)
    assert built.config.network.options["wavelengths"] == pytest.approx(list(wanted))
    again = Segmenter.load(built.save(tmp_path))
    assert again.network.encoder.wavelengths == built.network.encoder.wavelengths
    assert again.config == built.config
    image = torch.randn(1, len(seen), 40, 40)
    with torch.no_grad():
        assert torch.equal(again(image), built(image))


def test_published_bands_have_the_published_wavelengths() -> None:
    for name, bands in (("s2_l1c", 13), ("s2_l2a", 12), ("s2_l2a_10", 10), ("s2_l1c_9", 9)):
        alone = create("cromss_upernet_dofa_l", in_channels=bands, image_size=32, **TINY)
        assert model(get_sensor(name)).network.encoder.wavelengths == pytest.approx(alone.encoder.wavelengths)


def test_wavelengths_that_are_given_stay() -> None:
    assert model(INFRARED_FIRST, wavelengths=[0.4, 0.5, 0.6]).network.encoder.wavelengths == (0.4, 0.5, 0.6)


def test_a_sensor_that_does_not_say_where_a_band_lies_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"centre_nm of height is missing.*network.options.wavelengths"):
        model(sensor(band("red", 665), band("height", None, "other")))
    # Nine bands, as many as a published choice: they are not taken for it.
    with pytest.raises(ConfigError, match="centre_nm of b8 is missing"):
        model(sensor(*(band(f"b{place}", 500 + place if place < 8 else None) for place in range(9))))


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 14, 15])
def test_a_number_of_bands_that_says_nothing_about_them_is_not_guessed_from(bands: int) -> None:
    with pytest.raises(ConfigError, match=f"wavelengths: got 0 for {bands} bands"):
        create("cromss_upernet_dofa_l", in_channels=bands, image_size=32, **TINY)


@pytest.mark.parametrize("bands", [1, 3, 12, 13])
def test_groups_are_known_of_the_ten_published_bands_alone(bands: int) -> None:
    with pytest.raises(ConfigError, match=f"groups: {bands} bands do not say which belong together"):
        create("cromss_upernet_satmae_l", in_channels=bands, image_size=32, **TINY)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("s2_l2a_10", [[0, 1, 2, 6], [3, 4, 5, 7], [8, 9]]),
        ("s2_l2a", [[1, 2, 3, 7], [4, 5, 6, 8], [10, 11]]),
        ("s1+s2_l1c", [[3, 4, 5, 9], [6, 7, 8, 10], [13, 14]]),
    ],
)
def test_groups_are_found_among_the_bands_of_a_sensor(name: str, wanted: list[list[int]], tmp_path: Path) -> None:
    built = model(get_sensor(name), "satmae")
    assert built.config.network.options["groups"] == wanted
    assert built.network.encoder.patch_embedding.members == tuple(map(tuple, wanted))
    again = Segmenter.load(built.save(tmp_path))
    assert again.config == built.config


def test_groups_follow_the_bands_in_another_order() -> None:
    bands = get_sensor("s2_l2a_10").bands
    built = model(sensor(*reversed(bands)), "satmae")
    assert built.network.encoder.patch_embedding.members == ((9, 8, 7, 3), (6, 5, 4, 2), (1, 0))


@pytest.mark.parametrize("name", ["rgb", "hls", "s2_l2a_9", "rgb+s2_l2a_10"])
def test_a_sensor_without_the_ten_bands_once_each_needs_the_option(name: str) -> None:
    with pytest.raises(ConfigError, match="do not say which belong together"):
        model(get_sensor(name), "satmae")
    assert model(get_sensor(name), "satmae", groups=[[0, 1], [2]]).network.encoder.patch_embedding.members == ((0, 1), (2,))
