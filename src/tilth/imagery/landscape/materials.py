"""What surfaces are made of and how they reflect: the physics table of the synthetic landscapes.

Reflectances are hand-set to resemble field spectra of published libraries (order of magnitude, slope, red edge, water and leaf
absorption), not measurements. Several materials of different classes share their spectra on purpose: bare fields, tracks and pits
are all soil; concrete, gravel and roofs are all mineral.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilth.imagery.landscape.config import SEASONS, Season
from tilth.imagery.landscape.scheme import BARE, BUILDING, CROPLAND, GRASSLAND, ROAD, TREES, WATER

NODES_NM = (443, 490, 560, 665, 705, 740, 783, 842, 865, 940, 1375, 1610, 2190)
"""Wavelengths in nanometres at which the spectra are given."""

SPECTRA: dict[str, tuple[float, ...]] = {
    "leaf_crop": (0.030, 0.038, 0.085, 0.035, 0.110, 0.340, 0.430, 0.460, 0.470, 0.460, 0.360, 0.240, 0.120),
    "leaf_grass": (0.034, 0.043, 0.085, 0.048, 0.115, 0.290, 0.355, 0.385, 0.395, 0.390, 0.330, 0.255, 0.145),
    "leaf_broad": (0.025, 0.031, 0.066, 0.034, 0.095, 0.280, 0.360, 0.390, 0.400, 0.390, 0.300, 0.195, 0.095),
    "leaf_needle": (0.019, 0.024, 0.044, 0.027, 0.062, 0.165, 0.205, 0.225, 0.235, 0.230, 0.170, 0.115, 0.055),
    "flower": (0.032, 0.048, 0.175, 0.150, 0.200, 0.360, 0.430, 0.455, 0.460, 0.450, 0.350, 0.240, 0.130),
    "straw": (0.070, 0.095, 0.145, 0.200, 0.235, 0.265, 0.290, 0.315, 0.325, 0.335, 0.390, 0.390, 0.310),
    "soil_dark": (0.040, 0.048, 0.065, 0.085, 0.098, 0.108, 0.120, 0.135, 0.140, 0.150, 0.190, 0.205, 0.170),
    "soil_bright": (0.100, 0.130, 0.185, 0.245, 0.265, 0.280, 0.300, 0.320, 0.330, 0.345, 0.410, 0.430, 0.385),
    "rock": (0.125, 0.145, 0.175, 0.200, 0.210, 0.215, 0.225, 0.230, 0.232, 0.235, 0.260, 0.270, 0.250),
    "gravel": (0.145, 0.175, 0.220, 0.255, 0.265, 0.275, 0.285, 0.295, 0.300, 0.305, 0.335, 0.345, 0.320),
    "water_clear": (0.045, 0.040, 0.030, 0.016, 0.012, 0.008, 0.007, 0.006, 0.005, 0.004, 0.001, 0.001, 0.001),
    "water_turbid": (0.058, 0.075, 0.110, 0.095, 0.082, 0.050, 0.048, 0.040, 0.036, 0.024, 0.004, 0.004, 0.003),
    "asphalt": (0.055, 0.060, 0.068, 0.075, 0.078, 0.080, 0.084, 0.088, 0.090, 0.095, 0.115, 0.125, 0.115),
    "concrete": (0.160, 0.190, 0.230, 0.255, 0.265, 0.272, 0.280, 0.290, 0.295, 0.300, 0.330, 0.340, 0.315),
    "tile_red": (0.060, 0.070, 0.098, 0.190, 0.225, 0.245, 0.258, 0.275, 0.285, 0.295, 0.360, 0.385, 0.345),
    "tile_brown": (0.055, 0.064, 0.084, 0.125, 0.140, 0.150, 0.162, 0.178, 0.184, 0.195, 0.245, 0.265, 0.230),
    "slate": (0.062, 0.067, 0.074, 0.080, 0.083, 0.086, 0.089, 0.094, 0.096, 0.100, 0.122, 0.130, 0.124),
    "metal": (0.330, 0.370, 0.400, 0.415, 0.420, 0.422, 0.425, 0.430, 0.430, 0.425, 0.410, 0.400, 0.370),
}
"""Reflectance at :data:`NODES_NM` by name."""

Cover = tuple[float, float]


class Material(NamedTuple):
    """One kind of surface.

    Attributes:
        name: what it is.
        land_class: id of its class; labels are exact because they are looked up here.
        dark: spectrum of the ground at tone 0.
        bright: spectrum of the ground at tone 1; objects lie anywhere between.
        leaf: spectrum of its green parts.
        cover: green and senescent shares of the ground in winter, spring, summer and autumn.
        spread: standard deviation of the green share from object to object.
        grain: standard deviation of the logarithm of brightness from pixel to pixel.
        vv_db: backscatter of the ground in VV, decibels.
        vh_db: backscatter of the ground in VH, decibels.
    """

    name: str
    land_class: int
    dark: str
    bright: str
    leaf: str
    cover: tuple[Cover, Cover, Cover, Cover]
    spread: float
    grain: float
    vv_db: float
    vh_db: float


def _always(green: float, dry: float) -> tuple[Cover, Cover, Cover, Cover]:
    return ((green, dry),) * 4


_CEREAL = ((0.25, 0.05), (0.80, 0.02), (0.12, 0.68), (0.06, 0.20))
_MAIZE = ((0.02, 0.12), (0.10, 0.03), (0.85, 0.02), (0.15, 0.65))
_OILSEED = ((0.40, 0.05), (0.85, 0.00), (0.10, 0.65), (0.30, 0.10))
_ROOT = ((0.02, 0.03), (0.06, 0.02), (0.80, 0.00), (0.45, 0.12))
_FALLOW = ((0.04, 0.06), (0.12, 0.06), (0.10, 0.12), (0.08, 0.10))
_ORCHARD = ((0.30, 0.35), (0.62, 0.08), (0.66, 0.12), (0.40, 0.35))
_MEADOW = ((0.45, 0.35), (0.80, 0.10), (0.66, 0.20), (0.58, 0.26))
_PASTURE = ((0.25, 0.45), (0.58, 0.20), (0.34, 0.46), (0.32, 0.44))
_SHRUB = ((0.32, 0.32), (0.52, 0.16), (0.55, 0.18), (0.42, 0.30))
_BROAD = ((0.16, 0.34), (0.78, 0.02), (0.88, 0.00), (0.55, 0.22))
_NEEDLE = ((0.82, 0.04), (0.86, 0.02), (0.88, 0.02), (0.85, 0.03))

MATERIALS: tuple[Material, ...] = (
    Material("water", WATER, "water_clear", "water_turbid", "leaf_grass", _always(0, 0), 0.0, 0.06, -20.0, -28.0),
    Material("broadleaf", TREES, "soil_dark", "soil_bright", "leaf_broad", _BROAD, 0.10, 0.10, -9.5, -15.0),
    Material("conifer", TREES, "soil_dark", "soil_bright", "leaf_needle", _NEEDLE, 0.07, 0.12, -9.0, -14.5),
    Material("cereal", CROPLAND, "soil_dark", "soil_bright", "leaf_crop", _CEREAL, 0.16, 0.05, -12.5, -20.5),
    Material("maize", CROPLAND, "soil_dark", "soil_bright", "leaf_crop", _MAIZE, 0.16, 0.06, -11.0, -18.0),
    Material("oilseed", CROPLAND, "soil_dark", "soil_bright", "flower", _OILSEED, 0.16, 0.05, -11.0, -17.0),
    Material("roots", CROPLAND, "soil_dark", "soil_bright", "leaf_broad", _ROOT, 0.18, 0.06, -11.5, -18.5),
    Material("fallow", CROPLAND, "soil_dark", "soil_bright", "leaf_grass", _FALLOW, 0.10, 0.07, -12.5, -21.0),
    Material("orchard", CROPLAND, "soil_dark", "soil_bright", "leaf_broad", _ORCHARD, 0.12, 0.08, -10.5, -16.5),
    Material("meadow", GRASSLAND, "soil_dark", "soil_bright", "leaf_grass", _MEADOW, 0.15, 0.06, -12.5, -19.5),
    Material("pasture", GRASSLAND, "soil_dark", "soil_bright", "leaf_grass", _PASTURE, 0.15, 0.08, -13.0, -20.5),
    Material("shrub", GRASSLAND, "soil_dark", "soil_bright", "leaf_broad", _SHRUB, 0.14, 0.12, -11.0, -17.0),
    Material("garden", GRASSLAND, "soil_dark", "concrete", "leaf_grass", _MEADOW, 0.22, 0.12, -11.5, -18.0),
    Material("rock", BARE, "rock", "soil_bright", "leaf_grass", _always(0.06, 0.06), 0.06, 0.14, -11.5, -20.0),
    Material("gravel", BARE, "soil_dark", "gravel", "leaf_grass", _always(0.05, 0.04), 0.05, 0.10, -13.0, -22.0),
    Material("pit", BARE, "soil_dark", "soil_bright", "leaf_grass", _always(0.04, 0.05), 0.05, 0.09, -13.0, -22.0),
    Material("asphalt", ROAD, "asphalt", "concrete", "leaf_grass", _always(0.01, 0.01), 0.02, 0.06, -16.0, -24.0),
    Material("track", ROAD, "soil_dark", "gravel", "leaf_grass", _always(0.10, 0.10), 0.10, 0.07, -14.0, -22.0),
    Material("tile", BUILDING, "tile_brown", "tile_red", "leaf_grass", _always(0, 0), 0.0, 0.07, -9.0, -17.0),
    Material("slate", BUILDING, "asphalt", "slate", "leaf_grass", _always(0, 0), 0.0, 0.06, -9.0, -17.0),
    Material("metal", BUILDING, "slate", "metal", "leaf_grass", _always(0, 0), 0.0, 0.04, -8.0, -17.0),
    Material("gravel_roof", BUILDING, "asphalt", "gravel", "leaf_grass", _always(0.02, 0.02), 0.03, 0.07, -9.0, -17.0),
)
"""Every material; its id is its position."""

_IDS = {material.name: position for position, material in enumerate(MATERIALS)}


def material(name: str) -> int:
    """Return the id of a material."""
    return _IDS[name]


def class_of_material() -> NDArray[np.uint8]:
    """Return the class id of every material, uint8 (M,)."""
    return np.array([item.land_class for item in MATERIALS], np.uint8)


def spectra_at(centres_nm: float) -> dict[str, float]:
    """Interpolate every spectrum at a wavelength in nanometres."""
    return {name: float(np.interp(centres_nm, NODES_NM, values)) for name, values in SPECTRA.items()}


def cover_in(season: Season) -> NDArray[np.float32]:
    """Return green and senescent share of every material in a season, float32 (M, 2)."""
    return np.array([item.cover[SEASONS.index(season)] for item in MATERIALS], np.float32)


class _Roofs(NamedTuple):
    """Roofs of halls and houses, by material id; a name that occurs twice is twice as common."""

    halls: NDArray[np.int64]
    houses: NDArray[np.int64]


ROOFS = _Roofs(
    halls=np.array([material(name) for name in ("metal", "metal", "gravel_roof", "slate")]),
    houses=np.array([material(name) for name in ("tile", "tile", "tile", "slate", "slate", "metal", "gravel_roof")]),
)
CROPS = np.array([material(name) for name in ("cereal", "cereal", "maize", "maize", "oilseed", "roots", "fallow", "fallow", "orchard")])
