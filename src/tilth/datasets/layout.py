"""Finding the places of a data set in folders: image, mask and split of each, by the patterns of its card."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import translate
from pathlib import Path

from tilth.catalog.config import DEFAULT_SUFFIXES
from tilth.catalog.discover import LABEL_SUFFIXES
from tilth.datasets.config import Card, Layer
from tilth.datasets.joining import check_joined, join_rasters
from tilth.datasets.membership import assign_splits
from tilth.datasets.patterns import compile_pattern, fill, placeholders
from tilth.errors import DataError

Warn = Callable[[str], None]
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")


# Slots, because a set may have a million of them.
@dataclass(frozen=True, slots=True)
class Place:
    """One place of a data set.

    Attributes:
        values: what the placeholders stand for, in the order of the pattern.
        image: absolute path.
        mask: absolute path, or None.
        split: name, or None.
        joined: absolute paths of the rasters whose bands make the image, in order; empty where ``image`` is all.
    """

    values: Mapping[str, str]
    image: str
    mask: str | None
    split: str | None
    joined: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The placeholders' values as a path, unique within the data set."""
        return "/".join(self.values.values())


@dataclass(frozen=True, slots=True)
class Match:
    """A file that fits a pattern.

    Attributes:
        path: absolute path.
        source: position of the folder it was found in.
        root: folders between that folder and the pattern, ending in a slash unless empty.
        pattern: the one it fits.
        values: what the placeholders stand for.
    """

    path: str
    source: int
    root: str
    pattern: str
    values: Mapping[str, str]


@dataclass(frozen=True)
class Survey:
    """What lies in the folders of a data set.

    Attributes:
        places: in order of path.
        root: the folder that holds the first of them: where listing files and class schemes lie.
    """

    places: tuple[Place, ...]
    root: Path


def survey(card: Card, layer: Layer, folders: Sequence[Path], *, partial: bool, warn: Warn, without: Path | None = None) -> Survey:
    """Find every place of a data set and check that nothing is missing.

    Args:
        card: layout, labels and splits.
        layer: which rasters are the images.
        folders: where to look; a file that is in several of them is taken from the last.
        partial: accept missing images and masks, with a warning.
        warn: told what is odd, one line each.
        without: folder that is left out of the search.

    Raises:
        DataError: no image, two copies of one, missing masks, images, split files or splits; one line that says what was expected.
    """
    files = [list(_files(folder, without)) for folder in folders]
    images = _images(card, layer, folders, files)
    first = min(images.values(), key=lambda match: (match.source, match.path))
    root = folders[first.source] / first.root
    splits = assign_splits(card, layer, list(images.values()), root, partial=partial, warn=warn)
    joined = join_rasters(layer, list(images.values()), lambda pattern: _matches(card, [pattern], folders, files, DEFAULT_SUFFIXES))
    whole = check_joined(layer, list(images.values()), joined, partial=partial, warn=warn)
    claimed = {match.path for match in images.values()} | set(_other_layers(card, layer, folders, files))
    claimed.update(path for paths in joined.values() for path in paths)
    masks = _masks(card, folders, files, claimed, images.values())
    places = []
    used, fields = set(), _mask_fields(card)
    for match, split in zip(images.values(), splits, strict=True):
        mask = masks.get(tuple(match.values[name] for name in fields))
        used.add(mask)
        if match.path in whole:
            rasters = tuple(joined.get(match.path, ()))
            places.append(Place(match.values, match.path, None if split in card.splits.unlabelled else mask, split, rasters))
    _check_masks(card, places, _archive_hint(card, files), partial, warn)
    _tell_lost_masks(used, masks.values(), warn)
    return Survey(tuple(sorted(places, key=lambda place: place.image)), root)


def expected(patterns: Iterable[str], values: Mapping[str, str] | None = None) -> str:
    """Write patterns for a message, with the values that are known put in."""
    return " or ".join(fill(pattern, values or {}) for pattern in patterns)


def _files(folder: Path, without: Path | None) -> Iterator[str]:
    """List files below a folder, relative, in order; links are followed, hidden files and one folder are left out."""
    left_out = None if without is None else os.path.realpath(without)
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen or (real == left_out and place != str(folder)):
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        relative = Path(place).relative_to(folder).as_posix()
        lead = "" if relative == "." else f"{relative}/"
        yield from (lead + name for name in sorted(names) if not name.startswith("."))


def _matches(
    card: Card,
    patterns: Sequence[str],
    folders: Sequence[Path],
    files: Sequence[Sequence[str]],
    suffixes: tuple[str, ...],
    leave_out: Sequence[str] = (),
) -> Iterator[Match]:
    """Find the files that fit a pattern; where it leaves the suffix open, only those of the given kinds."""
    splits = tuple(card.splits.folders)
    compiled = [(pattern, compile_pattern(pattern, splits), suffixes if pattern.endswith("*") else ("",)) for pattern in patterns]
    # Names are compared without the folders above.
    others = re.compile("|".join(map(translate, leave_out)), re.IGNORECASE) if leave_out else None
    for source, (folder, names) in enumerate(zip(folders, files, strict=True)):
        for name in names:
            if others is not None and others.fullmatch(name.rpartition("/")[2]):
                continue
            for pattern, expression, endings in compiled:
                found = expression.fullmatch(name)
                if found is not None and name.lower().endswith(endings):
                    values = found.groupdict()
                    yield Match(f"{folder}/{name}", source, values.pop("root_"), pattern, values)
                    break


def _images(card: Card, layer: Layer, folders: Sequence[Path], files: Sequence[Sequence[str]]) -> dict[tuple[str, ...], Match]:
    """Find the images, each once."""
    found: dict[tuple[str, ...], Match] = {}
    roots: dict[tuple[str, int], Match] = {}
    for match in _matches(card, layer.pattern, folders, files, DEFAULT_SUFFIXES, layer.leave_out):
        split = match.values.get("split", "")
        other = found.get(tuple(match.values.values()))
        if other is not None and other.source == match.source:
            raise DataError(f"{match.path}: the same image as {other.path}; keep one copy in the folder, or name the folder of one")
        first = roots.setdefault((split, match.source), match)
        if first.root != match.root:
            raise DataError(f"{match.path}: lies in another folder than {first.path}; give the folder of one data set")
        found[tuple(match.values.values())] = match
    if found:
        return found
    values = {"split": next(iter(card.splits.folders))} if card.splits.folders else {}
    raise DataError(
        f"{folders[0]}: no image of data set {card.name!r} found, expected {expected(layer.pattern, values)}{_archive_hint(card, files)}; "
        f"see tilth datasets info {card.name}"
    )


def _archive_hint(card: Card, files: Sequence[Sequence[str]]) -> str:
    """Name an archive that the card does not know, and that was not unpacked therefore."""
    packed = [name for names in files for name in names if "/" not in name and name.lower().endswith(_ARCHIVES)]
    packed = [name for name in packed if name not in card.archives]
    return f"; {packed[0]} lies there: unpack it first" if packed else ""


def _other_layers(card: Card, layer: Layer, folders: Sequence[Path], files: Sequence[Sequence[str]]) -> Iterator[str]:
    for other in card.layers:
        if other is not layer:
            yield from (match.path for match in _matches(card, other.pattern, folders, files, DEFAULT_SUFFIXES, other.leave_out))


def _mask_fields(card: Card) -> tuple[str, ...]:
    return tuple(sorted(placeholders(card.labels[0].pattern[0]))) if card.labels else ()


def _masks(
    card: Card, folders: Sequence[Path], files: Sequence[Sequence[str]], claimed: set[str], images: Iterable[Match]
) -> dict[tuple[str, ...], str]:
    """Find the mask for each set of placeholder values; of several copies, that in the folder which serves most images."""
    if not card.labels:
        return {}
    fields = _mask_fields(card)
    wanted = Counter(tuple(match.values[name] for name in fields) for match in images)
    by_root: dict[tuple[int, str, str], dict[tuple[str, ...], str]] = {}
    for match in _matches(card, card.labels[0].pattern, folders, files, LABEL_SUFFIXES):
        if match.path in claimed:
            continue
        key = tuple(match.values[name] for name in fields)
        # Folders of published sets hold the same mask twice: those for participants, and all of them.
        group = by_root.setdefault((match.source, match.root, match.pattern), {})
        if key in group:
            raise DataError(f"{match.path}: the same mask as {group[key]}; keep one of them")
        group[key] = match.path
    # Fewest first, so that the folder that serves most has the last word; among equals the shortest path.
    order = sorted(by_root, key=lambda root: (sum(wanted[key] for key in by_root[root]), root[0], -len(root[1]), root))
    return {key: path for root in order for key, path in by_root[root].items()}


def _check_masks(card: Card, places: Sequence[Place], hint: str, partial: bool, warn: Warn) -> None:
    """Refuse places of a labelled split that have no mask."""
    if not card.labels:
        return
    labelled = [place for place in places if place.split not in card.splits.unlabelled]
    by = card.labels[0].by_place
    if by is not None:
        known = {place.values[by] for place in labelled if place.mask is not None}
        # Without a single mask it is they that are missing.
        labelled = [place for place in labelled if not known or place.values[by] in known]
    bare = [place for place in labelled if place.mask is None]
    if bare:
        wanted = expected(card.labels[0].pattern, bare[0].values)
        line = f"{bare[0].image}: {len(bare)} of {len(labelled)} images have no mask, expected {wanted}{hint}"
        if not partial:
            raise DataError(f"{line}; add the masks, or use --partial to keep such images without a label")
        warn(f"{line}; kept without a label")


def _tell_lost_masks(used: set[str | None], masks: Iterable[str], warn: Warn) -> None:
    lost = [mask for mask in masks if mask not in used]
    if lost:
        warn(f"{min(lost)}: {len(lost)} masks belong to no image; left out")
