"""How far scores would move on other tiles of the same kind: percentile intervals over resampled tiles.

Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13. What is drawn with replacement are tiles or, where several tiles
show one place, the places: all tiles of one ``location_id`` together, and without one, all tiles that were cut from one image file.
Neighbours and seasons of one field look alike, and drawing them apart would make the intervals too narrow (Davison and Hinkley 1997,
"Bootstrap Methods and their Application", section 3.8). The intervals describe the choice of tiles, for one model; how far
another seed of the training would move the scores is a question for :mod:`tilth.evaluation.compare`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tilth import seeds
from tilth.evaluation.counts import COUNTS, REFERENCE, score_table
from tilth.evaluation.record import Interval
from tilth.evaluation.result import Resampling

DEFAULT_DRAWS = 1000

_LEVEL = 0.95

# Numbers held at once, for draws x units (2 bytes each) and draws x classes (8 bytes each, in some ten arrays).
_DRAWN = 32 * 2**20
_SCORED = 2**20
_TILES = 1024


@dataclass(frozen=True)
class Intervals:
    """95 % intervals of the scores of one evaluation.

    Attributes:
        summary: by the name of the score; only those that could be computed.
        per_class: of the IoU, one entry a class; None for a class that fewer than two units hold reference pixels of.
        resampling: what they rest on; None where there are none.
    """

    summary: dict[str, Interval] = field(default_factory=dict)
    per_class: tuple[Interval | None, ...] = ()
    resampling: Resampling | None = None


def bootstrap_intervals(
    counts: NDArray[np.uint32],
    places: Sequence[Hashable],
    draws: int = DEFAULT_DRAWS,
    seed: int = 0,
    unit: Literal["image", "location"] = "image",
) -> Intervals:
    """Compute percentile intervals over resampled tiles or places.

    A score that is undefined in a resample (a class may be missing from it) is left out of its percentiles, and a missing class out of
    the means, as everywhere.

    Args:
        counts: (T, 5, K) of :func:`tilth.evaluation.counts.class_counts`; tiles without a counted pixel take no part.
        places: what each tile shows; tiles of one place are drawn together.
        draws: number of resamples; 0 for no intervals.
        seed: of the draws; resample d draws with ``generator(seed, "bootstrap", d)``.
        unit: what a place is called where any holds several tiles.

    Returns:
        The intervals; none where fewer than two units remain, for one tells nothing about others.
    """
    classes = counts.shape[2]
    counted = counts[:, REFERENCE].sum(axis=1, dtype=np.int64) > 0
    tiles = counts[counted]
    clusters = [place for place, here in zip(places, counted, strict=True) if here]
    number = {place: index for index, place in enumerate(dict.fromkeys(clusters))}
    if draws < 1 or len(number) < 2:
        return Intervals(per_class=(None,) * classes)
    units = np.array([number[place] for place in clusters], dtype=np.int64)
    drawn = [score_table(totals) for totals in _resamples(tiles, units, len(number), draws, seed)]
    summary = {name: _percentiles(np.concatenate([table.summary[name] for table in drawn])) for name in drawn[0].summary}
    iou = np.concatenate([table.iou for table in drawn])
    holders = [len(np.unique(units[tiles[:, REFERENCE, index] > 0])) for index in range(classes)]
    return Intervals(
        summary={name: found for name, found in summary.items() if found is not None},
        per_class=tuple(_percentiles(iou[:, index]) if holders[index] > 1 else None for index in range(classes)),
        resampling=Resampling(unit="tile" if len(number) == len(tiles) else unit, units=len(number), draws=draws),
    )


def draw_weights(units: int, draw: int, seed: int = 0) -> NDArray[np.int64]:
    """Say how often each unit occurs in one resample: int64 (units,), sum = units."""
    return np.bincount(seeds.generator(seed, "bootstrap", draw).integers(0, units, units), minlength=units)


def _resamples(tiles: NDArray[np.uint32], units: NDArray[np.int64], number: int, draws: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Sum the counts of each resample, as many resamples at once as memory allows: float64 (d, 5, K)."""
    width = COUNTS * tiles.shape[2]
    step = max(1, min(draws, _DRAWN // number, _SCORED // width))
    flat = tiles.reshape(len(tiles), width)
    for first in range(0, draws, step):
        weights = np.stack([draw_weights(number, draw, seed).astype(np.uint16) for draw in range(first, min(first + step, draws))])
        totals = np.zeros((len(weights), width))
        for start in range(0, len(flat), _TILES):
            part = slice(start, start + _TILES)
            # Exact: sums of pixel counts stay far below 2 ** 53.
            totals += weights[:, units[part]].astype(np.float64) @ flat[part].astype(np.float64)
        yield totals.reshape(len(weights), COUNTS, -1)


def _percentiles(values: NDArray[np.float64]) -> Interval | None:
    there = values[~np.isnan(values)]
    if not len(there):
        return None
    low, high = np.percentile(there, [50 * (1 - _LEVEL), 50 * (1 + _LEVEL)])
    return float(low), float(high)
