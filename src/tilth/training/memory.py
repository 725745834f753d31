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
    library.mallopt(_MMAP_THRESHOLD, 1024 * _MIB)
    library.mallopt(_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        # The values that glibc itself comes to in a process that uses large pieces.
        library.mallopt(_MMAP_THRESHOLD, 32 * _MIB)
        library.mallopt(_TRIM_THRESHOLD, 64 * _MIB)
        library.malloc_trim(0)


def _glibc() -> Any:
    """The C library, if it is glibc: others lack these functions, or have them do nothing."""
    try:
        library = ctypes.CDLL(None)
        return library if hasattr(library, "gnu_get_libc_version") and hasattr(library, "mallopt") else None
    except (OSError, TypeError):  # Windows takes no None
        return None
