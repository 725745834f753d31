"""The worked example of Olofsson et al. 2014 (section 5.2, tables 8 and 9), a loop, and intervals that must cover a known truth."""

import json
from pathlib import Path

import numpy as np
import pytest

from tilth.errors import DataError, MissingFileError, TilthError, TilthWarning, UnreadableFileError
from tilth.evaluation.area_estimate import Z, area_classes, estimate
from tilth.evaluation.area_result import AreaAssessment
from tilth.evaluation.assess import assess_map
from tilth.imagery.area import value_areas_m2
from tilth.imagery.raster import Window
from tilth.imagery.write import write_raster

NAMES = ("deforestation", "forest gain", "stable forest", "stable non-forest")
COUNTS = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
WEIGHTS = np.array([0.020, 0.015, 0.320, 0.645])
PIXEL_HA = 0.09
TOTAL_PIXELS = 10_000_000


def test_the_published_example_comes_out_as_published() -> None:
    found = estimate(COUNTS, WEIGHTS)

    def rounded(values: np.ndarray) -> list[float]:
        return [round(float(value), 2) for value in values]

    assert (round(found.overall, 2), round(Z * found.overall_error, 2)) == (0.95, 0.02)
    assert rounded(found.users) == [0.88, 0.73, 0.93, 0.96]
    assert rounded(Z * found.users_error) == [0.07, 0.10, 0.04, 0.02]
    assert rounded(found.producers) == [0.75, 0.85, 0.93, 0.96]
    # The paper prints 0.21, 0.23, 0.03, 0.01; the second and fourth do not follow from its table by its equation 7, which a loop below
    # and a simulation check.
    assert rounded(Z * found.producers_error) == [0.21, 0.25, 0.03, 0.02]
    assert (Z * found.producers_error).tolist() == pytest.approx([0.21, 0.23, 0.03, 0.01], abs=0.025)
    assert round(float(found.shares[0]) * TOTAL_PIXELS) == 235_086
    assert round(float(found.shares[0]) * TOTAL_PIXELS * PIXEL_HA) == 21_158
    assert round(Z * float(found.shares_error[0]) * TOTAL_PIXELS * PIXEL_HA) == 6_158


def test_classes_of_the_published_example_in_square_metres() -> None:
    found = estimate(COUNTS, WEIGHTS)
    classes = area_classes(NAMES, COUNTS, WEIGHTS, found, WEIGHTS * TOTAL_PIXELS * PIXEL_HA * 1e4)
    first = classes[0]
    assert (first.name, first.samples, first.reference_samples) == ("deforestation", 75, 69)
    assert first.mapped_area_m2 == pytest.approx(18_000e4)
    assert first.area_m2 == pytest.approx(21_158e4, rel=1e-4)
    assert first.area_interval_m2 == pytest.approx((15_000e4, 27_316e4), rel=2e-4)
    assert sum(item.area_m2 or 0 for item in classes) == pytest.approx(900_000e4)


def test_standard_errors_equal_a_loop_over_the_printed_equations() -> None:
    random = np.random.default_rng(0)
    counts, weights = random.integers(1, 30, (5, 5)), random.dirichlet(np.ones(5))
    found, rows = estimate(counts, weights), counts.sum(axis=1)
    within = counts / rows[:, None]
    for j in range(5):
        users, producers = within[j, j], found.producers[j]
        total = sum(weights[i] * within[i, j] for i in range(5))
        first = weights[j] ** 2 * (1 - producers) ** 2 * users * (1 - users) / (rows[j] - 1)
        others = sum(weights[i] ** 2 * within[i, j] * (1 - within[i, j]) / (rows[i] - 1) for i in range(5) if i != j)
        assert found.producers_error[j] ** 2 == pytest.approx((first + producers**2 * others) / total**2)
        own = weights[j] ** 2 * within[j, j] * (1 - within[j, j]) / (rows[j] - 1)
        assert found.shares_error[j] ** 2 == pytest.approx(others + own)
        assert found.users_error[j] ** 2 == pytest.approx(users * (1 - users) / (rows[j] - 1))


def test_a_stratum_with_one_point_leaves_no_interval_unless_it_is_one_pixel() -> None:
    counts, weights = np.array([[1, 0], [3, 17]]), np.array([0.1, 0.9])
    found = estimate(counts, weights)
    assert (found.overall, float(found.users[0])) == (pytest.approx(0.1 + 0.9 * 17 / 20), 1)
    assert np.isnan([found.overall_error, found.users_error[0], found.shares_error[0], found.producers_error[0]]).all()
    assert found.users_error[1] > 0
    whole = estimate(counts, weights, pixels=[1, 900])
    assert whole.overall_error == pytest.approx(0.9 * found.users_error[1])
    with pytest.raises(DataError, match="stratum 0 has no reference point"):
        estimate(np.array([[0, 0], [3, 17]]), weights)


def test_a_class_that_the_map_does_not_show_is_found_by_the_points() -> None:
    counts, weights = np.array([[18, 2, 0], [1, 19, 0], [0, 0, 0]]), np.array([0.4, 0.6, 0.0])
    counts[0, 2] = 5
    found = estimate(counts, weights)
    assert (float(found.producers[2]), float(found.shares[2])) == (0, pytest.approx(0.4 * 5 / 25))
    assert np.isnan(found.users[2])
    assert found.shares_error[2] > 0


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    random = np.random.default_rng(5)
    # Truth given the map: rows sum to one. The map shows 10 % of the first class, the truth has another share.
    truth = np.array([[0.8, 0.15, 0.05], [0.05, 0.9, 0.05], [0.02, 0.08, 0.9]])
    weights = np.array([0.1, 0.3, 0.6])
    shares, experiments = weights @ truth, 2000
    producers = weights * truth.diagonal() / shares
    hits = np.zeros(7)
    for _ in range(experiments):
        counts = np.stack([random.multinomial(number, row) for number, row in zip((300, 400, 800), truth, strict=True)])
        found = estimate(counts, weights)
        near = [
            abs(found.overall - (weights * truth.diagonal()).sum()) <= Z * found.overall_error,
            *(np.abs(found.shares - shares) <= Z * found.shares_error),
            *(np.abs(found.producers - producers) <= Z * found.producers_error),
        ]
        hits += near
    assert (hits / experiments > 0.93).all(), hits / experiments
    assert (hits / experiments < 0.97).all(), hits / experiments


CRS = "EPSG:32633"
TRANSFORM = (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_700_000.0)


@pytest.fixture
def small_map(tmp_path: Path) -> Path:
    """Half land, half water, a column without data; 10 m pixels."""
    values = np.zeros((40, 60), dtype=np.uint8)
    values[:, 20:50] = 2
    values[:, 59] = 255
    return write_raster(
        tmp_path / "map.tif",
        values,
        crs=CRS,
        transform=TRANSFORM,
        nodata=255,
        class_names=["land", "town", "Water"],
        colours=[(1, 2, 3), (4, 5, 6), (7, 8, 9)],
    )


def at(column: float, row: float) -> tuple[float, float]:
    return 500_000 + 10 * (column + 0.5), 5_700_000 - 10 * (row + 0.5)


def write_csv(path: Path, rows: list[tuple[int, int, str]], head: str = "x,y,reference") -> Path:
    lines = [f"{at(column, row)[0]},{at(column, row)[1]},{reference}" for column, row, reference in rows]
    path.write_text("\n".join([head, *lines]) + "\n")
    return path


POINTS = [
    *((3, row, "land") for row in range(9)),
    (3, 10, "town"),
    *((30, row, "water") for row in range(18)),
    (31, 4, "land"),
    (31, 5, "0"),
]


def test_a_map_is_assessed_from_a_csv_of_names_and_ids(small_map: Path, tmp_path: Path) -> None:
    found = assess_map(str(small_map), write_csv(tmp_path / "points.csv", POINTS), out=tmp_path / "out")
    assert AreaAssessment.read(tmp_path / "out") == found
    assert [item.name for item in found.classes] == ["land", "town", "Water"]
    assert found.error_matrix == ((9, 1, 0), (0, 0, 0), (2, 0, 18))
    assert (found.samples, found.left_out, found.weights, found.map) == (30, {}, "ground area", "map.tif")
    land, town, water = found.classes
    # 20 and 9 columns of land, 30 of water; a UTM pixel near the central meridian has 1 / 0.9996^2 of its nominal ground.
    pixel = 100 / 0.9996**2
    assert land.mapped_area_m2 == pytest.approx(29 * 40 * pixel, rel=2e-4)
    assert water.mapped_area_m2 == pytest.approx(30 * 40 * pixel, rel=2e-4)
    assert (town.mapped_area_m2, town.users_accuracy, town.producers_accuracy) == (0, None, 0)
    whole = (29 + 30) * 40 * pixel
    assert land.area_m2 == pytest.approx(whole * (29 / 59 * 0.9 + 30 / 59 * 0.1), rel=2e-4)
    assert water.colour == (7, 8, 9)
    table = (tmp_path / "out" / "assessment.csv").read_text().splitlines()
    assert table[0].startswith("class,mapped_share,samples,users_accuracy,users_accuracy_lower")
    assert table[3].startswith("Water,")
    assert table[3].endswith(",2,0,18")
    assert json.loads((tmp_path / "out" / "assessment.json").read_text())["schema_version"] == 1


def test_an_interrupted_assessment_leaves_no_old_result_beside_a_new_table(
    small_map: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = write_csv(tmp_path / "points.csv", POINTS)
    assess_map(str(small_map), points, out=tmp_path / "out")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(AreaAssessment, "to_json", stop)
    with pytest.raises(KeyboardInterrupt):
        assess_map(str(small_map), points, out=tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["assessment.csv"]


def test_points_in_another_crs_and_format_give_the_same(small_map: Path, tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas")
    by_csv = assess_map(str(small_map), write_csv(tmp_path / "points.csv", POINTS))
    places = [at(column, row) for column, row, _ in POINTS]
    frame = geopandas.GeoDataFrame(
        {"truth": [name for _, _, name in POINTS]}, geometry=geopandas.points_from_xy(*zip(*places, strict=True)), crs=CRS
    ).to_crs("EPSG:4326")
    frame.to_file(tmp_path / "points.gpkg")
    by_package = assess_map(str(small_map), tmp_path / "points.gpkg", column="truth")
    degrees = [f"{point.x!r};{point.y!r};{name}" for point, name in zip(frame.geometry, frame["truth"], strict=True)]
    (tmp_path / "degrees.csv").write_text("\n".join(["\ufefflongitude;latitude;reference", *degrees]))
    by_degrees = assess_map(str(small_map), tmp_path / "degrees.csv")
    assert by_csv.classes == by_package.classes == by_degrees.classes


def test_points_that_do_not_count_are_told(small_map: Path, tmp_path: Path) -> None:
    rows = [*POINTS, (59, 3, "land"), (-4, 3, "land"), (3, 70, "water"), (5, 5, ""), (6, 5, " ")]
    with pytest.warns(TilthWarning, match="2 without reference, 2 outside of the map, 1 where the map has no data; these"):
        found = assess_map(str(small_map), write_csv(tmp_path / "points.csv", rows))
    assert (found.samples, sum(found.left_out.values())) == (30, 5)
    with pytest.raises(DataError, match="none of the 1 points counts: 1 outside of the map"):
        assess_map(str(small_map), write_csv(tmp_path / "outside.csv", [(100, 3, "land")]))


def test_a_class_without_points_is_refused_and_one_point_is_warned_of(small_map: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no point counts where the map shows 'Water' \(51 % of the map\).*draw some"):
        assess_map(str(small_map), write_csv(tmp_path / "points.csv", POINTS[:10]))
    with pytest.warns(TilthWarning, match="only one point where the map shows 'Water'"):
        found = assess_map(str(small_map), write_csv(tmp_path / "points.csv", POINTS[:11]))
    assert found.overall_interval is None
    assert found.classes[2].area_interval_m2 is None
    assert found.classes[0].users_accuracy_interval is not None


def test_points_of_another_map_and_points_in_one_pixel_are_warned_of(small_map: Path, tmp_path: Path) -> None:
    lines = [f"{at(column, row)[0]},{at(column, row)[1]},land,{name}" for column, row, name in POINTS]
    (tmp_path / "points.csv").write_text("\n".join(["x,y,map_class,reference", *lines, lines[0]]))
    with pytest.warns(TilthWarning) as told:
        assess_map(str(small_map), tmp_path / "points.csv")
    words = " ".join(str(item.message) for item in told)
    assert "20 of 31 points were drawn as another class than the map shows there (first: 'land', now 'Water')" in words
    assert "points that share a pixel with another one: 1; each counts" in words


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("x,y,reference\n500005,5699995,wather\n", DataError, r"reference 'wather' \(1 point\).*did you mean 'Water'"),
        ("x,y,reference\n500005,5699995,9\n", DataError, "reference '9' .* is no class of the map"),
        ("x,y,referense\n500005,5699995,land\n", DataError, "no column 'reference'.*did you mean 'referense'"),
        ("east,north,reference\n1,2,land\n", DataError, "needs columns x and y .*found east, north, reference"),
        ("x,y,reference\n12m,2,land\n", DataError, "row 1: x is '12m'"),
        ("x,y,reference\n", DataError, "holds no point"),
    ],
)
def test_wrong_tables_are_refused_in_one_line(small_map: Path, tmp_path: Path, text: str, error: type[TilthError], words: str) -> None:
    (tmp_path / "points.csv").write_text(text)
    with pytest.raises(error, match=words) as found:
        assess_map(str(small_map), tmp_path / "points.csv")
    assert "\n" not in str(found.value)


def test_wrong_files_are_refused_in_one_line(small_map: Path, tmp_path: Path) -> None:
    geopandas, shapely = pytest.importorskip("geopandas"), pytest.importorskip("shapely")
    with pytest.raises(MissingFileError, match="no such file"):
        assess_map(str(small_map), tmp_path / "none.gpkg")
    (tmp_path / "torn.gpkg").write_bytes(b"SQLite format 3" + bytes(50))
    with pytest.raises(UnreadableFileError, match=r"torn.gpkg: cannot be read as points"):
        assess_map(str(small_map), tmp_path / "torn.gpkg")
    geopandas.GeoDataFrame({"reference": ["land"]}, geometry=[shapely.box(0, 0, 1, 1)], crs=CRS).to_file(tmp_path / "boxes.gpkg")
    with pytest.raises(DataError, match="expected points, found Polygon"):
        assess_map(str(small_map), tmp_path / "boxes.gpkg")
    write_raster(tmp_path / "plain.tif", np.zeros((4, 4), dtype=np.uint8), crs=None, transform=None)
    geopandas.GeoDataFrame({"reference": ["0"]}, geometry=[shapely.Point(1, 1)], crs=CRS).to_file(tmp_path / "placed.gpkg")
    with pytest.raises(DataError, match="the points are in EPSG:32633, the map has no CRS"):
        assess_map(str(tmp_path / "plain.tif"), tmp_path / "placed.gpkg")


def test_a_map_without_place_is_assessed_in_shares_of_pixels(tmp_path: Path) -> None:
    values = np.repeat(np.array([[0, 1]], dtype=np.uint8), [30, 10], axis=1).repeat(4, axis=0)
    write_raster(tmp_path / "plain.tif", values, crs=None, transform=None)
    lines = [f"{column + 0.5},{row + 0.5},{int(values[row, column])}" for row in range(4) for column in range(0, 40, 3)]
    (tmp_path / "points.csv").write_text("\n".join(["x,y,reference", *lines]))
    with pytest.warns(TilthWarning, match="all 56 points agree with the map, so every interval has no width; .* up to 5.4 % would"):
        found = assess_map(str(tmp_path / "plain.tif"), tmp_path / "points.csv")
    assert (found.weights, found.overall_accuracy) == ("pixels", 1)
    assert [(item.name, item.mapped_share, item.area_m2) for item in found.classes] == [("class 0", 0.75, None), ("class 1", 0.25, None)]


def test_pixels_that_differ_in_ground_are_weighted_by_it_and_warned_of(tmp_path: Path) -> None:
    # Degrees from 60 to 30 north: a pixel in the north covers far less than one in the south.
    values = np.zeros((60, 2), dtype=np.uint8)
    values[30:] = 1
    transform = (0.5, 0.0, 10.0, 0.0, -0.5, 60.0)
    write_raster(tmp_path / "degrees.tif", values, crs="EPSG:4326", transform=transform, class_names=["north", "south"])
    points = [(10.1, 60 - 0.5 * row - 0.25, "north" if row < 30 and row != 4 else "south") for row in range(60)]
    (tmp_path / "points.csv").write_text("\n".join(["x,y,reference", *(f"{x},{y},{name}" for x, y, name in points)]))
    with pytest.warns(TilthWarning, match=r"largest pixels cover 1\.\d\d times the ground of its smallest"):
        found = assess_map(str(tmp_path / "degrees.tif"), tmp_path / "points.csv")
    areas = value_areas_m2(values, Window(0, 0, 2, 60), "EPSG:4326", transform)
    assert areas is not None
    assert found.classes[0].mapped_share == pytest.approx(areas[0] / areas[:2].sum())
    assert found.classes[0].mapped_share < 0.46
