"""WSCL: strong views mixed by halves, learnt where the student itself is least undecided (s5_pretrain.md section 10).

After Lu et al. 2023, "Weak-to-Strong Consistency Learning for Semisupervised Image Segmentation", whose mode SDC (strong to strong) is
meant here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
import pydantic
import torch
from torch import Tensor

from tilth import seeds
from tilth.augment.config import Probability, StrongConfig
from tilth.augment.strong import strong_view
from tilth.batch import Batch
from tilth.config import Config
from tilth.methods.base import Losses
from tilth.methods.losses import masked_cross_entropy, supervised_cross_entropy
from tilth.methods.s4p.family import S4P, S4PConfig
from tilth.methods.s4p.parts import PseudoLabels, health, pseudo_labels


class WsclStrongConfig(StrongConfig):
    """The strong view of WSCL, which enhances edges."""

    edge_probability: Probability = pydantic.Field(0.5, description="probability of enhanced edges of optical bands (WSCL)")


class WsclConfig(S4PConfig):
    """Settings of WSCL; defaults are those of its paper."""

    partner: Literal["stream", "batch"] = pydantic.Field(
        "batch", description="where pasted halves come from: other images of the same batch (WSCL), or a second unlabelled batch"
    )
    mix_probability: Probability = pydantic.Field(0.5, description="probability that the images of a step are mixed (WSCL)")
    kept_percent: float = pydantic.Field(
        20.0, ge=0, le=100, description="share of the valid pixels that is learnt: those on which the student is least undecided (WSCL)"
    )
    strong: WsclStrongConfig = pydantic.Field(default_factory=WsclStrongConfig, description="photometric augmentation of the strong view")
    official: bool = pydantic.Field(
        False, description="as the published program: the mean over all pixels, padding too, times the share that should have been kept"
    )


class Wscl(S4P):
    """The most probable classes of the weak view are the labels of a strong view that is half of another image."""

    Config: ClassVar[type[Config]] = WsclConfig
    config: WsclConfig
    looser = "raise settings.kept_percent"
    stricter = "lower settings.kept_percent"

    def step(self, batches: Mapping[str, Batch], step: int) -> Losses:
        """L = L_x + lambda L_u on one labelled and one unlabelled batch with partners."""
        config, x, draw = self.config, batches["labelled"], batches["unlabelled"]["draw"]
        height, width = x["image"].shape[-2:]
        mixing = mixes(self.seed, step, config.mix_probability)
        box = halves(draw, height, width) if mixing else torch.zeros(len(draw), height, width, dtype=torch.bool)
        u = self.pool(batches, box)

        # Strong views. In SDC neighbours take turns as to which of their two views is the base and which is lent, so that each image is
        # needed in one of them alone.
        strong = u.mixed(box, strong_view(u.image, self.model.sensor, u.draw, config.strong))

        # Pseudo-labels from the weak views, mixed by the same boxes; there is no threshold.
        labels = u.mixed_labels(box, pseudo_labels(self.teach(u.image), u.valid))
        if config.official:
            labels = PseudoLabels(labels.target, labels.confidence, torch.ones_like(labels.valid))

        # One student pass over both halves, then the pixels of the strong view on which the student is least undecided.
        logits_x, logits_s = self.student(torch.cat([x["image"], strong])).split([len(x["image"]), u.size])
        undecided = entropy_bits(logits_s.detach())
        limit = percentile(*self._everywhere(undecided, labels.valid), config.kept_percent)
        kept = (undecided <= limit) & labels.valid

        loss_x = supervised_cross_entropy(logits_x, x["mask"], self.count)
        if config.official:
            loss_u = masked_cross_entropy(logits_s, labels.target, labels.valid, labels.valid.sum()) * kept.float().mean()
        else:
            loss_u = masked_cross_entropy(logits_s, labels.target, kept, self.count(labels.valid.sum()))

        return Losses(
            {"loss_labelled": loss_x, "loss_unlabelled": self.weight(step) * loss_u},
            health(labels, kept, u.mixed(box, u.mask), len(self.model.scheme)),
        )

    def _everywhere(self, values: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
        """Both tensors of all processes: a step has one limit, however many devices share it."""
        return self.gather(values), self.gather(counted)


def mixes(seed: int, step: int, probability: float) -> bool:
    """Say whether the images of a step are mixed: the same in every process."""
    return bool(seeds.generator(seed, "halves", step).random() < probability)


def halves(draws: Sequence[int], height: int, width: int) -> Tensor:
    """Draw boxes that cover half of an image, each a pure function of its sample's seed.

    Args:
        draws: B seeds, ``Batch["draw"]``.
        height: H of the image, at least 4.
        width: W, at least 4.

    Returns:
        bool (B, H, W) on the CPU, True inside: the width uniform from W / 2 + 1 to W - 1, the height what makes half the area, any place.
    """
    inside = np.zeros((len(draws), height, width), dtype=np.bool_)
    for sample, draw in enumerate(draws):
        generator = seeds.generator(draw, "half")
        columns = int(generator.integers(width // 2 + 1, width))
        rows = round(height * width / 2 / columns)
        y, x = int(generator.integers(0, height - rows + 1)), int(generator.integers(0, width - columns + 1))
        inside[sample, y : y + rows, x : x + columns] = True
    return torch.from_numpy(inside)


def entropy_bits(logits: Tensor) -> Tensor:
    """How undecided each prediction is: float32 (B, H, W), from 0 to log2 K, of logits (B, K, H, W)."""
    probability = logits.float().softmax(dim=1)
    return -(probability * torch.log2(probability + 1e-10)).sum(1)


def percentile(values: Tensor, counted: Tensor, percent: float) -> Tensor:
    """The percentile of values where ``counted``, between two of them by linear interpolation.

    Args:
        values: float32, any shape, finite.
        counted: bool, the same shape.
        percent: from 0 to 100.

    Returns:
        float32 scalar; infinite if nothing is counted.
    """
    filled = torch.where(counted, values, torch.inf).flatten()
    place = (counted.sum() - 1).clamp(min=0).double() * (percent / 100)
    below = place.floor()
    if filled.device.type == "cpu":  # choosing is faster than sorting, but would make an accelerator wait for the place
        low, high = (filled.kthvalue(int(one) + 1).values for one in (below, place.ceil()))
    else:
        ordered = filled.sort().values
        low, high = ordered[below.long()], ordered[place.ceil().long()]
    # Not lerp: two infinite values have no difference.
    return torch.where(low == high, low, low + (high - low) * (place - below).float())


METHOD = Wscl
