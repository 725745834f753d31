"""What can be asked of a synthetic landscape: composition, label noise, scenes to write."""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

import pydantic

from tilth.config import Config
from tilth.errors import suggest
from tilth.imagery.landscape.scheme import landscape_scheme
from tilth.sensors import Sensor, get_sensor

Season = Literal["winter", "spring", "summer", "autumn"]
SEASONS: tuple[Season, ...] = get_args(Season)

Share = Annotated[float, pydantic.Field(ge=0, le=1)]


class Composition(Config):
    """What a landscape is made of.

    Attributes:
        relief: steepness of the terrain; at 1 the scene spans about 5 % of its longer side in height.
        rivers: number of rivers, relative to the usual.
        lakes: largest share of the scene that lakes may cover; terrain without hollows has none.
        farmland: share of the land that is divided into parcels (cropland, meadow, fallow).
        forest: share of the land outside farmland that is wooded.
        bare: share of the land outside farmland that is rock or pits.
        settlements: number of towns and hamlets, relative to the usual; 0 for none.
        parcel_m: typical length of a parcel in metres. None takes 80 m at 1 m sampling and grows with its square root, so that
            a parcel stays an object of many pixels at any sampling distance.
    """

    relief: float = pydantic.Field(default=1.0, ge=0, le=5)
    rivers: float = pydantic.Field(default=1.0, ge=0, le=5)
    lakes: Share = 0.03
    farmland: Share = 0.6
    forest: Share = 0.5
    bare: Share = 0.08
    settlements: float = pydantic.Field(default=1.0, ge=0, le=5)
    parcel_m: float | None = pydantic.Field(default=None, gt=0)


class LandscapeConfig(Config):
    """One landscape: a pure function of these values.

    Attributes:
        seed: seed of the whole collection.
        index: which landscape of the collection.
        height: rows in pixels.
        width: columns in pixels.
        gsd_m: ground sampling distance in metres; below about 4 m single houses, crowns and furrows can be seen.
        composition: what it is made of.
    """

    seed: int = 0
    index: int = pydantic.Field(default=0, ge=0)
    height: int = pydantic.Field(default=512, ge=32, le=8192)
    width: int = pydantic.Field(default=512, ge=32, le=8192)
    gsd_m: float = pydantic.Field(default=2.0, ge=0.5, le=60)
    composition: Composition = Composition()

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns in pixels."""
        return self.height, self.width

    def pixels(self, metres: float, least: float = 0.0) -> float:
        """Convert a length to pixels, but never to fewer than ``least``: what is thinner could not be drawn or labelled."""
        return max(metres / self.gsd_m, least)

    @property
    def parcel_px(self) -> float:
        """Typical length of a parcel in pixels, at least 8."""
        metres = self.composition.parcel_m
        return self.pixels(80 * self.gsd_m**0.5 if metres is None else metres, least=8)


class NoiseConfig(Config):
    """How labels go wrong; every kind is independent of the others and off by default.

    Applied in the order stale, missing, confusion, boundary, coarse, ignore: first the mapper's errors about objects, then
    those of drawing and of the product's resolution, then gaps.

    Attributes:
        seed: seed of the noise; the same landscape can be labelled by many annotators.
        stale_objects: share of the changed objects (fields with another former use, demolished buildings) still shown as they were.
        missing_objects: share of the objects of ``missing_classes`` that were never mapped; what surrounds them takes their place.
        missing_classes: see ``missing_objects``.
        confusion: ``{true class: {given class: probability}}``, drawn once a whole object (parcel, building, stand of trees, ...).
        boundary_shift_px: root mean square distance, in pixels, by which a straight boundary is displaced.
        coarse_factor: labels are given on a grid coarser by this factor: the majority of each block of factor x factor pixels.
        ignore_share: share of the pixels left without a label (255), in patches.
    """

    seed: int = 0
    stale_objects: Share = 0.0
    missing_objects: Share = 0.0
    missing_classes: tuple[str, ...] = ("building", "road")
    confusion: dict[str, dict[str, Share]] = pydantic.Field(default_factory=dict)
    boundary_shift_px: float = pydantic.Field(default=0.0, ge=0, le=64)
    coarse_factor: int = pydantic.Field(default=1, ge=1, le=256)
    ignore_share: Share = 0.0

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        names = landscape_scheme().names
        for name in (*self.missing_classes, *self.confusion, *(given for row in self.confusion.values() for given in row)):
            if name not in names:
                raise ValueError(f"unknown class {name!r}; {suggest(name, names)}")
        for name, row in self.confusion.items():
            if sum(row.values()) > 1 + 1e-9:
                raise ValueError(f"confusion of {name!r}: probabilities add up to {sum(row.values()):g}, expected at most 1")
        return self


class ScenesConfig(Config):
    """A folder of georeferenced scenes.

    Attributes:
        seed: seed of the collection; other seeds give other landscapes, at another place.
        scenes: how many landscapes.
        first: index of the first; landscape ``first + i`` is the same whatever the other values of ``first`` and ``scenes``.
        size: height and width in pixels.
        gsd_m: ground sampling distance in metres; None takes the finest of the sensor's bands, or 2 m where they name none.
        sensor: name of a sensor, a sum such as ``s1+s2_l2a``, or a YAML file.
        seasons: seasons in which each landscape is seen, one image each.
        labelled: number of scenes with labels, from the first on; the others go to ``unlabelled/``. None labels all.
        noise: also writes ``masks_noisy/``.
        composition: what the landscapes are made of.
    """

    seed: int = 0
    scenes: int = pydantic.Field(default=4, ge=1, le=10_000)
    first: int = pydantic.Field(default=0, ge=0)
    size: int = pydantic.Field(default=512, ge=32, le=8192)
    gsd_m: float | None = pydantic.Field(default=None, ge=0.5, le=60)
    sensor: str = "rgb"
    seasons: tuple[Season, ...] = pydantic.Field(default=("summer",), min_length=1)
    labelled: int | None = pydantic.Field(default=None, ge=0)
    noise: NoiseConfig | None = None
    composition: Composition = Composition()

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.seasons)) != len(self.seasons):
            raise ValueError(f"seasons must differ, found {', '.join(self.seasons)}")
        self.get_sensor()
        return self

    def get_sensor(self) -> Sensor:
        """Look up the sensor."""
        return get_sensor(self.sensor)

    def landscape(self, number: int) -> LandscapeConfig:
        """Configure the landscape of scene ``number`` (from 0)."""
        known = [band.gsd_m for band in self.get_sensor().bands if band.gsd_m is not None]
        gsd_m = self.gsd_m or min(known, default=2.0)
        return LandscapeConfig(
            seed=self.seed, index=self.first + number, height=self.size, width=self.size, gsd_m=gsd_m, composition=self.composition
        )
