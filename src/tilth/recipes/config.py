"""What a recipe is: named stages in order, each one verb with its options. Light to import."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import pydantic

from tilth.config import Config
from tilth.errors import ConfigError, suggest

_ALWAYS_THERE = {"out": "the folder given with --out", "command": "the command line that does the recipe"}
_PLACEHOLDER = re.compile(r"\$\{([^}]*)\}")
# A stage's name is the name of a file, its stamp.
_NAME = re.compile(r"[\w.+@= -]+")


class StageConfig(Config):
    """One stage, or one for each combination of some values.

    Attributes:
        name: unique; may hold ``${value}``.
        verb: words of the command line, such as ``catalog build``.
        options: options of the verb; strings may hold ``${value}``, and a string that is only ``${value}`` becomes the value itself.
        each: values to go through, listed or as ``${value}``: the stage is repeated for every combination.
    """

    name: str = pydantic.Field(min_length=1)
    verb: str
    options: dict[str, Any] = pydantic.Field(default_factory=dict)
    each: dict[str, tuple[Any, ...] | str] = pydantic.Field(default_factory=dict)


Choices = dict[str, dict[str, dict[str, Any]]]
"""By the name of a value: for each word that it may be, other values that go with it."""


class RecipeConfig(Config):
    """A YAML recipe.

    Attributes:
        name: what to call it.
        description: what it does, in a sentence or two.
        values: names that options and other values may refer to as ``${name}``; set from outside with ``values.name=...``; null for one
            that has to be given, or chosen, before a stage uses it. ``out`` and ``command`` are always there.
        choices: tables of presets: what one value says sets others, unless they are given from outside. A choice may set the value of
            a later one, whose table then fills in what is still open.
        settled: values that are contradictory if they are given where a choice says null.
        stages: in the order of their work.
    """

    name: str
    description: str
    values: dict[str, Any] = pydantic.Field(default_factory=dict)
    choices: Choices = pydantic.Field(default_factory=dict)
    settled: tuple[str, ...] = ()
    stages: tuple[StageConfig, ...] = pydantic.Field(min_length=1)

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        for name, meaning in _ALWAYS_THERE.items():
            if name in self.values or any(name in stage.each for stage in self.stages):
                raise ValueError(f"{name!r} cannot be a value of a recipe; it is {meaning}")
        unknown = next((name for name in self.settled if name not in self.values), None)
        if unknown is not None:
            raise ValueError(f"settled: {unknown!r} is no value of the recipe; {suggest(unknown, self.values)}")
        before: list[str] = []
        for chosen, table in self.choices.items():
            sets = {name for row in table.values() for name in row}
            strange = sorted({chosen, *sets} - self.values.keys())
            if strange:
                raise ValueError(f"choices.{chosen}: {strange[0]!r} is no value of the recipe; {suggest(strange[0], self.values)}")
            before.append(chosen)
            early = next((name for name in before if name in sets), None)
            if early is not None:
                raise ValueError(f"choices.{chosen} sets {early!r} too late; put choices.{early} behind it, or leave it out")
        return self


def expand(recipe: RecipeConfig, out: Path, values: Mapping[str, Any], command: str = "") -> list[StageConfig]:
    """Fill in values and repeat stages.

    Args:
        recipe: what to expand.
        out: folder of the recipe's outputs.
        values: replaces the recipe's own values.
        command: the command line that does this, for reports.

    Returns:
        Stages without placeholders.

    Raises:
        ConfigError: a value the recipe does not have, one that contradicts a choice, a placeholder without value, a value without content,
            values that refer to each other in a circle, nothing to repeat a stage for, or two stages of one name.
    """
    unknown = [name for name in values if name not in recipe.values]
    if unknown:
        raise ConfigError(f"recipe {recipe.name!r} has no value {unknown[0]!r}; {suggest(unknown[0], recipe.values)}")
    set_anew = _choose(recipe, values)
    given = {**recipe.values, **set_anew, "out": str(out), "command": command}
    wanted = _used(recipe.stages, given)
    empty = [name for name in recipe.values if given[name] is None and name not in set_anew and name in wanted]
    if empty:
        raise ConfigError(f"recipe {recipe.name!r} needs a value for {', '.join(map(repr, empty))}; give values.{empty[0]}=...")
    known = _resolve(given, wanted)
    stages = [done for stage in recipe.stages for done in _repeat(stage, known)]
    names = [stage.name for stage in stages]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ConfigError(f"recipe {recipe.name!r}: two stages are called {twice[0]!r}; put a value of 'each' into the name")
    wrong = [name for name in names if not _NAME.fullmatch(name)]
    if wrong:
        raise ConfigError(f"recipe {recipe.name!r}: stage name {wrong[0]!r}: use letters, digits and . _ - + @ = only")
    return stages


def _choose(recipe: RecipeConfig, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values given from outside, and those that the choices add to them."""
    found = dict(values)
    for name, table in recipe.choices.items():
        # The command line reads 4 as a number; tables have words.
        word = str(found.get(name, recipe.values[name]))
        if word not in table:
            raise ConfigError(f"values.{name}={word}: recipe {recipe.name!r} does not know it; {suggest(word, table)}")
        for other in recipe.settled:
            if other in table[word] and table[word][other] is None and values.get(other) is not None:
                raise ConfigError(
                    f"values.{name}={word} means without {other}, and values.{other}={values[other]} gives some; leave values.{other} out, "
                    f"or choose another {name}"
                )
        found = {**table[word], **found}
    return found


def _used(stages: Iterable[StageConfig], given: Mapping[str, Any]) -> set[str]:
    """Names that the stages refer to, and those that these refer to in turn."""
    found: set[str] = set()
    fresh = {name for stage in stages for name in _names_in(stage.model_dump())}
    while fresh:
        found |= fresh
        fresh = {name for known in fresh for name in _names_in(given.get(known))} - found
    return found


def _names_in(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _names_in(key)
            yield from _names_in(value)
    elif isinstance(node, list | tuple):
        for item in node:
            yield from _names_in(item)
    elif isinstance(node, str):
        yield from _PLACEHOLDER.findall(node)


def _resolve(given: Mapping[str, Any], wanted: Collection[str]) -> dict[str, Any]:
    """Fill in those of the wanted values that refer to other values."""
    known = dict(given)
    # A chain is at most as long as there are values; what is still open then goes in a circle, as is what does not change any more.
    for _ in range(len(known) + 1):
        filled = {name: _fill(value, known, f"values.{name}") if name in wanted else value for name, value in known.items()}
        if filled == known:
            break
        known = filled
    circle = next((name for name, value in known.items() if name in wanted and any(_names_in(value))), None)
    if circle is not None:
        raise ConfigError(f"values.{circle} refers to itself; break the circle of ${{...}}")
    return known


def _repeat(stage: StageConfig, known: Mapping[str, Any]) -> Iterator[StageConfig]:
    place = f"stage {stage.name!r}"
    lists = [_fill(values, known, place) for values in stage.each.values()]
    for name, values in zip(stage.each, lists, strict=True):
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{place}: each.{name} must be a list with at least one value, such as [0, 1], got {values!r}")
    for combination in itertools.product(*lists):
        here = {**known, **dict(zip(stage.each, combination, strict=True))}
        yield StageConfig(name=str(_fill(stage.name, here, place)), verb=stage.verb, options=_fill(stage.options, here, place))


def _fill(node: Any, known: Mapping[str, Any], place: str) -> Any:
    """Replace placeholders in nested values; inside a list, a value that is itself a list is spliced in."""
    if isinstance(node, Mapping):
        return {str(_fill(key, known, place)): _fill(value, known, place) for key, value in node.items()}
    if isinstance(node, list | tuple):
        items: list[Any] = []
        for item in node:
            filled = _fill(item, known, place)
            items += filled if isinstance(filled, list) and isinstance(item, str) else [filled]
        return items
    if not isinstance(node, str):
        return node
    whole = _PLACEHOLDER.fullmatch(node)
    for name in _PLACEHOLDER.findall(node):
        if name not in known:
            raise ConfigError(f"{place}: no value {name!r} for {node!r}; {suggest(name, known)}")
        if not whole and known[name] is None:
            raise ConfigError(f"{place}: {name!r} in {node!r} is null, nothing; give values.{name}=...")
        if not whole and isinstance(known[name], list | tuple | Mapping):
            raise ConfigError(f"{place}: {name!r} in {node!r} is {known[name]!r}, not one value; go through it with 'each'")
    if whole:
        return known[whole.group(1)]
    return _PLACEHOLDER.sub(lambda match: str(known[match.group(1)]), node)
