"""MAE: an encoder learns from unlabelled tiles by painting the patches that were hidden from it (He et al., CVPR 2022)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, Self

import pydantic
from torch import Tensor
from torch.nn import functional as F

from tilth.batch import Batch
from tilth.config import Config
from tilth.errors import ConfigError
from tilth.methods.base import Losses, Method, Score, Stream
from tilth.models.encoder_folder import save_encoder
from tilth.models.mae import MaskedAutoencoder, draw_visible, maskable_encoder, painting_error
from tilth.models.network import pad_to_multiple
from tilth.models.segmenter import Segmenter


class MaeConfig(Config):
    """Settings of MAE; defaults are those of its paper."""

    mask_ratio: float = pydantic.Field(0.75, gt=0, lt=1, description="share of the patches that are hidden (MAE: 0.75)")
    normalise_patches: bool = pydantic.Field(
        True, description="paint patches normalised each by itself, over the values of all bands together (MAE's better choice)"
    )
    decoder_width: int = pydantic.Field(512, ge=4, description="channels of the decoder (MAE: 512); smaller is faster")
    decoder_depth: int = pydantic.Field(8, ge=1, description="layers of the decoder (MAE: 8)")
    decoder_heads: int = pydantic.Field(16, ge=1, description="heads of the decoder's attention (MAE: 16)")

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if self.decoder_width % 4 or self.decoder_width % self.decoder_heads:
            raise ValueError(f"decoder_width {self.decoder_width} must be a multiple of 4 and of decoder_heads ({self.decoder_heads})")
        return self


class Mae(Method):
    """Three quarters of the patches are hidden; from the others the encoder, and a decoder that is thrown away, paint them."""

    Config: ClassVar[type[Config]] = MaeConfig
    needs_labels = False
    score = Score("validation_loss", higher_is_better=False)
    streams: Mapping[str, Stream] = {"unlabelled": Stream("unlabelled")}
    config: MaeConfig

    def __init__(self, config: MaeConfig, model: Segmenter) -> None:
        super().__init__(config, model)
        self.painter = MaskedAutoencoder(model, width=config.decoder_width, depth=config.decoder_depth, heads=config.decoder_heads)
        self.trained = self.student = self.painter

    def start_fresh(self) -> None:
        """Begin with positions by sine and cosine, as MAE does; here they are learned on from there."""
        maskable_encoder(self.model).start_positions()

    def check(self) -> None:
        """Refuse an average: the decoder, which is needed to score an encoder, would not belong to the averaged one."""
        if self.average is not None:
            raise ConfigError("method 'mae' keeps no average of the weights; leave loop.average_decay out")

    def step(self, batches: Mapping[str, Batch], step: int) -> Losses:  # noqa: ARG002 - every step is alike
        """Mean squared error over the values of hidden valid pixels; 0 where there are none."""
        error, count = self._painted(batches["unlabelled"], self.student)
        return Losses({"loss_masked": error / self.count(count).clamp(min=1)})

    def validation_sums(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The same loss of held-out tiles, as sum and count; what is hidden in a tile is the same at every validation."""
        return self._painted(batch, self.trained)  # one process validates alone, so without what makes processes wait for each other

    def export(self, model: Segmenter, folder: Path) -> None:
        """Write the encoder alone: decoder and classes of the network were not trained."""
        save_encoder(model, folder, left_out=self.painter.left_out)

    def _painted(self, batch: Batch, painter: Callable[..., Tensor]) -> tuple[Tensor, Tensor]:
        """Sum of squared errors on a batch, and number of values in it."""
        patch, config = self.painter.patch, self.config
        # Crops of odd sides are continued to whole patches, with pixels that never count.
        image = pad_to_multiple(batch["image"], patch)
        bottom, right = (image.shape[axis] - batch["image"].shape[axis] for axis in (-2, -1))
        valid = F.pad(batch["valid"], (0, right, 0, bottom), value=False)
        patches = (image.shape[-2] // patch) * (image.shape[-1] // patch)

        visible = draw_visible(batch["draw"], patches, config.mask_ratio).to(image.device)
        painted = painter(image, visible)
        return painting_error(painted, image, valid, visible, patch, config.normalise_patches)


METHOD = Mae
