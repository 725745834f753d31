"""Memory of a training on a CPU: what one step gives back, the next one asks for again."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any

import torch

# Numbers of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_NEVER = -1
_MIB = 1 << 20

_LARGEST = 32
"""Threshold in MiB that glibc itself comes to, at most, in a process that uses large pieces."""


@contextlib.contextmanager
def kept_memory(device: torch.device) -> Iterator[None]:
    """Let the process keep freed memory while a network is trained on a CPU.

    The C library of most Linux systems (glibc) returns large pieces to the system as soon as they are free, and gets them back page by
    page, each cleared first: a fifth of the time of a convolutional network's step. The most memory that is held stays the same. Results
    do not depend on it. Elsewhere, and on other devices, nothing happens.

    Args:
        device: where the network is trained.
    """
    library = _glibc() if device.type == "cpu" else None
    if library is None:
        yield
        return
    if not library.mallopt(_MMAP_THRESHOLD, 1024 * _MIB):
        # Versions before 2.35 take no more. Without any, the next line would freeze the value at whatever it is so far.
        library.mallopt(_MMAP_THRESHOLD, _LARGEST * _MIB)
    library.mallopt(_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        library.mallopt(_MMAP_THRESHOLD, _LARGEST * _MIB)
        library.mallopt(_TRIM_THRESHOLD, 2 * _LARGEST * _MIB)
        library.malloc_trim(0)


def _glibc() -> Any:
    """The C library, if it is glibc: others lack these functions, or have them do nothing."""
    try:
        library = ctypes.CDLL(None)
        return library if hasattr(library, "gnu_get_libc_version") and hasattr(library, "mallopt") else None
    except (OSError, TypeError):  # Windows takes no None
        return None
