"""Options of ``tilth predict``; light to import."""

from __future__ import annotations

import math
import re
from datetime import date
from pathlib import Path
from typing import Any, Self

import pydantic

from tilth.config import Config
from tilth.verbs.options import FLIPS_FIELD, Flips, InferenceConfig


class PredictOptions(Config):
    """Options of ``tilth predict``."""

    model: Path = pydantic.Field(json_schema_extra={"positional": True}, description="model or run folder")
    scenes: tuple[Path, ...] = pydantic.Field(
        min_length=1, json_schema_extra={"positional": True}, description="scenes to map; a folder stands for the rasters in it"
    )
    out: Path = pydantic.Field(description="map to write, .tif; a folder for several maps")
    mosaic: bool = pydantic.Field(False, description="make one map of all scenes; where they overlap, the first one with data counts")
    bands: tuple[str, ...] = pydantic.Field(
        (),
        description="bands of the scene that are the sensor's, in its order: numbers from 1 or descriptions, such as 4,3,2 or B04,B03,B02",
    )
    crs: str | None = pydantic.Field(None, description="coordinate system of the map, EPSG:code; by default the scene's")
    resolution: float | None = pydantic.Field(
        None,
        gt=0,
        description="side of the map's pixels in units of its CRS (metres for UTM, degrees for EPSG:4326); scenes are resampled",
    )
    area: Path | None = pydantic.Field(None, description="map these polygons only: GeoPackage, GeoJSON or Shapefile")
    bounds: tuple[float, ...] | None = pydantic.Field(
        None, description="map this rectangle only: lowest x, lowest y, highest x, highest y, such as 399960,4990200,410000,5000040"
    )
    bounds_crs: str | None = pydantic.Field(None, description="coordinate system of the bounds, such as EPSG:4326; by default the scene's")
    period: tuple[date, ...] | None = pydantic.Field(
        None, description="map only scenes taken from the first to the second day, such as 2019-04-01,2019-09-30"
    )
    datetime_pattern: str | None = pydantic.Field(
        None, description="regular expression with one group that finds the date in a file name; by default tags and names are searched"
    )
    flips: Flips = FLIPS_FIELD
    confidence: bool = pydantic.Field(False, description="also write the highest probability in percent")
    probabilities: bool = pydantic.Field(False, description="also write the probability of every class in percent, one band a class")
    polygons: bool = pydantic.Field(False, description="also write the map as polygons: class, ground area, mean confidence")
    minimum_area_m2: float = pydantic.Field(0.0, ge=0, description="polygons smaller than this go to their largest neighbour")
    stac: bool = pydantic.Field(False, description="also write a STAC item: place, time, classes, checksums, what the map was made from")
    black_border: bool = pydantic.Field(True, description="leave large black regions at the border of 8-bit scenes as no data")
    overwrite: bool = pydantic.Field(False, description="replace maps that were made from another model, scene or settings")
    inference: InferenceConfig = pydantic.Field(default_factory=InferenceConfig, description="windows, device, precision")

    @pydantic.field_validator("bands", "period", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """Several may be written with commas, as numbers may."""
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list | tuple):
            return value
        return [part.strip() if isinstance(part, str) else part for text in texts for part in _parts(text)]

    @pydantic.field_validator("bounds")
    @classmethod
    def _rectangle(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value is not None and (len(value) != 4 or not all(map(math.isfinite, value)) or value[0] >= value[2] or value[1] >= value[3]):
            raise ValueError("expected four numbers: lowest x, lowest y, highest x, highest y")
        return value

    @pydantic.field_validator("period")
    @classmethod
    def _from_to(cls, value: tuple[date, ...] | None) -> tuple[date, ...] | None:
        if value is not None and (len(value) != 2 or value[0] > value[1]):
            raise ValueError("expected two days, the first not later than the second, such as 2019-04-01,2019-09-30")
        return value

    @pydantic.field_validator("datetime_pattern")
    @classmethod
    def _one_group(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            groups = re.compile(value).groups
        except re.error as error:
            raise ValueError(f"is not a regular expression: {error}") from None
        if groups != 1:
            raise ValueError("needs exactly one group, for example '_([0-9]{8})'")
        return value

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if self.area is not None and self.bounds is not None:
            raise ValueError("area and bounds exclude each other: both say what to map")
        if self.bounds_crs is not None and self.bounds is None:
            raise ValueError("bounds_crs says what bounds are given in, and there are none")
        if self.datetime_pattern is not None and self.period is None and not self.stac:
            raise ValueError("datetime_pattern finds the date that period and stac ask for, and neither is given")
        if self.minimum_area_m2 and not self.polygons:
            raise ValueError("minimum_area_m2 is about polygons, and there are none; add polygons")
        return self


def _parts(text: Any) -> list[Any]:
    return [part for part in text.split(",") if part.strip()] if isinstance(text, str) else [text]
