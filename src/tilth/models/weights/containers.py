"""What training programs wrap around a state dict, taken off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tilth.errors import UnreadableFileError
from tilth.models.weights.inert import Inert

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

CONTAINER_ALIASES = {"dinot": "teacher", "dinos": "student"}
"""Words of CromSS's transfer program for containers (cromss.md section 7.2)."""

PREFIXES = ("module.", "_orig_mod.", "_forward_module.", "_fsdp_wrapped_module.", "model.")
"""What parallel training, compilation and wrapping modules put before every name."""

_DEPTH = 5
_SHOWN = 3


@dataclass
class Unwrapped:
    """Tensors that were found.

    Attributes:
        tensors: by name, without gradients.
        notes: for people: what was taken off, and what could not be read.
        took: ``take`` named a container.
        beside: containers of names that nobody knows, which hold tensors, too.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    took: bool = False
    beside: tuple[str, ...] = ()


def unwrap(tree: Any, take: str | None, title: str) -> Unwrapped:
    """Find the named tensors in what a file held.

    Args:
        tree: whatever was read.
        take: name of a container to prefer.
        title: of the source, for errors.

    Raises:
        UnreadableFileError: no named tensors in it.
    """
    result = Unwrapped()
    found = tree
    wanted = {take, CONTAINER_ALIASES.get(take or "")} - {None}
    for _ in range(_DEPTH):
        if not isinstance(found, Mapping):
            break
        # Not .items() of the object itself: a pickle can lay anything over the methods of an ordered dictionary.
        here = dict(_items(found))
        inside = [name for name in CONTAINERS if _holds_tensors(here.get(name))]
        asked = next((name for name in here if name in wanted and _holds_tensors(here[name])), None)
        chosen = asked or (inside[0] if inside else None)
        result.took = result.took or asked is not None
        if chosen is None:
            break
        others = [name for name in inside if name != chosen]
        choices = " or ".join(repr(other) for other in others)
        result.notes.append(f"inside {chosen}" + (f" (take={choices} takes that instead)" if others else ""))
        found = here[chosen]
    result.tensors, unreadable = _tensors(found) if isinstance(found, Mapping) else ({}, {})
    result.beside = _beside(found)
    if not result.tensors:
        held = "; ".join(f"{len(names)} {kind}" for kind, names in unreadable.items())
        hint = f"; tensors lie in {', '.join(result.beside)}: take={result.beside[0]!r}" if result.beside else ""
        raise UnreadableFileError(f"{title}: holds no named tensors but {held or _describe(found)}; expected a state dict{hint}")
    for kind, names in unreadable.items():
        result.notes.append(f"{len(names)} {kind} left out, such as {', '.join(names[:_SHOWN])}; save them as ordinary tensors")
    result.tensors = _without_prefixes(result.tensors, result.notes)
    return result


def _beside(found: Any) -> tuple[str, ...]:
    """Containers of other names in which most values are tensors; states of optimisers go by numbers."""
    if not isinstance(found, Mapping):
        return ()
    inside = ((name, _items(value)) for name, value in _items(found) if isinstance(name, str) and isinstance(value, Mapping))
    return tuple(name for name, held in inside if held and 2 * sum(isinstance(value, Tensor) for _, value in held) > len(held))


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


def _tensors(mapping: Mapping[Any, Any]) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
    """Named tensors, and names of what is none that can be copied, by its kind."""
    found: dict[str, Tensor] = {}
    unreadable: dict[str, list[str]] = {}
    for name, value in _items(mapping):
        tensor = torch.from_numpy(value) if isinstance(value, np.ndarray) and value.dtype.kind in "fiub" else value
        if not isinstance(name, str):
            continue
        kind = _unreadable(tensor)
        if kind is not None:
            unreadable.setdefault(kind, []).append(name)
        elif isinstance(tensor, Tensor):
            # The method of the class: a pickle can lay anything over that of a parameter.
            found[name] = Tensor.detach(tensor)
    return found, unreadable


def _unreadable(value: Any) -> str | None:
    """Kind of a value that holds numbers and is no ordinary tensor; None for tensors, and for whatever is no weight at all."""
    if isinstance(value, Tensor):
        if value.is_quantized:
            return "quantised tensors"
        return None if value.layout is torch.strided else "sparse tensors"
    # How NumPy pickles an array: version, shape, type, order, bytes.
    pickled = isinstance(value, Inert) and isinstance(value.state, tuple) and len(value.state) == 5 and isinstance(value.state[1], tuple)
    return "NumPy arrays" if pickled or isinstance(value, np.ndarray) else None


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
