"""Typed, closed, immutable configuration: YAML, ``key.sub=value`` and keyword arguments are one and the same thing.

The object that is configured owns its configuration class; this module only holds what all of them share: the base class, reading
with overrides, and error messages that name every wrong key with the nearest right one.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self, get_args, get_origin

import pydantic
import yaml

from tilth.errors import ConfigError, MissingFileError, suggest

_EXPONENTIAL = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


class Config(pydantic.BaseModel):
    """Base of every configuration: frozen, unknown keys forbidden, defaults validated."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False, coerce_numbers_to_str=True)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _words_that_look_like_numbers(cls, values: Any) -> Any:
        """Let ``precision: 32`` mean the choice ``"32"``: YAML reads it as a number, and a quoted one would be a trap."""
        if not isinstance(values, Mapping):
            return values
        choices = {name: get_args(info.annotation) for name, info in cls.model_fields.items() if get_origin(info.annotation) is Literal}

        def read(name: str, value: Any) -> Any:
            # bool is an int to Python; "yes" and "no" must not become "True" and "False".
            return str(value) if type(value) in (int, float) and str(value) in choices.get(name, ()) else value

        return {name: read(name, value) for name, value in values.items()}

    @classmethod
    def parse(
        cls,
        values: Mapping[str, Any] | None = None,
        overrides: Iterable[str] = (),
        source: str = "configuration",
        names: Mapping[str, str] | None = None,
    ) -> Self:
        """Validate a mapping, after applying ``key.sub=value`` overrides to it.

        Args:
            values: nested mapping, as read from YAML.
            overrides: strings ``key.sub=value``; the value is read as YAML.
            source: what to call the mapping in messages, usually the file name.
            names: what to call a key in messages where that differs: ``window_size`` may have been typed ``--window-size``.

        Returns:
            The validated configuration.

        Raises:
            ConfigError: listing every problem with its path, and the nearest right name for an unknown key.
        """
        tree = apply_overrides(values or {}, overrides)
        try:
            return cls.model_validate(tree)
        except pydantic.ValidationError as error:
            raise ConfigError(describe(cls, error, source, names)) from None

    @classmethod
    def read(cls, path: str | Path, overrides: Iterable[str] = ()) -> Self:
        """Read a YAML file and validate it; see :meth:`parse`."""
        return cls.parse(read_yaml(path), overrides, source=str(path))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file that holds one mapping.

    Raises:
        MissingFileError: the file does not exist.
        ConfigError: the file is not YAML or not a mapping.
    """
    file = Path(path)
    if not file.is_file():
        raise MissingFileError(f"{file}: no such file; give the path of a YAML file")
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not YAML: {' '.join(str(error).split())}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{file}: expected a mapping of keys to values, found {type(tree).__name__}")
    return tree


def apply_overrides(values: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Set ``key.sub=value`` strings in a copy of a nested mapping; values are read as YAML.

    Example:
        >>> apply_overrides({"train": {"steps": 10}}, ["train.steps=20", "name=x"])
        {'train': {'steps': 20}, 'name': 'x'}
    """
    tree = copy.deepcopy(dict(values))
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not path.strip():
            raise ConfigError(f"{override!r}: expected key.sub=value, for example train.steps=500")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(f"{override!r}: the value is not YAML; quote it, for example name='a: b'") from None
        *parents, last = path.strip().split(".")
        node = tree
        for parent in parents:
            child = node.setdefault(parent, {})
            if child is None:
                child = node[parent] = {}
            if not isinstance(child, dict):
                raise ConfigError(f"{override!r}: {parent!r} is a value, not a group of keys")
            node = child
        node[last] = value
    return tree


def merge_under(given: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """Put usual values beside those that were given, which win, at any depth.

    Example:
        >>> merge_under({"loop": {"steps": 5}}, {"loop": {"steps": 9, "seed": 1}, "size": 2})
        {'loop': {'steps': 5, 'seed': 1}, 'size': 2}
    """
    merged = {**usual, **given}
    for name, below in usual.items():
        value = merged[name]
        if isinstance(value, pydantic.BaseModel):
            value = value.model_dump(exclude_unset=True)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            merged[name] = merge_under(value, below)
    return merged


def read_numbers(value: Any) -> Any:
    """Turn words that are numbers into numbers, at any depth: ``1e-6`` is a word to YAML, which wants ``1.0e-6``.

    For mappings without types of their own; elsewhere a type decides.

    Example:
        >>> read_numbers({"epsilon": "1e-6", "taps": ["2", "x1e3"]})
        {'epsilon': 1e-06, 'taps': ['2', 'x1e3']}
    """
    if isinstance(value, Mapping):
        return {key: read_numbers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [read_numbers(item) for item in value]
    return float(value) if isinstance(value, str) and _EXPONENTIAL.fullmatch(value) else value


def describe(model: type[pydantic.BaseModel], error: pydantic.ValidationError, source: str, names: Mapping[str, str] | None = None) -> str:
    """Turn a validation error into one line that names every problem by its path; ``names`` as in :meth:`Config.parse`."""
    problems = []
    found = error.errors()
    # What is wrong inside a list is missing from it: that the list is too short is no news then.
    above = {item["loc"][:depth] for item in found for depth in range(len(item["loc"]))}
    for item in found:
        if item["type"] == "too_short" and item["loc"] in above:
            continue
        path = ".".join(str(part) for part in item["loc"])
        shown = (names or {}).get(str(item["loc"][0]) if item["loc"] else "")
        if item["type"] == "extra_forbidden":
            problems.append(f"unknown key {path!r}: {suggest(str(item['loc'][-1]), _fields_at(model, item['loc'][:-1]))}")
        elif item["type"] == "missing":
            problems.append(f"missing {shown}" if shown and len(item["loc"]) == 1 else f"missing key {path!r}")
        else:
            message = item["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
            if item["type"] == "too_short":
                message = f"expected at least {item['ctx']['min_length']}"
            # A check of a whole group of keys says itself what arrived; the group would fill the line.
            arrived = "" if isinstance(item["input"], Mapping | pydantic.BaseModel) else f", got {item['input']!r}"
            lead = f"{shown or path}: " if path else ""
            problems.append(f"{lead}{message}{arrived}"[:400])
    return f"{source}: " + "; ".join(problems)


def _fields_at(model: type[pydantic.BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Names that are right at a path inside a model; follows optional and container types."""
    current: Any = model
    for part in path:
        if isinstance(part, str) and isinstance(current, type) and issubclass(current, pydantic.BaseModel):
            field = current.model_fields.get(part)
            current = _first_model(field.annotation) if field else None
    if isinstance(current, type) and issubclass(current, pydantic.BaseModel):
        return list(current.model_fields)
    return []


def _first_model(annotation: Any) -> Any:
    """Return the first model class inside an annotation such as ``tuple[Stage, ...] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return annotation
    for argument in get_args(annotation):
        found = _first_model(argument)
        if found is not None:
            return found
    return None
