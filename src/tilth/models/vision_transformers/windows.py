"""Maps cut into square windows: what Swin (s5_pretrain.md section 7.3) and rotated windows (section 7.2) have in common.

Maps are channels-last here, (B, H, W, C): windows become rows of tokens without moving channels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_APART = -100.0
"""Added to logits of tokens that are neighbours only because the map was rolled; the published number, not minus infinity."""


def up_to_multiple(length: int, window: int) -> int:
    """Round a side up to whole windows."""
    return length + -length % window


def pad_below(maps: Tensor, multiple: int) -> Tensor:
    """Add zeros below and to the right until both sides are multiples of ``multiple``; the map itself where they are."""
    height, width = maps.shape[1:3]
    bottom, right = -height % multiple, -width % multiple
    return F.pad(maps, (0, 0, 0, right, 0, bottom)) if bottom or right else maps


def split_windows(maps: Tensor, window: int) -> Tensor:
    """Cut a map into windows.

    Args:
        maps: (B, H, W, C), sides multiples of ``window``.
        window: side of a window in tokens.

    Returns:
        (B, windows, window * window, C); windows and the tokens in them row by row.
    """
    batch, height, width, channels = maps.shape
    parts = maps.reshape(batch, height // window, window, width // window, window, channels)
    return parts.transpose(2, 3).reshape(batch, (height // window) * (width // window), window * window, channels)


def join_windows(windows: Tensor, window: int, height: int, width: int) -> Tensor:
    """Put windows (B, windows, window * window, C) back into a map (B, H, W, C): the inverse of :func:`split_windows`."""
    batch, channels = windows.shape[0], windows.shape[-1]
    parts = windows.reshape(batch, height // window, width // window, window, window, channels)
    return parts.transpose(2, 3).reshape(batch, height, width, channels)


def shifted_mask(height: int, width: int, window: int, shift: int, *, like: Tensor) -> Tensor:
    """Keep tokens apart that share a window only because the map was rolled by ``shift``.

    Args:
        height: rows of the padded map, a multiple of ``window``.
        width: columns of it.
        window: side of a window in tokens.
        shift: tokens by which the map was rolled up and left.
        like: gives dtype and device.

    Returns:
        (windows, window^2, window^2): 0 for tokens of one region, -100 for others. A map of one window is divided as well, as published.
    """
    rows, columns = _regions(height, window, shift, like.device), _regions(width, window, shift, like.device)
    regions = (rows[:, None] * 3 + columns[None, :])[None, :, :, None]
    regions = split_windows(regions, window)[0, :, :, 0]
    return (regions[:, :, None] != regions[:, None, :]).to(like.dtype) * _APART


def _regions(length: int, window: int, shift: int, device: torch.device) -> Tensor:
    """Number what lies before the last window, in it, and in its part that came from the other end."""
    position = torch.arange(length, device=device)
    return (position >= length - window).long() + (position >= length - shift).long()
