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
    labelled = labelled_pixels(label, classes)
    if ratio == 0:
        return Selection(torch.where(labelled, confidence, 0.0), torch.zeros_like(confidence, dtype=torch.bool))
    ranks = _Ranks(confidence, label, labelled, classes if balanced else 1, balanced, pooled)
    bins = _BINS if ranking == "exact" else _COARSE
    counted = ranks.count(_SHIFTS[0]) if ranking == "exact" else ranks.count_coarse()
    total = counted.sum(1)
    wanted = (total.float() * ratio).floor().long()
    absent = wanted == 0 if rare == "drop" else total == 0
    place, wanted = _find(counted, wanted.clamp(min=1))
    if ranking == "exact":
        prefix = place
        for shift in _SHIFTS[1:]:
            place, wanted = _find(ranks.count(shift, prefix), wanted)
            prefix = prefix * bins + place
        threshold = prefix.int().view(torch.float32)
    else:
        threshold = place.float() / bins
    return ranks.weigh(torch.where(absent, torch.inf, threshold))


class _Ranks:
    """Pixels with the row of the histogram that each belongs to: one for each modality and class, and row 0 for those that do not count."""

    def __init__(
        self, confidence: Tensor, label: Tensor, labelled: Tensor, groups: int, balanced: bool, pooled: Callable[[Tensor], Tensor]
    ) -> None:
        modalities, batch = confidence.shape[:2]
        self.shape, self.pooled, self.rows = confidence.shape, pooled, modalities * groups
        self.values = confidence.reshape(modalities * batch, -1)
        self.bits = self.values.clamp(0, 1).view(torch.int32)
        row = torch.where(labelled, label + 1 if balanced else 1, 0).to(torch.int32).flatten(1)
        first = (torch.arange(modalities, dtype=torch.int32, device=label.device) * groups).view(-1, 1, 1)
        self.row = torch.where(row > 0, row + first, 0).view_as(self.values)
        # Image by image, what is computed on the way stays in the processor's cache.
        self.parts = [slice(place, place + 1) for place in range(len(self.values))] if label.device.type == "cpu" else [slice(None)]

    def count(self, shift: int, prefix: Tensor | None = None) -> Tensor:
        """Histogram of ten bits, of the pixels whose higher bits are those of ``prefix`` (R,): int64 (R, 1024)."""
        counts = self._zeros(_BINS)
        higher = None if prefix is None else torch.cat([prefix.new_zeros(1), prefix]).to(torch.int32)
        for part in self.parts:
            row, bits = self.row[part].flatten(), self.bits[part].flatten()
            digit = bits >> shift
            if higher is not None:
                # Compared in place, so that no number changes its type.
                row = higher.index_select(0, row).eq_(digit >> _DIGIT).mul_(row)
                digit &= _BINS - 1
            self._add(counts, row, digit, _BINS)
        return self.pooled(counts.view(-1, _BINS)[1:])

    def count_coarse(self) -> Tensor:
        """Histogram of all values between 0 and 1: int64 (R, 2048)."""
        counts = self._zeros(_COARSE)
        for part in self.parts:
            digit = (self.values[part].flatten() * _COARSE).to(torch.int32).clamp_(0, _COARSE - 1)
            self._add(counts, self.row[part].flatten(), digit, _COARSE)
        return self.pooled(counts.view(-1, _COARSE)[1:])

    def weigh(self, threshold: Tensor) -> Selection:
        """Weights by the thresholds (R,) of all rows."""
        limits = torch.cat([threshold.new_full((1,), torch.inf), threshold])
        weight, selected = torch.empty_like(self.values), torch.empty_like(self.values, dtype=torch.bool)
        for part in self.parts:
            values, limit = self.values[part], limits.index_select(0, self.row[part].flatten()).view_as(self.values[part])
            selected[part] = values >= limit
            # Where t is 0 all pixels of the class reach it, so nothing is divided by 0 that is looked at.
            weight[part] = torch.where(selected[part], 1.0, values / limit)
        return Selection(weight.view(self.shape), selected.view(self.shape))

    def _zeros(self, bins: int) -> Tensor:
        return torch.zeros((self.rows + 1) * bins, dtype=torch.int64, device=self.values.device)

    def _add(self, counts: Tensor, row: Tensor, digit: Tensor, bins: int) -> None:
        counts.scatter_add_(0, (row * bins).add_(digit).long(), torch.ones((), dtype=torch.int64, device=row.device).expand_as(row))


def _find(counted: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Bin that holds the k-th largest of each row, and which of that bin it is; bin 0 for rows without pixels."""
    reached = counted.flip(1).cumsum(1).flip(1)
    place = ((reached >= wanted.unsqueeze(1)).sum(1) - 1).clamp(min=0)
    chosen = place.unsqueeze(1)
    above = (reached.gather(1, chosen) - counted.gather(1, chosen)).squeeze(1)
    return place, wanted - above
