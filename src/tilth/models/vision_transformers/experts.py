"""Feed-forward layers with one expert for each task (s5_finetune.md section 3).

Which expert works is decided by the task alone: no gate, no balancing. The hidden layer is shared; of the output channels the first C - P
are shared and the last P belong to the expert, so that for one task the cost is that of an ordinary layer.

Shapes: B images, N tokens, C width, P part.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from tilth.errors import ConfigError


class ExpertFeedForward(nn.Module):
    """Two linear layers with an exact GELU between; the last P output channels come from the expert of the task.

    Attributes:
        expand: Linear C -> hidden, shared.
        shared: Linear hidden -> C - P, shared.
        experts: for each task Linear hidden -> P.
    """

    def __init__(self, width: int, hidden: int, experts: int, part: int) -> None:
        super().__init__()
        if not 0 < part < width:
            raise ConfigError(f"part={part}: experts take a part of the width, 1 to {width - 1} channels (width={width})")
        if experts < 1:
            raise ConfigError("tasks: none given; expert layers need at least one")
        self.expand = nn.Linear(width, hidden)
        self.activation = nn.GELU()
        self.shared = nn.Linear(hidden, width - part)
        self.experts = nn.ModuleList(nn.Linear(hidden, part) for _ in range(experts))

    @property
    def part(self) -> int:
        """Channels P of each expert."""
        return cast("nn.Linear", self.experts[0]).out_features

    def forward(self, tokens: Tensor, expert: int) -> Tensor:
        """Compute float (B, N, C) from float (B, N, C) with the expert at this position."""
        hidden = self.activation(self.expand(tokens))
        return torch.cat([self.shared(hidden), self.experts[expert](hidden)], dim=-1)
