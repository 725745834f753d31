"""Whole files or none: written beside their place, synced and renamed, so that a crash leaves the old or the new, never a torn one.

The process and a counter name the temporary file, so writers in other processes and threads never meet.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tilth.errors import OutputExistsError, TilthError

SIDECAR = ".aux.xml"
"""Suffix that GDAL appends to a raster's name for what the format itself cannot hold (class names in a GeoTIFF)."""

_COUNTER = itertools.count()

_LONGEST = 100
"""Bytes of a name that its temporary file is called after."""


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
        TilthError: the folder cannot be made or written to, ``path`` is a folder, or the disk is full.

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
    temporary = target.with_name(f".{_plain(target.stem)}.{os.getpid()}-{next(_COUNTER)}{target.suffix}")
    sidecar = Path(f"{temporary}{SIDECAR}")
    try:
        yield temporary
        move_into_place(temporary, target)
    except BaseException as error:
        for left in (temporary, sidecar):
            with suppress(OSError):
                left.unlink(missing_ok=True)
        remove_empty(made)
        # A full disk is reported without a name, other failures with that of the temporary file.
        if isinstance(error, OSError) and not isinstance(error, TilthError) and error.filename in (None, str(temporary)):
            raise TilthError(f"{target}: cannot be written: {reason_of(error)}") from error
        raise


@contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """Take back a folder that was not there, or was empty, if what fills it fails; one that held something is left as it is then.

    Ctrl-C is no failure: what is whole stays.
    """
    was_there = folder.exists()
    if was_there and (not folder.is_dir() or any(folder.iterdir())):
        yield
        return
    above = list(itertools.takewhile(lambda place: not place.exists(), folder.parents))
    try:
        yield
    except Exception:
        for inside in folder.iterdir() if folder.is_dir() else ():
            if inside.is_dir() and not inside.is_symlink():
                shutil.rmtree(inside, ignore_errors=True)
            else:
                inside.unlink(missing_ok=True)
        remove_empty(above if was_there else [folder, *above])
        raise


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``folder``; it takes that name when the block ends well, with all that is in it, or is removed.

    Args:
        folder: the folder to make; must not be there, or be empty.

    Yields:
        An empty folder.

    Raises:
        OutputExistsError: ``folder`` is a file, or holds something.
        TilthError: it cannot be made.
    """
    check_free(folder)
    made = make_folder(folder.parent)
    temporary = folder.with_name(f".{_plain(folder.name)}.{os.getpid()}-{next(_COUNTER)}")
    try:
        temporary.mkdir()
        yield temporary
        temporary.replace(folder)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        remove_empty(made)
        if isinstance(error, OSError) and not isinstance(error, TilthError):
            raise TilthError(f"{folder}: cannot be written: {reason_of(error)}") from error
        raise


def check_free(folder: Path) -> None:
    """Refuse a folder that holds something, before work is done for it.

    Raises:
        OutputExistsError: it is a file, or not empty.
    """
    if folder.is_file():
        raise OutputExistsError(f"{folder}: is a file; give the name of a folder")
    if folder.exists() and any(folder.iterdir()):
        raise OutputExistsError(f"{folder}: already holds files; choose another --out, or remove it")


@contextmanager
def folder_lock(folder: Path, doing: str) -> Iterator[None]:
    """Keep other processes from working in the same folder meanwhile, where the file system can; a process that dies lets go of it.

    Args:
        folder: exists.
        doing: what the other process is at, for the message: ``packing into``.

    Raises:
        TilthError: another process is at it, or it has taken the folder away.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    taken = f"{folder}: another process is {doing} it; wait for it, or choose another place"
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        raise TilthError(taken) from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # File systems without locks go without.
            if isinstance(error, BlockingIOError):
                raise TilthError(taken) from None
        # Whoever had the lock until now may have removed the folder, or made another.
        if not folder.exists() or not os.path.samestat(folder.stat(), os.fstat(handle)):
            raise TilthError(taken)
        yield
    finally:
        os.close(handle)


def reason_of(error: OSError) -> str:
    """Say what went wrong in the words of the operating system, without names of files."""
    return os.strerror(error.errno) if error.errno else str(error)


def make_folder(folder: Path) -> list[Path]:
    """Make a folder and its parents; return those that did not exist, deepest first.

    Raises:
        TilthError: the folder cannot be made or written to.
    """
    missing = list(itertools.takewhile(lambda place: not place.exists(), (folder, *folder.parents)))
    above = next((place for place in (folder, *folder.parents) if place.exists()), None)
    if above is not None and not above.is_dir():
        raise TilthError(f"{folder}: cannot be made: {'it' if above == folder else above} is a file; choose another place")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        remove_empty(missing)
        raise TilthError(f"{folder}: cannot be made: {reason_of(error)}") from error
    if not os.access(folder, os.W_OK):
        raise TilthError(f"{folder}: cannot be written to; choose another place or change its permissions")
    return missing


def move_into_place(source: Path, target: Path) -> None:
    """Let a finished file, with its sidecar if it has one, replace another; see :func:`atomic_path`.

    The sidecar goes first: where a kill comes between the two, the file itself is not there yet, or still the old one, so that nobody
    takes what is half in place for finished.

    Raises:
        TilthError: the file cannot be moved there.
    """
    sidecar = Path(f"{source}{SIDECAR}")
    try:
        # What a full disk refuses, it refuses here, while the old file is whole.
        _sync(source)
        if sidecar.exists():
            _move(sidecar, Path(f"{target}{SIDECAR}"))
        else:
            Path(f"{target}{SIDECAR}").unlink(missing_ok=True)
        _move(source, target)
    except OSError as error:
        raise TilthError(f"{target}: cannot be written: {reason_of(error)}") from error


def remove_empty(folders: list[Path]) -> None:
    """Remove folders that were made in vain, deepest first."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def _plain(stem: str) -> str:
    """Shorten a name, so that there is room for what comes after it, and keep line breaks out of it, which some libraries drop."""
    return re.sub(r"[\x00-\x1f]", "_", stem.encode()[:_LONGEST].decode(errors="ignore"))


def _sync(source: Path) -> None:
    with source.open("rb") as file:
        os.fsync(file.fileno())


def _move(source: Path, target: Path) -> None:
    """Rename a finished file so that after a power cut either the old or the new one is there, whole."""
    _sync(source)
    source.replace(target)
    # The rename itself lives in the folder; not every file system lets a folder be opened.
    with suppress(OSError):
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
