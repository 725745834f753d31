"""What was found, in plain words: most important first, at most some forty lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tilth.catalog.inspect import names
from tilth.catalog.inspect.advice import uses
from tilth.catalog.inspect.ground import ground_pixel_m
from tilth.catalog.inspect.inspection import DataSet
from tilth.catalog.inspect.labels import Label
from tilth.catalog.inspect.roles import Part
from tilth.catalog.inspect.traps import Trap

MOST_TRAPS = 12
"""Traps shown on the terminal; the JSON file holds all."""

_MOST_PARTS = 8
_MOST_CLASSES = 8


def headline(data: DataSet) -> str:
    """What a data set is, in one line."""
    if not data.images:
        return _without_images(data)
    group = data.images[data.main].group
    count = len(group.members)
    what = _imagery(data, data.main)
    if data.kind == "change pairs" and data.before_after is not None:
        pairs = len(data.before_after[0].group.by_stem.keys() & data.before_after[1].group.by_stem.keys())
        marked = " with labels of what changed" if data.labels else ""
        return f"{pairs} pairs of images before and after{marked}: {what}"
    if data.kind == "oriented boxes":
        return f"{_many(count, 'image')} with boxes drawn around objects ({_many(len(data.boxes), 'text file')}), not pixel labels: {what}"
    if data.kind == "web-map tiles":
        zooms = [address[2] for member in group.members if (address := names.tile_address(member.path.stem))]
        return f"{count} tiles of a web map (zoom {min(zooms)} to {max(zooms)}), without labels: {what}"
    if data.kind == "time series":
        return f"time series: {_places(data)}, {_layers(data)}{_with_labels(data)}"
    if data.kind == "several rasters of one place":
        layers = [part for part in data.parts if part.role in {"image", "elevation"}]
        return f"{count} places seen several ways ({', '.join(part.group.title for part in layers)}){_with_labels(data)}"
    if data.kind == "scenes":
        total = sum(len(part.group.members) for part in data.images)
        kinds = f", of {len(data.images)} kinds" if len(data.images) > 1 else f": {what}"
        return f"{_many(total, 'scene')}{kinds}{_with_labels(data) or ', without labels'}"
    if data.kind == "unlabelled pool":
        total = sum(len(part.group.members) for part in data.images)
        return f"{_many(total, 'image')} without pixel labels, a pool{_in_folders(data)}: {what}"
    tied = max((tie.images for (image, _), tie in data.ties.items() if image == data.main), default=0)
    return f"{_many(tied, 'labelled image')}: {what}{_with_labels(data)}"


def _without_images(data: DataSet) -> str:
    listing = data.listing
    kinds: Counter[str] = Counter()
    for folder in listing.folders.values():
        kinds.update({kind: len(files) for kind, files in folder.others.items()})
    if data.kind == "tables":
        tables = sorted(file.name for folder in listing.folders.values() for file in folder.of("table") if file.suffix.lower() != ".json")
        return f"{_many(len(tables), 'table')} without pixels: {', '.join(tables[:4])}"
    if data.labels or data.targets:
        return "labels without images: nothing to train on"
    if kinds["archive"]:
        return f"{_many(kinds['archive'], 'archive')}: unpack them first"
    if kinds["container"]:
        return f"{_many(kinds['container'], 'file')} of HDF, NetCDF, NumPy or MATLAB kind: write the bands as GeoTIFF first"
    if kinds["vector"]:
        return f"{_many(kinds['vector'], 'vector file')} without imagery"
    if data.problems:
        first = data.problems[0]
        return f"no imagery that can be read: {Path(first.file).name}: {first.reason}"
    return f"no imagery: {_many(listing.files, 'file')}" if listing.files else "empty: no files"


def lines_of(data: DataSet, title: str, traps: Sequence[Trap], next_steps: Sequence[str]) -> list[str]:
    """Everything about one data set, for a terminal."""
    lines = [f"{title}: {headline(data)}"]
    if data.parts:
        lines += ["", "What is there", *(f"  {line}" for line in _there(data))]
    if data.images:
        lines += ["", "Sensor (a proposal: you decide)", *(f"  {line}" for line in _sensors(data))]
    lines += ["", "What it is good for", *(f"  {line}" for line in uses(data))]
    if traps:
        shown = list(traps[:MOST_TRAPS])
        lines += ["", "Watch out", *(f"  - {trap.text}" for trap in shown)]
        if len(traps) > len(shown):
            lines.append(f"  ... and {len(traps) - len(shown)} smaller points; --facts FILE.json lists all")
    return [*lines, "", "Next", *(f"  {line}" for line in next_steps)]


def _there(data: DataSet) -> list[str]:
    width = min(28, max(len(part.group.title) for part in data.parts[:_MOST_PARTS]))
    lines = [f"{_role(part):<9} {part.group.title:<{width}}  {_part(data, part)}" for part in data.parts[:_MOST_PARTS]]
    if len(data.parts) > _MOST_PARTS:
        lines.append(f"... and {len(data.parts) - _MOST_PARTS} more kinds of rasters")
    if data.splits is not None:
        counts = ", ".join(f"{name} {len(stems)}" for name, stems in data.splits.stems.items())
        lines.append(f"splits    {'splits/*.txt' if data.splits.source == 'files' else 'by folder'}: {counts}")
    if data.dates:
        lines.append(f"dates     {data.dates[0]}" + (f" to {data.dates[-1]} ({len(data.dates)})" if len(data.dates) > 1 else ""))
    others = [
        file.name
        for folder in data.listing.folders.values()
        for kind in ("table", "container")
        for file in folder.of(kind)
        if not file.name.startswith("classes.")
    ]
    if others:
        lines.append(f"beside    {', '.join(others[:4])}{f' and {len(others) - 4} more' if len(others) > 4 else ''}: not used")
    return lines


def _role(part: Part) -> str:
    return {"image": "images", "label": "labels", "target": "quantity", "elevation": "elevation", "quality": "flags"}[part.role]


def _part(data: DataSet, part: Part) -> str:
    if part.role == "label":
        return _label(next(label for label in data.labels if label.part is part))
    group = part.group
    bands = [name for name in group.band_names if name]
    named = f" ({', '.join(bands[:5])}{', ...' if len(bands) > 5 else ''})" if bands else ""
    return f"{len(group.members)} {_suffixes(part)}, {_sizes(part)}, {_many(group.count, 'band')} {group.dtype}{named}, {_place(part)}"


def _label(label: Label) -> str:
    part, values = label.part, label.part.values
    assert values is not None
    looked = "" if values.looked >= len(part.group.members) else f" (shares from {values.looked})"
    lead = f"{len(part.group.members)} {_suffixes(part)}{looked}: "
    if label.kind == "percent":
        return f"{lead}percent, {min(values.pixels):g} to {max(values.pixels):g}"
    if label.kind == "blurred":
        return f"{lead}{len(values.pixels)}{'+' if values.too_many else ''} different values"
    ordered = sorted(label.classes, key=lambda item: -item.share)
    shown = ", ".join(f"{item.name or item.shown(label.kind == 'colours')} {_percent(item.share)}" for item in ordered[:_MOST_CLASSES])
    more = f", {len(ordered) - _MOST_CLASSES} more" if len(ordered) > _MOST_CLASSES else ""
    ignored = f"; {_percent(label.ignored)} of the pixels unlabelled" if label.ignored >= 0.0005 else ""
    return f"{lead}{shown}{more}{ignored}"


def _sensors(data: DataSet) -> list[str]:
    lines = []
    for part, proposal in zip(data.images[:4], data.proposals[:4], strict=False):
        if proposal is None:
            lines.append(f"{part.group.title}: none can be proposed for {part.group.count} x {part.group.dtype}")
            continue
        name = "its own sensor.yaml, no built-in one fits" if proposal.written else proposal.name
        lines.append(f"{part.group.title}: {name}; {proposal.scale}")
        lines.append(f"  because {'; '.join(_shortened(reason) for reason in proposal.reasons)}")
        if proposal.alternatives:
            lines.append(f"  or {'; '.join(proposal.alternatives)}")
    if len(data.images) > 4:
        lines.append(f"... and {len(data.images) - 4} more; --facts FILE.json lists all")
    return lines


def _shortened(reason: str) -> str:
    return reason if len(reason) <= 110 else f"{reason[:107]}..."


def _imagery(data: DataSet, place: int) -> str:
    part, proposal = data.images[place], data.proposals[place]
    group = part.group
    kind = "colour pictures" if group.dtype == "uint8" and group.count == 3 else f"{_many(group.count, 'band')} of {group.dtype}"
    unit = "" if proposal is None or not proposal.physical else f" ({proposal.scale})"
    return f"{kind}{unit}, {_sizes(part)}{_ground(part)}"


def _ground(part: Part) -> str:
    size = ground_pixel_m(part.group.infos[0])
    return "" if size is None else f", {size:.3g} m on the ground"


def _place(part: Part) -> str:
    systems = part.group.systems
    known = [str(system)[:16] for system in systems if system is not None]
    if not known:
        return "no CRS"
    return f"{', '.join(known[:3])}{f' and {len(known) - 3} more' if len(known) > 3 else ''}{_ground(part)}"


def _sizes(part: Part) -> str:
    sizes = part.group.sizes
    if len(sizes) == 1:
        width, height = next(iter(sizes))
        return f"{width} x {height} px"
    widths, heights = [width for width, _ in sizes], [height for _, height in sizes]
    return f"{min(widths)} x {min(heights)} to {max(widths)} x {max(heights)} px"


def _suffixes(part: Part) -> str:
    return "/".join(suffix.removeprefix(".") for suffix, _ in part.group.suffixes.most_common(3))


def _layers(data: DataSet) -> str:
    return ", ".join(f"{part.group.title} ({len(part.group.members)})" for part in data.images)


def _places(data: DataSet) -> str:
    group = data.images[data.main].group
    places = {names.place_in(member.stem) for member in group.members}
    dates = f" ({data.dates[0]} to {data.dates[-1]})" if len(data.dates) > 1 else ""
    return f"{_many(len(places), 'place')}, {len(group.members)} images in all{dates}"


def _with_labels(data: DataSet) -> str:
    classes = [label for label in data.labels if label.kind in {"class ids", "codes", "colours"}]
    if len(classes) == 1:
        return f", labels of {_many(len(classes[0].classes), 'class')}"
    if classes:
        return f", {len(classes)} kinds of labels"
    return f", a quantity to estimate ({data.targets[0].group.title})" if data.targets else ""


def _in_folders(data: DataSet) -> str:
    folders = {folder for part in data.images for folder in part.group.folders}
    return f" in {len(folders)} folders" if len(folders) > 1 else ""


def _many(count: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count} {noun if count == 1 else plural}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.0995 else f"{100 * share:.2g} %"
