"""Metrics of a run: summed on the device between two log lines, then written as JSON lines and for TensorBoard."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tilth.methods.base import Losses
from tilth.training.distributed import mean_over_ranks
from tilth.training.progress import memory_gb
from tilth.training.run import Run

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class MetricLog:
    """Collects what steps yield and writes it every now and then.

    Args:
        run: where ``metrics.jsonl`` and ``tensorboard/`` go.
        step: steps done before this session; TensorBoard hides older lines from after it.
        enabled: False on all processes but the first; sums are still exchanged.
    """

    def __init__(self, run: Run, step: int, *, enabled: bool) -> None:
        self.run = run
        self.enabled = enabled
        self._writer = _tensorboard(run, step) if enabled else None
        self._sums: dict[str, Tensor] = {}
        self._shares: dict[str, tuple[Tensor, Tensor]] = {}
        self._steps = 0
        self._tiles = 0
        self._since = time.perf_counter()

    def add(self, found: Sequence[Losses], tiles: int) -> None:
        """Add one step without waiting for the device: its micro-batches (none if it was skipped), and how many tiles it took."""
        for losses in found:
            for name, value in {"loss": losses.total, **losses.terms}.items():
                self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value.detach() / len(found)
            for name, (above, below) in losses.shares.items():
                sums = self._shares.get(name, (torch.zeros_like(above, dtype=torch.float64), torch.zeros_like(below, dtype=torch.float64)))
                self._shares[name] = (sums[0] + above.detach(), sums[1] + below.detach())
        self._steps += bool(found)
        self._tiles += tiles

    def flush(
        self, step: int, seconds: float, device: torch.device, extra: Mapping[str, float]
    ) -> tuple[dict[str, Any], dict[str, list[float]]]:
        """Write the means since the last line.

        Returns:
            The line, and the shares as lists with NaN where nothing was counted.
        """
        passed = max(time.perf_counter() - self._since, 1e-9)
        event: dict[str, Any] = {name: float(mean_over_ranks(value)) / self._steps for name, value in self._sums.items()}
        shares: dict[str, list[float]] = {}
        for name, (above, below) in self._shares.items():
            quotient = (mean_over_ranks(above) / mean_over_ranks(below)).flatten().tolist()
            shares[name] = quotient
            event.update({name: quotient[0]} if above.ndim == 0 else {f"{name}/{index}": value for index, value in enumerate(quotient)})
        event |= {**extra, "tiles_per_s": self._tiles / passed, "memory_gb": memory_gb(device)}
        event = {name: value for name, value in event.items() if value == value}  # NaN: nothing was counted
        self.write(step, "train", seconds, event)
        self._sums, self._shares, self._steps, self._tiles, self._since = {}, {}, 0, 0, time.perf_counter()
        return event, shares

    def write(self, step: int, kind: str, seconds: float, values: Mapping[str, float]) -> None:
        """Write one line of ``kind`` ``train`` or ``val``."""
        if not self.enabled:
            return
        self.run.log({"step": step, "kind": kind, "time_s": seconds, **values})
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{kind}/{name}", value, step)

    def warn(self, step: int, message: str) -> None:
        """Keep a warning with the metrics, so that the report can show it."""
        if self.enabled:
            self.run.log({"step": step, "kind": "warning", "message": message})

    def state_dict(self) -> dict[str, Any]:
        """Means over all processes of what was not written yet, so that a resumed run writes the same line; all processes must ask."""
        return {
            "steps": self._steps,
            "sums": {name: mean_over_ranks(value) for name, value in self._sums.items()},
            "shares": {name: [mean_over_ranks(above), mean_over_ranks(below)] for name, (above, below) in self._shares.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Take back what :meth:`state_dict` gave."""
        self._steps = state["steps"]
        self._sums = {name: value.to(device) for name, value in state["sums"].items()}
        self._shares = {name: (above.to(device), below.to(device)) for name, (above, below) in state["shares"].items()}

    def close(self) -> None:
        """Flush TensorBoard's file."""
        if self._writer is not None:
            self._writer.close()


def _tensorboard(run: Run, step: int) -> SummaryWriter | None:
    """Open TensorBoard's file; None where TensorBoard is not installed, for ``metrics.jsonl`` holds the same."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(run.folder / "tensorboard"), purge_step=step + 1)
