"""Noise level or time as a vector of waves; ddpm.md sections 4 and 5."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tilth.errors import ConfigError

PERIOD = 10_000.0
"""Slowest wave over fastest, of both families."""


def waves(values: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Sines and cosines of values times frequencies that fall from 1 to nearly 1 / 10,000.

    Args:
        values: float (B,).
        width: even; half of it frequencies.

    Returns:
        Sines and cosines, each float32 (B, width / 2).
    """
    half = width // 2
    frequencies = torch.exp(-math.log(PERIOD) * (torch.arange(half, dtype=torch.float32, device=values.device) / half))
    angles = values.float()[:, None] * frequencies
    return angles.sin(), angles.cos()


def noise_level_embedding(level: Tensor, width: int, scale: float = 1.0) -> Tensor:
    """Embed noise levels as SR3 does: sines, then cosines.

    Args:
        level: float (B,), square root of the running product of alphas, in (0, 1]; 1 is a clean image.
        width: of the embedding; even.
        scale: factor on the level. Published networks have 1, by which no angle passes 1 radian and neighbouring steps look almost alike.

    Returns:
        float32 (B, width).
    """
    return torch.cat(waves(level * scale, width), dim=1)


def time_embedding(time: Tensor, width: int, scale: float = 1.0) -> Tensor:
    """Embed diffusion times as guided-diffusion does: cosines, then sines.

    Args:
        time: integer or float (B,), step from 0; the original step also where a sampler leaves steps out.
        width: of the embedding; even.
        scale: factor on the time, 1 in published networks.

    Returns:
        float32 (B, width).
    """
    sines, cosines = waves(time * scale, width)
    return torch.cat([cosines, sines], dim=1)


class Embedding(nn.Module):
    """Waves and two linear layers, from a number for each image to a vector for each image.

    Args:
        width: of the waves.
        inner: between the layers.
        out: of the result.
        kind: ``level`` for :func:`noise_level_embedding`, ``time`` for :func:`time_embedding`.
        scale: factor on the number.
    """

    def __init__(self, width: int, inner: int, out: int, *, kind: str, scale: float = 1.0) -> None:
        super().__init__()
        if width % 2:
            raise ConfigError(f"width {width}: an embedding has as many sines as cosines; give an even number")
        self.width = width
        self.scale = scale
        self.embed = {"level": noise_level_embedding, "time": time_embedding}[kind]
        self.linear1 = nn.Linear(width, inner)
        self.linear2 = nn.Linear(inner, out)

    def forward(self, values: Tensor) -> Tensor:
        """Embed numbers (B,) as (B, out), in the type of the weights."""
        # Waves in float32, whatever the network computes in: a time of 999 has no neighbour in 8 bits of mantissa.
        embedded = self.embed(values, self.width, self.scale).to(self.linear1.weight.dtype)
        return self.linear2(F.silu(self.linear1(embedded)))  # type: ignore[no-any-return]  # modules return Any
