"""How a model is run over many tiles, and tiles of one shape that an accelerator computes together.

Shapes: B tiles, C bands, K classes, H x W pixels of a tile, w = window side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tilth.imagery.raster import Pixels
from tilth.models.classifier import PixelClassifier, PixelsLike, origin_of
from tilth.models.inference import add_windows, check_windows
from tilth.models.windows import fit_window, weight_sum, window_starts


@dataclass(frozen=True)
class Running:
    """How a model is run over tiles.

    Attributes:
        window: side of windows in pixels; larger tiles are computed window by window.
        overlap: pixels that neighbouring windows share.
        batch_size: tiles or windows computed at once on an accelerator; a CPU takes one at a time.
        device: where to compute.
        precision: a key of :data:`tilth.models.inference.PRECISIONS`.
    """

    window: int = 512
    overlap: int = 0
    batch_size: int = 4
    device: str = "cpu"
    precision: str = "32"


def tiles_together(height: int, width: int, running: Running) -> int:
    """Say how many tiles of one shape :func:`predict_tiles` takes at once, so that their windows fill a batch and no more."""
    if torch.device(running.device).type == "cpu":
        return 1
    window, overlap = fit_window(running.window, running.overlap, height, width)
    windows = len(window_starts(height, window, window - overlap)) * len(window_starts(width, window, window - overlap))
    return max(1, running.batch_size // windows)


def predict_tiles(segmenter: PixelClassifier, tiles: Sequence[PixelsLike], running: Running, flips: str = "none") -> Iterator[Tensor]:
    """Compute the class probabilities of tiles of one shape; each gets what :func:`tilth.models.inference.predict_tile` gives it.

    The windows of all tiles fill the batches together. Where batches change rounding, on accelerators, it does here, too.

    Args:
        segmenter: the model, on the device and in evaluation mode; see :func:`tilth.models.inference.evaluating`.
        tiles: data (C, H, W) in storage units and valid bool (H, W); one shape and stored type for all. At least one.
        running: windows, batches, device and precision.
        flips: a key of :data:`tilth.models.flips.FLIPS`.

    Yields:
        float32 (K, H, W) on the device, sum 1 over K. Where pixels are not valid it is what the network makes of the fill value.

    Raises:
        UsageError: window, overlap, batch size, precision or flips make no sense.
    """
    check_windows(running.window, running.overlap, running.batch_size, running.precision, flips)
    height, width = tiles[0].valid.shape
    window, overlap = fit_window(running.window, running.overlap, height, width)
    rows, columns = (window_starts(size, window, window - overlap) for size in (height, width))
    # Below one another, each with room for its windows, tiles are one block of pixels.
    high, wide = max(height, window), max(width, window)
    data = np.zeros((len(tiles[0].data), len(tiles) * high, wide), tiles[0].data.dtype)
    valid = np.zeros(data.shape[1:], np.bool_)
    for index, tile in enumerate(tiles):
        data[:, index * high : index * high + height, :width] = tile.data
        valid[index * high : index * high + height, :width] = tile.valid
    place = torch.device(running.device)
    total = torch.zeros(len(segmenter.scheme), *valid.shape, device=place)
    positions = [(index * high + row, column) for index in range(len(tiles)) for row in rows for column in columns]
    corners = [origin_of(tile) for tile in tiles]
    origins = [(corner_row + row, corner_column + column) for corner_row, corner_column in corners for row in rows for column in columns]
    add_windows(
        segmenter,
        Pixels(data, valid),
        positions,
        total,
        window=window,
        batch_size=running.batch_size,
        precision=running.precision,
        flips=flips,
        origins=origins,
    )
    weight = torch.outer(weight_sum(rows, window, height), weight_sum(columns, window, width)).to(place)
    for index in range(len(tiles)):
        yield total[:, index * high : index * high + height, :width].div_(weight)
