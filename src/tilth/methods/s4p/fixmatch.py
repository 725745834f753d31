"""FixMatch with CutMix, as S5 trains it (s5_pretrain.md section 5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import pydantic
import torch
from torch import Tensor

from tilth.augment.config import CutMixConfig
from tilth.augment.cutmix import boxes
from tilth.augment.strong import strong_view
from tilth.batch import Batch
from tilth.config import Config
from tilth.methods.base import Losses
from tilth.methods.losses import supervised_cross_entropy
from tilth.methods.s4p.family import S4P, S4PConfig
from tilth.methods.s4p.parts import PseudoLabels, class_thresholds, health, pseudo_labels, unlabelled_loss


class FixMatchConfig(S4PConfig):
    """Settings of FixMatch; defaults are those of the S5 program."""

    threshold: float = pydantic.Field(0.95, ge=0, le=1, description="tau: a pseudo-label counts when its confidence is at least this")
    confidence_mode: Literal["pixelwise", "pixelratio"] = pydantic.Field(
        "pixelwise",
        description="pixelwise: only confident pixels count; pixelratio: all valid ones, by their image's share of confident ones",
    )
    class_share: float = pydantic.Field(
        0.0,
        ge=0,
        le=1,
        description="of each class at least this share of its pseudo-labels in the step counts, the surest, so that no class starves; "
        "0: the threshold alone (S5)",
    )
    cutmix: CutMixConfig = pydantic.Field(default_factory=CutMixConfig, description="boxes pasted from the partner")
    official: bool = pydantic.Field(False, description="in pixelratio, let padding count, as the S5 program does")


class FixMatch(S4P):
    """Confident predictions on a weak view are the labels of the strong view, with boxes of another image pasted in."""

    Config: ClassVar[type[Config]] = FixMatchConfig
    config: FixMatchConfig

    def step(self, batches: Mapping[str, Batch], step: int) -> Losses:
        """L = (L_x + lambda L_u) / 2 on one labelled and one unlabelled batch with partners."""
        config, x, draw = self.config, batches["labelled"], batches["unlabelled"]["draw"]
        height, width = x["image"].shape[-2:]
        box = boxes(draw, height, width, config.cutmix)
        u = self.pool(batches, box)

        # Strong views, cut-mixed.
        strong = u.mixed(box, strong_view(u.image, self.model.sensor, u.draw, config.strong))

        # Pseudo-labels from the weak views, mixed by the same boxes.
        labels = u.mixed_labels(box, pseudo_labels(self.teach(u.image), u.valid))

        # One student pass over both halves: batch statistics see labelled and strong views together.
        logits_x, logits_s = self.student(torch.cat([x["image"], strong])).split([len(x["image"]), u.size])
        loss_x = supervised_cross_entropy(logits_x, x["mask"], self.count)
        loss_u, confident = unlabelled_loss(
            logits_s, labels, self._threshold(labels), config.confidence_mode, self.count, official=config.official
        )

        return Losses(
            {"loss_labelled": loss_x / 2, "loss_unlabelled": self.weight(step) * loss_u / 2},
            health(labels, confident, u.mixed(box, u.mask), len(self.model.scheme)),
        )

    def _threshold(self, labels: PseudoLabels) -> float | Tensor:
        """Give the threshold of the step, or that of each pixel where classes have thresholds of their own: float32 (B, H, W)."""
        config = self.config
        if not config.class_share:
            return config.threshold
        # Pixels of all processes: a step has one threshold for each class, however many devices share it.
        everywhere = PseudoLabels(self.gather(labels.target), self.gather(labels.confidence), self.gather(labels.valid))
        return class_thresholds(everywhere, len(self.model.scheme), config.class_share, config.threshold)[labels.target]


METHOD = FixMatch
