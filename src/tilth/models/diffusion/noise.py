"""Noise that belongs to a place: the same for a pixel in every window, batch, order and device that shows it; ddpm.md section 7."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tilth import seeds

BLOCK = 64
"""Side in pixels of the squares that noise is made in."""

_KEPT = 512
"""Squares kept: those of several windows of 512 pixels, so that what windows share is made once. 24 MiB with three bands."""


def noise_field(seed: int, draw: int, bands: int, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    """Cut a rectangle out of endless standard normal noise.

    A pixel's noise is a function of seed, draw, number of bands and its position alone, so rectangles that overlap agree where they do.

    Args:
        seed: of all noise of a model.
        draw: which of several independent fields.
        bands: C.
        rows: first row and the one behind the last, in pixels from the upper edge of the raster; may be negative.
        columns: the same from its left edge.

    Returns:
        float32 (C, h, w), on the CPU, a tensor of its own.

    Example:
        >>> whole = noise_field(0, 0, 3, (0, 100), (0, 100))
        >>> bool((whole[:, 60:90, 5:70] == noise_field(0, 0, 3, (60, 90), (5, 70))).all())
        True
    """
    (top, bottom), (left, right) = rows, columns
    field = np.empty((bands, bottom - top, right - left), np.float32)
    for row in range(top // BLOCK, -(-bottom // BLOCK)):
        into_rows, from_rows = _shared(row, top, bottom)
        for column in range(left // BLOCK, -(-right // BLOCK)):
            into_columns, from_columns = _shared(column, left, right)
            field[:, into_rows, into_columns] = _block(seed, draw, bands, row, column)[:, from_rows, from_columns]
    return torch.from_numpy(field)


def noise_like(image: Tensor, origins: Tensor | None, seed: int, draw: int) -> Tensor:
    """Make the noise of a batch of images that lie somewhere in their rasters.

    Args:
        image: (B, C, H, W); only its shape and device count.
        origins: int64 (B, 2), row and column of the first pixel of each image; None: all lie in the upper left corner.
        seed: as for :func:`noise_field`.
        draw: as there.

    Returns:
        float32 (B, C, H, W), on the device of the image.
    """
    batch, bands, height, width = image.shape
    places = [[0, 0]] * batch if origins is None else origins.tolist()
    fields = [noise_field(seed, draw, bands, (row, row + height), (column, column + width)) for row, column in places]
    return torch.stack(fields).to(image.device)


def _shared(block: int, start: int, stop: int) -> tuple[slice, slice]:
    """Where a block and pixels ``start`` to ``stop`` overlap: within these pixels, and within the block."""
    low, high = max(block * BLOCK, start), min((block + 1) * BLOCK, stop)
    return slice(low - start, high - start), slice(low - block * BLOCK, high - block * BLOCK)


@lru_cache(maxsize=_KEPT)
def _block(seed: int, draw: int, bands: int, row: int, column: int) -> NDArray[Any]:
    """Noise of one square: float32 (C, 64, 64), shared by all who ask, so not to be written into."""
    made = seeds.generator(seed, "diffusion noise", draw, row, column).standard_normal((bands, BLOCK, BLOCK), dtype=np.float32)
    made.setflags(write=False)
    return made
