"""The list of verbs, and what a verb is: one options class plus one function.

The list is plain text, so that asking for help imports a verb's own module and nothing heavy. A verb's module keeps torch,
rasterio and their like inside its functions. Adding a verb is a module here and a line in :data:`GROUPS`.
"""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from tilth.config import Config
from tilth.verbs.console import Console

OptionsT = TypeVar("OptionsT", bound=Config)

RESERVED = frozenset({"config", "debug", "help", "console"})
"""Names an options class cannot use: the command line or the Python call has them already."""

GROUPS: dict[str, dict[str, str]] = {
    "Data": {
        "landscapes": "tilth.verbs.landscapes:landscapes",
        "datasets list": "tilth.verbs.datasets:datasets_list",
        "datasets info": "tilth.verbs.datasets:datasets_info",
        "datasets prepare": "tilth.verbs.datasets:datasets_prepare",
        "inspect": "tilth.verbs.inspect:inspect",
        "catalog build": "tilth.verbs.catalog:catalog_build",
        "catalog import": "tilth.verbs.catalog_import:catalog_import",
        "catalog export": "tilth.verbs.catalog_export:catalog_export",
        "catalog check": "tilth.verbs.catalog:catalog_check",
        "catalog split": "tilth.verbs.catalog:catalog_split",
        "catalog show": "tilth.verbs.catalog:catalog_show",
        "pack": "tilth.verbs.pack:pack",
        "curate": "tilth.verbs.curate:curate",
    },
    "Training": {
        "pretrain": "tilth.verbs.train:pretrain",
        "finetune": "tilth.verbs.train:finetune",
        "label": "tilth.verbs.label:label",
        "trust": "tilth.verbs.trust:trust",
    },
    "Models": {
        "models list": "tilth.verbs.models:models_list",
        "models info": "tilth.verbs.models:models_info",
        "import-weights": "tilth.verbs.weights:import_weights",
        "export": "tilth.verbs.export:export",
    },
    "Results": {
        "evaluate": "tilth.verbs.evaluate:evaluate",
        "compare": "tilth.verbs.evaluate:compare",
        "features": "tilth.verbs.features:features",
        "predict": "tilth.verbs.predict:predict",
        "polygons": "tilth.verbs.polygons:polygons",
        "sample": "tilth.verbs.assess:sample",
        "assess": "tilth.verbs.assess:assess",
        "report": "tilth.verbs.report:report",
    },
    "Everything in order": {
        "run": "tilth.recipes.run:run",
        "demo": "tilth.recipes.run:demo",
    },
}
"""Heading, then verb name and ``module:function``, in the order of the way through."""


@dataclass(frozen=True)
class Result:
    """What a verb leaves behind.

    Attributes:
        summary: lines for people, without the paths.
        outputs: label and path of each file or folder written, in the order they should be looked at.
        values: named results for programs: counts, scores.
        exit_code: what the command line ends with; 1 when the verb did its work and what it found is bad.
        parts: files that the verb made and its outputs are of no use without, such as the shards that a catalog names.
    """

    summary: tuple[str, ...] = ()
    outputs: Mapping[str, Path] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    exit_code: int = 0
    parts: tuple[Path, ...] = ()


class Verb(Generic[OptionsT]):
    """One thing tilth can do, callable with the fields of its options as keyword arguments.

    Attributes:
        name: words of the command line after ``tilth``; one or two.
        options: the typed options.
        summary: first line of the function's docstring.
    """

    def __init__(self, name: str, options: type[OptionsT], function: Callable[[OptionsT, Console], Result]) -> None:
        clash = RESERVED & set(options.model_fields)
        assert not clash, f"{options.__name__} uses reserved names: {sorted(clash)}"
        assert function.__doc__, f"{function.__name__} needs a docstring: its first line is the verb's summary"
        self.name = name
        self.options = options
        self.function = function
        self.__name__ = function.__name__
        self.__qualname__ = function.__qualname__
        self.__module__ = function.__module__
        self.__doc__ = inspect.cleandoc(function.__doc__)
        self.summary = self.__doc__.partition("\n")[0]

    def __call__(self, *, console: Console | None = None, **values: Any) -> Result:
        """Validate the keyword arguments as options and do the work.

        Args:
            console: where to speak meanwhile; silent by default.
            values: fields of the options class; nested settings as mappings or configuration objects.

        Raises:
            ConfigError: listing every wrong or missing value.
        """
        return self.run(self.options.parse(_as_texts(values), source=f"{self.__name__}()"), console)

    def run(self, options: OptionsT, console: Console | None = None) -> Result:
        """Do the work for options that are validated already."""
        return self.function(options, console or Console())

    @property
    def __signature__(self) -> inspect.Signature:
        """The options as keyword-only parameters, for ``help()`` and editors."""
        parameters = [_parameter(name, info) for name, info in self.options.model_fields.items()]
        console = inspect.Parameter("console", inspect.Parameter.KEYWORD_ONLY, default=None, annotation="Console | None")
        return inspect.Signature([*parameters, console], return_annotation="Result")


def verb(name: str, options: type[OptionsT]) -> Callable[[Callable[[OptionsT, Console], Result]], Verb[OptionsT]]:
    """Make a function of (options, console) a verb.

    Args:
        name: one or two words, as typed after ``tilth``.
        options: the options class the function takes.
    """

    def make(function: Callable[[OptionsT, Console], Result]) -> Verb[OptionsT]:
        return Verb(name, options, function)

    return make


def targets() -> dict[str, str]:
    """Return ``module:function`` by verb name, in order."""
    return {name: target for group in GROUPS.values() for name, target in group.items()}


def load(name: str) -> Verb[Any]:
    """Import the verb of this name; its own module, nothing heavy."""
    module, _, attribute = targets()[name].partition(":")
    found = getattr(importlib.import_module(module), attribute)
    assert isinstance(found, Verb), f"{module}:{attribute} is not a verb"
    assert found.name == name, f"{module}:{attribute} calls itself {found.name!r}, the registry {name!r}"
    return found


def _as_texts(value: Any) -> Any:
    """Paths as text, wherever they are: options that may be a path or something else (a sensor's name, a pattern) take text."""
    if isinstance(value, Mapping):
        return {key: _as_texts(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_texts(item) for item in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _parameter(name: str, info: Any) -> inspect.Parameter:
    """One option as a keyword-only parameter."""
    default = inspect.Parameter.empty if info.is_required() else info.get_default(call_default_factory=True)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=info.annotation)
