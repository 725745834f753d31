"""Files whose names are those of the network itself or of its encoder: model folders of tilth, state dicts of the same module."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import nn

from tilth.errors import UsageError
from tilth.models.weights import own_tasks
from tilth.models.weights.fit import CLASS_LAYERS
from tilth.models.weights.judge import inside_taken_layers, layers_left_over
from tilth.models.weights.layout import NO_SUCH_LAYER, Converted, Layout, Tensors
from tilth.models.weights.layouts.parts import encoder_roots
from tilth.models.weights.layouts.s5_file import general_name
from tilth.models.weights.report import BEHIND_ENCODER

_WRAPPER = "network."
_OWN, _ENCODER = 0.9, 0.5
_DECODER = ("decoder.", "decoders.")
_TASK = (*_DECODER, *CLASS_LAYERS)
_WRAPPED = ("model.", "backbone.", "body.", "unet.", "")
"""What stands between ``encoder.`` and the names of a library's model."""


def own_layout(shapes: Mapping[str, tuple[int, ...]], network: nn.Module, *, certain: bool, tasks: tuple[str, ...] = ()) -> Layout | None:
    """Say whether a file has the names of this very network, and how to take it.

    Args:
        shapes: of the file, by name.
        network: what is to be filled.
        certain: the file is of a model folder of tilth: a few names in common are enough.
        tasks: of the file in the order of its experts, where a folder says it.

    Returns:
        A layout, or None if too few of the names outside decoder and head are the network's: nine in ten, since networks for one image have
        many names in common with those for two.
    """
    names = set(network.state_dict())
    plain = [name.removeprefix(_WRAPPER) for name in shapes]
    telling = [name for name in plain if not name.startswith(_TASK)] or plain
    sorting = own_tasks.needs_sorting(plain, network)
    if sorting:
        names = {general_name(name) for name in names}
    common = sum((general_name(name) if sorting else name) in names for name in telling)
    if common == 0 or (not certain and common < _OWN * len(telling)):
        return None

    def convert(tensors: Tensors, network: nn.Module, take: str | None) -> Converted:
        bare = {name.removeprefix(_WRAPPER): tensor for name, tensor in tensors.items()}
        return own_tasks.convert(bare, network, take, tasks) if sorting else _convert_own(bare, network, take)

    return Layout(
        name="tilth",
        title="a model of tilth" if certain else "the network's own names",
        recognises=lambda _: True,
        fits=lambda _: True,
        convert=convert,
    )


def encoder_layout(shapes: Mapping[str, tuple[int, ...]], network: nn.Module) -> Layout | None:
    """The same for a file with the names of the encoder alone, as libraries of models publish them (ConvNeXt, EfficientNet, ...).

    Returns:
        A layout, or None if fewer than half of the names are the encoder's, or there are several encoders.
    """
    best: tuple[int, dict[str, str]] = 0, {}
    state = network.state_dict()
    roots = encoder_roots(network)
    for root in roots if len(roots) == 1 else ():
        for wrapped in _WRAPPED:
            prefix = root + wrapped
            found = {_usual(name.removeprefix(prefix)): name for name in state if name.startswith(prefix)}
            common = sum(name in found for name in shapes)
            if common > best[0]:
                best = common, found
    if best[0] < _ENCODER * len(shapes) or best[0] == 0:
        return None
    places = best[1]

    def convert(tensors: Tensors, _network: nn.Module, take: str | None) -> Converted:
        _check_take(take)
        converted = Converted({places[name]: tensor for name, tensor in tensors.items() if name in places})
        left = [name for name in tensors if name not in places]
        taken = [name for name in tensors if name in places]
        computing = {*inside_taken_layers(left, taken), *(name for name in left if layers_left_over(taken, [name]))}
        for name in left:
            converted.dropped[name] = NO_SUCH_LAYER if name in computing else "not in this network's encoder"
        return converted

    return Layout("encoder", "the encoder's own names", lambda _: True, lambda _: True, convert)


def _usual(name: str) -> str:
    """Undo how timm names the parts of a model that gives maps: ``stages_0`` for ``stages.0``."""
    return re.sub(r"^([a-z]+)_(\d+)\.", r"\1.\2.", name)


def _check_take(take: str | None) -> None:
    if take is not None:
        raise UsageError(f"take={take!r}: names nothing in this file; leave take out")


def _convert_own(ours: Tensors, network: nn.Module, take: str | None) -> Converted:
    _check_take(take)
    names = set(network.state_dict())
    converted = {name: tensor for name, tensor in ours.items() if name in names}
    left = [name for name in ours if name not in names]
    here = network.state_dict()
    decoder, theirs = ({name: tensors[name].shape for name in tensors if name.startswith(_DECODER)} for tensors in (here, ours))
    if decoder != theirs:  # a head says nothing behind another decoder
        left += [name for name in converted if name.startswith(_TASK)]
        converted = {name: tensor for name, tensor in converted.items() if not name.startswith(_TASK)}
    dropped = {name: "of another decoder or head" for name in left if name.startswith(_TASK)}
    dropped |= {name: "behind the encoder or unused; this network has no such part" for name in left if name.startswith(BEHIND_ENCODER)}
    return Converted(converted, dropped=dropped, unexpected=[name for name in left if name not in dropped])
