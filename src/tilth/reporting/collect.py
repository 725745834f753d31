"""Reading what a report is made of into typed records: run folders, evaluations, the catalog summary.

A part that is wrong stops the report with one line that names the file; a part that is merely not there is left out.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tilth.classes import ClassScheme
from tilth.config import read_yaml
from tilth.errors import DataError, MissingFileError, UnreadableFileError
from tilth.evaluation.result import Evaluation
from tilth.reporting.inputs import Folders, Rgb
from tilth.reporting.numbers import finite

RUN_FILES = ("recipe.yaml", "environment.json", "data.json", "metrics.jsonl")
MOST_WARNINGS = 20
_GENERIC = frozenset({"evaluation", "evaluate", "eval", "run", "train", "model", "metrics"})
_NOT_SCALARS = frozenset({"step", "time_s"})


@dataclass(frozen=True)
class Curve:
    """One scalar over a training.

    Attributes:
        steps: optimiser steps, ascending.
        values: finite values at those steps.
    """

    steps: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Run:
    """What one training left behind.

    Attributes:
        name: as shown.
        folder: of the run.
        recipe: resolved configuration; empty when the file is not there.
        environment: versions and machine.
        data: counts, sources and fingerprint of every stream.
        finished: how the run ended; empty for one that did not.
        classes: name and RGB of the model's classes in id order; empty before the model folder is written.
        curves: {(kind, scalar): curve} with kind ``train`` or ``val``.
        warnings: step and text of what training warned of, at most 20.
        seconds: wall time, summed over interruptions.
        parameters: number of parameters; None where neither the run nor its model folder tells.
    """

    name: str
    folder: Path
    recipe: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    finished: dict[str, Any] = field(default_factory=dict)
    classes: tuple[tuple[str, Rgb], ...] = ()
    curves: dict[tuple[str, str], Curve] = field(default_factory=dict)
    warnings: tuple[tuple[int, str], ...] = ()
    seconds: float | None = None
    parameters: int | None = None

    @property
    def last_step(self) -> int | None:
        """The last step any scalar was written at."""
        return max((curve.steps[-1] for curve in self.curves.values()), default=None)

    def curve(self, name: str, *kinds: str) -> Curve | None:
        """Return a scalar's curve, of the first of the kinds that has it."""
        return next((self.curves[kind, name] for kind in kinds or ("train", "val") if (kind, name) in self.curves), None)


@dataclass(frozen=True)
class NamedEvaluation:
    """An evaluation with its name and the folder its gallery lies in."""

    name: str
    folder: Path
    result: Evaluation


def named_folders(folders: Folders) -> dict[str, Path]:
    """Give every folder a name that differs from the others.

    A folder called ``evaluation`` or the like is named after its parent; equal names get a number.

    Example:
        >>> list(named_folders(["a/s4p", "b/supervised/evaluation"]))
        ['s4p', 'supervised']
    """
    if isinstance(folders, Mapping):
        return {str(name): Path(path) for name, path in folders.items()}
    named: dict[str, Path] = {}
    for item in folders:
        path = Path(item)
        folder = path.parent if path.is_file() else path
        base = folder.parent.name if folder.name in _GENERIC and folder.parent.name else folder.name
        name, number = base or "run", 2
        while name in named:
            name, number = f"{base} ({number})", number + 1
        named[name] = path
    return named


def read_runs(folders: Folders) -> list[Run]:
    """Read run folders.

    Raises:
        MissingFileError: a folder does not exist or holds none of a run's files.
        DataError: a file does not hold what it must.
    """
    return [read_run(path, name) for name, path in named_folders(folders).items()]


def read_run(folder: str | Path, name: str | None = None) -> Run:
    """Read one run folder; see :func:`read_runs`."""
    root = Path(folder)
    if not root.is_dir():
        raise MissingFileError(f"{root}: no such run folder; give the folder a training wrote")
    if not any((root / file).is_file() for file in RUN_FILES):
        raise MissingFileError(f"{root}: not a run folder: none of {', '.join(RUN_FILES)} is in it")
    metrics = _read_metrics(root / "metrics.jsonl")
    finished = _optional(root / "finished.json")
    told = finite(finished.get("parameters"))
    return Run(
        name=name or root.resolve().name,
        folder=root,
        recipe=_recipe(root),
        environment=_optional(root / "environment.json"),
        data=_optional(root / "data.json"),
        finished=finished,
        classes=_model_classes(root / "model" / "config.json"),
        curves=metrics.curves,
        warnings=tuple(metrics.warnings[:MOST_WARNINGS]),
        seconds=finite(finished.get("seconds")) or metrics.seconds,
        parameters=int(told) if told is not None else count_parameters(root / "model" / "model.safetensors"),
    )


def read_evaluations(folders: Folders) -> list[NamedEvaluation]:
    """Read evaluation folders.

    Raises:
        MissingFileError: a folder is without ``metrics.json``.
        DataError: the file does not validate or was written by a newer version.
    """
    found = []
    for name, path in named_folders(folders).items():
        folder = path.parent if path.is_file() else path
        found.append(NamedEvaluation(name, folder, Evaluation.read(path)))
    return found


def read_mapping(path: str | Path) -> dict[str, Any]:
    """Read a JSON file that holds one mapping.

    Raises:
        MissingFileError: no such file.
        UnreadableFileError: it cannot be read, or is not JSON.
        DataError: it holds something else than a mapping.
    """
    file = Path(path)
    if not file.is_file():
        raise MissingFileError(f"{file}: no such file; give the path of a JSON file")
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnreadableFileError(f"{file}: not JSON: {' '.join(str(error).split())}; write it again") from None
    if not isinstance(tree, dict):
        raise DataError(f"{file}: expected a JSON object with named values, found {type(tree).__name__}")
    return tree


def _optional(file: Path) -> dict[str, Any]:
    return read_mapping(file) if file.is_file() else {}


def _recipe(root: Path) -> dict[str, Any]:
    """Read the recipe of a run. What it says of the network is a default where the initial weights brought another one."""
    recipe = read_yaml(root / "recipe.yaml") if (root / "recipe.yaml").is_file() else {}
    built = _optional(root / "model" / "config.json").get("network")
    if not recipe.get("initial_weights") or not isinstance(recipe.get("network"), dict) or not isinstance(built, dict):
        return recipe
    return recipe | {"network": recipe["network"] | {name: built[name] for name in ("name", "encoder", "decoder") if name in built}}


def _model_classes(file: Path) -> tuple[tuple[str, Rgb], ...]:
    """Read the classes of a model folder without loading the model."""
    scheme = _optional(file).get("scheme")
    if not isinstance(scheme, Mapping):
        return ()
    parsed = ClassScheme.parse(scheme, source=str(file))
    return tuple(zip(parsed.names, parsed.colours, strict=True))


@dataclass
class _Metrics:
    curves: dict[tuple[str, str], Curve] = field(default_factory=dict)
    warnings: list[tuple[int, str]] = field(default_factory=list)
    seconds: float | None = None


def _read_metrics(file: Path) -> _Metrics:
    """Read ``metrics.jsonl`` into curves; a torn last line (killed training) is dropped, repeated steps keep the last record."""
    found = _Metrics()
    if not file.is_file():
        return found
    values: dict[tuple[str, str], dict[int, float]] = {}
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            step, kind = int(record["step"]), str(record.get("kind", "train"))
        except (ValueError, TypeError, KeyError):
            if number == len(lines):
                break
            raise DataError(f"{file}:{number}: expected a JSON object with 'step' and 'kind', found {line[:60]!r}") from None
        if "message" in record:
            found.warnings.append((step, str(record["message"])))
        time = finite(record.get("time_s"))
        found.seconds = max(found.seconds or 0.0, time) if time is not None else found.seconds
        for name, value in record.items():
            number_value = finite(value)
            if name not in _NOT_SCALARS and number_value is not None:
                values.setdefault((kind, name), {})[step] = number_value
    for key, by_step in values.items():
        steps = tuple(sorted(by_step))
        found.curves[key] = Curve(steps, tuple(by_step[step] for step in steps))
    return found


def count_parameters(file: Path) -> int | None:
    """Count the numbers in a safetensors file from its header alone, leaving out the running statistics of batch norm.

    Returns:
        The count; None when the file does not exist or is not safetensors.
    """
    if not file.is_file():
        return None
    try:
        with file.open("rb") as stream:
            (size,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(min(size, 100_000_000)))
        tensors = {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, struct.error):
        return None
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    return sum(int(math.prod(shape)) for name, shape in tensors.items() if not name.endswith(buffers))


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn a nested mapping into ``{"train.steps": 500}``; lists of mappings are numbered, other lists kept whole."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{path}.") if value else {path: None}
        elif isinstance(value, Sequence) and not isinstance(value, str) and any(isinstance(item, Mapping) for item in value):
            flat |= flatten({str(index): item for index, item in enumerate(value)}, f"{path}.")
        else:
            flat[path] = value
    return flat


def find_key(tree: Mapping[str, Any], *names: str) -> Any:
    """Return the shallowest value under one of the names in a nested mapping; None if there is none."""
    flat = flatten(tree)
    paths = sorted(flat, key=lambda path: path.count("."))
    for name in names:
        for path in paths:
            if path == name or path.endswith(f".{name}"):
                return flat[path]
    return None


def without_seed(name: str) -> str:
    """Strip the seed from a run's name.

    Example:
        >>> without_seed("s4p-seed2"), without_seed("s4p_2"), without_seed("resnet50"), without_seed("seed3")
        ('s4p', 's4p', 'resnet50', 'seed3')
    """
    return re.sub(r"[\s._/-]+(?:seed[\s._=-]*)?\d+$", "", name) or name
