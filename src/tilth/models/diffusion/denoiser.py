"""The noise predictor inside a Segmenter, called to denoise instead of to give maps."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from tilth.errors import ConfigError
from tilth.models.diffusion.features import DiffusionFeatures
from tilth.models.diffusion.segmentation import DiffusionSegmentor
from tilth.models.diffusion.unet import DiffusionUnet
from tilth.models.segmenter import Segmenter

_UNET = "encoder.unet."


class Denoiser(nn.Module):
    """A Segmenter whose noise predictor predicts noise; all else of it takes no gradient.

    Attributes:
        model: the Segmenter.
    """

    def __init__(self, model: Segmenter) -> None:
        """Take a Segmenter; its noise predictor is trained in place.

        Raises:
            ConfigError: it has none.
        """
        super().__init__()
        diffusion_features(model)
        self.model = model
        for name, parameter in model.network.named_parameters():
            # Parts that no map needs do not learn elsewhere, see DiffusionFeatures; here they do.
            parameter.requires_grad = name.startswith(_UNET)

    @property
    def unet(self) -> DiffusionUnet:
        """The noise predictor."""
        return diffusion_features(self.model).unet

    def train(self, mode: bool = True) -> Denoiser:
        """Set the mode of all parts, the noise predictor too: for denoising its dropout belongs to the training."""
        super().train(mode)
        self.unet.train(mode)
        return self

    def forward(self, noisy: Tensor, told: Tensor) -> Tensor:
        """Predict the noise in images.

        Args:
            noisy: float (B, C, H, W), [-1, 1] where clean.
            told: float (B,), the signal (SR3 type) or the index (guided type).

        Returns:
            float (B, C or 2C, H, W).
        """
        return cast("Tensor", self.unet(noisy, told))


def diffusion_features(model: Segmenter) -> DiffusionFeatures:
    """Return the encoder of a Segmenter, which holds a noise predictor.

    Raises:
        ConfigError: it is another one.
    """
    network = model.network
    if isinstance(network, DiffusionSegmentor):
        return network.encoder
    raise ConfigError(
        f"method 'ddpm' trains the noise predictor of network ddpm_segmentor, and the network is {model.config.network.title}; "
        "leave network.name, network.encoder and network.decoder out"
    )
