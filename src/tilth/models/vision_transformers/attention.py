"""Attention between tokens: by PyTorch's fused operation, or step by step for comparison.

Shapes: B images, N tokens, C width, A heads, d = C / A.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tilth.errors import ConfigError, suggest

Attention = Literal["sdpa", "explicit"]
"""``sdpa``: ``scaled_dot_product_attention``. ``explicit``: the same mathematics with the logits kept in memory."""

ATTENTIONS: tuple[Attention, ...] = ("sdpa", "explicit")


def check_attention(attention: str) -> Attention:
    """Return the option itself.

    Raises:
        ConfigError: no such way to compute attention.
    """
    if attention not in ATTENTIONS:
        raise ConfigError(f"attention={attention!r} is not known; {suggest(str(attention), ATTENTIONS)}")
    return attention


def attend(query: Tensor, key: Tensor, value: Tensor, attention: Attention = "sdpa", bias: Tensor | None = None) -> Tensor:
    """Average values by the softmax of q k^T / sqrt(d) + bias.

    Args:
        query: float (..., A, N, d).
        key: float (..., A, M, d).
        value: float (..., A, M, d).
        attention: how it is computed.
        bias: float, broadcasts to (..., A, N, M); added to the logits, so -inf hides a key.

    Returns:
        float (..., A, N, d).
    """
    if attention == "sdpa":
        return F.scaled_dot_product_attention(query, key, value, attn_mask=None if bias is None else bias.to(query.dtype))
    logits = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    if bias is not None:
        logits = logits + bias
    mixed: Tensor = logits.softmax(dim=-1) @ value
    return mixed


class SelfAttention(nn.Module):
    """Multi-head attention of tokens to each other: queries, keys and values from one linear layer with bias, in this order.

    Attributes:
        qkv: Linear C -> 3 C.
        projection: Linear C -> C.
    """

    def __init__(self, width: int, heads: int, attention: Attention = "sdpa") -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ConfigError(f"heads={heads} does not divide width={width}; choose numbers that do")
        self.heads = heads
        self.attention = check_attention(attention)
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Compute float (B, N, C) from float (B, N, C)."""
        images, count, width = tokens.shape
        query, key, value = self.qkv(tokens).reshape(images, count, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = attend(query, key, value, self.attention)
        return cast("Tensor", self.projection(mixed.transpose(1, 2).reshape(images, count, width)))


def initialise(module: nn.Module) -> None:
    """Give linear layers inside fresh weights: truncated normal of deviation 0.02, biases zero (s5_pretrain.md section 6)."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def fresh_table(*shape: int) -> nn.Parameter:
    """Draw a learned table, such as a position embedding: truncated normal of deviation 0.02."""
    table = nn.Parameter(torch.empty(*shape))
    nn.init.trunc_normal_(table, std=0.02)
    return table
