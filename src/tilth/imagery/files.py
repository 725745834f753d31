"""Whole files or none: written beside their place, synced and renamed, so that a crash leaves the old or the new, never a torn one.

The process and a counter name the temporary file, so writers in other processes and threads never meet.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tilth.errors import TilthError

SIDECAR = ".aux.xml"
"""Suffix that GDAL appends to a raster's name for what the format itself cannot hold (class names in a GeoTIFF)."""

_COUNTER = itertools.count()


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; what was written there replaces ``path`` when the block ends well.

    Missing parent folders are made. A GDAL sidecar (``<temporary>.aux.xml``) moves along; without one, the sidecar of the file
    that is replaced is removed, since it described that one. On any exception, Ctrl-C included, the temporary file, its sidecar
    and the folders made here are removed, and ``path`` stays as it was.

    Args:
        path: the file to write.

    Yields:
        A path in the same folder with the same suffix, where nothing exists yet.

    Raises:
        TilthError: the folder cannot be made or written to, or ``path`` is a folder.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "deep" / "note.txt"
        >>> with atomic_path(target) as temporary:
        ...     _ = temporary.write_text("whole")
        >>> target.read_text()
        'whole'
    """
    target = Path(path)
    if target.is_dir():
        raise TilthError(f"{target}: is a folder; give the path of a file")
    made = make_folder(target.parent)
    temporary = target.with_name(f".{target.stem}.{os.getpid()}-{next(_COUNTER)}{target.suffix}")
    sidecar = Path(f"{temporary}{SIDECAR}")
    try:
        yield temporary
        move_into_place(temporary, target)
    except BaseException:
        for left in (temporary, sidecar):
            with suppress(OSError):
                left.unlink(missing_ok=True)
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        raise


def make_folder(folder: Path) -> list[Path]:
    """Make a folder and its parents; return those that did not exist, deepest first.

    Raises:
        TilthError: the folder cannot be made or written to.
    """
    missing = list(itertools.takewhile(lambda place: not place.exists(), (folder, *folder.parents)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TilthError(f"{folder}: cannot be made: {error.strerror or error}") from error
    if not os.access(folder, os.W_OK):
        raise TilthError(f"{folder}: cannot be written to; choose another place or change its permissions")
    return missing


def move_into_place(source: Path, target: Path) -> None:
    """Let a finished file, with its sidecar if it has one, replace another; see :func:`atomic_path`.

    Raises:
        TilthError: the file cannot be moved there.
    """
    sidecar = Path(f"{source}{SIDECAR}")
    try:
        _move(source, target)
        if sidecar.exists():
            _move(sidecar, Path(f"{target}{SIDECAR}"))
        else:
            Path(f"{target}{SIDECAR}").unlink(missing_ok=True)
    except OSError as error:
        raise TilthError(f"{target}: cannot be written: {error.strerror or error}") from error


def _move(source: Path, target: Path) -> None:
    """Rename a finished file so that after a power cut either the old or the new one is there, whole."""
    with source.open("rb") as file:
        os.fsync(file.fileno())
    source.replace(target)
    # The rename itself lives in the folder; not every file system lets a folder be opened.
    with suppress(OSError):
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
