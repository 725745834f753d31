"""Run: the folder that a training leaves behind, complete enough to be understood and repeated."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic
import yaml

from tilth.errors import OutputExistsError, RunError
from tilth.imagery.files import atomic_path, new_folder
from tilth.imagery.write import write_json, write_text
from tilth.training.config import LoopConfig

_REPORTED_PACKAGES = ("tilth", "torch", "torchvision", "timm", "segmentation-models-pytorch", "lightning", "numpy", "rasterio")

_FIRST_FILE = "environment.json"
_FIRST_NAMES = frozenset({_FIRST_FILE, "data.json", "recipe.yaml", "initial_weights.json", "checkpoints", "tensorboard"})
"""All that there is of a run before its first checkpoint."""
_FREE_TO_DIFFER = frozenset({"out", "resume", "labelled", "unlabelled", "target", "inference"})


class Run:
    """A run folder: ``recipe.yaml``, ``environment.json``, ``data.json``, ``metrics.jsonl``, ``checkpoints/``, ``model/``, ``previews/``.

    Attributes:
        folder: where it is.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @property
    def checkpoint(self) -> Path:
        """The newest resumable checkpoint."""
        return self.folder / "checkpoints" / "last.safetensors"

    @property
    def best(self) -> Path:
        """Model folder of the best validation so far."""
        return self.folder / "checkpoints" / "best"

    @property
    def model(self) -> Path:
        """Model folder of the finished run."""
        return self.folder / "model"

    @property
    def previews(self) -> Path:
        """Folder of the pictures that a method makes on its way."""
        return self.folder / "previews"

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return (self.folder / "finished.json").is_file()

    @property
    def barely_begun(self) -> bool:
        """Whether the run was stopped before its first checkpoint, so that nothing is lost by beginning it anew."""
        names = {path.name for path in self.folder.iterdir()} if self.folder.is_dir() else set()
        return _FIRST_FILE in names and names <= _FIRST_NAMES and not self.checkpoint.is_file()

    def start(self, recipe: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        """Make the folder for a new run.

        Raises:
            OutputExistsError: the folder already holds something.
            TilthError: it cannot be made or written to.
        """
        if self.folder.exists() and any(self.folder.iterdir()) and not self.barely_begun:
            state = (
                "a finished run" if self.finished else "a run that can be continued with --resume" if self.checkpoint.is_file() else "files"
            )
            raise OutputExistsError(f"{self.folder}: already holds {state}; choose another --out, or remove it")
        with new_folder(self.folder):
            write_json(self.folder / _FIRST_FILE, describe_environment())
            write_json(self.folder / "data.json", dict(data))
            write_text(self.folder / "recipe.yaml", yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True))

    def resume(self, recipe: Mapping[str, Any], data: Mapping[str, Any], may_differ: frozenset[str]) -> None:
        """Check that a run can go on with this recipe and data; one that was stopped before its first checkpoint begins anew.

        Args:
            recipe: the resolved recipe of now.
            data: the data description of now.
            may_differ: keys of ``recipe["loop"]`` that do not change the training. How validation tiles are cut up may differ as well,
                and how catalogs are spelt: their fingerprints are compared.

        Raises:
            RunError: there is nothing to resume, or recipe or data are others than those the run began with.
        """
        if self.barely_begun:
            self.start(recipe, data)
            return
        if not self.checkpoint.is_file():
            raise RunError(f"{self.folder}: no checkpoint to resume from; start without --resume")
        old = _with_new_options(yaml.safe_load((self.folder / "recipe.yaml").read_text(encoding="utf-8")))
        changed = sorted(_differences(_without(old, may_differ), _without(_with_new_options(json.loads(json.dumps(recipe))), may_differ)))
        if changed:
            raise RunError(f"{self.folder}: cannot resume, these settings differ from the run's recipe.yaml: {', '.join(changed)}")
        begun = json.loads((self.folder / "data.json").read_text(encoding="utf-8"))
        old_streams, new_streams = begun["streams"], data["streams"]
        moved = [
            name
            for name in {**old_streams, **new_streams}
            if old_streams.get(name, {}).get("fingerprint") != new_streams.get(name, {}).get("fingerprint")
        ]
        if moved:
            raise RunError(f"{self.folder}: cannot resume, the data of {', '.join(moved)} changed since the run began")
        for left in self.checkpoint.parent.rglob(".*.safetensors"):
            left.unlink()  # half-written when the run was killed

    def log(self, event: Mapping[str, Any]) -> None:
        """Append one line to ``metrics.jsonl``."""
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({key: _rounded(value) for key, value in event.items()}) + "\n")

    def rewind(self, step: int) -> None:
        """Drop log lines from after ``step``, which a resumed run writes anew; a torn last line goes too."""
        file = self.folder / "metrics.jsonl"
        if file.is_file():
            kept = [line for line in file.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
            write_text(file, "".join(f"{line}\n" for line in kept))

    def keep_best(self) -> None:
        """Copy the best weights so far into the model folder, each file in one go; the configuration last, since it makes a model of it."""
        for file in sorted(self.best.iterdir(), key=lambda path: path.suffix == ".json"):
            with atomic_path(self.model / file.name) as temporary:
                shutil.copyfile(file, temporary)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Mark the run as finished and drop what only resuming needed."""
        write_json(self.folder / "finished.json", dict(summary))
        shutil.rmtree(self.best, ignore_errors=True)


def describe_environment() -> dict[str, Any]:
    """Collect versions and machine facts that matter for repeating a run; no names of users, hosts or folders."""
    import torch

    versions = {}
    for name in _REPORTED_PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "packages": versions,
    }


def _with_new_options(recipe: dict[str, Any]) -> dict[str, Any]:
    """Write out options of the loop that a run was begun without, because there were none: their defaults change nothing."""
    try:
        loop = LoopConfig.model_validate(recipe.get("loop", {}))
    except pydantic.ValidationError:
        return recipe  # of another version; what differs is told as it stands
    return recipe | {"loop": loop.model_dump(mode="json")}


def _without(recipe: Mapping[str, Any], keys: frozenset[str]) -> dict[str, Any]:
    """Drop loop settings that may differ, and what only says where data and run lie and how the model is looked at."""
    loop = {key: value for key, value in recipe.get("loop", {}).items() if key not in keys}
    return {key: value for key, value in recipe.items() if key not in _FREE_TO_DIFFER} | {"loop": loop}


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key in {**old, **new}:
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key} ({before} -> {after})")
    return found


def _rounded(value: Any) -> Any:
    """Seven significant digits are what float32 holds."""
    return float(f"{value:.7g}") if isinstance(value, float) else value


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
