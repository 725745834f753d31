"""Perturbed features: a network that also decodes copies of its feature maps with channels dropped (s5_pretrain.md section 8).

Shapes: B images, n of them perturbed, K classes, c channels of a feature map, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from tilth import seeds
from tilth.models.inference import evaluating
from tilth.models.network import pad_to_multiple
from tilth.models.segmenter import Segmenter


class ChannelDropping(nn.Module):
    """A network around the model: what is dropped comes from outside, so evaluation and resuming know nothing of chance.

    Attributes:
        model: the network.
    """

    def __init__(self, model: Segmenter) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, kept: Sequence[Tensor] | None = None) -> Tensor:
        """Compute logits, and those of perturbed copies.

        Args:
            image: float (B, C, H, W), normalised.
            kept: factors for the channels of each feature map, float (n, c), for the last n images.

        Returns:
            float (B + n, K, H, W): of the images, then of the copies. Both go through the decoder together and share its batch statistics.
        """
        features = encode_padded(self.model, image)
        return decode_cut(self.model, features if kept is None else with_dropped(features, kept), image)


def encode_padded(model: Segmenter, image: Tensor) -> list[Tensor]:
    """Feature maps of images of any size, finest first."""
    return model.encode(pad_to_multiple(image, model.network.divisor, model.network.minimum))


def decode_cut(model: Segmenter, features: list[Tensor], image: Tensor) -> Tensor:
    """Logits of feature maps, cut back to the size of the images."""
    return model.decode(features)[..., : image.shape[-2], : image.shape[-1]]


def with_dropped(features: Sequence[Tensor], kept: Sequence[Tensor]) -> list[Tensor]:
    """Append copies of the last n images' maps, multiplied by ``kept``, float (n, c) for each map."""
    return [
        torch.cat([maps, maps[-len(factors) :] * factors[:, :, None, None].to(maps.dtype)])
        for maps, factors in zip(features, kept, strict=True)
    ]


def feature_widths(model: Segmenter) -> list[int]:
    """Channels of the feature maps, finest first: from the smallest image that the network takes."""
    weight = next(model.parameters())
    with evaluating(model):
        return [maps.shape[1] for maps in encode_padded(model, weight.new_zeros(1, len(model.sensor), 1, 1))]


def kept_channels(
    draws: Sequence[int], widths: Sequence[int], rate: float, device: torch.device, purpose: str = "channels"
) -> list[Tensor]:
    """Draw which channels are dropped, each sample's as a pure function of its seed (Dropout2d, but resumable and the same in any process).

    Args:
        draws: n seeds, ``Batch["draw"]``.
        widths: c of each feature map.
        rate: probability that a channel is dropped, below 1.
        device: where to put the result.
        purpose: other words give other draws.

    Returns:
        For each map float32 (n, c): 0 or 1 / (1 - rate).
    """
    chosen = np.stack([seeds.generator(draw, purpose).random(sum(widths)) >= rate for draw in draws])
    return list(torch.split(torch.from_numpy(chosen).to(device) / (1 - rate), list(widths), dim=1))
