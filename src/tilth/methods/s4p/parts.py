"""Parts that the S4P variants share: pseudo-labels, their mixing, partners within a batch, and health.

Shapes: B images, K classes, H x W pixels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tilth import seeds
from tilth.augment.cutmix import mix
from tilth.classes import IGNORE_INDEX
from tilth.errors import ConfigError
from tilth.methods.counting import count_classes
from tilth.methods.losses import masked_cross_entropy


@dataclass(frozen=True)
class PseudoLabels:
    """What the teacher says of a batch.

    Attributes:
        target: int64 (B, H, W), the most probable class.
        confidence: float32 (B, H, W) in [0, 1], its probability.
        valid: bool (B, H, W), False where the crop is padded or nodata.
    """

    target: Tensor
    confidence: Tensor
    valid: Tensor

    def mixed(self, box: Tensor, pasted: PseudoLabels) -> PseudoLabels:
        """Replace what lies inside ``box`` (bool (B, H, W)) by another batch's pseudo-labels: CutMix of targets."""
        return PseudoLabels(
            mix(box, pasted.target, self.target), mix(box, pasted.confidence, self.confidence), mix(box, pasted.valid, self.valid)
        )

    def __getitem__(self, images: slice | Tensor) -> PseudoLabels:
        """Choose images of the batch, by a slice or by their places."""
        return PseudoLabels(self.target[images], self.confidence[images], self.valid[images])

    def confident(self, threshold: float | Tensor) -> Tensor:
        """Pixels that are valid and whose confidence is at least ``threshold``: bool (B, H, W)."""
        return (self.confidence >= threshold) & self.valid


def partners(draws: Sequence[int], tiles: Sequence[str]) -> list[int]:
    """Choose for each image of a batch another one to get a box from: a permutation, and a pure function of the seeds.

    Args:
        draws: B seeds, ``Batch["draw"]``.
        tiles: B identifiers, ``Batch["tile_id"]``.

    Returns:
        B places, never an image's own, and never another crop of its tile unless that tile makes up more than half of the batch.

    Raises:
        ConfigError: there is no other image.
    """
    count = len(draws)
    if count < 2:
        raise ConfigError(
            "settings.partner=batch takes boxes from other images of the same pass, which has only one; "
            "make loop.batch_size at least twice loop.accumulate times loop.devices, or set settings.partner=stream"
        )
    generator = seeds.generator("partners", *draws)
    shares = Counter(tiles)
    rank = {str(tile): place for place, tile in enumerate(generator.permutation(sorted(shares)))}
    # Crops of a tile stand together: whoever is as many places further on as the most frequent tile has crops is of another tile.
    order = sorted(range(count), key=lambda place: (rank[tiles[place]], place))
    most = max(shares.values())
    shift = int(generator.integers(most, count - most + 1)) if 2 * most <= count else max(most % count, 1)
    found = [0] * count
    for place, image in enumerate(order):
        found[image] = order[(place + shift) % count]
    return found


def pseudo_labels(logits: Tensor, valid: Tensor) -> PseudoLabels:
    """Turn logits (B, K, H, W) of any float type into classes and confidences; the softmax is in float32."""
    confidence, target = logits.float().softmax(dim=1).max(dim=1)
    return PseudoLabels(target, confidence, valid)


def class_thresholds(labels: PseudoLabels, num_classes: int, share: float, threshold: float) -> Tensor:
    """Lower the threshold of every class that would have fewer pixels than its surest ``share`` to where that share begins.

    One threshold for all classes lets those that are easy count first; what they teach makes them more frequent, and rare ones vanish.

    Args:
        labels: pseudo-labels of any shape (..., H, W); pixels that are not valid are no part of any share.
        num_classes: K.
        share: of the valid pixels of a class, rounded up to whole pixels, at least one; more count where confidences are equal.
        threshold: tau, which no class exceeds.

    Returns:
        float32 (K,); ``threshold`` for a class that no valid pixel is taken for.
    """
    valid, confidence = labels.valid.flatten(), labels.confidence.flatten()
    # Pixels that are not valid are a class of their own behind all others.
    target = torch.where(valid, labels.target.flatten(), num_classes)
    order = confidence.argsort(descending=True)
    order = order[target[order].argsort(stable=True)]
    count = torch.zeros(num_classes + 1, dtype=torch.int64, device=target.device).scatter_add_(0, target, torch.ones_like(target))
    first = count.cumsum(0) - count
    last = first + (count.double() * share).ceil().long().clamp(min=1) - 1
    surest = confidence[order[last[:num_classes].clamp(max=len(order) - 1)]]
    return torch.where(count[:num_classes] > 0, surest.clamp(max=threshold), threshold)


def unlabelled_loss(
    logits: Tensor,
    labels: PseudoLabels,
    threshold: float | Tensor,
    mode: str = "pixelwise",
    count: Callable[[Tensor], Tensor] = lambda count: count,
    *,
    official: bool = False,
) -> tuple[Tensor, Tensor]:
    """L_u: cross-entropy of the strong view against confident pseudo-labels, over the number of valid pixels of the batch.

    Args:
        logits: float (B, K, H, W) of the strong view.
        labels: mixed pseudo-labels.
        threshold: tau; a pixel counts when its confidence is at least this and it is valid.
        mode: ``pixelwise``, or ``pixelratio``: every valid pixel counts, weighted by its image's share of confident ones among the valid.
        count: turns the number of valid pixels into the divisor.
        official: in ``pixelratio``, let padded pixels count like valid ones, as in the S5 program.

    Returns:
        The scalar, and the confident pixels, bool (B, H, W).
    """
    confident = labels.confident(threshold)
    kept = confident
    if mode == "pixelratio":
        share = confident.flatten(1).sum(1) / labels.valid.flatten(1).sum(1).clamp(min=1)
        kept = share[:, None, None] * (torch.ones_like(labels.valid) if official else labels.valid)
    return masked_cross_entropy(logits, labels.target, kept, count(labels.valid.sum())), confident


def health(labels: PseudoLabels, accepted: Tensor, reference: Tensor, num_classes: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Count what tells whether pseudo-labelling goes well, as numerators and denominators.

    Args:
        labels: pseudo-labels after mixing.
        accepted: bool (B, H, W), pixels that enter the unsupervised loss.
        reference: int64 (B, H, W), given labels where the unlabelled tiles have any, else 255; looked at, never learnt from.
        num_classes: K.

    Returns:
        ``accepted_share`` (accepted of valid pixels), ``accepted_share_class`` (K: of the valid pixels taken for a class, those accepted),
        ``accepted_class`` (K: a class's share in the accepted pixels), ``agreement`` (accepted pixels that agree with a given label).
    """
    predicted = count_classes(labels.target, labels.valid, num_classes)
    kept = count_classes(labels.target, accepted, num_classes)
    known = accepted & (reference != IGNORE_INDEX)
    return {
        "accepted_share": (kept.sum(), predicted.sum()),
        "accepted_share_class": (kept, predicted),
        "accepted_class": (kept, kept.sum().expand_as(kept)),
        "agreement": ((known & (labels.target == reference)).sum(), known.sum()),
    }


def collapse_warnings(
    shares: Mapping[str, list[float]],
    step: int,
    names: tuple[str, ...],
    grace: int,
    looser: str = "lower the threshold",
    stricter: str = "raise the threshold",
) -> list[str]:
    """Say when pseudo-labels are all of one class, or none is accepted, once ``grace`` steps have passed.

    Args:
        shares: quotients of :func:`health` over the last logging interval; NaN where nothing was counted.
        step: current step.
        names: class names in id order.
        grace: steps at the start in which few or one-sided pseudo-labels are normal.
        looser: what makes the method accept more pixels.
        stricter: what makes it accept fewer.
    """
    if step < grace or not shares.get("accepted_share"):
        return []
    if shares["accepted_share"][0] < 0.001:
        return [
            "fewer than 0.1 % of the unlabelled pixels are accepted: the unlabelled images teach nothing; "
            f"{looser} or train longer on labels"
        ]
    largest = max(range(len(names)), key=lambda index: shares["accepted_class"][index])
    if len(names) > 1 and shares["accepted_class"][largest] > 0.98:
        return [
            f"pseudo-labels have collapsed: over 98 % of the accepted pixels are {names[largest]!r}; "
            f"balance the labelled tiles or {stricter}"
        ]
    return []
