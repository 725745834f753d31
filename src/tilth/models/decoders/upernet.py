"""UperNet: pooled context on the coarsest map, a pyramid from coarse to fine, all levels fused at the finest (s5_pretrain.md section 7.4).

Shapes: B images, c channels of the decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tilth.errors import ConfigError
from tilth.models.decoders.parts import ConvolutionBlock, check_statistics


class UperNet(nn.Module):
    """Feature maps of several scales -> one map of the finest scale.

    Attributes:
        pools: sides in pixels that the coarsest map is pooled to.
        pooled: 1 x 1 block for each of them.
        context: 3 x 3 block over the coarsest map and all pooled ones.
        laterals: 1 x 1 block for each of the other maps.
        smoothings: 3 x 3 block for each of the other maps, behind the sum with the coarser ones.
        fusion: 3 x 3 block over all levels.
        unused_projection: c -> 1 convolution that S5's files carry and no pass uses; or None.
    """

    def __init__(
        self, in_channels: Sequence[int], channels: int = 256, pools: Sequence[int] = (1, 2, 3, 6), *, unused_projection: bool = False
    ) -> None:
        """Build with fresh weights.

        Args:
            in_channels: of the feature maps, finest first; at least two.
            channels: c.
            pools: sides that the coarsest map is pooled to.
            unused_projection: carry along the parameters that S5's files have beside it.

        Raises:
            ConfigError: fewer than two feature maps.
        """
        super().__init__()
        if len(in_channels) < 2:
            raise ConfigError(f"UperNet fuses feature maps of two scales or more, and got {len(in_channels)}")
        *finer, coarsest = in_channels
        self.pools = tuple(pools)
        self.pooled = nn.ModuleList(ConvolutionBlock(coarsest, channels) for _ in self.pools)
        self.context = ConvolutionBlock(coarsest + len(self.pools) * channels, channels, kernel=3)
        self.laterals = nn.ModuleList(ConvolutionBlock(width, channels) for width in finer)
        self.smoothings = nn.ModuleList(ConvolutionBlock(channels, channels, kernel=3) for _ in finer)
        self.fusion = ConvolutionBlock(len(in_channels) * channels, channels, kernel=3)
        self.unused_projection = nn.Conv2d(channels, 1, kernel_size=1).requires_grad_(False) if unused_projection else None

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Compute a map float (B, c, h, w).

        Args:
            features: float (B, in_channels[i], h / 2^i, w / 2^i) or about that, finest first.

        Raises:
            UsageError: a training batch of one image, for which batch norm behind the pooling to one pixel has no statistics.
        """
        *finer, coarsest = features
        merged = self._context(coarsest)
        levels = [merged]
        for index in reversed(range(len(finer))):
            merged = self.laterals[index](finer[index]) + _resize(merged, finer[index])
            levels.insert(0, self.smoothings[index](merged))
        return cast("Tensor", self.fusion(torch.cat([_resize(level, levels[0]) for level in levels], dim=1)))

    def _context(self, coarsest: Tensor) -> Tensor:
        collected = [coarsest]
        for pool, block in zip(self.pools, self.pooled, strict=True):
            check_statistics(coarsest, cast("ConvolutionBlock", block).norm, pool, "UperNet")
            collected.append(_resize(block(F.adaptive_avg_pool2d(coarsest, pool)), coarsest))
        return cast("Tensor", self.context(torch.cat(collected, dim=1)))


def _resize(maps: Tensor, like: Tensor) -> Tensor:
    size = like.shape[-2:]
    return maps if maps.shape[-2:] == size else F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
