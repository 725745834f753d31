"""What modalities learn from each other: the other's prediction, weighted by how sure that one is (cromss.md sections 4.5 and 4.8).

Shapes: D modalities, B images, K classes, H x W pixels.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

ConsistencyKind = Literal["ce", "kl", "mse", "none"]


@torch.no_grad()
def trust(confidence: Tensor, progress: float, labelled: Tensor) -> Tensor:
    """Compute how much each modality is worth as a teacher: V = (1 - q) + q F^E, never thresholded.

    Args:
        confidence: float32 (D, B, H, W), enhanced prediction confidence.
        progress: q of :func:`tilth.methods.cromss.ramps.ramp`.
        labelled: bool (B, H, W); all other pixels get 0.

    Returns:
        float32 (D, B, H, W).
    """
    return torch.where(labelled, (1 - progress) + progress * confidence, 0.0)


def disagreement(kind: ConsistencyKind, teacher: Tensor, student: Tensor) -> Tensor:
    """Compare what a modality predicts with what another one does, at each pixel; no gradient reaches the teacher.

    Args:
        kind: ``ce``: cross-entropy with the teacher's probabilities, its entropy included; ``kl``: without; ``mse``: squared differences of
            probabilities, summed over classes.
        teacher: float32 (B, K, H, W), log-probabilities.
        student: float32 (B, K, H, W), log-probabilities.

    Returns:
        float32 (B, H, W).
    """
    teacher = teacher.detach()
    if kind == "mse":
        return (student.exp() - teacher.exp()).square().sum(1)
    return (teacher.exp() * ((teacher - student) if kind == "kl" else -student)).sum(1)
