"""Is a model right as often as it says? A histogram of the highest class probability, and the errors that follow from it.

Guo, Pleiss, Sun and Weinberger 2017, "On Calibration of Modern Neural Networks", ICML, eq. 3 and 5. Nothing but the histogram is kept, so
the memory does not grow with the number of pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilth.errors import UsageError
from tilth.evaluation.result import Calibration, CalibrationBin

DEFAULT_BINS = 15
"""Number of bins of Guo et al. 2017."""

MAX_BINS = 1000


class CalibrationHistogram:
    """Pixels by their highest class probability, in M bins of equal width: bin m holds ((m - 1) / M, m / M], the first also 0.

    Args:
        bins: number of bins M, 1 to 1000.

    Raises:
        UsageError: another number of bins.

    Example:
        >>> histogram = CalibrationHistogram(2)
        >>> histogram.update(np.array([0.6, 0.8, 1.0]), np.array([True, False, True]))
        >>> round(histogram.result().expected_error, 6)
        0.133333
    """

    def __init__(self, bins: int = DEFAULT_BINS) -> None:
        if not 1 <= bins <= MAX_BINS:
            raise UsageError(f"calibration: expected 1 to {MAX_BINS} bins, got {bins}")
        self.bins = bins
        self._pixels = np.zeros(bins, dtype=np.int64)
        self._right = np.zeros(bins, dtype=np.int64)
        self._confidence = np.zeros(bins)

    def update(self, confidence: NDArray[Any], right: NDArray[np.bool_]) -> None:
        """Count pixels.

        Args:
            confidence: floats of any shape, the highest class probability of each counted pixel; rounding above 1 is cut off.
            right: bool of the same shape, whether the most probable class is the reference.
        """
        values = np.clip(confidence.ravel(), 0.0, 1.0)
        edges = (np.arange(1, self.bins) / self.bins).astype(values.dtype)
        # Multiplying is fast and may miss an edge by rounding; the comparisons put that right.
        place = np.minimum((values * self.bins).astype(np.int64), self.bins - 1)
        lower, upper = np.append(-1.0, edges).astype(values.dtype), np.append(edges, 2.0).astype(values.dtype)
        place += (values > upper[place]).astype(np.int64) - (values <= lower[place])
        self._pixels += np.bincount(place, minlength=self.bins)
        self._right += np.bincount(place[right.ravel()], minlength=self.bins)
        self._confidence += np.bincount(place, weights=values, minlength=self.bins)

    def result(self) -> Calibration:
        """Return the bins, the expected calibration error (Guo et al. 2017, eq. 3) and the maximum calibration error (eq. 5)."""
        pixels = self._pixels
        there = np.maximum(pixels, 1)
        # Sums of many numbers may round a mean of ones to a little more.
        confidence, accuracy = np.minimum(self._confidence / there, 1.0), self._right / there
        gap = np.abs(accuracy - confidence)
        total = int(pixels.sum())
        return Calibration(
            bins=tuple(
                CalibrationBin(
                    lower=index / self.bins,
                    upper=(index + 1) / self.bins,
                    pixels=int(pixels[index]),
                    confidence=float(confidence[index]) if pixels[index] else None,
                    accuracy=float(accuracy[index]) if pixels[index] else None,
                )
                for index in range(self.bins)
            ),
            expected_error=float((gap * pixels).sum() / total) if total else None,
            maximum_error=float(gap[pixels > 0].max()) if total else None,
        )
