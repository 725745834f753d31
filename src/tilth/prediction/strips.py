"""Whole scenes in bounded memory: windows row by row, only the rows still open are held, finished rows leave."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tilth.classes import IGNORE_INDEX
from tilth.errors import RunError
from tilth.imagery.raster import Pixels, Window
from tilth.models.classifier import PixelClassifier
from tilth.models.inference import add_windows
from tilth.models.windows import weight_sum
from tilth.prediction.grid import Grid, Panel, Place

StripReader = Callable[[Window], Pixels]

Wanted = Callable[[Window], NDArray[np.bool_]]
"""Says which pixels of a window of the scene are wanted: bool (h, w)."""

_DECIDED_TOGETHER = 2**21
"""Sums looked at in one go: what fits the cache of a processor."""


@dataclass(frozen=True)
class Strip:
    """Finished rows of a scene.

    Attributes:
        window: where they lie in the scene.
        classes: uint8 (h, w), class ids, 255 where not valid or not wanted.
        confidence: uint8 (h, w), highest probability in percent, 255 where there is no class; None if not asked for.
        probabilities: uint8 (K, h, w), in percent, 255 where there is no class; None if not asked for.
        windows: how many windows it took.
    """

    window: Window
    classes: NDArray[np.uint8]
    confidence: NDArray[np.uint8] | None
    probabilities: NDArray[np.uint8] | None
    windows: int


@dataclass(frozen=True)
class Manner:
    """How windows are computed and what is told of them.

    Attributes:
        batch_size: windows computed at once on an accelerator.
        device: where to compute.
        precision: as in :func:`tilth.models.inference.predict_tile`.
        flips: as there.
        confidence: also give the highest probability.
        probabilities: also give those of all classes.
    """

    batch_size: int = 4
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: str = "32"
    flips: str = "none"
    confidence: bool = False
    probabilities: bool = False


def predict_strips(
    segmenter: PixelClassifier, read: StripReader, grid: Grid, manner: Manner, *, wanted: Wanted | None = None, skip: int = 0
) -> Generator[Strip, None, None]:
    """Predict a scene strip by strip, left panel first, top to bottom.

    Windows without a valid and wanted pixel are skipped: no pixel that gets a class lies in them. The next rows are read while the present
    ones are computed.

    Args:
        segmenter: the model, in evaluation mode, on the device.
        read: reads a window of the scene; called from another thread.
        grid: the windows.
        manner: how they are computed.
        wanted: which pixels are to get a class; by default all.
        skip: strips that are there already. The rows of windows that reach over the place where they end are computed again, in the
            same order, so all that follows is the same to the bit.

    Raises:
        RunError: the network gives values that are not numbers.
    """
    places = grid.places()[skip:]
    with ExitStack() as stack:
        reader = stack.enter_context(ThreadPoolExecutor(max_workers=1, thread_name_prefix="tilth-read"))
        helper = stack.enter_context(ThreadPoolExecutor(max_workers=1, thread_name_prefix="tilth-add")) if _has_spare(manner) else None
        for panel, strips in groupby(places, key=lambda place: place.panel):
            yield from _predict_panel(segmenter, reader, helper, read, grid, manner, panel, list(strips), wanted)


def _predict_panel(
    segmenter: PixelClassifier,
    reader: ThreadPoolExecutor,
    helper: ThreadPoolExecutor | None,
    read: StripReader,
    grid: Grid,
    manner: Manner,
    panel: Panel,
    strips: Sequence[Place],
    wanted: Wanted | None,
) -> Iterator[Strip]:
    """Predict the strips of a panel from the first one given to the last of all."""
    top, bottom = strips[0].window.row, strips[-1].window.row + strips[-1].window.height
    first = panel.columns[0]
    wide = min(panel.columns[-1] + grid.window, grid.width) - first
    inner = slice(panel.left - first, panel.right - first)
    rows = [row for row in grid.rows if row + grid.window > top and row <= strips[-1].row]
    finishes = {place.row: place for place in strips}
    weights = weight_sum(grid.rows, grid.window, grid.height), weight_sum(grid.columns, grid.window, grid.width)[panel.left : panel.right]
    total = torch.zeros(len(segmenter.scheme), min(grid.window, grid.height), panel.right - panel.left, device=manner.device)
    windows = [Window(first, row, wide, min(grid.window, grid.height - row)) for row in rows]
    for index, (place, pixels) in enumerate(zip(windows, _read_ahead(reader, read, windows), strict=True)):
        asked = pixels.valid[:, inner] if wanted is None else pixels.valid[:, inner] & wanted(place)[:, inner]
        rest = asked[max(top - place.row, 0) : bottom - place.row]
        columns = [column for column in panel.columns if rest[:, _overlap(column, grid.window, panel)].any()]
        add_windows(
            segmenter,
            pixels,
            [(0, column - first) for column in columns],
            total,
            window=grid.window,
            batch_size=manner.batch_size,
            precision=manner.precision,
            flips=manner.flips,
            shift=panel.left - first,
            full=True,
            helper=helper,
            origins=[(place.row, column) for column in columns],
        )
        strip = finishes.get(place.row)
        if strip is not None:
            part = slice(strip.window.row - place.row, strip.window.row - place.row + strip.window.height)
            weight = weights[0][strip.window.row : strip.window.row + strip.window.height, None] * weights[1]
            yield Strip(strip.window, *_decide(total[:, part], asked[part], weight, manner), windows=len(panel.columns))
        if index + 1 < len(rows):
            _move_up(total, rows[index + 1] - place.row)


def _has_spare(manner: Manner) -> bool:
    """Whether there is a processor that the network does not use."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return manner.device.type == "cpu" and torch.get_num_threads() < processors


def _read_ahead(reader: ThreadPoolExecutor, read: StripReader, windows: Sequence[Window]) -> Iterator[Pixels]:
    """Read window after window, the next one while the present one is used."""
    pending: Future[Pixels] = reader.submit(read, windows[0])
    for following in windows[1:]:
        pixels = pending.result()
        pending = reader.submit(read, following)
        yield pixels
    yield pending.result()


def _overlap(column: int, window: int, panel: Panel) -> slice:
    """Columns of a panel that a window reaches into."""
    return slice(max(column - panel.left, 0), column + window - panel.left)


def _decide(
    total: Tensor, asked: NDArray[np.bool_], weight: Tensor, manner: Manner
) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None, NDArray[np.uint8] | None]:
    """Turn sums of weighted probabilities (K, h, w) and of weights (h, w) into class ids and percents.

    Percents are of the same numbers that the class is chosen by, and rounding keeps their order: no class has more than the chosen one.
    """
    count, height, width = total.shape
    classes = np.empty((height, width), dtype=np.uint8)
    confidence = np.empty((height, width), dtype=np.uint8) if manner.confidence else None
    probabilities = np.empty((count, height, width), dtype=np.uint8) if manner.probabilities else None
    together = max(1, _DECIDED_TOGETHER // (count * width)) if total.device.type == "cpu" else height
    for row in range(0, height, together):
        rows = slice(row, row + together)
        part, none = total[:, rows], ~asked[rows]
        # Dividing by the weight would not change which class is highest.
        highest, ids = _first_highest(part)
        if not bool(torch.isfinite(highest).all()):
            raise RunError(
                "the network gives values that are not numbers; its weights are damaged, or precision 16 is too narrow: try bf16 or 32"
            )
        classes[rows] = _without(ids, none)
        if confidence is None and probabilities is None:
            continue
        scale = (100 / weight[rows]).to(total.device)
        if confidence is not None:
            confidence[rows] = _without(_percent(highest, scale), none)
        if probabilities is not None:
            probabilities[:, rows] = _without(_percent(part, scale), none)
    return classes, confidence, probabilities


def _first_highest(total: Tensor) -> tuple[Tensor, Tensor]:
    """Highest of (K, h, w) over K, float32 (h, w), and the lowest class id that reaches it, uint8 (h, w).

    The id is the number of classes before the first that is level with the highest: sums of bytes, which takes a third of the time of a
    search for the position.
    """
    highest = total.amax(dim=0)
    before = torch.ones(highest.shape, dtype=torch.bool, device=total.device)
    ids = torch.zeros(highest.shape, dtype=torch.uint8, device=total.device)
    for one in total[:-1]:
        before &= one != highest
        ids += before.view(torch.uint8)
    return highest, ids


def _percent(sums: Tensor, scale: Tensor) -> Tensor:
    return (sums * scale).round_().clamp_(0, 100).to(torch.uint8)


def _without(values: Tensor, none: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Values uint8 (..., h, w) with 255 where there is nothing to tell."""
    found: NDArray[np.uint8] = values.cpu().numpy()
    found[..., none] = IGNORE_INDEX
    return found


def _move_up(total: Tensor, finished: int) -> None:
    """Drop the finished rows: the open ones move to the top, and fresh zeros follow."""
    kept = max(total.shape[1] - finished, 0)
    for one in total:
        if kept:
            one[:kept] = one[finished:].clone()
        one[kept:] = 0
