"""What a map was made from: kept in its tags, and asked before work is done again.

Tags, the same on every machine and day: ``TILTH_MODEL`` (hash of weights and configuration, see :mod:`tilth.models.identity`),
``TILTH_VERSION``, ``TILTH_SENSOR``, ``TILTH_SCHEME``, ``TILTH_SETTINGS`` (JSON: windows, flips, precision, bands, grid, area) and
``TILTH_STAMP``, a hash of all of these and of names, sizes, contents and header of the scene's files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tilth.errors import OutputExistsError, TilthError
from tilth.models.classifier import PixelClassifier
from tilth.models.identity import model_hash
from tilth.prediction.beside import STAMP_TAG, stamp_of
from tilth.prediction.grid import Grid
from tilth.prediction.interest import Interest
from tilth.prediction.sources import Scene
from tilth.prediction.strips import Manner


@dataclass(frozen=True)
class Provenance:
    """What a map is made from.

    Attributes:
        model: hash of the model.
        sensor: name of its sensor.
        scheme: name of its class scheme.
        scene: which scene, JSON-ready.
        settings: how it is predicted, JSON-ready.
        passing: what strips follow from besides, and maps do not: how columns are cut, and when the files of the scene were written.
    """

    model: str
    sensor: str
    scheme: str
    scene: dict[str, Any]
    settings: dict[str, Any]
    passing: dict[str, Any]

    @classmethod
    def of(cls, segmenter: PixelClassifier, scene: Scene, grid: Grid, manner: Manner, area: Interest | None) -> Provenance:
        """Put together what is known before the first window."""
        settings: dict[str, Any] = {"window": grid.window, "overlap": grid.overlap, "flips": manner.flips, "precision": manner.precision}
        settings |= {"device": manner.device.type} | {name: value for name, value in scene.manner.items() if value}
        if manner.device.type != "cpu":
            settings["batch_size"] = manner.batch_size
        if area is not None:
            settings["area"] = area.identity()
        passing: dict[str, Any] = {
            "panels": [panel.left for panel in grid.panels()],
            "confidence": manner.confidence,
            "probabilities": manner.probabilities,
        }
        passing |= {"torch": version("torch"), "files": [[str(file.resolve()), file.stat().st_mtime_ns] for file in scene.files]}
        return cls(model_hash(segmenter), segmenter.sensor.name, segmenter.scheme.name, scene.identity(), settings, passing)

    def tags(self) -> dict[str, str]:
        """What is written into every file of the map."""
        return {
            "TILTH_SENSOR": self.sensor,
            "TILTH_SCHEME": self.scheme,
            "TILTH_MODEL": self.model,
            "TILTH_VERSION": version("tilth"),
            "TILTH_SETTINGS": json.dumps(self.settings, ensure_ascii=False),
            STAMP_TAG: self.stamp(),
        }

    def stamp(self) -> str:
        """One number for all that the map's pixels follow from: 64 hexadecimal digits."""
        text = json.dumps([self.model, version("tilth"), self.scene, self.settings], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def stamp_of_strips(self) -> dict[str, Any]:
        """The same in full, for the strips of an unfinished map."""
        return {"stamp": self.stamp(), "model": self.model, "scene": self.scene, "settings": self.settings, "passing": self.passing}


def is_finished(paths: Sequence[Path], made_from: Provenance, scene: Scene, *, overwrite: bool) -> bool:
    """Say whether all files of a map are there, made from the same, and later than the scene.

    What is made of a scene that is not, or not all, on this machine's own disks is never taken as finished, for what such a scene holds
    now is not asked; it is made anew.

    Args:
        paths: the files.
        made_from: what they would be made from now.
        scene: the scene.
        overwrite: whether files that were made from something else may be replaced.

    Raises:
        OutputExistsError: a file was made from something else, and may not be replaced.
        TilthError: a folder is in the way.
    """
    newest = max((file.stat().st_mtime_ns for file in scene.files), default=0)
    there = [path for path in paths if path.exists()]
    for path in there:
        if path.is_dir():
            raise TilthError(f"{path}: is a folder; give the path of a file")
    same = [path for path in there if stamp_of(path) == made_from.stamp() and path.stat().st_mtime_ns >= newest]
    if len(same) == len(paths):
        return scene.is_local
    others = [path for path in there if path not in same]
    if others and not overwrite:
        raise OutputExistsError(
            f"{others[0]}: exists already, made from another model, scene or settings; give another --out, or --overwrite to replace it"
        )
    return False
