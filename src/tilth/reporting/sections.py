"""From records to what the templates show, one function a section; a section without content returns None and does not appear."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import yaml

from tilth.evaluation.area_result import AreaAssessment
from tilth.reporting import diagrams, numbers
from tilth.reporting.collect import NamedEvaluation, flatten
from tilth.reporting.data import fingerprints
from tilth.reporting.maps import MapView
from tilth.reporting.runs import Configuration

Section = dict[str, Any]


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
            ("Size", f"{_size(view.width, view.height)} pixels"),
            ("Without data", numbers.percent(view.nodata_share)),
        ]
        for item in view.agreements:
            share = numbers.percent(item.same / item.pixels) if item.pixels else numbers.ABSENT
            facts.append((f"{item.second} agrees with {item.first.lower()}", share))
        thinned = f"The pictures are thinned to {_size(*view.shown)} pixels; all numbers count every pixel of the map."
        record = {field.name: getattr(view, field.name) for field in fields(view)}
        total = sum(item.area_m2 or 0.0 for item in view.classes)
        record |= {"facts": [(label, value) for label, value in facts if value], "area_m2": total}
        shown.append(record | {"thinned": thinned if view.shown != (view.width, view.height) else ""})
    return {"maps": shown}


def _size(width: int, height: int) -> str:
    return f"{numbers.whole(width)} × {numbers.whole(height)}"  # noqa: RUF001 - the multiplication sign is meant


def area_section(assessments: Sequence[AreaAssessment]) -> Section | None:
    """Prepare the areas that reference points support: chart, table, error matrix, and in words what they mean."""
    return {"assessments": [_assessment(item) for item in assessments]} if assessments else None


def _assessment(found: AreaAssessment) -> dict[str, Any]:
    placed = all(item.area_m2 is not None for item in found.classes)
    largest = max((max(item.area_m2 or 0, item.mapped_area_m2 or 0) for item in found.classes), default=0.0)
    scale, unit = numbers.area_unit(largest) if placed else (0.01, "%")
    bars, rows, apart = [], [], []
    for item in found.classes:
        mapped, estimate = (item.mapped_area_m2, item.area_m2) if placed else (item.mapped_share, item.area_share)
        ends = item.area_interval_m2 if placed else item.area_share_interval
        interval = (ends[0] / scale, ends[1] / scale) if ends else None
        colour = item.colour
        bars.append(
            diagrams.AreaBar(
                item.name,
                None if mapped is None else mapped / scale,
                None if estimate is None else estimate / scale,
                interval,
                colour,
            )
        )
        written = [numbers.area(value, largest) if placed else numbers.percent(value) for value in (mapped, estimate, *(ends or ()))]
        between = " to ".join(written[2:]) or numbers.ABSENT
        rows.append({"item": item, "mapped": written[0], "estimate": written[1], "between": between})
        if ends and mapped is not None and not ends[0] <= mapped <= ends[1]:
            apart.append(item.name)
    matrix = [(item.name, row) for item, row in zip(found.classes, found.error_matrix, strict=True)]
    return {
        "found": found,
        "svg": diagrams.draw_areas(bars, unit),
        "rows": rows,
        "apart": ", ".join(apart),
        "matrix": matrix,
        "left_out": ", ".join(f"{numbers.whole(count)} {reason}" for reason, count in found.left_out.items() if count),
        "coloured": all(item.colour for item in found.classes),
    }


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
