"""What was found, as values for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tilth.catalog.inspect.advice import uses
from tilth.catalog.inspect.ground import ground_pixel_m
from tilth.catalog.inspect.inspection import DataSet
from tilth.catalog.inspect.labels import Label
from tilth.catalog.inspect.listing import Listing
from tilth.catalog.inspect.roles import Part
from tilth.catalog.inspect.traps import Trap
from tilth.catalog.inspect.wording import headline


def values_of(data: DataSet, traps: Sequence[Trap]) -> dict[str, Any]:
    """One data set as JSON-ready values.

    Returns:
        ``kind``, ``headline``, ``files``, ``imagery`` (one entry a group: name, files, sizes, bands, sensor ...), ``labels``, ``other``
        (elevation, flags, quantities), ``splits``, ``dates``, ``uses``, ``traps`` (key and text, most important first), ``unreadable``.
    """
    return {
        "folder": str(data.root),
        "kind": data.kind,
        "headline": headline(data),
        "files": _files(data.listing),
        "imagery": [{**_group(part), "sensor": _sensor(data, place), **_pixels(part)} for place, part in enumerate(data.images)],
        "labels": [_label(data, place, label) for place, label in enumerate(data.labels)],
        "other": [{**_group(part), "role": part.role} for part in data.parts if part.role not in {"image", "label"}],
        "splits": {name: sorted(stems) for name, stems in data.splits.stems.items()} if data.splits else None,
        "dates": list(data.dates),
        "boxes": len(data.boxes),
        "uses": uses(data),
        "traps": [{"key": trap.key, "text": trap.text} for trap in traps],
        "unreadable": [{"file": problem.file, "reason": problem.reason} for problem in data.problems],
    }


def _files(listing: Listing) -> dict[str, Any]:
    return {
        "count": listing.files,
        "suffixes": dict(listing.suffixes.most_common()),
        "empty": [str(file) for file in listing.empty],
        "hidden": len(listing.rubbish),
        "all_listed": listing.complete,
    }


def _group(part: Part) -> dict[str, Any]:
    group = part.group
    pixel = ground_pixel_m(group.infos[0])
    return {
        "name": group.title,
        "folders": list(group.folders),
        "files": len(group.members),
        "headers_read": len(group.infos),
        "suffixes": dict(group.suffixes),
        "bands": group.count,
        "band_names": list(group.band_names),
        "dtype": group.dtype,
        "sizes": {f"{width} x {height}": count for (width, height), count in group.sizes.most_common(50)},
        "pixels": round(sum(info.width * info.height for info in group.infos) * len(group.members) / len(group.infos)),
        "crs": {str(system): count for system, count in group.systems.most_common(20)},
        "ground_pixel_m": pixel,
        "nodata": sorted({info.nodata for info in group.infos if info.nodata is not None}),
    }


def _pixels(part: Part) -> dict[str, Any]:
    sample = part.sample
    assert sample is not None
    keys = ("minimum", "p02", "p50", "p98", "maximum")
    rows = [sample.extreme(key) if key in {"minimum", "maximum"} else sample.pooled(key) for key in keys]
    return {
        "images_measured": len(sample.statistics),
        "measured": {key: [float(value) for value in row] for key, row in zip(keys, rows, strict=True)},
    }


def _sensor(data: DataSet, place: int) -> dict[str, Any] | None:
    proposal = data.proposals[place]
    if proposal is None:
        return None
    return {
        "name": proposal.name,
        "built_in": not proposal.written,
        "scale": proposal.scale,
        "physical": proposal.physical,
        "reasons": list(proposal.reasons),
        "alternatives": list(proposal.alternatives),
    }


def _label(data: DataSet, place: int, label: Label) -> dict[str, Any]:
    values = label.part.values
    assert values is not None
    return {
        **_group(label.part),
        "kind": label.kind,
        "noisy": label.noisy,
        "usable_as_it_is": label.usable,
        "classes": [
            {"value": item.shown(label.kind == "colours"), "name": item.name, "share": item.share, "files": item.files}
            for item in label.classes[:300]
        ],
        "ignored_share": label.ignored,
        "outside": list(label.outside),
        "labels_read": values.looked,
        "of_imagery": {data.images[image].group.title: tie.how for (image, column), tie in data.ties.items() if column == place},
    }
