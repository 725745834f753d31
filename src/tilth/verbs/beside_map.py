"""What ``tilth predict`` writes beside a map when asked: polygons, and a STAC item that describes it all."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from tilth.verbs.predict_options import PredictOptions

if TYPE_CHECKING:
    from tilth.prediction.scene import ScenePrediction


def refuse_taken(targets: Sequence[Path], scenes: Sequence[Path], options: PredictOptions) -> None:
    """Refuse, before any work is done, to write over what is read, or over files beside a map that tilth did not write.

    Args:
        targets: the maps.
        scenes: that are read.
        options: of the prediction.

    Raises:
        UsageError: an output is an input, or two are one.
        OutputExistsError: a GeoPackage or JSON file of another make is there.
    """
    from tilth.prediction.beside import refuse_foreign, refuse_inputs, sibling

    wanted = [what for what in ("confidence", "probabilities") if getattr(options, what)]
    suffixes = [suffix for suffix, asked in ((".gpkg", options.polygons), (".json", options.stac)) if asked]
    rasters = [*targets, *(sibling(target, what) for target in targets for what in wanted)]
    others = [target.with_suffix(suffix) for target in targets for suffix in suffixes]
    refuse_inputs([*rasters, *others], [*scenes, *([options.area] if options.area is not None else [])])
    for path in others:
        refuse_foreign(path, overwrite=options.overwrite)


def write_beside(found: ScenePrediction, scenes: Sequence[Path], options: PredictOptions) -> dict[str, Path]:
    """Write the polygons and the item of a map, as far as they are asked for.

    Args:
        found: the map.
        scenes: what it was made from.
        options: of the prediction.

    Returns:
        Paths written: ``polygons`` and ``STAC item``.

    Raises:
        DataError: the map has no place on the Earth, or holds nothing but no data (polygons).
    """
    from tilth.prediction.polygons import write_polygons
    from tilth.prediction.stac import COG, GEOPACKAGE, run_provenance, write_stac_item

    written: dict[str, Path] = {}
    if options.polygons:
        layer = write_polygons(
            found.path,
            found.path.with_suffix(".gpkg"),
            confidence=found.confidence_path,
            minimum_area_m2=options.minimum_area_m2,
            overwrite=options.overwrite,
        )
        written["polygons"] = layer.path
    if options.stac:
        rasters = {
            "confidence": (found.confidence_path, "Confidence in percent"),
            "probabilities": (found.probabilities_path, "Probability of each class in percent"),
        }
        extras = [(key, path, COG, title) for key, (path, title) in rasters.items() if path is not None]
        if "polygons" in written:
            extras.append(("polygons", written["polygons"], GEOPACKAGE, "Land cover as polygons"))
        first, last = _taken(scenes, options.datetime_pattern)
        provenance = {"scenes": [scene.name for scene in scenes], **run_provenance(options.model)}
        written["STAC item"] = write_stac_item(
            found.path, extras=extras, start=first, end=last, provenance=provenance, overwrite=options.overwrite
        )
    return written


def _taken(scenes: Sequence[Path], pattern: str | None) -> tuple[datetime | None, datetime | None]:
    """The day on which the scenes were taken, or the beginning of the first and the end of the last; None unless all are known."""
    from tilth.prediction.dates import scene_date

    days = [scene_date(str(scene), pattern) for scene in scenes]
    known = sorted(day for day in days if day is not None)
    if len(known) < len(days):
        return None, None
    first, last = (datetime(day.year, day.month, day.day, tzinfo=UTC) for day in (known[0], known[-1]))
    return (first, last) if first == last else (first, last + timedelta(days=1, seconds=-1))
