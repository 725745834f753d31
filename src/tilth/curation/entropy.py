"""How unsure a model is of a tile: the mean entropy of its pixels (s5_pretrain.md section 2.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tilth.classes import ClassScheme
from tilth.errors import UsageError, suggest

READINGS = ("foreground", "all_classes", "foreground_renormalised")
"""Which classes the sum runs over: all but background as printed, all, or all but background after these were made to sum to 1."""

_BACKGROUND = "background"
# Of a pixel with less foreground than this, what it would be if it were foreground is rounding error.
_LEAST_FOREGROUND = 1e-12


def background_classes(scheme: ClassScheme, names: Sequence[str] | None) -> tuple[int, ...]:
    """Find the ids of the classes that are no foreground.

    Args:
        scheme: the classes of the model.
        names: of background classes; None for the class called background, in whatever case, if there is one.

    Returns:
        Ids, ascending; none where every class is foreground.

    Raises:
        UsageError: no such class, or no class is left.
    """
    if names is None:
        return tuple(place for place, name in enumerate(scheme.names) if name.lower() == _BACKGROUND and len(scheme) > 1)
    for name in names:
        if name not in scheme.names:
            raise UsageError(f"scoring.background: the model has no class {name!r}; {suggest(name, scheme.names)}")
    if set(names) == set(scheme.names):
        raise UsageError(f"scoring.background: all {len(scheme)} classes of the model are named; leave one as foreground")
    return tuple(sorted({scheme.index(name) for name in names}))


def pixel_entropies(probabilities: Tensor, background: Sequence[int]) -> Tensor:
    """Compute the entropy of every pixel in three readings, natural logarithm, 0 log 0 = 0.

    Args:
        probabilities: float (B, K, H, W), sum 1 over K.
        background: ids of background classes; without any the three readings agree.

    Returns:
        float64 (B, 3, H, W) in the order of :data:`READINGS`, each at least 0.
    """
    terms = -torch.special.xlogy(probabilities, probabilities)
    every = terms.sum(dim=1, dtype=torch.float64)
    if not background:
        same: Tensor = every[:, None].expand(-1, len(READINGS), -1, -1)
        return same
    kept = [index for index in range(probabilities.shape[1]) if index not in set(background)]
    printed = terms[:, kept].sum(dim=1, dtype=torch.float64)
    share = probabilities[:, kept].sum(dim=1, dtype=torch.float64)
    # With q = p / s: -sum q log q = (-sum p log p) / s + log s.
    seen = share > _LEAST_FOREGROUND
    divisor = torch.where(seen, share, 1.0)
    alone = torch.where(seen, printed / divisor + divisor.log(), 0.0).clamp(min=0.0)
    readings: Tensor = torch.stack([printed, every, alone], dim=1)
    return readings


def tile_entropies(probabilities: Tensor, valid: Tensor, background: Sequence[int]) -> Tensor:
    """Average the entropies of the pixels of tiles.

    Args:
        probabilities: float (B, K, H, W), sum 1 over K.
        valid: bool (B, H, W); pixels that are not valid do not count.
        background: ids of background classes.

    Returns:
        float64 (B, 3) in the order of :data:`READINGS`; NaN for a tile without a valid pixel.
    """
    counted = valid[:, None]
    sums = torch.where(counted, pixel_entropies(probabilities, background), 0.0).sum(dim=(2, 3))
    means: Tensor = sums / counted.sum(dim=(2, 3))
    return means
