"""The loss of a step from the logits of all branches (cromss.md sections 4.1 to 4.10).

Shapes: D modalities, M branches (D, and one more with a joint branch), B images, K classes, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tilth.methods.cromss.confidence import enhance, label_confidence, labelled_pixels, prediction_confidence
from tilth.methods.cromss.consistency import disagreement, trust
from tilth.methods.cromss.ramps import kept_ratio
from tilth.methods.cromss.segmentation import dice_loss, focal_loss, soft_cross_entropy, weighted_mean
from tilth.methods.cromss.selection import Selection, select
from tilth.methods.cromss.settings import CromssConfig
from tilth.methods.cromss.smoothing import label_prior, soft_labels


@dataclass(frozen=True)
class Judgement:
    """How much every pixel counts.

    Attributes:
        chosen: for each branch, weights of the labels and selected pixels, (M, B, H, W).
        trusted: float32 (D, B, H, W), weights as teachers.
    """

    chosen: Selection
    trusted: Tensor


def targets(label: Tensor, seasons: Tensor | None, classes: int, config: CromssConfig) -> Tensor:
    """Soften labels as the settings say: float32 (B, K, H, W), 0 where ignored.

    Args:
        label: int64 (B, H, W).
        seasons: int64 (B, T, H, W), or None.
        classes: K.
        config: settings.
    """
    prior = label_prior(label, seasons, classes, config.prior, config.prior_sigma) if config.prior_share else None
    return soft_labels(label, prior, classes, config.prior_share, config.uniform_share)


@torch.no_grad()
def judge(
    log_probabilities: Sequence[Tensor],
    modalities: int,
    label: Tensor,
    progress: float,
    config: CromssConfig,
    pooled: Callable[[Tensor], Tensor] = lambda counts: counts,
) -> Judgement:
    """Weigh all pixels, by the hard labels and what all modalities say.

    Args:
        log_probabilities: float32 (B, K, H, W) of each of the M branches.
        modalities: D, the first ones; a further one is the joint branch.
        label: int64 (B, H, W).
        progress: q.
        config: settings.
        pooled: adds counts over the processes that rank together.
    """
    classes = log_probabilities[0].shape[1]
    labelled = labelled_pixels(label, classes)
    if config.selection == "off":
        every = torch.ones_like(labelled) if config.ignore_mean == "all" else labelled
        chosen = labelled.expand(len(log_probabilities), *label.shape)
        return Judgement(Selection(chosen.float(), chosen), every.float().expand(modalities, *label.shape))
    known = torch.stack([label_confidence(item, label) for item in log_probabilities])
    joint = known[-1] if len(known) > modalities else None
    chosen_pixels = select(
        enhance(known[:modalities], joint),
        label,
        classes,
        kept_ratio(progress, config.selected_share),
        balanced=config.selection == "class",
        rare=config.rare_class,
        ranking=config.ranking,
        pooled=pooled,
    )
    sure = enhance(torch.stack([prediction_confidence(item, config.confidence) for item in log_probabilities[:modalities]]))
    return Judgement(chosen_pixels, trust(sure, progress, labelled))


def segmentation_loss(
    logits: Tensor,
    log_probabilities: Tensor,
    label: Tensor,
    target: Tensor,
    weight: Tensor,
    config: CromssConfig,
    count: Callable[[Tensor], Tensor] = lambda count: count,
) -> Tensor:
    """Compute S of one branch: the terms that the settings ask for, added with equal weight.

    Args:
        logits: float (B, K, H, W).
        log_probabilities: float32 (B, K, H, W), theirs.
        label: int64 (B, H, W).
        target: float32 (B, K, H, W) of :func:`targets`.
        weight: float32 (B, H, W), 0 where ignored.
        config: settings.
        count: turns a sum of weights into the divisor of a mean.
    """
    divisor = count(torch.full((), float(label.numel()), device=label.device) if config.ignore_mean == "all" else weight.sum())
    found = []
    if "c" in config.terms:
        found.append(weighted_mean(soft_cross_entropy(log_probabilities, target), weight, divisor))
    if "d" in config.terms:
        found.append(dice_loss(log_probabilities.exp(), target, weight, label if config.dice_present == "label" else None))
    if "f" in config.terms:
        found.append(weighted_mean(focal_loss(logits.float(), label), weight, divisor))
    return torch.stack(found).sum()


def consistency_losses(
    log_probabilities: Sequence[Tensor],
    trusted: Tensor,
    config: CromssConfig,
    count: Callable[[Tensor], Tensor] = lambda count: count,
) -> list[Tensor]:
    """Compute for each modality what it learns from the others: the mean over its teachers, each pixel weighted by the teacher's trust.

    Args:
        log_probabilities: float32 (B, K, H, W) of each of the D modalities.
        trusted: float32 (D, B, H, W).
        config: settings.
        count: turns a sum of weights into the divisor of a mean.

    Returns:
        One scalar for each modality; of two, T_{2->1} and T_{1->2}.
    """
    divisors = [count(weight.sum()) for weight in trusted]
    found = []
    for student, learns in enumerate(log_probabilities):
        teachers = [place for place in range(len(log_probabilities)) if place != student]
        taught = [
            weighted_mean(disagreement(config.consistency, log_probabilities[place], learns), trusted[place], divisors[place])
            for place in teachers
        ]
        found.append(torch.stack(taught).mean())
    return found
