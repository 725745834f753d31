"""What both families of noise predictors are made of; ddpm.md sections 4 and 5."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tilth.errors import ConfigError, suggest

Attend = Literal["sdpa", "explicit"]
HeadOrder = Literal["legacy", "new"]


class GroupNorm(nn.GroupNorm):
    """Group norm (eps 1e-5) that computes in float32 and gives back the type that it got."""

    def __init__(self, groups: int, width: int) -> None:
        if width % groups:
            raise ConfigError(f"norm_groups {groups} does not divide a width of {width}; take a divisor of every width")
        super().__init__(groups, width)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W)."""
        return F.group_norm(x.float(), self.num_groups, self.weight.float(), self.bias.float(), self.eps).to(x.dtype)


class ResidualBlock(nn.Module):
    """Two convolutions with the embedding between them, and a way around.

    ``x -> norm, SiLU, (resample), conv -> embedding -> norm, SiLU, dropout, conv -> + x``, where x is resampled, too, and projected where
    widths differ.

    Args:
        in_width: channels in.
        width: channels out.
        embedding: width of the embedding.
        groups: of the norms.
        dropout: share of values left out in training.
        film: the embedding scales and shifts what the second norm gives; otherwise it is added before that norm.
        activate: SiLU on the embedding (guided-diffusion does, SR3 does not).
        resample: ``down`` averages 2 x 2 pixels, ``up`` repeats them.
        zero: the second convolution starts as zeros, so the block starts as its way around.
    """

    def __init__(
        self,
        in_width: int,
        width: int,
        embedding: int,
        *,
        groups: int,
        dropout: float,
        film: bool = False,
        activate: bool = False,
        resample: Literal["down", "up"] | None = None,
        zero: bool = False,
    ) -> None:
        super().__init__()
        self.film = film
        self.activate = activate
        self.resample = resample
        self.norm1 = GroupNorm(groups, in_width)
        self.convolution1 = nn.Conv2d(in_width, width, 3, padding=1)
        self.embedding = nn.Linear(embedding, 2 * width if film else width)
        self.norm2 = GroupNorm(groups, width)
        self.dropout = nn.Dropout(dropout)
        self.convolution2 = nn.Conv2d(width, width, 3, padding=1)
        self.skip = nn.Identity() if in_width == width else nn.Conv2d(in_width, width, 1)
        if zero:
            zero_weights(self.convolution2)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Compute (B, width, h, w) from x (B, in_width, H, W) and embedding (B, E); h is H, H / 2 or 2 H."""
        hidden = self.convolution1(self._resampled(F.silu(self.norm1(x))))
        told = self.embedding(F.silu(embedding) if self.activate else embedding)[:, :, None, None]
        if self.film:
            scale, shift = told.chunk(2, dim=1)
            hidden = self.norm2(hidden) * (1 + scale) + shift
        else:
            hidden = self.norm2(hidden + told)
        hidden = self.convolution2(self.dropout(F.silu(hidden)))
        return hidden + self.skip(self._resampled(x))  # type: ignore[no-any-return]  # modules return Any

    def _resampled(self, x: Tensor) -> Tensor:
        if self.resample == "down":
            return F.avg_pool2d(x, 2)
        return F.interpolate(x, scale_factor=2.0, mode="nearest") if self.resample == "up" else x


class SpatialAttention(nn.Module):
    """Attention among all positions of a map, with a way around.

    Args:
        width: channels C.
        groups: of the norm.
        heads: C / heads channels each.
        bias: of queries, keys and values.
        order: how the 3C channels are read: ``legacy`` takes heads first and q, k, v within each, ``new`` takes q, k, v first. One head has
            no order.
        attention: ``sdpa``, or ``explicit`` for the softmax of logits (HW)^2, which are kept in memory.
        zero: the projection starts as zeros.
    """

    def __init__(
        self,
        width: int,
        *,
        groups: int,
        heads: int,
        bias: bool,
        order: HeadOrder = "legacy",
        attention: Attend = "sdpa",
        zero: bool = False,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(f"{heads} heads do not divide a width of {width}")
        for option, value, known in (("attention", attention, ("sdpa", "explicit")), ("head_order", order, ("legacy", "new"))):
            if value not in known:
                raise ConfigError(f"{option}: unknown {value!r}; {suggest(str(value), known)}")
        self.heads = heads
        self.order = order
        self.attention = attention
        self.norm = GroupNorm(groups, width)
        self.qkv = nn.Conv2d(width, 3 * width, 1, bias=bias)
        self.out = nn.Conv2d(width, width, 1)
        if zero:
            zero_weights(self.out)

    def forward(self, x: Tensor) -> Tensor:
        """Attend within (B, C, H, W)."""
        batch, width, height, columns = x.shape
        shape = (batch, self.heads, 3, -1, height * columns) if self.order == "legacy" else (batch, 3, self.heads, -1, height * columns)
        parts = self.qkv(self.norm(x)).reshape(shape)
        if self.order == "new":
            parts = parts.transpose(1, 2)
        # (B, heads, 3, c, HW) -> three of (B, heads, HW, c)
        query, key, value = parts.transpose(3, 4).unbind(dim=2)
        if self.attention == "sdpa":
            attended = F.scaled_dot_product_attention(query, key, value)
        else:
            # The fourth root on both sides, not the square root on one, keeps half precision from overflowing.
            root = 1 / math.sqrt(math.sqrt(query.shape[-1]))
            logits = (query * root) @ (key * root).transpose(-2, -1)
            attended = logits.float().softmax(dim=-1).to(value.dtype) @ value
        return x + self.out(attended.transpose(2, 3).reshape(batch, width, height, columns))  # type: ignore[no-any-return]  # modules return Any


class Upsample(nn.Module):
    """Every pixel twice in both directions, then a 3 x 3 convolution of the same width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Turn (B, C, H, W) into (B, C, 2H, 2W)."""
        return self.convolution(F.interpolate(x, scale_factor=2.0, mode="nearest"))  # type: ignore[no-any-return]  # modules return Any


def zero_weights(layer: nn.Conv2d) -> None:
    """Set weights and bias of a convolution to zero."""
    with torch.no_grad():
        layer.weight.zero_()
        if layer.bias is not None:
            layer.bias.zero_()
