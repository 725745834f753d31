"""Class probabilities of tiles of any size: overlapping windows, softmax, smooth blending.

Evaluation, labelling and whole-scene prediction all come through here, so a pixel gets the same answer wherever it is asked for.

Libraries of convolutions choose another kernel for another number of images at once, and kernels round differently. So that no label
hangs on how windows are put together, a CPU computes them one by one, whatever the batch size, which costs next to nothing there; and
an accelerator can be given full batches only (``full``), so that at least the last windows of a strip are treated as all others.
Products and sums that follow are separate operations, each rounded once: a fused one rounds otherwise where a row of memory ends.

Shapes: B windows, C bands, K classes, H x W pixels of a tile, w = window side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from tilth.errors import SensorMismatchError, UsageError, suggest
from tilth.models.classifier import PixelClassifier, PixelsLike, origin_of
from tilth.models.flips import FLIPS, View, look, look_back
from tilth.models.windows import blend_weights, fit_window, weight_sum, window_starts

if TYPE_CHECKING:
    pass

PRECISIONS: dict[str, torch.dtype | None] = {
    "32": None,
    "32-true": None,
    "bf16": torch.bfloat16,
    "bf16-mixed": torch.bfloat16,
    "16": torch.float16,
    "16-mixed": torch.float16,
}
"""Names of precisions and what autocast computes in; softmax and blending are always float32."""

_SUMMED_TOGETHER = 2**17
"""Probabilities computed in one go on a CPU."""


def predict_tile(
    segmenter: PixelClassifier,
    pixels: PixelsLike,
    *,
    window: int,
    overlap: int,
    batch_size: int = 4,
    device: str | torch.device = "cpu",
    precision: str = "32",
    flips: str = "none",
) -> Tensor:
    """Compute the class probabilities of one tile of any size, held in memory.

    Windows lie every ``window - overlap`` pixels; each pixel gets the mean of its windows' softmax probabilities, weighted by
    :func:`tilth.models.windows.blend_weights`. For a tile smaller than the window see :func:`tilth.models.windows.fit_window`; what reaches
    beyond a tile is not valid.

    Args:
        segmenter: the model; moved to ``device``, and evaluated in evaluation mode (its mode is restored).
        pixels: data (C, H, W) in storage units, valid bool (H, W).
        window: side of the windows in pixels.
        overlap: pixels that neighbouring windows share at least, 0 <= overlap < window.
        batch_size: windows computed at once on an accelerator, where the result depends on it by rounding; a CPU takes one at a time.
        device: where to compute.
        precision: ``32``, ``bf16-mixed`` or ``16-mixed``.
        flips: views of each window whose softmax probabilities are averaged, a key of :data:`tilth.models.flips.FLIPS`.

    Returns:
        float32 (K, H, W) on the CPU, sum 1 over K. Where pixels are not valid it is what the network makes of the fill value: mask it.

    Raises:
        SensorMismatchError: the number of bands is not the sensor's.
        UsageError: window, overlap, batch size, precision or flips make no sense.
    """
    check_windows(window, overlap, batch_size, precision, flips)
    bands, height, width = pixels.data.shape
    if bands != len(segmenter.sensor):
        raise SensorMismatchError(
            f"tile has {bands} bands, the model expects the {len(segmenter.sensor)} of sensor {segmenter.sensor.name!r}"
            f" ({', '.join(segmenter.sensor.band_names)})"
        )
    window, overlap = fit_window(window, overlap, height, width)
    rows, columns = window_starts(height, window, window - overlap), window_starts(width, window, window - overlap)
    place = torch.device(device)
    total = torch.zeros(len(segmenter.scheme), height, width, device=place)
    with evaluating(segmenter, place):
        add_windows(
            segmenter,
            pixels,
            [(row, column) for row in rows for column in columns],
            total,
            window=window,
            batch_size=batch_size,
            precision=precision,
            flips=flips,
        )
    weight = torch.outer(weight_sum(rows, window, height), weight_sum(columns, window, width))
    return total.div_(weight.to(place)).cpu()


def add_windows(
    segmenter: PixelClassifier,
    pixels: PixelsLike,
    positions: Sequence[tuple[int, int]],
    total: Tensor,
    *,
    window: int,
    batch_size: int,
    precision: str,
    flips: str = "none",
    shift: int = 0,
    full: bool = False,
    helper: Executor | None = None,
    origins: Sequence[tuple[int, int]] | None = None,
) -> None:
    """Add the weighted probabilities of windows of one block of pixels to a sum.

    The windows are added one after the other in the given order, so the sum in each pixel does not depend on the batches.

    Args:
        segmenter: the model, in evaluation mode, on the device of ``total``.
        pixels: data (C, H, W), valid (H, W).
        positions: row and column of each window's upper left pixel in ``pixels``; what reaches beyond is padded.
        total: float32 (K, h, w), added to in place; h >= every row + visible height.
        window: side of the windows in pixels.
        batch_size: windows computed at once; a CPU takes one at a time.
        precision: a key of :data:`PRECISIONS`.
        flips: a key of :data:`tilth.models.flips.FLIPS`.
        shift: column of ``pixels`` that is column 0 of ``total``; what falls outside ``total`` is dropped.
        full: fill the last batch up with its last window, so that the network sees batches of one size only.
        helper: one other thread that adds the last windows while the network computes the next.
        origins: row and column of each window's upper left pixel in its raster, for models that want to know; by default the origin of
            ``pixels`` and the position.
    """
    weights = blend_weights(window).to(total.device)
    views = FLIPS[flips]
    together = 1 if total.device.type == "cpu" else batch_size

    def add(logits: list[Tensor], batch: Sequence[tuple[int, int]]) -> None:
        for index, (row, column) in enumerate(batch):
            left, right = max(column - shift, 0), min(column - shift + window, total.shape[2])
            if left >= right:
                continue
            columns = slice(left + shift - column, right + shift - column)
            for first, part in _probabilities([view[index] for view in logits], views):
                high = min(part.shape[1], total.shape[1] - row - first)
                if high > 0:
                    part.mul_(weights[first : first + part.shape[1]])
                    total[:, row + first : row + first + high, left:right] += part[:, :high, columns]

    if origins is None:
        top, left_edge = origin_of(pixels)
        origins = [(top + row, left_edge + column) for row, column in positions]
    pending: Future[None] | None = None
    for first in range(0, len(positions), together):
        batch = positions[first : first + together]
        repeated = [batch[-1]] * (together - len(batch) if full else 0)
        places = origins[first : first + together]
        lie = torch.tensor([*places, *[places[-1]] * len(repeated)]) if getattr(segmenter, "takes_origins", False) else None
        logits = _logits(segmenter, *_crop(pixels, [*batch, *repeated], window), lie, total.device, precision, views)
        if helper is None:
            add(logits, batch)
            continue
        if pending is not None:
            pending.result()
        pending = helper.submit(add, logits, batch)
    if pending is not None:
        pending.result()


@contextmanager
def evaluating(model: PixelClassifier | nn.Module, device: torch.device | None = None) -> Iterator[None]:
    """Put a model into evaluation mode without gradients; afterwards each of its parts is in the mode it was in.

    Args:
        model: running statistics are read, not written.
        device: where to move it, and where it stays; by default where it is.
    """
    modes = [(module, module.training) for module in model.modules()]
    if device is not None:
        model.to(device)
    model.train(False)
    try:
        # Not inference_mode: constants cached on first use here may be needed by training later.
        with torch.no_grad():
            yield
    finally:
        # Not train(True): parts that are frozen in evaluation mode must stay so.
        for module, training in modes:
            module.training = training


def check_windows(window: int, overlap: int, batch_size: int, precision: str, flips: str = "none") -> None:
    """Refuse settings of windowed inference that make no sense.

    Raises:
        UsageError: naming the setting.
    """
    if window < 1 or not 0 <= overlap < window:
        raise UsageError(f"window {window} with overlap {overlap}: expected 0 <= overlap < window, in pixels")
    if batch_size < 1:
        raise UsageError(f"batch size {batch_size}: expected 1 or more")
    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}; {suggest(precision, PRECISIONS)}")
    if flips not in FLIPS:
        raise UsageError(f"unknown flips {flips!r}; {suggest(flips, FLIPS)}")


def _crop(pixels: PixelsLike, positions: Sequence[tuple[int, int]], window: int) -> tuple[Tensor, Tensor]:
    """Cut windows (B, C, w, w) in the stored type with valid (B, w, w); beyond the block: zeros, not valid."""
    bands = pixels.data.shape[0]
    data = np.zeros((len(positions), bands, window, window), dtype=pixels.data.dtype)
    valid = np.zeros((len(positions), window, window), dtype=np.bool_)
    for index, (row, column) in enumerate(positions):
        part = pixels.data[:, row : row + window, column : column + window]
        high, wide = part.shape[1:]
        data[index, :, :high, :wide] = part
        valid[index, :high, :wide] = pixels.valid[row : row + window, column : column + window]
    return torch.from_numpy(data), torch.from_numpy(valid)


def _logits(
    segmenter: PixelClassifier,
    data: Tensor,
    valid: Tensor,
    origins: Tensor | None,
    device: torch.device,
    precision: str,
    views: Sequence[View],
) -> list[Tensor]:
    """What the network says of each view of stored windows: logits (B, K, w, w), still as the view lies.

    Origins int64 (B, 2) are those of the windows, whichever way a view lies; None: the network is called without.
    """
    # Stored numbers travel in their own small type and are widened on the device.
    image = data.to(device).to(torch.float32)
    if valid.all():
        image = segmenter.normalise(image)
    else:
        seen = valid.to(device)
        # NaN would survive any arithmetic masking.
        image = segmenter.normalise(torch.where(seen[:, None], image, 0.0), seen)
    # Convolutions of a CPU are faster with the bands of a pixel side by side.
    layout = torch.channels_last if device.type == "cpu" else torch.contiguous_format
    kind = PRECISIONS[precision]
    with torch.autocast(device.type, dtype=kind, enabled=kind is not None):
        looks = (look(image, view).contiguous(memory_format=layout) for view in views)
        return [segmenter(one) if origins is None else segmenter(one, origins) for one in looks]


def _probabilities(logits: list[Tensor], views: Sequence[View]) -> Iterator[tuple[int, Tensor]]:
    """Mean of the softmax probabilities of views of one window, logits (K, w, w) each, laid back.

    Yields:
        First row, and float32 (K, h, w) that the caller may write into: some rows at a time on a CPU, whose memory is asked for again and
        again in small pieces at a third of what large ones cost.
    """
    if len(views) > 1:
        whole = (one.to(torch.float32).contiguous().softmax(dim=0) for one in logits)
        mean, *others = (look_back(one, view) for one, view in zip(whole, views, strict=True))
        for other in others:
            mean += other
        yield 0, mean.div_(len(views))
        return
    plain = logits[0]
    count, height, width = plain.shape
    rows = max(1, _SUMMED_TOGETHER // (count * width)) if plain.device.type == "cpu" else height
    for first in range(0, height, rows):
        yield first, plain[:, first : first + rows].to(torch.float32).contiguous().softmax(dim=0)
