"""How the parts of a data set belong together: images with labels, sensors and dates of one place, changes, scenes, pools."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tilth.catalog.inspect import names
from tilth.catalog.inspect.groups import Group
from tilth.catalog.inspect.listing import Listing
from tilth.catalog.inspect.roles import Part
from tilth.imagery.raster import RasterInfo

SetKind = Literal[
    "image/label pairs",
    "several rasters of one place",
    "time series",
    "change pairs",
    "oriented boxes",
    "scenes",
    "web-map tiles",
    "unlabelled pool",
    "tables",
    "labels only",
    "nothing tilth reads",
]

_DOTA_LINE = re.compile(r"^(-?[\d.]+\s+){8}\S+(\s+\d)?\s*$")
_SCENE_SIDE = 600
_MOST_SCENES = 200


@dataclass(frozen=True)
class Tie:
    """How labels belong to images.

    Attributes:
        how: by equal ``stem``, by a ``key`` (the stem without words such as mask), by ``place`` (one label for several dates), or by
            ``grid`` (the same pixels on the ground).
        images: images that have a label.
        labels: labels that have an image.
        pattern: what ``label_name`` must be; None where no pattern leads from image to label.
    """

    how: Literal["stem", "key", "place", "grid"]
    images: int
    labels: int
    pattern: str | None


@dataclass(frozen=True)
class Splits:
    """Which files belong to which split.

    Attributes:
        source: listed in ``files``, or told by ``folders``.
        stems: by split.
        twice: stems that two splits have.
    """

    source: Literal["files", "folders"]
    stems: dict[str, frozenset[str]]
    twice: tuple[str, ...]


def tie(images: Group, labels: Group) -> Tie | None:
    """Tell how the labels of one group belong to the images of another; None where they do not."""
    left, right = images.by_stem, labels.by_stem
    same = left.keys() & right.keys()
    if _enough(len(same), images, labels) and (images.name != labels.name or images.file_kind != labels.file_kind):
        return Tie("stem", len(same), len(same), "{stem}")
    keys = {names.stem_key(stem): stem for stem in right}
    by_key = {stem: keys[key] for stem in left if (key := names.stem_key(stem)) in keys}
    if _enough(len(by_key), images, labels):
        patterns = {names.common_affix(image.rpartition("/")[2], label.rpartition("/")[2]) for image, label in by_key.items()}
        return Tie("key", len(by_key), len(set(by_key.values())), patterns.pop() if len(patterns) == 1 else None)
    by_place = {stem: names.place_in(stem) for stem in left if names.place_in(stem) in right}
    if _enough(len(set(by_place.values())), images, labels):
        return Tie("place", len(by_place), len(set(by_place.values())), None)
    return _tie_by_grid(images, labels)


def _enough(matched: int, images: Group, labels: Group) -> bool:
    return matched >= max(1, 0.3 * min(len(images.members), len(labels.members)))


def _tie_by_grid(images: Group, labels: Group) -> Tie | None:
    if max(len(images.infos), len(labels.infos)) > _MOST_SCENES or len(labels.infos) > len(images.infos):
        return None
    pairs = [(image, label) for image in images.infos for label in labels.infos if _one_grid(image, label)]
    if not pairs:
        return None
    patterns = {names.common_affix(Path(image.uri).stem, Path(label.uri).stem) for image, label in pairs}
    pattern = patterns.pop() if len(patterns) == 1 else None
    return Tie("grid", len({image.uri for image, _ in pairs}), len({label.uri for _, label in pairs}), pattern)


def _one_grid(first: RasterInfo, second: RasterInfo) -> bool:
    if first.transform is None or second.transform is None or (first.width, first.height) != (second.width, second.height):
        return False
    step = abs(first.transform[0]) or 1.0
    return first.crs == second.crs and all(abs(one - two) < 0.01 * step for one, two in zip(first.transform, second.transform, strict=True))


def read_splits(listing: Listing, groups: Sequence[Group]) -> Splits | None:
    """Splits from ``splits/*.txt`` or from folders called train, val and test."""
    place = listing.folders.get("splits")
    files = [file for file in place.of("text") if file.suffix.lower() == ".txt"] if place else []
    listed: dict[str, frozenset[str]] = {}
    source: Literal["files", "folders"] = "files"
    for file in files:
        lines = (line.strip() for line in file.read_text(encoding="utf-8", errors="replace").splitlines())
        listed[file.stem] = frozenset(line for line in lines if line and not line.startswith("#"))
    if not listed:
        source = "folders"
        for split in sorted({member.split for group in groups for member in group.members if member.split}):
            listed[split] = frozenset(member.stem for group in groups for member in group.members if member.split == split)
    if not listed:
        return None
    seen: dict[str, str] = {}
    twice = sorted({stem for name, stems in listed.items() for stem in stems if seen.setdefault(stem, name) != name})
    return Splits(source, listed, tuple(twice))


def share_stems(first: Group, second: Group) -> bool:
    """Say whether two groups of images show the same places: most stems of the smaller one are stems of the other."""
    common = len(first.by_stem.keys() & second.by_stem.keys())
    return first.name != second.name and common >= max(1, 0.5 * min(len(first.members), len(second.members)))


def show_one_place(first: Group, second: Group) -> bool:
    """Say whether two groups show the same places in different ways: by common stems, and not only because both count from 0."""
    if not share_stems(first, second):
        return False
    alike = (first.count, first.dtype, first.band_names) == (second.count, second.dtype, second.band_names)
    told = (first.words | second.words) & (names.IMAGE_WORDS | names.ELEVATION_WORDS)
    return not alike or bool(told) or _one_grid(first.infos[0], second.infos[0])


def change_pair(images: Sequence[Part]) -> tuple[Part, Part] | None:
    """Images before and after, told by the names of their folders and by common stems."""
    by_name = {part.group.name.rpartition("/")[2].lower(): part for part in images}
    for before, after in names.CHANGE_PAIRS:
        if before in by_name and after in by_name and share_stems(by_name[before].group, by_name[after].group):
            return by_name[before], by_name[after]
    return None


def box_files(listing: Listing) -> list[Path]:
    """Text files of oriented boxes: eight coordinates and a class in a line."""
    found = []
    for folder in listing.folders.values():
        texts = [file for file in folder.of("text") if file.suffix.lower() == ".txt"]
        if texts and any(_holds_boxes(file) for file in texts[:3]):
            found += texts
    return found


def _holds_boxes(file: Path) -> bool:
    with file.open(encoding="utf-8", errors="replace") as lines:
        return any(_DOTA_LINE.match(line) for _, line in zip(range(6), lines, strict=False))


def dates_of(groups: Iterable[Group]) -> list[str]:
    """Dates in the names of most files of a group, sorted; empty where few names hold one."""
    found: set[str] = set()
    for group in groups:
        dates = [date for member in group.members if (date := names.date_in(member.path.stem))]
        if 2 * len(dates) >= len(group.members):
            found.update(dates)
    return sorted(found)


def is_series(part: Part, ties: Sequence[Tie]) -> bool:
    """Say whether a group shows places at several dates each: by months in the names, or one label for several images."""
    if any(item.how == "place" and item.images > item.labels for item in ties):
        return True
    group = part.group
    stems = [member.stem.rpartition("/")[2] for member in group.members]
    places = [names.place_in(stem) for stem in stems]
    if len(stems) < 3 or max(Counter(places).values()) < 3 or not all(names.date_in(stem) for stem in stems):
        return False
    # Names that are only dates and indices need not mean one place; where the ground is known, it decides.
    first = group.infos[0]
    return all(info.transform is None or _one_grid(first, info) for info in group.infos if names.place_in(Path(info.uri).stem) == places[0])


def looks_like_scenes(part: Part) -> bool:
    """Say whether rasters are scenes to be cut up and mapped rather than patches: few, large, and with a place on the Earth."""
    group = part.group
    longest = sorted(max(size) for size in group.sizes.elements())
    located = sum(info.crs is not None for info in group.infos) * 2 >= len(group.infos)
    return (
        located and len(group.members) <= _MOST_SCENES and longest[len(longest) // 2] >= (250 if len(group.members) <= 4 else _SCENE_SIDE)
    )


def are_map_tiles(group: Group) -> bool:
    """Say whether files are named ``x-y-z``, as tiles of web maps are."""
    addresses = [names.tile_address(member.path.stem) for member in group.members]
    return len(addresses) >= 4 and 10 * sum(address is not None for address in addresses) >= 9 * len(addresses)
