"""Two names for one tensor: a list of patterns that translates both ways."""

from __future__ import annotations

import re
from collections.abc import Iterable


class Renaming:
    """Patterns of our names beside patterns of theirs, in order; the first that matches translates.

    In a pattern ``{i}``, ``{j}`` stand for a number, ``{name}`` (any other word) for one part between dots, and a final ``*`` for whatever
    follows. The same placeholders stand on both sides. Everything else is literal.

    Example:
        >>> names = Renaming([("encoder.blocks.{i}.norm1.*", "encoder.layers.{i}.ln1.*"), ("head.*", "semseghead.1.*")])
        >>> names.to_ours("encoder.layers.11.ln1.weight"), names.to_theirs("head.bias"), names.to_ours("else")
        ('encoder.blocks.11.norm1.weight', 'semseghead.1.bias', None)
    """

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self.pairs = tuple(pairs)
        self._to_ours = [(_expression(theirs), _template(ours)) for ours, theirs in self.pairs]
        self._to_theirs = [(_expression(ours), _template(theirs)) for ours, theirs in self.pairs]

    def to_ours(self, name: str) -> str | None:
        """Translate a published name; None if no pattern knows it."""
        return _translate(name, self._to_ours)

    def to_theirs(self, name: str) -> str | None:
        """Translate one of our names; None if no pattern knows it."""
        return _translate(name, self._to_theirs)


def _expression(pattern: str) -> re.Pattern[str]:
    text = re.escape(pattern)
    text = re.sub(r"\\\{([ij])\\\}", r"(?P<\1>\\d+)", text)
    text = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^.]+)", text)
    return re.compile(re.sub(r"\\\*$", "(?P<rest>.*)", text))


def _template(pattern: str) -> str:
    text = re.sub(r"\{(\w+)\}", r"\\g<\1>", pattern)
    return re.sub(r"\*$", r"\\g<rest>", text)


def _translate(name: str, rules: list[tuple[re.Pattern[str], str]]) -> str | None:
    for expression, template in rules:
        found = expression.fullmatch(name)
        if found:
            return found.expand(template)
    return None
