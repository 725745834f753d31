"""Networks by name in words: which options each takes, read from the function that builds it."""

from __future__ import annotations

import importlib
import inspect
import re
from dataclasses import dataclass
from typing import Any

from tilth.models.named import NAMES

_GIVEN = frozenset({"in_channels", "num_classes", "image_size"})


@dataclass(frozen=True)
class Setting:
    """An option of a network by name.

    Attributes:
        name: as given to :func:`tilth.models.create`.
        default: what it is for this network; None where the network's name says it, or for none.
        description: one line for people.
    """

    name: str
    default: Any
    description: str


def options_of(name: str) -> list[Setting]:
    """List the options of a network, in the order in which its builder takes them.

    Args:
        name: a key of :data:`tilth.models.named.NAMES`.
    """
    module, _, function = NAMES[name].builder.partition(":")
    builder = getattr(importlib.import_module(module), function)
    texts = _descriptions(inspect.getdoc(builder) or "")
    parameters = inspect.signature(builder).parameters
    defaults = {option: parameter.default for option, parameter in parameters.items() if parameter.default is not inspect.Parameter.empty}
    defaults |= NAMES[name].options
    return [Setting(option, defaults.get(option), texts.get(option, "")) for option in parameters if option not in _GIVEN]


def _descriptions(text: str) -> dict[str, str]:
    """Read the ``Args:`` section of a docstring, without its markup."""
    section = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)*)", text, re.MULTILINE)
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section[1] if section else "", re.MULTILINE)
    return {name: _plain(words) for name, words in found}


def _plain(words: str) -> str:
    text = re.sub(r":\w+:`~?([^`]*)`", r"\1", " ".join(words.split())).replace("``", "")
    return text if text.endswith("...") else text.removesuffix(".")
