"""Who of several processes does which part of a job: locks on the bytes of one file, which a process that dies lets go of.

Locks of this kind also work between machines on most shared disks. Where a file system has none, every claim succeeds: work may then be
done twice, so it must be such that doing it twice does no harm.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tilth.errors import TilthError
from tilth.imagery.files import reason_of

_TAKEN = (errno.EACCES, errno.EAGAIN)


class Claims:
    """Claims of this process on the parts of a job, by number.

    The file is opened once: a process that closes any other handle of it lets go of all its locks.
    """

    def __init__(self, file: Path) -> None:
        """Open the file that is locked, which holds nothing.

        Args:
            file: made if missing; its folder exists.

        Raises:
            TilthError: it cannot be made.
        """
        try:
            self._handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise TilthError(f"{file}: cannot be written: {reason_of(error)}") from None
        self._locks = _locks()

    def __enter__(self) -> Self:
        """Work with the claims; afterwards all are let go."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Let go of everything."""
        os.close(self._handle)

    def join(self) -> None:
        """Be one of those who work on the job; waits while somebody has it alone."""
        self._lock("LOCK_SH", 0, wait=True)

    def alone(self) -> bool:
        """Have the job alone; false if others are at work on it, and then nothing has changed."""
        return self._lock("LOCK_EX", 0, wait=False)

    def leave(self) -> None:
        """Be none of those who work on the job."""
        self._lock("LOCK_UN", 0, wait=False)

    def take(self, number: int) -> bool:
        """Claim a part, 0 or more; false if another process has it."""
        return self._lock("LOCK_EX", number + 1, wait=False)

    def let_go(self, number: int) -> None:
        """Let go of a part."""
        self._lock("LOCK_UN", number + 1, wait=False)

    def _lock(self, kind: str, place: int, *, wait: bool) -> bool:
        if self._locks is None:
            return True
        flags = getattr(self._locks, kind) | (0 if wait or kind == "LOCK_UN" else self._locks.LOCK_NB)
        try:
            self._locks.lockf(self._handle, flags, 1, place)
        except OSError as error:
            return error.errno not in _TAKEN
        return True


def _locks() -> Any:
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    return fcntl
