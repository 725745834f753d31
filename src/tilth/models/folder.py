"""Folders of networks by name: ``config.json`` says how to build one, ``model.safetensors`` holds its weights.

A network that turns one image of a known sensor into a map of known classes is better kept as a Segmenter, whose folder says that, too
(:meth:`tilth.models.segmenter.Segmenter.save`). This is for all others: fusion, multi-task and diffusion networks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import pydantic
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from tilth.config import Config, describe
from tilth.errors import ConfigError, MissingFileError, UnreadableFileError, UsageError
from tilth.imagery.write import write_json
from tilth.models.by_name import SPEC, create
from tilth.models.config import NetworkSpec
from tilth.models.tensors import save_tensors

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
MODEL_TYPE: Literal["tilth-network"] = "tilth-network"
NETWORK_SCHEMA_VERSION = 1

_SHOWN = 300
_Kind = TypeVar("_Kind", bound=Config)


class NetworkFolderConfig(Config):
    """Everything that ``config.json`` of such a folder holds."""

    model_type: Literal["tilth-network"] = MODEL_TYPE
    schema_version: int = NETWORK_SCHEMA_VERSION
    network: NetworkSpec


def save_network(network: nn.Module, folder: str | Path) -> Path:
    """Write a network by name with its weights; each file is replaced in one go, and the same weights give the same bytes.

    Args:
        network: one of :func:`tilth.models.create`.
        folder: where to; made if it is missing.

    Returns:
        The folder.

    Raises:
        UsageError: the network was built in another way, so nobody could build it again.
        TilthError: the place cannot be written to, or the disk is full.

    Example:
        >>> import tempfile
        >>> network = create("upernet_vit_b", num_classes=2, image_size=32, width=16, depth=4, heads=2, decoder_channels=8)
        >>> folder = save_network(network, tempfile.mkdtemp())
        >>> load_network(folder).spec.name
        'upernet_vit_b'
    """
    spec = getattr(network, SPEC, None)
    if not isinstance(spec, NetworkSpec):
        raise UsageError(f"{type(network).__name__} was not built by name; build it with tilth.models.create, or keep a Segmenter")
    target = Path(folder)
    tensors = {name: value.detach().to("cpu").contiguous() for name, value in network.state_dict().items()}
    save_tensors(target / WEIGHTS_FILE, tensors, {"format": "pt"})
    write_json(target / CONFIG_FILE, NetworkFolderConfig(network=spec).model_dump(mode="json"))
    return target


def load_network(folder: str | Path, device: str | torch.device = "cpu") -> nn.Module:
    """Read a folder of :func:`save_network`.

    Args:
        folder: where it is.
        device: where to put the weights.

    Returns:
        The network, in evaluation mode.

    Raises:
        MissingFileError: no such folder there.
        UnreadableFileError: damaged, of a newer schema, or weights that do not fit the network.
    """
    place = Path(folder)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (place / name).is_file():
            raise MissingFileError(f"{place}: not a folder of a network, {name} is missing; give one that save_network wrote")
    spec = read_network_config(place).network
    try:
        # With a seed of its own: fresh weights, replaced at once, would draw from the caller's random state.
        network = create(spec.name, spec.in_channels, spec.num_classes, spec.image_size, seed=0, **spec.options)
    except (ConfigError, TypeError) as error:
        raise UnreadableFileError(f"{place / CONFIG_FILE}: {error}") from None
    try:
        network.load_state_dict(load_file(place / WEIGHTS_FILE))
    except (SafetensorError, OSError) as error:
        raise UnreadableFileError(f"{place / WEIGHTS_FILE}: damaged weights: {error}") from None
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:_SHOWN]
        raise UnreadableFileError(f"{place}: the weights do not fit the network of {CONFIG_FILE}: {reason}") from None
    return network.to(device).eval()


def read_network_config(folder: Path) -> NetworkFolderConfig:
    """Read what a folder of :func:`save_network` says of its network.

    Raises:
        UnreadableFileError: damaged, of another kind, or of a newer schema.
    """
    others = {"tilth-segmenter": "a Segmenter, not a network alone; read it with Segmenter.load"}
    return read_folder_config(folder / CONFIG_FILE, NetworkFolderConfig, MODEL_TYPE, NETWORK_SCHEMA_VERSION, others)


def read_folder_config(file: Path, config: type[_Kind], kind: str, version: int, others: Mapping[str, str] | None = None) -> _Kind:
    """Read ``config.json`` of a folder.

    Args:
        file: which.
        config: what it holds.
        kind: its ``model_type``.
        version: the newest schema that is understood.
        others: what to say of folders of other kinds, by ``model_type``.

    Raises:
        UnreadableFileError: damaged, of another kind, or of a newer schema.
    """
    try:
        tree: Any = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UnreadableFileError(f"{file}: not JSON: {error}") from None
    found = tree.get("model_type") if isinstance(tree, dict) else None
    if found != kind:
        noun = kind.removeprefix("tilth-")
        said = (others or {}).get(str(found)) or f"not {'an' if noun[0] in 'aeiou' else 'a'} {noun} of tilth; expected model_type {kind!r}"
        raise UnreadableFileError(f"{file}: {said}")
    theirs = tree.get("schema_version", version)
    if isinstance(theirs, int) and theirs > version:
        raise UnreadableFileError(f"{file}: written by a newer tilth (schema {theirs}, this one reads {version}); upgrade")
    try:
        return config.model_validate(tree)
    except pydantic.ValidationError as error:
        raise UnreadableFileError(describe(config, error, str(file))) from None
