"""What tells whether the selection goes well, as numerators and denominators (see ``Losses.shares``).

Shapes: M branches, B images, K classes, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tilth.methods.counting import count_classes
from tilth.methods.cromss.confidence import labelled_pixels
from tilth.methods.cromss.selection import Selection

Share = tuple[Tensor, Tensor]

_NEARLY_ALL = 0.98


@torch.no_grad()
def health(
    branches: Sequence[str],
    modalities: int,
    log_probabilities: Sequence[Tensor],
    label: Tensor,
    chosen: Selection,
    trusted: Tensor,
    reference: Tensor | None = None,
) -> dict[str, Share]:
    """Count what is selected, believed and predicted, and how much of it is right.

    Args:
        branches: M names.
        modalities: how many of them, the first ones, judge each other.
        log_probabilities: float32 (B, K, H, W) of each branch.
        label: int64 (B, H, W), the noisy labels.
        chosen: weights and selected pixels, (M, B, H, W).
        trusted: float32 (modalities, B, H, W), weights as teachers.
        reference: int64 (B, H, W), clean labels where there are any, else 255; looked at, never learnt from.

    Returns:
        For each branch b: ``selected_b`` (K: of the labelled pixels of a class, those selected), ``weight_b`` (mean weight of a label),
        ``predicted_b`` (K: share of a class in what is predicted), ``agrees_b`` (labels that the branch predicts itself),
        and for each modality ``trust_b`` (mean weight as a teacher). ``agreement``: labelled pixels on which all modalities agree. With a
        reference: ``right`` (labels that are right) and ``right_selected_b`` (of the selected ones).
    """
    classes = log_probabilities[0].shape[1]
    labelled = labelled_pixels(label, classes)
    count = labelled.sum()
    per_class = count_classes(label, labelled, classes)
    shares: dict[str, Share] = {}
    known = labelled if reference is None else labelled & labelled_pixels(reference, classes)
    right = known if reference is None else known & (label == reference)
    first, agreed = None, labelled
    for place, branch in enumerate(branches):
        predicted = log_probabilities[place].max(1).indices  # argmax does the same, several times slower on a CPU
        selected = chosen.selected[place]
        shares[f"selected_{branch}"] = count_classes(label, selected, classes), per_class
        shares[f"weight_{branch}"] = chosen.weight[place].sum(), count
        shares[f"agrees_{branch}"] = (labelled & (predicted == label)).sum(), count
        shares[f"predicted_{branch}"] = count_classes(predicted, labelled, classes), count.expand(classes)
        if reference is not None:
            shares[f"right_selected_{branch}"] = (right & selected).sum(), (known & selected).sum()
        if place < modalities:
            shares[f"trust_{branch}"] = trusted[place].sum(), count
            first = predicted if first is None else first
            agreed = agreed & (predicted == first)
    if modalities > 1:
        shares["agreement"] = agreed.sum(), count
    if reference is not None:
        shares["right"] = right.sum(), known.sum()
    return shares


def collapse_warnings(shares: Mapping[str, list[float]], branches: Sequence[str], names: Sequence[str]) -> list[str]:
    """Say when a branch predicts one class nearly everywhere.

    Args:
        shares: quotients of :func:`health`; NaN where nothing was counted.
        branches: names.
        names: class names in id order.
    """
    found = []
    for branch in branches:
        predicted = shares.get(f"predicted_{branch}", [])
        largest = max(range(len(predicted)), key=lambda index: predicted[index], default=0)
        if len(names) > 1 and predicted and predicted[largest] > _NEARLY_ALL:
            found.append(
                f"{branch}: over 98 % of the labelled pixels are predicted as {names[largest]!r}; lower loop.learning_rate, or raise "
                "settings.selected_share"
            )
    return found
