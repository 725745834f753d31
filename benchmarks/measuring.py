"""What the benchmarks of networks and steps share: clocks, spreads, memory, floating-point operations, and words about the machine."""

from __future__ import annotations

import contextlib
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

Round = tuple[float, float]
"""Seconds by the wall clock and of the processors."""


def waiter(device: str) -> Callable[[], None]:
    """What waits for the device: nothing on a CPU."""
    return torch.cuda.synchronize if device == "cuda" else lambda: None


def timed(work: Callable[[], object], device: str) -> Round:
    """Run it to its end."""
    wait = waiter(device)
    wait()
    wall, processor = time.perf_counter(), time.process_time()
    work()
    wait()
    return time.perf_counter() - wall, time.process_time() - processor


def spread(values: Sequence[float], shown: str) -> str:
    """Median, and lowest to highest."""
    return f"{statistics.median(values):{shown}} ({min(values):{shown}} to {max(values):{shown}})"


class Stopwatch:
    """Adds up what pieces of a step take; a piece is what passed since the one before."""

    def __init__(self, wait: Callable[[], None], clock: Callable[[], float]) -> None:
        self._wait, self._clock = wait, clock
        self.pieces: dict[str, float] = {}
        self._last = clock()

    def start(self) -> None:
        """Begin a step."""
        self.pieces = {}
        self._wait()
        self._last = self._clock()

    def note(self, name: str) -> None:
        """A piece is done."""
        self._wait()
        now = self._clock()
        self.pieces[name] = self.pieces.get(name, 0.0) + now - self._last
        self._last = now


def peak_mib(work: Callable[[], object], device: str) -> float:
    """Highest memory that a piece of work adds to what is held, in MiB."""
    if device == "cuda":
        torch.cuda.synchronize()
        held = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - held) / 2**20
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    work()
    return (_status("VmHWM") - before) / 1024


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(name))


def count_flops(make: Callable[[], nn.Module], size: int, *, backward: bool) -> int:
    """Floating-point operations of one image of three bands, on a network without memory."""
    with torch.device("meta"):
        network, images = make(), torch.empty(2, 3, size, size)
    with FlopCounterMode(display=False) as counter:
        mean = network.train(backward)(images).float().mean()
        if backward:
            mean.backward()
    return int(counter.get_total_flops()) // len(images)


def machine(threads: int, device: str) -> Iterator[str]:
    """What it was measured on."""
    processor = platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), processor)
    yield f"{processor}, {os.cpu_count()} processors, {threads} thread(s), load {os.getloadavg()[0]:.1f}"
    if device == "cuda":
        yield torch.cuda.get_device_name()
    yield f"Python {platform.python_version()}, torch {torch.__version__}"
