"""A landscape as a sensor stores it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilth.errors import ConfigError, UsageError, suggest
from tilth.imagery.landscape.config import SEASONS, Season
from tilth.imagery.landscape.fields import Field
from tilth.imagery.landscape.generate import Landscape
from tilth.imagery.landscape.optical import observe_optical
from tilth.imagery.landscape.radar import observe_radar
from tilth.sensors import Sensor


def observe(landscape: Landscape, sensor: Sensor, *, season: Season = "summer", illumination: int = 0, looks: float = 4.4) -> NDArray[Any]:
    """Image a landscape with a sensor.

    Optical bands mix the spectra of ground, leaves and straw at the band's wavelength, light them from the side, blur them by the
    band's footprint and add haze and noise; 8-bit bands get a stretch of their own. Radar bands are speckled backscatter. Bands
    depend on their own name and the sensor's level only: in ``s1+s2_l2a`` they look as in ``s1`` and ``s2_l2a``.

    Args:
        landscape: what is on the ground.
        sensor: which bands, in which unit and storage type.
        season: northern seasons without snow.
        illumination: number of the acquisition (day, sun, haze, gain, speckle).
        looks: equivalent number of looks of radar bands, greater than 0; 4.4 is that of Sentinel-1 GRD.

    Returns:
        Stored values (C, H, W) in the sensor's type, all valid: ``(physical - offset) / scale``, rounded and clipped for integers.

    Raises:
        UsageError: unknown season, or looks not greater than 0.
        ConfigError: a band that cannot be simulated: kind ``other``, unknown polarisation, or no wavelength.
    """
    if season not in SEASONS:
        raise UsageError(f"unknown season {season!r}; {suggest(season, SEASONS)}")
    if not looks > 0:
        raise UsageError(f"looks must be greater than 0, got {looks:g}")
    other = [band.name for band in sensor.bands if band.kind == "other"]
    if other:
        raise ConfigError(f"sensor {sensor.name!r}: only optical and radar bands can be simulated, found {', '.join(other)}")
    optical = [band for band in sensor.bands if band.kind == "optical"]
    radar = [band for band in sensor.bands if band.kind == "radar"]
    physical: dict[str, Field] = {}
    if optical:
        physical |= zip((band.name for band in optical), observe_optical(landscape, sensor, optical, season, illumination), strict=True)
    if radar:
        physical |= zip((band.name for band in radar), observe_radar(landscape, radar, season, illumination, looks), strict=True)
    stored = np.empty((len(sensor), *landscape.config.shape), sensor.dtype)
    for channel, band in enumerate(sensor.bands):
        values = (physical[band.name] - band.offset) / band.scale
        if stored.dtype.kind in "iu":
            bounds = np.iinfo(stored.dtype)
            values = np.clip(np.rint(values), bounds.min, bounds.max)
        stored[channel] = values
    return stored
