"""What a step of a training needs, counted without doing it: memory, operations, bytes moved.

The method's own step runs on tensors that have shapes and types but no numbers (torch's fake tensors), forwards and backwards. Every
tensor that this makes is counted while it lives, so what autograd keeps, what checkpointing spares and what is only there for a moment come
out by themselves. Nothing of the size of the network is allocated, and no GPU is needed. What the optimiser does is known beforehand.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

from tilth import seeds
from tilth.batch import Batch
from tilth.methods.base import Losses, Method, Stream, build_method
from tilth.models.config import NetworkConfig
from tilth.models.inference import PRECISIONS
from tilth.models.network import set_checkpointing
from tilth.models.segmenter import build_segmenter
from tilth.sensors import Sensor
from tilth.training.config import LoopConfig
from tilth.training.freezing import Freezing

if TYPE_CHECKING:
    from tilth.classes import ClassScheme

_PASSES, _FUSED_PASSES = 20, 7
"""How often AdamW reads or writes each parameter, gradient or moment: operation by operation, and fused."""

_SEASONS = 4
"""Seasons of a place, where a stream asks for them; how many there are, the catalog knows."""

_CALLS = 10
"""Operations of AdamW on each tensor, where they are not fused."""


@dataclass(frozen=True)
class StepCost:
    """What one optimiser step needs on each device; memory in bytes, at the same time.

    Attributes:
        parameters: numbers that are trained.
        weights: of parameters and buffers.
        gradients: of all parameters; twice that where several processes exchange them.
        optimiser: its moments.
        average: the averaged weights, where one is kept.
        batches: tensors of the tiles of one pass.
        activations: everything else that lives when most does: what the backward pass needs, and values of the moment.
        peak: most that lives at once. Gradients come as activations go, so this is less than the sum.
        convolutions: floating-point operations of convolutions, forwards and backwards.
        products: the same of matrix products and attention.
        moved: bytes that all other operations read and write.
        calls: number of operations.
    """

    parameters: int
    weights: int
    gradients: int
    optimiser: int
    average: int
    batches: int
    activations: int
    peak: int
    convolutions: int
    products: int
    moved: int
    calls: int

    @property
    def operations(self) -> int:
        """Floating-point operations."""
        return self.convolutions + self.products


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's mode is untyped
    """Lets operations on tensors without numbers pass, and counts memory, bytes moved and calls.

    What holds numbers stays as it is: which images get a box, and how each is augmented, follows from seeds, and decides shapes.
    """

    def __init__(self, fake: FakeTensorMode) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.fake = fake
        self.live = self.peak = self.moved = self.calls = 0
        self._sizes: dict[int, int] = {}

    def note(self, tensor: Tensor) -> None:
        """Count a tensor from now until its memory is given back; views of one memory count once."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._sizes:
            return
        self._sizes[key] = storage.nbytes()
        self.live += self._sizes[key]
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.live -= self._sizes.pop(key)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.ops.aten._local_scalar_dense.default and isinstance(args[0], FakeTensor):
            return _some_number(args[0].dtype)
        given = [item for item in tree_iter((args, kwargs)) if isinstance(item, Tensor)]
        if given and not any(isinstance(item, FakeTensor) for item in given):
            return function(*args, **(kwargs or {}))
        with self.fake:
            found = function(*args, **(kwargs or {}))
        made = [item for item in tree_iter(found) if isinstance(item, Tensor)]
        for item in made:
            self.note(item)
        if not _is_view(given, made) or function._schema.is_mutable:
            self.calls += 1
            if function.overloadpacket not in _ARITHMETIC:
                self.moved += sum(item.numel() * item.element_size() for item in [*given, *made])
        return found


def _some_number(kind: torch.dtype) -> bool | int | float:
    """What a tensor without numbers answers when a method asks for one, such as the rank of a percentile."""
    if kind == torch.bool:
        return True
    return 1.0 if kind.is_floating_point else 1


_ARITHMETIC = frozenset(
    {torch.ops.aten.convolution, torch.ops.aten.convolution_backward, torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm}
)
"""Bound by arithmetic, not by memory: counted by their operations alone."""


def _is_view(given: Sequence[Tensor], made: Sequence[Tensor]) -> bool:
    places = {item.untyped_storage()._cdata for item in given}
    return bool(made) and all(item.untyped_storage()._cdata in places for item in made)


def estimate_step(
    method_name: str,
    settings: Mapping[str, Any],
    network: NetworkConfig,
    sensor: Sensor,
    scheme: ClassScheme,
    loop: LoopConfig,
    size: int,
) -> StepCost:
    """Count what one optimiser step needs on each device.

    Args:
        method_name: of :func:`tilth.methods.method_names`.
        settings: of the method.
        network: which network; no weights are read.
        sensor: bands.
        scheme: classes.
        loop: batch, devices, accumulation, precision, checkpointing, average.
        size: side of a crop in pixels.

    Raises:
        ConfigError: whatever the training itself would refuse of these.
    """
    fresh = network.model_copy(update={"pretrained": False})
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        model = build_segmenter(fresh, sensor, scheme, loop.seed)
    method = build_method(method_name, settings, model, loop.seed)
    if loop.checkpointing:
        set_checkpointing(model.network, on=True)
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake:
        method.trained.to_empty(device="cpu").train()
        freezing = Freezing(model, loop.transfer)
        if loop.transfer.frozen == "always":  # one that learns later needs most when it does
            freezing.before(0)
        tiles = loop.batch_size // (loop.devices * loop.nodes * loop.accumulate)
        batches = {name: _batch(name, stream, tiles, len(sensor), size) for name, stream in method.streams.items()}
    method.autocast = _mixed(loop)
    method.student = _student(method.trained, method.autocast)
    # An average has the memory of a second model, which is added below, and the passes of the first.
    method.average = model if loop.average_decay else None
    method.check()
    return _count(method, batches, fake, loop)


def _count(method: Method, batches: Mapping[str, Batch], fake: FakeTensorMode, loop: LoopConfig) -> StepCost:
    counter = _Counter(fake)
    state = [*method.trained.parameters(), *method.trained.buffers()]
    for tensor in state:
        counter.note(tensor)
    weights = counter.live
    for value in tree_iter(batches):
        if isinstance(value, Tensor):
            counter.note(value)
    held = counter.live
    with counter, FlopCounterMode(display=False) as arithmetic, warnings.catch_warnings():
        # Fake tensors warn of whoever asks for their address; where images are changed in place, an answer of 0 does no harm.
        warnings.simplefilter("ignore")
        _pass(method, batches)
    parameters = [item for item in method.trained.parameters() if item.requires_grad]
    fused = loop.fused is True
    moments = (1 if loop.optimiser == "sgd" else 2) * sum(item.numel() * item.element_size() for item in parameters)
    updating = 0 if fused else 2 * max(item.numel() * item.element_size() for item in parameters)
    gradients = sum(item.grad.numel() * item.grad.element_size() for item in parameters if item.grad is not None)
    average = weights if loop.average_decay else 0
    exchanged = gradients if loop.devices * loop.nodes > 1 else 0
    # With accumulation, the gradients of the passes before are there when activations come.
    kept = moments + average + exchanged + (gradients if loop.accumulate > 1 else 0)
    work = arithmetic.get_flop_counts()["Global"]
    convolved = sum(count for operation, count in work.items() if "convolution" in str(operation))
    return StepCost(
        parameters=sum(item.numel() for item in parameters),
        weights=weights,
        gradients=gradients + exchanged,
        optimiser=moments,
        average=average,
        batches=held - weights,
        activations=counter.peak - held,
        peak=kept + max(counter.peak, weights + gradients + updating),
        convolutions=loop.accumulate * convolved,
        products=loop.accumulate * (sum(work.values()) - convolved),
        moved=loop.accumulate * counter.moved + moments // 2 * (_FUSED_PASSES if fused else _PASSES),
        calls=loop.accumulate * counter.calls + (1 if fused else _CALLS * len(parameters)),
    )


def _pass(method: Method, batches: Mapping[str, Batch]) -> None:
    losses: Losses = method.step(batches, 0)
    losses.total.backward()  # type: ignore[no-untyped-call]  # torch's backward is untyped


def _batch(name: str, stream: Stream, tiles: int, bands: int, size: int) -> Batch:
    batch = Batch(
        image=torch.empty(tiles, bands, size, size),
        mask=torch.empty(tiles, size, size, dtype=torch.int64),
        valid=torch.empty(tiles, size, size, dtype=torch.bool),
        tile_id=[f"{name}-{place}" for place in range(tiles)],
        draw=[seeds.derive(0, name, place) for place in range(tiles)],
    )
    if stream.confidence:
        batch["confidence"] = torch.empty(tiles, size, size)
    if stream.seasons:
        batch["seasons"] = torch.empty(tiles, _SEASONS, size, size, dtype=torch.int64)
    if stream.reference:
        batch["reference"] = torch.empty(tiles, size, size, dtype=torch.int64)
    return batch


def _mixed(loop: LoopConfig) -> Callable[[], AbstractContextManager[Any]]:
    kind = PRECISIONS[loop.precision]
    return nullcontext if kind is None else lambda: torch.autocast("cpu", kind)


def _student(trained: nn.Module, autocast: Callable[[], AbstractContextManager[Any]]) -> Callable[..., Any]:
    def call(*words: Any, **named: Any) -> Any:
        with autocast():
            return trained(*words, **named)

    return call
