"""Small files that would fill the memory: refused before they are read."""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import IO

from tilth.errors import UnreadableFileError

_INFLATED = 1 << 30
"""Bytes to which compressed parts may grow in any case."""

_RATIO = 20
"""How many times larger than the file they may become; weights hardly shrink at all."""

_FILLING = 1 << 26
"""Bytes that a pickle may ask for without bringing them."""

_STEPS = 5_000_000
_PICKLES = 5
"""Pickles at the beginning of a file of before 2020."""


def check_inflation(file: Path, members: Iterable[zipfile.ZipInfo]) -> None:
    """Refuse a zip archive whose parts grow beyond all measure.

    Raises:
        UnreadableFileError: they do.
    """
    inflated = sum(member.file_size for member in members if member.compress_type != zipfile.ZIP_STORED)
    if inflated > max(_INFLATED, _RATIO * file.stat().st_size):
        raise UnreadableFileError(
            f"{file}: refused, since its compressed parts would grow to {inflated:,} bytes; save the weights uncompressed"
        )


def check_pickle(file: Path, opened: IO[bytes]) -> None:
    """Refuse a pickle that asks for a large block of zeros: the restricted reader allows ``bytearray``, with any number.

    Args:
        file: for the error.
        opened: at the beginning of one or several pickles; read without building anything.

    Raises:
        UnreadableFileError: it does. What is damaged is left to the reader to say.
    """
    names, large = False, 0
    try:
        for _ in range(_PICKLES):
            names, large = False, 0
            for code, argument, _place in islice(pickletools.genops(opened), _STEPS):
                if isinstance(argument, str):
                    names = names or argument.endswith("bytearray")
                elif (isinstance(argument, int) and "INT" in code.name) or code.name in ("LONG", "LONG1", "LONG4"):
                    large = max(large, int(argument or 0))
            if names and large > _FILLING:
                break
    except Exception:  # noqa: S110 - a damaged pickle ends in almost any error; the reader says which
        pass
    if names and large > _FILLING:
        raise UnreadableFileError(
            f"{file}: refused, since it asks for a block of up to {large:,} bytes that it does not bring; nothing was run"
        )
