"""What a model says of tiles: a class for every pixel, how sure it is, and numbers of the whole tile."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tilth.catalog.confidence import FULL, UNKNOWN
from tilth.catalog.reading import read_ahead, tile_pixels
from tilth.catalog.rows import Tile
from tilth.classes import IGNORE_INDEX
from tilth.imagery.raster import Pixels
from tilth.models.inference import check_windows, evaluating
from tilth.models.tiles import Running, predict_tiles, tiles_together

if TYPE_CHECKING:
    from tilth.models.segmenter import Segmenter

NOT_FINITE = "the model's output is not finite; try inference.precision=32"


@dataclass(frozen=True)
class TileLabel:
    """The label of a tile of h x w pixels and K classes.

    Attributes:
        classes: uint8 (h, w), the most probable class; 255 where there is no data or the model is too unsure.
        percents: uint8 (h, w), its probability in percent, rounded; 255 where there is no data.
        pixels: int64 (K,), labelled pixels of each class.
        confidence: mean of the highest probability over pixels with data, 0 to 1; None without such a pixel.
        entropy: mean entropy of the K probabilities over pixels with data, natural logarithm; None without such a pixel.
        sums: int64 (K,), sum of the percents of each class; None where nobody asks.
    """

    classes: NDArray[np.uint8]
    percents: NDArray[np.uint8]
    pixels: NDArray[np.int64]
    confidence: float | None
    entropy: float | None
    sums: NDArray[np.int64] | None = None

    @property
    def ignored(self) -> float:
        """Share of the tile's pixels that hold 255, 0 to 1."""
        return 1 - int(self.pixels.sum()) / self.classes.size


def label_tile(probabilities: Tensor, valid: NDArray[np.bool_], ignore_below: float) -> TileLabel | str:
    """Turn the probabilities of a tile into its label.

    Args:
        probabilities: float32 (K, h, w), sum 1 over K.
        valid: bool (h, w), where there is data.
        ignore_below: pixels whose highest probability is less get 255.

    Returns:
        The label; a text where the probabilities are not finite.
    """
    highest, index = probabilities.max(dim=0)
    if not bool(highest.isfinite().all()):
        return NOT_FINITE
    seen = torch.from_numpy(valid).to(highest.device)
    kept = seen & (highest >= ignore_below)
    classes = torch.where(kept, index, IGNORE_INDEX).to(torch.uint8)
    percents = torch.where(seen, (highest * FULL).round_().clamp_(0, FULL), UNKNOWN).to(torch.uint8)
    counts = torch.bincount(index[kept], minlength=len(probabilities)).cpu().numpy()
    confidence = entropy = None
    pixels = int(valid.sum())
    if pixels:
        unsure = -torch.special.xlogy(probabilities, probabilities).sum(dim=0)
        sums = torch.stack([torch.where(seen, values, 0).sum(dtype=torch.float64) for values in (highest, unsure)])
        confidence, entropy = (sums / pixels).tolist()
    return TileLabel(classes.cpu().numpy(), percents.cpu().numpy(), counts, confidence, entropy)


class Labeller:
    """Labels tiles with a model; on a CPU what a tile gets does not depend on which come with it."""

    def __init__(self, segmenter: Segmenter, running: Running, *, flips: str = "none", ignore_below: float = 0, readers: int = 2) -> None:
        """Take a model.

        Args:
            segmenter: the model.
            running: how it is run.
            flips: views that are averaged, a key of :data:`tilth.models.flips.FLIPS`.
            ignore_below: pixels whose highest probability is less get 255; 0 for none.
            readers: threads that read ahead.

        Raises:
            UsageError: windows, batch size, precision or flips make no sense.
        """
        check_windows(running.window, running.overlap, running.batch_size, running.precision, flips)
        self._segmenter, self._running, self._flips = segmenter, running, flips
        self._ignore_below, self._readers = ignore_below, readers
        self.classes = len(segmenter.scheme)

    def __call__(self, tiles: Sequence[Tile]) -> Generator[TileLabel | str, None, None]:
        """Label tiles, in their order; a text says why a tile has no label. Until it is closed the model is in evaluation mode."""
        batch: list[Pixels] = []
        # Once around all tiles: moving a model and switching its mode can take longer than a tile.
        with evaluating(self._segmenter, torch.device(self._running.device)):
            for item in read_ahead(tiles, self._read, self._readers):
                seen = not isinstance(item, str) and self._asked(item)
                if batch and (not seen or not _alike(item, batch[0]) or len(batch) == self._together(batch[0])):
                    yield from self._label(batch)
                    batch = []
                if isinstance(item, str):
                    yield item
                elif not seen:
                    yield self._nothing(item)
                else:
                    batch.append(item)
            if batch:
                yield from self._label(batch)

    def _read(self, tile: Tile) -> Pixels | str:
        """Read what is known of a tile; a text says why it cannot be."""
        return tile_pixels(tile, self._segmenter.sensor)

    def _asked(self, pixels: Pixels) -> bool:
        """Say whether there is anything to ask the model."""
        return bool(pixels.valid.any())

    def _together(self, pixels: Pixels) -> int:
        height, width = pixels.valid.shape
        return tiles_together(height, width, self._running)

    def _label(self, batch: list[Pixels]) -> Iterator[TileLabel | str]:
        for pixels, probabilities in zip(batch, predict_tiles(self._segmenter, batch, self._running, self._flips), strict=True):
            yield label_tile(probabilities, pixels.valid, self._ignore_below)

    def _nothing(self, pixels: Pixels) -> TileLabel:
        """The label of a tile without data, of which the model is not asked."""
        empty = np.full(pixels.valid.shape, IGNORE_INDEX, np.uint8)
        return TileLabel(empty, np.full_like(empty, UNKNOWN), np.zeros(self.classes, np.int64), None, None)


def _alike(item: Pixels | str, other: Pixels) -> bool:
    return isinstance(item, Pixels) and item.data.shape == other.data.shape and item.data.dtype == other.data.dtype
