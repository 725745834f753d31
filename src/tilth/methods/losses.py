"""Loss functions that several methods share."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from tilth.classes import IGNORE_INDEX


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
