"""What is to be watched out for in places, sizes and files; each finder gives (key, weight, one line)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tilth.catalog.inspect import names
from tilth.catalog.inspect.ground import ground_pixel_m, nominal_pixel
from tilth.catalog.inspect.inspection import DataSet
from tilth.catalog.inspect.roles import Part
from tilth.catalog.inspect.sensor_guess import STORED

Found = Iterator[tuple[str, int, str]]

_SMALL_SIDE = 64
_FEW_BANDS = 16
_MOST_GROUND = 50


def places(data: DataSet) -> Found:
    """Rasters without a place on the Earth, with several, or with misleading metres."""
    if not data.images:
        return
    systems = Counter(info.crs for info in data.infos)
    known = [system for system in systems if system is not None]
    pictures = all(info.uri.lower().endswith((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".npy")) for info in data.infos)
    if not known and data.kind not in {"web-map tiles"}:
        what = "pictures" if pictures else "rasters"
        yield (
            "no CRS",
            24 if pictures else 44,
            f"Maps will have no place and splits cannot keep neighbours together: these {what} have no CRS",
        )
    elif known and None in systems:
        yield "some without CRS", 44, f"{systems[None]} of {len(data.infos)} images have no CRS: their maps will have no place"
    if len(known) > 1:
        listed = ", ".join(f"{str(system)[:24]} ({systems[system]})" for system in known[:5])
        yield "mixed CRS", 22, f"Images lie in {len(known)} coordinate systems: {listed}; that is allowed, each keeps its own"
    yield from _ground_sizes(data)


def _ground_sizes(data: DataSet) -> Found:
    """Coordinates in degrees, and metres of a projection that stretches; each told once."""
    told: set[str] = set()
    for info in data.infos[:_MOST_GROUND]:
        true, nominal = ground_pixel_m(info), nominal_pixel(info)
        if true is None or nominal is None:
            continue
        name = Path(info.uri).name
        if info.crs == "EPSG:4326" and "degrees" not in told:
            told.add("degrees")
            yield "degrees", 26, f"Pixels are not square on the ground (such as {name}): the CRS is in degrees; about {true:.3g} m"
        elif info.crs != "EPSG:4326" and abs(nominal / true - 1) > 0.02 and nominal < 10_000 and "metres" not in told:
            told.add("metres")
            yield (
                "stretched metres",
                42,
                f"Metres of the CRS are not metres on the ground: {name} says {nominal:.3g} m, it is {true:.3g} m "
                f"({str(info.crs)[:12]} stretches by {100 * (nominal / true - 1):.0f} %)",
            )


def map_tiles(data: DataSet) -> Found:
    """Tiles of web maps: where they lie is in their names only."""
    if data.kind != "web-map tiles":
        return
    found = {address for member in data.images[data.main].group.members if (address := names.tile_address(member.path.stem))}
    zooms = sorted({zoom for _, _, zoom in found})
    sizes = [names.ground_of_tile_m(zoom, next(row for _, row, level in found if level == zoom)) for zoom in zooms]
    yield (
        "map tiles",
        43,
        (
            "Maps will have no place: where tiles lie is in their names only; by these a pixel is "
            + ", ".join(f"{size:.2g} m at zoom {zoom}" for zoom, size in zip(zooms, sizes, strict=True))
        ),
    )
    inside = [
        (column, row, zoom)
        for column, row, zoom in found
        if any((column >> up, row >> up, zoom - up) in found for up in range(1, zooms[-1] - zooms[0] + 1))
    ]
    if inside:
        yield (
            "nested tiles",
            53,
            f"The same ground comes at several sizes: {len(inside)} tiles lie inside a tile of a smaller zoom; keep them in one split",
        )


def scene_classes(data: DataSet) -> Found:
    """File or folder names that say what a whole picture shows."""
    if data.kind != "unlabelled pool":
        return
    for part in data.images:
        kinds = Counter(member.path.stem.rstrip("0123456789").rstrip("_- ") for member in part.group.members)
        if 3 <= len(kinds) <= 100 and min(kinds.values()) >= 5 and "" not in kinds and all(kind.isalpha() for kind in kinds):
            yield (
                "scene classes",
                17,
                f"Names say what whole pictures show ({', '.join(sorted(kinds)[:4])}, ...): tilth learns from pixels",
            )


def sizes_and_types(data: DataSet) -> Found:
    """Images of many sizes, of types no sensor has, or too small."""
    for part in data.images:
        group = part.group
        if group.dtype not in STORED:
            yield "type", 86, f"{group.title} cannot be used as it is: stored as {group.dtype}; tilth takes {', '.join(STORED)}"
        if group.suffixes.keys() == {".npy"} and group.infos[0].width <= _FEW_BANDS < group.count:
            yield (
                "axis order",
                89,
                f"Arrays of {group.title} seem to be (rows, columns, bands): read as {group.count} bands of {group.infos[0].width} x "
                f"{group.infos[0].height} pixels; save them as (bands, rows, columns)",
            )
        sizes = group.sizes
        if len(sizes) > 1 and data.kind != "scenes":
            widths, heights = [width for width, _ in sizes], [height for _, height in sizes]
            span = f"{min(widths)} x {min(heights)} to {max(widths)} x {max(heights)}"
            yield "mixed sizes", 16, f"Nothing to do about the {len(sizes)} sizes of {group.title} ({span} pixels): training crops them"
        if max(max(size) for size in sizes) < _SMALL_SIDE:
            yield (
                "tiny images",
                46,
                f"{group.title} leaves little room to crop: no image is larger than {max(max(size) for size in sizes)} pixels",
            )
    by_name: dict[str, list[Part]] = {}
    for part in data.images:
        by_name.setdefault(part.group.name, []).append(part)
    for name, mixed in by_name.items():
        if len(mixed) > 1:
            kinds = ", ".join(f"{part.group.count} x {part.group.dtype} ({len(part.group.members)})" for part in mixed)
            where = "the folder" if name == "." else name
            yield "mixed imagery", 64, f"One catalog cannot take all of {where}: several kinds of imagery lie together ({kinds})"


def shared_ground(data: DataSet) -> Found:
    """Images that see common ground: between splits, at two dates, or at all."""
    overlap = data.overlap
    if not overlap.pairs:
        return
    member = {str(item.path): item for part in data.images for item in part.group.members}
    stems = [member[info.uri].stem for info in data.compared]
    where = {stem: split for split, listed in (data.splits.stems.items() if data.splits else ()) for stem in listed}
    across = [
        (one, two, share)
        for one, two, share in overlap.pairs
        if {where.get(stems[one]), where.get(stems[two])} > {where.get(stems[one])}
        and None not in {where.get(stems[one]), where.get(stems[two])}
    ]
    if across:
        one, two, _ = across[0]
        yield (
            "split overlap",
            92,
            f"Test scores would be too good: {len(across)} pairs of images of different splits see common ground "
            f"({stems[one]} in {where[stems[one]]}, {stems[two]} in {where[stems[two]]})",
        )
    dated = [(names.date_in(stems[one]), names.date_in(stems[two]), share) for one, two, share in overlap.pairs]
    changed = [pair for pair in dated if pair[0] and pair[1] and pair[0] != pair[1] and pair[2] > 0.5]
    if data.kind == "time series":
        return
    if changed:
        pairs = "One pair of images shows" if len(changed) == 1 else f"{len(changed)} pairs of images show"
        yield (
            "two dates",
            57,
            f"{pairs} the same ground at two dates ({changed[0][0]}, {changed[0][1]}): what changed between them has no one label; "
            "keep them in one split",
        )
    yield (
        "common ground",
        54,
        f"Images may not be divided at random: {overlap.images} of {overlap.looked} share ground with another one"
        + ("; the given splits do not" if data.splits and not across else "; catalog split keeps them together"),
    )


def files(data: DataSet) -> Found:
    """Damaged files, empty ones, and rubbish."""
    listing = data.listing
    if data.problems:
        first = data.problems[0]
        yield (
            "unreadable",
            84,
            f"{len(data.problems)} file{'s' * (len(data.problems) > 1)} will be left out: {Path(first.file).name}: {first.reason[:120]}",
        )
    if listing.empty:
        yield (
            "empty file",
            66,
            f"{len(listing.empty)} file{'s' * (len(listing.empty) > 1)} of no bytes, such as {listing.empty[0].name}",
        )
    if listing.rubbish:
        yield "hidden files", 5, f"{len(listing.rubbish)} hidden or system files were passed over, such as {listing.rubbish[0].name}"
    if not listing.complete:
        yield "not all listed", 32, "Numbers are too small: the folder holds more files than were listed"
    if data.kind == "time series":
        places = {names.place_in(member.stem) for member in data.images[data.main].group.members}
        yield (
            "series",
            56,
            f"Images of one place must stay in one split: {len(data.images[data.main].group.members)} images show {max(1, len(places))} "
            f"place{'s' * (len(places) > 1)} at several times",
        )
    for (image, _), tie in data.ties.items():
        if tie.images > tie.labels and image == data.main:
            dates = f"{tie.images / max(1, tie.labels):.3g}"
            yield "label of several dates", 50, f"One label stands for {dates} dates of its place: it cannot fit all of them"
            break
