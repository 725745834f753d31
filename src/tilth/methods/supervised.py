"""Supervised training on labelled tiles: the baseline, and the fine-tuning of pre-trained networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import pydantic

from tilth.augment.config import StrongConfig
from tilth.augment.strong import strong_view
from tilth.batch import Batch
from tilth.config import Config
from tilth.methods.base import Losses, Method, Stream
from tilth.methods.losses import supervised_cross_entropy


class SupervisedConfig(Config):
    """Settings of supervised training."""

    strong: StrongConfig | None = pydantic.Field(None, description="photometric augmentation of the labelled tiles; none by default")


class Supervised(Method):
    """Cross-entropy on weakly augmented labelled crops."""

    Config: ClassVar[type[Config]] = SupervisedConfig
    streams: Mapping[str, Stream] = {"labelled": Stream("labelled")}
    config: SupervisedConfig

    def step(self, batches: Mapping[str, Batch], step: int) -> Losses:  # noqa: ARG002 - every step is alike
        """Mean cross-entropy over pixels whose label is not 255."""
        batch = batches["labelled"]
        image = batch["image"]
        if self.config.strong is not None:
            image = strong_view(image, self.model.sensor, batch["draw"], self.config.strong)
        logits = self.student(image)
        return Losses({"loss_labelled": supervised_cross_entropy(logits, batch["mask"], self.count)})


METHOD = Supervised
