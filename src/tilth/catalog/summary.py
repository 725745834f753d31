"""What a catalog holds, in numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow.compute as pc

from tilth.catalog.geometry import covered_km2
from tilth.catalog.origin import source_images
from tilth.catalog.rows import count_values, window_array
from tilth.catalog.shares import tile_classes
from tilth.catalog.table import Catalog
from tilth.errors import DataError, MissingFileError


def summarise(catalog: Catalog, *, labels: bool = True, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Count what a catalog holds.

    Args:
        catalog: what to describe.
        labels: read every label once for class shares.
        progress: told (labels read, labels in all).

    Returns:
        JSON-ready: ``tiles``, ``labelled``, ``images`` (distinct files), ``splits`` (per split: tiles, labelled), ``sensors``,
        ``label_kinds``, ``sources`` and ``licences`` (tiles of each; ``null`` where unknown), ``sizes`` (tiles per ``width x height``, most
        frequent first), ``area_km2`` (ground covered, None without footprints), ``dates`` (first and last day, or None), ``classes`` (per
        scheme: per class its name, colour, pixels, share of the labelled pixels, and tiles it occurs in) and ``unreadable_labels``.
    """
    labelled = catalog.labelled()
    with_label = labelled.counts("split")
    windows = window_array(catalog.table)[:, 2:]
    sizes, counts = np.unique(windows, axis=0, return_counts=True) if len(catalog) else (windows, np.zeros(0, dtype=np.int64))
    located = catalog.table["geometry"].null_count < len(catalog)
    days = pc.min_max(catalog.table["datetime"]).as_py()
    classes, unreadable = _class_table(labelled, progress) if labels else ({}, 0)
    return {
        "tiles": len(catalog),
        "labelled": len(labelled),
        "images": len(count_values(source_images(catalog.table))),
        "splits": {_key(name): {"tiles": count, "labelled": with_label.get(name, 0)} for name, count in catalog.counts("split").items()},
        **{
            plural: {_key(name): count for name, count in catalog.counts(column).items()}
            for plural, column in (("sensors", "sensor"), ("label_kinds", "label_kind"), ("sources", "source"), ("licences", "licence"))
        },
        "sizes": {f"{sizes[index][0]} x {sizes[index][1]}": int(counts[index]) for index in np.argsort(-counts, kind="stable")},
        "area_km2": covered_km2(catalog.table["geometry"]) if located else None,
        "dates": [day.date().isoformat() for day in days.values()] if days["min"] is not None else None,
        "classes": classes,
        "unreadable_labels": unreadable,
    }


def format_summary(summary: dict[str, Any], sizes: int = 4) -> str:
    """Write what :func:`summarise` returns as lines of text.

    Args:
        summary: as returned.
        sizes: how many tile sizes are listed.
    """

    def listed(counts: dict[str, int]) -> str:
        return ", ".join(f"{name} ({count})" for name, count in counts.items())

    lines = [f"{summary['tiles']} tiles in {summary['images']} images, {summary['labelled']} labelled"]
    lines += [f"split {name}: {item['tiles']} tiles, {item['labelled']} labelled" for name, item in summary["splits"].items()]
    lines += [f"{what}: {listed(summary[key])}" for what, key in (("sensor", "sensors"), ("label kind", "label_kinds"))]
    lines += [
        f"{what}: {listed(summary[key])}" for what, key in (("source", "sources"), ("licence", "licences")) if set(summary[key]) != {"none"}
    ]
    shown = list(summary["sizes"].items())[:sizes]
    rest = len(summary["sizes"]) - len(shown)
    lines.append(f"size in pixels: {listed(dict(shown))}{f', {rest} other sizes' if rest > 0 else ''}")
    if summary["area_km2"] is not None:
        lines.append(f"ground covered: {summary['area_km2']:.4g} km2")
    if summary["dates"] is not None:
        lines.append(f"dates: {summary['dates'][0]} to {summary['dates'][1]}")
    for scheme, classes in summary["classes"].items():
        lines.append(f"classes of {scheme}:")
        width = max(len(item["name"]) for item in classes)
        lines += [f"  {item['name']:<{width}}  {item['share']:7.2%} of labelled pixels, in {item['tiles']} tiles" for item in classes]
    if summary["unreadable_labels"]:
        lines.append(f"{summary['unreadable_labels']} labels cannot be read; see: tilth catalog check")
    return "\n".join(lines)


def _key(name: object) -> str:
    return "none" if name is None else str(name)


def _class_table(labelled: Catalog, progress: Callable[[int, int], None] | None) -> tuple[dict[str, list[dict[str, Any]]], int]:
    """Count classes per scheme, passing over labels that cannot be read."""
    pixels = {name: np.zeros(len(scheme), dtype=np.int64) for name, scheme in labelled.schemes.items()}
    occurs = {name: np.zeros(len(scheme), dtype=np.int64) for name, scheme in labelled.schemes.items()}
    unreadable = 0
    for done, tile in enumerate(labelled.tiles(), start=1):
        if tile.scheme is not None:
            try:
                counts = tile_classes(tile, labelled.schemes[tile.scheme])
                pixels[tile.scheme] += counts
                occurs[tile.scheme] += counts > 0
            except (DataError, MissingFileError):
                unreadable += 1
        if progress is not None:
            progress(done, len(labelled))
    table = {}
    for name in labelled.counts("scheme"):
        if name is not None:
            total = max(1, int(pixels[name].sum()))
            table[name] = [
                {"name": item.name, "colour": list(item.colour), "pixels": count, "share": count / total, "tiles": tiles}
                for item, count, tiles in zip(labelled.schemes[name].classes, pixels[name].tolist(), occurs[name].tolist(), strict=True)
            ]
    return table, unreadable
