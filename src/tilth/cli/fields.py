"""From an options class to what can be typed: arguments, options and ``key.sub=value`` settings."""

from __future__ import annotations

import enum
import inspect
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo

from tilth.config import Config

Role = Literal["argument", "option", "setting"]
_SEQUENCES = (tuple, list, set, frozenset, Sequence)
_WORDS = {int: "INTEGER", float: "NUMBER", Path: "PATH", bool: "yes|no"}


@dataclass(frozen=True)
class Field:
    """One thing that can be typed.

    Attributes:
        key: name in the options class; dotted for settings.
        role: how it is typed.
        shown: as typed: ``SOURCE``, ``--window-size``, ``optimiser.rate``.
        metavar: what kind of value it takes.
        description: one line for the help.
        default: for the help; None where there is nothing worth showing.
        required: whether it must be given.
        flag: whether it takes no value, and has a ``--no-`` twin.
        length: number of values of one occurrence, greater than 1 for a tuple of fixed length.
        repeated: whether it may be given several times.
        numeric: whether all values are numbers, so that several may be written with commas.
        optional: whether the word ``null`` stands for "none", as it does in YAML.
        readable: whether the text is read as YAML reads it; otherwise it is passed on as it is, unless it is a mapping in braces where one
            may be given.
    """

    key: str
    role: Role
    shown: str
    metavar: str
    description: str
    default: str | None
    required: bool
    flag: bool
    length: int
    repeated: bool
    numeric: bool
    optional: bool
    readable: bool

    def from_texts(self, texts: Sequence[str]) -> Any:
        """Turn the typed texts into the value that the options class validates."""
        if self.repeated and self.numeric:
            texts = [part for text in texts for part in text.split(",") if part]
        values = [self._read(text) for text in texts]
        return values if self.repeated or self.length > 1 else values[-1]

    def _read(self, text: str) -> Any:
        braces = "MAPPING" in self.metavar.split("|") and text.lstrip().startswith("{")
        if not (self.readable or braces or (self.optional and text == "null")):
            return text
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError:
            # Whoever validates says what was expected, and shows what was typed.
            return text


def fields_of(options: type[Config]) -> list[Field]:
    """List everything that can be typed for an options class: arguments, options, then settings, each in the order of definition."""
    found: list[Field] = []
    for name, info in options.model_fields.items():
        default = None if info.is_required() else info.get_default(call_default_factory=True)
        if _is_setting(info.annotation):
            found.extend(_settings(name, info, default, _notes(options).get(name, ""), ()))
        else:
            found.append(_field(name, info, default, _notes(options).get(name, "")))
    roles: tuple[Role, ...] = ("argument", "option", "setting")
    return sorted(found, key=lambda field: roles.index(field.role))


def _field(name: str, info: FieldInfo, default: Any, note: str) -> Field:
    extra = info.json_schema_extra
    positional = isinstance(extra, Mapping) and bool(extra.get("positional"))
    role: Role = "argument" if positional else "option"
    # What Python keeps for itself has an underscore behind it there: as_ is --as.
    return _make(name, role, name.upper() if positional else f"--{name.removesuffix('_').replace('_', '-')}", info, default, note)


def _make(key: str, role: Role, shown: str, info: FieldInfo, default: Any, note: str) -> Field:
    items, length, repeated = _items(info.annotation)
    kinds = _members(items)
    metavar = _metavar(kinds)
    return Field(
        key=key,
        role=role,
        shown=shown,
        metavar=" ".join([metavar] * length) if length > 1 else metavar,
        description=_plain(info.description or note),
        default=show(default),
        required=info.is_required(),
        flag=kinds == [bool] and not repeated and role == "option",
        length=length,
        repeated=repeated,
        numeric=bool(kinds) and all(kind in (int, float) for kind in kinds),
        optional=type(None) in get_args(items),
        # A value that may be a number or a word is read as YAML reads it, so that 5 is a number and 5% is a word.
        readable=len(kinds) > 1 and any(kind in (int, float, bool) for kind in kinds),
    )


def _plain(text: str) -> str:
    """Make one line of a description: no markup, no final dot, and "none" as it is typed."""
    return re.sub(r"\bNone\b", "null", " ".join(text.replace("``", "").split())).removesuffix(".")


def _settings(path: str, info: FieldInfo, default: Any, note: str, above: tuple[type, ...]) -> Iterator[Field]:
    """List the settings below a field; ``above`` holds the classes on the way down, so that a recursive one ends."""
    models = [kind for kind in _members(info.annotation) if _is_config(kind) and kind not in above]
    if not models:
        yield _make(path, "setting", path, info, default, note)
        return
    seen: set[str] = set()
    for model in models:
        filled = default if isinstance(default, model) else None
        for name, below in model.model_fields.items():
            if name in seen:
                continue
            seen.add(name)
            value = (
                getattr(filled, name)
                if filled is not None
                else None
                if below.is_required()
                else below.get_default(call_default_factory=True)
            )
            yield from _settings(f"{path}.{name}", below, value, _notes(model).get(name, ""), (*above, model))


def show(value: Any) -> str | None:
    """Write a default for people; None where there is nothing worth showing."""
    if value is None or value == () or value == [] or value == {} or value == "" or isinstance(value, Config):
        return None
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, enum.Enum):
        return str(value.value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={item}" for name, item in value.items())
    if isinstance(value, (tuple, list)):
        return None if any(isinstance(item, Config) for item in value) else ", ".join(str(item) for item in value)
    return str(value)


def _is_config(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Config)


def _is_setting(annotation: Any) -> bool:
    """Whether a field can only be reached by ``key=value``: it holds configurations or a mapping, and no plain value will do."""
    kinds = _members(_items(annotation)[0])
    return bool(kinds) and all(_is_config(kind) or get_origin(kind) in (dict, Mapping) or kind is dict for kind in kinds)


def _members(annotation: Any) -> list[Any]:
    """Flatten unions and annotations; None is left out."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _members(get_args(annotation)[0])
    if origin is Union or origin is types.UnionType:
        return [kind for argument in get_args(annotation) for kind in _members(argument)]
    return [] if annotation is type(None) else [annotation]


def _items(annotation: Any) -> tuple[Any, int, bool]:
    """Look into a sequence: what its items are, how many there must be (1 if that is open), and whether it is open."""
    for kind in _members(annotation):
        arguments = get_args(kind)
        if get_origin(kind) not in _SEQUENCES or not arguments:
            continue
        if get_origin(kind) is tuple and arguments[-1] is not ...:
            return arguments[0], len(arguments), False
        return arguments[0], 1, True
    return annotation, 1, False


def _metavar(kinds: list[Any]) -> str:
    words: list[str] = []
    for kind in kinds:
        if get_origin(kind) is Literal:
            words.extend(str(choice) for choice in get_args(kind))
        elif isinstance(kind, type) and issubclass(kind, enum.Enum):
            words.extend(str(choice.value) for choice in kind)
        elif get_origin(kind) is dict or kind is dict:
            words.append("MAPPING")
        else:
            words.append("LIST" if _is_config(kind) else _WORDS.get(kind, "TEXT"))
    return "|".join(dict.fromkeys(words))


def _notes(model: type[Config]) -> dict[str, str]:
    """Read the ``Attributes:`` section of the class docstrings, for fields that carry no description of their own."""
    notes: dict[str, str] = {}
    for owner in reversed(model.__mro__):
        section = re.search(r"^Attributes:\n((?:[ ]+.*\n?|\n)*)", inspect.cleandoc(owner.__doc__ or ""), re.MULTILINE)
        notes |= dict(re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section.group(1) if section else "", re.MULTILINE))
    return notes
