"""What a side-looking radar sees of a landscape."""

from __future__ import annotations

import numpy as np

from tilth.errors import ConfigError
from tilth.imagery.landscape.config import Season
from tilth.imagery.landscape.fields import Field, blur, spectral_noise
from tilth.imagery.landscape.generate import Landscape
from tilth.imagery.landscape.materials import MATERIALS, cover_in, material
from tilth.imagery.landscape.scheme import BUILDING, TREES
from tilth.seeds import generator
from tilth.sensors import Band

_LOOK_DEGREES = 282.0
"""Direction in which a right-looking radar on a descending orbit (heading 192 degrees) looks, clockwise from north."""


def observe_radar(landscape: Landscape, bands: list[Band], season: Season, illumination: int, looks: float) -> list[Field]:
    """Image a landscape in radar bands, the co-polarised ``VV`` and the cross-polarised ``VH``.

    Args:
        landscape: what is on the ground.
        bands: radar bands, named VV or VH (HH counts as VV, HV as VH).
        season: how dense plants are and how wet the ground.
        illumination: number of the acquisition; each has its own wind, moisture and speckle.
        looks: equivalent number of looks; power is multiplied by gamma noise of mean 1 and variance 1/looks.

    Returns:
        One float32 (H, W) field of backscatter (sigma nought) in decibels a band.

    Raises:
        ConfigError: a band is of an unknown polarisation.
    """
    key = (landscape.config.seed, "observe", landscape.config.index, season, illumination)
    seen = []
    for band in bands:
        if band.name.upper() not in ("VV", "VH", "HH", "HV"):
            raise ConfigError(f"radar band {band.name!r} cannot be simulated; name it VV, VH, HH or HV")
        cross = band.name.upper() in ("VH", "HV")
        power = 10 ** (_backscatter_db(landscape, season, generator(*key, "radar"), cross) / 10) + _double_bounce(landscape, cross)
        footprint = max((band.gsd_m or 0) / landscape.config.gsd_m, 1.0)
        speckle = generator(*key, band.name).gamma(looks, 1 / looks, power.shape)
        seen.append(np.asarray(10 * np.log10(np.maximum(blur(power, 0.55 * footprint) * speckle, 1e-5)), np.float32))
    return seen


def _backscatter_db(landscape: Landscape, season: Season, random: np.random.Generator, cross: bool) -> Field:
    """Add up ground, plants, moisture and slope, in decibels."""
    config, surface = landscape.config, landscape.material
    base = np.array([item.vh_db if cross else item.vv_db for item in MATERIALS], np.float32)[surface]
    green = cover_in(season)[:, 0][surface]
    trees = np.array([item.land_class == TREES for item in MATERIALS])[surface]
    tone, vigour, _ = landscape.traits[landscape.objects].transpose(2, 0, 1)
    water = surface == material("water")
    patch = spectral_noise(random, config.shape, 40, 5, 1.2)
    wind, rain = float(random.normal(0, 2.5)), float(random.uniform(-1.5, 2.5))
    roughness = 5.0 * (tone - 0.5) + 0.4 * patch
    volume = (5.0 if cross else 2.0) * (green * (0.6 + 0.8 * vigour) - 0.4) * ~trees + 1.5 * (vigour - 0.5)
    open_ground = roughness + volume + (rain + 4 * (landscape.moisture - 0.5)) * (1 - green)
    # Slopes that face the radar return more; about 0.15 dB a degree around 38 degrees of incidence.
    look = np.deg2rad(_LOOK_DEGREES)
    by_row, by_column = np.gradient(landscape.elevation, config.gsd_m)
    rise = np.rad2deg(np.arctan(-by_row * np.cos(look) + by_column * np.sin(look)))
    return np.asarray(base + np.where(water, wind + 0.5 * patch, open_ground) + np.clip(0.15 * rise * ~water, -4, 4), np.float32)


def _double_bounce(landscape: Landscape, cross: bool) -> Field:
    """Power returned by corners of ground and walls that face the radar."""
    look = np.deg2rad(_LOOK_DEGREES)
    house = landscape.label == BUILDING
    by_row, by_column = np.gradient(np.where(house, landscape.height, 0).astype(np.float32))
    wall = np.clip(-by_row * np.cos(look) + by_column * np.sin(look), 0, None)
    # Brightness depends on how squarely the wall stands to the radar, which the age trait stands for below pixel size.
    squarely = landscape.traits[landscape.objects][..., 2] ** 2
    return np.asarray(wall * (0.03 if cross else 0.25) * (0.2 + 2 * squarely), np.float32)
