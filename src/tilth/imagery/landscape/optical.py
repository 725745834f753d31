"""What a camera or multispectral scanner sees of a landscape."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilth.errors import ConfigError
from tilth.imagery.landscape.config import SEASONS, Season
from tilth.imagery.landscape.fields import Field, blur, shifted, spectral_noise
from tilth.imagery.landscape.generate import Landscape
from tilth.imagery.landscape.materials import MATERIALS, cover_in, material, spectra_at
from tilth.seeds import generator
from tilth.sensors import Band, Sensor

_SUN_ELEVATION = {"winter": (20.0, 30.0), "spring": (38.0, 52.0), "summer": (50.0, 64.0), "autumn": (30.0, 42.0)}
"""Lowest and highest sun in degrees at the time of overflight, about 48 degrees north."""


_LEAVES = ("leaf_crop", "leaf_grass", "leaf_broad")
_TINTS = {1: 0.10, 2: 0.08, 3: 0.06, 4: 0.05}
"""Standard deviation of the logarithm of reflectance from object to object, by number of half waves over the spectrum."""


@dataclass(frozen=True)
class _Scene:
    """What is the same for all optical bands of one acquisition; fields float32 (H, W), ``tint`` float32 (N, 4) by object."""

    green: Field
    dry: Field
    tone: Field
    bright: Field
    light: Field
    haze: Field
    tint: NDArray[np.float32]


def observe_optical(landscape: Landscape, sensor: Sensor, bands: list[Band], season: Season, illumination: int) -> list[Field]:
    """Image a landscape in optical bands.

    Args:
        landscape: what is on the ground.
        sensor: tells by its unit whether the atmosphere is still in the picture (``top-of-atmosphere``).
        bands: optical bands of the sensor, each with a centre wavelength.
        season: stage of crops and leaves, height of the sun.
        illumination: number of the acquisition; each has its own day, sun, haze, gain and noise.

    Returns:
        One float32 (H, W) field of the physical value a band: reflectance, or digital number / 255 in [0, 1].

    Raises:
        ConfigError: a band has no centre wavelength.
    """
    unknown = [band.name for band in bands if band.centre_nm is None]
    if unknown:
        raise ConfigError(f"sensor {sensor.name!r}: optical bands without centre_nm cannot be simulated: {', '.join(unknown)}")
    key = (landscape.config.seed, "observe", landscape.config.index, season, illumination)
    scene = _scene(landscape, season, generator(*key, "optical"))
    top = "top-of-atmosphere" in sensor.unit
    seen = []
    for band in bands:
        field = _reflectance(landscape, scene, band)
        # Optics and motion mix neighbouring pixels; a band coarser than the grid is blurred to its own footprint.
        footprint = max((band.gsd_m or 0) / landscape.config.gsd_m, 1.0)
        field = blur(field, 0.5 * footprint)
        picture = is_picture(band)
        field = _through_air(field, scene.haze, band.centre_nm or 0, 1.0 if top else 0.5 if picture else 0.15)
        random = generator(*key, band.name)
        field += random.standard_normal(field.shape, dtype=np.float32) * np.float32(0.0015 if not picture else 0.003)
        seen.append(field)
    if any(is_picture(band) for band in bands):
        seen = _develop(seen, bands, generator(*key, "camera"))
    return seen


def is_picture(band: Band) -> bool:
    """Tell whether a band holds 8-bit picture values (scale 1/255), which carry no radiometric calibration."""
    return band.kind == "optical" and abs(band.scale * 255 - 1) < 1e-6


def _scene(landscape: Landscape, season: Season, random: np.random.Generator) -> _Scene:
    """Set the day: how far plants have come, how wet the ground is, where the sun stands and how the air is."""
    config, surface, objects = landscape.config, landscape.material, landscape.objects
    tone, vigour, age = landscape.traits[objects].transpose(2, 0, 1)
    patch, speck = (spectral_noise(random, config.shape, longest, shortest, 1.0) for longest, shortest in ((50, 6), (6, 2)))
    # A few weeks early or late within the season, the same for all fields of the scene, and each field a little on its own.
    here = SEASONS.index(season)
    shift = float(random.uniform(-0.35, 0.35))
    other = SEASONS[(here + (1 if shift > 0 else -1)) % 4]
    cover = (1 - abs(shift)) * cover_in(season) + abs(shift) * cover_in(other)
    spread = np.array([item.spread for item in MATERIALS], np.float32)[surface]
    grain = np.array([item.grain for item in MATERIALS], np.float32)[surface]
    wet = np.clip(landscape.moisture - 0.45, -0.5, 0.5)
    drift = (2 * vigour - 1) * 1.7 + 0.35 * patch + 0.5 * wet
    green = np.clip(cover[surface, 0] + spread * drift + 0.14 * landscape.rows * (spread > 0), 0, 0.97)
    dry = np.clip(cover[surface, 1] * (1 - 0.35 * drift * (spread > 0)), 0, 1 - green)
    tone = np.clip(0.9 * tone + 0.05 + 0.06 * patch - 0.35 * wet + 0.16 * landscape.rows, 0, 1)
    water = surface == material("water")
    tone = np.where(water, np.clip(random.uniform(0, 0.8) + 0.05 * patch, 0, 1), tone)
    bright = np.exp(grain * (speck + 1.2 * patch * ~water) + 0.25 * (2 * age - 1) * ~water)
    glint = np.where(water, 0.015 * np.exp(random.normal() + 0.3 * speck), 0)
    haze = float(random.uniform(0.3, 1.0)) * np.exp(0.25 * spectral_noise(random, config.shape, max(config.shape), 60))
    light = _light(landscape, season, random)
    # No two fields have quite the same pigments, leaf water or minerals; each object keeps its own from season to season.
    tint = generator(config.seed, "observe", config.index, "tint").standard_normal((len(landscape.traits), len(_TINTS)), dtype=np.float32)
    return _Scene(*(np.asarray(field, np.float32) for field in (green, dry, tone, bright * (1 + glint), light, haze, tint)))


def _light(landscape: Landscape, season: Season, random: np.random.Generator) -> Field:
    """Light the terrain, crowns and roofs from the side and let them cast shadows; 1 on flat open ground."""
    config = landscape.config
    azimuth = np.deg2rad(random.uniform(110, 240))
    elevation = np.deg2rad(random.uniform(*_SUN_ELEVATION[season]))
    toward = np.array([-np.cos(azimuth), np.sin(azimuth)])  # row and column step towards the sun
    surface = landscape.elevation + landscape.height
    # Slopes between neighbouring pixels are limited: walls are mostly hidden from above.
    by_row, by_column = (np.clip(part, -1.2, 1.2) for part in np.gradient(surface, config.gsd_m))
    facing = np.sin(elevation) - np.cos(elevation) * (by_row * toward[0] + by_column * toward[1])
    direct = np.clip(facing / np.sqrt(1 + by_row**2 + by_column**2), 0, None) / np.sin(elevation)

    drop = np.tan(elevation) * config.gsd_m
    reach = min(int(float(landscape.height.max()) / drop) + 1, 40)
    above = np.zeros(config.shape, np.float32)
    for step in range(1, reach + 1):
        row, column = np.rint(-step * toward).astype(int)
        np.maximum(above, shifted(landscape.height, int(row), int(column)) - np.float32(step * drop), out=above)
    # Part of a pixel lies in shadow where the edge of the shadow passes through it.
    shaded = np.clip((above - landscape.height) / max(drop, 0.5) + 0.5, 0, 1) * (above > 0)
    diffuse = float(random.uniform(0.2, 0.35))
    return np.asarray(diffuse + (1 - diffuse) * np.minimum(direct, 1.6) * (1 - 0.9 * shaded), np.float32)


def _reflectance(landscape: Landscape, scene: _Scene, band: Band) -> Field:
    """Mix ground, leaves and straw in one band (linear mixture), and light them."""
    spectra = spectra_at(band.centre_nm or 0)

    def of(names: list[str]) -> NDArray[np.float32]:
        return np.array([spectra[name] for name in names], np.float32)[landscape.material]

    dark = of([item.dark for item in MATERIALS])
    ground = dark + scene.tone * (of([item.bright for item in MATERIALS]) - dark)
    leaf = of([item.leaf for item in MATERIALS])
    leaf = leaf + 0.6 * landscape.traits[:, 2][landscape.objects] * (np.float32(np.mean([spectra[name] for name in _LEAVES])) - leaf)
    mixed = (1 - scene.green - scene.dry) * ground + scene.green * leaf + scene.dry * np.float32(spectra["straw"])
    # Slow waves over the logarithm of wavelength: a smooth spectrum stays smooth.
    place = np.log((band.centre_nm or 0) / 443) / np.log(2190 / 443)
    tint = np.exp(sum(share * np.cos(np.pi * wave * place) * scene.tint[:, wave - 1] for wave, share in _TINTS.items()))
    return np.asarray(mixed * tint[landscape.objects] * scene.bright * scene.light, np.float32)


def _through_air(field: Field, haze: Field, centre_nm: float, share: float) -> Field:
    """Add the light of the air and take what it absorbs; ``share`` 1 at the top of the atmosphere, less after correction."""
    path = share * (0.09 * (443 / centre_nm) ** 3.5 * (0.4 + haze) + 0.012 * haze)
    absorbed = float(
        np.interp(
            centre_nm,
            (443, 560, 705, 865, 900, 940, 980, 1300, 1375, 1450, 1610, 2190),
            (0.75, 0.85, 0.92, 0.95, 0.9, 0.4, 0.9, 0.8, 0.004, 0.8, 0.95, 0.92),
        )
    )
    # Water vapour and cirrus bands are corrected away in surface products, so only the full atmosphere absorbs.
    through = absorbed if share == 1 else 1 - (1 - 0.92) * share
    veil = path if absorbed > 0.1 else path * 0.05
    return np.asarray(field * np.float32(through) + veil, np.float32)


def _develop(seen: list[Field], bands: list[Band], random: np.random.Generator) -> list[Field]:
    """Turn reflectance into a picture as providers do: stretch, white balance, gamma; other each time, never known."""
    pictures = [field for field, band in zip(seen, bands, strict=True) if is_picture(band)]
    cut = float(random.uniform(0.2, 2.0))
    gamma = float(random.uniform(0.6, 0.95))
    low, high = np.percentile(np.stack([field[::3, ::3] for field in pictures if field is not None]), (cut, 100 - cut))
    developed = []
    for field, band in zip(seen, bands, strict=True):
        if not is_picture(band):
            developed.append(field)
            continue
        own_low, own_high = np.percentile(field[::3, ::3], (cut, 100 - cut))
        blend = float(random.uniform(0.3, 0.9))  # between one stretch for all bands and one for each
        start = blend * own_low + (1 - blend) * low
        span = max((blend * own_high + (1 - blend) * high - start) * float(random.uniform(0.9, 1.25)), 1e-3)
        tone = np.clip((field - start) / span, 0, 1) ** np.float32(gamma)
        developed.append(np.asarray(0.02 + 0.96 * tone, np.float32))
    return developed
