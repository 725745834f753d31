"""The strong view: photometric changes only, of any number of optical and radar bands (s5_pretrain.md section 4).

Everything happens between the sensor's ``low`` (0) and ``high`` (1). Optical bands take brightness, contrast, saturation, hue and grey;
radar bands, in decibels, take gain, contrast and speckle; all bands take the blur. For an RGB sensor this is the chain of S5 without its
8-bit rounding.

Axis letters: B samples, n samples of a group, C bands, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from tilth import seeds
from tilth.augment import photometry
from tilth.augment.config import StrongConfig
from tilth.augment.normalise import check_bands, from_unit, known_whole, to_unit
from tilth.errors import DataError
from tilth.sensors import Sensor

# Elements of one block: a CPU takes one sample, which stays in its cache, and of which nothing need be picked out for an operation and
# put back; an accelerator takes whole batches.
_BLOCK_CPU = 1
_BLOCK_ACCELERATOR = 1 << 29


@dataclass(frozen=True)
class StrongDraw:
    """What chance decided for one sample.

    Attributes:
        jitter: whether optical jitter and radar gain and contrast happen.
        order: permutation of 0 brightness, 1 contrast, 2 saturation, 3 hue.
        factors: brightness, contrast and saturation factors and the hue shift in turns.
        grayscale: whether the optical bands become grey.
        sigma_px: standard deviation of the blur in pixels; 0 for none.
        radar_gain_db: offset in decibels.
        radar_contrast: factor around the mean.
        looks: looks of the added speckle; 0 for none.
        edges: whether edges of the optical bands are enhanced.
    """

    jitter: bool
    order: tuple[int, ...]
    factors: tuple[float, float, float, float]
    grayscale: bool
    sigma_px: float
    radar_gain_db: float
    radar_contrast: float
    looks: float
    edges: bool = False


def draw_strong(draw: int, config: StrongConfig, view: int = 0) -> StrongDraw:
    """Draw all that a strong view needs but the speckle field, as a pure function of the sample's seed.

    The same numbers are drawn for every sensor and whatever happens, so that one option never shifts the draws of another.

    Args:
        draw: the sample's seed, ``Batch["draw"]``.
        config: probabilities and ranges.
        view: 0, 1, ... for several independent strong views of one sample.

    Returns:
        The draw.
    """
    generator = seeds.generator(draw, "strong", view)

    jitter = bool(generator.random() < config.jitter_probability)
    order = tuple(generator.permutation(4).tolist())
    rest: Iterator[float] = iter(generator.random(12).tolist())

    def between(low: float, high: float) -> float:
        return low + (high - low) * next(rest)

    def around(centre: float, spread: float) -> float:
        return between(centre - spread, centre + spread)

    factors = (around(1, config.brightness), around(1, config.contrast), around(1, config.saturation), around(0, config.hue))
    grayscale = next(rest) < config.grayscale_probability
    blur = next(rest) < config.blur_probability
    sigma = between(*config.blur_sigma)
    gain, contrast = around(0, config.radar_gain_db), around(1, config.radar_contrast)
    speckle = next(rest) < config.speckle_probability
    looks = float(np.exp(between(*np.log(config.speckle_looks).tolist())))
    edges = next(rest) < config.edge_probability
    return StrongDraw(jitter, order, factors, grayscale, sigma if blur else 0.0, gain, contrast, looks if speckle else 0.0, edges)


@torch.no_grad()
def strong_view(
    image: Tensor, sensor: Sensor, draws: Sequence[int], config: StrongConfig, view: int = 0, valid: Tensor | None = None
) -> Tensor:
    """Make the strong view of a batch of weak crops; the geometry stays.

    A sample's result depends on its seed and pixels alone, not on its place in the batch or its neighbours.

    Args:
        image: float (B, C, H, W), normalised.
        sensor: whose bands, in channel order.
        draws: B seeds, ``Batch["draw"]``.
        config: probabilities and ranges.
        view: 0, 1, ... for several independent strong views of one sample.
        valid: bool (B, H, W). If given, contrast takes its mean over valid pixels and the others keep their fill value. If None, all
            pixels count and change alike, padding included, as in the official S5 program.

    Returns:
        A new float32 (B, C, H, W), normalised. Samples of uint8 sensors that were jittered stay within [low, high] of every band; nothing
        else is clipped.

    Raises:
        SensorMismatchError: the number of bands is not the sensor's.
        DataError: not one seed a sample, or ``valid`` of another shape.
    """
    check_bands(image, sensor)
    samples, _, height, width = image.shape
    if len(draws) != samples:
        raise DataError(f"{len(draws)} seeds for {samples} samples; give Batch['draw'] of the same batch")
    if valid is not None and tuple(valid.shape) != (samples, height, width):
        raise DataError(f"valid has shape {tuple(valid.shape)}, the image {tuple(image.shape)}; expected {(samples, height, width)}")
    plans = [draw_strong(draw, config, view) for draw in draws]
    bands = _bands_of(sensor)
    result = torch.empty(image.shape, dtype=torch.float32, device=image.device)
    # Mixed precision would blur and average in 16 bits if a caller had it switched on.
    with torch.autocast(device_type=image.device.type, enabled=False):
        for part in _blocks(image):
            keep = None if valid is None else valid[part]
            if keep is not None and known_whole(keep):
                keep = None
            unit = _jitter_optical(to_unit(image[part], sensor), bands, plans[part], keep)
            unit = _change_radar(unit, bands, plans[part], [seeds.derive(draw, "speckle", view) for draw in draws[part]], keep)
            made = from_unit(_blur(unit, plans[part]), sensor)
            if keep is None:
                result[part] = made
            else:
                torch.where(keep.unsqueeze(1), made, image[part], out=result[part])
    return result


@dataclass(frozen=True)
class _Bands:
    """Which channels take what. ``grey`` are the weights of the optical bands in their grey value."""

    optical: tuple[int, ...]
    grey: tuple[float, ...]
    triplet: tuple[int, int, int] | None
    radar: tuple[int, ...]
    radar_range_db: tuple[float, ...]
    clamp: bool


@lru_cache(maxsize=64)
def _bands_of(sensor: Sensor) -> _Bands:
    optical = tuple(place for place, band in enumerate(sensor.bands) if band.kind == "optical")
    radar = tuple(place for place, band in enumerate(sensor.bands) if band.kind == "radar")
    names = [sensor.band_names[place] for place in optical]
    weights = photometry.GREY_WEIGHTS if sorted(names) == sorted(photometry.GREY_WEIGHTS) else dict.fromkeys(names, 1 / max(len(names), 1))
    colours = sensor.rgb_indices
    return _Bands(
        optical=optical,
        grey=tuple(weights[name] for name in names),
        triplet=colours if len(set(colours)) == 3 and set(colours) <= set(optical) else None,
        radar=radar,
        radar_range_db=tuple(sensor.bands[place].high - sensor.bands[place].low for place in radar),
        clamp=sensor.dtype == "uint8",
    )


def _blocks(image: Tensor) -> Iterator[slice]:
    """Cut a batch into runs of samples of a size that suits the device; results do not depend on it."""
    budget = _BLOCK_CPU if image.device.type == "cpu" else _BLOCK_ACCELERATOR
    step = max(budget // max(image[:1].numel(), 1), 1)
    for start in range(0, image.shape[0], step):
        yield slice(start, start + step)


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    """Per-sample numbers as (n, 1, 1, 1)."""
    return torch.tensor(values, dtype=torch.float32).to(like.device).view(-1, 1, 1, 1)


def _take(unit: Tensor, samples: list[int], bands: Sequence[int]) -> Tensor:
    """Copy some samples and bands: (n, c, H, W); all of both, in their own order, are handed out without a copy."""
    part = unit if len(samples) == unit.shape[0] else unit[samples]
    return part if list(bands) == list(range(unit.shape[1])) else part[:, list(bands)]


def _put(unit: Tensor, samples: list[int], bands: Sequence[int], part: Tensor) -> Tensor:
    """Write back what :func:`_take` handed out, changed; what is all of it takes the place of ``unit``."""
    if part.shape == unit.shape and list(bands) == list(range(unit.shape[1])):
        return part
    if len(samples) < unit.shape[0]:
        unit[torch.tensor(samples).view(-1, 1), torch.tensor(bands)] = part
    else:
        for place, band in enumerate(bands):
            unit[:, band] = part[:, place]
    return unit


def _jitter_optical(unit: Tensor, bands: _Bands, plans: Sequence[StrongDraw], valid: Tensor | None) -> Tensor:
    """Brightness, contrast, saturation and hue in each sample's own order, then edges, then grey; may be in place."""
    if not bands.optical:
        return unit
    jittered = [sample for sample, plan in enumerate(plans) if plan.jitter]
    factors = torch.tensor([plans[sample].factors for sample in jittered]).to(unit.device).view(-1, 4, 1, 1, 1).unbind(1)
    # Samples whose next operation is the same go through it together.
    steps = [(place, operation) for place in range(4) for operation in sorted({plans[sample].order[place] for sample in jittered})]
    for place, operation in steps:
        if operation == 3 and bands.triplet is None:
            continue
        chosen = [number for number, sample in enumerate(jittered) if plans[sample].order[place] == operation]
        samples = [jittered[number] for number in chosen]
        channels = bands.triplet if operation == 3 and bands.triplet else bands.optical
        part, factor = _take(unit, samples, channels), factors[operation]
        if len(chosen) < len(jittered):
            factor = factor[chosen]
        if operation == 0:
            part = photometry.brightness(part, factor)
        elif operation == 1:
            part = photometry.contrast(part, factor, bands.grey, valid[samples] if valid is not None else None)
        elif operation == 2:
            part = photometry.saturation(part, factor, bands.grey)
        else:
            part = photometry.hue(part, factor)
        unit = _put(unit, samples, channels, part.clamp_(0, 1) if bands.clamp else part)
    samples = [sample for sample, plan in enumerate(plans) if plan.edges]
    if samples:
        part = photometry.enhance_edges(_take(unit, samples, bands.optical))
        unit = _put(unit, samples, bands.optical, part.clamp_(0, 1) if bands.clamp else part)
    samples = [sample for sample, plan in enumerate(plans) if plan.grayscale]
    if samples:
        part = _take(unit, samples, bands.optical)
        unit = _put(unit, samples, bands.optical, part.copy_(photometry.grey(part, bands.grey).expand_as(part)))
    return unit


def _change_radar(unit: Tensor, bands: _Bands, plans: Sequence[StrongDraw], speckle_seeds: Sequence[int], valid: Tensor | None) -> Tensor:
    """Gain, contrast and speckle of the radar bands; in place."""
    if not bands.radar:
        return unit
    range_db = torch.tensor(bands.radar_range_db, device=unit.device).view(-1, 1, 1)
    samples = [sample for sample, plan in enumerate(plans) if plan.jitter]
    if samples:
        part = _take(unit, samples, bands.radar)
        contrast = _column([plans[sample].radar_contrast for sample in samples], unit)
        gain = _column([plans[sample].radar_gain_db for sample in samples], unit) / range_db
        part = photometry.stretch(part, contrast, valid[samples] if valid is not None else None).add_(gain)
        unit = _put(unit, samples, bands.radar, part)
    for sample, plan in enumerate(plans):
        if plan.looks > 0:
            shape = (len(bands.radar), *unit.shape[-2:])
            power = np.random.default_rng(speckle_seeds[sample]).standard_gamma(plan.looks, shape, dtype=np.float32) / np.float32(
                plan.looks
            )
            # Shape parameters below 1 can draw an exact 0, which has no logarithm.
            decibels = 10 * np.log10(np.maximum(power, np.float32(1e-6)))
            unit[sample, list(bands.radar)] += torch.from_numpy(decibels).to(unit.device) / range_db
    return unit


def _blur(unit: Tensor, plans: Sequence[StrongDraw]) -> Tensor:
    samples = [sample for sample, plan in enumerate(plans) if plan.sigma_px > 0]
    if len(samples) == unit.shape[0]:
        return photometry.gaussian_blur(unit, [plan.sigma_px for plan in plans])
    if samples:
        unit[samples] = photometry.gaussian_blur(unit[samples], [plans[sample].sigma_px for sample in samples])
    return unit
