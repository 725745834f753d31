"""Intervals, calibration, models side by side and areas on the page: the numbers in tables and drawings, against the records."""

import json
import re
from xml.etree import ElementTree

import pytest

from support import report_layers as layers
from support import report_sample as sample
from tilth.errors import DataError, MissingFileError
from tilth.evaluation.area_result import AreaAssessment
from tilth.evaluation.compare import compare
from tilth.evaluation.result import Calibration, Evaluation, InferenceSettings, Resampling
from tilth.reporting import ReportInput
from tilth.reporting.collect import Curve, read_evaluations
from tilth.reporting.diagrams import AreaBar, ClassDots, draw_areas, draw_classes, draw_reliability
from tilth.reporting.figures import Chart, Series, draw_lines, spread_curve
from tilth.reporting.galleries import gallery, side_by_side
from tilth.reporting.numbers import interval
from tilth.reporting.render import render
from tilth.reporting.scores import calibration_words, heat_table, interval_words, measured_words
from tilth.reporting.sections import area_section


def plain(text):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", str(text)).replace("\u202f", " ").replace("\u2212", "-"))


def marks(svg, name):
    """Attributes of the elements of a class, in order."""
    return [node.attrib for node in ElementTree.fromstring(str(svg)).iter() if node.get("class", "").split()[:1] == [name]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("scores")
    return [sample.make_evaluation(root / name, share, seed, rich=True) for name, share, seed in (("s4p", 0.3, 7), ("supervised", 0.44, 1))]


@pytest.fixture(scope="module")
def text(folders):
    return render(ReportInput(evaluations=folders))


def test_intervals_stand_beside_scores_and_say_what_they_mean(text, folders):
    result = Evaluation.read(folders[0])
    shown = plain(text)
    for low, high in (result.intervals["mIoU"], result.per_class[2].interval):
        assert f"[{100 * low:.1f}, {100 * high:.1f}]" in shown
    low, high = result.intervals["kappa"]
    assert f"{result.scores.kappa:.2f} [{low:.2f}, {high:.2f}]" in plain(render(ReportInput(evaluations=folders[:1])))
    assert "95 % intervals, drawn 1 000 times from its 12 images" in shown
    assert "nothing about another training" in shown
    assert interval((0.4893, 0.5361)) == "[48.9, 53.6]"
    assert interval(None) == ""


def test_what_was_drawn_and_how_the_model_was_run_is_said_in_a_line(folders):
    result = Evaluation.read(folders[0])
    locations = result.model_copy(update={"resampling": Resampling(unit="location", units=7, draws=1000)})
    assert "from its 7 locations. Had other locations" in plain(interval_words(locations))
    how = InferenceSettings(window=512, overlap=128, flips="all", precision="32")
    words = "Predicted in windows of 512 pixels that overlap by 128, mirrored views averaged (all), precision 32; model abcdefabcdef."
    known = result.model_copy(update={"inference": how, "model_hash": "abcdef" * 10 + "0123"})
    assert plain(measured_words(known)) == words
    assert measured_words(result) == ""


def test_the_page_says_how_models_were_run_and_where_that_differs(tmp_path):
    folders = [sample.make_evaluation(tmp_path / name, tiles=2, seed=place) for place, name in enumerate(("one", "two"))]
    for folder, window in zip(folders, (512, 256), strict=True):
        tree = json.loads((folder / "metrics.json").read_text())
        tree |= {"inference": {"window": window, "overlap": 64, "flips": "none", "precision": "32"}, "model_hash": f"{window:064}"}
        (folder / "metrics.json").write_text(json.dumps(tree))
    comparison = compare({"one": folders[:1], "two": folders[1:]})
    shown = plain(render(ReportInput(evaluations=folders, comparisons=[comparison])))
    assert "Predicted in windows of 256 pixels that overlap by 64, no mirrored views, precision 32; model 000000000000." in shown
    # In the answer and beside the table.
    assert shown.count("Not measured alike: window 512 in one, 256 in two; part of a difference may come from that.") == 2


def test_means_over_some_classes_stand_beside_those_over_all(tmp_path):
    folders = [sample.make_evaluation(tmp_path / name, 0.3, 7, rich=True) for name in ("some", "plain")]
    tree = json.loads((folders[0] / "metrics.json").read_text())
    names = tree["classes"][:2]
    tree["group"] = {"name": "built", "classes": names, "absent": [], "means": {"mIoU": 0.1234, "mF1": 0.5}}
    (folders[0] / "metrics.json").write_text(json.dumps(tree))
    page = render(ReportInput(evaluations=folders))
    table = page.partition("Scores of all evaluations")[2].partition("</table>")[0]
    some, other = (plain(row) for row in table.split("<tr>")[2:])
    assert "12.3 %" in some
    assert "12.3" not in other
    assert f'title="mean intersection over union of {names[0]}, {names[1]}">mIoU over built<' in page
    assert "mIoU over built 12.3 %" in plain(render(ReportInput(evaluations=folders[:1])))
    assert "mIoU over" not in render(ReportInput(evaluations=folders[1:]))


def test_older_evaluations_have_neither_intervals_nor_boundaries(tmp_path):
    folder = sample.make_evaluation(tmp_path / "old", tiles=2)
    shown = plain(render(ReportInput(evaluations=[folder])))
    assert "In brackets" not in shown
    assert "oundary IoU" not in shown
    assert "bIoU" not in shown
    assert "right as often as it says" not in shown
    assert interval_words(Evaluation.read(folder)) == ""


def test_boundary_scores_have_a_column(text, folders):
    row = next(item for item in Evaluation.read(folders[0]).per_class if item.name == "road")
    assert "Boundary IoU" in plain(text)
    assert f"{100 * row.boundary_iou:.1f} %" in plain(text)


def test_images_are_listed_worst_first(text):
    section = plain(text).split("Images with the lowest scores")[1].split("supervised")[0]
    found = [float(value) for value in re.findall(r"image_\d\d\.jpg ([\d.]+) %", section)]
    assert len(found) == 10
    assert found == sorted(found)
    assert found[0] == 31.0
    assert "The 10 of 12 images" in section


def test_bars_of_reliability_are_as_high_as_the_model_is_right():
    found = Calibration.model_validate({"bins": sample.BINS, "expected_error": 0.07, "maximum_error": 0.13})
    svg = draw_reliability(found)
    known = [item for item in found.bins if item.pixels]
    bars, gaps, counts = (marks(svg, name) for name in ("right", "gap", "count"))
    assert len(bars) == len(gaps) == len(counts) == len(known) == 8
    for bar, gap, count, item in zip(bars, gaps, counts, known, strict=True):
        assert float(bar["height"]) == pytest.approx(300 * item.accuracy, abs=0.06)
        assert float(gap["height"]) == pytest.approx(300 * abs(item.accuracy - item.confidence), abs=0.06)
        assert gap["class"] == ("gap over" if item.confidence > item.accuracy else "gap under")
        assert float(count["height"]) == pytest.approx(54 * item.pixels / 41000, abs=0.8)
        assert float(bar["x"]) == pytest.approx(52 + 300 * item.lower + 1, abs=0.06)
    titles = [node.text for node in ElementTree.fromstring(str(svg)).iter("title")]
    assert titles[-1].replace("\u202f", " ") == "said 96.7 %, right 90.0 %, 41 000 pixels (48.0 %)"


def test_calibration_is_said_in_words():
    def judged(confidence, accuracy):
        bins = [{"lower": 0.5, "upper": 1, "pixels": 10, "confidence": confidence, "accuracy": accuracy}]
        return Calibration.model_validate({"bins": bins, "expected_error": abs(confidence - accuracy), "maximum_error": 0.2})

    words = plain(" ".join(calibration_words(judged(0.9, 0.75))))
    assert "90.0 % sure and right on 75.0 % of the pixels: it is overconfident by 15.0 points" in words
    assert "(ECE): 15.0 points" in words
    assert "(MCE): 20.0 points" in words
    assert "underconfident by 5.0 points" in plain(calibration_words(judged(0.7, 0.75))[0])
    assert "promises what it keeps" in plain(calibration_words(judged(0.7, 0.705))[0])
    empty = Calibration.model_validate({"bins": [], "expected_error": None, "maximum_error": None})
    assert calibration_words(empty) == []
    assert draw_reliability(empty) == ""


def test_models_against_classes_mark_the_best_and_the_difference():
    table = heat_table(("a", "b", "c"), [("x", (0.5, 0.2, None)), ("y", (0.4, 0.6, None))])
    assert [[best for _, best in row] for _, row in table.rows] == [[True, False, False], [False, True, False]]
    assert table.difference[:2] == (pytest.approx(0.1), pytest.approx(-0.4))
    assert table.difference[2] is None
    assert heat_table(("a",), [("x", (0.5,)), ("y", (0.4,)), ("z", (0.5,))]).difference == ()


def test_classes_of_several_models_lie_where_their_scores_are():
    svg = draw_classes([ClassDots("<b>", (0.2, 0.6)), ClassDots("gone", (None, None))], ["x", "y"], ["red", "blue"])
    dots = [node.attrib for node in ElementTree.fromstring(str(svg)).iter("circle")]
    low, high = 0.17, 0.63
    assert [float(dot["cx"]) for dot in dots] == pytest.approx([150 + (value - low) / (high - low) * 312 for value in (0.2, 0.6)], abs=0.06)
    assert "absent" in plain(svg)
    assert "<b>" not in svg


def test_the_same_tiles_are_shown_by_several_models_worst_first(folders, tmp_path, text):
    other = sample.make_evaluation(tmp_path / "other", tiles=3, classes=("a", "b", "c", "d", "e", "f"))
    named = read_evaluations([*folders, other])
    tiles = side_by_side(named, 2)
    assert len(tiles) == 2
    assert [name for name, _ in tiles[0].scores] == ["s4p", "supervised"]
    assert [layer.name for layer in tiles[0].viewer.layers] == [
        "Image",
        "Reference",
        "s4p",
        "supervised",
        "Errors, s4p",
        "Errors, supervised",
    ]
    means = [sum(value for _, value in tile.scores) / 2 for tile in side_by_side(named, 6)]
    assert len(means) == 4
    assert means == sorted(means)
    assert side_by_side(named[:1], 4) == []
    assert "The same tiles by several models" in plain(text)


def test_galleries_hold_confidence_where_there_is_one(folders, tmp_path):
    rich = gallery(read_evaluations([folders[0]])[0], 3)
    assert [layer.name for layer in rich[0].viewer.layers] == ["Image", "Reference", "Prediction", "Confidence", "Errors"]
    old = read_evaluations([sample.make_evaluation(tmp_path / "old", tiles=2)])[0]
    assert [layer.name for layer in gallery(old, 3)[0].viewer.layers] == ["Image", "Reference", "Prediction", "Errors"]


def test_a_missing_picture_of_confidence_stops_the_report(tmp_path):
    folder = sample.make_evaluation(tmp_path / "scores", tiles=1, rich=True)
    (folder / "gallery" / "tile_000_confidence.png").unlink()
    with pytest.raises(MissingFileError, match=r"tile_000_confidence\.png: no such picture"):
        render(ReportInput(evaluations=[folder]))


def test_bars_and_whiskers_of_areas_are_to_scale():
    rows = [AreaBar("<i>", 42.0, 51.0, (44.0, 58.0), (9, 8, 7)), AreaBar("b", None, 100.0, None, None)]
    svg = draw_areas(rows, "ha")
    bars, whiskers, mapped = (marks(svg, name) for name in ("estimate", "whisker", "mapped"))
    unit = (480 - 14 - 22) / (100 * 1.03)
    assert [float(bar["width"]) for bar in bars] == pytest.approx([51 * unit, 100 * unit], abs=0.06)
    low, high = re.match(r"M([\d.]+) \d+H([\d.]+)", whiskers[0]["d"]).groups()
    assert (float(low), float(high)) == pytest.approx((14 + 44 * unit, 14 + 58 * unit), abs=0.06)
    assert len(whiskers) == len(mapped) == 1
    assert float(re.match(r"M([\d.]+)", mapped[0]["d"])[1]) == pytest.approx(14 + 42 * unit, abs=0.06)
    assert "<i>" not in svg
    assert draw_areas([AreaBar("none", None, None, None, None)], "ha") == ""


def test_an_assessment_is_told_with_intervals_and_where_the_map_misleads(tmp_path):
    folder = layers.make_assessment(tmp_path / "areas")
    text = render(ReportInput(assessments=[folder]))
    shown = plain(text)
    assert "The map map.tif is right on 88.5 % of its ground (95 % interval 85.3 % to 91.7 %), judged by 400 reference points." in shown
    assert "lies outside of the interval for building :" in shown or "lies outside of the interval for building:" in shown
    assert re.search(r"building 42\.0 ha 51\.0 ha 44\.0 ha to 58\.0 ha 91\.0 % \[86\.0, 96\.0\] 75\.0 % \[68\.0, 82\.0\] 100", shown)
    assert "3 outside of the map left out" in shown
    assert len(marks(re.search(r'<svg class="areas".*?</svg>', text)[0], "whisker")) == 4


def test_a_map_without_a_place_is_assessed_in_shares(tmp_path):
    tree = AreaAssessment.read(layers.make_assessment(tmp_path / "areas")).model_dump()
    for row in tree["classes"]:
        row |= {"mapped_area_m2": None, "area_m2": None, "area_interval_m2": None}
    (item,) = area_section([AreaAssessment.model_validate(tree)])["assessments"]
    assert plain(item["rows"][0]["estimate"]) == "17.0 %"
    assert plain(item["rows"][0]["between"]) == "14.7 % to 19.3 %"
    assert "\u202f%</text>" in item["svg"]


def test_assessments_that_are_none_stop_the_report(tmp_path):
    with pytest.raises(MissingFileError, match=r"assessment\.json"):
        render(ReportInput(assessments=[tmp_path]))
    (tmp_path / "assessment.json").write_text('{"schema_version": 2}')
    with pytest.raises(DataError, match=r"not a assessment\.json|schema_version"):
        render(ReportInput(assessments=[tmp_path]))


def test_the_band_of_several_seeds_reaches_from_the_lowest_to_the_highest():
    curves = [Curve((1, 2, 3), (0.1, 0.4, 0.5)), Curve((1, 2, 3, 4), (0.3, 0.2, 0.5, 0.9))]
    mean, band, size = spread_curve(curves)
    assert (mean.steps, size) == ((1, 2, 3), 1)
    assert mean.values == pytest.approx((0.2, 0.3, 0.5))
    assert (band.low, band.high) == ((0.1, 0.2, 0.5), (0.3, 0.4, 0.5))
    assert band.seeds == tuple(curves)
    chart = Chart("k", "Title", "", "percent", (Series("a", mean, "red", 0, band),))
    svg = ElementTree.fromstring(str(draw_lines(chart)))
    points = [tuple(map(float, pair.split(","))) for pair in next(node for node in svg.iter("polygon")).get("points").split()]
    assert len(points) == 6
    upper, lower = points[:3], points[:2:-1]
    assert all(high[0] == low[0] and high[1] <= low[1] for high, low in zip(upper, lower, strict=True))
    assert plain(chart.rows[1][1][0]) == "30.0 % (20.0 % to 40.0 %)"
    assert spread_curve([Curve((1,), (1.0,)), Curve((2,), (1.0,))]) is None
