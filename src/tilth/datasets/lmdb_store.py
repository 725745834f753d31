"""LMDB stores as they are published: opened for reading only, checked for length, every failure one line."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tilth.datasets.records import StoredRecord, read_record
from tilth.errors import DataError, UnreadableFileError, needs_extra

DATA_FILE = "data.mdb"
INDEX = "{index}"
_FILE_SUFFIXES = (".lmdb", ".mdb")
_OWN_FILES = {DATA_FILE, "lock.mdb"}


class Store:
    """An open store; see :func:`opened`.

    Attributes:
        path: folder, or file, of the store.
    """

    def __init__(self, path: Path, transaction: Any) -> None:
        self.path = path
        self._transaction = transaction

    def indices(self, keys: Sequence[str]) -> dict[str, set[int]]:
        """Find the numbers that stand for ``{index}``, for each kind of key; values are not read."""
        patterns = {key: re.compile(re.escape(key.replace(INDEX, "\0")).replace("\0", "([0-9]+)").encode()) for key in keys}
        found: dict[str, set[int]] = {key: set() for key in keys}
        with self._told():
            for stored in self._transaction.cursor().iternext(keys=True, values=False):
                for key, pattern in patterns.items():
                    match = pattern.fullmatch(stored)
                    if match is not None:
                        found[key].add(int(match[1]))
        return found

    def record(self, key: str, index: int) -> StoredRecord:
        """Read a record.

        Raises:
            DataError: there is none of this key.
            UnreadableFileError: it is damaged, or a pickle with anything but bytes, texts and whole numbers in it.
        """
        name = key.replace(INDEX, str(index))
        with self._told():
            value = self._transaction.get(name.encode())
        if value is None:
            raise DataError(f"{self.path}: has no record {name!r}; fetch the store again, or use --partial to go on without it")
        return read_record(value, self.source(key, index))

    def source(self, key: str, index: int) -> str:
        """Name a record, for messages."""
        return f"{self.path}: record {key.replace(INDEX, str(index))!r}"

    @contextmanager
    def _told(self) -> Iterator[None]:
        lmdb = _library()
        try:
            yield
        except lmdb.Error as error:
            raise UnreadableFileError(f"{self.path}: damaged LMDB store: {error}; fetch it again") from None


def find_stores(folder: Path) -> list[Path]:
    """List the stores in a folder and below: folders with a ``data.mdb``, and files that end in ``.lmdb`` or ``.mdb``."""
    found = []
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        # A link that leads back would list every store again.
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
        if real in seen:
            continue
        seen.add(real)
        if DATA_FILE in names:
            found.append(Path(place))
        found += [Path(place, name) for name in sorted(names) if name.endswith(_FILE_SUFFIXES) and name not in _OWN_FILES]
    return found


def data_file(path: Path) -> Path:
    """Return the file that holds a store's pages."""
    return path / DATA_FILE if path.is_dir() else path


@contextmanager
def opened(path: Path) -> Iterator[Store]:
    """Open a store; nothing is written, not even a lock.

    Raises:
        UnreadableFileError: no LMDB store, truncated or damaged.
        MissingExtraError: lmdb is not installed.
    """
    lmdb = _library()
    try:
        environment = lmdb.open(
            str(path), subdir=path.is_dir(), readonly=True, lock=False, create=False, readahead=False, max_readers=1, max_dbs=0
        )
    except lmdb.Error as error:
        raise UnreadableFileError(f"{path}: no LMDB store, or truncated or damaged: {error}; fetch it again") from None
    with environment:
        # Pages are mapped into memory, and touching one beyond the end of the file would kill the process.
        wanted = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
        size = data_file(path).stat().st_size
        if size < wanted:
            raise UnreadableFileError(f"{path}: truncated LMDB store: {size:,} bytes, expected {wanted:,}; fetch it again")
        with environment.begin() as transaction:
            yield Store(path, transaction)


def _library() -> Any:
    with needs_extra("lmdb", "LMDB stores"):
        import lmdb
    return lmdb
