"""Loss functions that several methods share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from tilth.classes import IGNORE_INDEX

_SMALLEST = 1e-7


def supervised_cross_entropy(logits: Tensor, mask: Tensor, count: Callable[[Tensor], Tensor] = lambda count: count) -> Tensor:
    """Cross-entropy averaged over labelled pixels.

    Args:
        logits: float (B, K, H, W).
        mask: int64 (B, H, W), 255 = ignore.
        count: turns the number of labelled pixels into the divisor (the mean over processes, say).

    Returns:
        Scalar; 0 with zero gradient when every pixel is ignored.
    """
    total = F.cross_entropy(logits.float(), mask, ignore_index=IGNORE_INDEX, reduction="sum")
    return total / count((mask != IGNORE_INDEX).sum()).clamp(min=1)


def soft_dice(probabilities: Tensor, target: Tensor, weight: Tensor, present: Tensor | None = None) -> Tensor:
    """Soft Dice loss of each class over the whole batch, and its mean over all K classes: absent ones count as 0 (cromss.md section 4.7).

    Args:
        probabilities: float32 (B, K, H, W).
        target: float32 (B, K, H, W), soft or hard labels; 0 where ignored.
        weight: float32 (B, H, W); 0 where ignored.
        present: bool (K,), which classes are there; by default those whose sum in ``target`` is not 0.

    Returns:
        Scalar in [0, 1].
    """
    dimensions = (0, 2, 3)
    weight = weight.unsqueeze(1)
    weighted = probabilities * weight
    both = (weighted * target).sum(dimensions)
    either = weighted.sum(dimensions) + (target * weight).sum(dimensions)
    loss = 1 - 2 * both / either.clamp(min=_SMALLEST)
    return torch.where(target.sum(dimensions) > 0 if present is None else present, loss, 0.0).mean()


def supervised_dice(logits: Tensor, mask: Tensor) -> Tensor:
    """Soft Dice loss against hard labels, of the classes that the batch shows (cromss.md section 7.1).

    Args:
        logits: float (B, K, H, W).
        mask: int64 (B, H, W), 255 = ignore.

    Returns:
        Scalar in [0, 1]; 0 with zero gradient when every pixel is ignored.
    """
    known = mask != IGNORE_INDEX
    target = (mask.unsqueeze(1) == torch.arange(logits.shape[1], device=mask.device).view(-1, 1, 1)).float()
    return soft_dice(logits.float().softmax(1), target, known.float())


def masked_cross_entropy(logits: Tensor, target: Tensor, kept: Tensor, divisor: Tensor) -> Tensor:
    """Cross-entropy summed over the pixels kept, divided by a count of the caller's choice.

    Args:
        logits: float (B, K, H, W).
        target: int64 (B, H, W), valid class ids everywhere.
        kept: bool or float (B, H, W); weight of each pixel.
        divisor: scalar count; 0 yields 0, not NaN (defect B10 of the official program).

    Returns:
        Scalar.
    """
    loss = F.cross_entropy(logits.float(), target, reduction="none")
    return (loss * kept).sum() / divisor.clamp(min=1)
