"""What labels hold: which values, how often, whether they are class ids, and what the classes are called."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from tilth.catalog.inspect import names
from tilth.catalog.inspect.roles import Part
from tilth.classes import IGNORE_INDEX, ClassScheme, Colour
from tilth.errors import TilthError

Kind = Literal["class ids", "codes", "colours", "percent", "quantity", "blurred"]

_PERCENT = re.compile(r"pct|percent|occurrence|probab|fraction|share|density|cover(age)?_?frac")
_NO_LABEL = re.compile(r"^(no[ _-]?data|ignored?|unlabell?ed|unknown|void|none|invalid|missing|background_ignore)$", re.IGNORECASE)
_CLASS_FILES = ("classes.json", "classes.yaml", "classes.yml", "class_names.json", "labels.json", "legend.json")


@dataclass(frozen=True)
class Names:
    """What a file says about classes.

    Attributes:
        file: the file.
        readable: whether ``catalog build`` takes it as it is.
        by_value: name by value; one mapping for each label it names, with the key ``""`` for all.
        colours: 8-bit colour by value.
        ignored: values that mean "no label".
    """

    file: Path
    readable: bool
    by_value: dict[str, dict[int, str]]
    colours: dict[int, Colour] = field(default_factory=dict)
    ignored: frozenset[int] = frozenset()


@dataclass(frozen=True)
class LabelClass:
    """One value of a label.

    Attributes:
        value: as stored; ``0xRRGGBB`` for colours.
        name: from a class file, or None.
        share: of the labelled pixels that were looked at.
        files: labels it occurs in, of those that were looked at.
    """

    value: float
    name: str | None
    share: float
    files: int

    def shown(self, colours: bool) -> str:
        """The value as people write it."""
        return f"#{int(self.value):06X}" if colours else f"{self.value:g}"


@dataclass(frozen=True, eq=False)
class Label:
    """What was found about the labels of one group.

    Attributes:
        part: the labels.
        kind: ``class ids`` are taken as they are; ``codes`` and ``colours`` must be turned into ids; ``percent`` and ``quantity`` are
            no classes; ``blurred`` were stored as JPEG.
        classes: values that occur, ignored ones left out.
        ignored: share of pixels without label: 255, or what the file or the class file calls no data.
        no_label: values that mean "no label".
        outside: values that the class file does not list.
        absent: values that the class file lists and no label shows.
        names: the class file that speaks of this label, or None.
        noisy: the name says that it was made by a machine, or is not reliable.
    """

    part: Part
    kind: Kind
    classes: tuple[LabelClass, ...]
    ignored: float
    no_label: frozenset[float]
    outside: tuple[float, ...]
    absent: tuple[int, ...]
    names: Names | None
    noisy: bool

    @property
    def by_value(self) -> dict[int, str]:
        """Names by value from the class file; empty where it has none."""
        if self.names is None:
            return {}
        return names_for(self.names, self.part)

    @property
    def usable(self) -> bool:
        """Whether ``catalog build`` takes the labels as they are."""
        return self.kind == "class ids" and self.part.group.count == 1 and not self.outside


def read_names(folders: Iterable[Path]) -> Names | None:
    """Read the first class file in some folders, in any of the forms that are common."""
    for folder in folders:
        for name in _CLASS_FILES:
            file = folder / name
            if file.is_file():
                return _read_names(file)
    return None


def names_for(found: Names, part: Part) -> dict[int, str]:
    """Names by value for one label: those listed under its name, or those for all."""
    keys = {part.group.name.rpartition("/")[2], *(member.path.stem for member in part.group.members[:3])}
    return next((listed for key, listed in found.by_value.items() if key in keys), found.by_value.get("", {}))


def describe_label(part: Part, found: Names | None) -> Label:
    """Tell what the values of a label are."""
    values = part.values
    assert values is not None
    listed = names_for(found, part) if found else {}
    no_label: set[float] = {value for value, name in listed.items() if _NO_LABEL.match(name.strip())}
    no_label |= set(found.ignored) if found else set()
    kind = _kind(part, listed)
    if kind == "class ids":
        no_label.add(IGNORE_INDEX)
    elif kind == "codes" and len(values.pixels) > 2:
        no_label |= {IGNORE_INDEX} - set(listed)
    seen = sorted(value for value in values.pixels if value not in no_label)
    labelled = sum(values.pixels[value] for value in seen)
    nothing = sum(values.pixels[value] for value in values.pixels if value in no_label)
    share = values.no_data + (1 - values.no_data) * nothing / max(1, values.total)
    classes = tuple(
        LabelClass(value, listed.get(int(value)), values.pixels[value] / max(1, labelled), values.files[value]) for value in seen
    )
    countable = bool(listed) and kind in {"class ids", "codes"}
    return Label(
        part=part,
        kind=kind,
        classes=classes,
        ignored=share,
        no_label=frozenset(no_label),
        outside=tuple(value for value in seen if value not in listed) if countable else (),
        absent=tuple(value for value in sorted(listed) if value not in values.pixels and value not in no_label) if countable else (),
        names=found if listed else None,
        noisy=bool(part.group.words & names.NOISY_WORDS or any("weak" in name or "noisy" in name for name in part.group.band_names)),
    )


def _kind(part: Part, listed: Mapping[int, str]) -> Kind:
    values = part.values
    assert values is not None
    described = " ".join([*part.group.words, part.group.band_names[0].lower()])
    if part.role == "target":
        return "quantity"
    if part.lossy:
        return "blurred"
    if values.colours:
        return "colours"
    seen = sorted(value for value in values.pixels if value != IGNORE_INDEX)
    many = len(seen) > 12 and seen[-1] <= 130
    if not listed and many and (_PERCENT.search(described) or len(seen) > 40):
        return "percent"
    if not seen:
        return "class ids"
    known = set(listed) - {IGNORE_INDEX}
    if known:
        return "class ids" if known <= set(range(len(known))) and seen[-1] < IGNORE_INDEX else "codes"
    # A mask of 0 and 255 shows a picture of one class; for tilth 255 is "no label".
    if set(values.pixels) <= {0, IGNORE_INDEX} and IGNORE_INDEX in values.pixels:
        return "codes"
    dense = seen[0] >= 0 and seen[-1] <= 1.5 * len(seen) + 2 and seen[-1] < IGNORE_INDEX
    return "class ids" if dense and (seen[0] == 0 or len(seen) < 3) else "codes"


def _read_names(file: Path) -> Names | None:
    try:
        tree: Any = (json.loads if file.suffix == ".json" else yaml.safe_load)(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    try:
        scheme = ClassScheme.load(file)
        return Names(file, True, {"": dict(enumerate(scheme.names))}, dict(enumerate(scheme.colours)))
    except TilthError:
        pass
    ignored = _whole_numbers(tree.get("ignore", tree.get("ignore_index"))) if isinstance(tree, dict) else frozenset()
    by_value = _mappings(tree)
    colours = _listed_colours(tree)
    return Names(file, False, by_value, colours, ignored) if by_value else None


def _mappings(tree: Any) -> dict[str, dict[int, str]]:
    """Find names by value in ``{value: name}``, ``{name: value}``, ``[names]``, ``{label: {value: name}}`` and listings of classes."""
    if isinstance(tree, list):
        tree = {"classes": tree}
    if not isinstance(tree, dict):
        return {}
    if isinstance(tree.get("classes"), list):
        entries = tree["classes"]
        if all(isinstance(entry, str) for entry in entries):
            return {"": dict(enumerate(entries))}
        rows = [entry for entry in entries if isinstance(entry, dict) and "name" in entry]
        keys = next((key for key in ("index", "id", "value", "code") if all(key in row for row in rows)), None)
        if rows and all(_whole_numbers(row[keys]) if keys else True for row in rows):
            return {"": {int(row[keys]) if keys else place: str(row["name"]) for place, row in enumerate(rows)}}
        return {}
    flat = _one_mapping(tree)
    if flat:
        return {"": flat}
    nested = {str(key): _one_mapping(value) for key, value in tree.items() if isinstance(value, dict)}
    return {key: value for key, value in nested.items() if value}


def _one_mapping(tree: Mapping[Any, Any]) -> dict[int, str]:
    if tree and all(_whole_numbers(key) and isinstance(value, str) for key, value in tree.items()):
        return {int(key): value for key, value in tree.items()}
    if tree and all(isinstance(key, str) and _whole_numbers(value) for key, value in tree.items()):
        return {int(value): key for key, value in tree.items()}
    return {}


def _whole_numbers(value: Any) -> frozenset[int]:
    """The whole number, or numbers, that a value is; empty for anything else."""
    items = value if isinstance(value, list) else [value]
    texts = [str(item) for item in items if not isinstance(item, bool)]
    return frozenset(int(text) for text in texts) if texts and all(re.fullmatch(r"-?\d+", text) for text in texts) else frozenset()


def _listed_colours(tree: Any) -> dict[int, Colour]:
    entries = tree.get("classes") if isinstance(tree, dict) else tree
    found: dict[int, Colour] = {}
    for place, entry in enumerate(entries if isinstance(entries, list) else []):
        colour = next((entry[key] for key in ("colour", "color", "rgb") if key in entry), None) if isinstance(entry, dict) else None
        if isinstance(colour, list) and len(colour) == 3 and all(isinstance(part, int) and 0 <= part <= 255 for part in colour):
            found[place] = (colour[0], colour[1], colour[2])
    return found
