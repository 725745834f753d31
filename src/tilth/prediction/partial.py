"""What is finished of a map that is not: a folder beside it, from which an interrupted prediction goes on.

``<map>.partial/`` holds ``stamp.json``, which says what the map is being made from, and one file a finished strip: its layers of bytes
(classes, then confidence and probabilities if asked for), compressed, written whole or not at all. The maps are built in there, too, so a
process that is killed leaves nothing anywhere else. The folder goes when the maps are in their places. One process works in it at a time.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilth.errors import OutputExistsError, TilthError
from tilth.imagery.files import atomic_path, folder_lock, make_folder, move_into_place
from tilth.imagery.write import write_json
from tilth.prediction.grid import Place
from tilth.prediction.strips import Strip

_STAMP = "stamp.json"

_LEVEL = 1
"""Of zlib: labels shrink well at any, and time counts."""


class PartialMap:
    """The strips of a map that are finished.

    Attributes:
        folder: where they are kept.
        built: where the maps are built, a folder of this process alone.
        layers: bytes a pixel: 1, 1 more with confidence, K more with probabilities.
    """

    def __init__(self, target: Path, *, confidence: bool, probabilities: int) -> None:
        """Name the folder; nothing is written.

        Args:
            target: the map.
            confidence: whether strips hold confidence.
            probabilities: number of classes whose probabilities strips hold; 0 for none.
        """
        self.folder = target.with_name(f"{target.name}.partial")
        self.built = self.folder / f"built-{os.getpid()}"
        self._confidence, self._probabilities = confidence, probabilities
        self.layers = 1 + confidence + probabilities
        self._made: list[Path] = []

    @contextmanager
    def opened(self, stamp: Mapping[str, Any]) -> Iterator[None]:
        """Go on with what is there if it was made from the same, and begin afresh otherwise; meanwhile the folder is this process's.

        Args:
            stamp: all that the bytes of the maps follow from, JSON-ready.

        Raises:
            OutputExistsError: the folder exists and is none of these.
            TilthError: it cannot be made or written to, or another process works in it.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise OutputExistsError(f"{self.folder}: is in the way of the strips of the map; move it away")
        self._made = make_folder(self.folder)
        with folder_lock(self.folder, "making a map in"):
            self._begin(stamp)
            yield

    def remove_left(self, stamp: Mapping[str, Any]) -> None:
        """Remove what a process that was killed at the very end left of a map that is finished; nothing else, and none in use."""
        if self.folder.is_dir() and self._stamp() == json.loads(json.dumps(stamp)):
            with suppress(TilthError), folder_lock(self.folder, "making a map in"):
                self.remove(made=False)

    def _begin(self, stamp: Mapping[str, Any]) -> None:
        strange = [path.name for path in self.folder.iterdir() if not path.name.startswith(".")]
        if strange and not (self.folder / _STAMP).is_file():
            raise OutputExistsError(f"{self.folder}: holds {strange[0]!r} and no unfinished map; move it away, the strips need its place")
        same = self._stamp() == json.loads(json.dumps(stamp))
        for left in self.folder.iterdir():
            if not same or left.name.startswith(".") or (left.name != _STAMP and left.suffix != ".strip"):
                _remove(left)
        if not (self.folder / _STAMP).is_file():
            try:
                write_json(self.folder / _STAMP, dict(stamp))
            except (TilthError, OSError):
                self.remove()
                raise

    def strips(self) -> int:
        """Count the strips that are there."""
        return sum(1 for _ in self.folder.glob("*.strip"))

    def load(self, number: int, place: Place) -> Strip | None:
        """Read a finished strip; None if it is not there, or damaged by a power cut."""
        _, _, width, height = place.window
        try:
            stored = zlib.decompress(self._file(number).read_bytes())
        except (OSError, zlib.error):
            return None
        if len(stored) != self.layers * height * width:
            return None
        layers = np.frombuffer(stored, dtype=np.uint8).reshape(self.layers, height, width)
        return Strip(
            place.window,
            layers[0],
            layers[1] if self._confidence else None,
            layers[1 + self._confidence :] if self._probabilities else None,
            windows=len(place.panel.columns),
        )

    def save(self, number: int, strip: Strip) -> None:
        """Keep a finished strip.

        Raises:
            TilthError: it cannot be written.
        """
        squeeze = zlib.compressobj(_LEVEL)
        layers = [layer for layer in (strip.classes, strip.confidence, strip.probabilities) if layer is not None]
        try:
            with atomic_path(self._file(number)) as temporary, temporary.open("wb") as file:
                for layer in layers:
                    file.write(squeeze.compress(_bytes(layer)))
                file.write(squeeze.flush())
        except OSError as error:
            if isinstance(error, TilthError):
                raise
            raise TilthError(f"{self._file(number)}: cannot be written: {error.strerror or error}") from error

    def finish(self, targets: Sequence[Path]) -> None:
        """Move the maps built in the folder to their places, in this order, and remove the folder.

        Raises:
            TilthError: a map cannot be moved to its place.
        """
        for target in targets:
            move_into_place(self.built / target.name, target)
        self.remove(made=False)

    def remove(self, *, made: bool = True) -> None:
        """Remove the folder, and with ``made`` those above it that did not exist before."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for folder in self._made if made else ():
            with suppress(OSError):
                folder.rmdir()

    def remove_built(self) -> None:
        """Remove maps that were not built to their end; the strips stay."""
        shutil.rmtree(self.built, ignore_errors=True)

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:06d}.strip"

    def _stamp(self) -> Any:
        try:
            return json.loads((self.folder / _STAMP).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _bytes(layer: NDArray[np.uint8]) -> memoryview:
    return np.ascontiguousarray(layer).data.cast("B")
