"""Images out of noise, step by step: ancestral sampling and DDIM; ddpm.md section 3."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tilth.errors import ConfigError
from tilth.models.diffusion.process import (
    Floor,
    at,
    clean_from_noise,
    learned_log_variance,
    noise_from_clean,
    posterior_mean,
    small_log_variance,
)
from tilth.models.diffusion.schedule import NoiseSchedule, kept_indices

Variance = Literal["small", "large", "learned"]
"""Of an ancestral step: that of the posterior, beta, or what the network says."""

Predict = Callable[[Tensor, Tensor], Tensor]
"""A noise predictor: noisy images (B, C, H, W) and what it is told of each, float (B,) -> noise, and behind it a learned variance."""

Fresh = Callable[[int, Tensor], Tensor]
"""Noise for a step, counted from 0: of the shape of the images it gets."""


@dataclass(frozen=True)
class Chain:
    """The steps that a sampler takes.

    Attributes:
        schedule: of the steps that are taken.
        told: for each of its indices what the network is told: the signal (SR3 type), or the index in the whole schedule (guided type).
    """

    schedule: NoiseSchedule
    told: tuple[float, ...]


@dataclass(frozen=True)
class Step:
    """What a sampler has after a step.

    Attributes:
        image: (B, C, H, W), less noisy than before; after the last step it is clean.
        clean: (B, C, H, W), what the clean image seems to be at this step.
    """

    image: Tensor
    clean: Tensor


def build_chain(schedule: NoiseSchedule, layout: str, spacing: str | int | None = None) -> Chain:
    """Choose the steps of a sampler.

    Args:
        schedule: that the network was trained with.
        layout: ``sr3`` or ``guided``, what kind of network.
        spacing: which steps, see :func:`tilth.models.diffusion.schedule.kept_indices`; None: all.

    Raises:
        ConfigError: a spacing that the schedule does not have.
    """
    indices = list(range(schedule.steps)) if spacing is None else kept_indices(schedule.steps, spacing)
    told = tuple(float(schedule.signals[index + 1]) if layout == "sr3" else float(index) for index in indices)
    return Chain(schedule if spacing is None else schedule.respaced(indices), told)


def sample_ddim(
    chain: Chain, predict: Predict, noise: Tensor, *, eta: float = 0.0, clip: bool = True, fresh: Fresh | None = None
) -> Iterator[Step]:
    """Sample by DDIM.

    Args:
        chain: steps to take.
        predict: the noise predictor.
        noise: standard normal (B, C, H, W), to start from.
        eta: 0 adds no noise on the way, so that the start decides all; 1 as much as an ancestral step.
        clip: hold clean images in [-1, 1] at every step.
        fresh: gives noise where ``eta`` is above 0; torch's random state by default.

    Yields:
        What there is after each step.
    """
    image, schedule = noise, chain.schedule
    for step, index in enumerate(reversed(range(schedule.steps))):
        clean, _ = _predicted(chain, predict, index, image, clip)
        now, before = schedule.alphas_cumprod[index], schedule.before[index]
        spread = eta * float(np.sqrt((1 - before) / (1 - now)) * np.sqrt(1 - now / before))
        direction = noise_from_clean(schedule, _each(index, image), image, clean)
        image = float(np.sqrt(before)) * clean + float(np.sqrt(1 - before - spread**2)) * direction
        if spread and index:
            image = image + spread * _fresh(fresh, step, image)
        yield Step(image, clean)


def sample_ancestral(
    chain: Chain,
    predict: Predict,
    noise: Tensor,
    *,
    variance: Variance = "small",
    floor: Floor = "second",
    clip: bool = True,
    fresh: Fresh | None = None,
) -> Iterator[Step]:
    """Sample by the steps of the process turned round; all steps of a schedule take long.

    Args:
        chain: steps to take.
        predict: the noise predictor.
        noise: standard normal (B, C, H, W), to start from.
        variance: of a step.
        floor: see :data:`tilth.models.diffusion.process.Floor`.
        clip: hold clean images in [-1, 1] at every step.
        fresh: gives noise for each step but the last; torch's random state by default.

    Yields:
        What there is after each step.

    Raises:
        ConfigError: a learned variance of a network that learned none.
    """
    image = noise
    for step, index in enumerate(reversed(range(chain.schedule.steps))):
        clean, values = _predicted(chain, predict, index, image, clip)
        mean, spread = reverse_step(chain.schedule, _each(index, image), image, clean, values, variance, floor)
        image = mean + (spread / 2).exp() * _fresh(fresh, step, mean) if index else mean
        yield Step(image, clean)


def reverse_step(
    schedule: NoiseSchedule, index: Tensor, noisy: Tensor, clean: Tensor, values: Tensor | None, variance: Variance, floor: Floor = "second"
) -> tuple[Tensor, Tensor]:
    """Compute mean and logarithm of the variance of images one step earlier.

    Args:
        schedule: of T steps.
        index: int64 (B,).
        noisy: (B, C, H, W).
        clean: as predicted, (B, C, H, W).
        values: what the network says of the variance; None where it says nothing.
        variance: which one.
        floor: see :data:`tilth.models.diffusion.process.Floor`.

    Returns:
        Mean (B, C, H, W), and logarithm (B, 1, 1, 1), for a learned variance (B, C, H, W).

    Raises:
        ConfigError: a learned variance of a network that learned none.
    """
    mean = posterior_mean(schedule, index, clean, noisy)
    if variance == "learned":
        if values is None:
            raise ConfigError("variance=learned: this network predicts noise alone; take small or large")
        return mean, learned_log_variance(schedule, index, values)
    return mean, at(np.log(schedule.betas) if variance == "large" else small_log_variance(schedule, floor), index, noisy)


def _predicted(chain: Chain, predict: Predict, index: int, image: Tensor, clip: bool) -> tuple[Tensor, Tensor | None]:
    """Ask the network what the clean image seems to be, and what it says of the variance."""
    bands = image.shape[1]
    told = torch.full((len(image),), chain.told[index], dtype=torch.float32, device=image.device)
    with torch.no_grad():
        output = predict(image, told).float()
    clean = clean_from_noise(chain.schedule, _each(index, image), image, output[:, :bands])
    return clean.clamp(-1, 1) if clip else clean, output[:, bands:] if output.shape[1] > bands else None


def _each(index: int, image: Tensor) -> Tensor:
    return torch.full((len(image),), index)


def _fresh(fresh: Fresh | None, step: int, image: Tensor) -> Tensor:
    return torch.randn_like(image) if fresh is None else fresh(step, image)
