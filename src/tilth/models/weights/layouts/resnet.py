"""ResNets that others trained, into whatever ResNet a network has as encoder.

Written by torchvision, timm, MoCo, DINO, DeCUR, SSL4EO-S12, Satlas and SeCo. All of them name layers as torchvision does, behind different
beginnings (cromss.md section 7.2); stems of three convolutions are named as in timm.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

from tilth.errors import UsageError, suggest
from tilth.models.weights.layout import NO_SUCH_LAYER, Converted, Layout, Tensors
from tilth.models.weights.layouts.parts import choose_prefix, encoder_roots, prefixes_before

_LANDMARK = "layer1.0.conv1.weight"
_NUMBERED = "4.0.conv1.weight"
"""The same where the layers stand in a sequence without names."""

_NUMBERS = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
_STEM = r"(conv1|bn1)\..*"


def _recognises(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    return bool(_prefixes(shapes))


def _prefixes(names: Mapping[str, object]) -> list[str]:
    named = prefixes_before(names, _LANDMARK)
    numbered = [prefix for prefix in prefixes_before(names, _NUMBERED) if f"{prefix}0.weight" in names]
    return named or numbered


def _targets(network: nn.Module) -> list[str]:
    """What stands before the names of each ResNet that is an encoder; or is the network itself."""
    found = prefixes_before(network.state_dict(), _LANDMARK)
    roots = tuple(encoder_roots(network))
    return [prefix for prefix in found if prefix.startswith(roots)] if roots else found


def _convert(tensors: Tensors, network: nn.Module, take: str | None) -> Converted:
    targets = _targets(network)
    target = targets[0]
    if len(targets) > 1:
        branch, _, take = (take or "").partition(":")
        take = take or None
        target = _branch(targets, branch, network, tensors)
    prefix = _choose(tensors, network, target, take)
    state = network.state_dict()
    # A file without any stem has not got another one.
    other_stem = any(prefix + stem in tensors and f"{target}{stem}" not in state for stem in ("conv1.weight", "conv1.0.weight"))
    converted = Converted({})
    if prefix:
        converted.notes.append(f"took {prefix.rstrip('.')}")
    if other_stem:
        converted.notes.append("the stem stays fresh, so train on before judging the network")
    for name, tensor in tensors.items():
        plain = _named(name.removeprefix(prefix))
        here = state.get(target + plain)
        if not name.startswith(prefix):
            converted.dropped[name] = "beside the encoder that was taken"
        elif other_stem and (re.fullmatch(_STEM, plain) or (here is not None and _reads_stem(plain, tensor, here))):
            converted.dropped[name] = "another stem than this network's: one convolution against three"
        elif here is not None:
            converted.tensors[target + plain] = tensor
        elif re.match(r"(fc|head|classifier|last_linear)\b", plain):
            converted.dropped[name] = "classifier or projection head"
        elif re.match(r"layer[1-4]\.", plain):
            converted.dropped[name] = NO_SUCH_LAYER
        else:
            converted.unexpected.append(name)
    return converted


def _reads_stem(plain: str, tensor: Tensor, here: Tensor) -> bool:
    """Whether this is a convolution right behind the stem, which has another width in the file."""
    return plain.startswith("layer1.0.") and tensor.ndim == 4 and tensor.shape != here.shape


def _named(name: str) -> str:
    first, dot, rest = name.partition(".")
    return _NUMBERS[first] + dot + rest if first in _NUMBERS else name


def _branch(targets: list[str], branch: str, network: nn.Module, tensors: Tensors) -> str:
    """Choose the encoder of a fusion network that is to be filled: by name, or the one that has the file's bands.

    Raises:
        UsageError: no such branch, or no telling.
    """
    by_branch = {target.rstrip(".").removesuffix(".encoder").rpartition(".")[2]: target for target in targets}
    if branch in by_branch:
        return by_branch[branch]
    if branch:
        raise UsageError(f"take={branch!r}: the network has no such branch; {suggest(branch, by_branch)}")
    state = network.state_dict()
    bands = {tensors[name].shape[1] for prefix in _prefixes(tensors) for name in _stem_weights(prefix) if name in tensors}
    fitting = [target for target in targets if any(state[name].shape[1] in bands for name in _stem_weights(target) if name in state)]
    if len(fitting) == 1:
        return fitting[0]
    raise UsageError(
        f"the network has {len(targets)} encoders; say which to fill: take={next(iter(by_branch))!r}, of {', '.join(by_branch)}"
    )


def _choose(tensors: Tensors, network: nn.Module, target: str, take: str | None) -> str:
    prefixes = _prefixes(tensors)
    if take is None and len(prefixes) > 1:
        state = network.state_dict()
        bands = next((state[name].shape[1] for name in _stem_weights(target) if name in state), None)
        right = [
            prefix for prefix in prefixes if any(name in tensors and tensors[name].shape[1] == bands for name in _stem_weights(prefix))
        ]
        prefixes = right or prefixes
    return choose_prefix(prefixes, take)


def _stem_weights(prefix: str) -> tuple[str, ...]:
    return f"{prefix}conv1.weight", f"{prefix}conv1.0.weight", f"{prefix}0.weight"


LAYOUTS = (
    Layout(
        "resnet",
        "a ResNet (torchvision, timm, MoCo, DINO, DeCUR, SSL4EO-S12, Satlas)",
        _recognises,
        lambda network: bool(_targets(network)),
        _convert,
    ),
)
"""One for all: what tells them apart are beginnings of names alone."""
