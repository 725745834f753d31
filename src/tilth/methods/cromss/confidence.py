"""How sure a modality is, and what it makes of that when it hears the others (cromss.md sections 4.1 and 4.2).

Shapes: D modalities, B images, K classes, H x W pixels. Nothing here has a gradient.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

ConfidenceKind = Literal["ce", "gini"]


def labelled_pixels(label: Tensor, classes: int) -> Tensor:
    """Say where there is a label: bool, True for ids 0 to K - 1, False for 255 and whatever else is no class."""
    return (label >= 0) & (label < classes)


@torch.no_grad()
def label_confidence(log_probabilities: Tensor, label: Tensor) -> Tensor:
    """Compute the probability that a network gives to the label of each pixel.

    Args:
        log_probabilities: float32 (B, K, H, W), of a log-softmax.
        label: int64 (B, H, W), class ids; what is none counts as ignored.

    Returns:
        float32 (B, H, W) in [0, 1]; 0 where the pixel is ignored or a number is not finite.
    """
    labelled = labelled_pixels(label, log_probabilities.shape[1])
    found = log_probabilities.gather(1, torch.where(labelled, label, 0).unsqueeze(1)).squeeze(1).exp()
    return torch.where(labelled, _finite(found), 0.0)


@torch.no_grad()
def prediction_confidence(log_probabilities: Tensor, kind: ConfidenceKind) -> Tensor:
    """Compute how sure a network is, whatever the label.

    Args:
        log_probabilities: float32 (B, K, H, W), of a log-softmax: of saturated logits the entropy is then exact, and not 0 times minus
            infinity, on which the official program stops (cromss.md section 9, 2).
        kind: ``ce``: 1 - entropy / ln K, in [0, 1]. ``gini``: the sum of squared probabilities, in [1 / K, 1], on purpose not stretched.

    Returns:
        float32 (B, H, W); 0 where a number is not finite; 1 everywhere where there is one class.
    """
    classes = log_probabilities.shape[1]
    probabilities = log_probabilities.exp()
    if kind == "gini":
        return _finite(probabilities.square().sum(1))
    if classes == 1:
        return _finite(probabilities.squeeze(1))
    return _finite((1 + (probabilities * log_probabilities).sum(1) / math.log(classes)).clamp(0, 1))


@torch.no_grad()
def enhance(own: Tensor, joint: Tensor | None = None) -> Tensor:
    """Refine the confidence of each modality by that of the others: F_d = K_d (1 + mean of the others' K) / 2.

    With two modalities this is (K_1 + K_1 K_2) / 2: discounted to one half where the other disagrees. A modality alone keeps its own.

    Args:
        own: float32 (D, B, H, W), confidences of one kind.
        joint: float32 (B, H, W), of a branch that sees all modalities; it hears all of them, and none hears it.

    Returns:
        float32 (D, B, H, W), or (D + 1, B, H, W) with that of the joint branch last.
    """
    count = len(own)
    total = own.sum(0)
    refined = own.clone() if count == 1 else own * (1 + (total - own) / (count - 1)) / 2
    if joint is None:
        return refined
    return torch.cat([refined, (joint * (1 + total / count) / 2).unsqueeze(0)])


def _finite(values: Tensor) -> Tensor:
    return values.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
