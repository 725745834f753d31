"""FixMatch with CutMix, as S5 trains it (s5_pretrain.md section 5)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import ClassVar, Literal

import pydantic
import torch

from tilth.augment.config import CutMixConfig, StrongConfig
from tilth.augment.cutmix import boxes, mix
from tilth.augment.strong import strong_view
from tilth.batch import Batch
from tilth.config import Config
from tilth.errors import ConfigError
from tilth.methods.base import Losses, Method, Stream
from tilth.methods.losses import supervised_cross_entropy
from tilth.methods.s4p.parts import collapse_warnings, health, predict_pseudo_labels, unlabelled_loss


class FixMatchConfig(Config):
    """Settings of FixMatch; defaults are those of the S5 program."""

    threshold: float = pydantic.Field(0.95, ge=0, le=1, description="tau: a pseudo-label counts when its confidence is at least this")
    unlabelled_weight: float = pydantic.Field(1.0, ge=0, description="lambda: weight of the unlabelled loss")
    ramp_up_steps: int = pydantic.Field(0, ge=0, description="steps in which lambda rises linearly from 0; the S5 program has no ramp")
    confidence_mode: Literal["pixelwise", "pixelratio"] = pydantic.Field(
        "pixelwise",
        description="pixelwise: only confident pixels count; pixelratio: all, padding too, by their image's share of confident ones",
    )
    teacher: Literal["student", "average"] = pydantic.Field(
        "student", description="who labels: the network itself (S5), or its exponential moving average (needs loop.average_decay)"
    )
    teacher_mixed_precision: bool = pydantic.Field(
        False, description="let the teacher use the run's mixed precision; S5 runs it in full precision"
    )
    strong: StrongConfig = pydantic.Field(default_factory=StrongConfig, description="photometric augmentation of the strong view")
    cutmix: CutMixConfig = pydantic.Field(default_factory=CutMixConfig, description="boxes pasted from the partner stream")
    collapse_grace: int = pydantic.Field(200, ge=0, description="steps before a collapse of the pseudo-labels is warned of")


class FixMatch(Method):
    """Confident predictions on a weak view are the labels of the strong view, with boxes of another image pasted in."""

    Config: ClassVar[type[Config]] = FixMatchConfig
    # The partner is drawn independently and is never the same tile (defect B1 of the official program).
    streams: ClassVar[Mapping[str, Stream]] = {
        "labelled": Stream("labelled"),
        "unlabelled": Stream("unlabelled"),
        "partner": Stream("unlabelled", differs_from="unlabelled"),
    }
    config: FixMatchConfig

    def check(self) -> None:
        """Refuse an averaged teacher where no average is kept."""
        self._teacher()

    def step(self, batches: Mapping[str, Batch], step: int) -> Losses:
        """L = (L_x + lambda L_u) / 2 on one labelled, one unlabelled and one partner batch."""
        config, sensor = self.config, self.model.sensor
        x, u, v = batches["labelled"], batches["unlabelled"], batches["partner"]
        size = len(u["image"])

        # Strong views, cut-mixed.
        box = boxes(u["draw"], u["image"].shape[-2], u["image"].shape[-1], config.cutmix).to(u["image"].device)
        strong = strong_view(torch.cat([u["image"], v["image"]]), sensor, u["draw"] + v["draw"], config.strong)
        strong = mix(box, strong[size:], strong[:size])

        # Pseudo-labels from the weak views, mixed by the same boxes.
        weak, valid = torch.cat([u["image"], v["image"]]), torch.cat([u["valid"], v["valid"]])
        with self.autocast() if config.teacher_mixed_precision else nullcontext():
            own, partner = predict_pseudo_labels(self._teacher(), weak, valid).split(size)
        labels = own.mixed(box, partner)

        # One student pass over both halves: batch statistics see labelled and strong views together.
        logits = self.student(torch.cat([x["image"], strong]))
        logits_x, logits_s = logits[: len(x["image"])], logits[len(x["image"]) :]
        loss_x = supervised_cross_entropy(logits_x, x["mask"], self.count)
        loss_u, confident = unlabelled_loss(logits_s, labels, config.threshold, config.confidence_mode, self.count)

        weight = config.unlabelled_weight * min(1.0, (step + 1) / max(1, config.ramp_up_steps))
        reference = mix(box, v["mask"], u["mask"])
        return Losses(
            {"loss_labelled": loss_x / 2, "loss_unlabelled": weight * loss_u / 2},
            health(labels, confident, reference, len(self.model.scheme)),
        )

    def warnings(self, shares: Mapping[str, list[float]], step: int) -> list[str]:
        """Warn of collapsed or absent pseudo-labels."""
        return collapse_warnings(shares, step, self.model.scheme.names, self.config.collapse_grace)

    def _teacher(self) -> torch.nn.Module:
        if self.config.teacher == "student":
            return self.model
        if self.average is None:
            raise ConfigError("settings.teacher is 'average' but no average is kept; set loop.average_decay, for example to 0.99")
        return self.average


METHOD = FixMatch
