"""What a tile is like without any model: how much of it there is, how bright, how varied, and what its copies are found by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilth.catalog.duplicates import pixel_digest, portrait
from tilth.imagery.raster import Pixels
from tilth.sensors import Sensor

BRIGHT = 0.75
"""Bright pixels have at least so much in every band of a picture, on the way from the sensor's low to its high."""

COLOURLESS = 0.15
"""Bands of colourless pixels differ by at most so much on that way."""


@dataclass(frozen=True)
class Look:
    """What the pixels of a tile show.

    Attributes:
        valid: share of pixels with data, 0 to 1.
        brightness: mean of the bands of a picture over valid pixels, 0 at the sensor's low to 1 at its high; NaN without valid pixels.
        contrast: largest standard deviation of a band over valid pixels, as share of the way from low to high; NaN without valid pixels.
        bright: share of valid pixels that are bright and colourless, as clouds are; 0 for sensors that show no optical bands.
        digest: 16 bytes, equal for equal pixels.
        portrait: int8 (32, 32), see :func:`tilth.catalog.duplicates.portrait`; None where there is none.
    """

    valid: float
    brightness: float
    contrast: float
    bright: float
    digest: bytes
    portrait: NDArray[np.int8] | None


def look_at(pixels: Pixels, sensor: Sensor) -> Look:
    """Measure the pixels of a tile.

    Args:
        pixels: data (C, h, w) in the stored type, valid (h, w); pixels that are not valid do not count.
        sensor: theirs; says what is dark and what is bright.
    """
    share = float(pixels.valid.mean())
    digest = pixel_digest(pixels)
    if not pixels.valid.any():
        return Look(share, float("nan"), float("nan"), 0.0, digest, None)
    shown = list(dict.fromkeys(sensor.rgb_indices))
    everything = pixels.valid.all()
    picture, contrast = [], 0.0
    for index, band in enumerate(sensor.bands):
        values = pixels.data[index].reshape(-1) if everything else pixels.data[index][pixels.valid]
        unit = (values.astype(np.float32) * np.float32(band.scale) + np.float32(band.offset - band.low)) / np.float32(band.high - band.low)
        contrast = max(contrast, float(unit.std(dtype=np.float64)))
        if index in shown:
            picture.append(unit)
    lowest, highest = np.minimum.reduce(picture), np.maximum.reduce(picture)
    white = (lowest >= BRIGHT) & (np.clip(highest, 0, 1) - np.clip(lowest, 0, 1) <= COLOURLESS)
    optical = all(sensor.bands[index].kind == "optical" for index in shown)
    brightness = float(np.mean([np.clip(unit, 0, 1).mean(dtype=np.float64) for unit in picture]))
    return Look(share, brightness, contrast, float(white.mean()) if optical else 0.0, digest, portrait(pixels))
