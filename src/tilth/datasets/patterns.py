"""Path patterns with named placeholders: ``{split}/{area}/images_png/{stem}.png``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any

import pydantic


def one_or_more(value: Any) -> Any:
    """Let a text stand for a list of one."""
    return (value,) if isinstance(value, str) else value


Patterns = Annotated[tuple[str, ...], pydantic.BeforeValidator(one_or_more), pydantic.Field(min_length=1)]

_PART = re.compile(r"\{([A-Za-z_]\w*)\}|(\*)")
LOOSE_FOLDERS = 3
"""Folders that may lie above a pattern: archives wrap their contents in folders of their own, and are unpacked into one each."""


@lru_cache(maxsize=256)
def placeholders(pattern: str) -> frozenset[str]:
    """Return the names between braces.

    Raises:
        ValueError: braces without a name, or a path that leaves the folder.

    Example:
        >>> sorted(placeholders("{split}/{stem}.*"))
        ['split', 'stem']
    """
    rest = _PART.sub("", pattern)
    if "{" in rest or "}" in rest:
        raise ValueError(f"pattern {pattern!r}: braces hold one name each, such as {{stem}}")
    if not pattern or pattern.startswith("/") or "\\" in pattern or {"", ".", ".."} & set(pattern.split("/")):
        raise ValueError(f"pattern {pattern!r}: expected a path below the data set's folder, with forward slashes")
    return frozenset(match[1] for match in _PART.finditer(pattern) if match[1])


@lru_cache(maxsize=256)
def compile_pattern(pattern: str, splits: tuple[str, ...] = ()) -> re.Pattern[str]:
    """Return the regular expression of a pattern; a placeholder stands for any text without slash, the same text everywhere.

    Capitals in the suffix do not count.

    The group ``root_`` holds the folders above, with a slash at the end, or nothing.

    Args:
        pattern: with placeholders.
        splits: what ``{split}`` may stand for; by default anything.
    """
    placeholders(pattern)
    seen: set[str] = set()
    known = "|".join(map(re.escape, splits)) or "[^/]+"
    text, position = "", 0
    for match in _PART.finditer(pattern):
        text += re.escape(pattern[position : match.start()])
        name = match[1]
        text += "[^/]*" if name is None else f"(?P={name})" if name in seen else f"(?P<{name}>{known if name == 'split' else '[^/]+'})"
        if name is not None:
            seen.add(name)
        position = match.end()
    # Cameras and other systems write .JPG as well as .jpg.
    base, dot, suffix = pattern[position:].rpartition(".")
    # As few folders above as possible.
    return re.compile(f"(?P<root_>(?:[^/]+/){{0,{LOOSE_FOLDERS}}}?){text}{re.escape(base + dot)}(?i:{re.escape(suffix)})")


def fill(pattern: str, values: Mapping[str, str]) -> str:
    """Put values for placeholders; those without a value stay.

    Example:
        >>> fill("{split}/{stem}.png", {"split": "Train"})
        'Train/{stem}.png'
    """
    return _PART.sub(lambda match: values.get(match[1] or "", match[0]), pattern)
