"""Swin Transformers that others trained: of the paper's own program, timm and torchvision; into ours and into timm's.

All three merge neighbouring patches in one order (down before right) and keep queries, keys and values in one layer. They differ in names
and in whether the merging belongs to the stage before (the paper's program) or behind (timm).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from torch import nn

from tilth.models.weights.layout import NO_SUCH_LAYER, Converted, Layout, Tensors
from tilth.models.weights.layouts.parts import choose_prefix, encoder_roots, prefixes_before
from tilth.models.weights.rename import Renaming

_USUAL = "layers.0.blocks.0.attn.relative_position_bias_table"
_TORCHVISION = "features.1.0.attn.relative_position_bias_table"
_TIMM_MAPS = "layers_0.blocks.0.attn.relative_position_bias_table"
"""As timm names the stages of a model that gives maps."""

_OURS = Renaming(
    [
        ("patch_embedding.projection.*", "patch_embed.proj.*"),
        ("patch_embedding.norm.*", "patch_embed.norm.*"),
        ("stages.{i}.blocks.{j}.attention.qkv.*", "layers.{i}.blocks.{j}.attn.qkv.*"),
        ("stages.{i}.blocks.{j}.attention.projection.*", "layers.{i}.blocks.{j}.attn.proj.*"),
        ("stages.{i}.blocks.{j}.attention.relative_bias", "layers.{i}.blocks.{j}.attn.relative_position_bias_table"),
        ("stages.{i}.blocks.{j}.feed_forward.expand.*", "layers.{i}.blocks.{j}.mlp.fc1.*"),
        ("stages.{i}.blocks.{j}.feed_forward.contract.*", "layers.{i}.blocks.{j}.mlp.fc2.*"),
        ("stages.{i}.blocks.{j}.norm1.*", "layers.{i}.blocks.{j}.norm1.*"),
        ("stages.{i}.blocks.{j}.norm2.*", "layers.{i}.blocks.{j}.norm2.*"),
        ("mergings.{i}.*", "layers.{i}.downsample.*"),
        ("norms.{i}.*", "norm{i}.*"),
    ]
)
"""Our names beside those of the paper's program, with a norm behind each stage."""

_COMPUTED = re.compile(r".*(relative_position_index|relative_coords_table|attn_mask)")


def _numbers(name: str, change: Callable[[int], int]) -> str:
    return re.sub(r"^(layers\.)(\d+)", lambda found: f"{found[1]}{change(int(found[2]))}", name)


def _from_torchvision(name: str) -> str:
    """Bring a name to the paper's: features 0 embeds, odd ones are stages, even ones merge."""
    found = re.fullmatch(r"features\.(\d+)\.(.*)", name)
    if not found:
        return name
    index, rest = int(found[1]), found[2]
    if index == 0:
        return f"patch_embed.{ {'0': 'proj', '2': 'norm'}.get(rest[0], rest[0]) }{rest[1:]}"
    if index % 2 == 0:
        return f"layers.{index // 2 - 1}.downsample.{rest}"
    block = re.sub(r"\.mlp\.([03])\.", lambda layer: f".mlp.fc{1 if layer[1] == '0' else 2}.", rest)
    return f"layers.{index // 2}.blocks.{block}"


def _prefixes(names: Mapping[str, object]) -> list[str]:
    return [prefix for landmark in (_USUAL, _TORCHVISION) for prefix in prefixes_before(names, landmark)]


def _recognises(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    return bool(_prefixes(shapes))


def _target(network: nn.Module) -> tuple[str, bool] | None:
    """Find the Swin in a network: what stands before its names, and whether they are ours (or timm's); None if there is none."""
    names = list(network.state_dict())
    for root in [*encoder_roots(network), ""]:
        if f"{root}stages.0.blocks.0.attention.relative_bias" in names:
            return root, True
        found = [prefix for landmark in (_USUAL, _TIMM_MAPS) for prefix in prefixes_before(names, landmark) if prefix.startswith(root)]
        if found:
            return found[0], False
    return None


def _convert(tensors: Tensors, network: nn.Module, take: str | None) -> Converted:
    target = _target(network)
    assert target is not None
    root, ours = target
    prefix = choose_prefix(_prefixes(tensors), take)
    inside = {_from_torchvision(name.removeprefix(prefix)): name for name in tensors if name.startswith(prefix)}
    if "layers.0.downsample.reduction.weight" not in inside:  # timm counts a merging to the stage behind it
        inside = {_numbers(name, lambda index: index - 1) if ".downsample." in name else name: source for name, source in inside.items()}
    last = max(int(found[1]) for name in inside if (found := re.match(r"layers\.(\d+)\.blocks\.", name)))
    # The norm behind the last stage is the one that classifiers look through.
    inside = {re.sub(r"^norm\.", f"norm{last}.", name): source for name, source in inside.items()}
    state = network.state_dict()
    converted = Converted({})
    if prefix:
        converted.notes.append(f"took {prefix.rstrip('.')}")
    for name, source in inside.items():
        here = _name_here(name, root, ours=ours, maps=f"{root}{_TIMM_MAPS}" in state)
        if here in state:
            converted.tensors[here] = tensors[source]
        elif _COMPUTED.fullmatch(name):
            converted.dropped[source] = "a table of indices, which is computed"
        elif name.startswith(("head.", "norm")):
            converted.dropped[source] = "classifier, or a norm behind a stage that this network does not have"
        elif name.startswith("layers."):
            converted.dropped[source] = NO_SUCH_LAYER
        else:
            converted.unexpected.append(source)
    converted.dropped |= {name: "beside the encoder that was taken" for name in tensors if not name.startswith(prefix)}
    return converted


def _name_here(name: str, root: str, *, ours: bool, maps: bool) -> str:
    if ours:
        return f"{root}{_OURS.to_ours(name)}"
    timm = _numbers(name, lambda index: index + 1) if ".downsample." in name else name
    return root + (re.sub(r"^layers\.", "layers_", timm) if maps else timm)


LAYOUTS = (
    Layout(
        "swin", "a Swin Transformer (the paper's, timm, torchvision)", _recognises, lambda network: _target(network) is not None, _convert
    ),
)
"""One for all: what tells them apart are names alone."""
