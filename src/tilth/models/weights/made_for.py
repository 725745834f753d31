"""What a model folder says of its own network, beside the network that is to be filled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pydantic
import torch
from torch import nn

from tilth.config import Config
from tilth.errors import TilthError

if TYPE_CHECKING:
    from tilth.classes import ClassScheme
    from tilth.models.config import NetworkConfig, NetworkSpec
    from tilth.sensors import Sensor

_DECISIVE = ("heads", "num_heads", "num_groups", "order", "stride", "shift")
"""Attributes of layers without which the same weights compute nothing that makes sense."""

_NOTED = ("eps", "window", "taps", "wavelengths", "members", "dilation", "has_class_token")
"""Those that people change on purpose, too."""

_SHOWN = 4
_MULTI_TASK = "tasks"


@dataclass
class Folder:
    """What ``config.json`` holds, as far as it can be read.

    Attributes:
        network: how to build the file's network.
        sensor: what it sees, of a Segmenter or an encoder.
        scheme: its classes, of a Segmenter.
    """

    network: NetworkSpec | NetworkConfig
    sensor: Sensor | None = None
    scheme: ClassScheme | None = None

    @property
    def title(self) -> str:
        """What to call the network."""
        return str(self.network.name or getattr(self.network, "title", ""))

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks in the order of the experts; none for networks of one task."""
        tasks = self.network.options.get(_MULTI_TASK)
        return tuple(str(task) for task in tasks) if isinstance(tasks, Mapping) else ()


@dataclass
class Comparison:
    """Outcome.

    Attributes:
        refusal: why the weights are of no use here, or None.
        other_classes: why the class layer is not the network's, or None.
        notes: for people.
    """

    refusal: str | None = None
    other_classes: str | None = None
    notes: list[str] = field(default_factory=list)


def read_folder(config: Mapping[str, Any] | None) -> Folder | None:
    """Read ``config.json``; None if there is none, or it is not to be understood."""
    from tilth.models.config import SegmenterConfig
    from tilth.models.encoder_folder import EncoderConfig
    from tilth.models.folder import NetworkFolderConfig

    kinds: dict[str, type[Config]] = {
        "tilth-segmenter": SegmenterConfig,
        "tilth-encoder": EncoderConfig,
        "tilth-network": NetworkFolderConfig,
    }
    kind = kinds.get(str((config or {}).get("model_type")))
    try:
        found: Any = kind.model_validate(config) if kind else None
    except (pydantic.ValidationError, TilthError):
        return None
    return Folder(found.network, getattr(found, "sensor", None), getattr(found, "scheme", None)) if found else None


def compare(folder: Folder, model: nn.Module, network: nn.Module) -> Comparison:
    """Compare what a folder says with what is to be filled: sizes show in the tensors, all else only here.

    Args:
        folder: of the file.
        model: the Segmenter, or the network itself.
        network: the network.
    """
    found = Comparison()
    here = title_of(network)
    if folder.title != here:
        found.notes.append(f"the folder holds {folder.title}, this network is {here}")
    theirs = _build(folder)
    if theirs is None:
        found.notes.append("the network that config.json names cannot be built, so options that no tensor shows are not compared")
    else:
        decisive = list(_differences(theirs, network, _DECISIVE))
        if decisive:
            found.refusal = (
                f"its network computes otherwise: {'; '.join(decisive[:_SHOWN])}; build the network with the options of config.json"
            )
        found.notes += [f"other options: {difference}" for difference in _differences(theirs, network, _NOTED)]
    sensor, scheme = getattr(model, "sensor", None), getattr(model, "scheme", None)
    if sensor is not None and folder.sensor is not None and sensor != folder.sensor:
        names = f"sensor {folder.sensor.name!r}, this model for {sensor.name!r}"
        found.notes.append(f"the folder is for {names}; bands or scaling differ: train on before judging the model")
    if scheme is not None and folder.scheme is not None and scheme.names != folder.scheme.names:
        found.other_classes = (
            f"class layer for {', '.join(folder.scheme.names[:_SHOWN])}, ...; here {', '.join(scheme.names[:_SHOWN])}, ..."
        )
    return found


def title_of(network: nn.Module) -> str:
    """What to call a network in a few words: its name, its encoder and decoder, or at least its class."""
    spec = getattr(network, "spec", None)
    return str(spec.name if spec is not None else getattr(network, "title", None) or type(network).__name__)


def _build(folder: Folder) -> nn.Module | None:
    """Build the file's network without memory."""
    from tilth.models.by_name import create
    from tilth.models.config import NetworkSpec
    from tilth.models.networks import build_network

    network = folder.network
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            if isinstance(network, NetworkSpec):
                return create(network.name, network.in_channels, network.num_classes, network.image_size, **network.options)
            classes = len(folder.scheme) if folder.scheme is not None else 2
            bands = len(folder.sensor) if folder.sensor is not None else 3
            return build_network(network.model_copy(update={"pretrained": False}), bands, classes)
    except Exception:  # nothing that is asked of the user: a note says that it was not compared
        return None


def _differences(theirs: nn.Module, ours: nn.Module, attributes: tuple[str, ...]) -> Iterator[str]:
    """Say once for each attribute where layers of the same name and class differ."""
    here = dict(ours.named_modules())
    told: set[str] = set()
    for name, module in theirs.named_modules():
        other = here.get(name)
        if other is None or type(other) is not type(module):
            continue
        for attribute in attributes:
            values = [_plain(getattr(part, attribute, None)) for part in (module, other)]
            if values[0] != values[1] and attribute not in told and not any(isinstance(value, nn.Module) for value in values):
                told.add(attribute)
                yield f"{_SPOKEN.get(attribute, attribute)} {values[0]}, here {values[1]} ({name})"


_SPOKEN = {"num_heads": "heads", "num_groups": "norm_groups", "order": "head_order", "eps": "epsilon", "members": "groups"}


def _plain(value: Any) -> Any:
    return tuple(_plain(part) for part in value) if isinstance(value, list | tuple) else value
