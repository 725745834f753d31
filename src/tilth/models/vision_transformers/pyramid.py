"""Four scales from the one scale of a plain vision transformer (s5_pretrain.md section 7.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each pixel of maps (B, C, H, W)."""

    def forward(self, maps: Tensor) -> Tensor:
        """Compute float (B, C, H, W) from float (B, C, H, W)."""
        channels_last = maps.permute(0, 2, 3, 1)
        return F.layer_norm(channels_last, self.normalized_shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


class FeaturePyramid(nn.Module):
    """Maps of four depths and one scale become maps of four scales, all with C channels.

    Factors to the scale of the tokens are 4, 2, 1, 1/2, which for patches of 16 pixels gives strides 4, 8, 16, 32; with ``enlarge=2``
    they are 2, 1, 1/2, 1/4, which gives the same strides for patches of 8.

    Attributes:
        levels: one module for each scale, finest first.
    """

    def __init__(self, width: int, enlarge: Literal[4, 2] = 4) -> None:
        super().__init__()
        if enlarge == 4:
            self.levels = nn.ModuleList(
                [
                    nn.Sequential(_double(width), ChannelNorm(width, eps=1e-6), nn.GELU(), _double(width)),
                    nn.Sequential(_double(width)),
                    nn.Identity(),
                    nn.MaxPool2d(2),
                ]
            )
        else:
            self.levels = nn.ModuleList([nn.Sequential(_double(width)), nn.Identity(), nn.MaxPool2d(2), nn.MaxPool2d(4)])

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Compute four maps (B, C, h, w), finest first, from four maps (B, C, rows, columns), shallow to deep."""
        return [level(found) for level, found in zip(self.levels, maps, strict=True)]


def _double(width: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(width, width, kernel_size=2, stride=2)
