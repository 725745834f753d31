"""Stamps: what a stage was made from, so that a finished stage is done again only when something changed.

A stamp is a small JSON file. Paths below the recipe's folder are written as ``${out}/...``, so a folder that is moved, or named from
elsewhere, keeps its stamps.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tilth.imagery.files import SIDECAR
from tilth.imagery.write import write_json
from tilth.training.config import RESUMABLE_CHANGES

OUTPUT_OPTIONS = frozenset({"out", "clean", "derived", "facts", "scheme_out", "manifest"})
"""Options that name what a verb writes."""

INPUT_OPTIONS = frozenset(
    {
        *("inputs", "labels", "scheme", "sensor", "catalog", "labelled", "unlabelled", "initial_weights", "model", "scenes", "area"),
        *("target", "label_codes", "label_scheme", "layers", "table", "root", "folder", "name", "file"),
        *("catalogs", "groups", "runs", "evaluations", "comparisons", "maps", "map", "confidence", "reference", "references"),
        *("assessments", "without", "beside", "features"),
    }
)
"""Options that may name what a verb reads: paths, patterns, or words such as ``rgb`` for what needs no file."""

# What a training would take is asked of it, and changes nothing.
_ONLY_ASKED = frozenset({"dry_run", "speed"})

# In a run folder: what only resuming and watching need. Whoever clears them away has not changed the run.
_UNREAD_OF_A_RUN = frozenset({"checkpoints", "tensorboard"})


def describe_stage(verb: str, options: Mapping[str, Any], out: Path, unseen: Iterable[Path] = ()) -> dict[str, Any]:
    """Describe what a stage is made from: verb, options, and the state of every input on disk.

    Files count by size and time of change, folders by those of the files in them. Hidden files and the sidecars that viewers leave
    beside rasters do not count; nor do settings of a training that do not change its result, nor the version of tilth, or every
    upgrade would ask for all trainings again.

    Args:
        verb: name of the verb.
        options: resolved options, JSON-ready.
        out: folder of the recipe.
        unseen: what this stage and later ones write. It does not count where a folder or a pattern among the inputs happens to hold it.

    Returns:
        A JSON-ready mapping; equal mappings mean equal work.
    """
    counted = {name: value for name, value in options.items() if name not in _ONLY_ASKED}
    if "resume" in options:
        counted["loop"] = {name: value for name, value in options["loop"].items() if name not in RESUMABLE_CHANGES}
    hidden = {path.resolve() for path in unseen}
    inputs = {path: _state(path, hidden) for path in sorted(set(_existing(input_texts(options), hidden)))}
    counted |= {name: _portable(counted[name], str(out)) for name in (INPUT_OPTIONS | OUTPUT_OPTIONS) & counted.keys()}
    made = {"verb": verb, "options": counted, "inputs": {_portable(path, str(out)): state for path, state in inputs.items()}}
    found: dict[str, Any] = json.loads(json.dumps(made, default=str))
    return found


def input_texts(options: Mapping[str, Any]) -> Iterator[str]:
    """Every text in the options that may name something to read."""
    for name, value in options.items():
        if name in INPUT_OPTIONS:
            yield from _texts(value)


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say in plain words what differs between two descriptions of a stage."""
    found = [] if before.get("verb") == now["verb"] else [f"verb {_short(before.get('verb'))} -> {_short(now['verb'])}"]
    old, new = (_flat(tree.get("options", {})) for tree in (before, now))
    found += [f"{name} {_short(old.get(name))} -> {_short(new.get(name))}" for name in {**old, **new} if old.get(name) != new.get(name)]
    old, new = before.get("inputs", {}), now["inputs"]
    return found + [f"{path} changed" for path in {**old, **new} if old.get(path) != new.get(path)]


def read_stamp(file: Path) -> dict[str, Any] | None:
    """Read a stamp; None if there is none or it is damaged."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("made_from"), dict) else None


def write_begun(file: Path, made_from: Mapping[str, Any]) -> None:
    """Note what a training is being made from, before it begins, so that an interrupted one goes on only as what it was."""
    write_json(file, {"made_from": made_from, "finished": False})


def forget(file: Path) -> None:
    """Remove a stamp, and the folders that held nothing else."""
    with suppress(OSError):
        file.unlink(missing_ok=True)
        file.parent.rmdir()
        file.parent.parent.rmdir()


def write_finished(
    file: Path, made_from: Mapping[str, Any], outputs: Mapping[str, Path], seconds: float, out: Path, parts: Iterable[Path] = ()
) -> None:
    """Note that a stage is finished, and which files it left; parts are files that its outputs are of no use without."""
    left = [*_files_of(outputs.values()), *((part, part.stat().st_size) for part in parts)]
    files = {_portable(str(path), str(out)): size for path, size in left}
    made = {label: _portable(str(path), str(out)) for label, path in outputs.items()}
    stamp = {"made_from": made_from, "finished": True, "outputs": made, "files": files}
    stamp |= {"seconds": round(seconds, 3), "tilth": version("tilth")}
    write_json(file, stamp)


def stamped_outputs(stamp: Mapping[str, Any], out: Path) -> dict[str, Path]:
    """Outputs of a finished stage by label."""
    return {label: _place(text, out) for label, text in stamp["outputs"].items()}


def lost_output(stamp: Mapping[str, Any], out: Path) -> Path | None:
    """Find an output file that is gone or of another size since the stage was finished."""
    for text, size in stamp["files"].items():
        file = _place(text, out)
        if not file.is_file() or file.stat().st_size != size:
            return file
    return None


def _files_of(outputs: Iterable[Path]) -> Iterator[tuple[Path, int]]:
    """Files of outputs with their sizes. A folder that holds another output, as a run holds its model, counts by that one."""
    places = list(outputs)
    for place in places:
        if any(place in other.parents for other in places):
            continue
        files = [place] if place.is_file() else [place / name for name in _walk(place, frozenset())]
        yield from ((file, file.stat().st_size) for file in files)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str) and 0 < len(value) < 1024 and "\n" not in value and "\0" not in value:
        yield value


def _existing(texts: Iterable[str], unseen: Collection[Path]) -> Iterator[str]:
    """What lies on disk under these names or patterns; nothing does for a word such as ``rgb``, or for an address."""
    for text in texts:
        if Path(text).exists():
            yield text
        elif glob.has_magic(as_pattern(text)):
            found = glob.glob(as_pattern(text))  # noqa: PTH207 - Path.glob takes no absolute patterns
            yield from (path for path in found if Path(path).resolve() not in unseen)


def as_pattern(text: str) -> str:
    """Turn ``scores/s4p-{seed}`` into ``scores/s4p-*``."""
    return text.replace("{seed}", "*")


def _state(text: str, unseen: Collection[Path]) -> Any:
    path = Path(text)
    if path.is_dir():
        listing = [[name, *_look(path / name)] for name in _walk(path, unseen)]
        return hashlib.sha256(json.dumps(listing).encode()).hexdigest()
    return _look(path)


def _look(file: Path) -> list[int]:
    found = file.stat()
    return [found.st_size, found.st_mtime_ns]


def _walk(folder: Path, unseen: Collection[Path]) -> list[str]:
    """Files that count below a folder, in order."""
    root = folder.resolve()
    found: list[Path] = []
    for place, folders, files in os.walk(root):
        here = Path(place)
        skipped = _UNREAD_OF_A_RUN if "recipe.yaml" in files else frozenset()
        folders[:] = [name for name in folders if not name.startswith(".") and name not in skipped and here / name not in unseen]
        kept = [here / name for name in files if not name.startswith(".") and not name.endswith(SIDECAR)]
        found += [file for file in kept if file not in unseen and file.is_file()]
    return sorted(file.relative_to(root).as_posix() for file in found)


def _portable(node: Any, out: str) -> Any:
    """Write paths below the recipe's folder independent of where that lies."""
    if isinstance(node, Mapping):
        return {key: _portable(value, out) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_portable(item, out) for item in node]
    if isinstance(node, str) and (node == out or node.startswith(f"{out}/")):
        return "${out}" + node[len(out) :]
    return node


def _place(text: str, out: Path) -> Path:
    return Path(text.replace("${out}", str(out), 1))


def _flat(node: Any, path: str = "") -> dict[str, Any]:
    if isinstance(node, Mapping) and node:
        return {name: value for key, item in node.items() for name, value in _flat(item, f"{path}.{key}" if path else str(key)).items()}
    return {path: node}


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
