"""What a method is: the streams it asks for, and a ``step`` that turns their batches into losses."""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

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
    """

    source: str
    differs_from: str | None = None


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


class Method(ABC):
    """How a network learns. One file each, read top to bottom like the paper.

    Attributes:
        streams: the named supplies of batches that ``step`` wants.
        model: the bare network being trained.
        student: calls the network for the training pass; under several processes it is the wrapper that averages gradients.
        average: the exponential moving average of the model, where the loop keeps one.
        autocast: enters the run's mixed precision; the student enters it by itself.
        count: turns a local pixel count into the denominator of a mean: itself, or the mean over all processes.
    """

    Config: ClassVar[type[Config]]
    streams: ClassVar[Mapping[str, Stream]]

    def __init__(self, config: Any, model: Segmenter) -> None:
        self.config = config
        self.model = model
        self.student: Callable[[Tensor], Tensor] = model
        self.average: Segmenter | None = None
        self.autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
        self.count: Callable[[Tensor], Tensor] = lambda count: count

    def check(self) -> None:  # noqa: B027 - a method need not have anything to refuse
        """Refuse settings that the run cannot serve; called before the first step, when the loop has set all attributes."""

    @abstractmethod
    def step(self, batches: Mapping[str, Batch], step: int) -> Losses:
        """Compute the losses of one step; the network is in training mode and nothing else may change its state."""

    def warnings(self, shares: Mapping[str, list[float]], step: int) -> list[str]:  # noqa: ARG002 - for methods that override it
        """Look at the shares logged since the last line and say in plain words what looks wrong."""
        return []

    def state_dict(self) -> dict[str, Any]:
        """Everything besides the weights that a resumed run needs: tensors, numbers and strings, nested in dictionaries."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027 - a method need not have any state
        """Take back what :meth:`state_dict` gave."""


def build_method(name: str, settings: Mapping[str, Any], model: Segmenter) -> Method:
    """Build a method by name.

    Args:
        name: one of :func:`tilth.methods.method_names`.
        settings: the method's own configuration as a mapping; a family of methods also takes ``variant`` there.
        model: the network to train.

    Raises:
        ConfigError: unknown method or variant, or settings that do not validate.
    """
    chosen, rest = choose_method(name, settings)
    return chosen(chosen.Config.parse(rest, source=f"settings of method {name!r}"), model)


def choose_method(name: str, settings: Mapping[str, Any]) -> tuple[type[Method], dict[str, Any]]:
    """Find the class of a method; returns it with the settings that remain for its configuration."""
    if name not in method_names():
        raise ConfigError(f"unknown method {name!r}; {suggest(name, method_names())}")
    module = importlib.import_module(f"tilth.methods.{name}")
    rest = dict(settings)
    if hasattr(module, "__path__"):
        variants = [item.name for item in pkgutil.iter_modules(module.__path__) if item.name != "parts"]
        variant = str(rest.pop("variant", module.DEFAULT_VARIANT))
        if variant not in variants:
            raise ConfigError(f"method {name!r} has no variant {variant!r}; {suggest(variant, variants)}")
        module = importlib.import_module(f"tilth.methods.{name}.{variant}")
    found: type[Method] = module.METHOD
    return found, rest
