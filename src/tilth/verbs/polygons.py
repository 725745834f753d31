"""``tilth polygons``: a map becomes a GeoPackage."""

from __future__ import annotations

from pathlib import Path

import pydantic

from tilth.config import Config
from tilth.verbs.console import Console
from tilth.verbs.registry import Result, verb


class PatchConfig(Config):
    """How small a patch of a class may be before its largest neighbour swallows it."""

    minimum_area_m2: float = pydantic.Field(0.0, ge=0, description="minimum mapping unit in square metres on the ground")
    sieve_pixels: int = pydantic.Field(0, ge=0, description="the same in pixels; the larger of both counts")


class PolygonsOptions(PatchConfig):
    """Options of ``tilth polygons``."""

    map: Path = pydantic.Field(json_schema_extra={"positional": True}, description="map of class ids, .tif")
    out: Path = pydantic.Field(description="GeoPackage to write, .gpkg")
    confidence: Path | None = pydantic.Field(
        None, description="raster of confidence in percent; by default the one that was predicted with the map, beside it"
    )
    overwrite: bool = pydantic.Field(False, description="replace a GeoPackage that holds something else than polygons of a map")


@verb("polygons", PolygonsOptions)
def polygons(options: PolygonsOptions, console: Console) -> Result:
    """Turn a map into polygons: class, ground area, confidence; small ones merged."""
    from tilth.prediction.beside import confidence_beside
    from tilth.prediction.polygons import write_polygons

    beside, why_not = (None, None) if options.confidence is not None else confidence_beside(options.map)
    if why_not is not None:
        console.warn(f"the confidence beside the map is left out: {why_not}")
    found = write_polygons(
        options.map,
        options.out,
        confidence=options.confidence or beside,
        minimum_area_m2=options.minimum_area_m2,
        sieve_pixels=options.sieve_pixels,
        overwrite=options.overwrite,
    )
    areas = ", ".join(f"{name} {area / 10_000:.2f} ha" for name, area in found.area_m2.items())
    return Result(
        summary=(f"{found.polygons} polygons, {found.merged_pixels} pixels in patches that were merged; {areas}",),
        outputs={"polygons": found.path},
        values={"polygons": found.polygons, "merged_pixels": found.merged_pixels, "area_m2": found.area_m2},
    )
