"""Which split an image of a data set belongs to: by folder, by listing file, or by the published list of stems."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from tilth.catalog.config import DEFAULT_SUFFIXES
from tilth.datasets.config import Card, Layer
from tilth.datasets.division import Splits
from tilth.datasets.patterns import compile_pattern, fill
from tilth.errors import DataError, UnreadableFileError

Warn = Callable[[str], None]


class Found(Protocol):
    """An image, as far as its split is concerned."""

    @property
    def path(self) -> str:
        """Absolute path."""
        ...

    @property
    def values(self) -> Mapping[str, str]:
        """What the placeholders of the pattern stand for."""
        ...


def assign_splits(card: Card, layer: Layer, images: Sequence[Found], root: Path, *, partial: bool, warn: Warn) -> list[str | None]:
    """Find the split of each image, and check that each split is there as it was published.

    Args:
        card: how splits are told.
        layer: the images' patterns, for messages.
        images: all images.
        root: folder that listing files are relative to.
        partial: accept missing images, splits and listing files, with a warning.
        warn: told what is odd, one line each.

    Raises:
        DataError: a split without image, a listing file or listed image that is missing, or a stem listed twice.
    """
    rules = card.splits
    splits: list[str | None]
    if rules.folders:
        splits = [rules.folders[image.values["split"]] for image in images]
        for folder, split in rules.folders.items():
            if split not in splits and not rules.may_lack(split):
                wanted = " or ".join(fill(pattern, {"split": folder}) for pattern in layer.pattern)
                _missing(f"{root}: no image of split {split!r}, expected {wanted}", partial, warn)
    else:
        listed = _read_listings(rules, root, partial, warn) if rules.files else _listed(rules)
        splits = [rules.rest] * len(images) if listed is None else _by_list(rules, layer, images, listed, root, partial, warn)
    for split, count in rules.counts.items():
        here = splits.count(split)
        if here and here != count:
            warn(f"{root}: split {split!r} has {here:,} images here, {count:,} as published")
    return splits


def _listed(rules: Splits) -> dict[str, str] | None:
    return {stem: split for split, stems in rules.stems.items() for stem in stems} or None


def _read_listings(rules: Splits, root: Path, partial: bool, warn: Warn) -> dict[str, str] | None:
    """Read the listing files: split by stem; None where there are none and none are needed."""
    assert rules.files is not None
    expression = compile_pattern(rules.files)
    folder = root / rules.files.partition("{split}")[0].rpartition("/")[0]
    names = sorted(file.relative_to(root).as_posix() for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else []
    matches = [(name, match["split"]) for name in names if (match := expression.fullmatch(name)) is not None and not match["root_"]]
    wanted = rules.listings or {split: split for _, split in matches}
    found = [(name, wanted[split]) for name, split in matches if split in wanted]
    if not found:
        if not rules.optional:
            example = fill(rules.files, {"split": next(iter(wanted), "train")})
            _missing(f"{root}: no split file, expected {rules.files}, such as {example}", partial, warn)
        return None
    splits: dict[str, str] = {}
    for name, split in found:
        try:
            lines = (root / name).read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise UnreadableFileError(f"{root / name}: no text; expected one stem a line") from None
        for stem in map(_stem, lines):
            if stem and not stem.startswith("#") and splits.setdefault(stem, split) != split:
                raise DataError(f"{root / name}: {stem!r} is also in split {splits[stem]!r}; a place belongs to one split")
    # Images of a list that is not there would be taken for a pool.
    for name, split in rules.listings.items():
        if split not in splits.values():
            _missing(f"{root / fill(rules.files, {'split': name})}: no image listed for split {split!r}", partial, warn)
    return splits


def _stem(line: str) -> str:
    """Read a line of a listing file: a stem, or the name or path of an image."""
    line = line.strip()
    base, dot, suffix = line.rpartition(".")
    return (base if f"{dot}{suffix}".lower() in DEFAULT_SUFFIXES else line).rpartition("/")[2]


def _by_list(
    rules: Splits, layer: Layer, images: Sequence[Found], listed: Mapping[str, str], root: Path, partial: bool, warn: Warn
) -> list[str | None]:
    """Look every image up in a list, and every line of the list among the images."""
    stems = [image.values[rules.by] for image in images]
    here = set(stems)
    gone = [stem for stem in listed if stem not in here]
    if gone:
        wanted = " or ".join(fill(pattern, {rules.by: gone[0]}) for pattern in layer.pattern)
        _missing(
            f"{root}: {len(gone)} of {len(listed)} listed images are missing, first {gone[0]!r}, expected {wanted}",
            partial or not rules.complete,
            warn,
        )
    strange = [image for image, stem in zip(images, stems, strict=True) if stem not in listed]
    if strange and rules.rest is None:
        warn(f"{strange[0].path}: {len(strange)} images are in no list of splits; kept without a split")
    return [listed.get(stem, rules.rest) for stem in stems]


def _missing(line: str, partial: bool, warn: Warn) -> None:
    if not partial:
        raise DataError(f"{line}; complete the folder, or use --partial to go on with what is there")
    warn(line)
