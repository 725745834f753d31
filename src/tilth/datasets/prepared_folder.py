"""The folder of a prepared data set: what lies in it, whom it belongs to, and what is taken away again."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

import pydantic

from tilth.config import Config
from tilth.datasets.config import Card
from tilth.errors import OutputExistsError, UsageError

CATALOG_FILE = "catalog.parquet"
NOTE_FILE = "dataset.json"
"""Says which card and folder a prepared folder was made from; what it does not stand in is not ours to write into."""
MASK_FOLDER = "masks"
EXTRACTED_FOLDER = "extracted"
COLOUR_FOLDER = "colour"
JOINED_FOLDER = "joined"
_SHARD = re.compile(r"(images|labels)-\d{5,}\.arrow")

# What a process that was killed leaves; see imagery.files.atomic_path.
_UNFINISHED = re.compile(r"\..+\.(?P<process>\d+)-\d+(-built)?\.[a-z0-9]+")


class Note(Config):
    """What a prepared folder says of itself.

    Attributes:
        name: of the card.
        folder: of the data set, relative to the prepared folder.
    """

    name: str
    folder: str


def check_out(place: Path, card: Card, folder: Path) -> bool:
    """Refuse a folder that is not ours; say whether there is nothing in it yet.

    Args:
        place: the folder.
        card: what is to be prepared in it.
        folder: of the data set.

    Raises:
        OutputExistsError: it is a file, or holds something else, or another data set.
        UsageError: it is the data set itself.
    """
    if place.exists() and not place.is_dir():
        raise OutputExistsError(f"{place}: is a file; give a folder to write into")
    if place.resolve() == folder.resolve():
        raise UsageError(f"{place}: is the data set itself; give another folder to write into")
    if not place.is_dir() or not any(place.iterdir()):
        return True
    if not (place / NOTE_FILE).is_file():
        raise OutputExistsError(f"{place}: is not empty and holds no prepared data set; choose another --out")
    try:
        note = Note.model_validate_json((place / NOTE_FILE).read_bytes())
    except pydantic.ValidationError:
        raise OutputExistsError(f"{place}: {NOTE_FILE} there is not of a prepared data set; choose another --out") from None
    here = relative(folder, place)
    if (note.name, note.folder) != (card.name, here):
        raise OutputExistsError(
            f"{place}: holds data set {note.name!r} of {note.folder}, not {card.name!r} of {here}; choose another --out"
        )
    return False


def relative(folder: Path, place: Path) -> str:
    """Name a folder as seen from another."""
    try:
        return Path(os.path.relpath(folder.resolve(), place.resolve())).as_posix()
    except ValueError:  # another drive
        return folder.resolve().as_posix()


def sweep(place: Path) -> None:
    """Remove what a process that was killed left half written."""
    for kept in (MASK_FOLDER, COLOUR_FOLDER, JOINED_FOLDER, "."):
        for file in place.iterdir() if kept == "." else (place / kept).rglob("*"):
            written = _UNFINISHED.fullmatch(file.name)
            # Where the file system has no locks, another process may be at work.
            if written and file.is_file() and not _is_alive(int(written["process"])):
                file.unlink()


def _is_alive(process: int) -> bool:
    """Say whether another process of this number runs; of this one nothing is unfinished yet."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def remove(place: Path) -> None:
    """Take back what a call wrote that found the data wrong; whole shards, which took long, are kept for the next call."""
    if any(_SHARD.fullmatch(file.name) for file in place.iterdir()):
        return
    for name in (MASK_FOLDER, COLOUR_FOLDER, JOINED_FOLDER, EXTRACTED_FOLDER):
        shutil.rmtree(place / name, ignore_errors=True)
    for file in (place / CATALOG_FILE, place / NOTE_FILE):
        with suppress(OSError):
            file.unlink()
