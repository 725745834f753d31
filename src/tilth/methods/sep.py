"""SEP: supervised pre-training on labels that a better model made (s5_pretrain.md section 11)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import pydantic
import torch

from tilth.augment.config import StrongConfig
from tilth.augment.strong import strong_view
from tilth.batch import Batch
from tilth.classes import IGNORE_INDEX
from tilth.config import Config
from tilth.methods.base import Losses, Method, Stream
from tilth.methods.losses import masked_cross_entropy, supervised_cross_entropy
from tilth.models.segmenter import Segmenter


class SepConfig(Config):
    """Settings of SEP."""

    strong: StrongConfig | None = pydantic.Field(
        default_factory=StrongConfig, description="photometric augmentation of the labelled tiles (S5); null for none"
    )
    confidence_weighting: Literal["none", "linear"] = pydantic.Field(
        "none",
        description="none: every labelled pixel counts alike (S5); linear: by the probability that the labelling model gave its class, "
        "where the catalog says so (tilth label --confidence), and in full elsewhere; own proposal",
    )


class Sep(Method):
    """Cross-entropy on labels of another model, on weakly and photometrically augmented crops: one branch instead of three."""

    Config: ClassVar[type[Config]] = SepConfig
    streams: Mapping[str, Stream] = {"labelled": Stream("labelled")}
    config: SepConfig

    def __init__(self, config: SepConfig, model: Segmenter) -> None:
        super().__init__(config, model)
        if config.confidence_weighting != "none":
            self.streams = {"labelled": Stream("labelled", confidence=True)}

    def step(self, batches: Mapping[str, Batch], step: int) -> Losses:  # noqa: ARG002 - every step is alike
        """Cross-entropy over pixels whose label is not 255, weighted or not, divided by their number."""
        batch = batches["labelled"]
        image, mask = batch["image"], batch["mask"]
        if self.config.strong is not None:
            image = strong_view(image, self.model.sensor, batch["draw"], self.config.strong)
        logits = self.student(image)
        if self.config.confidence_weighting == "none":
            return Losses({"loss_labelled": supervised_cross_entropy(logits, mask, self.count)})
        # As in FixMatch, unsure pixels count less and sure ones not more: the divisor knows no weights.
        labelled = mask != IGNORE_INDEX
        weight = torch.where(labelled, batch["confidence"], 0.0)
        loss = masked_cross_entropy(logits, mask.masked_fill(~labelled, 0), weight, self.count(labelled.sum()))
        return Losses({"loss_labelled": loss}, {"label_confidence": (weight.sum(), labelled.sum())})

    def warnings(self, shares: Mapping[str, list[float]], step: int) -> list[str]:  # noqa: ARG002 - said at any step
        """Say so where weights were asked for and no label has any."""
        if shares.get("label_confidence") != [1.0]:
            return []
        return ["settings.confidence_weighting=linear has no effect: no label says how sure its maker was; see tilth label --confidence"]


METHOD = Sep
