"""Real folders of many kinds: what they are, and the traps that their descriptions name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

import tilth
from tilth.recipes.config import expand
from tilth.recipes.plan import prepare
from tilth.recipes.run import load_recipe

DATA = Path(__file__).parents[2].parent / "shared" / "data"


@dataclass(frozen=True)
class Known:
    """What is known of a folder.

    Attributes:
        folder: below the data.
        kind: of data set.
        sensors: proposed for each imagery, by its name.
        traps: by key, words that the line must hold.
        free_of: keys of traps that would be false alarms.
        labels: kind of each label, by name.
        trains: whether the starter trains.
    """

    folder: str
    kind: str
    sensors: dict[str, str] = field(default_factory=dict)
    traps: dict[str, str] = field(default_factory=dict)
    free_of: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    trains: bool = False


SOUND = ("band order", "scale", "black border", "untagged nodata", "split overlap", "label value", "unreadable", "mixed baseline")

FOLDERS = (
    Known("vhr/dubai_mbrsc", "image/label pairs", {"images": "rgb"}, {"no CRS": ""}, SOUND, {"masks": "class ids"}, True),
    Known(
        "vhr/dronedeploy_sample", "image/label pairs", {"images": "rgb"},
        {"imbalance": "water 0.3 %, car 0.17 %"}, SOUND, {"masks": "class ids"}, True,
    ),
    Known(
        "vhr/deepglobe_sample", "image/label pairs", {"images": "rgb"},
        {"class absent in split": "forest, barren in test"}, SOUND, {"masks": "class ids"}, True,
    ),
    Known(
        "vhr/s2_korea_field", "image/label pairs", {"images": "rgb"},
        {
            "band order": "red and blue", "common ground": "the given splits do not", "8-bit composite": "stretched for the eye",
            "two dates": "2023-09, 2024-12", "imbalance": "building 0.7 %",
        },
        ("split overlap",), {"masks": "class ids"}, True,
    ),
    Known("vhr/change_levir", "change pairs", {"A": "rgb", "B": "rgb"}, {"no CRS": ""}, SOUND, {"label": "class ids"}),
    Known("vhr/change_dsifn", "change pairs", {"A": "rgb", "B": "rgb"}, {"no CRS": ""}, SOUND, {"label": "class ids"}),
    Known("vhr/obb_dota", "oriented boxes", {"images": "rgb"}, {"no CRS": ""}, ("band order", "unreadable")),
    Known(
        "vhr/scenes", "scenes", {"naip_nd_5m_20090818.tif and 1 more": "rgbn", "nl_ortho_0.25m.tif and 2 more": "rgb"},
        {
            "black border": "oam_manila_0.10m.tif has black surroundings", "two dates": "2009-08-18, 2019-09-04",
            "stretched metres": "EPSG:3395", "mixed imagery": "4 x uint8 (2), 3 x uint8 (3)", "nodata": "declares nodata 0",
        },
        ("band order", "scale", "unreadable"),
    ),
    Known("vhr/unlabeled", "unlabelled pool", {"oam_kampala": "rgb", "ucmerced": "rgb"}, {"mixed sizes": "ucmerced"}, SOUND),
    Known(
        "vhr/unlabeled/oam_kampala", "web-map tiles", {},
        {"map tiles": "0.3 m at zoom 19, 0.15 m at zoom 20, 0.075 m at zoom 21", "nested tiles": "inside a tile of a smaller zoom"},
        ("band order", "unreadable", "no CRS"),
    ),
    Known(
        "vhr/unlabeled/ucmerced", "unlabelled pool", {},
        {"scene classes": "agricultural, airplane", "mixed sizes": "247 x 247 to 257 x 257"}, SOUND,
    ),
    Known(
        "s1s2/ombria", "several rasters of one place", {"s1": "radar_8bit", "s2": "composite_8bit"},
        {
            "8-bit composite": "without a physical unit", "no CRS": "rasters", "dates stacked": "pre, post",
            "several labels": "clean by name: label_clean_ems; noisy by name: label_noisy_s1otsu, label_noisy_s2otsu",
        },
        ("scale", "band order"), {"label_clean_ems": "class ids", "label_noisy_s1otsu": "class ids"}, True,
    ),
    Known(
        "s1s2/hls_water12", "several rasters of one place", {"optical": "measured"},
        {
            "label percent": "values above 100", "negative reflectance": "valid", "no CRS": "", "label codes": "10, 20, 30, 40",
            "several labels": "clean by name: label_clean_water", "class file": "classes.yaml",
        },
        ("scale", "band order", "untagged nodata"),
        {"label_clean_water": "class ids", "label_noisy_worldcover": "codes", "label_noisy_occurrence": "percent"}, True,
    ),
    Known(
        "s1s2/terramind_examples", "several rasters of one place",
        {"s1_rtc": "s1_int16", "s2_l1c": "s2_l1c_int16", "s2_l2a": "s2_l2a_int16"},
        {
            "no-data class": "0 (no data)", "mixed CRS": "5 coordinate systems", "few labels": "5 labelled images",
            "mixed baseline": "3 of 5 images of s2_l1c", "noisy labels": "label_noisy_lulc", "no test split": "all",
        },
        ("no CRS", "band order"), {"label_noisy_lulc": "class ids"}, True,
    ),
    Known(
        "s1s2/sen1floods11_samples", "several rasters of one place", {"s1": "s1_int16", "s2_l1c": "s2_l1c_int16"},
        {
            "nodata": "declares nodata -32768", "degrees": "in degrees", "few labels": "8 labelled images",
            "several labels": "label_clean_hand",
        },
        ("no CRS", "band order", "scale"), {"label_clean_hand": "class ids"}, True,
    ),
    Known(
        "s1s2/biomassters_samples", "time series", {"s1": "s1_int16", "s2": "s2_and_more"},
        {
            "regression": "target_agbm cannot be trained on", "quality band": "CLP", "series": "7 images show 3 places", "no CRS": "",
            "nodata": "-32768",
        },
        ("band order",),
    ),
    Known(
        "s1s2/worldcereal_monthly", "time series", {"s1": "s1_int16", "s2": "s2_l2a_9"},
        {
            "nodata": "declares nodata -32768", "series": "12 images show 1 place", "label of several dates": "12 dates",
            "label bands": "class, probability_pct", "empty image": "of 12 images of s2",
        },
        ("no CRS", "band order", "scale"), {"label_noisy_cropland.tif": "class ids"},
    ),
    Known(
        "s1s2/landslide4sense_demo", "image/label pairs", {"s2_dem": "normalised"},
        {
            "scale": "no reflectance", "terrain band": "slope, dem", "few labels": "16 labelled images", "no test split": "train",
            "no CRS": "",
        },
        (), {"label_clean": "class ids"}, True,
    ),
    Known(
        "s1s2/bigearthnet_tiny", "unlabelled pool", {"s2": "s2_l2a"},
        {"mixed CRS": "3 coordinate systems"}, ("no CRS", "scale", "band order"),
    ),
    Known(
        "s1s2/scenes", "scenes",
        {
            "aquileia_s2_l2a_20190416.tif and 1 more": "s2_l2a_made", "copernicusfm_s2_l1c_20201002_T60HWB.tif": "s2_l1c",
            "openeo_s2_l2a_10m.tif": "s2_l2a_4_made",
        },
        {
            "scale": "reflectance x 65535 (16-bit display scale, as EO Browser writes)", "empty edge": "sundarbans_s2_l2a_20200127.tif",
            "class names": "sundarbans_label.tif", "mixed imagery": "12 x uint16 (2)", "mixed CRS": "3 coordinate systems",
            "scene classification": "openeo_s2_l2a_10m_scl.tif",
        },
        ("no CRS", "mixed baseline"), {"sundarbans_label.tif": "class ids"}, True,
    ),
    Known("s1s2/metadata", "tables"),
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("known", FOLDERS, ids=lambda known: known.folder.replace("/", "-"))
def test_a_real_folder_is_what_its_description_says(known: Known, tmp_path: Path):
    folder = DATA / known.folder
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    has_imagery = known.kind != "tables"
    result = tilth.inspect(folder=folder, out=tmp_path / "starter" if has_imagery else None)
    found = result.values
    assert found["kind"] == known.kind
    assert len(result.summary) <= 42
    named = {item["name"]: item["sensor"]["name"] for item in found["imagery"]}
    assert {name: named.get(name) for name in known.sensors} == known.sensors
    assert {item["name"]: item["kind"] for item in found["labels"] if item["name"] in known.labels} == known.labels
    lines: dict[str, list[str]] = {}
    for trap in found["traps"]:
        lines.setdefault(trap["key"], []).append(trap["text"])
    assert {key for key, text in known.traps.items() if not any(text in line for line in lines.get(key, []))} == set(), lines
    assert {key: lines[key] for key in known.free_of if key in lines} == {}
    if has_imagery:
        check_starter(tmp_path / "starter" / "recipe.yaml", tmp_path / "run", known.trains)


def check_starter(recipe: Path, out: Path, trains: bool) -> None:
    """The recipe validates, and every input it names is there."""
    tasks = prepare(expand(load_recipe(str(recipe)), out, {}), out)
    build = tasks[0].options
    assert all(Path(item).exists() for item in build.inputs)
    verbs = [stage["verb"] for stage in yaml.safe_load(recipe.read_text())["stages"]]
    assert ("finetune" in verbs) == trains
    assert ("evaluate" in verbs) == trains


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["s1s2/terramind_examples", "s1s2/scenes", "s1s2/sen1floods11_samples"])
def test_the_starter_of_a_real_folder_builds_and_checks(folder: str, tmp_path: Path):
    if not (DATA / folder).is_dir():
        pytest.skip(f"{folder} is not here")
    tilth.inspect(folder=DATA / folder, out=tmp_path / "starter")
    for task in prepare(expand(load_recipe(str(tmp_path / "starter" / "recipe.yaml")), tmp_path / "run", {}), tmp_path / "run"):
        if task.verb.name in {"catalog build", "catalog check", "catalog split"}:
            result = task.verb.run(task.options)
            assert result.values.get("errors", 0) == 0, result.summary
            assert result.values.get("left_out", 0) == 0, result.summary


def test_all_the_data_is_a_collection_of_its_sets():
    if not DATA.is_dir():
        pytest.skip(f"{DATA} is not here")
    from tilth.catalog.inspect.listing import list_folder
    from tilth.catalog.inspect.sets import find_sets

    expected = {known.folder for known in FOLDERS if known.folder.count("/") == 1 and (DATA / known.folder).is_dir()}
    assert set(find_sets(list_folder(DATA))) >= expected
    assert {name for name in find_sets(list_folder(DATA)) if name.startswith(("vhr/", "s1s2/"))} == expected
