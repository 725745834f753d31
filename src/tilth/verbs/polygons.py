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
        None, description="raster of confidence in percent; by default the one beside the map, if there is one"
    )


@verb("polygons", PolygonsOptions)
def polygons(options: PolygonsOptions, _console: Console) -> Result:
    """Turn a map into polygons: class, ground area, confidence; small ones merged."""
    from tilth.prediction.polygons import write_polygons

    beside = options.map.with_name(f"{options.map.stem}_confidence{options.map.suffix}")
    confidence = options.confidence or (beside if beside.is_file() else None)
    found = write_polygons(
        options.map, options.out, confidence=confidence, minimum_area_m2=options.minimum_area_m2, sieve_pixels=options.sieve_pixels
    )
    areas = ", ".join(f"{name} {area / 10_000:.2f} ha" for name, area in found.area_m2.items())
    return Result(
        summary=(f"{found.polygons} polygons, {found.merged_pixels} pixels in patches that were merged; {areas}",),
        outputs={"polygons": found.path},
        values={"polygons": found.polygons, "merged_pixels": found.merged_pixels, "area_m2": found.area_m2},
    )
