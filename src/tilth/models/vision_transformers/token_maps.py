"""UperNet on maps that all have the scale of a transformer's tokens (cromss.md section 7.4).

Shapes: B images, C width of tokens, c channels of the decoder, R rows and S columns of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tilth.models.decoders.parts import ConvolutionBlock
from tilth.models.decoders.upernet import UperNet


class TokenMapUperNet(UperNet):
    """UperNet over four maps of one scale, enlarged so that they lie at 1, 1/2, 1/4 and 1/8 of the image.

    It differs from S5's UperNet in two ways: maps are enlarged bilinearly instead of by learned layers, and pooled maps are enlarged before
    their 1 x 1 block instead of behind it.

    Attributes:
        patch: side of a token's patch in pixels.
    """

    def __init__(
        self, in_channels: Sequence[int], channels: int = 256, pools: Sequence[int] = (1, 2, 3, 6), *, patch: int | None = None
    ) -> None:
        """Build with fresh weights.

        Args:
            in_channels: of the maps.
            channels: c.
            pools: sides that the coarsest map is pooled to.
            patch: side of a patch in pixels; None takes maps that have their sizes already.
        """
        super().__init__(in_channels, channels, pools)
        self.patch = patch

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Compute a map float (B, c, patch * R, patch * S).

        Args:
            features: float (B, C, R, S), shallow to deep.
        """
        sizes = [self._size(found, level) for level, found in enumerate(features)]
        merged = self._context(_enlarge(features[-1], sizes[-1]))
        levels = [merged]
        for index in reversed(range(len(features) - 1)):
            merged = _enlarged_block(self.laterals[index], features[index], sizes[index]) + _enlarge(merged, sizes[index])
            levels.insert(0, self.smoothings[index](merged))
        return cast("Tensor", self.fusion(torch.cat([_enlarge(level, sizes[0]) for level in levels], dim=1)))

    def _size(self, found: Tensor, level: int) -> tuple[int, int]:
        rows, columns = found.shape[-2:]
        return (rows, columns) if self.patch is None else (rows * self.patch >> level, columns * self.patch >> level)

    def _context(self, coarsest: Tensor) -> Tensor:
        collected = [coarsest]
        size = (coarsest.shape[-2], coarsest.shape[-1])
        for pool, block in zip(self.pools, self.pooled, strict=True):
            collected.append(_enlarged_block(block, F.adaptive_avg_pool2d(coarsest, pool), size))
        return cast("Tensor", self.context(torch.cat(collected, dim=1)))


def _enlarged_block(block: nn.Module, maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarge maps and put them through a 1 x 1 block.

    The convolution commutes with the enlargement and comes first, on the fewer pixels and to the fewer channels: at the size of the image
    the map itself would be four times as large as what follows. The norm comes behind: its statistics are those of the enlarged map.
    """
    assert isinstance(block, ConvolutionBlock)
    return F.relu(block.norm(_enlarge(block.convolution(maps), size)))


def _enlarge(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return maps if maps.shape[-2:] == size else F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
