"""Intervals over resampled tiles against a loop that resamples confusion matrices, and against what they promise."""

import numpy as np
import pytest
import torch

from tilth.evaluation import bootstrap
from tilth.evaluation.bootstrap import bootstrap_intervals, draw_weights
from tilth.evaluation.boundary import boundary_counts
from tilth.evaluation.counts import class_counts, score_table
from tilth.evaluation.metrics import scores

COLOURS = ((0, 0, 0),) * 9


def tiles(seed: int, number: int, classes: int = 3) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Confusion matrices and boundary counts of tiles that differ; the last class is rare."""
    random = np.random.default_rng(seed)
    matrices, boundaries = [], []
    for _ in range(number):
        mask = random.integers(0, classes - (random.random() < 0.7), (12, 12)).astype(np.uint8)
        prediction = np.where(random.random(mask.shape) < random.random(), mask, random.integers(0, classes, mask.shape)).astype(np.uint8)
        matrices.append(
            np.bincount(mask.ravel().astype(int) * classes + prediction.ravel(), minlength=classes**2).reshape(classes, classes)
        )
        boundaries.append(boundary_counts(prediction, mask, classes))
    return matrices, boundaries


def counts_of(matrices: list[np.ndarray], boundaries: list[np.ndarray]) -> np.ndarray:
    return np.stack([class_counts(matrix, boundary) for matrix, boundary in zip(matrices, boundaries, strict=True)])


def test_many_sets_of_counts_score_as_each_alone() -> None:
    matrices, boundaries = tiles(1, 30, classes=4)
    matrices[3][:] = 0
    matrices[4][1] = 0
    matrices[5][:] = np.diag([9, 0, 0, 0])
    table = score_table(counts_of(matrices, boundaries))
    for place, matrix in enumerate(matrices):
        expected = scores(torch.from_numpy(matrix), [f"c{index}" for index in range(4)], COLOURS[:4])
        named = {name: value for name, value in expected.summary.named().items() if name != "bIoU"}
        for name, value in named.items():
            assert table.summary[name][place] == pytest.approx(np.nan if value is None else value, nan_ok=True)
        ious = [np.nan if item.iou is None else item.iou for item in expected.per_class]
        assert table.iou[place].tolist() == pytest.approx(ious, nan_ok=True)
        present = matrix.sum(axis=1) > 0
        ratios = boundaries[place][0][present] / boundaries[place][1][present]
        assert table.summary["bIoU"][place] == pytest.approx(ratios.mean() if present.any() else np.nan, nan_ok=True)


@pytest.mark.parametrize("small_steps", [False, True])
def test_intervals_equal_a_loop_with_the_same_draws(small_steps: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if small_steps:
        monkeypatch.setattr(bootstrap, "_DRAWN", 100)
        monkeypatch.setattr(bootstrap, "_TILES", 4)
    matrices, boundaries = tiles(2, 14)
    images = [f"image {index // 2}" for index in range(14)]
    found = bootstrap_intervals(counts_of(matrices, boundaries), images, draws=60, seed=5)
    values: dict[str, list[float]] = {}
    for draw in range(60):
        total, outline = np.zeros((3, 3), dtype=int), np.zeros((2, 3))
        for image, times in enumerate(draw_weights(7, draw, seed=5)):
            for tile in (2 * image, 2 * image + 1):
                total += times * matrices[tile]
                outline += times * boundaries[tile]
        result = scores(torch.from_numpy(total), ("a", "b", "c"), COLOURS[:3])
        present = total.sum(axis=1) > 0
        named = result.summary.named() | {"bIoU": (outline[0][present] / outline[1][present]).mean()}
        for name, value in (*named.items(), *((item.name, item.iou) for item in result.per_class)):
            values.setdefault(name, []).extend([] if value is None else [value])
    assert found.resampling is not None
    assert found.resampling.model_dump() == {"unit": "image", "units": 7, "draws": 60}
    assert set(found.summary) == {"mIoU", "mF1", "OA", "AA", "mPrecision", "kappa", "fwIoU", "bIoU"}
    per_class = dict(zip("abc", found.per_class, strict=True))
    for name, ends in (*found.summary.items(), *per_class.items()):
        assert ends == pytest.approx(tuple(np.percentile(values[name], [2.5, 97.5])), abs=1e-12)


def test_each_draw_takes_as_many_units_as_there_are_and_the_same_again() -> None:
    for draw in range(5):
        assert draw_weights(40, draw).sum() == 40
        assert np.array_equal(draw_weights(40, draw), draw_weights(40, draw))
    assert not np.array_equal(draw_weights(40, 0), draw_weights(40, 1))
    assert not np.array_equal(draw_weights(40, 0), draw_weights(40, 0, seed=1))


def test_one_unit_gives_no_interval_and_tiles_without_pixels_are_none() -> None:
    matrices, boundaries = tiles(3, 3)
    matrices[2][:] = 0
    counts = counts_of(matrices, boundaries)
    for images in (["a", "a", "b"], ["a", "a", "a"]):
        found = bootstrap_intervals(counts, images, draws=20)
        assert (found.summary, found.per_class, found.resampling) == ({}, (None,) * 3, None)
    assert bootstrap_intervals(counts, ["a", "b", "c"], draws=0).summary == {}
    two = bootstrap_intervals(counts, ["a", "b", "c"], draws=20)
    assert two.resampling is not None
    assert (two.resampling.unit, two.resampling.units) == ("tile", 2)


def test_a_class_that_only_one_unit_holds_has_no_interval() -> None:
    matrices = [np.diag([50, 9, 0]) + 1, np.diag([50, 9, 0]) + 1, np.diag([50, 9, 30]) + 1]
    for matrix in matrices[:2]:
        matrix[2] = 0
    counts = np.stack([class_counts(matrix) for matrix in matrices])
    found = bootstrap_intervals(counts, ["a", "b", "c"], draws=50)
    assert found.per_class[2] is None
    assert found.per_class[0] is not None
    # Boundaries that were not measured have no score, so none has an interval.
    assert "bIoU" not in found.summary


def test_clusters_widen_the_intervals_of_tiles_that_repeat_each_other() -> None:
    matrices, boundaries = tiles(4, 20)
    counts = np.repeat(counts_of(matrices, boundaries), 8, axis=0)
    apart = bootstrap_intervals(counts, [str(index) for index in range(160)], draws=400).summary["OA"]
    together = bootstrap_intervals(counts, [str(index // 8) for index in range(160)], draws=400).summary["OA"]
    single = bootstrap_intervals(counts[::8], [str(index) for index in range(20)], draws=400).summary["OA"]
    # Eight copies of a tile say no more than the tile.
    assert together == single
    assert together[1] - together[0] == pytest.approx(np.sqrt(8) * (apart[1] - apart[0]), rel=0.2)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    random = np.random.default_rng(11)
    hits, experiments = 0, 100
    for experiment in range(experiments):
        # Tiles whose accuracy varies around 0.7; the overall accuracy of all tiles there could be is 0.7.
        right = random.binomial(400, random.beta(7, 3, 60))
        matrices = [np.array([[value, 400 - value], [0, 0]]) for value in right]
        counts = np.stack([class_counts(matrix) for matrix in matrices])
        low, high = bootstrap_intervals(counts, [str(index) for index in range(60)], draws=200, seed=experiment).summary["OA"]
        hits += low <= 0.7 <= high
    assert 0.88 <= hits / experiments <= 0.99
