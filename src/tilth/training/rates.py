"""How fast a machine computes, measured in about a second, to turn counted work into time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from tilth.models.inference import PRECISIONS
from tilth.training.estimate import StepCost

_SECONDS = 0.25
"""That each kind of work is watched for."""


@dataclass(frozen=True)
class Rates:
    """What a machine does in a second, and what a call costs it.

    Attributes:
        convolutions: floating-point operations of convolutions.
        products: of matrix products.
        moved: bytes read and written by all else; None where they are not to be counted.
        call: seconds that an operation takes however small it is.
    """

    convolutions: float
    products: float
    moved: float | None
    call: float = 0.0

    def seconds(self, cost: StepCost) -> float:
        """Time of an optimiser step, if nothing has to be waited for and no work overlaps."""
        moving = 0.0 if self.moved is None else cost.moved / self.moved
        return cost.convolutions / self.convolutions + cost.products / self.products + moving + cost.calls * self.call


def measure_rates(device: torch.device, precision: str = "32") -> Rates:
    """Watch a device convolve, multiply matrices and move numbers, each for a quarter of a second.

    Args:
        device: which.
        precision: a key of :data:`tilth.models.inference.PRECISIONS`.
    """
    kind = PRECISIONS[precision] or torch.float32
    with torch.no_grad():
        left, right = (torch.ones(shape, dtype=kind, device=device) for shape in ((1024, 768), (768, 768)))
        products = 2 * 1024 * 768 * 768 / _watch(lambda: left @ right, device)
        # As much as a tensor of a network holds, so that it does not stay in a processor's caches; the result is new memory, as there.
        numbers = torch.ones(2**22, dtype=kind, device=device)
        moved = 3 * numbers.numel() * numbers.element_size() / _watch(lambda: numbers + numbers, device)
        single = torch.ones(1, device=device)
        call = _watch(lambda: single + single, device)
    image = torch.ones(4, 64, 64, 64, dtype=kind, device=device, requires_grad=True)
    weight = torch.ones(64, 64, 3, 3, dtype=kind, device=device, requires_grad=True)
    gradient = torch.ones_like(image)

    def convolve() -> None:
        torch.autograd.grad(F.conv2d(image, weight, padding=1), (image, weight), gradient)

    forward = 2 * 4 * 64 * 64 * 64 * 64 * 9
    return Rates(3 * forward / _watch(convolve, device), products, moved, call)


def _watch(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, warm."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    work()
    wait()
    began, calls = time.perf_counter(), 0
    while time.perf_counter() - began < _SECONDS:
        for _ in range(4):
            work()
        wait()
        calls += 4
    return (time.perf_counter() - began) / calls
