"""The data section: what the catalog holds and what each training saw of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tilth.classes import ClassScheme
from tilth.errors import DataError
from tilth.reporting import numbers
from tilth.reporting.collect import NamedEvaluation, read_mapping
from tilth.reporting.inputs import PathLike, Rgb
from tilth.reporting.runs import Configuration
from tilth.sensors import Sensor

_FACTS = (
    ("Tiles", "tiles"),
    ("With labels", "labelled"),
    ("Image files", "images"),
    ("Sensor", "sensors"),
    ("Label kinds", "label_kinds"),
    ("Tile size in pixels", "sizes"),
    ("Ground covered", "area_km2"),
    ("Dates", "dates"),
    ("Source", "sources"),
    ("Licence", "licences"),
)
_ELSEWHERE = frozenset({"splits", "classes", "fingerprint", "schema_version", "unreadable_labels", "sensor"})
_MOST_SIZES = 4


def read_catalog(given: PathLike | Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the summary of a catalog: the mapping, the content of a ``.json`` file, or that of a catalog, which is read for it.

    Raises:
        MissingFileError: no such file.
        DataError: it is neither.
    """
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return _in_summary_form(given)
    if Path(given).suffix != ".json":
        from tilth.catalog.summary import summarise
        from tilth.catalog.table import Catalog

        catalog = Catalog.open(Path(given))
        found = {**summarise(catalog), "fingerprint": catalog.fingerprint()}
        return found | ({"sensor": catalog.sensor().model_dump(mode="json")} if len(found["sensors"]) == 1 else {})
    return _in_summary_form(read_mapping(given))


def _in_summary_form(given: Mapping[str, Any]) -> dict[str, Any]:
    """Bring a short hand-written summary (``scheme`` with ``class_shares``) into the form that a catalog's own summary has."""
    summary = dict(given)
    scheme, shares = summary.pop("scheme", None), summary.pop("class_shares", None) or {}
    if isinstance(scheme, Mapping) and "classes" not in summary:
        parsed = ClassScheme.parse(scheme, source="scheme of the catalog summary")
        summary["classes"] = {
            parsed.name: [{"name": item.name, "colour": item.colour, "share": shares.get(item.name)} for item in parsed.classes]
        }
    return summary


def classes_of(catalog: Mapping[str, Any], evaluations: Sequence[NamedEvaluation]) -> tuple[list[tuple[str, Rgb]], str | None]:
    """Return name and colour of every class in id order, and the scheme's name: from the evaluation, else from the catalog."""
    if evaluations:
        result = evaluations[0].result
        return list(zip(result.classes, result.colours, strict=True)), result.scheme
    for scheme, rows in _class_tables(catalog).items():
        return [(row["name"], row["colour"]) for row in rows], scheme
    return [], None


def data_section(
    catalog: Mapping[str, Any], evaluations: Sequence[NamedEvaluation], groups: Sequence[Configuration]
) -> dict[str, Any] | None:
    """Summarise the data: facts, tiles per split, classes with colours and shares, the streams of every training."""
    named = catalog.get("sensor")
    name = named.get("name") if isinstance(named, Mapping) else named
    counted = {"sensors": {name: catalog.get("tiles")}} | dict(catalog) if name else dict(catalog)
    facts = [(label, _fact(key, counted[key])) for label, key in _FACTS if counted.get(key) not in (None, {}, [])]
    known = _ELSEWHERE | {key for _, key in _FACTS}
    facts += [(key.replace("_", " ").capitalize(), value) for key, value in catalog.items() if key not in known and value not in (None, "")]
    if catalog.get("unreadable_labels"):
        facts.append(("Labels that cannot be read", catalog["unreadable_labels"]))
    facts += _sensor_facts(catalog.get("sensor"))
    splits = []
    for name, value in (catalog.get("splits") or {}).items():
        tiles, labelled = (value.get("tiles"), value.get("labelled")) if isinstance(value, Mapping) else (value, None)
        splits.append((str(name), tiles, labelled))
    tables = [(scheme, "Share of the labelled pixels", rows) for scheme, rows in _class_tables(catalog).items()]
    if not tables and evaluations:
        result = evaluations[0].result
        total = sum(item.reference_pixels for item in result.per_class)
        rows = [
            {"name": item.name, "colour": colour, "share": item.reference_pixels / total if total else None}
            for item, colour in zip(result.per_class, result.colours, strict=True)
        ]
        tables = [(result.scheme, "Share of the pixels evaluated on", rows)]
    streams = [
        (group.name, str(name), stream.get("tiles"), stream.get("labelled_tiles"), stream.get("sensor"))
        for group in groups
        for name, stream in _streams(group).items()
    ]
    if not (facts or splits or tables or streams):
        return None
    return {
        "facts": facts,
        "splits": splits,
        "split_labels": any(labelled is not None for _, _, labelled in splits),
        "tables": tables,
        "streams": streams,
    }


def fingerprints(
    catalog: Mapping[str, Any], groups: Sequence[Configuration], evaluations: Sequence[NamedEvaluation]
) -> list[tuple[str, str]]:
    """List every fingerprint and the seeds, each once."""
    found: list[tuple[str, str]] = [("Catalog", str(catalog["fingerprint"]))] if catalog.get("fingerprint") else []
    for group in groups:
        if group.seeds:
            found.append((f"Seeds, {group.name}", ", ".join(group.seeds)))
        same: dict[str, list[str]] = {}
        for name, stream in _streams(group).items():
            if stream.get("fingerprint"):
                same.setdefault(str(stream["fingerprint"]), []).append(name)
        found += [(f"{group.name}, {' and '.join(names)} tiles", value) for value, names in same.items()]
    for item in evaluations:
        split = f", {', '.join(item.result.split)}" if item.result.split else ""
        found.append((f"Evaluation tiles{split}", item.result.catalog_fingerprint))
    return list(dict.fromkeys(found))


def _streams(group: Configuration) -> dict[str, Mapping[str, Any]]:
    streams = group.runs[0].data.get("streams")
    return {name: stream for name, stream in streams.items() if isinstance(stream, Mapping)} if isinstance(streams, Mapping) else {}


def _class_tables(catalog: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    tables = catalog.get("classes") or {}
    try:
        return {
            str(scheme): [
                {
                    "name": str(row["name"]),
                    "colour": _colour(row["colour"]),
                    "share": numbers.finite(row.get("share")),
                    "tiles": row.get("tiles"),
                }
                for row in rows
            ]
            for scheme, rows in tables.items()
        }
    except (TypeError, KeyError, AttributeError, ValueError):
        raise DataError(
            "catalog summary: 'classes' must map a scheme to a list of {name, colour, share}; make it with: tilth catalog show"
        ) from None


def _colour(value: Any) -> Rgb:
    red, green, blue = (min(max(int(part), 0), 255) for part in value)
    return red, green, blue


def _fact(key: str, value: Any) -> Any:
    """Write one fact: counts by name as ``name`` where there is one name, else ``name (count)``."""
    if key == "area_km2":
        return numbers.quantity(value, "km²")
    if key == "dates" and isinstance(value, Sequence):
        return " to ".join(dict.fromkeys(map(str, value)))
    if isinstance(value, Mapping):
        items = list(value.items())[:_MOST_SIZES] if key == "sizes" else list(value.items())
        more = f", {len(value) - len(items)} other" if len(value) > len(items) else ""
        if len(items) == 1:
            return "unknown" if items[0][0] == "none" and key in {"sources", "licences"} else str(items[0][0])
        return ", ".join(f"{name} ({numbers.whole(count)})" for name, count in items) + more
    return value


def _sensor_facts(sensor: Any) -> list[tuple[str, Any]]:
    """Describe a sensor that the summary gives in full; one that it only names is listed like any other fact."""
    if not isinstance(sensor, Mapping):
        return []
    parsed = Sensor.parse(sensor, source="sensor of the catalog summary")
    sizes = sorted({band.gsd_m for band in parsed.bands if band.gsd_m is not None})
    ground = " to ".join(numbers.length(size) for size in dict.fromkeys((*sizes[:1], *sizes[-1:])))
    facts = [("Bands", ", ".join(parsed.band_names)), ("Ground sampling distance", ground), ("Unit", parsed.unit)]
    return [(label, value) for label, value in facts if value]
