"""From stored numbers to network input and back, as the Sensor says; the only place where pixels are scaled.

Axis letters: B samples, C bands in Sensor order, H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from tilth.errors import SensorMismatchError
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


@torch.no_grad()
def normalise(stored: Tensor, valid: Tensor | None, sensor: Sensor) -> Tensor:
    """Turn stored numbers into network input: ``(stored * scale + offset - mean) / std`` per band.

    Args:
        stored: (B, C, H, W), any numeric dtype, storage units.
        valid: bool (B, H, W), False where padded or nodata; None if all pixels are valid.
        sensor: whose bands, in channel order.

    Returns:
        float32 (B, C, H, W), always finite: where ``valid`` is False, and where a band is NaN or infinite, the band holds the normalised
        :func:`fill_value`.

    Raises:
        SensorMismatchError: the number of bands is not the sensor's.
    """
    check_bands(stored, sensor)
    constants = _constants(sensor, stored.device)
    image = _scaled(stored, constants.gain, constants.bias)
    # A finite sum needs one pass and no copy to show that all is finite; on an accelerator it would make the host wait for an answer.
    if stored.is_floating_point() and not (image.device.type == "cpu" and bool(torch.isfinite(image.sum()))):
        torch.where(torch.isfinite(image), image, constants.fill, out=image)
    if valid is not None:
        fill_where_invalid(image, valid, constants.fill)
    return image


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
