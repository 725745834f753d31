"""Records of published LMDB stores: pickled tuples, read so that no code of theirs can run.

A pickle is a small program that may name any function to call. Here it finds none: the few names that tuples of bytes, texts and whole
numbers need lead to functions of this module, and every other name is refused.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilth.errors import DataError, UnreadableFileError

_INTEGER = re.compile("[iu][1248]")
_DIMENSIONS = 4


@dataclass(frozen=True)
class StoredRecord:
    """One record as it is stored.

    Attributes:
        data: bytes of the array, in C order.
        shape: of the array.
        name: what the record calls itself, such as ``s1_<name>.tif`` or the id of a location; None where it does not.
    """

    data: bytes
    shape: tuple[int, ...]
    name: str | None

    def array(self, dtype: str, source: str) -> NDArray[Any]:
        """Return the array.

        Args:
            dtype: NumPy name of the type; numbers are stored with the lowest byte first.
            source: store and key, for messages.

        Raises:
            DataError: another number of bytes than the shape takes.
        """
        kind = np.dtype(dtype).newbyteorder("<")
        wanted = math.prod(self.shape) * kind.itemsize
        if len(self.data) != wanted:
            shape = " x ".join(map(str, self.shape))
            raise DataError(f"{source}: holds {len(self.data):,} bytes, expected {wanted:,} for {shape} of {dtype}; fetch the store again")
        return np.frombuffer(self.data, kind).reshape(self.shape)


def read_record(value: bytes, source: str) -> StoredRecord:
    """Read a pickled ``(bytes, shape)`` or ``(bytes, shape, id)`` (cromss.md section 2.4).

    Args:
        value: as stored; not trusted.
        source: store and key, for messages.

    Raises:
        UnreadableFileError: no such tuple, damaged, or a pickle that asks for anything but bytes, texts and whole numbers.

    Example:
        >>> read_record(pickle.dumps((b"12", (1, 2), "s1_a.tif")), "store")
        StoredRecord(data=b'12', shape=(1, 2), name='s1_a.tif')
    """
    try:
        found = _Reader(io.BytesIO(value)).load()
    # Whatever bytes that are no pickle make the reader say.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableFileError(f"{source}: no record of bytes, shape and id: {reason}") from None
    if not isinstance(found, tuple) or not 2 <= len(found) <= 3 or not isinstance(found[0], bytes):
        raise UnreadableFileError(f"{source}: expected a record of bytes, shape and id, found {_kind(found)}")
    shape = found[1]
    sizes = all(isinstance(size, int) and size > 0 for size in shape) if isinstance(shape, tuple) else False
    if not sizes or not 1 <= len(shape) <= _DIMENSIONS:
        raise UnreadableFileError(f"{source}: expected a shape of 1 to {_DIMENSIONS} whole numbers, found {str(shape)[:60]}")
    name = found[2] if len(found) == 3 else None
    if not (name is None or isinstance(name, str | int | bytes)):
        raise UnreadableFileError(f"{source}: expected an id of text or a number, found {_kind(name)}")
    return StoredRecord(found[0], shape, name.decode(errors="replace") if isinstance(name, bytes) else None if name is None else str(name))


def _kind(found: object) -> str:
    length = f" of {len(found)}" if isinstance(found, tuple | list) else ""
    return f"{type(found).__name__}{length}"


class _Integer:
    """Stands for ``numpy.dtype`` of a whole number."""

    def __init__(self, name: object, *_flags: object) -> None:
        if not isinstance(name, str) or not _INTEGER.fullmatch(name):
            raise pickle.UnpicklingError(f"numbers of type {str(name)[:20]!r} are not read")
        self.size, self.signed = int(name[1]), name[0] == "i"
        self.big = False

    def __setstate__(self, state: Any) -> None:
        self.big = state[1] == ">"


def _number(kind: object, data: object) -> int:
    """Stand for ``numpy.core.multiarray.scalar``."""
    if not isinstance(kind, _Integer) or not isinstance(data, bytes) or len(data) != kind.size:
        raise pickle.UnpicklingError("a damaged number")
    return int.from_bytes(data, "big" if kind.big else "little", signed=kind.signed)


def _encoded(text: object, encoding: object) -> bytes:
    """Stand for ``_codecs.encode``, by which old pickles write bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("a damaged text")
    return text.encode("latin1")


_KNOWN: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): _Integer,
    ("numpy.core.multiarray", "scalar"): _number,
    ("numpy._core.multiarray", "scalar"): _number,
    ("_codecs", "encode"): _encoded,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _KNOWN.get((module, name))
        if found is None:
            raise pickle.UnpicklingError(f"asks for {module[:40]}.{name[:40]}; records may hold bytes, texts and whole numbers only")
        return found
