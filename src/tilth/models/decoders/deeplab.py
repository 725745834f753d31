"""DeepLabV3+ decoder of S5 and UniMatch (s5_pretrain.md section 7.5).

After Chen et al. 2018, "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation".
Plain convolutions, unlike the depthwise ones of segmentation-models-pytorch, and other widths: another network under the same name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tilth.models.decoders.parts import ConvolutionBlock, check_statistics


class PyramidOfDilations(nn.Module):
    """Atrous spatial pyramid pooling: what lies at several distances, and the mean of the map, brought together.

    Args:
        in_channels: of the deepest map.
        channels: of every branch and of the result.
        dilations: distances of the 3 x 3 branches, in pixels of the map.
    """

    def __init__(self, in_channels: int, channels: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList([ConvolutionBlock(in_channels, channels)])
        self.branches.extend(ConvolutionBlock(in_channels, channels, kernel=3, dilation=dilation) for dilation in dilations)
        self.mean = ConvolutionBlock(in_channels, channels)
        self.projection = ConvolutionBlock((len(dilations) + 2) * channels, channels)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, channels, h, w).

        Raises:
            UsageError: a training batch of one image, for which batch norm behind the mean has no statistics.
        """
        check_statistics(features, self.mean.norm, 1, "DeepLabV3+")
        mean = self.mean(features.mean((2, 3), keepdim=True)).expand(-1, -1, *features.shape[2:])
        return cast("Tensor", self.projection(torch.cat([*(branch(features) for branch in self.branches), mean], 1)))


class DeepLabDecoder(nn.Module):
    """Deepest map through a pyramid of dilations, joined with the finest map at stride 4.

    Args:
        in_channels: of the encoder's maps, finest first; the first and the last are used.
        channels: of the pyramid and of the result.
        fine_channels: that the finest map is reduced to.
        dilations: of the pyramid.

    Attributes:
        out_channels: of the result.
    """

    def __init__(
        self, in_channels: Sequence[int], *, channels: int = 256, fine_channels: int = 48, dilations: Sequence[int] = (6, 12, 18)
    ) -> None:
        super().__init__()
        self.out_channels = channels
        self.pyramid = PyramidOfDilations(in_channels[-1], channels, dilations)
        self.reduction = ConvolutionBlock(in_channels[0], fine_channels)
        self.fusion = nn.Sequential(
            ConvolutionBlock(fine_channels + channels, channels, kernel=3), ConvolutionBlock(channels, channels, kernel=3)
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        """Turn feature maps, finest first, into one map (B, channels, h, w) of the finest map's size."""
        fine = features[0]
        deep = F.interpolate(self.pyramid(features[-1]), size=fine.shape[-2:], mode="bilinear", align_corners=True)
        return cast("Tensor", self.fusion(torch.cat([self.reduction(fine), deep], 1)))
