"""Transformer layers: attention, then two linear layers, each beside a shortcut.

Shapes: B images, N tokens, C width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tilth.errors import ConfigError
from tilth.models.vision_transformers.attention import Attention, SelfAttention
from tilth.models.vision_transformers.experts import ExpertFeedForward


class DropPath(nn.Module):
    """In training, leave out a branch for some images of a batch, and enlarge what is left so that the mean stays (stochastic depth).

    Attributes:
        rate: share of images for which the branch is left out, in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ConfigError(f"drop_path={rate} is not a share; give a number from 0 to below 1")
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """Compute (B, ...) from (B, ...)."""
        if not self.training or self.rate == 0:
            return branch
        keep = 1 - self.rate
        kept = branch.new_empty((branch.shape[0],) + (1,) * (branch.ndim - 1)).bernoulli_(keep)
        return branch * kept / keep

    def extra_repr(self) -> str:
        """Show the rate."""
        return f"rate={self.rate:.3g}"


class FeedForward(nn.Module):
    """Two linear layers with an exact GELU between.

    Attributes:
        expand: Linear C -> hidden.
        contract: Linear hidden -> C.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Linear(width, hidden)
        self.activation = nn.GELU()
        self.contract = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Compute float (B, N, C) from float (B, N, C)."""
        return cast("Tensor", self.contract(self.activation(self.expand(tokens))))


class Block(nn.Module):
    """Layer of a transformer that normalises first: ``x += attention(norm1(x))``, then ``x += drop(feed_forward(norm2(x)))``.

    Attributes:
        feed_forward: one for all images, or one with an expert for each task.
        drop_attention: drops attention branches too; S5's plain ViT does not (s5_pretrain.md section 7.1).
    """

    def __init__(
        self,
        width: int,
        heads: int,
        feed_forward: FeedForward | ExpertFeedForward,
        *,
        epsilon: float = 1e-5,
        drop_path: float = 0.0,
        drop_attention: bool = False,
        attention: Attention = "sdpa",
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=epsilon)
        self.attention = SelfAttention(width, heads, attention)
        self.norm2 = nn.LayerNorm(width, eps=epsilon)
        self.feed_forward: nn.Module = feed_forward
        self.drop_path = DropPath(drop_path)
        self.drop_attention = drop_attention

    def forward(self, tokens: Tensor, expert: int | None = None) -> Tensor:
        """Compute float (B, N, C) from float (B, N, C).

        Args:
            tokens: the sequence.
            expert: position of the task, where the layer has experts.
        """
        attended = self.attention(self.norm1(tokens))
        tokens = tokens + (self.drop_path(attended) if self.drop_attention else attended)
        normed = self.norm2(tokens)
        return cast("Tensor", tokens + self.drop_path(self.feed_forward(normed) if expert is None else self.feed_forward(normed, expert)))


def drop_rates(highest: float, depth: int) -> list[float]:
    """Spread rates of dropped paths over layers, from 0 at the first to ``highest`` at the last."""
    return [highest * layer / max(depth - 1, 1) for layer in range(depth)]


def spread_taps(depth: int) -> tuple[int, int, int, int]:
    """Choose four layers (0-based) at the ends of the quarters of a transformer, for depths that no paper speaks of."""
    first, second, third, fourth = (max(-(-depth * quarter // 4) - 1, 0) for quarter in (1, 2, 3, 4))
    return first, second, third, fourth


def check_taps(taps: Sequence[int], depth: int) -> tuple[int, ...]:
    """Return the taps as a tuple.

    Raises:
        ConfigError: not four layers that exist, shallow to deep.
    """
    found = tuple(taps)
    if len(found) != 4 or list(found) != sorted(found) or found[0] < 0 or found[-1] >= depth:
        raise ConfigError(f"taps={list(found)}: give four layers from 0 to {depth - 1} (depth={depth}), shallow to deep")
    return found


def freeze_unused(blocks: nn.ModuleList, taps: Sequence[int]) -> None:
    """Let layers behind the last tap take no gradient: they never run, and distributed training waits for all that train."""
    for block in blocks[taps[-1] + 1 :]:
        block.requires_grad_(False)


def run_blocks(blocks: Iterable[nn.Module], tokens: Tensor, taps: Sequence[int], checkpointing: bool, *arguments: Any) -> list[Tensor]:
    """Run layers one after the other and keep the output of some.

    Args:
        blocks: called with the tokens and ``arguments``.
        tokens: what the first layer gets.
        taps: 0-based layers whose output is kept.
        checkpointing: compute activations again in the backward pass instead of keeping them; only where a gradient is to be computed.
        *arguments: further arguments of each layer.

    Returns:
        Outputs in the order of ``taps``. Layers behind the last tap are not run.
    """
    kept: dict[int, Tensor] = {}
    for index, block in enumerate(blocks):
        if index > max(taps):
            break
        if checkpointing and block.training and torch.is_grad_enabled():
            tokens = cast("Tensor", checkpoint(block, tokens, *arguments, use_reentrant=False))
        else:
            tokens = block(tokens, *arguments)
        kept[index] = tokens
    return [kept[tap] for tap in taps]
