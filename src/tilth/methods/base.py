"""What a method is: the streams it asks for, and a ``step`` that turns their batches into losses."""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tilth import seeds
from tilth.batch import Batch
from tilth.config import Config
from tilth.errors import ConfigError, suggest
from tilth.methods import method_names
from tilth.models.segmenter import Segmenter


@dataclass(frozen=True)
class Stream:
    """One named supply of batches.

    Attributes:
        source: ``labelled`` or ``unlabelled``: which catalog the tiles come from.
        differs_from: name of another stream; in every slot this one then shows another tile than that stream does.
        confidence: whether its batches also hold how sure the makers of the labels were.
        seasons: whether it walks over places instead of tiles. Of a place with several seasons (rows of equal ``location_id`` and window)
            each slot shows one, drawn anew, and its batches also hold the labels of all.
        reference: whether its batches also hold clean labels to compare with, where the catalog has a column ``reference``.
    """

    source: str
    differs_from: str | None = None
    confidence: bool = False
    seasons: bool = False
    reference: bool = False


@dataclass
class Losses:
    """What one step of a method yields.

    Attributes:
        terms: scalars by name, weights applied; the loop minimises their sum.
        shares: by name, numerator and denominator (equal shapes); the loop sums both between two log lines and logs the quotient, one
            value a class for vectors.
    """

    terms: dict[str, Tensor]
    shares: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @property
    def total(self) -> Tensor:
        """The scalar to minimise."""
        return torch.stack(list(self.terms.values())).sum()


@dataclass(frozen=True)
class Score:
    """What tells how good a training is on tiles that it does not see.

    Attributes:
        name: what validation calls it.
        higher_is_better: whether the best is the highest.
    """

    name: str
    higher_is_better: bool = True

    def better(self, score: float, best: float | None) -> bool:
        """Whether a score is better than the best so far; anything is better than none."""
        return best is None or (score > best if self.higher_is_better else score < best)


class Method(ABC):
    """How a network learns. One file each, read top to bottom like the paper.

    Attributes:
        needs_labels: whether any stream is labelled; without, a training has no classes, and validates by the method's own loss.
        score: what validation tells, and the best weights are kept by.
        also_scored: names of what validation tells besides, for methods that need no labels.
        defaults: options of a training that are usual with this method, as a mapping in mappings; what a user gives wins. Looked at for
            the methods of :data:`tilth.methods.VARIANT_BY_VERB`.
        takes_target: whether the method may learn from tiles of a target at the end.
        target_share: share of the steps, at the end, that do, where there are such tiles.
        preview_every: steps between two calls of :meth:`preview`; 0 for none.
        streams: the named supplies of batches that ``step`` wants.
        model: the bare network being trained.
        trained: what the loop trains: the model, or a module of the method's own that holds it, calls it in another way or adds layers
            that are optimised, kept in checkpoints and left behind when the model is exported.
        student: calls ``trained`` for the training pass; under several processes it is the wrapper that averages gradients.
        average: the exponential moving average of the model, where the loop keeps one.
        autocast: enters the run's mixed precision; the student enters it by itself.
        count: turns a local pixel count into the denominator of a mean: itself, or the mean over all processes.
        gather: stacks a tensor of one shape from all processes, first axis over processes; no gradient passes.
        passes: how often the tiles of the first stream have been shown before a step; need not be whole.
        seed: of the run, for draws that belong to a step; those of a sample are functions of its ``draw``.
    """

    Config: ClassVar[type[Config]]
    needs_labels: ClassVar[bool] = True
    score: ClassVar[Score] = Score("mIoU")
    also_scored: tuple[str, ...] = ()
    defaults: ClassVar[Mapping[str, Any]] = {}
    takes_target: ClassVar[bool] = False
    target_share: float = 0.0
    preview_every: int = 0
    streams: Mapping[str, Stream]

    def __init__(self, config: Any, model: Segmenter) -> None:
        self.config = config
        self.model = model
        self.trained: nn.Module = model
        self.student: Callable[..., Any] = model
        self.average: Segmenter | None = None
        self.autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
        self.count: Callable[[Tensor], Tensor] = lambda count: count
        self.gather: Callable[[Tensor], Tensor] = lambda value: value.unsqueeze(0)
        self.passes: Callable[[int], float] = lambda _step: 0.0
        self.seed = 0

    def check(self) -> None:  # noqa: B027 - a method need not have anything to refuse
        """Refuse settings that the run cannot serve; called before the first step, when the loop has set all attributes."""

    def start_fresh(self) -> None:  # noqa: B027 - a method need not care what fresh weights are
        """Give fresh weights what this method begins with; not called where the network starts from weights that were read."""

    @abstractmethod
    def step(self, batches: Mapping[str, Batch], step: int) -> Losses:
        """Compute the losses of one step; the network is in training mode and nothing else may change its state."""

    def validation_sums(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Compute a loss of held-out tiles without labels, as numerator and denominator; for methods that need no labels.

        Called in evaluation mode and without gradient. Both are scalars, or vectors: the score, then :attr:`also_scored`.
        """
        raise NotImplementedError(f"{type(self).__name__} validates on labels")

    def export(self, model: Segmenter, folder: Path) -> None:
        """Write what the training leaves: by default the model folder.

        Args:
            model: the weights to keep: the model, or its average.
            folder: where to.
        """
        model.save(folder)

    def preview(self, model: Segmenter, step: int, folder: Path) -> None:  # noqa: B027 - most methods have nothing to show
        """Write pictures of what has been learnt, on the first process.

        Args:
            model: the weights to keep: the model, or its average.
            step: steps done.
            folder: of the run's pictures; may not exist yet.
        """

    def warnings(self, shares: Mapping[str, list[float]], step: int) -> list[str]:  # noqa: ARG002 - for methods that override it
        """Look at the shares logged since the last line and say in plain words what looks wrong."""
        return []

    def state_dict(self) -> dict[str, Any]:
        """Everything besides the weights that a resumed run needs: tensors, numbers and strings, nested in dictionaries."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027 - a method need not have any state
        """Take back what :meth:`state_dict` gave."""


def build_method(name: str, settings: Mapping[str, Any], model: Segmenter, seed: int = 0) -> Method:
    """Build a method by name.

    Args:
        name: one of :func:`tilth.methods.method_names`.
        settings: the method's own configuration as a mapping; a family of methods also takes ``variant`` there.
        model: the network to train.
        seed: fresh weights of the method's own layers are a pure function of this; the global random state is left as it was.

    Raises:
        ConfigError: unknown method or variant, or settings that do not validate.
    """
    chosen, rest = choose_method(name, settings)
    config = chosen.Config.parse(rest, source=f"settings of method {name!r}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.derive(seed, "method"))
        return chosen(config, model)


def choose_method(name: str, settings: Mapping[str, Any]) -> tuple[type[Method], dict[str, Any]]:
    """Find the class of a method; returns it with the settings that remain for its configuration."""
    if name not in method_names():
        raise ConfigError(f"unknown method {name!r}; {suggest(name, method_names())}")
    module = importlib.import_module(f"tilth.methods.{name}")
    rest = dict(settings)
    if hasattr(module, "__path__") and not hasattr(module, "METHOD"):
        variants = [item.name for item in pkgutil.iter_modules(module.__path__) if item.name not in module.SHARED_PARTS]
        variant = str(rest.pop("variant", module.DEFAULT_VARIANT))
        if variant not in variants:
            raise ConfigError(f"method {name!r} has no variant {variant!r}; {suggest(variant, variants)}")
        module = importlib.import_module(f"tilth.methods.{name}.{variant}")
    found: type[Method] = module.METHOD
    return found, rest
