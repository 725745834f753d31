"""From records to what the templates show, one function a section; a section without content returns None and does not appear."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import yaml

from tilth.evaluation.compare import Comparison
from tilth.evaluation.result import SUMMARY_NAMES, GalleryEntry
from tilth.reporting import figures, numbers
from tilth.reporting.collect import NamedEvaluation, flatten
from tilth.reporting.data import fingerprints
from tilth.reporting.maps import MapView
from tilth.reporting.pictures import Picture, embed_file
from tilth.reporting.runs import LINE_COLOURS, Configuration

Section = dict[str, Any]
PICTURE_SIDE = 320
SCORE_TITLES = {
    "mIoU": "mean intersection over union of the classes that are present",
    "mF1": "mean F1 of the classes that are present",
    "OA": "overall accuracy: share of right pixels",
    "AA": "average accuracy: mean recall of the classes that are present",
    "kappa": "Cohen's kappa: agreement beyond chance",
    "fwIoU": "intersection over union weighted by how often a class occurs",
}


def comparison_section(comparisons: Sequence[Comparison], groups: Sequence[Configuration]) -> Section | None:
    """Prepare tables and strip plots; a group that is also a configuration of runs keeps the colour of its curves."""
    if not comparisons:
        return None
    numbers_by_name = {group.name: group.number for group in groups}
    items = []
    for comparison in comparisons:
        strips = [
            figures.Strip(
                group.name,
                group.values,
                group.mean,
                group.deviation,
                f"var(--line-{numbers_by_name.get(group.name, place) % LINE_COLOURS + 1})",
            )
            for place, group in enumerate(comparison.groups)
        ]
        classes = []
        for name in comparison.classes:
            values = [group.per_class_iou.get(name) for group in comparison.groups]
            known = [value for value in values if value is not None]
            classes.append((name, values, max(known) if len(known) > 1 else None))
        items.append({"comparison": comparison, "svg": figures.draw_strips(strips, comparison.metric == "kappa"), "classes": classes})
    return {"comparisons": items}


@dataclass(frozen=True)
class GalleryTile:
    """One tile of a gallery with its embedded pictures; ``rank`` is "worst", "best" or empty."""

    tile_id: str
    mean_iou: float | None
    rank: str
    image: Picture
    label: Picture
    prediction: Picture
    errors: Picture


def evaluation_section(evaluations: Sequence[NamedEvaluation], galleries: int, tiles: int) -> Section | None:
    """Prepare scores, confusion matrices and galleries.

    Raises:
        MissingFileError: a picture of a gallery is not there.
        UnreadableFileError: a picture cannot be read.
    """
    if not evaluations:
        return None
    items = []
    for place, named in enumerate(evaluations):
        result = named.result
        shown = place < galleries and tiles > 0
        confusion = []
        for row in result.confusion:
            total = sum(row)
            confusion.append([(count, count / total if total else None) for count in row])
        items.append(
            {
                "name": named.name,
                "result": result,
                "scores": [(name, result.scores.named()[name]) for name in SUMMARY_NAMES],
                "confusion": confusion,
                "absent": any(row.absent for row in result.per_class),
                "gallery": _gallery(named, tiles) if shown else [],
                "withheld": 0 if shown else 4 * len(result.gallery),
            }
        )
    return {"evaluations": items, "score_names": SUMMARY_NAMES, "score_titles": SCORE_TITLES}


def _gallery(named: NamedEvaluation, most: int) -> list[GalleryTile]:
    """Embed the worst and the best tiles, ``most`` together."""
    entries: list[GalleryEntry] = list(named.result.gallery)
    if len(entries) > most:
        worst = (most + 1) // 2
        entries = entries[:worst] + entries[len(entries) - (most - worst) :]
    tiles = []
    for place, entry in enumerate(entries):
        rank = "" if len(entries) < 2 else "worst" if place == 0 else "best" if place == len(entries) - 1 else ""
        pictures = {
            name: embed_file(named.folder / getattr(entry, name), "photo" if name == "image" else "classes", PICTURE_SIDE)
            for name in ("image", "label", "prediction", "errors")
        }
        tiles.append(GalleryTile(entry.tile_id, entry.mean_iou, rank, **pictures))
    return tiles


def map_section(views: Sequence[MapView]) -> Section | None:
    """Add the facts under each map."""
    if not views:
        return None
    shown = []
    for view in views:
        facts = [
            ("File", view.file),
            ("Coordinate system", view.crs or "none"),
            ("Pixel size", view.pixel),
            ("Size", f"{numbers.whole(view.width)} × {numbers.whole(view.height)} pixels"),  # noqa: RUF001 - the multiplication sign is meant
            ("Without data", numbers.percent(view.nodata_share)),
        ]
        record = {field.name: getattr(view, field.name) for field in fields(view)}
        total = sum(item.area_m2 or 0.0 for item in view.classes)
        shown.append(record | {"facts": [(label, value) for label, value in facts if value], "area_m2": total})
    return {"maps": shown}


def reproduce_section(
    commands: Sequence[str], groups: Sequence[Configuration], evaluations: Sequence[NamedEvaluation], catalog: Mapping[str, Any]
) -> Section | None:
    """Collect commands, fingerprints, versions and the complete settings of every configuration."""
    flats = [flatten(run.environment) for group in groups for run in group.runs if run.environment]
    keys = dict.fromkeys(key for flat in flats for key in flat)
    merged = [(_package(key), list(dict.fromkeys(_words(flat[key]) for flat in flats if key in flat))) for key in keys]
    recipes = []
    for group in groups:
        if group.runs[0].recipe:
            text = yaml.safe_dump(group.runs[0].recipe, sort_keys=False, allow_unicode=True, width=100).rstrip()
            others = ", ".join(group.seeds[1:])
            recipes.append((group.name, f"As run with seed {group.seeds[0]}; also run with {others}." if others else "", text))
    prints = fingerprints(catalog, groups, evaluations)
    if not (commands or prints or merged or recipes):
        return None
    return {
        "commands": list(commands),
        "fingerprints": prints,
        "environment": merged,
        "environments_differ": any(len(values) > 1 for _, values in merged),
        "recipes": recipes,
    }


def _package(key: str) -> str:
    return key.removeprefix("packages.").replace(".", " ").replace("_", " ")


def _words(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
