"""Photometric operations on batches with one factor a sample; values between low (0) and high (1), nothing is clamped here.

Operations may work in place: use what they return. Axis letters: n samples, c bands, H rows, W columns; factors are (n, 1, 1, 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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
    total = image[:, :1] * weights[0]
    for band in range(1, image.shape[1]):
        total.add_(image[:, band : band + 1], alpha=weights[band])
    return total


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
    mean = (_mean(image, valid) * torch.tensor(weights, device=image.device).view(-1, 1, 1)).sum(1, keepdim=True)
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
        shift: (n, 1, 1, 1), in turns.

    Returns:
        A new (n, 3, H, W).
    """
    red, green, blue = image.unbind(1)
    low = torch.minimum(torch.minimum(red, green), blue)
    chroma = torch.maximum(torch.maximum(red, green), blue).sub_(low)
    # The angle in sixths of a turn, -3 to 3, counted from red and negative towards blue: one formula for all six sectors, for comparisons
    # and choices between tensors are slow on a CPU. Grey pixels get any angle, which moves nothing.
    angle = (green + blue).sub_(red).sub_(low).div_(chroma.clamp_min(torch.finfo(image.dtype).tiny)).add_(1)
    angle.copysign_(green - blue).add_(shift[:, :, 0] * 6)
    angle.sub_((angle / 6).floor_(), alpha=6)
    # Each channel is a trapezoid of the angle: 1 around its own colour, 0 around the opposite one.
    result = torch.empty_like(image, memory_format=torch.contiguous_format)
    torch.addcmul(low - chroma, (angle - 3).abs_().clamp_(1, 2), chroma, out=result[:, 0])
    top = torch.add(low, chroma, alpha=2)
    torch.addcmul(top, (angle - 2).abs_().clamp_(1, 2), chroma, value=-1, out=result[:, 1])
    torch.addcmul(top, (angle - 4).abs_().clamp_(1, 2), chroma, value=-1, out=result[:, 2])
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
    place = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (place / sigma_px) ** 2)
    kernel = (kernel / kernel.sum()).to(torch.float32)
    # Column j of the matrix holds the weights of output j of a piece.
    weights = torch.zeros(_PIECE, _PIECE + 2 * radius + 1)
    weights[:, : len(kernel)] = kernel
    weights = weights.flatten()[: _PIECE * (_PIECE + 2 * radius)].view(_PIECE, -1).T.contiguous().to(image.device)
    down, across = -(-height // _PIECE), -(-width // _PIECE)
    below, right = down * _PIECE - height, across * _PIECE - width
    padded = F.pad(image.unsqueeze(0), (radius, radius + right, radius, radius + below), mode="replicate")[0]
    wide = padded.unfold(2, len(weights), _PIECE).reshape(-1, len(weights)).mm(weights).view(bands, -1, across * _PIECE)
    tall = torch.matmul(weights.T, wide.unfold(1, len(weights), _PIECE).transpose(2, 3)).flatten(1, 2)
    result.copy_(tall[:, :height, :width])


def _mean(image: Tensor, valid: Tensor | None) -> Tensor:
    """Mean of each band over the valid pixels: (n, c, 1, 1); 0 where there are none."""
    if valid is None:
        return image.mean((2, 3), keepdim=True)
    weight = valid.unsqueeze(1)
    total = (image * weight.to(image.dtype)).sum((2, 3), keepdim=True)
    return total / weight.sum((2, 3), keepdim=True).clamp_min(1)
