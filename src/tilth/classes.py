"""ClassScheme: what the numbers in a label raster mean."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Self

import pydantic

from tilth.config import Config, read_yaml
from tilth.errors import ConfigError, MissingFileError, suggest

IGNORE_INDEX = 255
"""Label value of pixels without a label: no loss, no metric, no selection ever counts them."""

_FOLDER = "class_schemes"
_SUFFIXES = (".yaml", ".yml", ".json")
_IGNORE = "ignore"

Colour = tuple[
    Annotated[int, pydantic.Field(ge=0, le=255)],
    Annotated[int, pydantic.Field(ge=0, le=255)],
    Annotated[int, pydantic.Field(ge=0, le=255)],
]


class LandClass(Config):
    """One class of a scheme.

    Attributes:
        name: as shown to people and written into maps.
        colour: 8-bit red, green, blue.
    """

    name: str = pydantic.Field(min_length=1)
    colour: Colour


class ClassScheme(Config):
    """An ordered list of classes; a class's id is its position, 0 to K-1, and 255 means "ignore".

    Attributes:
        name: short identifier of the scheme.
        classes: the K classes in id order, 1 <= K <= 255.
        mappings: for each other scheme by name, from a class of that scheme to one of this (or 255, ``ignore``, for "no counterpart").
            Classes of the other scheme are ids or names, those of this one are written as ids or names and kept as ids.

    Example:
        >>> land, water = LandClass(name="land", colour=(9, 9, 9)), LandClass(name="water", colour=(0, 0, 255))
        >>> scheme = ClassScheme(name="wet", classes=(land, water))
        >>> len(scheme), scheme.names, scheme.index("water")
        (2, ('land', 'water'), 1)
    """

    name: str = pydantic.Field(min_length=1)
    classes: tuple[LandClass, ...] = pydantic.Field(min_length=1, max_length=IGNORE_INDEX)
    mappings: dict[str, dict[int | str, int]] = pydantic.Field(default_factory=dict)

    @pydantic.field_validator("mappings", mode="before")
    @classmethod
    def _targets_by_name(cls, mappings: Any, info: pydantic.ValidationInfo) -> Any:
        """Turn the names of this scheme's classes into ids; ids that JSON wrote as text into numbers."""
        names = [item.name for item in info.data.get("classes", ())]

        def target(name: Any) -> Any:
            if not isinstance(name, str) or _is_id(name):
                return name
            if name not in names and name.lower() == _IGNORE:
                return IGNORE_INDEX
            if name not in names:
                raise ValueError(f"no class {name!r} to map to; {suggest(name, names)}")
            return names.index(name)

        if not isinstance(mappings, dict) or not all(isinstance(mapping, dict) for mapping in mappings.values()):
            return mappings
        return {
            other: {int(key) if isinstance(key, str) and _is_id(key) else key: target(value) for key, value in mapping.items()}
            for other, mapping in mappings.items()
        }

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        duplicates = sorted({name for name in self.names if self.names.count(name) > 1})
        if duplicates:
            raise ValueError(f"class names must differ; twice: {', '.join(duplicates)}")
        for other, mapping in self.mappings.items():
            wrong = sorted(target for target in mapping.values() if target != IGNORE_INDEX and not 0 <= target < len(self))
            if wrong:
                raise ValueError(f"mapping from {other!r} leads to ids outside the scheme: {wrong}")
        return self

    def __len__(self) -> int:
        """Return the number of classes K."""
        return len(self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        """The class names in id order."""
        return tuple(item.name for item in self.classes)

    @property
    def colours(self) -> tuple[Colour, ...]:
        """The 8-bit RGB colours in id order."""
        return tuple(item.colour for item in self.classes)

    def index(self, name: str) -> int:
        """Return the id of a class by name.

        Raises:
            ConfigError: there is no such class; the message lists those there are.
        """
        if name not in self.names:
            raise ConfigError(f"scheme {self.name!r} has no class {name!r}; {suggest(name, self.names)}")
        return self.names.index(name)

    def mapping_from(self, other: ClassScheme) -> dict[int, int]:
        """Say which class of this scheme each class of another stands for, after ``mappings``.

        Args:
            other: the scheme that labels follow.

        Returns:
            For every id of ``other`` an id of this scheme, or 255 for "no counterpart"; 255 stays 255.

        Raises:
            ConfigError: no mapping from that scheme, a class that it does not have, or classes without an entry; all are named.
        """
        if other.name not in self.mappings:
            known = f"; it has mappings from {', '.join(sorted(self.mappings))}" if self.mappings else ""
            raise ConfigError(
                f"scheme {self.name!r} does not say what classes of {other.name!r} mean{known}; "
                f"add to it: mappings: {{{other.name}: {{{other.names[0]}: CLASS or ignore, ...}}}}"
            )
        found: dict[int, int] = {}
        for key, target in self.mappings[other.name].items():
            place = other.index(key) if isinstance(key, str) else key
            if not 0 <= place < len(other) and place != IGNORE_INDEX:
                raise ConfigError(f"scheme {self.name!r} maps class {place} of {other.name!r}, which has classes 0 to {len(other) - 1}")
            if found.setdefault(place, target) != target:
                raise ConfigError(f"scheme {self.name!r} maps class {key!r} of {other.name!r} twice")
        missing = [name for place, name in enumerate(other.names) if place not in found]
        if missing:
            raise ConfigError(
                f"scheme {self.name!r} maps {len(other) - len(missing)} of {len(other)} classes of {other.name!r}; "
                f"no entry for {', '.join(missing)}; add them to its mappings, as ignore where there is no counterpart"
            )
        return {IGNORE_INDEX: IGNORE_INDEX, **found}

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a scheme from YAML or JSON.

        Two layouts are understood: this class's own (``name``, ``classes: [{name, colour}]``) and the common listing
        ``{"classes": [{"index", "name", "colour"}], "ignore_index": 255}``, in any order but without gaps. A file without
        ``name`` is named after its folder.

        Raises:
            MissingFileError: no such file.
            ConfigError: not YAML or JSON, gaps in the indices, or an ignore index other than 255.
        """
        file = Path(path)
        if not file.is_file():
            raise MissingFileError(f"{file}: no such class scheme file; give a YAML or JSON file with 'classes'")
        if file.suffix == ".json":
            try:
                tree: Any = json.loads(file.read_text(encoding="utf-8-sig"))
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                raise ConfigError(f"{file}: not JSON: {error}") from None
        else:
            tree = read_yaml(file)
        if not isinstance(tree, dict) or not isinstance(tree.get("classes"), list):
            raise ConfigError(f"{file}: expected a mapping with a list 'classes', each with name and colour")
        if tree.pop("ignore_index", IGNORE_INDEX) != IGNORE_INDEX:
            raise ConfigError(f"{file}: ignore_index must be {IGNORE_INDEX}; write unlabelled pixels as {IGNORE_INDEX}")
        classes = _in_index_order(tree["classes"], file)
        return cls.parse({"name": file.resolve().parent.name} | tree | {"classes": classes}, source=str(file))


def get_scheme(name: str | Path) -> ClassScheme:
    """Look up a class scheme: a built-in name, or the path of a YAML or JSON file.

    Raises:
        ConfigError: unknown name, or a file that does not validate; the message lists the built-in ones.
        MissingFileError: no such file.

    Example:
        >>> get_scheme("dw").mapping_from(get_scheme("worldcover"))[1], get_scheme("dw").names[5]
        (5, 'shrub and scrub')
    """
    text = str(name)
    if text in scheme_names():
        return _built_in(text)[0]
    if Path(text).suffix not in _SUFFIXES and not Path(text).is_file():
        raise ConfigError(f"unknown class scheme {text!r}; {suggest(text, scheme_names())}; or give the path of a YAML or JSON file")
    return ClassScheme.load(text)


def scheme_names() -> tuple[str, ...]:
    """Names of the built-in class schemes."""
    return tuple(sorted(item.name.removesuffix(".yaml") for item in (resources.files("tilth") / _FOLDER).iterdir()))


def stored_values(name: str) -> dict[int, int]:
    """Say what the numbers in a published product stand for.

    Args:
        name: of a built-in scheme.

    Returns:
        Class id, or 255 for "no label", by stored value; empty where the product holds class ids, and for any other name.

    Example:
        >>> stored_values("worldcover")[80], stored_values("worldcover")[0]
        (7, 255)
    """
    return dict(_built_in(name)[1]) if name in scheme_names() else {}


def class_groups(name: str) -> dict[str, tuple[str, ...]]:
    """Say which classes of a built-in scheme are reported together under a name, as ``paper12`` of ``minifrance``.

    Args:
        name: of a scheme; one that is not built in has no groups.

    Returns:
        Names of classes, in id order, by the name of the group.
    """
    return dict(_built_in(name)[2]) if name in scheme_names() else {}


@cache
def _built_in(name: str) -> tuple[ClassScheme, dict[int, int], dict[str, tuple[str, ...]]]:
    """Read a scheme that comes with tilth, what its product stores for each class, and its groups of classes."""
    with resources.as_file(resources.files("tilth") / _FOLDER / f"{name}.yaml") as file:
        tree = read_yaml(file)
    stored, groups = tree.pop("stored", {}), tree.pop("groups", {})
    scheme = ClassScheme.parse(tree, source=f"class scheme {name!r}")
    members = {group: tuple(sorted(names, key=scheme.index)) for group, names in groups.items()}
    return scheme, {value: IGNORE_INDEX if target == _IGNORE else scheme.index(target) for value, target in stored.items()}, members


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _in_index_order(entries: list[Any], file: Path) -> list[Any]:
    """Order ``{index, name, colour}`` entries by index and drop the index; leave entries without one as they are."""
    indexed = [entry for entry in entries if isinstance(entry, dict) and "index" in entry]
    if not indexed:
        return entries
    found = [entry["index"] for entry in indexed]
    if len(indexed) != len(entries) or sorted(map(str, found)) != sorted(map(str, range(len(entries)))):
        raise ConfigError(f"{file}: class indices must be 0 to {len(entries) - 1} without gaps, found {found}")
    ordered = sorted(indexed, key=lambda entry: int(entry["index"]))
    return [{key: value for key, value in entry.items() if key != "index"} for entry in ordered]
