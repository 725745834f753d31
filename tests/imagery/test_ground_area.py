"""Ground covered by pixels, against integrals over the ellipsoid that share nothing with the program."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tilth.imagery.area import row_length_m, value_areas_m2
from tilth.imagery.raster import Window

AXIS, FLATTENING = 6378137.0, 1 / 298.257223563
SQUARE = FLATTENING * (2 - FLATTENING)
NOWHERE = 'LOCAL_CS["site",UNIT["metre",1],AXIS["x",EAST],AXIS["y",NORTH]]'


def belt(south: float, north: float, degrees: float) -> float:
    """Area between two parallels in square metres: the midpoint rule over the radii of curvature; latitudes in radians."""
    edges = np.linspace(south, north, 2001)
    middle = (edges[1:] + edges[:-1]) / 2
    flat = 1 - SQUARE * np.sin(middle) ** 2
    metres = AXIS * (1 - SQUARE) / flat**1.5 * AXIS / np.sqrt(flat) * np.cos(middle)
    return float((metres * np.diff(edges)).sum() * math.radians(degrees))


def latitude(y: float) -> float:
    """Latitude in radians of a northing of Web Mercator."""
    return 2 * math.atan(math.exp(y / AXIS)) - math.pi / 2


def total(window: Window, crs: str, transform: tuple[float, ...]) -> float:
    areas = value_areas_m2(np.zeros((window.height, window.width), np.uint8), window, crs, transform)
    assert areas is not None
    assert areas.shape == (256,)
    assert areas[1:].sum() == 0
    return float(areas[0])


def test_web_mercator_is_corrected_to_the_ellipsoid():
    window = Window(3, 5, 64, 64)
    top = 6_800_000.0 - 5
    expected = belt(latitude(top - 64), latitude(top), math.degrees(64 / AXIS))
    assert total(window, "EPSG:3857", (1, 0, 1e6, 0, -1, 6_800_000.0)) == pytest.approx(expected, rel=1e-6)
    assert expected < 64 * 64 * 0.4


def test_degrees_are_measured_row_by_row():
    values = np.arange(50, dtype=np.uint8)[:, None].repeat(300, axis=1)
    areas = value_areas_m2(values, Window(0, 0, 300, 50), "EPSG:4326", (0.1, 0, 10, 0, -1, 60))
    assert areas is not None
    for row in range(50):
        assert areas[row] == pytest.approx(belt(math.radians(59 - row), math.radians(60 - row), 30), rel=1e-6)


def test_utm_agrees_with_geodesics():
    import pyproj

    window, transform = Window(0, 0, 400, 300), (10, 0, 660_000, 0, -10, 5_800_000)
    rim = [(x, 0) for x in range(400)] + [(400, y) for y in range(300)] + [(400 - x, 300) for x in range(400)]
    rim += [(0, 300 - y) for y in range(300)]
    x, y = np.array(rim).T * [[10], [-10]] + [[660_000], [5_800_000]]
    corners = pyproj.Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True).transform(x, y)
    expected = abs(pyproj.Geod(ellps="WGS84").polygon_area_perimeter(*corners)[0])
    assert total(window, "EPSG:32633", transform) == pytest.approx(expected, rel=1e-6)


def test_values_of_windows_add_up_to_those_of_the_whole():
    values = np.random.default_rng(0).integers(0, 4, (300, 500)).astype(np.uint8)
    transform = (100, 0, 1e6, 0, -100, 6_800_000)
    whole = value_areas_m2(values, Window(0, 0, 500, 300), "EPSG:3857", transform)
    parts = [
        value_areas_m2(values[row : row + 70, column : column + 333], Window(column, row, width, height), "EPSG:3857", transform)
        for row, height in ((0, 70), (70, 70), (140, 70), (210, 70), (280, 20))
        for column, width in ((0, 333), (333, 167))
    ]
    np.testing.assert_allclose(np.sum(parts, axis=0), whole, rtol=1e-9)


def test_a_window_across_the_antimeridian_does_not_reach_around_the_globe():
    # A Mercator whose middle is 150 degrees east: the antimeridian lies 30 degrees from it.
    across, elsewhere = math.radians(30) * AXIS - 2000, -1e6
    window = Window(0, 0, 400, 50)
    places = [(10, 0, left, 0, -10, 4_000_000) for left in (across, elsewhere)]
    assert total(window, "EPSG:3832", places[0]) == pytest.approx(total(window, "EPSG:3832", places[1]), rel=1e-9)
    lengths = [row_length_m(25, 400, "EPSG:3832", place) for place in places]
    assert lengths[0] == pytest.approx(lengths[1], rel=1e-9)


def test_a_row_is_as_long_as_its_parallel():
    place = latitude(6_800_000 - 32)
    parallel = AXIS * math.cos(place) / math.sqrt(1 - SQUARE * math.sin(place) ** 2)
    assert row_length_m(32, 1000, "EPSG:3857", (1, 0, 1e6, 0, -1, 6_800_000)) == pytest.approx(parallel * 1000 / AXIS, rel=1e-6)


def test_ground_without_a_place_on_earth_is_unknown():
    transform = (1, 0, 0, 0, -1, 0)
    assert value_areas_m2(np.zeros((2, 2), np.uint8), Window(0, 0, 2, 2), NOWHERE, transform) is None
    assert row_length_m(1, 2, NOWHERE, transform) is None
    assert value_areas_m2(np.zeros((2, 2), np.uint8), Window(0, 0, 2, 2), "EPSG:32633", (1e9, 0, 1e12, 0, -1e9, 1e12)) is None
