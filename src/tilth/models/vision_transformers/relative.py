"""Learned relative positions of the tokens of a map: one number for each offset, or two vectors that the query is multiplied by.

Shapes: A heads, d channels of a head, R rows and S columns of tokens, w side of a window.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tilth.models.vision_transformers.positions import Grid


def relative_index(window: int) -> Tensor:
    """Number the offsets between the tokens of a window.

    Returns:
        int64 (window^2, window^2), from query (first) to key: (row offset + w - 1) (2 w - 1) + column offset + w - 1, the row of a table
        of (2 w - 1)^2 biases.
    """
    side = torch.arange(window)
    rows, columns = side.repeat_interleave(window), side.repeat(window)
    down = rows[:, None] - rows[None, :] + window - 1
    right = columns[:, None] - columns[None, :] + window - 1
    return down * (2 * window - 1) + right


def table_bias(table: Tensor, index: Tensor) -> Tensor:
    """Look biases up: table (entries, heads) and index (N, N) -> (heads, N, N)."""
    return table[index.flatten()].reshape(*index.shape, -1).permute(2, 0, 1)


def decomposed_bias(query: Tensor, row_table: Tensor, column_table: Tensor, grid: Grid) -> Tensor:
    """Add to each logit what the query says of the distance in rows and of that in columns: q . R[i - i'] + q . C[j - j'].

    Args:
        query: (..., R * S, d), row by row.
        row_table: (2 n - 1, d), from distance 1 - n to n - 1; resized along its length for grids of other than n rows.
        column_table: the same for columns.
        grid: R and S.

    Returns:
        (..., R * S, R * S), from query to key.
    """
    rows, columns = grid
    as_map = query.reshape(*query.shape[:-2], rows, columns, query.shape[-1])
    down = torch.einsum("...ijd,ikd->...ijk", as_map, _by_distance(row_table, rows))
    right = torch.einsum("...ijd,jkd->...ijk", as_map, _by_distance(column_table, columns))
    return (down.unsqueeze(-1) + right.unsqueeze(-2)).flatten(-2).flatten(-3, -2)


def resize_offsets(table: Tensor, entries: int) -> Tensor:
    """Resize a table by distance (2 n - 1, d) to (entries, d): bicubic along its length (s5_pretrain.md section 6).

    Returns:
        The table itself where it has so many entries.
    """
    if table.shape[0] == entries:
        return table
    maps = table.to(torch.promote_types(table.dtype, torch.float32)).T[None, :, :, None]
    return F.interpolate(maps, (entries, 1), mode="bicubic", align_corners=False)[0, :, :, 0].T.to(table.dtype)


def _by_distance(table: Tensor, length: int) -> Tensor:
    """Spread a table (2 n - 1, d) out to (length, length, d), from query to key."""
    table = resize_offsets(table, 2 * length - 1)
    position = torch.arange(length, device=table.device)
    return table[position[:, None] - position[None, :] + length - 1]
