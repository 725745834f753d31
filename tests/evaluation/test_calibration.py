"""Calibration errors against torchmetrics and against known answers."""

import numpy as np
import pytest
import torch

from tilth.errors import UsageError
from tilth.evaluation.calibration import CalibrationHistogram

torchmetrics = pytest.importorskip("torchmetrics.functional.classification")


def random_pixels(seed: int, pixels: int, classes: int, sharpness: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(seed)
    logits = random.normal(size=(pixels, classes)) * sharpness
    labels = np.where(random.random(pixels) < 0.6, logits.argmax(1), random.integers(0, classes, pixels))
    return torch.from_numpy(logits).softmax(1).float(), torch.from_numpy(labels)


@pytest.mark.parametrize(("bins", "classes"), [(15, 6), (10, 2), (7, 16), (1, 3)])
def test_errors_equal_torchmetrics_when_pixels_come_in_parts(bins: int, classes: int) -> None:
    probabilities, labels = random_pixels(bins, 5000, classes)
    # torchmetrics gives exactly 1 a bin of its own.
    probabilities = probabilities.clamp(max=1 - 1e-6)
    histogram = CalibrationHistogram(bins)
    for part in torch.arange(5000).split(997):
        highest, found = probabilities[part].max(1)
        histogram.update(highest.numpy(), (found == labels[part]).numpy())
    result = histogram.result()
    for norm, value in (("l1", result.expected_error), ("max", result.maximum_error)):
        expected = torchmetrics.multiclass_calibration_error(probabilities, labels, classes, n_bins=bins, norm=norm)
        assert value == pytest.approx(float(expected), abs=1e-6)
    assert sum(item.pixels for item in result.bins) == 5000
    assert (result.bins[0].lower, result.bins[-1].upper, len(result.bins)) == (0, 1, bins)


def test_a_bin_holds_its_upper_end_and_not_its_lower() -> None:
    for kind in (np.float32, np.float64):
        for bins in (3, 10, 15, 100):
            edges = (np.arange(bins + 1) / bins).astype(kind)
            histogram = CalibrationHistogram(bins)
            histogram.update(edges, np.zeros(bins + 1, dtype=bool))
            assert [item.pixels for item in histogram.result().bins] == [2, *[1] * (bins - 1)]


def test_a_sure_and_right_model_has_no_error_and_a_sure_and_wrong_one_all() -> None:
    for right, error in ((True, 0), (False, 1)):
        histogram = CalibrationHistogram()
        # Blending windows may round a probability to a little more than 1.
        histogram.update(np.full((9, 9), 1.0000001, dtype=np.float32), np.full((9, 9), right))
        result = histogram.result()
        assert (result.expected_error, result.maximum_error) == (error, error)
        assert (result.bins[-1].confidence, result.bins[-1].accuracy, result.bins[0].confidence) == (1, right, None)


def test_nothing_counted_has_no_error() -> None:
    result = CalibrationHistogram().result()
    assert (result.expected_error, result.maximum_error) == (None, None)
    assert {item.pixels for item in result.bins} == {0}


def test_a_histogram_needs_a_bin() -> None:
    with pytest.raises(UsageError, match="1 to 1000 bins, got 0"):
        CalibrationHistogram(0)
