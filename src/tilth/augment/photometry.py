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
    red, green, blue = image[:, 0], image[:, 1], image[:, 2]
    high, low = image.amax(1), image.amin(1)
    chroma = high - low
    safe = chroma.masked_fill(chroma == 0, 1)
    sector = torch.where(high == green, (blue - red).div_(safe).add_(2), (red - green).div_(safe).add_(4))
    sector = torch.where(high == red, (green - blue).div_(safe), sector).add_(shift[:, :, 0] * 6)
    sector = sector.sub_((sector / 6).floor_().mul_(6))
    # Each channel is a trapezoid of the angle, here in sixths of a turn: 1 around its own colour, 0 around the opposite one.
    ramps = ((sector - 3).abs_().sub_(1), (sector - 2).abs_().neg_().add_(2), (sector - 4).abs_().neg_().add_(2))
    return torch.stack([ramp.clamp_(0, 1).mul_(chroma).add_(low) for ramp in ramps], 1)


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
    samples, bands, height, width = image.shape
    radius = max(math.ceil(4 * sigma - 0.5) for sigma in sigmas_px)
    if radius < 1:
        return image.clone()
    sigma = torch.tensor(sigmas_px, dtype=torch.float64).view(-1, 1)
    place = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (place / sigma) ** 2) * (place.abs() <= (4 * sigma + 0.5).floor())
    kernel = (kernel / kernel.sum(1, keepdim=True)).to(torch.float32).to(image.device).repeat_interleave(bands, 0)
    # One group a plane: the batch becomes channels, so that every sample has its own kernel.
    planes = F.pad(image.reshape(1, samples * bands, height, width), (radius, radius, radius, radius), mode="replicate")
    planes = F.conv2d(planes, kernel[:, None, None, :], groups=samples * bands)
    return F.conv2d(planes, kernel[:, None, :, None], groups=samples * bands).view(samples, bands, height, width)


def _mean(image: Tensor, valid: Tensor | None) -> Tensor:
    """Mean of each band over the valid pixels: (n, c, 1, 1); 0 where there are none."""
    if valid is None:
        return image.mean((2, 3), keepdim=True)
    weight = valid.unsqueeze(1)
    total = torch.where(weight, image, 0).sum((2, 3), keepdim=True)
    return total / weight.sum((2, 3), keepdim=True).clamp_min(1)
