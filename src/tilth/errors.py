"""Every error tilth raises on purpose.

One root, :class:`TilthError`; each child is also the natural built-in, so callers may catch either. A message says what
arrived, what was expected and how to mend it, in one or two lines. ``exit_code`` is what the command line ends with:
1 when data or a run failed, 2 when the request itself was wrong.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class TilthError(Exception):
    """Root of all errors that tilth raises on purpose."""

    exit_code = 1


class UsageError(TilthError, ValueError):
    """The request is wrong: an unknown name, option or value."""

    exit_code = 2


class SmallBatchError(UsageError):
    """Batch norm would have to learn from one value for each channel."""


class ConfigError(UsageError):
    """A configuration does not validate; the message lists every problem with its path."""


class DataError(TilthError, ValueError):
    """Imagery, labels or a table are not what they must be."""


class MissingFileError(TilthError, FileNotFoundError):
    """A file or folder that was named does not exist."""


class UnreadableFileError(DataError, OSError):
    """A file exists but cannot be read: truncated, corrupt or of an unknown format."""


class CatalogError(DataError):
    """A catalog is malformed, of a newer schema, or lacks what a stage needs."""


class SensorMismatchError(DataError):
    """Pixels or a model belong to another sensor than the one expected."""


class OutputExistsError(TilthError, FileExistsError):
    """The place to write to already holds something that would be lost."""


class RunError(TilthError, RuntimeError):
    """A run cannot start, go on or be resumed."""


class InterruptedRunError(TilthError):
    """A run was asked to stop and left a checkpoint to go on from."""

    exit_code = 130


class MissingExtraError(TilthError, ImportError):
    """An optional dependency is needed and not installed."""


class TilthWarning(UserWarning):
    """Root of all warnings that tilth issues."""


@contextmanager
def needs_extra(extra: str, what: str) -> Iterator[None]:
    """Wrap imports of optional libraries: an absent one becomes one line that names the extra to install.

    Args:
        extra: name in ``optional-dependencies``: ``geo``, ``report``, ``tensorboard``, ``export``, ``insight`` or ``lmdb``.
        what: what cannot be done without it, as subject of the message.

    Raises:
        MissingExtraError: an import inside failed.

    Example:
        >>> with needs_extra("geo", "footprints"):
        ...     import no_such_library
        Traceback (most recent call last):
        tilth.errors.MissingExtraError: footprints: No module named 'no_such_library'; install it with: pip install 'tilth[geo]'
    """
    try:
        yield
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise MissingExtraError(f"{what}: {reason}; install it with: pip install 'tilth[{extra}]'") from None


def suggest(word: str, choices: Iterable[str]) -> str:
    """Say which choices exist, nearest first, for the end of an error message.

    Args:
        word: what the user wrote.
        choices: the names that would have been right.

    Returns:
        ``"did you mean 'x'? choices: a, b, x"`` or, without a near miss, the choices alone.

    Example:
        >>> suggest("dubia", ["dubai", "korea"])
        "did you mean 'dubai'? choices: dubai, korea"
    """
    names = sorted(set(choices))
    # Case is a near miss too: miou for mIoU.
    by_lower = {name.lower(): name for name in names}
    near = [by_lower[found] for found in difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)]
    lead = f"did you mean {near[0]!r}? " if near else ""
    return f"{lead}choices: {', '.join(names) or 'none'}"
