"""Whole scenes in bounded memory: windows row by row, only the rows still open are held, finished rows leave.

Columns are cut into panels, so memory depends on neither height nor width. Windows lie on one grid for the whole scene; those that reach
over the edge of a panel are computed for both panels, and each pixel sums the same windows in the same order whatever the panels are.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tilth.classes import IGNORE_INDEX
from tilth.errors import RunError
from tilth.imagery.raster import Pixels, Window
from tilth.models.inference import PixelClassifier, add_windows, weight_sum, window_starts

PANEL = 8192
"""Columns summed at once: 170 MB for ten classes and windows of 512 pixels."""

StripReader = Callable[[Window], Pixels]


@dataclass(frozen=True)
class Strip:
    """Finished rows of a scene.

    Attributes:
        window: where they lie.
        classes: uint8 (h, w), class ids, 255 where not valid.
        confidence: uint8 (h, w), highest probability in percent, 255 where not valid; None if not asked for.
        valid: bool (h, w).
        windows: how many windows were done for it.
    """

    window: Window
    classes: NDArray[np.uint8]
    confidence: NDArray[np.uint8] | None
    valid: NDArray[np.bool_]
    windows: int


@dataclass(frozen=True)
class Grid:
    """The windows of a scene.

    Attributes:
        width: columns of the scene.
        height: rows of the scene.
        window: side of a window in pixels.
        overlap: pixels that neighbours share at least.
        panel: columns of a panel.
    """

    width: int
    height: int
    window: int
    overlap: int
    panel: int = PANEL

    @property
    def rows(self) -> list[int]:
        """First rows of the windows."""
        return window_starts(self.height, self.window, self.window - self.overlap)

    @property
    def columns(self) -> list[int]:
        """First columns of the windows."""
        return window_starts(self.width, self.window, self.window - self.overlap)

    def panels(self) -> list[tuple[int, int, list[int]]]:
        """First column, column after the last, and first columns of the windows that reach into it, for each panel."""
        edges = range(0, self.width, self.panel)
        return [
            (left, right, [column for column in self.columns if column < right and column + self.window > left])
            for left, right in ((left, min(left + self.panel, self.width)) for left in edges)
        ]

    def count(self) -> int:
        """Number of windows to compute."""
        return len(self.rows) * sum(len(columns) for _, _, columns in self.panels())


def predict_strips(
    segmenter: PixelClassifier, read: StripReader, grid: Grid, *, batch_size: int, device: torch.device, precision: str, confidence: bool
) -> Generator[Strip, None, None]:
    """Predict a scene strip by strip, left panel first, top to bottom.

    Windows without a valid pixel are skipped: no valid pixel lies in them. The next strip is read while the present one is computed.

    Args:
        segmenter: the model, in evaluation mode, on ``device``.
        read: reads a window of the scene; called from another thread.
        grid: the windows.
        batch_size: windows computed at once.
        device: where to compute.
        precision: as in :func:`tilth.models.inference.predict_tile`.
        confidence: also give the highest probability.

    Raises:
        RunError: the network gives values that are not numbers.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="tilth-read") as reader:
        for left, right, columns in grid.panels():
            first, last = columns[0], min(columns[-1] + grid.window, grid.width)
            places = [Window(first, row, last - first, min(grid.window, grid.height - row)) for row in grid.rows]
            weight = weight_sum(grid.columns, grid.window, grid.width)[left:right]
            total = torch.zeros(len(segmenter.scheme), min(grid.window, grid.height), right - left, device=device)
            row_weight = weight_sum(grid.rows, grid.window, grid.height)
            pending = reader.submit(read, places[0])
            for index, place in enumerate(places):
                pixels = pending.result()
                if index + 1 < len(places):
                    pending = reader.submit(read, places[index + 1])
                positions = [
                    (0, column - first) for column in columns if pixels.valid[:, column - first : column - first + grid.window].any()
                ]
                add_windows(
                    segmenter, pixels, positions, total, window=grid.window, batch_size=batch_size, precision=precision, shift=left - first
                )
                finished = (places[index + 1].row if index + 1 < len(places) else grid.height) - place.row
                inner = pixels.valid[:finished, left - first : right - first]
                rows = row_weight[place.row : place.row + finished, None] if confidence else None
                classes, percent = _decide(total[:, :finished], inner, None if rows is None else (rows * weight).to(device))
                yield Strip(Window(left, place.row, right - left, finished), classes, percent, inner, len(columns))
                _move_up(total, finished)


def _decide(total: Tensor, valid: NDArray[np.bool_], weight: Tensor | None) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Turn sums of weighted probabilities (K, h, w) into class ids and, given the sum of weights (h, w), percent."""
    # Dividing by the weight would not change which class is highest.
    highest, ids = total.max(dim=0)
    if not bool(torch.isfinite(highest).all()):
        raise RunError(
            "the network gives values that are not numbers; its weights are damaged, or precision 16 is too narrow: try bf16 or 32"
        )
    classes = np.where(valid, ids.to(torch.uint8).cpu().numpy(), np.uint8(IGNORE_INDEX))
    if weight is None:
        return classes, None
    percent = (highest / weight * 100).round_().clamp_(0, 100).to(torch.uint8).cpu().numpy()
    return classes, np.where(valid, percent, np.uint8(IGNORE_INDEX))


def _move_up(total: Tensor, finished: int) -> None:
    """Drop the finished rows: the open ones move to the top, and fresh zeros follow."""
    kept = total.shape[1] - finished
    if kept > 0:
        total[:, :kept] = total[:, finished:].clone()
    total[:, max(kept, 0) :] = 0
