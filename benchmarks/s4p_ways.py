"""What s4p_step.py measures: tiles, one network, and the ways to train a step of FixMatch on it.

All ways share the weights of one network, and on a CPU also the memory of its optimiser: a ViT-B would fill a small machine otherwise. The
learning rate is next to nothing, so no way trains the others' weights away, and a step costs what it always costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from lightning.fabric import Fabric
from PIL import Image
from torch import Tensor, nn

from measuring import Stopwatch
from published_order import PublishedLoader, Unlabelled, published_step
from tilth import seeds
from tilth.augment.config import WeakConfig
from tilth.catalog.table import Catalog
from tilth.classes import ClassScheme, LandClass
from tilth.methods.base import build_method
from tilth.methods.s4p import fixmatch
from tilth.models.config import NetworkConfig
from tilth.models.network import set_checkpointing
from tilth.models.segmenter import Segmenter, build_segmenter
from tilth.sensors import get_sensor
from tilth.training import loop
from tilth.training import step as one_step
from tilth.training.config import LoopConfig
from tilth.training.optimiser import same_layout
from tilth.training.order import Order
from tilth.training.progress import TrainingProgress
from tilth.training.run import Run
from tilth.training.streams import TileDataset

CLASSES = 16
SCHEME = ClassScheme(
    name="sixteen",
    classes=tuple(LandClass(name=f"class {place}", colour=(40 + 12 * place, (67 * place) % 256, 128)) for place in range(CLASSES)),
)
PRECISIONS = {"fp32": "32", "bf16": "bf16-mixed"}


@dataclass(frozen=True)
class Way:
    """One way to do a step.

    Attributes:
        name: what to call it.
        precision: ``fp32`` or ``bf16``.
        published: whether in the published order, whose teacher is always in full precision.
        partner: ``stream`` or ``batch``.
        loop: settings of our loop.
    """

    name: str
    precision: str
    published: bool = False
    partner: str = "stream"
    loop: dict[str, Any] = field(default_factory=dict)


WAYS = (
    Way("published fp32", "fp32", published=True),
    Way("published bf16", "bf16", published=True),
    Way("tilth fp32", "fp32"),
    Way("tilth bf16", "bf16"),
    Way("partner=batch", "bf16", partner="batch"),
    Way("channels_last", "bf16", loop={"channels_last": True}),
    Way("both of these", "bf16", partner="batch", loop={"channels_last": True}),
    Way("checkpointing", "bf16", loop={"checkpointing": True}),
)


def make_tiles(folder: Path, name: str, count: int, side: int) -> Catalog:
    """Write JPEG tiles of patches in the classes' colours, blurred and noisy, with PNG labels."""
    colours = np.array([one.colour for one in SCHEME.classes])
    rows = []
    for index in range(count):
        random = seeds.generator("benchmark tile", name, index)
        mask = random.integers(0, CLASSES, (8, 8)).astype(np.uint8).repeat(-(-side // 8), 0).repeat(-(-side // 8), 1)[:side, :side]
        image = np.clip(colours[mask] + random.normal(0, 30, (side, side, 3)), 0, 255).astype(np.uint8)
        row = {"tile_id": f"{name}/{index}", "image": str(folder / f"{name}{index}.jpg"), "window": (0, 0, side, side), "sensor": "rgb"}
        Image.fromarray(image).save(row["image"], quality=90)
        if name == "labelled":
            row |= {"label": str(folder / f"{name}{index}.png"), "label_kind": "clean", "scheme": SCHEME.name}
            Image.fromarray(mask).save(row["label"])
        rows.append(row)
    return Catalog.from_rows(rows, {"rgb": get_sensor("rgb")}, {SCHEME.name: SCHEME})


class Silent:
    """Hears what a training says."""

    def status(self, text: str) -> None:
        """Nothing."""

    def warn(self, text: str) -> None:
        """Print it: it may spoil the measurement."""
        print(text)


class Bench:
    """One network of one size, and everything that trains it."""

    def __init__(self, network: str, size: int, batch: int, catalogs: tuple[Catalog, Catalog], folder: Path, device: str) -> None:
        self.size, self.batch, self.device, self.folder, self.catalogs = size, batch, device, folder, catalogs
        named = {"name": network, "image_size": size} if network.startswith("upernet") else {"encoder": network}
        self.config = NetworkConfig(**named)
        self.model = build_segmenter(self.config, get_sensor("rgb"), SCHEME).to(device)
        self.explicit = self.model
        if self.config.name:
            slow = self.config.model_copy(update={"options": {"attention": "explicit"}})
            self.explicit = build_segmenter(slow, get_sensor("rgb"), SCHEME)
            self.explicit.load_state_dict(self.model.state_dict(keep_vars=True), assign=True)
        self.threshold = 0.95
        self.weak = WeakConfig(size=size)
        self.trainers: dict[str, loop.Trainer] = {}
        self.trainer(WAYS[2])
        self.plain = torch.optim.AdamW(self.model.parameters(), lr=1e-12, weight_decay=0.01)

    def trainer(self, way: Way, workers: int = 0) -> loop.Trainer:
        """Our loop, wired as the verb does it."""
        key = f"{way.name} {workers}"
        if key in self.trainers:
            return self.trainers[key]
        set_up = {"batch_size": self.batch, "steps": 1_000_000, "learning_rate": 1e-12, "workers": workers, "accelerator": self.device}
        config = LoopConfig(**{**set_up, "precision": PRECISIONS[way.precision], **way.loop})
        settings = {"partner": way.partner, "teacher_mixed_precision": way.precision != "fp32"}
        method = build_method("s4p", settings, self.model)
        streams = {name: self.catalogs[wanted.source != "labelled"] for name, wanted in method.streams.items()}
        order = Order(config.seed, method.streams, {name: len(rows) for name, rows in streams.items()}, config.batch_size)
        fabric = Fabric(accelerator=self.device, devices=1, precision="32-true" if config.precision == "32" else config.precision)
        dataset = TileDataset(order, streams, CLASSES, self.weak)
        made = loop.Trainer(method, dataset, Run(self.folder / "run"), config, self.weak, fabric, TrainingProgress(Silent(), config.steps))
        if self.trainers:
            made.stepper.optimiser = next(iter(self.trainers.values())).stepper.optimiser
        self.trainers[key] = made
        return made

    def set_threshold(self, threshold: float) -> None:
        """Fresh networks are sure of nothing: let all ways accept what is above this."""
        self.threshold = threshold
        for trainer in self.trainers.values():
            trainer.method.config = trainer.method.config.model_copy(update={"threshold": threshold})

    def published_loader(self, note: Callable[[str], None] = lambda _piece: None) -> PublishedLoader:
        """Loads the tiles of our own fp32 training."""
        dataset = self.trainer(WAYS[2]).dataset
        return PublishedLoader(dataset.order, dict(dataset.catalogs), self.weak, note)

    @contextmanager
    def laid_out(self, way: Way) -> Iterator[None]:
        """Give the shared network the memory layout and the checkpointing of a way."""
        last = bool(way.loop.get("channels_last"))
        self._relay(torch.channels_last if last else torch.contiguous_format)
        if way.loop.get("checkpointing"):
            set_checkpointing(self.model.network, on=True)
        yield
        if way.loop.get("checkpointing"):
            set_checkpointing(self.model.network, on=False)
        self._relay(torch.contiguous_format)

    def _relay(self, layout: torch.memory_format) -> None:
        for weight in self.model.parameters():
            if weight.ndim == 4:
                weight.grad = None
                weight.data = weight.data.contiguous(memory_format=layout)
        for trainer in self.trainers.values():
            same_layout(trainer.stepper.optimiser.optimizer)

    def steps(self, way: Way, watch: Stopwatch) -> Iterator[None]:
        """Do a step each time it is asked for one."""
        return self._published(way, watch) if way.published else self._ours(way, watch)

    def _ours(self, way: Way, watch: Stopwatch) -> Iterator[None]:
        trainer = self.trainer(way)
        self.set_threshold(self.threshold)
        batches = trainer._batches()
        while True:
            raw = next(batches)
            watch.note("read")
            with tapped(trainer, watch):
                trainer.stepper.take(trainer.step, raw)
            trainer.step += 1
            watch.note("rest")
            yield

    def _published(self, way: Way, watch: Stopwatch) -> Iterator[None]:
        loader, step = self.published_loader(watch.note), 0
        plain = self.plain
        if self.device == "cpu":
            # The step's memory is the same; steps of one and the other are counted together.
            plain.state = self.trainer(WAYS[2]).stepper.optimiser.optimizer.state
        while True:
            losses = self.published_losses(loader.labelled(step), loader.unlabelled(step), loader.unlabelled(step, "partner"), way, watch)
            plain.zero_grad()
            ((losses[0] + losses[1]) / 2).backward()
            watch.note("backward")
            plain.step()
            watch.note("optimiser")
            step += 1
            yield

    def published_losses(
        self, labelled: tuple[Tensor, Tensor], first: Unlabelled, other: Unlabelled, way: Way, watch: Stopwatch | None = None
    ) -> tuple[Tensor, Tensor]:
        """Move the batches to the device and compute the losses in the published order."""

        def autocast() -> AbstractContextManager[object]:
            return torch.autocast(self.device, torch.bfloat16) if way.precision == "bf16" else nullcontext()

        moved = [Unlabelled(*(part.to(self.device) for part in vars(one).values())) for one in (first, other)]
        x, y = (part.to(self.device) for part in labelled)
        note = watch.note if watch else lambda _piece: None
        note("rest")
        return published_step(self.explicit, (x, y), *moved, autocast=autocast, note=note, threshold=self.threshold)


@contextmanager
def tapped(trainer: loop.Trainer, watch: Stopwatch) -> Iterator[None]:
    """Let the pieces of our own step tell when they are done."""

    def tap(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def called(*given: Any, **named: Any) -> Any:
            watch.note("rest")
            result = work(*given, **named)
            watch.note(name)
            return result

        return called

    method, student = trainer.method, trainer.method.student
    with ExitStack() as stack:
        for owner, attribute, name in (
            (one_step, "to_batch", "weak view"),
            (fixmatch, "strong_view", "strong view"),
            (method, "teach", "teacher"),
            (trainer.fabric, "backward", "backward"),
            (trainer.stepper, "update", "optimiser"),
        ):
            stack.enter_context(mock.patch.object(owner, attribute, tap(name, getattr(owner, attribute))))
        method.student = tap("student", student)
        yield
        method.student = student


def buffers_of(network: nn.Module) -> Mapping[str, Tensor]:
    """A copy of the running statistics."""
    return {name: buffer.clone() for name, buffer in network.named_buffers()}


def put_back(network: nn.Module, kept: Mapping[str, Tensor]) -> None:
    """Give the running statistics earlier values."""
    with torch.no_grad():
        for name, buffer in network.named_buffers():
            buffer.copy_(kept[name])


def confidences(model: Segmenter, images: Tensor) -> Tensor:
    """What the network is sure of, in evaluation mode: float32 (B, H, W)."""
    model.eval()
    with torch.no_grad():
        return model(images).float().softmax(1).amax(1)
