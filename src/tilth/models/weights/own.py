"""Files whose names are those of the network itself or of its encoder: model folders of tilth, state dicts of the same module."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import nn

from tilth.models.weights.layout import Converted, Layout, Tensors
from tilth.models.weights.layouts.parts import encoder_roots

_WRAPPER = "network."
_OWN, _ENCODER = 0.9, 0.5
_DECODER = ("decoder.", "decoders.")
_TASK = ("decoder.", "decoders.", "segmentation_head.", "heads.")
_WRAPPED = ("model.", "backbone.", "body.", "")
"""What stands between ``encoder.`` and the names of a library's model."""


def own_layout(shapes: Mapping[str, tuple[int, ...]], network: nn.Module, *, certain: bool) -> Layout | None:
    """Say whether a file has the names of this very network, and how to take it.

    Args:
        shapes: of the file, by name.
        network: what is to be filled.
        certain: the file is of a model folder of tilth: a few names in common are enough.

    Returns:
        A layout, or None if too few of the names outside decoder and head are the network's: nine in ten, since networks for one image have
        many names in common with those for two.
    """
    names = set(network.state_dict())
    plain = [name.removeprefix(_WRAPPER) for name in shapes]
    telling = [name for name in plain if not name.startswith(_TASK)] or plain
    common = sum(name in names for name in telling)
    if common == 0 or (not certain and common < _OWN * len(telling)):
        return None
    return Layout(
        name="tilth",
        title="a model of tilth" if certain else "the network's own names",
        recognises=lambda _: True,
        fits=lambda _: True,
        convert=_convert_own,
    )


def encoder_layout(shapes: Mapping[str, tuple[int, ...]], network: nn.Module) -> Layout | None:
    """The same for a file with the names of the encoder alone, as libraries of models publish them (ConvNeXt, EfficientNet, ...).

    Returns:
        A layout, or None if fewer than half of the names are the encoder's.
    """
    best: tuple[int, dict[str, str]] = 0, {}
    state = network.state_dict()
    for root in encoder_roots(network):
        for wrapped in _WRAPPED:
            prefix = root + wrapped
            found = {_usual(name.removeprefix(prefix)): name for name in state if name.startswith(prefix)}
            common = sum(name in found for name in shapes)
            if common > best[0]:
                best = common, found
    if best[0] < _ENCODER * len(shapes) or best[0] == 0:
        return None
    places = best[1]

    def convert(tensors: Tensors, _network: nn.Module, _take: str | None) -> Converted:
        converted = Converted({places[name]: tensor for name, tensor in tensors.items() if name in places})
        for name in tensors:
            if name not in places:
                converted.dropped[name] = "not in this network's encoder"
        return converted

    return Layout("encoder", "the encoder's own names", lambda _: True, lambda _: True, convert)


def _usual(name: str) -> str:
    """Undo how timm names the parts of a model that gives maps: ``stages_0`` for ``stages.0``."""
    return re.sub(r"^([a-z]+)_(\d+)\.", r"\1.\2.", name)


def _convert_own(tensors: Tensors, network: nn.Module, _: str | None) -> Converted:
    names = set(network.state_dict())
    ours = {name.removeprefix(_WRAPPER): tensor for name, tensor in tensors.items()}
    converted = {name: tensor for name, tensor in ours.items() if name in names}
    left = [name for name in ours if name not in names]
    here = network.state_dict()
    decoder, theirs = ({name: tensors[name].shape for name in tensors if name.startswith(_DECODER)} for tensors in (here, ours))
    if decoder != theirs:  # a head says nothing behind another decoder
        left += [name for name in converted if name.startswith(_TASK)]
        converted = {name: tensor for name, tensor in converted.items() if not name.startswith(_TASK)}
    other_task = {name: "of another decoder or head" for name in left if name.startswith(_TASK)}
    return Converted(converted, dropped=other_task, unexpected=[name for name in left if name not in other_task])
