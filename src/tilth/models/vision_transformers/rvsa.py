"""Vision transformer that attends in rotated windows of varied size, and in some layers everywhere (s5_pretrain.md section 7.2).

After Wang et al. 2022, "Advancing Plain Vision Transformer Toward Remote Sensing Foundation Model". For each window and head, the window
that keys and values are sampled from is moved, stretched and turned.

Shapes: B images, C width, A heads, d = C / A, R rows and S columns of tokens, w side of a window, W windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tilth.errors import ConfigError
from tilth.models.vision_transformers.attention import Attention, attend, check_attention, fresh_table, initialise
from tilth.models.vision_transformers.blocks import DropPath, FeedForward, check_taps, drop_rates, freeze_unused, run_blocks, spread_taps
from tilth.models.vision_transformers.positions import Grid, resize_positions, token_grid
from tilth.models.vision_transformers.pyramid import FeaturePyramid
from tilth.models.vision_transformers.relative import decomposed_bias, relative_index, table_bias
from tilth.models.vision_transformers.samples import OffsetAxes, check_offset_axes, window_samples
from tilth.models.vision_transformers.windows import join_windows, split_windows

_EPSILON = 1e-6
"""Of every layer norm, unlike S5's plain ViT."""


class RotatedWindowAttention(nn.Module):
    """Attention of the tokens of a window to samples from a window that is moved, stretched and turned for each head.

    Maps are padded with zeros to whole windows on all four sides. Padded keys are not hidden: what is sampled there is zero.

    Attributes:
        offsets: Conv2d C -> 2 A on the mean of a window; x and y of each head.
        scales: the same.
        angles: Conv2d C -> A.
        window_relative_rows: table (2 w - 1, d).
        window_relative_columns: table (2 w - 1, d).
        relative_bias: table ((2 w - 1)^2, A).
        offset_axes: how offsets are scaled, see :data:`tilth.models.vision_transformers.samples.OffsetAxes`.
    """

    relative_index: Tensor

    def __init__(self, width: int, heads: int, window: int, attention: Attention = "sdpa", offset_axes: OffsetAxes = "corrected") -> None:
        super().__init__()
        self.offset_axes = check_offset_axes(offset_axes)
        self.heads = heads
        self.window = window
        self.attention = check_attention(attention)
        self.offsets = nn.Conv2d(width, 2 * heads, 1)
        self.scales = nn.Conv2d(width, 2 * heads, 1)
        self.angles = nn.Conv2d(width, heads, 1)
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.window_relative_rows = nn.Parameter(torch.zeros(2 * window - 1, width // heads))
        self.window_relative_columns = nn.Parameter(torch.zeros(2 * window - 1, width // heads))
        self.relative_bias = fresh_table((2 * window - 1) ** 2, heads)
        self.register_buffer("relative_index", relative_index(window), persistent=False)

    def forward(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Compute float (B, R * S, C) from float (B, R * S, C) of a grid R, S."""
        (rows, columns), (batch, _, width) = grid, tokens.shape
        missing_rows, missing_columns = -rows % self.window, -columns % self.window
        top, left = missing_rows // 2, missing_columns // 2
        padding = (0, 0, left, missing_columns - left, top, missing_rows - top)
        places = self._places(F.pad(tokens.reshape(batch, rows, columns, width), padding), grid)
        # Padded behind the linear layer, so that its bias does not reach the border.
        projected = F.pad(self.qkv(tokens).reshape(batch, rows, columns, 3 * width), padding)
        query = self._queries(projected[..., :width])
        key, value = self._samples(projected[..., width:], places)
        bias = decomposed_bias(query, self.window_relative_rows, self.window_relative_columns, (self.window, self.window))
        by_offset = table_bias(self.relative_bias, self.relative_index).repeat(bias.shape[1] // self.heads, 1, 1)
        mixed = attend(query, key, value, self.attention, bias + by_offset)
        windows = mixed.reshape(batch, -1, self.heads, *mixed.shape[2:]).transpose(2, 3).flatten(3)
        joined = join_windows(windows, self.window, rows + missing_rows, columns + missing_columns)
        return cast("Tensor", self.projection(joined[:, top : top + rows, left : left + columns].flatten(1, 2)))

    def _places(self, maps: Tensor, grid: Grid) -> Tensor:
        """Read off the mean of each window of (B, H, W, C) where it samples: (B, A, H, W, 2)."""
        means = F.leaky_relu(F.avg_pool2d(maps.permute(0, 3, 1, 2), self.window), 0.01)
        (batch, _, down, right), pairs = means.shape, (self.heads, 2)
        offsets = self.offsets(means).reshape(batch, *pairs, down, right)
        scales = self.scales(means).reshape(batch, *pairs, down, right)
        return window_samples(offsets, scales, self.angles(means), grid, self.window, self.offset_axes)

    def _queries(self, maps: Tensor) -> Tensor:
        """Cut (B, H, W, C) into (B, W * A, w^2, d); windows first, then heads."""
        windows = split_windows(maps, self.window)
        batch, count, tokens, width = windows.shape
        return windows.reshape(batch, count, tokens, self.heads, width // self.heads).transpose(2, 3).flatten(1, 2)

    def _samples(self, maps: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Sample keys and values, side by side in (B, H, W, 2 C), into two of (B, W * A, w^2, d)."""
        batch, height, width, channels = maps.shape
        # Each head's keys and values lie together, so that both are sampled at once.
        parts = maps.reshape(batch, height, width, 2, self.heads, channels // (2 * self.heads)).permute(0, 4, 3, 5, 1, 2)
        sources = parts.reshape(batch * self.heads, channels // self.heads, height, width)
        sampled = F.grid_sample(sources.to(places.dtype), places.flatten(0, 1), padding_mode="zeros", align_corners=True).to(maps.dtype)
        side = self.window
        windows = sampled.reshape(batch, self.heads, 2, -1, height // side, side, width // side, side)
        key, value = windows.permute(2, 0, 4, 6, 1, 5, 7, 3).flatten(5, 6).flatten(2, 4).unbind(0)
        return key, value


class RelativeAttention(nn.Module):
    """Attention of all tokens to all, with learned relative positions along rows and columns.

    The tables are made for one grid and resized along their length to others.

    Attributes:
        relative_rows: table (2 R - 1, d) of the grid at construction.
        relative_columns: table (2 S - 1, d).
    """

    def __init__(self, width: int, heads: int, grid: Grid, attention: Attention = "sdpa") -> None:
        super().__init__()
        self.heads = heads
        self.attention = check_attention(attention)
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.relative_rows = nn.Parameter(torch.zeros(2 * grid[0] - 1, width // heads))
        self.relative_columns = nn.Parameter(torch.zeros(2 * grid[1] - 1, width // heads))

    def forward(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Compute float (B, R * S, C) from float (B, R * S, C) of a grid R, S."""
        batch, count, width = tokens.shape
        query, key, value = self.qkv(tokens).reshape(batch, count, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        # Of the scaled query, unlike in windows.
        bias = decomposed_bias(query * query.shape[-1] ** -0.5, self.relative_rows, self.relative_columns, grid)
        mixed = attend(query, key, value, self.attention, bias)
        return cast("Tensor", self.projection(mixed.transpose(1, 2).flatten(2)))


class RelativeBlock(nn.Module):
    """Layer that normalises first, with either attention of this module; both branches can be dropped.

    Attributes:
        attention: :class:`RotatedWindowAttention` or :class:`RelativeAttention`.
    """

    def __init__(self, width: int, attention: RotatedWindowAttention | RelativeAttention, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=_EPSILON)
        self.attention = attention
        self.norm2 = nn.LayerNorm(width, eps=_EPSILON)
        self.feed_forward = FeedForward(width, 4 * width)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Compute float (B, R * S, C) from float (B, R * S, C) of a grid R, S."""
        tokens = tokens + self.drop_path(self.attention(self.norm1(tokens), grid))
        return cast("Tensor", tokens + self.drop_path(self.feed_forward(self.norm2(tokens))))


class RotatedWindowTransformer(nn.Module):
    """Patches, learned positions, layers of rotated windows and some of full attention, and maps from four of them. No norm at the end.

    Attributes:
        patch_embedding: convolution, image (B, bands, H, W) -> (B, C, R, S).
        position_embedding: (1, R * S, C) of ``grid``.
        grid: rows and columns that positions, and the tables of full attention, are made for.
        blocks: the layers; those behind the last tap never run and do not train.
        taps: 0-based layers whose output is given on, shallow to deep.
        pyramid: makes four scales of them.
        checkpointing: see :func:`tilth.models.vision_transformers.blocks.run_blocks`.
    """

    def __init__(
        self,
        in_channels: int,
        image_size: int,
        *,
        width: int,
        depth: int,
        heads: int,
        interval: int,
        window: int = 7,
        patch: int = 16,
        taps: Sequence[int] | None = None,
        drop_path: float = 0.1,
        offset_axes: OffsetAxes = "corrected",
        attention: Attention = "sdpa",
        checkpointing: bool = False,
    ) -> None:
        """Build with fresh weights.

        Args:
            in_channels: bands.
            image_size: side in pixels that positions and the tables of full attention are made for.
            width: channels C of tokens.
            depth: layers.
            heads: of attention; divides ``width``.
            interval: every how many layers attention is full; the last of each group.
            window: side of a window in tokens.
            patch: side of a patch in pixels, 16 or 8.
            taps: four layers, 0-based; by default the ends of the quarters.
            drop_path: rate at the last layer, growing from 0 at the first.
            offset_axes: how offsets of windows are scaled on images that are not square: ``corrected``, or ``official``.
            attention: how attention is computed.
            checkpointing: save memory in training by computing activations twice.

        Raises:
            ConfigError: numbers that do not go together.
        """
        super().__init__()
        if heads < 1 or width % heads:
            raise ConfigError(f"heads={heads} does not divide width={width}; choose numbers that do")
        if interval < 1 or window < 2:
            raise ConfigError(
                f"interval={interval}, window={window}: give an interval of at least 1 layer and windows of at least 2 tokens"
            )
        check_offset_axes(offset_axes)  # here too, as there may be no layer of rotated windows
        self.grid = token_grid(image_size, patch)
        self.taps = check_taps(spread_taps(depth) if taps is None else taps, depth)
        self.checkpointing = checkpointing
        self.patch_embedding = nn.Conv2d(in_channels, width, kernel_size=patch, stride=patch)
        self.position_embedding = fresh_table(1, self.grid[0] * self.grid[1], width)
        self.blocks = nn.ModuleList()
        for index, rate in enumerate(drop_rates(drop_path, depth)):
            part: RotatedWindowAttention | RelativeAttention
            if (index + 1) % interval:
                part = RotatedWindowAttention(width, heads, window, attention, offset_axes)
            else:
                part = RelativeAttention(width, heads, self.grid, attention)
            block = RelativeBlock(width, part, rate)
            initialise(block)
            with torch.no_grad():  # deeper layers begin with less to say (s5_pretrain.md section 6)
                part.projection.weight.div_((2 * (index + 1)) ** 0.5)
                block.feed_forward.contract.weight.div_((2 * (index + 1)) ** 0.5)
            self.blocks.append(block)
        freeze_unused(self.blocks, self.taps)
        self.pyramid = FeaturePyramid(width, enlarge=2 if patch == 8 else 4)

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the four maps."""
        return (self.patch_embedding.out_channels,) * len(self.taps)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Compute feature maps.

        Args:
            image: float (B, bands, H, W), sides multiples of the patch, at least 32.

        Returns:
            Four maps float (B, C, h, w), finest first.
        """
        as_map = self.patch_embedding(image)
        batch, width, rows, columns = as_map.shape
        tokens = as_map.flatten(2).transpose(1, 2) + resize_positions(self.position_embedding, self.grid, (rows, columns))
        outputs = run_blocks(self.blocks, tokens, self.taps, self.checkpointing, (rows, columns))
        return cast("list[Tensor]", self.pyramid([output.transpose(1, 2).reshape(batch, width, rows, columns) for output in outputs]))
