"""Losses against noisy labels, pixel by pixel weighted: cross-entropy, Dice, focal (cromss.md section 4.7).

Shapes: B images, K classes, H x W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tilth.methods.counting import count_classes
from tilth.methods.cromss.confidence import labelled_pixels
from tilth.methods.losses import soft_dice


def weighted_mean(values: Tensor, weight: Tensor, divisor: Tensor) -> Tensor:
    """Sum of weighted pixels, over a sum of weights of the caller's choice; 0 with zero gradient where that is 0.

    Args:
        values: float32 (B, H, W).
        weight: float32 (B, H, W).
        divisor: scalar, at least 0.
    """
    return (values * weight).sum() / torch.where(divisor > 0, divisor, 1)


def soft_cross_entropy(log_probabilities: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy with probabilities as labels, at each pixel.

    Args:
        log_probabilities: float32 (B, K, H, W).
        target: float32 (B, K, H, W) of :func:`tilth.methods.cromss.smoothing.soft_labels`; 0 where ignored.

    Returns:
        float32 (B, H, W); 0 where ignored.
    """
    return -(target * log_probabilities).sum(1)


def dice_loss(probabilities: Tensor, target: Tensor, weight: Tensor, label: Tensor | None = None) -> Tensor:
    """Soft Dice loss of each class over the whole batch, and its mean over all K classes: absent ones count as 0.

    Args:
        probabilities: float32 (B, K, H, W).
        target: float32 (B, K, H, W), soft or hard labels; 0 where ignored.
        weight: float32 (B, H, W); 0 where ignored.
        label: int64 (B, H, W): a class is there if a pixel has it. By default it is there if the sum of its soft labels is not 0, so that
            under smoothing with a uniform share all are, and absent ones add a constant near 1 / K each (as the official program).

    Returns:
        Scalar in [0, 1].
    """
    return soft_dice(probabilities, target, weight, None if label is None else _present(label, target.shape[1]))


def focal_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Focal loss of each class against all others, summed over classes, at each pixel; always of the hard label.

    Args:
        logits: float32 (B, K, H, W).
        label: int64 (B, H, W); all that is no class is ignored.

    Returns:
        float32 (B, H, W): the sum over classes of (1 - exp(-b))^2 b, with b the binary cross-entropy; 0 where ignored.
    """
    classes = logits.shape[1]
    known = labelled_pixels(label, classes)
    hard = label.unsqueeze(1) == torch.arange(classes, device=label.device).view(-1, 1, 1)
    binary = F.binary_cross_entropy_with_logits(logits, hard.to(logits.dtype), reduction="none")
    return torch.where(known, ((1 - torch.exp(-binary)).square() * binary).sum(1), 0.0)


def _present(label: Tensor, classes: int) -> Tensor:
    return count_classes(label, labelled_pixels(label, classes), classes) > 0
