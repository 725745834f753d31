"""Supervised training on labelled tiles: the baseline, and the fine-tuning of pre-trained networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import pydantic
from torch import Tensor

from tilth.augment.config import StrongConfig
from tilth.augment.strong import strong_view
from tilth.batch import Batch
from tilth.config import Config
from tilth.methods.base import Losses, Method, Stream
from tilth.methods.losses import supervised_cross_entropy, supervised_dice


class SupervisedConfig(Config):
    """Settings of supervised training."""

    terms: Literal["c", "d", "cd"] = pydantic.Field(
        "c", description="losses, added with equal weight: c cross-entropy, d Dice of a process's tiles (CromSS: cd)"
    )

    strong: StrongConfig | None = pydantic.Field(None, description="photometric augmentation of the labelled tiles; none by default")


class Supervised(Method):
    """Cross-entropy, Dice or both on weakly augmented labelled crops."""

    Config: ClassVar[type[Config]] = SupervisedConfig
    streams: Mapping[str, Stream] = {"labelled": Stream("labelled")}
    config: SupervisedConfig

    def step(self, batches: Mapping[str, Batch], step: int) -> Losses:  # noqa: ARG002 - every step is alike
        """Losses over pixels whose label is not 255."""
        batch = batches["labelled"]
        image = batch["image"]
        if self.config.strong is not None:
            image = strong_view(image, self.model.sensor, batch["draw"], self.config.strong)
        return self.losses(self.student(image), batch)

    def losses(self, logits: Tensor, batch: Batch) -> Losses:
        """Losses of logits (B, K, H, W) over pixels whose label is not 255."""
        terms = {}
        if "c" in self.config.terms:
            terms["loss_labelled"] = supervised_cross_entropy(logits, batch["mask"], self.count)
        if "d" in self.config.terms:
            terms["loss_dice"] = supervised_dice(logits, batch["mask"])
        return Losses(terms)


METHOD = Supervised
