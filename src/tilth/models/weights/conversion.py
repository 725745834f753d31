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
from tilth.models.network import SegmentationNetwork
from tilth.models.s5 import LAYOUT
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
    """
    joined: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if _SHARED in name:
            own = tensors[name.replace(_SHARED, f"{_EXPERTS}{expert}.")]
            joined[name.replace(_SHARED, _WHOLE)] = torch.cat([tensor, own])
        elif _EXPERTS not in name:
            joined[name] = tensor
    return joined


def to_experts(network: SegmentationNetwork, tasks: Mapping[str, int], part: int = 256, *, copy_heads: bool = False) -> MultiTaskNetwork:
    """Turn a network with one task into one with several: experts and decoders start as copies, heads fresh.

    Args:
        network: plain ViT with UperNet; stays as it is.
        tasks: number of classes by name, in the order of the experts.
        part: channels of each expert.
        copy_heads: start heads as copies too; every task must have the classes of the network.

    Returns:
        The new network, on the same device, in the same mode.

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
    return made.train(network.training)


def to_dense(network: MultiTaskNetwork, task: str) -> SegmentationNetwork:
    """Take one task out of a network with several: an ordinary network that computes exactly the same for it.

    Args:
        network: ViT with experts; stays as it is.
        task: which.

    Returns:
        The new network, on the same device, in the same mode.

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
    return made.train(network.training)


def _plain(encoder: nn.Module) -> PlainVisionTransformer:
    if not isinstance(encoder, PlainVisionTransformer):
        raise UsageError(f"experts are made of and taken from plain vision transformers; this encoder is {type(encoder).__name__}")
    return encoder


def _split_block(block: Block, experts: int, part: int) -> None:
    old = cast("FeedForward", block.feed_forward)
    made = ExpertFeedForward(old.expand.in_features, old.expand.out_features, experts, part)
    _fill(block, made, split_feed_forwards(block.state_dict(prefix="."), experts, part))


def _join_block(block: Block, expert: int) -> None:
    old = cast("ExpertFeedForward", block.feed_forward)
    made = FeedForward(old.expand.in_features, old.expand.out_features)
    _fill(block, made, join_feed_forwards(block.state_dict(prefix="."), expert))


def _fill(block: Block, made: nn.Module, tensors: dict[str, Tensor]) -> None:
    block.feed_forward = made.to(block.norm2.weight)
    block.load_state_dict({name.removeprefix("."): tensor for name, tensor in tensors.items()})


def _fresh_head(like: ClassHead, classes: int) -> ClassHead:
    weight = like.convolution.weight
    made = ClassHead(like.convolution.in_channels, classes, scale=like.scale, dropout=like.dropout.p, align_corners=like.align_corners)
    return made.to(weight)
