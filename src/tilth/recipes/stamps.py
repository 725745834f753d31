"""Stamps: what a stage was made from, so that a finished stage is done again only when something changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tilth.imagery.write import write_json

OUTPUT_OPTIONS = frozenset({"out", "clean"})
"""Options that name what a verb writes; all other paths are inputs."""


def stage_fingerprint(verb: str, options: Mapping[str, Any]) -> str:
    """Hash the verb, its resolved options, the version of tilth, and the state of every input file.

    Args:
        verb: name of the verb.
        options: resolved options, JSON-ready.

    Returns:
        64 hexadecimal digits. Files count by size and time of change, folders by those of all files in them.
    """
    inputs = {path: _state(Path(path)) for path in sorted(set(_input_paths(options)))}
    text = json.dumps([verb, version("tilth"), options, inputs], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def read_stamp(file: Path) -> dict[str, Any] | None:
    """Read a stamp; None if there is none or it is damaged."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def is_finished(file: Path, fingerprint: str) -> bool:
    """Whether a stage was finished from the same inputs and its outputs are still there."""
    stamp = read_stamp(file)
    return stamp is not None and stamp.get("fingerprint") == fingerprint and all(Path(path).exists() for path in stamp.get("outputs", {}).values())


def write_stamp(file: Path, fingerprint: str, outputs: Mapping[str, Path], seconds: float) -> None:
    """Note that a stage is finished."""
    write_json(file, {"fingerprint": fingerprint, "outputs": {name: str(path) for name, path in outputs.items()}, "seconds": round(seconds, 3)})


def _input_paths(options: Mapping[str, Any]) -> Iterator[str]:
    """Every string in the options that names something on disk, but for outputs."""
    for name, value in options.items():
        if name not in OUTPUT_OPTIONS:
            yield from _existing(value)


def _existing(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _existing(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _existing(item)
    # A word such as "train" is a path only if something of that name lies there; the options hash it in any case.
    elif isinstance(value, str) and 0 < len(value) < 1024 and "\n" not in value and Path(value).exists():
        yield value


def _state(path: Path) -> Any:
    if path.is_dir():
        return [[file.relative_to(path).as_posix(), *_state(file)] for file in sorted(path.rglob("*")) if file.is_file()]
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]
