"""Segmentation on the maps of a noise predictor: few labels, a small head, and the noise predictor frozen or not; ddpm.md section 10."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import pydantic

from tilth.augment.stretch import linear_stretch
from tilth.batch import Batch
from tilth.config import Config
from tilth.errors import ConfigError
from tilth.methods.base import Losses
from tilth.methods.ddpm.cache import BehindEncoder, CacheSettings
from tilth.methods.supervised import Supervised, SupervisedConfig
from tilth.models.diffusion.segmentation import DiffusionSegmentor
from tilth.models.segmenter import Segmenter


class StretchConfig(Config):
    """Linear stretch of labelled images; the paper says "a random interval of 5-15 %" and no more."""

    probability: float = pydantic.Field(0.5, ge=0, le=1, description="with which an image is stretched; 0 for never")
    least: float = pydantic.Field(0.05, ge=0, lt=0.5, description="least share of the range that is cut at either end")
    greatest: float = pydantic.Field(0.15, ge=0, lt=0.5, description="greatest share")
    percentile: bool = pydantic.Field(False, description="cut that share of the values instead, half at either end")

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if self.least > self.greatest:
            raise ValueError(f"least ({self.least:g}) must not be more than greatest ({self.greatest:g})")
        return self


class SegmentConfig(SupervisedConfig, CacheSettings):
    """Settings of segmentation on diffusion features."""

    stretch: StretchConfig = pydantic.Field(default_factory=StretchConfig, description="linear stretch of the labelled images")


class Segment(Supervised):
    """Supervised training of a head; noise is drawn anew for every image, which is an augmentation by itself."""

    Config: ClassVar[type[Config]] = SegmentConfig
    defaults: ClassVar[Mapping[str, Any]] = {
        "network": {"name": "ddpm_segmentor"},
        "weak": {"size": 256, "scale_min": 1.0, "scale_max": 1.0, "rot90": True},
        "loop": {
            "learning_rate": 2e-4,
            "weight_decay": 1e-4,
            "batch_size": 16,
            # The head keeps maps of all tiles of a pass: in two passes under 4 GB.
            "accumulate": 2,
            "transfer": {"frozen": "always", "encoder_rate": 0.1},
        },
    }
    config: SegmentConfig

    def __init__(self, config: SegmentConfig, model: Segmenter) -> None:
        if not isinstance(model.network, DiffusionSegmentor):
            raise ConfigError(
                f"method 'ddpm' trains on the maps of a noise predictor, and the network is {model.config.network.title}; "
                "set network.name=ddpm_segmentor, or take method supervised"
            )
        super().__init__(config, model)

    def use_kept_features(self) -> None:
        """Learn from kept maps: what is trained is the part behind the encoder. To be called before the loop takes the method."""
        self.trained = self.student = BehindEncoder(self.model)

    def step(self, batches: Mapping[str, Batch], step: int) -> Losses:
        """Losses of stretched images over pixels whose label is not 255."""
        batch, stretch = batches["labelled"], self.config.stretch
        if "features" in batch:
            height, width = batch["mask"].shape[-2:]
            return self.losses(self.student(batch["features"], (height, width)), batch)
        if stretch.probability > 0:
            image = linear_stretch(
                batch["image"],
                batch["valid"],
                self.model.sensor,
                batch["draw"],
                probability=stretch.probability,
                share=(stretch.least, stretch.greatest),
                percentile=stretch.percentile,
            )
            batch = {**batch, "image": image}
        return super().step({"labelled": batch}, step)


METHOD = Segment
