"""CorrMatch: labels spread along the correlation of positions, and the threshold follows the network (s5_pretrain.md section 9).

After Sun et al. 2024, "CorrMatch: Label Propagation via Correlation Matching for Semi-Supervised Semantic Segmentation".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pydantic
import torch
from torch import Tensor
from torch.nn import functional as F

from tilth import seeds
from tilth.augment.config import CutMixConfig
from tilth.augment.cutmix import boxes
from tilth.augment.strong import strong_view
from tilth.batch import Batch
from tilth.config import Config
from tilth.methods.base import Losses
from tilth.methods.losses import masked_cross_entropy, supervised_cross_entropy
from tilth.methods.s4p.channels import feature_widths, kept_channels
from tilth.methods.s4p.correlation import CorrelationNetwork, padded_sides, regions_of, spread, surest
from tilth.methods.s4p.family import S4P, S4PConfig
from tilth.methods.s4p.parts import PseudoLabels, health, unlabelled_loss
from tilth.models.segmenter import Segmenter


class CorrMatchConfig(S4PConfig):
    """Settings of CorrMatch; defaults are those of its paper."""

    threshold_start: float = pydantic.Field(0.85, ge=0, le=1, description="threshold before the first step (CorrMatch)")
    threshold_momentum: float = pydantic.Field(0.999, ge=0, le=1, description="share of the threshold that stays in a step (CorrMatch)")
    proposals: int = pydantic.Field(128, ge=0, description="regions proposed in each image (CorrMatch)")
    projection_width: int = pydantic.Field(256, ge=1, description="channels in which positions are compared (CorrMatch)")
    projection_drop: float = pydantic.Field(0.1, ge=0, lt=1, description="share of these channels dropped in training (CorrMatch)")
    channel_drop: float = pydantic.Field(0.5, ge=0, lt=1, description="share of the channels dropped from every feature map (UniMatch)")
    cutmix: CutMixConfig = pydantic.Field(default_factory=CutMixConfig, description="boxes pasted from the partner")
    official: bool = pydantic.Field(
        False,
        description="as the published program: soft targets are not cut-mixed although the images are, the threshold looks at the mixed "
        "padding, the last position never proposes, and perturbed features of labelled images are decoded for nobody",
    )


class CorrMatch(S4P):
    """Hard, soft, perturbed and correlated predictions learn what the weak view says, where it is sure or a sure region reaches.

    Attributes:
        threshold: float32 scalar; follows the mean over classes of the greatest confidence.
    """

    Config: ClassVar[type[Config]] = CorrMatchConfig
    config: CorrMatchConfig
    looser = "lower settings.threshold_start"
    stricter = "raise settings.threshold_start"

    def __init__(self, config: CorrMatchConfig, model: Segmenter) -> None:
        super().__init__(config, model)
        self.trained = self.student = CorrelationNetwork(model, config.projection_width, spare_last=config.official)
        self.threshold = torch.tensor(config.threshold_start, dtype=torch.float32)
        self._widths = feature_widths(model)

    def step(self, batches: Mapping[str, Batch], step: int) -> Losses:
        """L = (L_x / 2 + L_xc / 2 + lambda (L_h + L_kl + L_fp + (L_ch + L_cw) / 2) / 4) / 2."""
        config, x, draw = self.config, batches["labelled"], batches["unlabelled"]["draw"]
        height, width = x["image"].shape[-2:]
        box = boxes(draw, height, width, config.cutmix)
        u = self.pool(batches, box)
        own, device = slice(0, u.size), u.image.device

        # Teacher: partners' logits in evaluation mode; the images' own come from the student pass, unless an average labels all.
        begin = 0 if config.teacher == "average" else u.size
        taught = self.teach(u.image[begin:])

        # Labelled and weak views with their correlation, and the weak ones again with channels dropped.
        dropped = (x["draw"] if config.official else []) + draw
        logits, carried, rows = self.student(
            torch.cat([x["image"], u.image[own]]),
            self._projected(x["draw"] + draw, device, "weak"),
            kept_channels(dropped, self._widths, config.channel_drop, device),
            self._places(draw, u.image),
        )
        logits_x, logits_w, _, logits_fp = logits.split([len(x["image"]), u.size, len(dropped) - u.size, u.size])
        carried_x, carried_w = carried.split([len(x["image"]), u.size])

        # The strong view, cut-mixed.
        strong = u.mixed(box, strong_view(u.image, self.model.sensor, u.draw, config.strong))
        logits_s, carried_s, _ = self.student(strong, self._projected(draw, device, "strong"))

        # Pseudo-labels, hard and soft, mixed by the same boxes; the threshold takes one step.
        probability = (torch.cat([logits_w.detach().float(), taught]) if begin else taught).softmax(dim=1)
        confidence, target = probability.max(dim=1)
        labels = PseudoLabels(target, confidence, u.valid)
        mixed = u.mixed_labels(box, labels)
        threshold = self._follow(labels[own], mixed)
        soft = probability[own] if config.official else u.mixed(box, probability)
        sure = mixed.confident(threshold)

        # Regions that hang together in the weak image give their label to all of their pixels outside the box.
        regions = regions_of(rows, padded_sides(self.model, u.image), height, width)
        regions &= (~box.to(device) & mixed.valid).unsqueeze(1)
        target, reached = spread(mixed, sure, regions, threshold, len(self.model.scheme))

        valid = self.count(mixed.valid.sum())
        loss_x = supervised_cross_entropy(logits_x, x["mask"], self.count)
        loss_xc = supervised_cross_entropy(carried_x, x["mask"], self.count)
        loss_h = masked_cross_entropy(logits_s, target, reached, valid)
        loss_ch = masked_cross_entropy(carried_s, target, reached, valid)
        loss_cw, _ = unlabelled_loss(carried_w, labels[own], threshold, count=self.count)
        loss_fp, _ = unlabelled_loss(logits_fp, labels[own], threshold, count=self.count)
        loss_kl = (divergence(soft, logits_s) * sure).sum() / valid.clamp(min=1)

        weight = self.weight(step) / 8
        shares = health(PseudoLabels(target, mixed.confidence, mixed.valid), reached, u.mixed(box, u.mask), len(self.model.scheme))
        return Losses(
            {
                "loss_labelled": loss_x / 4,
                "loss_labelled_carried": loss_xc / 4,
                "loss_unlabelled": weight * loss_h,
                "loss_soft": weight * loss_kl,
                "loss_features": weight * loss_fp,
                "loss_carried": weight * (loss_ch + loss_cw) / 2,
            },
            {**shares, "threshold": (threshold, torch.ones_like(threshold))},
        )

    def state_dict(self) -> dict[str, Any]:
        """The threshold."""
        return {"threshold": self.threshold}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the threshold back."""
        self.threshold = state["threshold"]

    def _follow(self, labels: PseudoLabels, mixed: PseudoLabels) -> Tensor:
        """Move the threshold towards the mean, over classes that are there, of the greatest confidence in all processes."""
        if self.config.official:
            labels = PseudoLabels(labels.target, labels.confidence, mixed.valid)
        greatest = self.gather(surest(labels, len(self.model.scheme))).amax(0)
        mean = greatest.sum() / (greatest > 0).sum()
        old, momentum = self.threshold.to(mean.device), self.config.threshold_momentum
        # Not a number where no pixel is valid, or where the network itself is lost.
        self.threshold = torch.where(mean.isfinite(), momentum * old + (1 - momentum) * mean, old)
        return self.threshold

    def _projected(self, draws: list[int], device: torch.device, view: str) -> Tensor:
        """Factors of the channels behind the projection: float32 (B, projection_width)."""
        return kept_channels(draws, [self.config.projection_width], self.config.projection_drop, device, f"projection {view}")[0]

    def _places(self, draws: list[int], image: Tensor) -> Tensor:
        """Where regions are proposed, as shares of the positions: float32 (B, R) in [0, 1)."""
        drawn = np.stack([seeds.generator(draw, "proposals").random(self.config.proposals) for draw in draws]).astype(np.float32)
        return torch.from_numpy(drawn).to(image.device)


def divergence(wanted: Tensor, logits: Tensor) -> Tensor:
    """Kullback-Leibler divergence of predictions from what is wanted.

    Args:
        wanted: float32 (B, K, H, W), probabilities; without gradient.
        logits: float (B, K, H, W).

    Returns:
        float32 (B, H, W), in nats, 0 where both agree.
    """
    return (torch.xlogy(wanted, wanted) - wanted * F.log_softmax(logits.float(), dim=1)).sum(1)


METHOD = CorrMatch
