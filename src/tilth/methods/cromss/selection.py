"""Which labels count in full: the surest of each class, exactly, without sorting or waiting for the device (cromss.md section 4.4).

The k-th largest of many numbers is found digit by digit: float32 numbers from 0 to 1 are ordered like their bits, of which the upper two
are 0. Three histograms over 10 bits each, of all classes and modalities at once, tell the number exactly. Histograms of several
processes are added, so that all of them rank their pixels together at the price of a few thousand numbers.

Shapes: D modalities, B images, K classes, H x W pixels; R = D K rows of a histogram.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tilth.methods.cromss.confidence import labelled_pixels

RareKind = Literal["keep", "drop"]
RankingKind = Literal["exact", "histogram"]

_DIGIT = 10
"""Bits that one histogram looks at."""

_BINS = 1 << _DIGIT
_SHIFTS = (2 * _DIGIT, _DIGIT, 0)

_COARSE = 2048
"""Bins of the approximation: thresholds are at most 1/2048 too low."""


@dataclass(frozen=True)
class Selection:
    """What became of the labels.

    Attributes:
        weight: float32 (D, B, H, W) in [0, 1]: 1 for selected pixels, F / t below the threshold t, 0 where ignored.
        selected: bool (D, B, H, W).
    """

    weight: Tensor
    selected: Tensor


@torch.no_grad()
def select(
    confidence: Tensor,
    label: Tensor,
    classes: int,
    ratio: float,
    *,
    balanced: bool = True,
    rare: RareKind = "keep",
    ranking: RankingKind = "exact",
    pooled: Callable[[Tensor], Tensor] = lambda counts: counts,
) -> Selection:
    """Weigh the labels by their enhanced confidence.

    Of the n pixels of a class, k = floor(n r) are wanted (computed in float32); t is the k-th largest F among them, and W = min(F / t, 1),
    or 1 if t is 0. Nothing is dropped but ignored pixels and, on request, rare classes.

    Args:
        confidence: float32 (D, B, H, W), F in [0, 1], finite.
        label: int64 (B, H, W), class ids; all that is none is ignored: weight 0, and not ranked.
        classes: K.
        ratio: r in [0, 1]; at 0 the weight is F itself.
        balanced: rank each class by itself; otherwise all labelled pixels together.
        rare: ``keep``: at least one pixel of a class that is there, k = max(1, k); ``drop``: weight 0 for classes with k = 0, as in the
            official program.
        ranking: ``exact``, or ``histogram``: one histogram instead of three, t at most 1/2048 too low.
        pooled: adds an int64 tensor of counts over all processes that rank together; as it is, each ranks alone.

    Returns:
        Weights and selected pixels.
    """
    modalities = len(confidence)
    labelled = labelled_pixels(label, classes)
    if ratio == 0:
        return Selection(torch.where(labelled, confidence, 0.0), torch.zeros_like(confidence, dtype=torch.bool))
    groups = classes if balanced else 1
    # Row 0 of the histograms takes the pixels that do not count.
    row = torch.where(labelled, label + 1 if balanced else 1, 0).flatten()
    offset = torch.arange(modalities, device=label.device).view(-1, 1) * groups
    row = torch.where(row > 0, row + offset, 0).flatten()

    values = confidence.reshape(-1)
    bits = values.clamp(0, 1).view(torch.int32)
    counted = _count(row, _digits(values, bits, ranking), modalities * groups, pooled, _BINS if ranking == "exact" else _COARSE)
    total = counted.sum(1)
    wanted = (total.float() * ratio).floor().long()
    absent = wanted == 0 if rare == "drop" else total == 0
    place, wanted = _find(counted, wanted.clamp(min=1))
    if ranking == "histogram":
        threshold = place.float() / _COARSE
    else:
        prefix = place
        for shift in _SHIFTS[1:]:
            here = (bits >> (shift + _DIGIT)) == torch.cat([prefix.new_zeros(1), prefix]).index_select(0, row)
            counted = _count(torch.where(here, row, 0), (bits >> shift) & (_BINS - 1), modalities * groups, pooled, _BINS)
            place, wanted = _find(counted, wanted)
            prefix = (prefix << _DIGIT) | place
        threshold = prefix.int().view(torch.float32)

    threshold = torch.where(absent, torch.inf, threshold)
    limit = torch.cat([threshold.new_full((1,), torch.inf), threshold]).index_select(0, row).view_as(confidence)
    selected = confidence >= limit
    # Where t is 0 all pixels of the class reach it, so nothing is divided by 0 that is looked at.
    return Selection(torch.where(selected, 1.0, confidence / limit), selected)


def _digits(values: Tensor, bits: Tensor, ranking: RankingKind) -> Tensor:
    if ranking == "exact":
        return bits >> _SHIFTS[0]
    return (values * _COARSE).to(torch.int32).clamp(0, _COARSE - 1)


def _count(row: Tensor, digit: Tensor, rows: int, pooled: Callable[[Tensor], Tensor], bins: int) -> Tensor:
    """Histogram of each row: int64 (R, bins); row 0 is not looked at."""
    counts = torch.zeros((rows + 1) * bins, dtype=torch.int64, device=row.device)
    counts.scatter_add_(0, row * bins + digit, torch.ones((), dtype=torch.int64, device=row.device).expand_as(row))
    return pooled(counts.view(rows + 1, bins)[1:])


def _find(counted: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Bin that holds the k-th largest of each row, and which of that bin it is; bin 0 for rows without pixels."""
    reached = counted.flip(1).cumsum(1).flip(1)
    place = ((reached >= wanted.unsqueeze(1)).sum(1) - 1).clamp(min=0)
    chosen = place.unsqueeze(1)
    above = (reached.gather(1, chosen) - counted.gather(1, chosen)).squeeze(1)
    return place, wanted - above
