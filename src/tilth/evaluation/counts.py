"""What the scores of a tile follow from: five counts a class, small enough to keep for every tile.

Tiles, images and resamples are sums of such counts, and many of them are scored at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

HITS, REFERENCE, PREDICTED, BOUNDARY_BOTH, BOUNDARY_EITHER = range(5)
"""Rows of the counts: pixels found, of the reference, predicted, in both boundary bands, in at least one."""

COUNTS = 5


def class_counts(matrix: NDArray[Any], boundary: NDArray[Any] | None = None) -> NDArray[np.uint32]:
    """Reduce a confusion matrix to what scores need of it.

    Args:
        matrix: integer (K, K), rows = reference, columns = prediction; of one tile, so that 32 bits are enough.
        boundary: integer (2, K) of :func:`tilth.evaluation.boundary.boundary_counts`; None where it was not measured.

    Returns:
        uint32 (5, K).
    """
    counts = np.zeros((COUNTS, len(matrix)), dtype=np.uint32)
    counts[HITS], counts[REFERENCE], counts[PREDICTED] = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    if boundary is not None:
        counts[BOUNDARY_BOTH:] = boundary
    return counts


@dataclass(frozen=True)
class ScoreTable:
    """Scores of D sets of counts; NaN where a score is undefined.

    Attributes:
        summary: by the name of the score (mIoU, mF1, OA, AA, mPrecision, kappa, fwIoU, bIoU), float64 (D,).
        iou: float64 (D, K).
        boundary_iou: float64 (D, K).
        pixels: float64 (D,), counted pixels.
    """

    summary: dict[str, NDArray[np.float64]]
    iou: NDArray[np.float64]
    boundary_iou: NDArray[np.float64]
    pixels: NDArray[np.float64]


def score_table(counts: NDArray[Any]) -> ScoreTable:
    """Score many sets of counts at once; the definitions are those of :func:`tilth.evaluation.metrics.scores`.

    Args:
        counts: (D, 5, K), any number type that holds integers.

    Returns:
        The scores.
    """
    hits, reference, predicted, both, either = np.moveaxis(counts.astype(np.float64), 1, 0)
    absent = reference == 0
    iou = _ratio(hits, np.where(absent, 0, reference + predicted - hits))
    f1 = _ratio(2 * hits, np.where(absent, 0, reference + predicted))
    recall = _ratio(hits, reference)
    # A class that is there and was never predicted has precision 0; hits are 0 then, so any divisor will do.
    precision = np.where(absent, np.nan, _ratio(hits, np.maximum(predicted, 1)))
    boundary = _ratio(both, np.where(absent, 0, either))
    pixels, right = reference.sum(axis=1), hits.sum(axis=1)
    by_chance = (reference * predicted).sum(axis=1)
    summary = {
        "mIoU": _mean(iou),
        "mF1": _mean(f1),
        "OA": _ratio(right, pixels),
        "AA": _mean(recall),
        "mPrecision": _mean(precision),
        "kappa": _ratio(pixels * right - by_chance, pixels * pixels - by_chance),
        "fwIoU": _ratio((np.where(absent, 0, iou) * reference).sum(axis=1), pixels),
        "bIoU": _mean(boundary),
    }
    return ScoreTable(summary, iou, boundary, pixels)


def known(value: float) -> float | None:
    """Return a score, or None for NaN."""
    return None if np.isnan(value) else float(value)


def _ratio(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide; NaN where the denominator is 0."""
    result: NDArray[np.float64] = np.divide(numerator, denominator, out=np.full(denominator.shape, np.nan), where=denominator != 0)
    return result


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over classes (D, K) of what is defined; NaN where nothing is."""
    there = ~np.isnan(values)
    return _ratio(np.where(there, values, 0.0).sum(axis=1), there.sum(axis=1).astype(np.float64))
