"""Pictures of pixels: stored numbers and class ids as 8-bit RGB, for people."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilth.classes import IGNORE_INDEX, ClassScheme
from tilth.errors import DataError, SensorMismatchError
from tilth.sensors import Sensor

NO_DATA_GREY = 128
"""Grey of pixels that are not valid, so that they differ from black water and white sand."""


def to_rgb(pixels: NDArray[Any], valid: NDArray[np.bool_] | None, sensor: Sensor) -> NDArray[np.uint8]:
    """Show three bands of a tile, each from the sensor's ``low`` (black) to its ``high`` (white).

    The scale is the sensor's, never stretched to the tile, so that pictures of one sensor can be compared.

    Args:
        pixels: (C, h, w) in the stored type, bands in sensor order.
        valid: bool (h, w), or None when every pixel is; others are drawn grey.
        sensor: names the bands to show and their physical range.

    Returns:
        uint8 (h, w, 3), red green blue.

    Raises:
        SensorMismatchError: the number of bands differs from the sensor's.
    """
    if pixels.ndim != 3 or pixels.shape[0] != len(sensor):
        raise SensorMismatchError(f"picture: expected ({len(sensor)}, h, w) for sensor {sensor.name!r}, found shape {pixels.shape}")
    picture = np.empty((*pixels.shape[1:], 3), dtype=np.uint8)
    shown = np.isfinite(pixels[list(set(sensor.rgb_indices))]).all(axis=0)
    for channel, index in enumerate(sensor.rgb_indices):
        band = sensor.bands[index]
        physical = pixels[index].astype(np.float32) * band.scale + band.offset
        unit = (physical - band.low) / (band.high - band.low)
        picture[..., channel] = np.rint(np.clip(np.nan_to_num(unit, posinf=1.0, neginf=0.0), 0.0, 1.0) * 255).astype(np.uint8)
    picture[~(shown if valid is None else shown & valid)] = NO_DATA_GREY
    return picture


def colourise(mask: NDArray[Any], scheme: ClassScheme) -> NDArray[np.uint8]:
    """Show class ids in the scheme's colours; ignored pixels (255) become grey.

    Args:
        mask: integer (h, w), ids 0 to K-1 or 255.
        scheme: the classes.

    Returns:
        uint8 (h, w, 3), red green blue.

    Raises:
        DataError: the mask holds a value outside the scheme.
    """
    table = np.full((IGNORE_INDEX + 1, 3), NO_DATA_GREY, dtype=np.uint8)
    table[: len(scheme)] = scheme.colours
    highest = int(mask[mask != IGNORE_INDEX].max(initial=0))
    lowest = int(mask.min(initial=0))
    if highest >= len(scheme) or lowest < 0:
        wrong = highest if highest >= len(scheme) else lowest
        raise DataError(f"picture: value {wrong} is outside scheme {scheme.name!r} (0 to {len(scheme) - 1}, {IGNORE_INDEX} = ignore)")
    shown: NDArray[np.uint8] = table[mask]
    return shown


def overlay(picture: NDArray[np.uint8], mask: NDArray[Any], scheme: ClassScheme, *, opacity: float = 0.5) -> NDArray[np.uint8]:
    """Lay class colours over a picture; ignored pixels show the picture alone.

    Args:
        picture: uint8 (h, w, 3).
        mask: integer (h, w), 255 = ignore.
        scheme: the classes.
        opacity: share of the class colour, 0 to 1.

    Returns:
        uint8 (h, w, 3).
    """
    mixed = picture * (1 - opacity) + colourise(mask, scheme) * opacity
    return np.where((mask == IGNORE_INDEX)[..., None], picture, np.rint(mixed)).astype(np.uint8)
