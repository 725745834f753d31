"""Built-in class schemes: ids and names as published, mappings between them complete, usable wherever a scheme is asked for."""

import json
from pathlib import Path

import numpy as np
import pytest

from support.public_stores import raster
from tilth.catalog.table import Catalog
from tilth.classes import IGNORE_INDEX, class_groups, get_scheme, scheme_names, stored_values
from tilth.cli.main import main
from tilth.errors import ConfigError, MissingFileError
from tilth.imagery.read import read_label

SIZES = {"dw": 9, "osm": 13, "osm-display": 13, "dfc2020": 8, "urban-atlas": 27, "worldcover": 11, "esri": 8}
SIZES |= {"minifrance": 14, "gid-15": 15, "gid-5": 5}


def test_schemes_have_their_classes():
    assert set(scheme_names()) == set(SIZES)
    for name, size in SIZES.items():
        scheme = get_scheme(name)
        assert (scheme.name, len(scheme), len(set(scheme.colours))) == (name, size, size)
        places = set(stored_values(name).values()) - {IGNORE_INDEX}
        assert places == (set(range(size)) if name not in {"dw", "gid-5"} else set())


def test_every_mapping_covers_all_classes_of_the_other_scheme():
    pairs = [(name, other) for name in scheme_names() for other in get_scheme(name).mappings]
    assert len(pairs) == 21
    for name, other in pairs:
        mapping = get_scheme(name).mapping_from(get_scheme(other))
        assert set(mapping) == {*range(SIZES[other]), IGNORE_INDEX}
        assert set(mapping.values()) <= {*range(SIZES[name]), IGNORE_INDEX}


def test_mapping_there_and_back_loses_no_class_that_both_schemes_tell_apart():
    for one, two in (("dw", "dfc2020"), ("osm", "osm-display"), ("dw", "worldcover")):
        there = get_scheme(two).mapping_from(get_scheme(one))
        back = get_scheme(one).mapping_from(get_scheme(two))
        for place, target in there.items():
            assert target == IGNORE_INDEX or back[target] == place


def test_contest_codes_are_those_of_the_specification():
    ids = {10: 0, 1: 1, 4: 2, 5: 3, 6: 4, 2: 5, 7: 6, 9: 7, 3: 255, 8: 255}
    assert {code: stored_values("dfc2020")[code] for code in ids} == ids


def test_codes_for_what_a_product_could_not_see_are_no_label():
    unseen = {"worldcover": [0], "esri": [0, 10], "urban-atlas": [0, 91000, 92000], "osm": [0], "dfc2020": [0, 3, 8], "minifrance": [0, 15]}
    for name, codes in unseen.items():
        assert [stored_values(name)[code] for code in codes] == [IGNORE_INDEX] * len(codes)


def test_classes_of_minifrance_are_those_of_its_urban_atlas_codes():
    """The columns "id" and "UA codes" of ddpm.md section 11."""
    codes = {1: [11100, 11210, 11220, 11230, 11240, 11300], 2: [12100, 12210, 12220, 12230, 12300, 12400], 3: [13100, 13300, 13400]}
    codes |= {4: [14100, 14200], 5: [21000], 6: [22000], 7: [23000], 8: [24000], 9: [25000], 10: [31000], 11: [32000], 12: [33000]}
    codes |= {13: [40000], 14: [50000]}
    there = get_scheme("minifrance").mapping_from(get_scheme("urban-atlas"))
    atlas = stored_values("urban-atlas")
    found = {place: sorted(code for code, index in atlas.items() if index != IGNORE_INDEX and there[index] == place) for place in range(14)}
    assert found == {stored_values("minifrance")[stored]: listed for stored, listed in codes.items()}


def test_groups_of_classes_are_those_of_the_published_columns():
    stored = [1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14]
    names = get_scheme("minifrance").names
    assert class_groups("minifrance") == {"paper12": tuple(names[stored_values("minifrance")[value]] for value in stored)}
    assert class_groups("gid-15") == class_groups("classes.json") == {}


def test_unknown_scheme_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="unknown class scheme 'worldcovr'; did you mean 'worldcover'"):
        get_scheme("worldcovr")
    with pytest.raises(MissingFileError, match=r"none.yaml: no such class scheme file"):
        get_scheme("none.yaml")
    assert stored_values("classes.json") == {}


def test_folder_of_the_same_name_does_not_hide_a_built_in_scheme(tmp_path, monkeypatch):
    (tmp_path / "dw").mkdir()
    monkeypatch.chdir(tmp_path)
    assert get_scheme("dw").name == "dw"


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    codes = np.array([10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100, 0], np.uint8)
    raster(tmp_path / "scenes" / "a.tif", np.ones((3, 12, 12), np.uint8))
    raster(tmp_path / "maps" / "a.tif", np.tile(codes, (1, 12, 1)))
    return tmp_path


def build(scenes: Path, *words: str) -> Catalog:
    out = scenes / "c.parquet"
    assert main(["catalog", "build", str(scenes / "scenes"), "--sensor", "rgb", "--out", str(out), *words]) == 0
    return Catalog.open(out)


@pytest.mark.parametrize("scheme", ["worldcover", "dw"])
def test_published_map_becomes_labels_of_a_built_in_scheme(scheme, scenes):
    catalog = build(scenes, "--labels", str(scenes / "maps"), "--scheme", scheme, "--label-codes", "worldcover", "--label-kind", "noisy")
    expected = {"worldcover": [*range(11), 255], "dw": [1, 5, 2, 4, 6, 7, 8, 0, 3, 3, 255, 255]}[scheme]
    assert read_label(catalog.tile(0).label)[3].tolist() == expected
    assert catalog.scheme() == get_scheme(scheme)


def test_map_without_codes_and_scheme_without_mapping_are_refused(scenes, capsys):
    words = [
        "catalog",
        "build",
        str(scenes / "scenes"),
        "--sensor",
        "rgb",
        "--labels",
        str(scenes / "maps"),
        "--out",
        str(scenes / "c.parquet"),
    ]
    for more, expected in (
        (["--scheme", "osm", "--label-codes", "worldcover"], "scheme 'osm' does not say what classes of 'worldcover' mean"),
        (["--scheme", "dw", "--label-codes", "dw"], "'dw' is stored as class ids, which need no codes"),
        (["--scheme", "dwx"], "unknown class scheme 'dwx'"),
    ):
        assert main([*words, *more]) != 0
        assert expected in capsys.readouterr().err


def test_polygons_with_codes_of_a_product_become_its_classes(scenes):
    outline = [[366_000, 5_800_000], [366_060, 5_800_000], [366_060, 5_799_880], [366_000, 5_799_880], [366_000, 5_800_000]]
    feature = {"type": "Feature", "properties": {"code_2018": "50000"}, "geometry": {"type": "Polygon", "coordinates": [outline]}}
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    (scenes / "atlas.geojson").write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": [feature]}))
    words = ("--labels", str(scenes / "atlas.geojson"), "--label-column", "code_2018", "--label-scheme", "urban-atlas", "--scheme", "dw")
    label = read_label(build(scenes, *words).tile(0).label)
    assert set(np.unique(label[:, :6])) == {0}
    assert set(np.unique(label[:, 6:])) == {255}


def test_table_takes_a_built_in_scheme(scenes):
    (scenes / "list.csv").write_text(f"image,label\n{scenes / 'scenes' / 'a.tif'},{scenes / 'maps' / 'a.tif'}\n")
    out = scenes / "t.parquet"
    assert main(["catalog", "import", str(scenes / "list.csv"), "--sensor", "rgb", "--scheme", "esri", "--out", str(out)]) == 0
    assert Catalog.open(out).scheme().name == "esri"
