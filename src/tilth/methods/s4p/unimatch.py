"""UniMatch, first version: two strong views and a perturbation of features (s5_pretrain.md section 8).

After Yang et al. 2023, "Revisiting Weak-to-Strong Consistency in Semi-Supervised Semantic Segmentation".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import pydantic
import torch

from tilth.augment.config import CutMixConfig
from tilth.augment.cutmix import boxes
from tilth.augment.strong import strong_view
from tilth.batch import Batch
from tilth.config import Config
from tilth.methods.base import Losses
from tilth.methods.losses import supervised_cross_entropy
from tilth.methods.s4p.channels import ChannelDropping, feature_widths, kept_channels
from tilth.methods.s4p.family import S4P, S4PConfig
from tilth.methods.s4p.parts import health, pseudo_labels, unlabelled_loss
from tilth.models.segmenter import Segmenter


class UniMatchConfig(S4PConfig):
    """Settings of UniMatch; defaults are those of its paper."""

    threshold: float = pydantic.Field(0.95, ge=0, le=1, description="tau: a pseudo-label counts when its confidence is at least this")
    channel_drop: float = pydantic.Field(0.5, ge=0, lt=1, description="share of the channels dropped from every feature map (UniMatch)")
    cutmix: CutMixConfig = pydantic.Field(default_factory=CutMixConfig, description="boxes pasted from the partner, one a strong view")
    official: bool = pydantic.Field(
        False, description="decode perturbed features of labelled images, too, whose logits nobody uses, as the published program does"
    )


class UniMatch(S4P):
    """Two strong views with boxes of their own, and the weak view with channels dropped, learn what the weak view says."""

    Config: ClassVar[type[Config]] = UniMatchConfig
    config: UniMatchConfig

    def __init__(self, config: UniMatchConfig, model: Segmenter) -> None:
        super().__init__(config, model)
        self.trained = self.student = ChannelDropping(model)
        self._widths = feature_widths(model)

    def step(self, batches: Mapping[str, Batch], step: int) -> Losses:
        """L = (L_x + lambda (L_s1 / 4 + L_s2 / 4 + L_fp / 2)) / 2 on one labelled and one unlabelled batch with partners."""
        config, sensor, x, draw = self.config, self.model.sensor, batches["labelled"], batches["unlabelled"]["draw"]
        height, width = x["image"].shape[-2:]
        box_1, box_2 = (boxes(draw, height, width, config.cutmix, view) for view in (0, 1))
        u = self.pool(batches, box_1, box_2)
        own = slice(0, u.size)

        # Teacher: partners' labels in evaluation mode; the images' own come from the student pass, unless an average labels all.
        begin = 0 if config.teacher == "average" else u.size
        taught = self.teach(u.image[begin:])

        # Labelled and weak views, and the weak ones again with channels dropped.
        dropped = (x["draw"] if config.official else []) + draw
        kept = kept_channels(dropped, self._widths, config.channel_drop, u.image.device)
        logits = self.student(torch.cat([x["image"], u.image[own]]), kept)
        logits_x, logits_w, _, logits_fp = logits.split([len(x["image"]), u.size, len(dropped) - u.size, u.size])

        # Pseudo-labels; each strong view gets them mixed by its own boxes.
        everything = torch.cat([logits_w.detach().float(), taught]) if begin else taught
        labels = pseudo_labels(everything, u.valid)
        labels_1, labels_2 = u.mixed_labels(box_1, labels), u.mixed_labels(box_2, labels)

        # Both strong views, cut-mixed, in one student pass.
        strong_1 = u.mixed(box_1, strong_view(u.image, sensor, u.draw, config.strong, view=0))
        strong_2 = u.mixed(box_2, strong_view(u.image, sensor, u.draw, config.strong, view=1))
        logits_1, logits_2 = self.student(torch.cat([strong_1, strong_2])).chunk(2)

        loss_x = supervised_cross_entropy(logits_x, x["mask"], self.count)
        loss_1, confident = unlabelled_loss(logits_1, labels_1, config.threshold, count=self.count)
        loss_2, _ = unlabelled_loss(logits_2, labels_2, config.threshold, count=self.count)
        loss_fp, _ = unlabelled_loss(logits_fp, labels[own], config.threshold, count=self.count)

        weight = self.weight(step) / 2
        return Losses(
            {"loss_labelled": loss_x / 2, "loss_unlabelled": weight * (loss_1 + loss_2) / 4, "loss_features": weight * loss_fp / 2},
            health(labels_1, confident, u.mixed(box_1, u.mask), len(self.model.scheme)),
        )


METHOD = UniMatch
