"""What training programs wrap around a state dict, taken off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tilth.errors import UnreadableFileError

CONTAINERS = (
    "state_dict",
    "model",
    "model_state_dict",
    "model_state",
    "network",
    "net",
    "module",
    "weights",
    "params",
    "teacher",
    "student",
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "ema",
    "ema_model",
    "params_ema",
    "target_encoder",
    "encoder",
    "backbone",
)
"""Names under which programs keep a state dict, the usual one first; weights that were averaged last, to be asked for by name."""

ALIASES = {"dinot": "teacher", "dinos": "student"}
"""Words of CromSS's transfer program for containers (cromss.md section 7.2)."""

PREFIXES = ("module.", "_orig_mod.", "_forward_module.", "_fsdp_wrapped_module.", "model.")
"""What parallel training, compilation and wrapping modules put before every name."""

_DEPTH = 5


def unwrap(tree: Any, take: str | None, title: str) -> tuple[dict[str, Tensor], list[str], bool]:
    """Find the named tensors in what a file held.

    Args:
        tree: whatever was read.
        take: name of a container to prefer.
        title: of the source, for errors.

    Returns:
        Tensors by name, without gradients; notes for people on what was taken off; and whether ``take`` named a container.

    Raises:
        UnreadableFileError: no named tensors in it.
    """
    notes: list[str] = []
    found = tree
    opened = False
    wanted = {take, ALIASES.get(take or "")} - {None}
    for _ in range(_DEPTH):
        if not isinstance(found, Mapping):
            break
        # Not .items() of the object itself: a pickle can lay anything over the methods of an ordered dictionary.
        here = dict(_items(found))
        inside = [name for name in CONTAINERS if _holds_tensors(here.get(name))]
        asked = next((name for name in here if name in wanted and _holds_tensors(here[name])), None)
        chosen = asked or (inside[0] if inside else None)
        opened = opened or asked is not None
        if chosen is None:
            break
        others = [name for name in inside if name != chosen]
        notes.append(f"inside {chosen}" + (f" (take={others[0]!r} takes that instead)" if others else ""))
        found = here[chosen]
    tensors = _tensors(found) if isinstance(found, Mapping) else {}
    if not tensors:
        raise UnreadableFileError(f"{title}: holds no named tensors but {_describe(found)}; expected a state dict")
    return _without_prefixes(tensors, notes), notes, opened


def _items(mapping: Mapping[Any, Any]) -> list[tuple[Any, Any]]:
    return list(dict.items(mapping)) if isinstance(mapping, dict) else list(mapping.items())


def _holds_tensors(value: Any) -> bool:
    """Whether a value is a dictionary with tensors in it, at once or deeper down."""
    if not isinstance(value, Mapping):
        return False
    here = _items(value)
    return any(isinstance(item, Tensor | np.ndarray) for _, item in here) or any(
        isinstance(item, Mapping) and any(isinstance(deep, Tensor) for _, deep in _items(item)) for _, item in here
    )


def _tensors(mapping: Mapping[Any, Any]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, value in _items(mapping):
        tensor = torch.from_numpy(value) if isinstance(value, np.ndarray) and value.dtype.kind in "fiub" else value
        if isinstance(name, str) and isinstance(tensor, Tensor) and tensor.layout is torch.strided and not tensor.is_quantized:
            found[name] = tensor.detach()
    return found


def _without_prefixes(tensors: dict[str, Tensor], notes: list[str]) -> dict[str, Tensor]:
    while True:
        prefix = next((prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in tensors)), None)
        if prefix is None:
            return tensors
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
        notes.append(f"{prefix} taken off")


def _describe(value: Any) -> str:
    if isinstance(value, Mapping):
        names = [str(name)[:40] for name, _ in _items(value)]
        return f"a dictionary of {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}" if names else "an empty dictionary"
    if isinstance(value, Tensor):
        return f"one tensor of shape {tuple(value.shape)}"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    return f"an object of type {type(value).__name__}"
