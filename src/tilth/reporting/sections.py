"""From records to what the templates show, one function a section; a section without content returns None and does not appear."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import yaml

from tilth.classes import ClassScheme
from tilth.evaluation.compare import Comparison
from tilth.evaluation.result import SUMMARY_NAMES, GalleryEntry
from tilth.reporting import figures, numbers
from tilth.reporting.collect import NamedEvaluation, find_key, flatten
from tilth.reporting.maps import MapView
from tilth.reporting.pictures import Picture, Rgb, embed_file
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
_CATALOG_KEYS = frozenset(
    {"splits", "class_shares", "scheme", "sensor", "tiles", "labelled", "schema_version", "fingerprint", "catalog_fingerprint"}
)


def data_section(catalog: Mapping[str, Any], evaluations: Sequence[NamedEvaluation]) -> Section | None:
    """Summarise the data: facts, tiles per split, classes with colours and shares; what is missing is taken from the first evaluation."""
    classes, scheme = scheme_of(catalog, evaluations)
    shares = {str(name): share for name, share in (catalog.get("class_shares") or {}).items()}
    title = "Share of the labelled pixels"
    if not shares and evaluations:
        counts = {item.name: item.reference_pixels for item in evaluations[0].result.per_class}
        total = sum(counts.values())
        shares = {name: count / total for name, count in counts.items()} if total else {}
        title = "Share of the pixels evaluated on"
    splits = []
    for name, value in (catalog.get("splits") or {}).items():
        tiles, labelled = (value.get("tiles"), value.get("labelled")) if isinstance(value, Mapping) else (value, None)
        splits.append((str(name), tiles, labelled))
    facts: list[tuple[str, Any]] = [
        (label, catalog[key]) for label, key in (("Tiles", "tiles"), ("With labels", "labelled")) if catalog.get(key) is not None
    ]
    facts += _sensor_facts(catalog.get("sensor"))
    facts += [(_label(key), value) for key, value in flatten({k: v for k, v in catalog.items() if k not in _CATALOG_KEYS}).items()]
    facts = [(label, value) for label, value in facts if value not in (None, "", [])]
    if not (facts or splits or classes):
        return None
    return {
        "facts": facts,
        "splits": splits,
        "split_labels": any(labelled is not None for _, _, labelled in splits),
        "classes": classes or [(name, (150, 150, 150)) for name in shares],
        "scheme": scheme,
        "shares": shares,
        "share_title": title,
    }


def scheme_of(catalog: Mapping[str, Any], evaluations: Sequence[NamedEvaluation]) -> tuple[list[tuple[str, Rgb]], str | None]:
    """Return (name, colour) of every class and the scheme's name, from the catalog or else the first evaluation."""
    given = catalog.get("scheme")
    if isinstance(given, Mapping) and given.get("classes"):
        scheme = ClassScheme.parse(given, source="scheme of the catalog summary")
        return list(zip(scheme.names, scheme.colours, strict=True)), scheme.name
    if evaluations:
        result = evaluations[0].result
        return list(zip(result.classes, result.colours, strict=True)), result.scheme
    return [], given if isinstance(given, str) else None


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
    runs = [run for group in groups for run in group.runs]
    prints: list[tuple[str, Any]] = []
    if catalog.get("fingerprint"):
        prints.append(("Catalog", catalog["fingerprint"]))
    for group in groups:
        if group.seeds:
            prints.append((f"Seeds, {group.name}", ", ".join(group.seeds)))
        found = find_key(group.runs[0].data, "fingerprint", "catalog_fingerprint", "catalog_hash")
        if found:
            prints.append((f"Training data, {group.name}", found))
    seen = dict.fromkeys((", ".join(item.result.split), item.result.catalog_fingerprint) for item in evaluations)
    prints += [(f"Tiles evaluated on{f', {split}' if split else ''}", fingerprint) for split, fingerprint in seen]
    flats = [flatten(run.environment) for run in runs if run.environment]
    keys = dict.fromkeys(key for flat in flats for key in flat)
    merged = [
        (key.replace(".", " ").replace("_", " "), list(dict.fromkeys(_words(flat[key]) for flat in flats if key in flat))) for key in keys
    ]
    recipes = []
    for group in groups:
        if group.runs[0].recipe:
            text = yaml.safe_dump(group.runs[0].recipe, sort_keys=False, allow_unicode=True, width=100).rstrip()
            others = ", ".join(group.seeds[1:])
            recipes.append((group.name, f"As run with seed {group.seeds[0]}; also run with {others}." if others else "", text))
    if not (commands or prints or merged or recipes):
        return None
    return {
        "commands": list(commands),
        "fingerprints": prints,
        "environment": merged,
        "environments_differ": any(len(values) > 1 for _, values in merged),
        "recipes": recipes,
    }


def _sensor_facts(sensor: Any) -> list[tuple[str, Any]]:
    if not isinstance(sensor, Mapping):
        return [("Sensor", sensor)]
    bands = sensor.get("bands") or []
    names = [str(band.get("name", "?")) if isinstance(band, Mapping) else str(band) for band in bands]
    sizes = sorted({band["gsd_m"] for band in bands if isinstance(band, Mapping) and numbers.finite(band.get("gsd_m"))})
    ground = " to ".join(numbers.length(size) for size in sizes[:: max(len(sizes) - 1, 1)])
    return [("Sensor", sensor.get("name")), ("Bands", ", ".join(names)), ("Ground sampling distance", ground), ("Unit", sensor.get("unit"))]


def _label(key: str) -> str:
    words = key.replace("_", " ").replace(".", " · ")
    return words[:1].upper() + words[1:]


def _words(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
