"""Counting pixels of each class where training runs, which several methods do."""

from __future__ import annotations

import torch
from torch import Tensor


def count_classes(ids: Tensor, kept: Tensor, classes: int) -> Tensor:
    """Count the kept pixels of each class, without waiting for the device.

    Args:
        ids: int64, any shape; anything where the pixel is not kept, else 0 to K - 1.
        kept: bool, the same shape.
        classes: K.

    Returns:
        int64 (K,).
    """
    counts = torch.zeros(classes + 1, dtype=torch.int64, device=ids.device)
    # Pixels that are not kept are a class of their own behind all others: their ids may be none, such as 255.
    return counts.scatter_add_(0, torch.where(kept, ids, classes).flatten(), kept.flatten().long())[:-1]
