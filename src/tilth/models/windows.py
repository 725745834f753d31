"""Where windows lie, and how much each of their pixels counts: overlapping squares that cover an axis, blended smoothly."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from tilth.errors import UsageError
from tilth.models.networks import STRIDE


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


def weight_sum(starts: Iterable[int], window: int, size: int) -> Tensor:
    """Sum the blending weights of windows along one axis: float32 (size,), strictly positive where windows cover it."""
    weights = axis_weights(window)
    result = torch.zeros(size)
    for start in starts:
        stop = min(start + window, size)
        result[start:stop] += weights[: stop - start]
    return result
