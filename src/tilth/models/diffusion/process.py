"""Noise added to images and taken off again: x(t), its posterior, and the losses a noise predictor learns by; ddpm.md sections 2 and 3.

Axis letters: B images, C bands, H rows, W columns. Clean images lie in [-1, 1]. An index says which step of a schedule an image is at, from
0; a signal is the square root of the running product of alphas, see :class:`tilth.models.diffusion.schedule.NoiseSchedule`. Tables and
signals are in double precision until they meet an image.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tilth.models.diffusion.schedule import NoiseSchedule, Table

Floor = Literal["second", "tiny"]
"""What stands for the logarithm of the first posterior variance, which is 0: that of the second (guided), or of 1e-20 (SR3)."""

_TINY = 1e-20
_HALF_LEVEL = 1 / 255
"""Half the distance of two of 256 levels in [-1, 1]."""
_ENDS = 0.999
_LEAST = 1e-12


def at(table: Table, index: Tensor, image: Tensor) -> Tensor:
    """Look numbers up for each image of a batch: float64 table (T,) and indices int64 (B,) -> float32 (B, 1, 1, 1), where the image is."""
    return torch.from_numpy(np.asarray(table, np.float64))[index.cpu()].float().to(image.device).view(-1, 1, 1, 1)


def add_noise(clean: Tensor, noise: Tensor, signal: Tensor) -> Tensor:
    """Make noisy images: ``signal * clean + sqrt(1 - signal ** 2) * noise``.

    Args:
        clean: float32 (B, C, H, W).
        noise: standard normal, of the same shape.
        signal: float64 (B,), in (0, 1].

    Returns:
        float32 (B, C, H, W).
    """
    left, strength = (values.float().to(clean.device).view(-1, 1, 1, 1) for values in (signal, (1 - signal.square()).sqrt()))
    return left * clean + strength * noise


def clean_from_noise(schedule: NoiseSchedule, index: Tensor, noisy: Tensor, noise: Tensor) -> Tensor:
    """Take noise off images (B, C, H, W) that are at indices (B,): ``noisy / sqrt(A) - sqrt(1 / A - 1) * noise``."""
    products = schedule.alphas_cumprod
    return at(np.sqrt(1 / products), index, noisy) * noisy - at(np.sqrt(1 / products - 1), index, noisy) * noise


def noise_from_clean(schedule: NoiseSchedule, index: Tensor, noisy: Tensor, clean: Tensor) -> Tensor:
    """Say what noise lies between clean and noisy images (B, C, H, W): the inverse of :func:`clean_from_noise`."""
    products = schedule.alphas_cumprod
    return (at(np.sqrt(1 / products), index, noisy) * noisy - clean) / at(np.sqrt(1 / products - 1), index, noisy)


def posterior_mean(schedule: NoiseSchedule, index: Tensor, clean: Tensor, noisy: Tensor) -> Tensor:
    """Compute the mean (B, C, H, W) of images one step earlier, given clean and noisy ones."""
    posterior = schedule.posterior
    return at(posterior.clean, index, noisy) * clean + at(posterior.noisy, index, noisy) * noisy


def small_log_variance(schedule: NoiseSchedule, floor: Floor = "second") -> Table:
    """Logarithms of the posterior variances: float64 (T,); ``floor`` says what the first is, which would be minus infinity."""
    variance = schedule.posterior.variance
    return np.log(np.append(variance[1], variance[1:]) if floor == "second" else np.maximum(variance, _TINY))


def learned_log_variance(schedule: NoiseSchedule, index: Tensor, values: Tensor) -> Tensor:
    """Turn what a network says of the variance into its logarithm, between that of the posterior (-1) and beta (1).

    Args:
        schedule: of T steps.
        index: int64 (B,).
        values: (B, C, H, W), the second half of the network's output.

    Returns:
        float32 (B, C, H, W).
    """
    share = (values.float() + 1) / 2
    return share * at(np.log(schedule.betas), index, values) + (1 - share) * at(small_log_variance(schedule), index, values)


def noise_errors(predicted: Tensor, noise: Tensor) -> Tensor:
    """Squared errors of predicted noise, float32 (B, C, H, W); their mean over all pixels is the loss."""
    return (predicted.float() - noise).square()


def variational_bits(schedule: NoiseSchedule, index: Tensor, clean: Tensor, noisy: Tensor, noise: Tensor, values: Tensor) -> Tensor:
    """Compute what a step costs in the variational bound, in bits: what the variance of a network is learnt by.

    For index 0 that is the negative logarithm of the probability of the image's 8-bit level, for others the divergence of the step that the
    network takes from that of the posterior. Only the variance should take a gradient: detach ``noise``.

    Args:
        schedule: of T steps.
        index: int64 (B,).
        clean: (B, C, H, W), in [-1, 1].
        noisy: (B, C, H, W).
        noise: predicted, (B, C, H, W).
        values: of the variance, see :func:`learned_log_variance`.

    Returns:
        float32 (B, C, H, W).
    """
    mean = posterior_mean(schedule, index, clean_from_noise(schedule, index, noisy, noise.float()), noisy)
    spread = learned_log_variance(schedule, index, values)
    true_mean = posterior_mean(schedule, index, clean, noisy)
    true_spread = at(small_log_variance(schedule), index, noisy)
    divergence = 0.5 * (spread - true_spread - 1 + (true_spread - spread).exp() + (true_mean - mean).square() * (-spread).exp())
    first = (index == 0).view(-1, 1, 1, 1).to(noisy.device)
    return torch.where(first, -_log_likelihood(clean, mean, spread / 2), divergence) / math.log(2)


def _log_likelihood(image: Tensor, mean: Tensor, log_deviation: Tensor) -> Tensor:
    """Logarithm of the probability of 8-bit levels under normal distributions; the ends take all that lies beyond."""
    centred, narrow = image - mean, (-log_deviation).exp()
    above, below = _normal(narrow * (centred + _HALF_LEVEL)), _normal(narrow * (centred - _HALF_LEVEL))
    within = torch.where(image < -_ENDS, above, torch.where(image > _ENDS, 1 - below, above - below))
    return within.clamp(min=_LEAST).log()


def _normal(x: Tensor) -> Tensor:
    """Approximate cumulative normal distribution; the published losses use the same formula (Page, 1977)."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
