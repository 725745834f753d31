"""Class probabilities of tiles of any size: overlapping windows, softmax, smooth blending.

Evaluation, labelling and whole-scene prediction all come through here, so a pixel gets the same answer wherever it is asked for.

Shapes: B windows, C bands, K classes, H x W pixels of a tile, w = window side.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tilth.errors import SensorMismatchError, UsageError, suggest
from tilth.models.networks import STRIDE

if TYPE_CHECKING:
    from tilth.classes import ClassScheme
    from tilth.sensors import Sensor

PRECISIONS: dict[str, torch.dtype | None] = {
    "32": None,
    "32-true": None,
    "bf16": torch.bfloat16,
    "bf16-mixed": torch.bfloat16,
    "16": torch.float16,
    "16-mixed": torch.float16,
}
"""Names of precisions and what autocast computes in; softmax and blending are always float32."""


class PixelClassifier(Protocol):
    """What inference needs of a :class:`tilth.models.segmenter.Segmenter`."""

    training: bool

    @property
    def sensor(self) -> Sensor:
        """The sensor whose tiles it understands."""

    @property
    def scheme(self) -> ClassScheme:
        """The K classes it tells apart."""

    def normalise(self, stored: Tensor, valid: Tensor | None = None) -> Tensor:
        """Turn stored values (B, C, H, W) into network input; pixels not valid (B, H, W) get the fill value."""

    def __call__(self, image: Tensor) -> Any:
        """Compute logits (B, K, H, W) of normalised images (B, C, H, W)."""

    def train(self, mode: bool = True) -> Any:
        """Switch between training and evaluation."""

    def modules(self) -> Iterator[nn.Module]:
        """All its parts, itself included."""

    def to(self, device: torch.device) -> Any:
        """Move the weights."""


class PixelsLike(Protocol):
    """A tile: data (C, H, W) in the stored type and valid bool (H, W), as :class:`tilth.imagery.read.Pixels`."""

    @property
    def data(self) -> NDArray[Any]:
        """Stored values (C, H, W)."""

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Where there is an image: bool (H, W)."""


def window_starts(size: int, window: int, stride: int) -> list[int]:
    """Place windows along an axis so that they cover it; the last is shifted back to end at the border.

    Args:
        size: length of the axis in pixels, at least 1.
        window: length of a window in pixels.
        stride: distance of neighbouring windows, at most ``window``.

    Returns:
        First pixels of the windows, increasing; ``[0]`` where one window reaches beyond the axis.

    Example:
        >>> window_starts(10, 4, 3), window_starts(9, 4, 3), window_starts(3, 4, 3)
        ([0, 3, 6], [0, 3, 5], [0])
    """
    if size < 1 or window < 1 or not 1 <= stride <= window:
        raise UsageError(
            f"windows of {window} pixels every {stride} cannot cover {size}; expected size and window >= 1, 1 <= stride <= window"
        )
    if size <= window:
        return [0]
    starts = list(range(0, size - window + 1, stride))
    return starts if starts[-1] == size - window else [*starts, size - window]


def fit_window(window: int, overlap: int, height: int, width: int) -> tuple[int, int]:
    """Shrink a window that is larger than an image in both directions, so that it is not mostly padding: unlike anything trained on.

    Evaluation and prediction both ask here, so an image gets the same classes from both.

    Args:
        window: side in pixels.
        overlap: of neighbouring windows, in pixels.
        height: of the image, in pixels.
        width: of the image, in pixels.

    Returns:
        Window, at most the longer side of the image rounded up to what the network takes (:data:`STRIDE`), and overlap below it.

    Example:
        >>> fit_window(512, 128, 100, 70), fit_window(512, 128, 600, 70), fit_window(64, 40, 20, 20)
        ((128, 127), (512, 128), (32, 31))
    """
    side = max(height, width)
    fitted = min(window, side + -side % STRIDE)
    return fitted, min(overlap, fitted - 1)


def axis_weights(window: int) -> Tensor:
    """Return the blending weight of each pixel along one axis of a window: float32 (w,), see :func:`blend_weights`."""
    position = (torch.arange(window, dtype=torch.float64) + 0.5) / window
    return torch.sin(torch.pi * position).square().to(torch.float32)


def blend_weights(window: int) -> Tensor:
    """Return how much each pixel of a window counts: most in the middle, where the network sees its surroundings.

    ``weight[i, j] = sin^2(pi (i + 1/2) / w) * sin^2(pi (j + 1/2) / w)``: smooth, symmetric, strictly positive, and constant in sum when
    windows lie at half their side. Being a product, the sum over a grid of windows is a product too.

    Returns:
        float32 (w, w), in (0, 1].
    """
    weights = axis_weights(window)
    return torch.outer(weights, weights)


def predict_tile(
    segmenter: PixelClassifier,
    pixels: PixelsLike,
    *,
    window: int,
    overlap: int,
    batch_size: int = 4,
    device: str | torch.device = "cpu",
    precision: str = "32",
) -> Tensor:
    """Compute the class probabilities of one tile of any size, held in memory.

    Windows lie every ``window - overlap`` pixels; each pixel gets the mean of its windows' softmax probabilities, weighted by
    :func:`blend_weights`. For a tile smaller than the window see :func:`fit_window`; what reaches beyond a tile is not valid.

    Args:
        segmenter: the model; moved to ``device``, and evaluated in evaluation mode (its mode is restored).
        pixels: data (C, H, W) in storage units, valid bool (H, W).
        window: side of the windows in pixels.
        overlap: pixels that neighbouring windows share at least, 0 <= overlap < window.
        batch_size: windows computed at once; the result does not depend on it but for rounding.
        device: where to compute.
        precision: ``32``, ``bf16-mixed`` or ``16-mixed``.

    Returns:
        float32 (K, H, W) on the CPU, sum 1 over K. Where pixels are not valid it is what the network makes of the fill value: mask it.

    Raises:
        SensorMismatchError: the number of bands is not the sensor's.
        UsageError: window, overlap, batch size or precision make no sense.
    """
    check_windows(window, overlap, batch_size, precision)
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
        positions = [(row, column) for row in rows for column in columns]
        add_windows(segmenter, pixels, positions, total, window=window, batch_size=batch_size, precision=precision)
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
    shift: int = 0,
) -> None:
    """Add the weighted probabilities of windows of one block of pixels to a sum.

    The windows are added one after the other in the given order, so the sum in each pixel does not depend on the batches.

    Args:
        segmenter: the model, in evaluation mode, on the device of ``total``.
        pixels: data (C, H, W), valid (H, W).
        positions: row and column of each window's upper left pixel in ``pixels``; what reaches beyond is padded.
        total: float32 (K, h, w), added to in place; h >= every row + visible height.
        window: side of the windows in pixels.
        batch_size: windows computed at once.
        precision: a key of :data:`PRECISIONS`.
        shift: column of ``pixels`` that is column 0 of ``total``; what falls outside ``total`` is dropped.
    """
    weights = blend_weights(window).to(total.device)
    for first in range(0, len(positions), batch_size):
        batch = positions[first : first + batch_size]
        probabilities = _probabilities(segmenter, *_crop(pixels, batch, window), total.device, precision)
        for (row, column), one in zip(batch, probabilities, strict=True):
            left, right = max(column - shift, 0), min(column - shift + window, total.shape[2])
            bottom = min(row + window, total.shape[1])
            if left < right and row < bottom:
                inner = (slice(0, bottom - row), slice(left + shift - column, right + shift - column))
                total[:, row:bottom, left:right] += one[:, *inner] * weights[inner]


def weight_sum(starts: Iterable[int], window: int, size: int) -> Tensor:
    """Sum the blending weights of windows along one axis: float32 (size,), strictly positive where windows cover it."""
    weights = axis_weights(window)
    result = torch.zeros(size)
    for start in starts:
        stop = min(start + window, size)
        result[start:stop] += weights[: stop - start]
    return result


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


def check_windows(window: int, overlap: int, batch_size: int, precision: str) -> None:
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


def _probabilities(segmenter: PixelClassifier, data: Tensor, valid: Tensor, device: torch.device, precision: str) -> Tensor:
    """Softmax probabilities float32 (B, K, w, w) of stored windows."""
    # Stored numbers travel in their own small type and are widened on the device.
    image, seen = data.to(device).to(torch.float32), valid.to(device)
    # NaN would survive any arithmetic masking.
    image = torch.where(seen[:, None], image, 0.0)
    kind = PRECISIONS[precision]
    with torch.autocast(device.type, dtype=kind, enabled=kind is not None):
        logits: Tensor = segmenter(segmenter.normalise(image, seen))
    return logits.to(torch.float32).softmax(dim=1)
