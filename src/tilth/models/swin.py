"""Swin Transformer as S5 uses it (s5_pretrain.md section 7.3; Liu et al. 2021, "Swin Transformer").

The variants of timm and torchvision compute something else on maps that are no multiple of the window: timm rolls before it pads, and
torchvision leaves the shift out where one window covers the map. S5 pads first and shifts always.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tilth.errors import ConfigError
from tilth.models.vision_transformers.attention import Attention, attend, check_attention, fresh_table, initialise
from tilth.models.vision_transformers.blocks import DropPath, FeedForward, drop_rates
from tilth.models.vision_transformers.relative import relative_index, table_bias
from tilth.models.vision_transformers.windows import join_windows, pad_below, shifted_mask, split_windows, up_to_multiple

PATCH = 4
"""Side of a patch in pixels."""

_EPSILON = 1e-5
"""Of every layer norm: what S5's weights were trained with."""


class WindowAttention(nn.Module):
    """Self-attention inside windows, with one learned bias for each offset and head.

    Attributes:
        relative_bias: table ((2 w - 1)^2, heads).
        attention: ``sdpa`` or ``explicit``.
    """

    relative_index: Tensor

    def __init__(self, width: int, heads: int, window: int, *, attention: Attention = "sdpa") -> None:
        super().__init__()
        self.heads = heads
        self.attention = check_attention(attention)
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.relative_bias = fresh_table((2 * window - 1) ** 2, heads)
        self.register_buffer("relative_index", relative_index(window), persistent=False)

    def forward(self, windows: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            windows: (B, windows, tokens, C).
            mask: (windows, tokens, tokens), added to the logits; None for windows that are whole.

        Returns:
            (B, windows, tokens, C).
        """
        batch, count, tokens, width = windows.shape
        # Windows stand beside heads, so that neither biases nor masks are repeated over the batch.
        query, key, value = (
            self.qkv(windows)
            .reshape(batch, count, tokens, 3, self.heads, width // self.heads)
            .permute(3, 0, 1, 4, 2, 5)
            .reshape(3, batch, count * self.heads, tokens, width // self.heads)
            .unbind(0)
        )
        bias = table_bias(self.relative_bias, self.relative_index)[None]
        bias = bias.expand(count, -1, -1, -1) if mask is None else bias + mask[:, None]
        mixed = attend(query, key, value, self.attention, bias.reshape(1, count * self.heads, tokens, tokens))
        mixed = mixed.reshape(batch, count, self.heads, tokens, -1).transpose(2, 3).reshape(batch, count, tokens, width)
        return cast("Tensor", self.projection(mixed))


class SwinBlock(nn.Module):
    """Window attention and feed-forward, each after a layer norm and around a shortcut.

    Attributes:
        shift: tokens by which the map is rolled before it is cut into windows.
    """

    def __init__(
        self, width: int, heads: int, window: int, *, shift: int, ratio: float, drop_path: float, attention: Attention = "sdpa"
    ) -> None:
        super().__init__()
        self.window = window
        self.shift = shift
        self.norm1 = nn.LayerNorm(width, eps=_EPSILON)
        self.attention = WindowAttention(width, heads, window, attention=attention)
        self.norm2 = nn.LayerNorm(width, eps=_EPSILON)
        self.feed_forward = FeedForward(width, round(width * ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, maps: Tensor, mask: Tensor) -> Tensor:
        """Map (B, H, W, C) to the same shape; ``mask`` is :func:`shifted_mask` of the padded map, and used where the block shifts."""
        attended = self._attend(self.norm1(maps), mask)
        maps = maps + self.drop_path(attended)
        return maps + cast("Tensor", self.drop_path(self.feed_forward(self.norm2(maps))))

    def _attend(self, normed: Tensor, mask: Tensor) -> Tensor:
        height, width = normed.shape[1:3]
        padded = pad_below(normed, self.window)
        below, right = padded.shape[1:3]
        if self.shift:
            padded = torch.roll(padded, (-self.shift, -self.shift), (1, 2))
        windows = self.attention(split_windows(padded, self.window), mask if self.shift else None)
        joined = join_windows(windows, self.window, below, right)
        if self.shift:
            joined = torch.roll(joined, (self.shift, self.shift), (1, 2))
        return joined[:, :height, :width]


class PatchMerging(nn.Module):
    """Halve a map (B, H, W, C) to (B, ceil(H/2), ceil(W/2), 2 C): four neighbours beside each other, layer norm, linear."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width, eps=_EPSILON)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Merge; an odd side is continued with zeros."""
        even = pad_below(maps, 2)
        # Down before right: the order in which published weights know the neighbours.
        parts = [even[:, 0::2, 0::2], even[:, 1::2, 0::2], even[:, 0::2, 1::2], even[:, 1::2, 1::2]]
        return cast("Tensor", self.reduction(self.norm(torch.cat(parts, -1))))


class SwinStage(nn.Module):
    """Blocks of one resolution, every second one shifted."""

    def __init__(self, width: int, heads: int, window: int, *, ratio: float, drop_path: Sequence[float], attention: Attention) -> None:
        super().__init__()
        self.window = window
        self.blocks = nn.ModuleList(
            SwinBlock(width, heads, window, shift=window // 2 if index % 2 else 0, ratio=ratio, drop_path=probability, attention=attention)
            for index, probability in enumerate(drop_path)
        )

    def forward(self, maps: Tensor, checkpointing: bool = False) -> Tensor:
        """Map (B, H, W, C) to the same shape; with ``checkpointing``, blocks are computed again in the backward pass."""
        height, width = (up_to_multiple(side, self.window) for side in maps.shape[1:3])
        mask = shifted_mask(height, width, self.window, self.window // 2, like=maps)
        for block in self.blocks:
            if checkpointing and self.training and torch.is_grad_enabled():
                maps = cast("Tensor", checkpoint(block, maps, mask, use_reentrant=False))
            else:
                maps = block(maps, mask)
        return maps


class SwinTransformer(nn.Module):
    """Swin encoder: images to four maps at strides 4, 8, 16, 32, each after a layer norm.

    It has no position embedding and takes any size; sides that are no multiples of 4 are cut by the patch convolution, so pad them first.

    Attributes:
        channels: of the maps, finest first.
        checkpointing: compute blocks again in the backward pass instead of keeping what is inside them.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        width: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        heads: Sequence[int] = (3, 6, 12, 24),
        window: int = 7,
        ratio: float = 4.0,
        drop_path: float = 0.3,
        attention: Attention = "sdpa",
        checkpointing: bool = False,
    ) -> None:
        """Build with fresh weights.

        Args:
            in_channels: bands C.
            width: channels of the first map; doubled by every stage.
            depths: blocks of each stage.
            heads: attention heads of each stage.
            window: side of a window in tokens.
            ratio: width of the feed-forward parts as a multiple of the stage's.
            drop_path: probability of leaving the last block's branches out; grows linearly from 0. Both branches have it.
            attention: ``sdpa`` or ``explicit``.
            checkpointing: compute blocks again in the backward pass.

        Raises:
            ConfigError: there are no stages, depths and heads differ in number, or a width cannot be divided by its heads.
        """
        super().__init__()
        if not depths:
            raise ConfigError("Swin: depths is empty; give the number of blocks of each stage, such as [2, 2, 6, 2]")
        self.channels = [width * 2**stage for stage in range(len(depths))]
        if len(heads) != len(depths):
            raise ConfigError(f"Swin: {len(depths)} depths but {len(heads)} numbers of heads; give one of each for every stage")
        for channels, count in zip(self.channels, heads, strict=True):
            if channels % count:
                raise ConfigError(f"Swin: {channels} channels cannot be divided among {count} heads; mind that widths double by stage")
        rates = drop_rates(drop_path, sum(depths))
        self.patch_embedding = PatchEmbedding(in_channels, width)
        self.stages = nn.ModuleList()
        for depth, channels, count in zip(depths, self.channels, heads, strict=True):
            own, rates = rates[:depth], rates[depth:]
            self.stages.append(SwinStage(channels, count, window, ratio=ratio, drop_path=own, attention=attention))
        self.mergings = nn.ModuleList(PatchMerging(channels) for channels in self.channels[:-1])
        self.norms = nn.ModuleList(nn.LayerNorm(channels, eps=_EPSILON) for channels in self.channels)
        initialise(self)
        self.checkpointing = checkpointing

    def forward(self, image: Tensor) -> list[Tensor]:
        """Encode images (B, C, H, W) into maps (B, c, h, w), finest first."""
        maps = self.patch_embedding(image)
        outputs = []
        for level, (stage, norm) in enumerate(zip(self.stages, self.norms, strict=True)):
            if level:
                maps = self.mergings[level - 1](maps)
            maps = stage(maps, self.checkpointing)
            outputs.append(norm(maps).permute(0, 3, 1, 2).contiguous())
        return outputs


class PatchEmbedding(nn.Module):
    """Patches of 4 x 4 pixels to tokens with a layer norm: images (B, C, H, W) to (B, H/4, W/4, width)."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(in_channels, width, kernel_size=PATCH, stride=PATCH)
        self.norm = nn.LayerNorm(width, eps=_EPSILON)

    def forward(self, image: Tensor) -> Tensor:
        """Embed."""
        return cast("Tensor", self.norm(self.projection(image).permute(0, 2, 3, 1)))
