"""Pre-training files of CromSS: fusion networks whole, or the encoder (and decoder) of one branch for a network that sees one image.

cromss.md sections 3 and 7.2. In a checkpoint every name begins with ``net.``; names are understood with and without.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from tilth.errors import UsageError, suggest
from tilth.models.fused import JOINT, FusedNetwork
from tilth.models.network import SegmentationNetwork
from tilth.models.weights.layout import NO_SUCH_LAYER, Converted, Layout, Tensors

PARTS = ("encoder", "de1", "de2", "de3", "de4", "wocls", "all")
"""What can be taken of a U-Net: the encoder; with the first decoder blocks; with all of the decoder (``wocls``); with the head, too."""

_ENCODERS = {"encoder1": "s1", "encoder": "s2", "encoder_com": JOINT}
_MODELS = {"model1": "s1", "model2": "s2", "model_com": JOINT}
_TAGS = {"mfs1": ("mid", "s1"), "mfs2": ("mid", "s2"), "lfs1": ("late", "s1"), "lfs2": ("late", "s2")}
_PART_NAMES = ("encoder", "decoder", "segmentation_head")
_STEM = "conv1.weight"

Place = tuple[str | None, str, str]
"""Branch (None: shared by all), part of the network, and the name inside the part."""


def place_of(name: str) -> Place | None:
    """Say where a tensor of a fusion file belongs; None if it does not belong to one.

    Args:
        name: official name, with or without ``net.``.
    """
    first, _, rest = name.removeprefix("net.").partition(".")
    if first in _ENCODERS:
        return _ENCODERS[first], "encoder", rest
    if first in _MODELS:
        part, _, rest = rest.partition(".")
        return (_MODELS[first], part, rest) if part in _PART_NAMES else None
    return (None, first, rest) if first in _PART_NAMES else None


def encoder_prefix(network: nn.Module) -> str | None:
    """Find the ResNet among the parameters of a network that turns one image into one map.

    Returns:
        What stands before ``conv1.weight`` and ``layer1.0.conv1.weight``; None if there is no such encoder.
    """
    if not isinstance(network, SegmentationNetwork):
        return None
    names = network.state_dict().keys()
    prefixes = ("encoder.", "encoder.model.")  # of segmentation_models.pytorch's own ResNets, and of timm's
    return next((prefix for prefix in prefixes if {f"{prefix}{_STEM}", f"{prefix}layer1.0.{_STEM}"} <= names), None)


def convert_parts(tensors: Mapping[str, Tensor], network: nn.Module, part: str, spoken: str) -> tuple[Tensors, dict[str, str]]:
    """Fit one U-Net, its names beginning with ``encoder.``, ``decoder.`` and ``segmentation_head.``, into a network that sees one image.

    Args:
        tensors: the U-Net.
        network: for which :func:`encoder_prefix` finds an encoder.
        part: one of :data:`PARTS`.
        spoken: what the user asked to take, for messages.

    Returns:
        Tensors under our names, and names of what is left out with the reason.

    Raises:
        UsageError: another ResNet, or a decoder was asked for that this network does not have.
    """
    prefix = encoder_prefix(network)
    assert prefix is not None
    own = network.state_dict()
    taken: Tensors = {}
    dropped = {}
    for name, tensor in tensors.items():
        if name.startswith("encoder."):
            renamed = prefix + name.removeprefix("encoder.")
            if renamed in own:
                taken[renamed] = tensor
            else:
                dropped[name] = NO_SUCH_LAYER
        elif not belongs_to(name, part):
            dropped[name] = f"not part of what was asked for: {spoken}"
        elif name not in own:
            raise UsageError(f"take={spoken!r} wants {name}, which this network's decoder does not have; take the encoder alone")
        else:
            taken[name] = tensor
    _check_encoder({name.removeprefix(prefix): tensor for name, tensor in taken.items() if name.startswith(prefix)}, own, prefix)
    return taken, dropped


def split_take(take: str) -> tuple[str, str]:
    """Split ``branch:part``; the part is ``encoder`` where nothing is said.

    Raises:
        UsageError: no such part.
    """
    branch, _, part = take.partition(":")
    if part and part not in PARTS:
        raise UsageError(f"take={take!r}: no part is called {part!r}; {suggest(part, PARTS)}")
    return branch, part or "encoder"


def belongs_to(name: str, part: str) -> bool:
    """Whether a tensor is in what is taken of a U-Net, or of one for each branch.

    Args:
        name: beginning with ``encoder.``, ``decoder.`` or ``segmentation_head.``.
        part: one of :data:`PARTS`.
    """
    if part == "all" or name.startswith("encoder."):
        return True
    if part == "wocls":
        return name.startswith("decoder.")
    return part != "encoder" and bool(re.match(rf"decoder\.(?:\w+\.)?blocks\.[0-{int(part[2:]) - 1}]\.", name))


def _check_encoder(taken: Mapping[str, Tensor], own: Mapping[str, Tensor], prefix: str) -> None:
    ours = {name.removeprefix(prefix): tensor for name, tensor in own.items() if name.startswith(prefix)}
    wrong = [
        name
        for name, tensor in ours.items()
        if not name.endswith("num_batches_tracked") and name != _STEM and (name not in taken or taken[name].shape != tensor.shape)
    ]
    if _STEM not in taken or wrong:
        raise UsageError(
            f"the file holds another ResNet than the network's: {len(wrong)} of {len(ours)} tensors are missing or of another shape, "
            f"such as {wrong[0] if wrong else _STEM}; build the network with the encoder of the file"
        )


def _recognises(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    names = {name.removeprefix("net.") for name in shapes}
    return "model1.encoder.conv1.weight" in names or {"encoder1.conv1.weight", "encoder.conv1.weight"} <= names


def _fits(network: nn.Module) -> bool:
    return isinstance(network, FusedNetwork) or encoder_prefix(network) is not None


def _convert(tensors: Tensors, network: nn.Module, take: str | None) -> Converted:
    places = {name: place_of(name) for name in tensors}
    unexpected = [name for name, place in places.items() if place is None]
    known = {name: place for name, place in places.items() if place is not None}
    if not isinstance(network, FusedNetwork):
        converted = _convert_branch(tensors, known, network, take)
    elif take is not None:
        raise UsageError(f"take={take!r}: a fusion network takes the file whole; leave take out")
    else:
        converted = _convert_whole(tensors, known, network)
    converted.unexpected += unexpected
    return converted


def _convert_whole(tensors: Tensors, places: Mapping[str, Place], network: FusedNetwork) -> Converted:
    converted = Converted({})
    own = _own_branches(network)
    for name, (branch, part, rest) in places.items():
        ours = _own_name(network, (branch and own.get(branch), part, rest))
        if branch is not None and branch not in own:
            converted.dropped[name] = f"the network has no branch {branch!r}"
        elif ours is None:
            converted.dropped[name] = "file and network differ in whether branches share their decoder"
        else:
            converted.tensors[ours] = tensors[name]
    return converted


def _convert_branch(tensors: Tensors, places: Mapping[str, Place], network: nn.Module, take: str | None) -> Converted:
    stems = {str(branch): name for name, (branch, part, rest) in places.items() if part == "encoder" and rest == _STEM}
    bands = {branch: tensors[name].shape[1] for branch, name in stems.items()}
    fusion = "mid" if any(branch is None for branch, _, _ in places.values()) else "late"
    branch, part = _branch_that_fits(bands, network) if take is None else _branch_named(take, fusion, bands)
    spoken = f"{branch}:{part}"
    network_names = {}
    dropped = {}
    for name, place in places.items():
        if place[0] in (branch, None):
            network_names[f"{place[1]}.{place[2]}"] = name
        else:
            dropped[name] = f"not part of what was asked for: {spoken}"
    taken, left = convert_parts({ours: tensors[name] for ours, name in network_names.items()}, network, part, spoken)
    return Converted(taken, dropped | {network_names[name]: reason for name, reason in left.items()})


def _branch_named(take: str, fusion: str, branches: Iterable[str]) -> tuple[str, str]:
    tag, part = split_take(take)
    kind, branch = _TAGS.get(tag, (fusion, tag))
    if kind != fusion or branch not in branches:
        right = [known for known, (of, which) in _TAGS.items() if of == fusion and which in branches]
        raise UsageError(
            f"take={take!r}: the file is of {fusion} fusion and holds {', '.join(branches)}; {suggest(tag, [*branches, *right])}"
        )
    return branch, part


def _branch_that_fits(bands: Mapping[str, int], network: nn.Module) -> tuple[str, str]:
    wanted = network.state_dict()[f"{encoder_prefix(network)}{_STEM}"].shape[1]
    right = [branch for branch, count in bands.items() if count == wanted]
    if len(right) != 1:
        held = ", ".join(f"{branch} ({count} bands)" for branch, count in bands.items())
        raise UsageError(
            f"the network sees {wanted} bands and the file holds {held}; say which encoder to take: take={next(iter(bands))!r}"
        )
    return right[0], "encoder"


def _own_branches(network: FusedNetwork) -> dict[str, str]:
    """Our names of the branches by theirs: ``s2_l1c`` is S2."""
    return {theirs: ours for ours in network.branches for theirs in _ENCODERS.values() if ours.startswith(theirs)}


def _own_name(network: FusedNetwork, place: Place) -> str | None:
    branch, part, rest = place
    if (branch is None) != (network.shared and part != "encoder"):
        return None
    return f"{part}.{rest}" if branch is None else f"{part}.{branch}.{rest}"


def _export(network: nn.Module) -> Tensors:
    assert isinstance(network, FusedNetwork)  # others have no such layout
    theirs = {branch: name for name, branch in (_ENCODERS if network.shared else _MODELS).items()}
    names = {ours: theirs[branch] for branch, ours in _own_branches(network).items()}
    exported: Tensors = {}
    for name, tensor in network.state_dict().items():
        part, _, rest = name.partition(".")
        if part == "encoder" or not network.shared:
            branch, _, rest = rest.partition(".")
            exported[f"{names[branch]}.{rest}" if network.shared else f"{names[branch]}.{part}.{rest}"] = tensor
        else:
            exported[name] = tensor
    return exported


LAYOUTS = (Layout("cromss-fusion", "CromSS pre-training, S1 and S2", _recognises, _fits, _convert, _export),)
