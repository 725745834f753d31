"""Oracles: a hand-worked case, brute-force loops, scikit-learn and torchmetrics."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.errors import DataError
from tilth.evaluation.metrics import ConfusionMatrix, scores
from tilth.evaluation.result import Scores

COLOURS = tuple((index, index, index) for index in range(10))


def score(matrix: list[list[int]]) -> Scores:
    count = len(matrix)
    return scores(torch.tensor(matrix), [f"c{index}" for index in range(count)], COLOURS[:count])


def draw(seed: int, classes: int, size: tuple[int, ...], ignored: float = 0.2) -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(seed)
    prediction = torch.from_numpy(random.integers(0, classes, size))
    mask = torch.from_numpy(np.where(random.random(size) < ignored, 255, random.integers(0, classes, size)))
    return prediction, mask


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("size", [(7,), (3, 5), (2, 9, 11), (1, 1)])
def test_counts_equal_a_loop_over_pixels(dtype: torch.dtype, size: tuple[int, ...]) -> None:
    prediction, mask = draw(1, 4, size)
    counts = ConfusionMatrix(4)
    counts.update(prediction.to(dtype), mask.to(dtype))
    expected = [[0] * 4 for _ in range(4)]
    ignored = 0
    for found, reference in zip(prediction.flatten().tolist(), mask.flatten().tolist(), strict=True):
        if reference == 255:
            ignored += 1
        else:
            expected[reference][found] += 1
    assert counts.matrix.tolist() == expected
    assert counts.matrix.dtype == torch.int64
    assert (counts.ignored_pixels, counts.pixels) == (ignored, sum(map(sum, expected)))


def test_rows_are_reference_and_columns_prediction() -> None:
    counts = ConfusionMatrix(3)
    counts.update(torch.tensor([2, 2]), torch.tensor([0, 0]))
    assert counts.matrix.tolist() == [[0, 0, 2], [0, 0, 0], [0, 0, 0]]


def test_updates_add_up_and_merging_equals_counting_together() -> None:
    first, second = draw(2, 3, (8, 8)), draw(3, 3, (5, 4))
    apart, other, together = ConfusionMatrix(3), ConfusionMatrix(3), ConfusionMatrix(3)
    apart.update(*first)
    other.update(*second)
    for pair in (first, second):
        together.update(*pair)
    assert apart.merge(other) is apart
    assert torch.equal(apart.matrix, together.matrix)
    assert apart.ignored_pixels == together.ignored_pixels


def test_looking_at_the_counts_does_not_expose_them() -> None:
    counts = ConfusionMatrix(2)
    counts.matrix[0, 0] = 5
    assert counts.pixels == 0


def test_255_classes_leave_room_for_the_ignored_value() -> None:
    counts = ConfusionMatrix(255)
    counts.update(torch.tensor([254, 3], dtype=torch.uint8), torch.tensor([254, 255], dtype=torch.uint8))
    assert counts.matrix[254, 254] == 1
    assert counts.ignored_pixels == 1


def test_predictions_under_ignored_pixels_may_be_anything() -> None:
    counts = ConfusionMatrix(2)
    counts.update(torch.tensor([255, -7, 1]), torch.tensor([255, 255, 1]))
    assert counts.matrix.tolist() == [[0, 0], [0, 1]]


@pytest.mark.parametrize(
    ("prediction", "mask", "message"),
    [
        ([0, 0], [0, 7], "label value 7 is not a class: expected 0 to 2, or 255"),
        ([0, 0], [-1, 1], "label value -1"),
        ([3, 0], [0, 1], "predicted value 3 is not a class: expected 0 to 2"),
        ([255, 0], [0, 1], "predicted value 255"),
    ],
)
def test_a_value_outside_the_classes_is_named_and_nothing_is_counted(prediction: list[int], mask: list[int], message: str) -> None:
    counts = ConfusionMatrix(3)
    with pytest.raises(DataError, match=message):
        counts.update(torch.tensor(prediction), torch.tensor(mask))
    assert counts.pixels == 0


def test_on_an_accelerator_a_wrong_value_is_reported_when_the_counts_are_looked_at() -> None:
    counts = ConfusionMatrix(2)
    counts._wrong = torch.tensor([9, -(2**62)])  # what an update on an accelerator leaves behind
    for look in (lambda: counts.matrix, lambda: counts.ignored_pixels, lambda: ConfusionMatrix(2).merge(counts)):
        with pytest.raises(DataError, match="label value 9"):
            look()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_counts_on_a_gpu_equal_those_on_the_cpu() -> None:
    prediction, mask = draw(5, 6, (4, 61, 67))
    here, there = ConfusionMatrix(6), ConfusionMatrix(6)
    here.update(prediction, mask)
    there.update(prediction.cuda(), mask.cuda())
    assert torch.equal(here.matrix, there.matrix)
    there.update(prediction.cuda(), torch.full_like(mask, 8).cuda())
    with pytest.raises(DataError, match="label value 8"):
        _ = there.matrix


def test_shapes_types_and_class_counts_that_do_not_fit_are_refused() -> None:
    counts = ConfusionMatrix(2)
    with pytest.raises(DataError, match="same shape"):
        counts.update(torch.zeros(2, 3, dtype=torch.int64), torch.zeros(3, 2, dtype=torch.int64))
    with pytest.raises(DataError, match="argmax"):
        counts.update(torch.zeros(2), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(DataError, match="2 and 3 classes"):
        counts.merge(ConfusionMatrix(3))
    for number in (0, 256):
        with pytest.raises(DataError, match="1 to 255 classes"):
            ConfusionMatrix(number)
    with pytest.raises(DataError, match="square matrix"):
        scores(torch.zeros(2, 3, dtype=torch.int64), ["a", "b"], COLOURS[:2])


def test_nothing_to_count_is_no_error() -> None:
    counts = ConfusionMatrix(2)
    counts.update(torch.zeros(0, 4, dtype=torch.int64), torch.zeros(0, 4, dtype=torch.int64))
    assert counts.pixels == 0


def test_hand_worked_case() -> None:
    # Three classes, 20 pixels.     predicted:  a  b  c
    result = score([[5, 1, 2], [0, 6, 0], [1, 1, 4]])
    a, b, c = result.per_class
    assert (a.iou, b.iou, c.iou) == (5 / 9, 6 / 8, 4 / 8)
    assert (a.precision, a.recall, a.f1) == (5 / 6, 5 / 8, 10 / 14)
    assert (b.precision, b.recall) == (6 / 8, 1.0)
    assert (c.reference_pixels, c.predicted_pixels, c.absent) == (6, 6, False)
    assert result.summary.overall_accuracy == 15 / 20
    assert result.summary.mean_iou == pytest.approx((5 / 9 + 6 / 8 + 4 / 8) / 3, abs=1e-15)
    assert result.summary.mean_recall == pytest.approx((5 / 8 + 1 + 4 / 6) / 3, abs=1e-15)
    chance = (8 * 6 + 6 * 8 + 6 * 6) / 400
    assert result.summary.kappa == pytest.approx((0.75 - chance) / (1 - chance), abs=1e-15)
    assert result.summary.frequency_weighted_iou == pytest.approx((8 * 5 / 9 + 6 * 6 / 8 + 6 * 4 / 8) / 20, abs=1e-15)
    assert result.pixels == 20


def test_an_absent_class_has_no_scores_enters_no_mean_and_still_costs_the_others() -> None:
    # Class c never occurs in the reference; one pixel of b was given to it.
    result = score([[3, 0, 0], [0, 3, 1], [0, 0, 0]])
    absent = result.per_class[2]
    assert absent.absent
    assert (absent.iou, absent.f1, absent.precision, absent.recall) == (None, None, None, None)
    assert absent.predicted_pixels == 1
    assert result.per_class[1].recall == result.per_class[1].iou == 0.75
    assert result.summary.mean_iou == (1 + 0.75) / 2
    assert result.summary.mean_recall == (1 + 0.75) / 2
    assert result.summary.overall_accuracy == 6 / 7


def test_a_class_that_was_never_predicted_scores_zero() -> None:
    missed = score([[4, 0], [2, 0]]).per_class[1]
    assert (missed.iou, missed.f1, missed.precision, missed.recall, missed.absent) == (0.0, 0.0, 0.0, 0.0, False)


def test_nothing_counted_gives_no_score_and_no_nan() -> None:
    counts = ConfusionMatrix(3)
    counts.update(torch.zeros(4, 4, dtype=torch.int64), torch.full((4, 4), 255))
    result = score(counts.matrix.tolist())
    assert set(result.summary.named().values()) == {None}
    assert all(item.absent and item.iou is None for item in result.per_class)
    assert (result.pixels, counts.ignored_pixels) == (0, 16)


def test_one_class_alone_is_perfect_but_kappa_is_undefined() -> None:
    summary = score([[9]]).summary
    assert (summary.mean_iou, summary.mean_f1, summary.overall_accuracy, summary.frequency_weighted_iou) == (1.0, 1.0, 1.0, 1.0)
    assert summary.kappa is None


def test_counts_of_a_country_do_not_overflow() -> None:
    many = 10**13
    summary = score([[many, 0], [0, many]]).summary
    assert (summary.kappa, summary.mean_iou) == (1.0, 1.0)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(0, 10**6), st.floats(0, 1))
def test_scores_are_fractions_whatever_the_counts(classes: int, seed: int, empty: float) -> None:
    random = np.random.default_rng(seed)
    matrix = random.integers(0, 50, (classes, classes)) * (random.random((classes, classes)) >= empty)
    result = score(matrix.tolist())
    for value in result.summary.named().values():
        assert value is None or (math.isfinite(value) and -1 <= value <= 1)
    assert sum(item.predicted_pixels for item in result.per_class) == result.pixels == matrix.sum()


@pytest.mark.filterwarnings("ignore:y_pred contains classes")
@pytest.mark.parametrize("seed", range(5))
def test_scores_equal_scikit_learn(seed: int) -> None:
    from sklearn import metrics

    prediction, mask = draw(seed, 5, (40, 41))
    mask[mask == seed] = 255  # one class is absent from the reference, yet predicted
    counts = ConfusionMatrix(5)
    counts.update(prediction, mask)
    result = score(counts.matrix.tolist())
    found, reference = prediction[mask != 255].numpy(), mask[mask != 255].numpy()
    assert np.array_equal(counts.matrix.numpy(), metrics.confusion_matrix(reference, found, labels=range(5)))
    precision, recall, f1, support = metrics.precision_recall_fscore_support(reference, found, labels=range(5), zero_division=0)
    iou = metrics.jaccard_score(reference, found, labels=range(5), average=None, zero_division=0)
    for index, item in enumerate(result.per_class):
        assert item.reference_pixels == support[index]
        assert item.absent == (index == seed)
        if not item.absent:
            assert (item.precision, item.recall) == pytest.approx((precision[index], recall[index]))
            assert (item.f1, item.iou) == pytest.approx((f1[index], iou[index]))
    summary = result.summary
    assert summary.overall_accuracy == pytest.approx(metrics.accuracy_score(reference, found))
    assert summary.kappa == pytest.approx(metrics.cohen_kappa_score(reference, found))
    assert summary.mean_recall == pytest.approx(metrics.balanced_accuracy_score(reference, found))
    assert summary.frequency_weighted_iou == pytest.approx(metrics.jaccard_score(reference, found, average="weighted", labels=range(5)))
    present = [index for index in range(5) if index != seed]
    assert summary.mean_iou == pytest.approx(iou[present].mean())
    assert summary.mean_f1 == pytest.approx(f1[present].mean())


@pytest.mark.parametrize("seed", range(3))
def test_means_equal_torchmetrics_where_every_class_occurs(seed: int) -> None:
    from torchmetrics import functional

    prediction, mask = draw(seed, 4, (2, 33, 35))
    counts = ConfusionMatrix(4)
    counts.update(prediction, mask)
    summary = score(counts.matrix.tolist()).summary
    options = {"task": "multiclass", "num_classes": 4, "ignore_index": 255}
    assert summary.mean_iou == pytest.approx(float(functional.jaccard_index(prediction, mask, **options)), abs=1e-6)
    assert summary.mean_f1 == pytest.approx(float(functional.f1_score(prediction, mask, average="macro", **options)), abs=1e-6)
    assert summary.kappa == pytest.approx(float(functional.cohen_kappa(prediction, mask, **options)), abs=1e-6)
