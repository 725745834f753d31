"""Path patterns with named placeholders: ``{split}/{area}/images_png/{stem}.png``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

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
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Return the regular expression of a pattern; a placeholder stands for any text without slash, the same text everywhere.

    The group ``root_`` holds the folders above, with a slash at the end, or nothing.
    """
    placeholders(pattern)
    seen: set[str] = set()
    text, position = "", 0
    for match in _PART.finditer(pattern):
        text += re.escape(pattern[position : match.start()])
        name = match[1]
        text += "[^/]*" if name is None else f"(?P={name})" if name in seen else f"(?P<{name}>[^/]+)"
        if name is not None:
            seen.add(name)
        position = match.end()
    # As few folders above as possible.
    return re.compile(f"(?P<root_>(?:[^/]+/){{0,{LOOSE_FOLDERS}}}?){text}{re.escape(pattern[position:])}")


def fill(pattern: str, values: Mapping[str, str]) -> str:
    """Put values for placeholders; those without a value stay.

    Example:
        >>> fill("{split}/{stem}.png", {"split": "Train"})
        'Train/{stem}.png'
    """
    return _PART.sub(lambda match: values.get(match[1] or "", match[0]), pattern)
