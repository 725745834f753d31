"""``tilth report``: runs, scores, comparisons and maps on one self-contained page."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic

from tilth.config import Config
from tilth.errors import MissingFileError
from tilth.verbs.console import Console
from tilth.verbs.registry import Result, verb


class MapOption(Config):
    """One map to show, and what to lay beside it."""

    path: Path = pydantic.Field(description="map of class ids")
    scene: Path | None = pydantic.Field(None, description="picture of the same ground")
    name: str | None = pydantic.Field(None, description="what to call it")
    label: Path | None = pydantic.Field(None, description="reference of the same ground, class ids as the map's")
    confidence: Path | None = pydantic.Field(None, description="confidence in percent; by default <map>_confidence.tif if it is there")
    compare: dict[str, Path] = pydantic.Field(default_factory=dict, description="further maps of the same ground, by name")


class ReportOptions(Config):
    """Options of ``tilth report``."""

    out: Path = pydantic.Field(description="page to write, .html")
    title: str = pydantic.Field("tilth report", description="heading of the page")
    runs: tuple[str, ...] = pydantic.Field((), description="run folders; may be patterns such as runs/*")
    evaluations: tuple[str, ...] = pydantic.Field((), description="evaluation folders, the most important first; may be patterns")
    comparisons: tuple[Path, ...] = pydantic.Field((), description="comparison folders or files; the first gives the headline")
    maps: tuple[MapOption, ...] = pydantic.Field((), description="maps to show, such as 'maps=[{path: map.tif, scene: scene.tif}]'")
    assessments: tuple[Path, ...] = pydantic.Field((), description="assessments of maps by reference points: areas with intervals")
    features: tuple[Path, ...] = pydantic.Field((), description="folders of tilth features: pictures of maps, and what probes score")
    catalog: Path | None = pydantic.Field(None, description="catalog to summarise")
    commands: tuple[str, ...] = pydantic.Field((), description="shell lines that reproduce the work")
    note: str | None = pydantic.Field(None, description="line under the title")
    galleries: int = pydantic.Field(2, ge=0, description="evaluations whose pictures are embedded")
    selection_tiles: int = pydantic.Field(
        3, ge=0, le=24, description="tiles on which a training by CromSS shows what it selects; needs its model and catalog; 0 = none"
    )
    viewer_pixels: int = pydantic.Field(2048, ge=64, le=8192, description="longest side of the pictures of a map; larger ones are thinned")

    @pydantic.field_validator("maps", mode="before")
    @classmethod
    def _maps_by_path(cls, value: Any) -> Any:
        """Let a path alone stand for a map without its scene."""
        maps = [value] if isinstance(value, str | Mapping) else value
        return [{"path": item} if isinstance(item, str) else item for item in maps] if isinstance(maps, list | tuple) else maps


@verb("report", ReportOptions)
def report(options: ReportOptions, _console: Console) -> Result:
    """Write one offline page: data, curves, scores, pictures, maps, cost, commands."""
    from tilth.reporting.inputs import MapInput, ReportInput
    from tilth.reporting.render import build_report

    inputs = ReportInput(
        title=options.title,
        runs=_folders(options.runs),
        evaluations=_folders(options.evaluations),
        comparisons=options.comparisons,
        maps=[MapInput(item.path, item.scene, item.name, item.label, item.confidence, item.compare) for item in options.maps],
        assessments=options.assessments,
        features=options.features,
        catalog=None if options.catalog is None else _summary(options.catalog),
        commands=options.commands,
        note=options.note,
        galleries=options.galleries,
        viewer_pixels=options.viewer_pixels,
        selection_tiles=options.selection_tiles,
    )
    return Result(outputs={"report": build_report(inputs, options.out)})


def _folders(patterns: tuple[str, ...]) -> list[str]:
    """Replace patterns by the folders they match, in order of name with numbers in order of size; each folder once."""
    found: dict[str, None] = {}
    for pattern in patterns:
        matches = sorted(glob.glob(pattern), key=_by_number)  # noqa: PTH207 - Path.glob takes no absolute patterns
        if glob.has_magic(pattern) and not matches:
            raise MissingFileError(f"{pattern}: nothing matches this pattern; name folders that exist")
        found |= dict.fromkeys(matches or [pattern])
    return list(found)


def _by_number(path: str) -> list[tuple[int, str]]:
    """Order run-10 after run-9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path)]


def _summary(path: Path) -> dict[str, Any]:
    """What the report says of a catalog."""
    from tilth.catalog.summary import summarise
    from tilth.catalog.table import Catalog

    catalog = Catalog.open(path)
    found = summarise(catalog)
    schemes = list(found["classes"])
    shown: dict[str, Any] = {
        "name": path.stem,
        **{key: found[key] for key in ("tiles", "labelled", "splits", "label_kinds")},
        "source": ", ".join(found["sources"]),
        "licence": ", ".join(found["licences"]),
        "fingerprint": catalog.fingerprint(),
    }
    if len(found["sensors"]) == 1:
        shown["sensor"] = catalog.sensor().model_dump(mode="json")
    if len(schemes) == 1:
        shown["scheme"] = catalog.schemes[schemes[0]].model_dump(mode="json")
        shown["class_shares"] = {item["name"]: item["share"] for item in found["classes"][schemes[0]]}
    if found["area_km2"] is not None:
        shown["area_km2"] = round(found["area_km2"], 3)
    return shown
