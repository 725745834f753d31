"""Ordinary feed-forward layers into expert ones, and one task of expert layers back into ordinary ones (s5_finetune.md sections 3.2, 3.3).

Of the second linear layer, C rows, the first C - P become the shared layer and the last P the layer of every expert; so all tasks compute
at first what the ordinary network computed. The way back puts the two beneath each other, exactly.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from tilth.errors import UsageError
from tilth.models.by_name import SPEC
from tilth.models.config import NetworkSpec
from tilth.models.decoders.parts import ClassHead
from tilth.models.multi_task import MultiTaskNetwork, check_tasks
from tilth.models.named import NAMES
from tilth.models.network import LAYOUT, SegmentationNetwork
from tilth.models.vision_transformers.blocks import Block, FeedForward
from tilth.models.vision_transformers.experts import ExpertFeedForward
from tilth.models.vision_transformers.plain import PlainVisionTransformer

_WHOLE = ".feed_forward.contract."
_SHARED = ".feed_forward.shared."
_EXPERTS = ".feed_forward.experts."
_MOE = "_moe"


def split_feed_forwards(tensors: Mapping[str, Tensor], experts: int, part: int) -> dict[str, Tensor]:
    """Turn the second layers of feed-forward parts into a shared layer and equal experts.

    Args:
        tensors: by our names; ``*.feed_forward.contract.{weight,bias}`` have C rows. All others pass as they are.
        experts: how many.
        part: rows P that each gets.

    Returns:
        Tensors with ``*.feed_forward.shared.*`` and ``*.feed_forward.experts.<t>.*`` instead; slices of the given ones, not copies.

    Raises:
        UsageError: ``part`` leaves no row to share.
    """
    split: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if _WHOLE not in name:
            split[name] = tensor
            continue
        rows = tensor.shape[0] - part
        if rows < 1:
            raise UsageError(f"part={part} leaves nothing of the {tensor.shape[0]} channels of {name} to share; choose a smaller part")
        split[name.replace(_WHOLE, _SHARED)] = tensor[:rows]
        for expert in range(experts):
            split[name.replace(_WHOLE, f"{_EXPERTS}{expert}.")] = tensor[rows:]
    return split


def join_feed_forwards(tensors: Mapping[str, Tensor], expert: int) -> dict[str, Tensor]:
    """Put the shared layers and those of one expert together again; the other experts are left out.

    Args:
        tensors: by our names, with ``*.feed_forward.shared.*`` and ``*.feed_forward.experts.<t>.*``. All others pass as they are.
        expert: which.

    Returns:
        Tensors with ``*.feed_forward.contract.*`` instead.

    Raises:
        UsageError: the expert lacks a tensor.
    """
    joined: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if _SHARED in name:
            expected = name.replace(_SHARED, f"{_EXPERTS}{expert}.")
            if expected not in tensors:
                raise UsageError(f"{expected} is missing, so there is no whole expert {expert}; the file was cut or put together by hand")
            own = tensors[expected]
            joined[name.replace(_SHARED, _WHOLE)] = torch.cat([tensor, own])
        elif _EXPERTS not in name:
            joined[name] = tensor
    return joined


def to_experts(network: SegmentationNetwork, tasks: Mapping[str, int], part: int = 256, *, copy_heads: bool = False) -> MultiTaskNetwork:
    """Turn a network with one task into one with several: experts and decoders start as copies, heads fresh.

    Args:
        network: plain ViT with feature pyramid and UperNet, as ``upernet_vit_b``; stays as it is.
        tasks: number of classes by name, in the order of the experts.
        part: channels of each expert.
        copy_heads: start heads as copies too; every task must have the classes of the network.

    Returns:
        The new network, on the same device. Each part is in the mode that it is copied from, and trains if that does; fresh heads train.

    Raises:
        UsageError: a network of another kind, or heads that cannot be copied.
        ConfigError: tasks or part make no sense.
    """
    wanted = check_tasks(tasks)
    encoder = copy.deepcopy(_plain(network.encoder))
    head = network.segmentation_head
    if not isinstance(head, ClassHead) or encoder.experts:
        raise UsageError(f"experts are made of a plain ViT with UperNet of one task; got {type(network).__name__}")
    classes = head.convolution.out_channels
    if copy_heads and set(wanted.values()) != {classes}:
        raise UsageError(f"copy_heads: the network has {classes} classes and the tasks {wanted}; leave copy_heads out for fresh heads")
    encoder.experts = len(wanted)
    for block in encoder.blocks:
        _split_block(cast("Block", block), len(wanted), part)
    heads = {task: copy.deepcopy(head) if copy_heads else _fresh_head(head, number) for task, number in wanted.items()}
    decoders = {task: copy.deepcopy(network.decoder) for task in wanted}
    made = MultiTaskNetwork(encoder, decoders, heads, wanted, divisor=network.divisor, minimum=network.minimum)
    setattr(made, LAYOUT, "s5-moe")
    spec = getattr(network, SPEC, None)
    if isinstance(spec, NetworkSpec) and f"{spec.name}{_MOE}" in NAMES:
        options = spec.options | {"tasks": dict(wanted), "part": part}
        setattr(made, SPEC, spec.model_copy(update={"name": f"{spec.name}{_MOE}", "options": options}))
    # Only what is new here: parts that were copied keep their own modes.
    for module in (made, made.decoders, made.heads):
        module.training = network.training
    return made


def to_dense(network: MultiTaskNetwork, task: str) -> SegmentationNetwork:
    """Take one task out of a network with several: an ordinary network that computes exactly the same for it.

    Args:
        network: ViT with experts; stays as it is.
        task: which.

    Returns:
        The new network, on the same device. Each part is in the mode that it is copied from, and trains if that does; of a shared layer and
        an expert that are joined, if one of them does.

    Raises:
        UsageError: no such task, or a network of another kind.
    """
    expert = network.index(task)
    encoder = copy.deepcopy(_plain(network.encoder))
    for block in encoder.blocks:
        _join_block(cast("Block", block), expert)
    encoder.experts = 0
    decoder, head = copy.deepcopy(network.decoders[task]), copy.deepcopy(network.heads[task])
    made = SegmentationNetwork(encoder, decoder, head, divisor=network.divisor, minimum=network.minimum)
    setattr(made, LAYOUT, "s5-vit")
    spec = getattr(network, SPEC, None)
    if isinstance(spec, NetworkSpec) and spec.name.removesuffix(_MOE) in NAMES:
        options = {name: value for name, value in spec.options.items() if name not in ("tasks", "part")}
        update = {"name": spec.name.removesuffix(_MOE), "num_classes": network.tasks[task], "options": options}
        setattr(made, SPEC, spec.model_copy(update=update))
    made.training = network.training
    return made


def _plain(encoder: nn.Module) -> PlainVisionTransformer:
    # Exactly: encoders that only begin like one (of groups of bands, of wavelengths) do not hand the task on to their layers.
    if type(encoder) is not PlainVisionTransformer:
        raise UsageError(
            "experts are made of and taken from plain vision transformers with a feature pyramid, such as upernet_vit_b; "
            f"this encoder is {type(encoder).__name__}"
        )
    if encoder.pyramid is None or encoder.has_class_token:
        lacking = "has a class token" if encoder.has_class_token else "has no feature pyramid"
        raise UsageError(
            f"experts are made of and taken from vision transformers with a feature pyramid, such as upernet_vit_b; this encoder {lacking}"
        )
    return encoder


def _split_block(block: Block, experts: int, part: int) -> None:
    old = cast("FeedForward", block.feed_forward)
    made = ExpertFeedForward(old.expand.in_features, old.expand.out_features, experts, part)
    tensors = split_feed_forwards(block.state_dict(prefix="."), experts, part)
    for layer in (made.shared, *made.experts):
        _behave(layer, old.contract)
    _fill(block, made, tensors)


def _join_block(block: Block, expert: int) -> None:
    old = cast("ExpertFeedForward", block.feed_forward)
    made = FeedForward(old.expand.in_features, old.expand.out_features)
    tensors = join_feed_forwards(block.state_dict(prefix="."), expert)
    _behave(made.contract, old.shared, old.experts[expert])
    _fill(block, made, tensors)


def _behave(made: nn.Module, *like: nn.Module) -> None:
    """Put a layer in the mode of others, the first where they differ; its parameters train where those of one of the others do."""
    made.training = like[0].training
    for name, parameter in made.named_parameters():
        parameter.requires_grad = any(layer.get_parameter(name).requires_grad for layer in like)


def _fill(block: Block, made: ExpertFeedForward | FeedForward, tensors: dict[str, Tensor]) -> None:
    """Put a feed-forward part of the other kind into a layer; the first of its linear layers is the one that was there."""
    old = cast("ExpertFeedForward | FeedForward", block.feed_forward)
    made.to(block.norm2.weight)
    made.expand, made.activation, made.training = old.expand, old.activation, old.training
    if isinstance(made, ExpertFeedForward):
        made.experts.training = old.training
    block.feed_forward = made
    block.load_state_dict({name.removeprefix("."): tensor for name, tensor in tensors.items()})


def _fresh_head(like: ClassHead, classes: int) -> ClassHead:
    weight = like.convolution.weight
    made = ClassHead(like.convolution.in_channels, classes, scale=like.scale, dropout=like.dropout.p, align_corners=like.align_corners)
    for module, other in zip(made.modules(), like.modules(), strict=True):
        module.training = other.training
    return made.to(weight)
