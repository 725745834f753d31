"""What all result files share: their base class, number types, how they are read, and division that knows nothing of NaN.

Needs neither torch nor GDAL nor NumPy.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated, TypeVar

import pydantic

from tilth.errors import DataError, MissingFileError, TilthError, UnreadableFileError

Fraction = Annotated[float, pydantic.Field(ge=0, le=1)] | None
Count = Annotated[int, pydantic.Field(ge=0)]

Interval = tuple[float, float]
"""Lower and upper end."""


class Record(pydantic.BaseModel):
    """Base of everything that is stored in result files: frozen, closed, finite numbers only, JSON names as aliases."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)


R = TypeVar("R", bound=Record)


def read_record(kind: type[R], path: str | Path, name: str) -> R:
    """Read a stored record, naming the file and the first wrong place in any message.

    Args:
        kind: class to validate against.
        path: the file, or the folder that holds it.
        name: file name looked for in a folder.

    Raises:
        MissingFileError: there is no such file.
        UnreadableFileError: it cannot be read as text.
        DataError: the content does not validate.
    """
    file = Path(path)
    file = file / name if file.is_dir() else file
    if not file.is_file():
        raise MissingFileError(f"{file}: no such file; give a {name} or the folder that holds it")
    try:
        return kind.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableFileError(f"{file}: cannot be read: {error}") from None
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        message = first["msg"].removeprefix("Value error, ")
        raise DataError(f"{file}: cannot be read as {name} of this version: {where}: {message}; write it again, or upgrade tilth") from None


def withdraw(file: Path) -> None:
    """Remove an earlier result before the files that belong to it are replaced, so that it never stands beside those of another one.

    Raises:
        TilthError: it cannot be removed.
    """
    try:
        file.unlink(missing_ok=True)
    except NotADirectoryError:
        # Nothing lies below a file; who writes there next says so.
        return
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise TilthError(f"{file}: cannot be replaced: {reason}; choose another folder") from error


def ratio(numerator: float, denominator: float) -> float | None:
    """Divide; None where the denominator is 0, so that NaN never arises."""
    return numerator / denominator if denominator else None


def mean(values: list[float]) -> float | None:
    """Mean with exactly rounded summation; None of an empty list."""
    return ratio(math.fsum(values), len(values))
