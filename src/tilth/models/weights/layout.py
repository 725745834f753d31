"""How somebody stores weights: a layout is recognised by its names and translated to ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

Tensors = dict[str, Tensor]

NO_SUCH_LAYER = "this network has no such layer, so it computes something else"
OTHER_ATTENTION = "relative positions or rotated windows, which a plain ViT does not have"
COMPUTES_OTHERWISE = frozenset({NO_SUCH_LAYER, OTHER_ATTENTION})
"""Reasons to leave out what the file's own network computes with: whoever leaves that out has another network."""


@dataclass
class Converted:
    """Tensors of a file under our names.

    Attributes:
        tensors: by the name that they have in the network's ``state_dict``; shapes may still differ (bands, classes, position tables).
        dropped: names in the file of what this network has no use for, with the reason; not an error.
        unexpected: names in the file that the layout does not know.
        notes: what a user should know besides, such as that the file was trained with another epsilon.
    """

    tensors: Tensors
    dropped: dict[str, str] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Layout:
    """One way in which weights are published.

    Attributes:
        name: short, such as ``s5-vit``.
        title: what it is, for people: "S5 segmentation model, plain ViT".
        recognises: whether tensors of these names and shapes are of this layout; containers and prefixes such as ``module.`` are off.
        fits: whether a network can take such weights.
        convert: translates all tensors for a network; third argument is which part to take (``s1``, ``teacher``, ...), or None.
        export: gives a network's tensors their official names, where the layout is a network's own.
    """

    name: str
    title: str
    recognises: Callable[[Mapping[str, tuple[int, ...]]], bool]
    fits: Callable[[nn.Module], bool]
    convert: Callable[[Tensors, nn.Module, str | None], Converted]
    export: Callable[[nn.Module], Tensors] | None = None
