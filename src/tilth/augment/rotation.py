"""Rotation of a batch by any angle, mirrored at the border (cromss.md section 2.5).

Axis letters: B samples, C bands, L label maps, S side of a square crop.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


@torch.no_grad()
def rotate(image: Tensor, maps: Tensor, degrees: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Rotate square crops about their centre.

    What would come from outside is mirrored at the border, whose pixels are not repeated (d c b | a b c d | c b a).

    Args:
        image: float32 (B, C, S, S), finite; interpolated bilinearly.
        maps: (B, L, S, S), any dtype that holds whole numbers up to 255 or truths; the nearest pixel is taken.
        degrees: one angle a sample, counter-clockwise.

    Returns:
        New tensors of the same shapes and dtypes.
    """
    size = image.shape[-1]
    if size == 1:
        return image.clone(), maps.clone()
    # In double precision, so that whole quarter turns meet the pixels.
    angles = torch.tensor(degrees, dtype=torch.float64).deg2rad().view(-1, 1, 1)
    place = torch.linspace(-1, 1, size, dtype=torch.float64)
    across, down = place.view(1, 1, -1), place.view(1, -1, 1)
    columns = angles.cos() * across - angles.sin() * down
    rows = angles.sin() * across + angles.cos() * down
    grid = torch.stack([columns, rows], -1).to(image.device, torch.float32)
    turned = functional.grid_sample(image, grid, mode="bilinear", padding_mode="reflection", align_corners=True)
    found = functional.grid_sample(maps.to(torch.float32), grid, mode="nearest", padding_mode="reflection", align_corners=True)
    return turned, found.to(maps.dtype)
