"""Stratified samples: sizes and allocations of Olofsson et al. 2014, uniform draws, and files that interpreters fill in."""

import csv
from pathlib import Path

import numpy as np
import pytest

import tilth
from tilth.errors import DataError, OutputExistsError, UsageError
from tilth.evaluation import map_strata
from tilth.evaluation.map_strata import read_strata
from tilth.evaluation.sampling import COLUMNS, allocate, draw_points, plan_points, sample_size, write_points
from tilth.imagery.write import write_raster

CRS = "EPSG:32633"
TRANSFORM = (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_700_000.0)
NAMES = ["land", "town", "water"]


def write_map(path: Path, values: np.ndarray, **more: object) -> Path:
    layout = {"crs": CRS, "transform": TRANSFORM, "nodata": 255, "class_names": NAMES} | more
    return write_raster(path, values.astype(np.uint8), **layout)


def random_map(seed: int, height: int, width: int) -> np.ndarray:
    values = np.random.default_rng(seed).choice([0, 1, 2, 255], (height, width), p=[0.6, 0.1, 0.2, 0.1])
    return values.astype(np.uint8)


def test_the_published_sample_size_and_allocation() -> None:
    shares, users = [0.020, 0.015, 0.320, 0.645], [0.7, 0.6, 0.9, 0.95]
    assert sample_size(shares, users, 0.01) == 641
    # Table 5 of the paper: 75, 75, 165, 325, with the last two rounded by hand.
    found = allocate([200_000, 150_000, 3_200_000, 6_450_000], 641, 75)
    assert (found[:2], sum(found)) == ([75, 75], 641)
    assert found[2:] == pytest.approx([165, 325], abs=4)


def test_a_small_map_needs_fewer_points() -> None:
    assert sample_size([0.5, 0.5], [0.5, 0.5], 0.01) == 2500
    assert sample_size([0.5, 0.5], [0.5, 0.5], 0.01, pixels=2500) == 1250
    assert sample_size([1.0], [1.0], 0.01) == 1


@pytest.mark.parametrize("seed", range(20))
def test_allocations_keep_their_promises(seed: int) -> None:
    random = np.random.default_rng(seed)
    pixels = random.integers(1, 10 ** random.integers(1, 7, 6))
    minimum, total = int(random.integers(1, 60)), int(random.integers(1, 900))
    found = np.array(allocate(pixels, total, minimum))
    floors = np.minimum(minimum, pixels)
    assert (found >= floors).all()
    assert (found <= pixels).all()
    if pixels.sum() >= total >= floors.sum() and (found < pixels).all():
        assert found.sum() == total
        above = found > floors
        ratios = found[above] / pixels[above]
        # In proportion to size, up to whole points.
        assert (np.abs(found[above] - ratios.mean() * pixels[above]) <= 1 + np.ptp(ratios) * pixels[above]).all()


def test_strata_equal_counts_over_blocks_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = random_map(0, 150, 170)
    path = write_map(tmp_path / "map.tif", values)
    whole = read_strata(str(path))
    monkeypatch.setattr(map_strata, "BLOCK", 64)
    cut = read_strata(str(path))
    for strata in (whole, cut):
        assert (strata.ids, strata.names) == ((0, 1, 2), ("land", "town", "water"))
        assert strata.pixels.tolist() == [int((values == value).sum()) for value in range(3)]
        assert strata.block_pixels.sum(axis=0).tolist() == strata.pixels.tolist()
        assert strata.areas_m2 is not None
        assert strata.shares == pytest.approx(strata.pixels / strata.pixels.sum(), rel=1e-4)
    assert (len(whole.blocks), len(cut.blocks)) == (1, 9)
    with pytest.raises(DataError, match="every pixel is without data"):
        read_strata(str(write_map(tmp_path / "void.tif", np.full((9, 9), 255))))
    with pytest.raises(DataError, match="expected a map, one band of 8-bit class ids"):
        read_strata(str(write_raster(tmp_path / "scene.tif", np.zeros((3, 9, 9), np.uint16), crs=None, transform=None)))


@pytest.mark.parametrize("block", [2048, 32])
def test_points_lie_on_pixels_of_their_class_without_repeats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(map_strata, "BLOCK", block)
    values = random_map(1, 90, 100)
    strata = read_strata(str(write_map(tmp_path / "map.tif", values)))
    numbers = [400, int(strata.pixels[1]), 300]
    points = draw_points(strata, numbers)
    assert np.array_equal(values[points.rows, points.columns], points.ids)
    assert np.bincount(points.ids).tolist() == numbers
    assert len(np.unique(points.rows * 100 + points.columns)) == sum(numbers)
    again, other = draw_points(strata, numbers), draw_points(strata, numbers, seed=1)
    assert np.array_equal(points.columns, again.columns)
    assert not np.array_equal(points.columns, other.columns)
    # In random order: no class waits for the end.
    assert len(set(points.ids[:60].tolist())) == 3


def test_every_pixel_of_a_class_is_drawn_equally_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(map_strata, "BLOCK", 5)
    values = random_map(2, 12, 13)
    strata = read_strata(str(write_map(tmp_path / "map.tif", values)))
    numbers = [20, 3, 7]
    drawn = np.zeros(values.shape)
    draws = 400
    for seed in range(draws):
        points = draw_points(strata, numbers, seed)
        drawn[points.rows, points.columns] += 1
    for value, number in zip(strata.ids, numbers, strict=True):
        times, share = drawn[values == value], number / (values == value).sum()
        # Chi-square of the number of draws of each pixel, against its 99.9 % quantile by Wilson and Hilferty 1931.
        freedom = len(times) - 1
        spread = ((times - draws * share) ** 2).sum() / (draws * share * (1 - share)) * freedom / len(times)
        assert spread < freedom * (1 - 2 / (9 * freedom) + 3.09 * (2 / (9 * freedom)) ** 0.5) ** 3
    assert drawn[values == 255].sum() == 0


def test_files_hold_pixel_centres_and_room_for_the_reference(tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas")
    values = random_map(3, 40, 50)
    strata = read_strata(str(write_map(tmp_path / "map.tif", values)))
    points = draw_points(strata, [6, 5, 4])
    write_points(strata, points, tmp_path / "points.csv")
    write_points(strata, points, tmp_path / "points.gpkg")
    rows = list(csv.DictReader((tmp_path / "points.csv").open()))
    frame = geopandas.read_file(tmp_path / "points.gpkg")
    assert tuple(rows[0]) == COLUMNS == tuple(frame.columns[:-1])
    assert frame.crs.to_epsg() == 32633
    assert frame["reference"].isna().all()
    assert frame["id"].tolist() == list(range(1, 16))
    for index, row in enumerate(rows):
        column, line = (float(row["x"]) - 500_000) / 10, (5_700_000 - float(row["y"])) / 10
        assert (column % 1, line % 1) == (0.5, 0.5)
        value = values[int(line), int(column)]
        assert (row["id"], row["map_id"], row["map_class"], row["reference"]) == (str(index + 1), str(value), NAMES[value], "")
        assert (frame.geometry[index].x, frame.geometry[index].y) == (float(row["x"]), float(row["y"]))
        assert frame["map_class"][index] == row["map_class"]


def test_work_of_interpreters_is_never_replaced(tmp_path: Path) -> None:
    path = write_map(tmp_path / "map.tif", random_map(3, 40, 50))
    (tmp_path / "points.csv").write_text("mine")
    with pytest.raises(OutputExistsError, match="may hold reference classes"):
        tilth.sample(map=path, out=tmp_path / "points.csv")
    assert (tmp_path / "points.csv").read_text() == "mine"
    with pytest.raises(UsageError, match=r"points are written as \.gpkg or \.csv"):
        tilth.sample(map=path, out=tmp_path / "points.shp")


def test_plans_follow_options_and_refuse_what_cannot_be(tmp_path: Path) -> None:
    values = np.zeros((100, 100), dtype=np.uint8)
    values[:, :20] = 2
    values[0, :3] = 1
    strata = read_strata(str(write_map(tmp_path / "map.tif", values)))
    assert plan_points(strata, samples=400, minimum=50)[1] == 3
    assert sum(plan_points(strata, samples=400, minimum=50)) == 400
    assert sum(plan_points(strata, standard_error=0.02)) < sum(plan_points(strata, standard_error=0.01))
    better = plan_points(strata, users_accuracies={"water": 0.99})
    assert sum(better) < sum(plan_points(strata))
    with pytest.raises(UsageError, match="samples 60: 3 mapped classes with at least 50 points each need 103"):
        plan_points(strata, samples=60, minimum=50)
    with pytest.raises(UsageError, match="no class 'watre'; did you mean 'water'"):
        plan_points(strata, users_accuracies={"watre": 0.5})
    with pytest.raises(UsageError, match="fractions from 0 to 1"):
        plan_points(strata, users_accuracy=1.5)


def test_drawing_filling_in_and_assessing_find_the_true_areas(tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    truth = np.kron(random.choice(3, (30, 30), p=[0.6, 0.1, 0.3]), np.ones((10, 10), dtype=int)).astype(np.uint8)
    # The map takes a fifth of the land for water: its water is far too large.
    mapped = np.where((truth == 0) & (random.random(truth.shape) < 0.2), 2, truth)
    path = write_map(tmp_path / "map.tif", mapped)
    drawn = tilth.sample(map=path, out=tmp_path / "points.csv", samples=600)
    assert drawn.outputs == {"points": tmp_path / "points.csv"}
    assert sum(drawn.values["points"].values()) == 600
    rows = list(csv.DictReader((tmp_path / "points.csv").open()))
    for row in rows:
        row["reference"] = NAMES[truth[int((5_700_000 - float(row["y"])) / 10), int((float(row["x"]) - 500_000) / 10)]]
    with (tmp_path / "filled.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    found = tilth.assess(map=path, reference=tmp_path / "filled.csv", out=tmp_path / "out")
    shares = np.bincount(truth.ravel()) / truth.size
    assert [found.values["area_share"][name] for name in NAMES] == pytest.approx(shares.tolist(), abs=0.04)
    assert abs((mapped == 2).mean() - shares[2]) > 0.1
    assert found.summary[0].startswith("600 points: overall accuracy 90.2 % (88.0 to 92.4)")
    assert " ha (" in found.summary[2]
    assert "user's" in found.summary[4]
