"""Scores by the conventions of published tables, to be compared with them (cromss.md section 7.5).

The CromSS program counts 0/0 as 1 and divides means by all classes. So a class that is absent and never predicted is perfect, and its
"AA" is most likely the mean precision, in which classes that are never predicted score 1. Our own scores are those of
:mod:`tilth.evaluation.metrics`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


@dataclass(frozen=True)
class PublishedScores:
    """Scores of K classes; 0/0 is 1.

    Attributes:
        iou: float64 (K,).
        f1: float64 (K,).
        precision: float64 (K,).
        recall: float64 (K,).
        overall_accuracy: right pixels among all counted; NaN where there are none.
    """

    iou: Values
    f1: Values
    precision: Values
    recall: Values
    overall_accuracy: float

    @property
    def summary(self) -> dict[str, float]:
        """Means over all classes: mIoU, mF1, mPrecision, mRecall, OA, and AA as the tables most likely mean it."""
        precision = float(self.precision.mean())
        return {
            "OA": self.overall_accuracy,
            "AA (published)": precision,
            "mIoU": float(self.iou.mean()),
            "mF1": float(self.f1.mean()),
            "mPrecision": precision,
            "mRecall": float(self.recall.mean()),
        }

    def known(self) -> dict[str, float]:
        """The same without what is not defined, for files that know no NaN."""
        return {name: value for name, value in self.summary.items() if np.isfinite(value)}


def published_scores(matrix: NDArray[Any]) -> PublishedScores:
    """Compute the scores of a confusion matrix, counted over a whole test set.

    Args:
        matrix: integer (K, K), rows = reference, columns = prediction; ignored pixels are not in it.
    """
    counts = np.asarray(matrix, dtype=np.float64)
    hits, reference, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
    total = counts.sum()
    return PublishedScores(
        iou=_ratio(hits, reference + predicted - hits),
        f1=_ratio(2 * hits, reference + predicted),
        precision=_ratio(hits, predicted),
        recall=_ratio(hits, reference),
        overall_accuracy=float(hits.sum() / total) if total else float("nan"),
    )


def _ratio(numerator: Values, denominator: Values) -> Values:
    found: Values = np.divide(numerator, denominator, out=np.ones_like(numerator), where=denominator != 0)
    return found
