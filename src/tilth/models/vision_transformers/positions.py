"""Learned positions of tokens, resized to grids that they were not made for.

Shapes: C width; a table of a grid of R rows and S columns is (1, R * S, C), row by row.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

Grid = tuple[int, int]
"""Rows and columns of tokens."""


def token_grid(image_size: int | Grid, patch: int) -> Grid:
    """Say how many rows and columns of tokens an image of this side, or height and width, in pixels has; parts of a patch count as one."""
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    return -(-height // patch), -(-width // patch)


def resize_positions(table: Tensor, old: Grid, new: Grid) -> Tensor:
    """Resize a position embedding by bicubic interpolation between cell centres, without antialiasing (s5_finetune.md section 3.4).

    Args:
        table: float (1, R * S, C), without a slot for a class token.
        old: R and S.
        new: R' and S' wanted.

    Returns:
        float (1, R' * S', C); the table itself where the grids agree.
    """
    if old == new:
        return table
    width = table.shape[-1]
    as_map = table.reshape(1, *old, width).permute(0, 3, 1, 2)
    resized = F.interpolate(as_map, size=new, mode="bicubic", align_corners=False)
    return resized.permute(0, 2, 3, 1).reshape(1, new[0] * new[1], width)


def sinusoids(positions: Tensor, width: int) -> Tensor:
    """Encode numbers by sines, then cosines, of falling frequency 10000^(-2 i / width).

    Args:
        positions: float (M,).
        width: even.

    Returns:
        float (M, width).
    """
    frequencies = 10000.0 ** (-torch.arange(width // 2, device=positions.device, dtype=torch.float64) / (width / 2))
    angles = positions.to(torch.float64)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1).to(torch.get_default_dtype())


def sine_cosine_positions(grid: Grid, width: int) -> Tensor:
    """Compute fixed positions: :func:`sinusoids` of the column in one half of the channels, of the row in the other (MAE).

    Args:
        grid: R and S.
        width: C, a multiple of 4.

    Returns:
        float (1, R * S, C).
    """
    rows, columns = (sinusoids(torch.arange(count), width // 2) for count in grid)
    table = torch.cat([columns[None].expand(grid[0], -1, -1), rows[:, None].expand(-1, grid[1], -1)], dim=-1)
    return table.reshape(1, grid[0] * grid[1], width)


def take_tokens(tokens: Tensor, places: Tensor) -> Tensor:
    """Pick tokens (B, V, C) of (B, N, C) by their places, int64 (B, V)."""
    return tokens.gather(1, places.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
