"""Photometric operations on batches with one factor a sample; values between low (0) and high (1), nothing is clamped here.

Operations may work in place: use what they return. Axis letters: n samples, c bands, H rows, W columns; factors are (n, 1, 1, 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# Luma of ITU-R BT.601, as Pillow's greyscale conversion uses.
GREY_WEIGHTS = {"red": 0.299, "green": 0.587, "blue": 0.114}
# Outputs of a blur computed at once along an axis.
_PIECE = 16


def grey(image: Tensor, weights: Sequence[float]) -> Tensor:
    """Weighted mean of the bands.

    Args:
        image: float32 (n, c, H, W).
        weights: c weights that sum to 1.

    Returns:
        A new (n, 1, H, W).
    """
    first, *others = image.unbind(1)
    total = first * weights[0]
    for plane, weight in zip(others, weights[1:], strict=True):
        total.add_(plane, alpha=weight)
    return total.unsqueeze(1)


def brightness(image: Tensor, factor: Tensor) -> Tensor:
    """Multiply by a factor, which is a change of illumination; in place."""
    return image.mul_(factor)


def contrast(image: Tensor, factor: Tensor, weights: Sequence[float], valid: Tensor | None) -> Tensor:
    """Blend with the mean grey value of the sample: ``factor * image + (1 - factor) * mean``; in place.

    Args:
        image: float32 (n, c, H, W).
        factor: (n, 1, 1, 1).
        weights: of the bands in the grey value.
        valid: bool (n, H, W), the pixels the mean is taken over; None for all.

    Returns:
        ``image``.
    """
    mean = grey(_mean(image, valid), weights)
    return image.mul_(factor).add_((1 - factor) * mean)


def stretch(image: Tensor, factor: Tensor, valid: Tensor | None) -> Tensor:
    """Scale each band around its own mean in the sample; in place. Arguments as in :func:`contrast`."""
    mean = _mean(image, valid)
    return image.mul_(factor).add_((1 - factor) * mean)


def saturation(image: Tensor, factor: Tensor, weights: Sequence[float]) -> Tensor:
    """Blend with the pixel's grey value: ``factor * image + (1 - factor) * grey``; in place. Arguments as in :func:`contrast`."""
    pixel_grey = grey(image, weights)
    return image.mul_(factor).add_(pixel_grey.mul_(1 - factor))


def hue(image: Tensor, shift: Tensor) -> Tensor:
    """Turn the colour circle (HSV) of a red, green and blue triplet; value and chroma of a pixel stay.

    Args:
        image: float32 (n, 3, H, W); need not lie in [0, 1].
        shift: (n, 1, 1, 1), in turns, at least -1/2.

    Returns:
        A new (n, 3, H, W).
    """
    red, green, blue = image.unbind(1)
    low = torch.minimum(torch.minimum(red, green), blue)
    six = torch.maximum(torch.maximum(red, green), blue).sub_(low).mul_(6)
    # The angle in turns, -1/2 to 1/2, counted from red and negative towards blue: one formula for all six sectors, for comparisons
    # and choices between tensors are slow on a CPU. Grey pixels get any angle, which moves nothing.
    turns = (green + blue).sub_(red).sub_(low).div_(six.clamp_min(torch.finfo(image.dtype).tiny)).add_(1 / 6)
    turns.copysign_(green - blue).add_(shift[:, :, 0] + 1).frac_()
    # Each channel is a trapezoid of the angle: 1 around its own colour, 0 around the opposite one. ``six`` is six times the chroma.
    result = torch.empty_like(image, memory_format=torch.contiguous_format)
    torch.addcmul(low.sub(six, alpha=1 / 6), turns.sub(1 / 2).abs_().clamp_(1 / 6, 1 / 3), six, out=result[:, 0])
    top = low.add_(six, alpha=1 / 3)
    torch.addcmul(top, turns.sub(1 / 3).abs_().clamp_(1 / 6, 1 / 3), six, value=-1, out=result[:, 1])
    torch.addcmul(top, turns.sub_(2 / 3).abs_().clamp_(1 / 6, 1 / 3), six, value=-1, out=result[:, 2])
    return result


def enhance_edges(image: Tensor) -> Tensor:
    """Add to each pixel half its difference from the eight around it, as Pillow's ``EDGE_ENHANCE``; pixels of the border stay.

    Args:
        image: float32 (n, c, H, W).

    Returns:
        A new (n, c, H, W).
    """
    result = image.clone()
    if min(image.shape[-2:]) >= 3:
        around = F.avg_pool2d(image, 3, stride=1) * 9
        result[..., 1:-1, 1:-1].mul_(5.5).sub_(around, alpha=0.5)
    return result


def gaussian_blur(image: Tensor, sigmas_px: Sequence[float]) -> Tensor:
    """Blur each sample by its own Gaussian, cut off at four standard deviations, borders repeated.

    Args:
        image: float32 (n, c, H, W).
        sigmas_px: n standard deviations in pixels, above 0.

    Returns:
        A new (n, c, H, W).
    """
    result = torch.empty_like(image, memory_format=torch.contiguous_format)
    for sample, sigma_px in enumerate(sigmas_px):
        _blur_one(image[sample], sigma_px, result[sample])
    return result


def _blur_one(image: Tensor, sigma_px: float, result: Tensor) -> None:
    """Blur (c, H, W) into ``result``, rows and columns in pieces: products with small banded matrices, which beat convolutions a plane."""
    radius = max(math.ceil(4 * sigma_px - 0.5), 0)
    bands, height, width = image.shape
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma_px) ** 2)
    # Row j holds the weights of output j of a piece, j places to the right: rows that are written one longer than they are read move on.
    reach = _PIECE + 2 * radius
    matrix = np.zeros((_PIECE, reach + 1), np.float32)
    matrix[:, : len(kernel)] = kernel / kernel.sum()
    weights = torch.from_numpy(matrix.ravel()[: _PIECE * reach].reshape(_PIECE, reach)).to(image.device)
    down, across = -(-height // _PIECE), -(-width // _PIECE)
    below, right = down * _PIECE - height, across * _PIECE - width
    padded = F.pad(image.unsqueeze(0), (radius, radius + right, radius, radius + below), mode="replicate")[0]
    tall = image.new_empty(bands, down, _PIECE, padded.shape[2])
    # Pieces overlap in memory; products of whole batches of them need no copies.
    for band, pieces in enumerate(padded.unfold(1, reach, _PIECE).transpose(2, 3)):
        torch.bmm(weights.expand(down, -1, -1), pieces, out=tall[band])
    pieces = tall.view(-1, padded.shape[2]).unfold(1, reach, _PIECE).transpose(0, 1)
    wide = torch.bmm(pieces, weights.T.expand(across, -1, -1)).view(across, bands, -1, _PIECE)[:, :, :height].permute(1, 2, 0, 3)
    if right:
        result.copy_(wide.reshape(bands, height, -1)[..., :width])
    else:
        result.view(bands, height, across, _PIECE).copy_(wide)


def _mean(image: Tensor, valid: Tensor | None) -> Tensor:
    """Mean of each band over the valid pixels: (n, c, 1, 1); 0 where there are none."""
    if valid is None:
        return image.mean((2, 3), keepdim=True)
    weight = valid.unsqueeze(1)
    total = (image * weight.to(image.dtype)).sum((2, 3), keepdim=True)
    return total / weight.sum((2, 3), keepdim=True).clamp_min(1)
