"""Accuracy of a map and area of its classes, estimated from a stratified random sample of reference points.

Olofsson, Foody, Herold, Stehman, Woodcock and Wulder 2014, "Good practices for estimating area and assessing accuracy of land change",
Remote Sensing of Environment 148, section 4; equation numbers below are theirs. Counting the pixels of a class gives a biased area,
because errors of commission and omission rarely cancel; the reference points say by how much.

The strata are the mapped classes. Their weights W are shares of the ground or of the pixels; n_ij counts points that lie where the map
shows i and whose reference is j.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilth.errors import DataError
from tilth.evaluation.area_result import AreaClass
from tilth.evaluation.record import Interval

Z = 1.96
"""Standard errors that make a 95 % interval."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """What a sample says; NaN where it says nothing. Errors are standard errors.

    Attributes:
        proportions: (K, K), estimated share of the ground by mapped (rows) and true class (columns); sum 1.
        overall: overall accuracy.
        overall_error: of it.
        users: (K,), user's accuracies.
        users_error: of them.
        producers: (K,), producer's accuracies.
        producers_error: of them.
        shares: (K,), share of the ground of each true class.
        shares_error: of them.
    """

    proportions: Floats
    overall: float
    overall_error: float
    users: Floats
    users_error: Floats
    producers: Floats
    producers_error: Floats
    shares: Floats
    shares_error: Floats


def estimate(counts: NDArray[Any], weights: Floats, pixels: Sequence[int] | None = None) -> Estimate:
    """Estimate accuracies and shares with their standard errors.

    Args:
        counts: integer (K, K), points by mapped (rows) and true class (columns).
        weights: (K,), share of each stratum, sum 1; 0 for a class that the map does not show.
        pixels: of each stratum; one that was sampled whole adds no variance. None for strata much larger than their samples.

    Returns:
        The estimates. A stratum with one point has no variance, so standard errors that rest on it are NaN.

    Raises:
        DataError: a stratum with a weight has no point.
    """
    rows = counts.sum(axis=1)
    if ((weights > 0) & (rows == 0)).any():
        raise DataError(f"stratum {int(np.flatnonzero((weights > 0) & (rows == 0))[0])} has no reference point")
    within = counts / np.maximum(rows, 1)[:, None]
    proportions = weights[:, None] * within
    # Variance of each n_ij / n_i. .
    variance = np.divide(
        within * (1 - within),
        (rows - 1)[:, None],
        out=np.full(counts.shape, np.nan),
        where=np.broadcast_to((rows > 1)[:, None], counts.shape),
    )
    if pixels is not None:
        variance[rows >= np.maximum(np.asarray(pixels), 1)] = 0.0
    # What a class adds that the map does not show is nothing, known or not.
    weighted = np.where((weights > 0)[:, None], weights[:, None] ** 2 * variance, 0.0)
    shares, right = proportions.sum(axis=0), proportions.diagonal()
    users = np.where(rows > 0, within.diagonal(), np.nan)
    producers = np.divide(right, shares, out=np.full(len(shares), np.nan), where=shares > 0)
    own = weighted.diagonal()
    others = weighted.sum(axis=0) - own
    spread = (1 - producers) ** 2 * own + producers**2 * others
    return Estimate(
        proportions=proportions,
        overall=float(right.sum()),
        overall_error=float(np.sqrt(own.sum())),  # eq. 5
        users=users,
        users_error=np.where(rows > 0, np.sqrt(variance.diagonal()), np.nan),  # eq. 6
        producers=producers,
        producers_error=np.sqrt(np.divide(spread, shares**2, out=np.full(len(shares), np.nan), where=shares > 0)),  # eq. 7
        shares=shares,  # eq. 9
        shares_error=np.sqrt(weighted.sum(axis=0)),  # eq. 10
    )


def interval(value: float, error: float, lowest: float = 0.0, highest: float = 1.0) -> Interval | None:
    """Return the 95 % interval, cut off at the ends of what is possible; None where value or error is NaN."""
    if np.isnan(value) or np.isnan(error):
        return None
    return max(lowest, float(value - Z * error)), min(highest, float(value + Z * error))


def area_classes(
    names: Sequence[str], counts: NDArray[Any], weights: Floats, found: Estimate, mapped_m2: Floats | None = None
) -> tuple[AreaClass, ...]:
    """Write estimates down class by class.

    Args:
        names: K class names.
        counts: integer (K, K) as for :func:`estimate`.
        weights: (K,) as for :func:`estimate`.
        found: what :func:`estimate` returned.
        mapped_m2: (K,), ground that the map gives to each class; None where it is not known.

    Returns:
        One entry a class; areas follow from the shares (eq. 9 to 11).
    """
    total = None if mapped_m2 is None else float(mapped_m2.sum())
    result = []
    for index, name in enumerate(names):
        share, error = float(found.shares[index]), float(found.shares_error[index])
        ends = interval(share, error)
        result.append(
            AreaClass(
                name=name,
                mapped_area_m2=None if mapped_m2 is None else float(mapped_m2[index]),
                mapped_share=min(1.0, float(weights[index])),
                samples=int(counts[index].sum()),
                reference_samples=int(counts[:, index].sum()),
                users_accuracy=_known(found.users[index]),
                users_accuracy_interval=interval(found.users[index], found.users_error[index]),
                producers_accuracy=_known(found.producers[index]),
                producers_accuracy_interval=interval(found.producers[index], found.producers_error[index]),
                area_share=min(1.0, share),
                area_share_standard_error=_known(error),
                area_share_interval=ends,
                area_m2=None if total is None else share * total,
                area_interval_m2=None if total is None or ends is None else (ends[0] * total, ends[1] * total),
            )
        )
    return tuple(result)


def _known(value: float) -> float | None:
    # Sums of shares may round to a little more than 1.
    return None if np.isnan(value) else min(1.0, float(value))
