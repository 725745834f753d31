"""Splits that share ground or pixels, against comparisons of every tile with every other; coordinate systems and resolutions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import shapely

from tilth.catalog.check import check_catalog
from tilth.catalog.geometry import footprint_areas_m2, overlapping_pairs
from tilth.catalog.overlap import crossing_windows
from tilth.catalog.table import Catalog
from tilth.sensors import get_sensor

KIND = "same ground in two splits"


def make(shapes, splits, images=None, **columns) -> Catalog:
    rows = [
        {
            "tile_id": f"t{index}",
            "image": images[index] if images else f"/none/{index}.png",
            "window": (0, 0, 100, 100),
            "sensor": "rgb",
            "split": split,
            "crs": "EPSG:4326",
            "geometry": None if shape is None else shapely.to_wkb(shape),
            **{name: values[index] for name, values in columns.items()},
        }
        for index, (shape, split) in enumerate(zip(shapes, splits, strict=True))
    ]
    return Catalog.from_rows(rows, {"rgb": get_sensor("rgb")})


def check(catalog: Catalog, *kinds: str):
    return [item for item in check_catalog(catalog, headers=False).findings if item.what in kinds]


def diamonds(count: int, seed: int):
    """Rotated squares, so that bounds overlap where the ground does not."""
    random = np.random.default_rng(seed)
    centres, sizes = random.uniform(0, 1, (count, 2)), random.uniform(0.02, 0.08, count)
    angles = np.linspace(0, 2 * np.pi, 4, endpoint=False) + random.uniform(0, np.pi / 2, count)[:, None]
    corners = centres[:, None] + sizes[:, None, None] * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    return shapely.polygons(corners)


@pytest.mark.parametrize("seed", range(4))
def test_overlaps_are_those_of_all_pairs(seed):
    shapes = diamonds(120, seed)
    random = np.random.default_rng(seed)
    splits = [(None, "train", "train", "train", "val", "test")[code] for code in random.integers(0, 6, 120)]
    images = [f"/none/{code}.png" for code in random.integers(0, 60, 120)]
    catalog = make(shapes, splits, images)
    larger = sorted({"train", "val", "test"}, key=lambda name: (-splits.count(name), name))
    losers = set()
    for one, other in itertools.combinations(range(120), 2):
        if None in (splits[one], splits[other]) or splits[one] == splits[other] or images[one] == images[other]:
            continue
        share = shapely.intersection(shapes[one], shapes[other]).area / min(shapes[one].area, shapes[other].area)
        if share > 0.01:
            losers.add(one if larger.index(splits[one]) < larger.index(splits[other]) else other)
    found = check(catalog, KIND)
    assert {int(item.tile_id[1:]) for item in found} == losers
    assert len(found) == len(losers) > 10
    assert check(check_catalog(catalog, headers=False).sound(catalog), KIND) == []


def test_pairs_of_groups_are_those_of_all_pairs():
    catalog = make([*diamonds(150, 9), None], ["train"] * 151)
    groups = np.append(np.random.default_rng(0).integers(-1, 3, 150), 0)
    pairs = {tuple(pair) for pair in overlapping_pairs(catalog.table["geometry"]).tolist()}
    expected = {(one, other) for one, other in pairs if groups[one] != groups[other] and min(groups[one], groups[other]) >= 0}
    found = [tuple(pair) for pair in overlapping_pairs(catalog.table["geometry"], groups).tolist()]
    assert sorted(found) == sorted(expected)
    assert len(expected) > 20
    assert len(overlapping_pairs(catalog.table["geometry"], np.full(151, 2))) == 0
    assert len(overlapping_pairs(catalog.table["geometry"], np.full(151, -1))) == 0


def box(column: float, row: float, size: float = 0.01):
    return shapely.box(column, row, column + size, row + size)


@pytest.mark.parametrize(("shift", "errors"), [(0.01, 0), (0.00995, 0), (0.0098, 1), (0.005, 1), (0.0, 1)])
def test_neighbours_may_touch(shift, errors):
    assert len(check(make([box(0, 0), box(shift, 0)], ["train", "val"]), KIND)) == errors


def test_the_area_is_measured_on_the_ground():
    """Half of a tile of 0.01 degrees at 60 degrees north: 558.0 x 1114.1 m, by the ellipsoid's radii, halved."""
    (finding,) = check(make([box(10, 60), box(10.005, 60)], ["train", "val"]), KIND)
    assert finding.severity == "error"
    assert finding.tile_id == "t0"
    assert "in 'train' here, in 'val' as t1" in finding.found
    assert float(finding.found.split()[0]) * 1e6 == pytest.approx(279.0 * 1114.1, rel=0.01)
    assert "50% of the smaller tile" in finding.found


def test_areas_of_footprints_are_those_of_the_ellipsoid():
    areas = footprint_areas_m2(make([box(0, 0), None, box(10, 60)], ["train"] * 3).table["geometry"])
    assert areas[[0, 2]] == pytest.approx([1113.2 * 1105.7, 558.0 * 1114.1], rel=1e-3)
    assert np.isnan(areas[1])


def test_ground_of_one_split_or_of_one_image_is_no_matter_here():
    shapes = [box(0, 0), box(0.002, 0)]
    assert check(make(shapes, ["train", "train"]), KIND) == []
    assert check(make(shapes, ["train", None]), KIND) == []
    assert check(make(shapes, ["train", "val"], ["/none/a.png"] * 2), KIND) == []


@pytest.mark.parametrize("seed", range(3))
def test_crossing_windows_are_those_of_all_pairs(seed, monkeypatch):
    monkeypatch.setattr("tilth.catalog.overlap._PAIRS", 64)
    random = np.random.default_rng(seed)
    count = 200
    images, groups = random.integers(0, 5, count), random.integers(0, 3, count)
    windows = np.concatenate([random.integers(0, 200, (count, 2)), random.integers(1, 40, (count, 2))], axis=1)
    expected = []
    for one, other in itertools.combinations(range(count), 2):
        first, second = windows[one], windows[other]
        apart = any(first[axis] + first[axis + 2] <= second[axis] or second[axis] + second[axis + 2] <= first[axis] for axis in (0, 1))
        if images[one] == images[other] and groups[one] != groups[other] and not apart:
            expected.append([one, other])
    assert sorted(crossing_windows(images, windows, groups).tolist()) == expected
    assert len(expected) > 50


def test_mixed_systems_are_counted():
    shapes, splits = [box(0, 0), box(1, 0), box(2, 0)], [None] * 3
    assert check(make(shapes, splits), "mixed CRS") == []
    (finding,) = check(make(shapes, splits, crs=["EPSG:4326", "EPSG:32631", "EPSG:4326"]), "mixed CRS")
    assert finding.found == "EPSG:4326 (2 tiles), EPSG:32631 (1 tiles)"
    (finding,) = check(make(shapes, splits, crs=["EPSG:4326", None, None]), "mixed CRS")
    assert finding.found == "EPSG:4326 (1 tiles), none (2 tiles)"
    assert check(make(shapes, splits, crs=[None] * 3), "mixed CRS") == []


def test_files_that_should_have_a_system_and_have_none_are_counted():
    shapes, splits = [None] * 4, [None] * 4
    images = ["/none/a.TIF", "/none/a.TIF", "/none/b.jp2", "/none/c.png"]
    (finding,) = check(make(shapes, splits, images, crs=[None] * 4), "no CRS")
    assert finding.found.startswith("none in 2 files")
    assert check(make(shapes[3:], splits[3:], images[3:], crs=[None]), "no CRS") == []


def test_mixed_resolutions_are_named_in_metres():
    sizes = (0.01, 0.012, 0.02)
    shapes = [box(index, 0, size) for index, size in enumerate(sizes)]
    (finding,) = check(make(shapes, [None] * 3), "mixed resolution")
    assert finding.found.startswith("factor 2: 11.1 m (1 files), 13.3 m (1 files), 22.2 m (1 files)")
    assert check(make(shapes[:2], [None] * 2), "mixed resolution") == []
    # Windows of one image count once, and need not be of one size.
    assert check(make([shapes[0], shapes[2]], [None] * 2, window=[(0, 0, 100, 100), (0, 0, 200, 200)]), "mixed resolution") == []


def test_places_in_two_splits_are_found_where_no_footprint_says_more():
    splits = ["train", "train", "train", "val", "val", None]
    places = ["a", "b", "a", "a", "c", "b"]
    found = check(make([None] * 6, splits, location_id=places), "location in two splits")
    assert [(item.tile_id, item.severity) for item in found] == [("t0", "error"), ("t2", "error")]
    assert found[0].found == "'a' in 'train' here, in 'val' as t3"
    shapes = [box(column, 0) for column in range(6)]
    assert not check(make(shapes, splits, location_id=places), "location in two splits")
