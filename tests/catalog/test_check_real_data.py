"""What the descriptions of real data sets admit is found, and what is sound is not doubted; skipped where the data are not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tilth.catalog.build import build_catalog
from tilth.catalog.check import check_catalog
from tilth.catalog.config import BuildConfig
from tilth.catalog.duplicates import Portraits, near_pairs, portrait
from tilth.catalog.statistics import raster_statistics
from tilth.catalog.suspicion import order_suspicions, scale_suspicions
from tilth.imagery.read import Window, read_pixels
from tilth.sensors import get_sensor

DATA = Path(__file__).parents[2].parent / "shared" / "data"
pytestmark = pytest.mark.skipif(not (DATA / "vhr").is_dir(), reason="real imagery is not here")


def files(folder: str, most: int = 12) -> list[str]:
    found = sorted((DATA / folder).glob("*.*"))
    return [str(path) for path in found[:: -(-len(found) // most)]]


def doubts(uris: list[str], sensor: str, window: Window | None = None) -> list[str]:
    statistics = [raster_statistics(uri, window) for uri in uris]
    return [*scale_suspicions(statistics, get_sensor(sensor)), *order_suspicions(statistics, get_sensor(sensor))]


@pytest.mark.parametrize(
    ("folder", "sensor"),
    [
        ("vhr/dubai_mbrsc/images", "rgb"),
        ("vhr/deepglobe_sample/images", "rgb"),
        ("vhr/dronedeploy_sample/images", "rgb"),
        ("vhr/unlabeled/ucmerced", "rgb"),
        ("vhr/unlabeled/oam_kampala", "rgb"),
        ("vhr/change_levir/A", "rgb"),
        ("vhr/change_dsifn/A", "rgb"),
        ("s1s2/bigearthnet_tiny/s2", "s2_l2a"),
        ("s1s2/terramind_examples/s2_l2a", "s2_l2a"),
        ("s1s2/worldcereal_monthly/s2", "s2_l2a_9"),
    ],
)
def test_sound_imagery_raises_no_doubt(folder, sensor):
    assert doubts(files(folder), sensor) == []


@pytest.mark.parametrize(("name", "sensor"), [("naip_nd_5m_20090818", "rgbn"), ("naip_nd_5m_20190904", "rgbn"), ("nl_ortho_0.25m", "rgb")])
def test_sound_scenes_raise_no_doubt(name, sensor):
    uri = str(DATA / "vhr" / "scenes" / f"{name}.tif")
    windows = [Window(column, row, 180, 180) for column in range(0, 720, 180) for row in range(0, 540, 180)]
    statistics = [raster_statistics(uri, window) for window in windows]
    assert scale_suspicions(statistics, get_sensor(sensor)) == []
    assert order_suspicions(statistics, get_sensor(sensor)) == []


@pytest.mark.parametrize(
    ("folder", "sensor", "words"),
    [
        ("vhr/s2_korea_field/images", "rgb", "red and blue look exchanged"),
        ("s1s2/ombria/s2", "hls", "8-bit picture"),
        ("s1s2/ombria/s1", "s1", "8-bit picture"),
        ("s1s2/terramind_examples/s2_l1c", "s2_l1c", "10,000 + 1,000"),
        ("s1s2/terramind_examples/s1_rtc", "s1", "hundredths of a decibel"),
        ("s1s2/sen1floods11_samples/s1", "s1", "hundredths of a decibel"),
    ],
)
def test_what_is_known_to_be_odd_is_doubted(folder, sensor, words):
    assert words in doubts(files(folder, 32), sensor)[0]


@pytest.mark.parametrize("name", ["sundarbans_s2_l2a_20200127", "aquileia_s2_l2a_20190416"])
def test_display_scaling_is_doubted(name):
    (found,) = doubts([str(DATA / "s1s2" / "scenes" / f"{name}.tif")], "s2_l2a")
    assert "65535, not by 10,000" in found


def warnings(folder: str) -> dict[str, list[str]]:
    report = check_catalog(build_catalog(BuildConfig(inputs=(str(DATA / folder),), sensor="rgb")))
    assert report.ok
    found: dict[str, list[str]] = {}
    for item in report.warnings:
        found.setdefault(item.what, []).append(item.expected + item.found)
    return found


@pytest.mark.slow
def test_classes_that_splits_of_deepglobe_lack():
    """As its description says: val has no rangeland, forest, water; test no forest, barren."""
    found = warnings("vhr/deepglobe_sample")
    assert list(found) == ["class absent in split"]
    lacking = {
        (name, split)
        for text in found["class absent in split"]
        for split in ("val", "test")
        if f"in split '{split}'" in text
        for name in ("urban", "agriculture", "rangeland", "forest", "water", "barren")
        if f"'{name}'" in text
    }
    assert lacking == {("rangeland", "val"), ("forest", "val"), ("water", "val"), ("forest", "test"), ("barren", "test")}


@pytest.mark.slow
def test_rare_classes_of_dronedeploy():
    found = warnings("vhr/dronedeploy_sample")
    assert list(found) == ["rare class"]
    assert ["'water'" in found["rare class"][0], "'car'" in found["rare class"][1]] == [True, True]
    assert "0.30%" in found["rare class"][0]
    assert "0.17%" in found["rare class"][1]


def test_the_empty_corner_of_manila():
    catalog = build_catalog(BuildConfig(inputs=(str(DATA / "vhr" / "scenes" / "oam_manila_0.10m.tif"),), sensor="rgb", window_px=512))
    (finding,) = check_catalog(catalog).warnings
    assert (finding.what, finding.tile_id) == ("part empty", "")
    assert finding.found.endswith("black surroundings")


def alike(uris: list[str]) -> list[tuple[str, str]]:
    drawn = [portrait(read_pixels(uri)) for uri in uris]
    known = np.array([place for place, item in enumerate(drawn) if item is not None])
    pairs, _ = near_pairs(Portraits(known, np.stack([drawn[place] for place in known])))
    return [(Path(uris[one]).stem, Path(uris[other]).stem) for one, other in pairs.tolist()]


def test_places_seen_on_two_dates_are_near_duplicates():
    """Looked at one by one: chips 034 and 237, 050 and 270 show one place each, and no other two of 110 do."""
    assert alike(files("s1s2/hls_water12/optical", 1000)) == [("034", "237"), ("050", "270")]


@pytest.mark.parametrize("folder", ["vhr/unlabeled/ucmerced", "vhr/unlabeled/oam_kampala", "vhr/deepglobe_sample/images", "s1s2/ombria/s1"])
def test_beaches_fields_and_water_are_no_near_duplicates(folder):
    assert alike(files(folder, 120)) == []
