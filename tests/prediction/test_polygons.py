"""A map as polygons: nothing overlaps, nothing is missing, areas are those of the ground."""

import tracemalloc
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from scipy import ndimage

from tilth.errors import DataError, OutputExistsError, UsageError
from tilth.evaluation.map_strata import read_strata
from tilth.imagery.area import value_areas_m2
from tilth.imagery.raster import Window
from tilth.imagery.write import write_raster
from tilth.prediction import polygons
from tilth.prediction.polygons import LAYER, remove_small, write_polygons

UTM = ("EPSG:32632", (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0))
DEGREES = ("EPSG:4326", (0.001, 0.0, 10.0, 0.0, -0.001, 60.0))
ROTATED = ("EPSG:32632", (8.0, 3.0, 500_000.0, 3.0, -8.0, 5_000_000.0))
NAMES = ("forest", "water", "built")


def noise(shape: tuple[int, int] = (60, 80), seed: int = 0) -> np.ndarray:
    """Classes 0 to 2 at random, with a corner and some pixels of no data: every way in which corners can touch."""
    draw = np.random.default_rng(seed)
    values = draw.integers(0, 3, shape).astype(np.uint8)
    values[:10, :12] = 255
    values[draw.random(shape) < 0.05] = 255
    return values


def write_map(path: Path, values: np.ndarray, place: tuple = UTM, **options: object) -> Path:
    crs, transform = place
    colours = [(0, 100, 0), (0, 0, 200), (200, 0, 0)]
    return write_raster(path, values, crs=crs, transform=transform, nodata=255, class_names=NAMES, colours=colours, **options)


@pytest.mark.parametrize("place", [UTM, DEGREES, ROTATED], ids=["utm", "degrees", "rotated"])
def test_polygons_are_valid_cover_all_data_and_nothing_twice(tmp_path: Path, place: tuple) -> None:
    values = noise()
    write_map(tmp_path / "map.tif", values, place)
    found = write_polygons(tmp_path / "map.tif", tmp_path / "map.gpkg")
    frame = geopandas.read_file(tmp_path / "map.gpkg", layer=LAYER)
    assert len(frame) == found.polygons
    assert frame.is_valid.all()
    assert frame.crs == place[0]
    # Union of all equal to the sum of each: nothing lies on anything else.
    planes = shapely.area(frame.geometry.to_numpy())
    assert shapely.union_all(frame.geometry.to_numpy()).area == pytest.approx(planes.sum(), rel=1e-9)
    a, b, _, d, e, _ = place[1]
    assert planes == pytest.approx(frame["pixels"].to_numpy() * abs(a * e - b * d), rel=1e-6)
    expected = value_areas_m2(values, Window(0, 0, 80, 60), *place)
    assert expected is not None
    for value, name in enumerate(NAMES):
        assert frame.loc[frame["class"] == name, "area_m2"].sum() == pytest.approx(expected[value], rel=1e-9)
        assert found.area_m2[name] == pytest.approx(expected[value], rel=1e-9)


def test_there_is_one_polygon_for_every_patch_that_hangs_together_by_sides(tmp_path: Path) -> None:
    values = noise(seed=3)
    write_map(tmp_path / "map.tif", values)
    patches = sum(ndimage.label(values == value)[1] for value in range(3))
    assert write_polygons(tmp_path / "map.tif", tmp_path / "map.gpkg").polygons == patches


def test_a_polygon_carries_class_and_mean_confidence_of_its_own_pixels(tmp_path: Path) -> None:
    values = np.zeros((4, 6), np.uint8)
    values[1:3, 1:3] = 1
    confidence = np.full((4, 6), 40, np.uint8)
    confidence[1:3, 1:3] = [[90, 80], [70, 60]]
    write_map(tmp_path / "map.tif", values)
    write_raster(tmp_path / "sure.tif", confidence, crs=UTM[0], transform=UTM[1], nodata=255)
    write_polygons(tmp_path / "map.tif", tmp_path / "map.gpkg", confidence=tmp_path / "sure.tif")
    frame = geopandas.read_file(tmp_path / "map.gpkg").set_index("class")
    assert frame.loc["water", ["class_id", "pixels", "mean_confidence"]].tolist() == [1, 4, 75.0]
    assert frame.loc["forest", "mean_confidence"] == 40.0
    assert frame.loc["forest"].geometry.interiors[0].equals(frame.loc["water"].geometry.exterior)


def test_small_patches_go_to_their_largest_neighbour(tmp_path: Path) -> None:
    values = np.zeros((20, 20), np.uint8)
    values[:, 12:] = 1
    values[5:8, 5:8] = 2
    values[10, 13] = 2
    write_map(tmp_path / "map.tif", values)
    found = write_polygons(tmp_path / "map.tif", tmp_path / "map.gpkg", minimum_area_m2=10 * 100)
    frame = geopandas.read_file(tmp_path / "map.gpkg")
    assert sorted(frame["class"]) == ["forest", "water"]
    assert found.merged_pixels == 10
    assert frame.set_index("class").loc["water", "pixels"] == 8 * 20


def test_no_patch_is_smaller_than_the_minimum_even_in_noise() -> None:
    values = np.random.default_rng(1).integers(0, 4, (90, 70)).astype(np.uint8)
    result = remove_small(values, np.ones(values.shape, bool), 12)
    sizes = np.concatenate([np.bincount(ndimage.label(result == value)[0].ravel())[1:] for value in range(4)])
    assert sizes.min() >= 12


def test_no_data_neither_swallows_patches_nor_turns_into_a_class() -> None:
    values = np.full((12, 12), 255, np.uint8)
    values[5, 5] = 1
    valid = values != 255
    assert (remove_small(values, valid, 9) == values).all()


@pytest.mark.parametrize(
    ("change", "error", "fragment"),
    [
        ({"out": "map.shp"}, UsageError, "ends in .gpkg"),
        ({"minimum_area_m2": -1.0}, UsageError, "expected 0 or more"),
        ({"source": "unplaced.tif"}, DataError, "has no CRS"),
        ({"source": "empty.tif"}, DataError, "every pixel is no data"),
        ({"source": "wide.tif"}, DataError, "one band of 8-bit class ids"),
        ({"confidence": "empty.tif"}, DataError, "on the grid of the map"),
        ({"confidence": "moved.tif"}, DataError, "lies elsewhere"),
    ],
)
def test_what_cannot_become_polygons_is_refused_and_leaves_nothing(tmp_path: Path, change: dict, error: type, fragment: str) -> None:
    write_map(tmp_path / "map.tif", noise())
    write_map(tmp_path / "unplaced.tif", noise(), (None, None))
    write_map(tmp_path / "empty.tif", np.full((8, 8), 255, np.uint8))
    write_map(tmp_path / "moved.tif", noise(), ("EPSG:32632", (10.0, 0.0, 500_010.0, 0.0, -10.0, 5_000_000.0)))
    write_raster(tmp_path / "wide.tif", np.zeros((2, 8, 8), np.uint8), crs=UTM[0], transform=UTM[1])
    words = {"source": "map.tif", "out": "map.gpkg"} | change
    files = {name: tmp_path / value for name, value in words.items() if isinstance(value, str)}
    before = sorted(tmp_path.iterdir())
    with pytest.raises(error, match=fragment) as caught:
        write_polygons(**(words | files))
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


def test_no_data_is_what_the_map_says(tmp_path: Path) -> None:
    values = noise()
    values[values == 255] = 9
    write_raster(tmp_path / "foreign.tif", values, crs=UTM[0], transform=UTM[1], nodata=9)
    found = write_polygons(tmp_path / "foreign.tif", tmp_path / "map.gpkg")
    assert set(found.area_m2) == {"class 0", "class 1", "class 2"}
    assert geopandas.read_file(tmp_path / "map.gpkg")["pixels"].sum() == (values != 9).sum()


def test_a_class_that_would_be_taken_for_no_data_is_refused(tmp_path: Path) -> None:
    write_raster(tmp_path / "foreign.tif", noise(), crs=UTM[0], transform=UTM[1], nodata=0)
    with pytest.raises(DataError, match=r"foreign.tif: \d+ pixels hold 255, yet no data is 0"):
        write_polygons(tmp_path / "foreign.tif", tmp_path / "map.gpkg")
    with pytest.raises(DataError, match="pixels hold 255"):
        read_strata(str(tmp_path / "foreign.tif"))


def test_pixels_of_unknown_confidence_count_in_no_mean(tmp_path: Path) -> None:
    values = np.zeros((4, 6), np.uint8)
    values[:, 3:] = 1
    confidence = np.full((4, 6), 255, np.uint8)
    confidence[:2, :3] = 80
    write_map(tmp_path / "map.tif", values)
    write_raster(tmp_path / "sure.tif", confidence, crs=UTM[0], transform=UTM[1])
    write_polygons(tmp_path / "map.tif", tmp_path / "map.gpkg", confidence=tmp_path / "sure.tif")
    frame = geopandas.read_file(tmp_path / "map.gpkg").set_index("class")
    assert frame.loc["forest", "mean_confidence"] == 80
    assert np.isnan(frame.loc["water", "mean_confidence"])


def test_confidence_of_another_map_is_refused(tmp_path: Path) -> None:
    sure = np.full((60, 80), 80, np.uint8)
    write_map(tmp_path / "map.tif", noise(), tags={"TILTH_STAMP": "a"})
    write_raster(tmp_path / "other.tif", sure, crs=UTM[0], transform=UTM[1], tags={"TILTH_STAMP": "b"})
    write_raster(tmp_path / "zone.tif", sure, crs="EPSG:32633", transform=UTM[1])
    write_raster(tmp_path / "values.tif", sure + 40, crs=UTM[0], transform=UTM[1])
    for name, fragment in (("other", "was made from another model"), ("zone", "CRS is EPSG:32632"), ("values", "found 120")):
        with pytest.raises(DataError, match=fragment):
            write_polygons(tmp_path / "map.tif", tmp_path / "map.gpkg", confidence=tmp_path / f"{name}.tif")
    write_raster(tmp_path / "same.tif", sure, crs=UTM[0], transform=UTM[1], tags={"TILTH_STAMP": "a"})
    write_polygons(tmp_path / "map.tif", tmp_path / "map.gpkg", confidence=tmp_path / "same.tif")


def test_only_polygons_of_a_map_are_replaced(tmp_path: Path) -> None:
    source, mine = write_map(tmp_path / "map.tif", noise()), tmp_path / "mine.gpkg"
    fields = geopandas.GeoDataFrame({"owner": ["me"]}, geometry=[shapely.box(0, 0, 1, 1)], crs=UTM[0])
    fields.to_file(mine, layer="fields")
    with pytest.raises(OutputExistsError, match=r"mine.gpkg: exists already and is not polygons of a map"):
        write_polygons(source, mine)
    assert geopandas.read_file(mine)["owner"].tolist() == ["me"]
    write_polygons(source, mine, overwrite=True)
    # Now they are, unless a layer is added.
    write_polygons(source, mine)
    fields.to_file(mine, layer="fields")
    with pytest.raises(OutputExistsError):
        write_polygons(source, mine)


def test_memory_of_patches_is_what_it_is_said_to_be(tmp_path: Path) -> None:
    side = 1500
    rows, columns = np.mgrid[:side, :side]
    values = ((rows // 100 + columns // 100) % 3).astype(np.uint8)
    valid = np.ones(values.shape, bool)
    tracemalloc.start()
    patches = polygons._find_patches(values, valid)
    highest = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(patches.classes) == 15 * 15
    # Ids and labels of 4 bytes, one mask, and what ndimage.label takes.
    assert highest / side**2 < 12
