"""A process that dies while it writes."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from typing import Any


def die_at_sync(count: int, work: Callable[..., Any], *words: Any, **more: Any) -> int | None:
    """Do work in a forked process that is killed at its ``count``-th call of ``os.fsync``; returns its exit code."""
    child = multiprocessing.get_context("fork").Process(target=_work, args=(count, work, words, more))
    child.start()
    child.join(100)
    return child.exitcode


def _work(count: int, work: Callable[..., Any], words: tuple[Any, ...], more: dict[str, Any]) -> None:
    left, inner = [count], os.fsync

    def strike(handle: int) -> None:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        inner(handle)

    os.fsync = strike
    work(*words, **more)
