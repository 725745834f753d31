"""Where rotated windows of varied size take their keys and values from (s5_pretrain.md section 7.2).

Shapes: B images, A heads, R rows and S columns of tokens, w side of a window.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from tilth.errors import ConfigError, suggest
from tilth.models.vision_transformers.positions import Grid

OffsetAxes = Literal["corrected", "official"]
"""What an offset is divided by. ``corrected``: along x by the windows in the width, along y by those in the height. ``official``: the other
way round, as the published program does. The same for square images, which published weights were trained on."""

OFFSET_AXES: tuple[OffsetAxes, ...] = ("corrected", "official")


def check_offset_axes(axes: str) -> OffsetAxes:
    """Return the option itself.

    Raises:
        ConfigError: no such way to divide offsets.
    """
    if axes not in OFFSET_AXES:
        raise ConfigError(f"offset_axes={axes!r} is not known; {suggest(str(axes), OFFSET_AXES)}")
    return axes


def window_samples(offsets: Tensor, scales: Tensor, angles: Tensor, grid: Grid, window: int, axes: OffsetAxes = "corrected") -> Tensor:
    """Say where windows take their keys and values from.

    A window's own tokens, seen from its centre, are stretched by 1 + scale, turned by the angle and moved by the offset. An offset is
    divided by the number of whole windows. On sides shorter than a window, where the official program divides by zero, one is counted.

    Args:
        offsets: (B, A, 2, down, right), along x and y, for windows in rows and columns.
        scales: (B, A, 2, down, right), along x and y.
        angles: (B, A, down, right) in radians; positive ones turn x towards y, which is clockwise as y points down.
        grid: R and S of the tokens before they were padded to whole windows.
        window: w.
        axes: which windows are counted, see :data:`OffsetAxes`.

    Returns:
        (B, A, down * w, right * w, 2): x and y, -1 and 1 being the centres of the first and the last token of the padded map.
    """
    along_height, along_width = (max(1, side // window) for side in grid)
    if axes == "official":
        along_height, along_width = along_width, along_height
    down, right = angles.shape[-2:]
    exact = torch.promote_types(offsets.dtype, torch.float32)  # half precision would round to whole fractions of a token
    offsets, scales, angles = offsets.to(exact), scales.to(exact), angles.to(exact)
    # Axes from here: image, head, window row, row in it, window column, column in it.
    center_y, inside_y = _axis(down, window, offsets)
    center_x, inside_x = _axis(right, window, offsets)
    stretch_x, stretch_y = (1 + scales)[..., None, :, None].unbind(2)
    move_x, move_y = offsets[..., None, :, None].unbind(2)
    cosine, sine = angles.cos()[..., None, :, None], angles.sin()[..., None, :, None]
    along_x = inside_x * stretch_x
    along_y = inside_y[:, None, None] * stretch_y
    x = along_x * cosine - along_y * sine + center_x[:, None] + move_x / along_width
    y = along_x * sine + along_y * cosine + center_y[:, None, None, None] + move_y / along_height
    return torch.stack([x, y], dim=-1).flatten(4, 5).flatten(2, 3)


def _axis(count: int, window: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Give the centres of windows along an axis (count,), and the places of tokens around their window's centre (w,)."""
    places = torch.linspace(-1, 1, count * window, dtype=like.dtype, device=like.device)
    step = 2 / (count * window - 1)
    inside = torch.arange(window, dtype=like.dtype, device=like.device) * step
    return places.reshape(count, window).mean(1), inside - inside.mean()
