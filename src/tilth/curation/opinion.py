"""What a model says of tiles: how sure it is, which classes it sees, and a feature that tells kinds of imagery apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tilth.curation.config import FeatureInput
from tilth.curation.entropy import tile_entropies
from tilth.imagery.raster import Pixels
from tilth.models.classifier import origin_of
from tilth.models.inference import PRECISIONS, check_windows, evaluating, predict_tile
from tilth.models.tiles import Running
from tilth.models.windows import fit_window, window_starts

if TYPE_CHECKING:
    from tilth.models.segmenter import Segmenter

_PROBE = 64
"""Side of the empty image that shows how long features are, in pixels."""


@dataclass(frozen=True)
class Opinion:
    """What the model says of a tile.

    Attributes:
        entropies: float64 (3,), see :func:`tilth.curation.entropy.tile_entropies`.
        confidence: mean of the highest class probability over valid pixels, 0 to 1.
        pixels: int64 (K,), valid pixels that the model gives to each class.
        feature: float32 (d,), length 1.
    """

    entropies: NDArray[np.float64]
    confidence: float
    pixels: NDArray[np.int64]
    feature: NDArray[np.float32]


class Observer:
    """Asks a model about tiles.

    The feature of a tile is the spatial mean of the encoder's last map, brought to length 1. Cells count by their share of valid pixels, so
    padding and pixels without data do not. A tile that fits into a window is seen as it is, unless ``feature_input`` is ``resize``; a
    larger one is made as large as a window, or with ``windows`` described by the mean over its windows.

    Attributes:
        width: length d of features.
        together: tiles that are computed at once.
    """

    def __init__(self, segmenter: Segmenter, background: Sequence[int], feature_input: FeatureInput, running: Running) -> None:
        check_windows(running.window, running.overlap, running.batch_size, running.precision)
        self._segmenter, self._background, self._feature_input, self._running = segmenter, tuple(background), feature_input, running
        self._device = torch.device(running.device)
        self.together = 1 if self._device.type == "cpu" else running.batch_size
        with self.ready():
            _, maps = self._forward(torch.zeros(1, len(segmenter.sensor), _PROBE, _PROBE, device=self._device), [(0, 0)])
        self.width = int(maps.cells.shape[1])

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Have the model on its device, in evaluation mode, without gradients; to be entered around :meth:`judge`."""
        with evaluating(self._segmenter, self._device):
            yield

    def judge(self, tiles: Sequence[Pixels]) -> list[Opinion | None]:
        """Say what the model makes of tiles of one shape, each with a valid pixel; None where its output is not finite."""
        if max(tiles[0].valid.shape) <= self._running.window:
            return self._whole(tiles)
        return [self._windowed(tile) for tile in tiles]

    def _whole(self, tiles: Sequence[Pixels]) -> list[Opinion | None]:
        """Tiles no larger than a window: one look at each, which gives classes and feature."""
        height, width = tiles[0].valid.shape
        side, _ = fit_window(self._running.window, 0, height, width)
        image, valid = self._stack(tiles, side)
        logits, maps = self._forward(image, [origin_of(tile) for tile in tiles])
        if self._feature_input == "resize" and {height, width} != {self._running.window}:
            features = self._at_window_size(tiles)
        else:
            features = maps.pool(valid)
        return self._opinions(logits[..., :height, :width].to(torch.float32).softmax(dim=1), valid[..., :height, :width], features)

    def _windowed(self, tile: Pixels) -> Opinion | None:
        """A larger tile: probabilities window by window, each pixel once, blended where windows overlap."""
        run = self._running
        with _tap(self._segmenter) as seen:
            probabilities = predict_tile(
                self._segmenter,
                tile,
                window=run.window,
                overlap=run.overlap,
                batch_size=run.batch_size,
                device=self._device,
                precision=run.precision,
            )[None].to(self._device)
        features = self._over_windows(tile, seen) if self._feature_input == "windows" else self._at_window_size([tile])
        return self._opinions(probabilities, torch.from_numpy(tile.valid)[None].to(self._device), features)[0]

    def _over_windows(self, tile: Pixels, seen: list[_Maps]) -> Tensor:
        """Mean over the windows of a tile (1, d), by their valid pixels, from maps in the order in which windows are computed."""
        height, width = tile.valid.shape
        side, overlap = fit_window(self._running.window, self._running.overlap, height, width)
        rows, columns = (window_starts(size, side, side - overlap) for size in (height, width))
        parts = [torch.from_numpy(tile.valid[row : row + side, column : column + side]) for row in rows for column in columns]
        valid = torch.stack([_extend(part, side, side) for part in parts]).to(self._device)
        means, first = [], 0
        for maps in seen:
            count = len(maps.cells)
            means.append(maps.pool(valid[first : first + count]))
            first += count
        weights = valid.sum(dim=(1, 2)).to(torch.float32)
        return (torch.cat(means) * weights[:, None]).sum(dim=0, keepdim=True) / weights.sum()

    def _at_window_size(self, tiles: Sequence[Pixels]) -> Tensor:
        """Means (B, d) of the maps of whole tiles made as large as a window."""
        size = (self._running.window, self._running.window)
        height, width = tiles[0].valid.shape
        image, valid = self._stack(tiles, max(height, width))
        image, valid = image[..., :height, :width], valid[..., :height, :width]
        image = F.interpolate(image, size, mode="bilinear", antialias=True)
        _, maps = self._forward(image, [origin_of(tile) for tile in tiles])
        return maps.pool(F.adaptive_avg_pool2d(valid[:, None].to(torch.float32), size)[:, 0])

    def _stack(self, tiles: Sequence[Pixels], side: int) -> tuple[Tensor, Tensor]:
        """Network input (B, C, side, side) and where it is valid (B, side, side); beyond a tile it is not."""
        bands, (height, width) = len(tiles[0].data), tiles[0].valid.shape
        data = np.zeros((len(tiles), bands, side, side), dtype=tiles[0].data.dtype)
        valid = np.zeros((len(tiles), side, side), dtype=np.bool_)
        for index, tile in enumerate(tiles):
            data[index, :, :height, :width], valid[index, :height, :width] = tile.data, tile.valid
        # Stored numbers travel in their own small type and are widened on the device.
        image, seen = torch.from_numpy(data).to(self._device).to(torch.float32), torch.from_numpy(valid).to(self._device)
        if seen.all():
            return self._segmenter.normalise(image), seen
        # NaN would survive any arithmetic masking.
        return self._segmenter.normalise(torch.where(seen[:, None], image, 0.0), seen), seen

    def _forward(self, image: Tensor, origins: Sequence[tuple[int, int]]) -> tuple[Tensor, _Maps]:
        """Logits (B, K, H, W) of normalised images that lie somewhere in their rasters, and the encoder's last map."""
        kind = PRECISIONS[self._running.precision]
        layout = torch.channels_last if self._device.type == "cpu" else torch.contiguous_format
        with _tap(self._segmenter) as seen, torch.autocast(self._device.type, dtype=kind, enabled=kind is not None):
            lie = (torch.tensor(origins),) if getattr(self._segmenter, "takes_origins", False) else ()
            logits = self._segmenter(image.contiguous(memory_format=layout), *lie)
        return logits, seen[0]

    def _opinions(self, probabilities: Tensor, valid: Tensor, features: Tensor) -> list[Opinion | None]:
        classes = probabilities.shape[1]
        highest, index = probabilities.max(dim=1)
        entropies = tile_entropies(probabilities, valid, self._background).cpu().numpy()
        confidence = (torch.where(valid, highest, 0.0).sum(dim=(1, 2), dtype=torch.float64) / valid.sum(dim=(1, 2))).cpu().numpy()
        unit = F.normalize(features.to(torch.float32), dim=1).cpu().numpy()
        found: list[Opinion | None] = []
        for place in range(len(probabilities)):
            counts = torch.bincount(index[place][valid[place]], minlength=classes).cpu().numpy()
            finite = np.isfinite(entropies[place]).all() and np.isfinite(unit[place]).all()
            found.append(Opinion(entropies[place], float(confidence[place]), counts, unit[place]) if finite else None)
        return found


@dataclass(frozen=True)
class _Maps:
    """The encoder's last map (B, d, h, w), and the size of the images that it was made of."""

    cells: Tensor
    height: int
    width: int

    def pool(self, valid: Tensor) -> Tensor:
        """Mean over cells (B, d), each by how much of it (B, H, W), or of the same images before they were padded, is valid."""
        share = _extend(valid.to(torch.float32), self.height, self.width)
        height, width = self.cells.shape[-2:]
        weights = F.adaptive_avg_pool2d(share[:, None], (height, width))
        sums = (self.cells.to(torch.float32) * weights).sum(dim=(2, 3))
        return sums / weights.sum(dim=(2, 3)).clamp(min=torch.finfo(torch.float32).tiny)


@contextmanager
def _tap(segmenter: Segmenter) -> Iterator[list[_Maps]]:
    """Collect the last map of every pass through the encoder."""
    seen: list[_Maps] = []

    def keep(_module: Any, inputs: Any, output: Any) -> None:
        seen.append(_Maps(output[-1], *inputs[0].shape[-2:]))

    handle = segmenter.network.encoder.register_forward_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()


def _extend(valid: Tensor, height: int, width: int) -> Tensor:
    """Add rows and columns that are not valid: (..., h, w) to (..., height, width)."""
    return F.pad(valid, (0, width - valid.shape[-1], 0, height - valid.shape[-2]))
