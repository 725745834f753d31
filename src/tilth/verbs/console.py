"""Where a verb speaks while it works: silent for Python callers unless they ask, lines and a live status for terminals."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO

STATUS_PERIOD_S = 20.0
"""Seconds between status lines where the output is a file or a pipe, so that logs stay readable."""


class Console:
    """A silent console, and the interface of all others."""

    def say(self, text: str) -> None:
        """Tell something that stays to be read: a step done, a choice made."""

    def status(self, text: str) -> None:
        """Show where a long job is; replaces the status before."""

    def warn(self, text: str) -> None:
        """Tell something that the user should look into, though the work goes on."""

    def close(self) -> None:
        """End the live status line, if there is one."""


class TextConsole(Console):
    """Writes to the error stream, so that the output stream carries results only.

    On a terminal the status is one line that rewrites itself; elsewhere it is a line every :data:`STATUS_PERIOD_S` seconds.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._given_stream = stream
        self._live = False
        self._last_status_s = float("-inf")

    @property
    def _stream(self) -> TextIO:
        # Looked up at every use: notebooks and tests exchange sys.stderr.
        return sys.stderr if self._given_stream is None else self._given_stream

    def say(self, text: str) -> None:
        """Write a line."""
        self.close()
        self._write(f"{text}\n")

    def warn(self, text: str) -> None:
        """Write a line that is marked as a warning."""
        self.say(f"tilth: warning: {text}")

    def status(self, text: str) -> None:
        """Rewrite the live line, or write a line if the last one is long enough ago."""
        if self._stream.isatty():
            width = shutil.get_terminal_size().columns - 1
            self._write(f"\r\x1b[2K{text[:width]}")
            self._live = True
            return
        now_s = time.monotonic()
        if now_s - self._last_status_s >= STATUS_PERIOD_S:
            self._last_status_s = now_s
            self._write(f"{text}\n")

    def close(self) -> None:
        """Move on from the live line, which stays as it was last."""
        if self._live:
            self._live = False
            self._write("\n")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
