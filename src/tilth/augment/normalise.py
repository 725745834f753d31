"""From stored numbers to network input and back, as the Sensor says; the only place where pixels are scaled.

Axis letters: B samples, C bands in Sensor order, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from tilth.errors import ConfigError, SensorMismatchError
from tilth.sensors import Sensor


@dataclass(frozen=True)
class _Constants:
    """Per-band constants, each float32 (C, 1, 1) on one device: ``normalised = stored * gain + bias``, and so on."""

    gain: Tensor
    bias: Tensor
    fill: Tensor
    unit_gain: Tensor
    unit_bias: Tensor
    normal_gain: Tensor
    normal_bias: Tensor


@dataclass(frozen=True)
class _Limits:
    """Per-band constants of a sensor that cuts values, each (C, 1, 1) in double precision where the device has it.

    Without it, numbers on the border of two levels could fall to either side.

    Attributes:
        scale: physical value = stored value * scale + offset.
        offset: see ``scale``.
        mean: subtracted at last.
        std: divided by at last.
        low: physical values below become this; minus infinity where none do.
        high: physical values above become this; infinity where none do.
        steps: number of levels less 1; 0 where all are told apart.
    """

    scale: Tensor
    offset: Tensor
    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor
    steps: Tensor


@lru_cache(maxsize=64)
def _limits(sensor: Sensor, device: torch.device) -> _Limits:
    """Move the constants of a sensor that cuts values to a device, once per sensor and device."""

    def column(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64).view(-1, 1, 1).to(device, _precision(device))

    bands = sensor.bands
    endless = float("-inf"), float("inf")
    ends = [band.clip or endless for band in bands]
    return _Limits(
        scale=column([band.scale for band in bands]),
        offset=column([band.offset for band in bands]),
        mean=column([band.mean for band in bands]),
        std=column([band.std for band in bands]),
        low=column([low for low, _ in ends]),
        high=column([high for _, high in ends]),
        steps=column([(band.levels or 1) - 1 for band in bands]),
    )


def _precision(device: torch.device) -> torch.dtype:
    # Apple's accelerators know no double precision.
    return torch.float32 if device.type == "mps" else torch.float64


@lru_cache(maxsize=64)
def _constants(sensor: Sensor, device: torch.device) -> _Constants:
    """Work the constants out in double precision and move them to a device, once per sensor and device."""

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64).to(torch.float32).view(-1, 1, 1).to(device)

    bands = sensor.bands
    return _Constants(
        gain=column([band.scale / band.std for band in bands]),
        bias=column([(band.offset - band.mean) / band.std for band in bands]),
        fill=column([(value * band.scale + band.offset - band.mean) / band.std for value, band in zip(_fills(sensor), bands, strict=True)]),
        unit_gain=column([band.std / (band.high - band.low) for band in bands]),
        unit_bias=column([(band.mean - band.low) / (band.high - band.low) for band in bands]),
        normal_gain=column([(band.high - band.low) / band.std for band in bands]),
        normal_bias=column([(band.low - band.mean) / band.std for band in bands]),
    )


def _fills(sensor: Sensor) -> list[float]:
    if sensor.dtype == "uint8":
        return [0.0] * len(sensor)
    return [(band.mean - band.offset) / band.scale for band in sensor.bands]


def fill_value(sensor: Sensor) -> Tensor:
    """Say what invalid pixels hold, in storage units.

    8-bit sensors hold 0, raw black, as the official S5 program pads (s5_pretrain.md section 4). All others hold the band mean, which is
    0 after normalisation: 0 may be an extreme value there, as it is in decibels.

    Args:
        sensor: whose bands.

    Returns:
        float32 (C,), storage units, on the CPU.
    """
    return torch.tensor(_fills(sensor), dtype=torch.float32)


def check_bands(image: Tensor, sensor: Sensor) -> None:
    """Refuse an image that is not (B, C, H, W) with the sensor's C.

    Raises:
        SensorMismatchError: another number of axes or bands.
    """
    if image.ndim != 4 or image.shape[1] != len(sensor):
        raise SensorMismatchError(
            f"image has shape {tuple(image.shape)}, sensor {sensor.name!r} needs (B, {len(sensor)}, H, W): {', '.join(sensor.band_names)};"
            " name the sensor the pixels come from"
        )


def check_linear(sensor: Sensor) -> None:
    """Refuse a sensor that cuts values, for what can only multiply and add.

    Raises:
        ConfigError: naming a band.
    """
    band = next((band for band in sensor.bands if band.limited), None)
    if band is not None:
        raise ConfigError(
            f"sensor {sensor.name!r} cuts values of band {band.name} before the network, which an exported graph does not; "
            "leave out normalisation, and normalise as the note in the graph says"
        )


@torch.no_grad()
def normalise(stored: Tensor, valid: Tensor | None, sensor: Sensor) -> Tensor:
    """Turn stored numbers into network input: ``(stored * scale + offset - mean) / std`` per band.

    Bands with ``clip``, ``clip_percentiles`` or ``levels`` are cut in between, as physical values.

    Args:
        stored: (B, C, H, W), any numeric dtype, storage units.
        valid: bool (B, H, W), False where padded or nodata; None if all pixels are valid. What is not valid counts for no percentile.
        sensor: whose bands, in channel order.

    Returns:
        float32 (B, C, H, W), always finite: where ``valid`` is False, and where a band is NaN or infinite, the band holds the normalised
        :func:`fill_value`.

    Raises:
        SensorMismatchError: the number of bands is not the sensor's.
    """
    check_bands(stored, sensor)
    constants = _constants(sensor, stored.device)
    image = _cut(stored, valid, sensor) if sensor.limited else _scaled(stored, constants.gain, constants.bias)
    # A finite sum needs one pass and no copy to show that all is finite; on an accelerator it would make the host wait for an answer.
    if stored.is_floating_point() and not (image.device.type == "cpu" and bool(torch.isfinite(image.sum()))):
        torch.where(torch.isfinite(image), image, constants.fill, out=image)
    if valid is not None:
        fill_where_invalid(image, valid, constants.fill)
    return image


def _cut(stored: Tensor, valid: Tensor | None, sensor: Sensor) -> Tensor:
    """Network input of a sensor that cuts values: float32 (B, C, H, W); what is not finite is NaN."""
    limits = _limits(sensor, stored.device)
    physical = stored.to(_precision(stored.device)) * limits.scale + limits.offset
    physical = physical.where(~physical.isinf(), torch.nan)
    for band, rule in enumerate(sensor.bands):
        if rule.clip_percentiles is not None:
            for place, plane in enumerate(physical[:, band]):
                kept = torch.isfinite(plane) if valid is None else torch.isfinite(plane) & valid[place]
                if bool(kept.any()):
                    low, high = percentiles(plane[kept], rule.clip_percentiles)
                    plane.clamp_(low, high)
    cut = physical.clamp(limits.low, limits.high)
    if any(band.levels is not None for band in sensor.bands):
        width = limits.high - limits.low
        # Cut as levels: rounding must not take the highest value to the level below.
        level = (limits.steps * (physical - limits.low) / width).clamp(min=0).minimum(limits.steps).floor()
        cut = torch.where(limits.steps > 0, limits.low + level * (width / limits.steps), cut)
    return ((cut - limits.mean) / limits.std).to(torch.float32)


def percentiles(values: Tensor, percents: Sequence[float]) -> list[Tensor]:
    """Percentiles of (n,) values, interpolated between neighbours; torch's own takes no more than 16 million values."""
    ordered = values.sort().values
    found = []
    for percent in percents:
        place = percent / 100 * (len(ordered) - 1)
        below = int(place)
        found.append(torch.lerp(ordered[below], ordered[min(below + 1, len(ordered) - 1)], place - below))
    return found


def known_whole(valid: Tensor) -> bool:
    """Say whether all pixels are known to be valid.

    Args:
        valid: bool, any shape.

    Returns:
        The truth on a CPU, where looking is far cheaper than choosing pixel by pixel; False on an accelerator, where the host would wait.
    """
    # NumPy: torch takes a hundred times as long over booleans.
    return valid.device.type == "cpu" and bool(valid.numpy().all())


def fill_where_invalid(image: Tensor, valid: Tensor, fill: Tensor) -> None:
    """Write the fill value into invalid pixels; in place.

    Args:
        image: float32 (B, C, H, W).
        valid: bool (B, H, W).
        fill: float32 (C, 1, 1).
    """
    if image.device.type != "cpu":
        torch.where(valid.unsqueeze(1), image, fill, out=image)
        return
    for one, kept in zip(image, valid, strict=True):
        if not known_whole(kept):
            torch.where(kept, one, fill, out=one)


def to_unit(image: Tensor, sensor: Sensor) -> Tensor:
    """Express a normalised image between the sensor's low (0) and high (1): ``(physical - low) / (high - low)`` per band.

    Args:
        image: float (B, C, H, W), normalised.
        sensor: whose bands, in channel order.

    Returns:
        A new float32 (B, C, H, W); values outside [low, high] lie outside [0, 1], nothing is clipped.

    Raises:
        SensorMismatchError: the number of bands is not the sensor's.
    """
    check_bands(image, sensor)
    constants = _constants(sensor, image.device)
    return _scaled(image, constants.unit_gain, constants.unit_bias)


def from_unit(unit: Tensor, sensor: Sensor) -> Tensor:
    """Undo :func:`to_unit`.

    Args:
        unit: float (B, C, H, W), 0 = low and 1 = high.
        sensor: whose bands, in channel order.

    Returns:
        A new float32 (B, C, H, W), normalised.

    Raises:
        SensorMismatchError: the number of bands is not the sensor's.
    """
    check_bands(unit, sensor)
    constants = _constants(sensor, unit.device)
    return _scaled(unit, constants.normal_gain, constants.normal_bias)


def _scaled(values: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """A new ``values * gain + bias`` in float32; in two passes, for one with three operands takes several times as long on a CPU."""
    return torch.mul(values.to(torch.float32), gain).add_(bias)
