"""A part of a scene gets the labels that the whole scene would have there."""

from __future__ import annotations

import geopandas
import numpy as np
import pytest
import rasterio
import shapely

from support.mapping import TRANSFORM, noise, read, write
from support.tiny_models import TinySegmenter
from tilth.errors import DataError, MissingFileError, UnreadableFileError, UsageError
from tilth.imagery.read import Window, read_info
from tilth.prediction.interest import area_from_bounds, area_from_file
from tilth.prediction.scene import predict_scene

WINDOWS = {"window": 32, "overlap": 12}
HEIGHT, WIDTH = 190, 170


def place(column: float, row: float, transform=TRANSFORM) -> tuple[float, float]:
    a, b, c, d, e, f = transform
    return a * column + b * row + c, d * column + e * row + f


def polygon(*corners: tuple[float, float], transform=TRANSFORM) -> shapely.Polygon:
    return shapely.Polygon([place(*corner, transform=transform) for corner in corners])


def inside(shapes, transform=TRANSFORM) -> np.ndarray:
    """Pixels whose centres lie in a polygon, by shapely."""
    columns, rows = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    x, y = place(columns, rows, transform)
    return shapely.contains_xy(shapely.union_all(shapes), x, y)


@pytest.fixture(scope="module", params=[TRANSFORM, (8.0, 3.0, 5e5, 3.0, -8.0, 5e6)], ids=["upright", "rotated"])
def scene(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene")
    uri = write(folder / "scene.tif", noise(HEIGHT, WIDTH), transform=request.param)
    full = predict_scene(TinySegmenter(), uri, folder / "full.tif", **WINDOWS, probabilities=True)
    return uri, full, request.param


@pytest.mark.parametrize("suffix", ["gpkg", "geojson", "shp"])
@pytest.mark.parametrize("panel", [23, 500])
def test_polygons_get_the_labels_of_the_full_map(tmp_path, scene, suffix, panel):
    uri, full, transform = scene
    shapes = [
        polygon((20.3, 31.7), (90, 25), (70, 100.2), transform=transform),
        polygon((100, 60), (140, 60), (140, 95), (100, 95), transform=transform),
    ]
    crs = "EPSG:4326" if suffix == "geojson" else "EPSG:32633"
    geopandas.GeoDataFrame(geometry=shapes, crs="EPSG:32633").to_crs(crs).to_file(tmp_path / f"area.{suffix}")
    area = area_from_file(tmp_path / f"area.{suffix}", read_info(uri))
    assert area.window == Window(20, 25, 120, 76)
    model = TinySegmenter()
    result = predict_scene(model, uri, tmp_path / "map.tif", **WINDOWS, area=area, panel=panel, probabilities=True)
    rows, columns = slice(25, 101), slice(20, 140)
    wanted = inside(shapes, transform)[rows, columns]
    found = read(result.path)
    if suffix == "geojson":
        # Back and forth through degrees, a centre on an edge may fall to either side.
        assert ((found != 255) != wanted).mean() < 0.001
        wanted = found != 255
    np.testing.assert_array_equal(found, np.where(wanted, read(full.path)[rows, columns], 255))
    np.testing.assert_array_equal(read(result.probabilities_path), np.where(wanted, read(full.probabilities_path)[:, rows, columns], 255))
    assert result.valid_pixels == wanted.sum()
    info = read_info(str(result.path))
    assert info.transform == pytest.approx((*transform[:2], place(20, 25, transform)[0], *transform[3:5], place(20, 25, transform)[1]))
    # Windows far from the polygons are not computed.
    assert len(model.batches) < full.windows


def test_every_computed_window_touches_the_area(tmp_path, scene):
    uri, _, transform = scene
    info = read_info(uri)
    tiny = polygon((3, 3), (6, 3), (6, 6), (3, 6), transform=transform)
    geopandas.GeoDataFrame(geometry=[tiny], crs="EPSG:32633").to_file(tmp_path / "area.gpkg")
    model = TinySegmenter()
    result = predict_scene(model, uri, tmp_path / "map.tif", **WINDOWS, area=area_from_file(tmp_path / "area.gpkg", info))
    assert (result.width, result.height, result.valid_pixels) == (3, 3, 9)
    assert len(model.batches) == 1


def test_bounds_are_widened_to_whole_pixels_and_mapped_in_full(tmp_path, scene):
    uri, full, transform = scene
    if transform != TRANSFORM:
        pytest.skip("a rectangle of coordinates is no rectangle of pixels there")
    left, top = place(40.2, 50.9)
    right, bottom = place(99.7, 180.1)
    area = area_from_bounds((left, bottom, right, top), read_info(uri))
    assert area.window == Window(40, 50, 60, 131)
    result = predict_scene(TinySegmenter(), uri, tmp_path / "map.tif", **WINDOWS, area=area)
    np.testing.assert_array_equal(read(result.path), read(full.path)[50:181, 40:100])
    # Bounds that lie on edges of pixels take no pixel more, and what reaches out of the scene is cut off.
    exact = area_from_bounds((*place(-20, 30), *place(500, 10)), read_info(uri))
    assert exact.window == Window(0, 10, WIDTH, 20)


def test_bounds_may_be_in_degrees(scene):
    uri, _, transform = scene
    if transform != TRANSFORM:
        pytest.skip("as above")
    x, y = np.array([place(40, 100), place(100, 50)]).T
    longitude, latitude = rasterio.warp.transform("EPSG:32633", "EPSG:4326", x, y)
    area = area_from_bounds((longitude[0], latitude[0], longitude[1], latitude[1]), read_info(uri), "EPSG:4326")
    column, row, width, height = area.window
    assert column in (39, 40)
    assert row in (49, 50)
    assert 60 <= width <= 63
    assert 50 <= height <= 53


def test_areas_that_cannot_be_found_are_refused(tmp_path, scene):
    info = read_info(scene[0])
    far = geopandas.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs="EPSG:4326")
    far.to_file(tmp_path / "far.gpkg")
    geopandas.GeoDataFrame(geometry=[shapely.Point(15, 45)], crs="EPSG:4326").to_file(tmp_path / "points.gpkg")
    (tmp_path / "text.gpkg").write_text("no file of this kind")
    with pytest.raises(DataError, match=r"far.gpkg lies outside of it .* of 170 x 190 pixels"):
        area_from_file(tmp_path / "far.gpkg", info)
    with pytest.raises(DataError, match="holds no polygon"):
        area_from_file(tmp_path / "points.gpkg", info)
    geopandas.GeoDataFrame(geometry=[shapely.Polygon()], crs="EPSG:32633").to_file(tmp_path / "hollow.gpkg")
    with pytest.raises(DataError, match="holds no polygon"):
        area_from_file(tmp_path / "hollow.gpkg", info)
    with pytest.raises(UnreadableFileError, match="cannot be read as a vector file"):
        area_from_file(tmp_path / "text.gpkg", info)
    with pytest.raises(MissingFileError):
        area_from_file(tmp_path / "none.gpkg", info)
    with pytest.raises(DataError, match="the bounds lies outside of it"):
        area_from_bounds((0, 0, 1, 1), info)
    with pytest.raises(UsageError, match="lowest x, lowest y"):
        area_from_bounds((5, 0, 1, 1), info)
    with pytest.raises(UsageError, match="unknown coordinate reference system"):
        area_from_bounds((0, 0, 1, 1), info, "EPSG:x")


def test_scene_without_a_place_has_no_area(tmp_path):
    uri = write(tmp_path / "scene.tif", noise(20, 20), crs=None)
    with pytest.raises(UsageError, match="leave out --bounds"):
        area_from_bounds((0, 0, 1, 1), read_info(uri))
