"""Resumable checkpoints without pickle: one safetensors file, tensors by path and everything else as JSON in its header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from tilth.errors import UnreadableFileError
from tilth.models.tensors import save_tensors

CHECKPOINT_VERSION = 1
_TENSOR = "__tensor__"


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a nested state in one go: a crash leaves the old file or the new one.

    Args:
        path: file to write.
        state: nested dictionaries and lists of tensors, numbers, strings, booleans and None; keys are strings or integers.

    Raises:
        TilthError: the place cannot be written to, or the disk is full.
    """
    tensors: dict[str, torch.Tensor] = {}
    skeleton = _detach(state, "", tensors)
    header = {"version": str(CHECKPOINT_VERSION), "state": json.dumps(skeleton)}
    save_tensors(path, tensors, header)


def load_checkpoint(path: Path) -> Any:
    """Read what :func:`save_checkpoint` wrote; tensors come back on the CPU.

    Raises:
        UnreadableFileError: damaged, or written by a newer version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if int(header.get("version", 0)) != CHECKPOINT_VERSION or "state" not in header:
                raise UnreadableFileError(f"{path}: checkpoint version {header.get('version')}, this tilth reads {CHECKPOINT_VERSION}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - safe_open is no mapping
        return _attach(json.loads(header["state"]), tensors)
    except UnreadableFileError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise UnreadableFileError(f"{path}: damaged checkpoint: {error}") from None


def _detach(node: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    """Replace tensors by references; keep the type of dictionary keys, which JSON would turn into strings."""
    if isinstance(node, torch.Tensor):
        # Numbered, because paths of keys that contain "/" may coincide. A copy, because tensors that share memory cannot be stored twice.
        name = f"{len(tensors)}{path}"
        tensors[name] = node.detach().to("cpu", copy=True).contiguous()
        return {_TENSOR: name}
    if isinstance(node, Mapping):
        return {"map": [[key, _detach(value, f"{path}/{key}", tensors)] for key, value in node.items()]}
    if isinstance(node, list | tuple):
        return {"list": [_detach(value, f"{path}/{index}", tensors) for index, value in enumerate(node)]}
    return node


def _attach(node: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(node, dict):
        if _TENSOR in node:
            return tensors[node[_TENSOR]]
        if "map" in node:
            return {key: _attach(value, tensors) for key, value in node["map"]}
        return [_attach(value, tensors) for value in node["list"]]
    return node
