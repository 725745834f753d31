"""What a training says while it runs."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping
from typing import Any, Protocol

import torch

_SHOWN = ("loss", "mIoU", "validation_loss", "accepted_share", "agreement", "tiles_per_s", "memory_gb", "time_left_s")


class Listener(Protocol):
    """Takes what a training says; the console of the command line is one."""

    def status(self, text: str) -> None:
        """Show where the training is; replaces the status before."""

    def warn(self, text: str) -> None:
        """Tell something that the user should look into."""


class TrainingProgress:
    """Keeps one line up to date: step, loss, validation mIoU, accepted pseudo-label share, tiles/s, memory and time left."""

    def __init__(self, listener: Listener, steps: int) -> None:
        self.listener = listener
        self.steps = steps
        self._latest: dict[str, float] = {}

    def show(self, step: int, event: Mapping[str, Any]) -> None:
        """Take new figures; ``step`` counts finished steps."""
        self._latest.update({key: float(event[key]) for key in _SHOWN if isinstance(event.get(key), int | float)})
        figures = "  ".join(f"{key} {self._latest[key]:.4g}" for key in _SHOWN if key in self._latest)
        self.listener.status(f"step {step}/{self.steps}  {figures}")

    def warn(self, message: str) -> None:
        """Pass a warning on."""
        self.listener.warn(message)


def memory_gb(device: torch.device) -> float:
    """Peak memory so far in GiB: of the GPU where there is one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return peak / 2**30 if sys.platform == "darwin" else peak / 2**20
