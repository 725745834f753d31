"""What all S4P variants have in common: settings, streams, the unlabelled images of a step, who labels them, and what looks wrong.

Shapes: B images of a batch, N of them and of their partners, K classes, C bands, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal, cast

import pydantic
import torch
from torch import Tensor, nn

from tilth.augment.config import StrongConfig
from tilth.augment.cutmix import mix
from tilth.batch import Batch
from tilth.config import Config
from tilth.errors import ConfigError
from tilth.methods.base import Method, Stream
from tilth.methods.s4p.parts import PseudoLabels, collapse_warnings, partners
from tilth.models.inference import evaluating
from tilth.models.segmenter import Segmenter


class S4PConfig(Config):
    """Settings of every S4P variant."""

    unlabelled_weight: float = pydantic.Field(1.0, ge=0, description="lambda: weight of all losses on unlabelled images")
    ramp_up_steps: int = pydantic.Field(0, ge=0, description="steps in which lambda rises linearly from 0; the S5 program has no ramp")
    partner: Literal["stream", "batch"] = pydantic.Field(
        "stream",
        description="where pasted boxes come from: a second unlabelled batch of other tiles (S5), or the other images of the same batch, "
        "which saves reading and labelling that second batch",
    )
    teacher: Literal["student", "average"] = pydantic.Field(
        "student", description="who labels: the network itself (S5), or its exponential moving average (needs loop.average_decay)"
    )
    teacher_mixed_precision: bool = pydantic.Field(
        False, description="let the teacher use the run's mixed precision; S5 runs it in full precision"
    )
    strong: StrongConfig = pydantic.Field(default_factory=StrongConfig, description="photometric augmentation of the strong view")
    collapse_grace: int = pydantic.Field(200, ge=0, description="steps before a collapse of the pseudo-labels is warned of")


@dataclass(frozen=True)
class Pool:
    """The unlabelled images of one step: B to learn from, then the partners that lend them boxes, if those are not among the B.

    Attributes:
        image: float32 (N, C, H, W), weak views.
        valid: bool (N, H, W).
        mask: int64 (N, H, W), given labels where there are any, else 255; looked at, never learnt from.
        draw: N seeds.
        partner: int64 (B,), whose box each of the first B gets: a place among the N.
    """

    image: Tensor
    valid: Tensor
    mask: Tensor
    draw: list[int]
    partner: Tensor

    @property
    def size(self) -> int:
        """B."""
        return len(self.partner)

    def mixed(self, box: Tensor, values: Tensor) -> Tensor:
        """Paste the partners' boxes, bool (B, H, W), into values (N, C, H, W) or (N, H, W) of the first B: (B, ...)."""
        return mix(box, values[self.partner], values[: self.size])

    def mixed_labels(self, box: Tensor, labels: PseudoLabels) -> PseudoLabels:
        """The same for pseudo-labels of all N."""
        return labels[: self.size].mixed(box, labels[self.partner])


class S4P(Method):
    """What the variants share; a variant says what a step is.

    Attributes:
        looser: in words, what makes the variant accept more pixels.
        stricter: what makes it accept fewer.
    """

    # The partner is drawn independently and is never the same tile (defect B1 of the official program).
    streams: Mapping[str, Stream] = {
        "labelled": Stream("labelled"),
        "unlabelled": Stream("unlabelled"),
        "partner": Stream("unlabelled", differs_from="unlabelled"),
    }
    config: S4PConfig
    looser = "lower settings.threshold"
    stricter = "raise settings.threshold"

    def __init__(self, config: S4PConfig, model: Segmenter) -> None:
        super().__init__(config, model)
        if config.partner == "batch":
            self.streams = {name: stream for name, stream in self.streams.items() if name != "partner"}

    def check(self) -> None:
        """Refuse an averaged teacher where no average is kept."""
        self._teacher()

    def warnings(self, shares: Mapping[str, list[float]], step: int) -> list[str]:
        """Warn of collapsed or absent pseudo-labels."""
        return collapse_warnings(shares, step, self.model.scheme.names, self.config.collapse_grace, self.looser, self.stricter)

    def pool(self, batches: Mapping[str, Batch], *boxes: Tensor) -> Pool:
        """Gather the unlabelled images of a step.

        Args:
            batches: of the streams.
            boxes: bool (B, H, W) each, on the CPU. A second batch is used only where a box asks for it: what would be pasted nowhere
                need be neither labelled nor augmented.
        """
        u = batches["unlabelled"]
        size, device = len(u["draw"]), u["image"].device
        if self.config.partner == "batch":
            places = torch.tensor(partners(u["draw"], u["tile_id"])).to(device)
            return Pool(u["image"], u["valid"], u["mask"], u["draw"], places)
        v = batches["partner"]
        wanted = [place for place in range(size) if any(bool(box[place].any()) for box in boxes)]
        position = {place: size + index for index, place in enumerate(wanted)}
        taken = torch.tensor(wanted, dtype=torch.int64).to(device)
        return Pool(
            torch.cat([u["image"], v["image"][taken]]),
            torch.cat([u["valid"], v["valid"][taken]]),
            torch.cat([u["mask"], v["mask"][taken]]),
            u["draw"] + [v["draw"][place] for place in wanted],
            torch.tensor([position.get(place, place) for place in range(size)]).to(device),
        )

    @torch.no_grad()
    def teach(self, image: Tensor) -> Tensor:
        """Compute the teacher's logits, float32 (N, K, H, W): in evaluation mode, without gradient, running statistics as they are."""
        teacher = self._teacher()
        if not len(image):
            return image.new_zeros(0, len(self.model.scheme), *image.shape[-2:], dtype=torch.float32)
        with evaluating(teacher), self.autocast() if self.config.teacher_mixed_precision else nullcontext():
            return cast("Tensor", teacher(image)).float()

    def weight(self, step: int) -> float:
        """Weight of the unlabelled losses in a step: lambda, or what the ramp allows of it."""
        return self.config.unlabelled_weight * min(1.0, (step + 1) / max(1, self.config.ramp_up_steps))

    def _teacher(self) -> nn.Module:
        if self.config.teacher == "student":
            return self.model
        if self.average is None:
            raise ConfigError("settings.teacher is 'average' but no average is kept; set loop.average_decay, for example to 0.99")
        return self.average
