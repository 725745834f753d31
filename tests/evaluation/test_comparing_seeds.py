"""Oracles: scipy's paired t test, NumPy's sample deviation, hand-worked cases."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tilth.errors import ConfigError, DataError, MissingFileError, UsageError
from tilth.evaluation.compare import Comparison, compare, paired_interval
from tilth.evaluation.metrics import scores
from tilth.evaluation.result import Evaluation, TileScore
from tilth.evaluation.wording import markdown_table, points

CLASSES = ("land", "water", "ice")
COLOURS = ((120, 90, 40), (0, 0, 255), (240, 240, 255))


def evaluation(share: float, **changes: Any) -> Evaluation:
    """Two equal classes found with ``OA == AA == share`` (in steps of 1 / 1000), ice absent."""
    right = round(share * 1000)
    matrix = torch.tensor([[right, 1000 - right, 0], [1000 - right, right, 0], [0, 0, 0]])
    result = scores(matrix, CLASSES, COLOURS)
    values: dict[str, Any] = {
        "model": "made up",
        "catalog_fingerprint": "f" * 64,
        "split": ("test",),
        "scheme": "shore",
        "classes": CLASSES,
        "colours": COLOURS,
        "confusion": matrix.tolist(),
        "scores": result.summary,
        "per_class": result.per_class,
        "tiles": [TileScore(tile_id=name, mean_iou=0.5, overall_accuracy=share, pixels=1000) for name in ("t1", "t2")],
        "pixels": 2000,
        "ignored_pixels": 10,
        "seconds": 1.5,
    }
    return Evaluation(**(values | changes))


def of(**groups: list[float]) -> Comparison:
    return compare({name: [evaluation(value) for value in values] for name, values in groups.items()}, metric="OA")


def test_group_statistics_equal_numpy() -> None:
    values = [0.51, 0.523, 0.498]
    group = of(one=values).groups[0]
    assert group.values == tuple(values)
    assert group.mean == pytest.approx(np.mean(values))
    assert group.deviation == pytest.approx(np.std(values, ddof=1))
    assert (group.minimum, group.maximum) == (0.498, 0.523)


def test_means_over_some_classes_come_from_the_scores_of_classes() -> None:
    one = evaluation(0.6)
    found = compare({"a": [one]}, over=CLASSES[1:2])
    assert found.metric == f"mIoU over {CLASSES[1]}"
    assert found.groups[0].values == (one.per_class[1].iou,)
    assert compare({"a": [one]}, over=CLASSES).groups[0].mean == pytest.approx(one.scores.mean_iou)
    assert compare({"a": [one]}, over=CLASSES).metric == f"mIoU over {len(CLASSES)} classes"
    with pytest.raises(UsageError, match="over: kappa is no mean over classes"):
        compare({"a": [one]}, metric="kappa", over=CLASSES)
    with pytest.raises(ConfigError, match="over: 'sear' is no class of scheme 'shore'"):
        compare({"a": [one]}, over=["sear"])


def test_interval_equals_the_paired_t_test_of_scipy() -> None:
    from scipy.stats import ttest_rel

    first, second = [0.51, 0.523, 0.498, 0.6], [0.5, 0.49, 0.501, 0.55]
    pair = of(first=first, second=second).pairs[0]
    expected = ttest_rel(first, second).confidence_interval(0.95)
    assert pair.interval == pytest.approx((expected.low, expected.high))
    assert pair.deviation == pytest.approx(np.std(np.subtract(first, second), ddof=1))


def test_interval_needs_two_seeds() -> None:
    with pytest.raises(DataError, match="two or more seeds, got 1"):
        paired_interval([0.1])


def test_a_clear_winner_is_named_with_its_evidence() -> None:
    # Differences 3, 4, 5 points: mean 4, sd 1, half width t(0.975, 2) / sqrt(3) = 4.303 / 1.732 = 2.484.
    pair = of(supervised=[0.48, 0.47, 0.49], s4p=[0.51, 0.51, 0.54]).pairs[0]
    assert pair.outcome == "better"
    assert (pair.first, pair.second, pair.wins) == ("s4p", "supervised", 3)
    assert pair.verdict == (
        "s4p beats supervised by 4.0 OA points (52.0 +- 1.7 against 48.0 +- 1.0; 3 of 3 seeds; 95 % interval of the difference 1.5 to 6.5)"
    )


def test_an_interval_that_contains_zero_has_no_winner() -> None:
    pair = of(s4p=[0.51, 0.50, 0.54], supervised=[0.50, 0.51, 0.50]).pairs[0]
    assert pair.outcome == "unclear"
    assert pair.verdict.startswith(
        "no clear winner: s4p is 1.3 OA points ahead of supervised (51.7 +- 2.1 against 50.3 +- 0.6; 2 of 3 seeds;"
    )
    assert pair.verdict.endswith("which contains zero)")
    assert "beats" not in pair.verdict


def test_equal_means_with_unequal_seeds_have_no_winner() -> None:
    pair = of(a=[0.50, 0.60], b=[0.60, 0.50]).pairs[0]
    assert pair.verdict.startswith("no clear winner: a and b have the same mean OA (")
    assert (pair.outcome, pair.wins) == ("unclear", 1)


def test_one_seed_gives_no_verdict() -> None:
    comparison = of(s4p=[0.52], supervised=[0.48])
    pair = comparison.pairs[0]
    assert (pair.outcome, pair.interval, pair.deviation, comparison.groups[0].deviation) == ("single seed", None, None, None)
    assert pair.verdict == (
        "no verdict from a single seed: s4p is 4.0 OA points ahead of supervised (52.0 against 48.0), "
        "but one seed cannot tell a better method from luck; run more seeds"
    )


def test_one_evaluation_given_three_times_counts_as_one() -> None:
    pair = of(s4p=[0.52] * 3, supervised=[0.48] * 3).pairs[0]
    assert (pair.outcome, pair.interval) == ("single seed", None)
    assert "all 3 seeds repeat one value, so they count as one" in pair.verdict


@pytest.mark.parametrize(("values", "where"), [([0.5], "the only seed (50.0)"), ([0.5, 0.6], "all 2 seeds (55.0 +- 7.1)")])
def test_equal_values_are_called_no_difference(values: list[float], where: str) -> None:
    pair = of(a=values, b=values).pairs[0]
    assert pair.verdict == f"no difference: a and b have the same OA in {where}"
    assert pair.outcome != "better"


def test_three_groups_are_compared_two_by_two_and_the_reader_is_warned() -> None:
    comparison = of(a=[0.5, 0.51], b=[0.6, 0.62], c=[0.7, 0.69])
    assert [(pair.first, pair.second) for pair in comparison.pairs] == [("b", "a"), ("c", "a"), ("c", "b")]
    assert len(comparison.verdict.splitlines()) == 3
    assert "not corrected for the number of pairs" in comparison.to_markdown()


def test_a_single_group_has_a_spread_and_no_verdict_on_others() -> None:
    comparison = of(only=[0.5, 0.6])
    assert comparison.pairs == ()
    assert comparison.verdict == "only: OA 55.0 +- 7.1 over 2 seeds"
    assert "Differences" not in comparison.to_markdown()


def test_class_means_leave_absent_classes_empty() -> None:
    group = of(a=[0.5, 0.7]).groups[0]
    expected = [evaluation(value).per_class[0].iou or 0 for value in (0.5, 0.7)]
    assert group.per_class_iou["land"] == pytest.approx(sum(expected) / 2)
    assert group.per_class_iou["ice"] is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"catalog_fingerprint": "0" * 64}, "fingerprints ffffffffffff and 000000000000 differ"),
        ({"tiles": [{"tile_id": "t1", "mIoU": 0.5, "OA": 0.5, "pixels": 9}]}, r"tile 't2' is only in one of them \(2 and 1 tiles\)"),
        ({"scheme": "coast"}, "class schemes 'shore' and 'coast' differ"),
    ],
)
def test_evaluations_on_different_data_are_not_compared(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=f"b\\[1\\] were evaluated on different data: .*{message}"):
        compare({"a": [evaluation(0.5), evaluation(0.5)], "b": [evaluation(0.5), evaluation(0.6, **changes)]})


def measured(share: float, model: str | None = None, **changes: Any) -> Evaluation:
    """An evaluation that says how it was made."""
    how = {"window": 512, "overlap": 128, "flips": "none", "precision": "32"}
    return evaluation(share, inference=how | changes, model_hash=model)


def test_what_was_measured_in_another_way_is_compared_and_told() -> None:
    first, second = [measured(0.5), measured(0.6, window=256)], [measured(0.4, flips="all"), measured(0.45, flips="all")]
    comparison = compare({"a": first, "b": second}, metric="OA")
    note = "Not measured alike: window 512 and 256 in a, 512 in b; flips none in a, all in b; part of a difference may come from that"
    assert comparison.notes == (note,)
    assert comparison.verdict.splitlines() == [comparison.pairs[0].verdict, note]
    assert comparison.to_markdown().splitlines()[-1] == f"- {note}"
    assert json.loads(comparison.to_json())["notes"] == [note]
    alike = compare({"a": [measured(0.5, "1"), measured(0.6, "2")], "b": [measured(0.4, "3"), measured(0.45, "4")]}, metric="OA")
    assert alike.notes == of(a=[0.5], b=[0.4]).notes == ()
    assert "measured" not in alike.to_markdown()


def test_seeds_that_are_one_model_and_unrecorded_settings_are_told() -> None:
    twice = [measured(0.5, "1"), measured(0.6, "1", flips="none"), measured(0.5, "2")]
    comparison = compare({"a": twice, "b": [measured(0.4, "1"), evaluation(0.4), measured(0.41, "4")]}, metric="OA")
    assert comparison.notes == (
        "How b was measured is not recorded; evaluate again to be sure",
        "2 seeds of a are one and the same model, so they are not independent",
    )


def test_a_comparison_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    tree = json.loads(of(a=[0.5, 0.6], b=[0.4, 0.45]).to_json())
    del tree["notes"]
    (tmp_path / "comparison.json").write_text(json.dumps(tree))
    assert Comparison.read(tmp_path).notes == ()


def test_groups_must_have_the_same_seeds() -> None:
    with pytest.raises(DataError, match="a has 2, b has 1"):
        of(a=[0.5, 0.6], b=[0.5])
    with pytest.raises(DataError, match="a has 0"):
        of(a=[])
    with pytest.raises(UsageError, match="1 seed label for 2 seeds"):
        compare({"a": [evaluation(0.5), evaluation(0.6)]}, seeds=[1])


def test_wrong_requests_are_refused_with_the_choices() -> None:
    with pytest.raises(UsageError, match="unknown metric 'mIou'; did you mean 'mIoU'"):
        compare({"a": [evaluation(0.5)]}, metric="mIou")
    with pytest.raises(UsageError, match="nothing to compare"):
        compare({})


def test_an_evaluation_without_the_metric_cannot_be_compared() -> None:
    empty = scores(torch.zeros(3, 3, dtype=torch.int64), CLASSES, COLOURS)
    nothing = evaluation(0.5, scores=empty.summary, per_class=empty.per_class, confusion=[[0] * 3] * 3, pixels=0)
    with pytest.raises(DataError, match=r"a\[0\] has no mIoU"):
        compare({"a": [nothing]})


def test_paths_of_files_and_folders_are_read_and_the_result_is_written(tmp_path: Path) -> None:
    for name, value in (("a0", 0.5), ("a1", 0.6)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(evaluation(value).to_json())
    groups = {"a": [tmp_path / "a0", tmp_path / "a1" / "metrics.json"], "b": [evaluation(0.4), evaluation(0.45)]}
    comparison = compare(groups, metric="kappa", seeds=[7, 8], out=tmp_path / "new" / "folder")
    assert Comparison.read(tmp_path / "new" / "folder") == comparison
    assert comparison.seeds == ("7", "8")
    tree = json.loads((tmp_path / "new" / "folder" / "comparison.json").read_text())
    assert (tree["metric"], tree["tiles"], tree["groups"][0]["values"][0]) == ("kappa", 2, pytest.approx(0.0))
    assert sorted(file.name for file in (tmp_path / "new" / "folder").iterdir()) == ["comparison.json"]


def test_reading_names_the_file_and_the_wrong_place(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"give a metrics\.json or the folder"):
        Evaluation.read(tmp_path)
    file = tmp_path / "metrics.json"
    good = json.loads(evaluation(0.5).to_json())
    assert Evaluation.read(_write(file, good)) == evaluation(0.5)
    for changes, message in (
        ({"schema_version": 2}, "schema_version"),
        ({"classes": ["land"]}, "confusion must be 1 x 1"),
        ({"surprise": 1}, "surprise"),
        ({"confusion": [[-1] * 3] * 3}, r"confusion\.0\.0"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            Evaluation.read(_write(file, good | changes))
        assert str(file) in str(caught.value)
        assert "\n" not in str(caught.value)
    file.write_bytes(b"\xff\xfe{")
    with pytest.raises(DataError, match="cannot be read"):
        Evaluation.read(file)


def _write(file: Path, tree: object) -> Path:
    file.write_text(json.dumps(tree))
    return file


def test_markdown_shows_groups_classes_differences_and_verdict() -> None:
    text = of(s4p=[0.51, 0.51, 0.54], supervised=[0.48, 0.47, 0.49]).to_markdown()
    lines = text.splitlines()
    assert "OA in points of 100, on 2 tiles of test; sd = sample standard deviation over 3 seeds." in lines
    assert "| group | mean | sd | min | max | seed 0 | seed 1 | seed 2 |" in lines
    assert "| s4p | 52.0 | 1.7 | 51.0 | 54.0 | 51.0 | 51.0 | 54.0 |" in lines
    assert "| ice | - | - |" in lines
    assert "| s4p - supervised | 4.0 | 1.0 | 3 of 3 | 1.5 to 6.5 |" in lines
    assert lines[-1].startswith("- s4p beats supervised by 4.0 OA points")


def test_small_differences_never_read_as_zero() -> None:
    assert [points(value) for value in (0.0004, 0.00004, -0.0004, 0.0000004, 0.0)] == ["0.04", "0.004", "-0.04", "4e-05", "0.0"]


def test_a_bar_in_a_name_does_not_break_the_table() -> None:
    assert markdown_table(["a"], [["x|y"]]).splitlines()[-1] == r"| x\|y |"


def test_reading_and_comparing_results_loads_neither_torch_nor_rasterio() -> None:
    code = (
        "import sys, tilth.evaluation.compare, tilth.evaluation.result; "
        "sys.exit(', '.join({'torch', 'rasterio', 'scipy', 'numpy'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
