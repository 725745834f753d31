"""Whether a file is of the network that it goes into: what it computes with and the network lacks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_LAYER = re.compile(r"(?:encoder_layer_)?(\d+)")
"""Part of a name that counts layers; torchvision's ViT spells the word out."""


def layers_left_over(taken: Iterable[str], left: Iterable[str]) -> str | None:
    """Say that a file has more layers than the network.

    Args:
        taken: names of which the network takes the tensors.
        left: names, written alike, of what belongs to the computing and has no place.

    Returns:
        Where and how many, for an error; None if no layer is left over as a whole behind others that are taken.

    Example:
        >>> layers_left_over(["blocks.0.w", "blocks.1.w"], ["blocks.2.w", "blocks.1.q_norm.w"])
        'the file has 3 layers in blocks, the network 2'
    """
    held = _layers(taken)
    beyond: dict[str, set[int]] = {}
    for name in left:
        for place, index in _places(name):
            known = held.get(place, set())
            if index not in known:
                if known and index > max(known):
                    beyond.setdefault(place, set()).add(index)
                break
    if not beyond:
        return None
    place = max(beyond, key=lambda found: len(beyond[found]))
    return f"the file has {1 + max(beyond[place])} layers in {place or 'it'}, the network {1 + max(held[place])}"


def inside_taken_layers(names: Iterable[str], taken: Iterable[str]) -> list[str]:
    """Choose the names that lie inside a layer of which other tensors are taken: the file computes with them, the network cannot.

    Example:
        >>> inside_taken_layers(["blocks.0.gamma", "queue"], ["blocks.0.w"])
        ['blocks.0.gamma']
    """
    held = _layers(taken)
    return [name for name in names if any(index in held.get(place, ()) for place, index in _places(name))]


def _layers(names: Iterable[str]) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for name in names:
        for place, index in _places(name):
            found.setdefault(place, set()).add(index)
    return found


def _places(name: str) -> Iterator[tuple[str, int]]:
    """Every sequence that a name lies in, outermost first, with the position there."""
    parts = name.split(".")
    for depth, part in enumerate(parts):
        counted = _LAYER.fullmatch(part)
        if counted:
            yield ".".join(parts[:depth]), int(counted[1])
