"""Vision transformers that others trained: MAE and its kin, DINO, DINOv2, CLIP-like towers of timm, torchvision, Hugging Face.

All of them are brought to the names that timm and MAE use, and from there to ours: into plain ViTs with or without experts, into those with
rotated windows (s5_pretrain.md section 6), into the encoders of CromSS for SatMAE and DOFA (cromss.md section 7.4), and into timm's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from tilth.models.vision_transformers.blocks import Block
from tilth.models.vision_transformers.experts import ExpertFeedForward
from tilth.models.weights.conversion import split_feed_forwards
from tilth.models.weights.layout import NO_SUCH_LAYER, OTHER_ATTENTION, Converted, Layout, Tensors
from tilth.models.weights.layouts.cromss_transfer import ENCODER
from tilth.models.weights.layouts.parts import choose_prefix, encoder_roots, prefixes_before
from tilth.models.weights.layouts.s5_names import PYRAMID_NAMES
from tilth.models.weights.rename import Renaming

_TIMM = "blocks.0.attn.qkv.weight"
_TORCHVISION = "encoder.layers.encoder_layer_0.self_attention.in_proj_weight"
_HUGGING_FACE = "encoder.layer.0.attention.attention.query.weight"
_LANDMARKS = (_TIMM, _TORCHVISION, _HUGGING_FACE)

_FROM_TORCHVISION = Renaming(
    [
        ("cls_token", "class_token"),
        ("pos_embed", "encoder.pos_embedding"),
        ("patch_embed.proj.*", "conv_proj.*"),
        ("norm.*", "encoder.ln.*"),
        ("head.*", "heads.head.*"),
        ("blocks.{i}.norm1.*", "encoder.layers.encoder_layer_{i}.ln_1.*"),
        ("blocks.{i}.norm2.*", "encoder.layers.encoder_layer_{i}.ln_2.*"),
        ("blocks.{i}.attn.qkv.weight", "encoder.layers.encoder_layer_{i}.self_attention.in_proj_weight"),
        ("blocks.{i}.attn.qkv.bias", "encoder.layers.encoder_layer_{i}.self_attention.in_proj_bias"),
        ("blocks.{i}.attn.proj.*", "encoder.layers.encoder_layer_{i}.self_attention.out_proj.*"),
        ("blocks.{i}.mlp.fc1.*", "encoder.layers.encoder_layer_{i}.mlp.0.*"),
        ("blocks.{i}.mlp.fc2.*", "encoder.layers.encoder_layer_{i}.mlp.3.*"),
        ("blocks.{i}.mlp.fc1.*", "encoder.layers.encoder_layer_{i}.mlp.linear_1.*"),
        ("blocks.{i}.mlp.fc2.*", "encoder.layers.encoder_layer_{i}.mlp.linear_2.*"),
    ]
)
_FROM_HUGGING_FACE = Renaming(
    [
        ("cls_token", "embeddings.cls_token"),
        ("mask_token", "embeddings.mask_token"),
        ("reg_token", "embeddings.register_tokens"),
        ("pos_embed", "embeddings.position_embeddings"),
        ("patch_embed.proj.*", "embeddings.patch_embeddings.projection.*"),
        ("norm.*", "layernorm.*"),
        *(
            (f"blocks.{{i}}.{timm}.*", f"encoder.layer.{{i}}.{theirs}.*")
            for timm, theirs in (
                ("norm1", "layernorm_before"),
                ("norm2", "layernorm_after"),
                ("norm1", "norm1"),
                ("norm2", "norm2"),
                ("attn.query", "attention.attention.query"),
                ("attn.key", "attention.attention.key"),
                ("attn.value", "attention.attention.value"),
                ("attn.proj", "attention.output.dense"),
                ("mlp.fc1", "intermediate.dense"),
                ("mlp.fc2", "output.dense"),
                ("mlp.fc1", "mlp.fc1"),
                ("mlp.fc2", "mlp.fc2"),
            )
        ),
        ("blocks.{i}.ls1.gamma", "encoder.layer.{i}.layer_scale1.lambda1"),
        ("blocks.{i}.ls2.gamma", "encoder.layer.{i}.layer_scale2.lambda1"),
    ]
)

_REASONS: tuple[tuple[str, str], ...] = (
    (r"decoder.*|mask_token|proj_up.*", "of the decoder that images were rebuilt with"),
    (r"fpn\d?\..*", "feature pyramid, which this network does not have"),
    (r"(fc_)?norm\..*", "final norm: maps are taken before it"),
    (r"(head|head_dist|heads|fc|pre_logits|projector|classifier|pooler)\b.*", "classifier or projection head"),
    (r"reg_token|register_tokens|dist_token", "register tokens, which this network does not have"),
    (r"cls_token", "class token, which this network does not have"),
    (r"patch_embed\..*", "patches are embedded in another way here"),
    (r"channel_embed", "groups of bands, which this network does not have"),
    (
        r".*attn\.((full_attn_)?rel_pos_[hw]|relative_position\w*|sampling_\w+\..*)",
        OTHER_ATTENTION,
    ),
    (r"blocks\.\d+\..*|(encoder\.)?layers?[._]\d+\..*|norm_pre\..*", NO_SUCH_LAYER),
)
_RENAMED = {"register_tokens": "reg_token"}
_PYRAMID = Renaming(PYRAMID_NAMES)
_EPSILON = 1e-6
"""Of layer norms in all these programs."""


def _prefixes(names: Iterable[str], landmark: str) -> list[str]:
    """As :func:`prefixes_before`, but for Swin's, whose blocks lie inside layers."""
    return [prefix for prefix in prefixes_before(names, landmark) if not re.search(r"(layers?|stages?)[._]\d+\.$", prefix)]


def _recognises(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    return any(_prefixes(shapes, landmark) for landmark in _LANDMARKS)


def _target(network: nn.Module) -> tuple[str, bool] | None:
    """Find the ViT in a network: what stands before its names, and whether they are ours (or timm's); None if there is none."""
    names = list(network.state_dict())
    for root in [*encoder_roots(network), ""]:
        if f"{root}blocks.0.attention.qkv.weight" in names:
            return root, True
        found = [prefix for prefix in _prefixes(names, _TIMM) if prefix.startswith(root)]
        if found:
            return found[0], False
    return None


def _convert(tensors: Tensors, network: nn.Module, take: str | None) -> Converted:
    landmark = next(landmark for landmark in _LANDMARKS if _prefixes(tensors, landmark))
    prefix = choose_prefix(_prefixes(tensors, landmark), take)
    sources = _canonical({name: name.removeprefix(prefix) for name in tensors if name.startswith(prefix)}, landmark)
    found = {name: tensors[source] for name, source in sources.items()}
    _merge_queries(found, sources)
    _cut_registers(found)
    target = _target(network)
    assert target is not None
    root, ours = target
    converted = _into_ours(found, network, root) if ours else _into_timm(found, network, root)
    if prefix:
        converted.notes.append(f"took {prefix.rstrip('.')}")
    converted.dropped = {sources.get(name, name): reason for name, reason in converted.dropped.items()}
    taken = {*sources.values(), *(name for name in tensors if name.startswith(prefix) and _merged(name))}
    for name in tensors:
        if name not in taken:
            reason = _reason(name.removeprefix(prefix)) if name.startswith(prefix) else "beside the encoder that was taken"
            converted.dropped[name] = reason or "not of the encoder"
    return converted


def _canonical(names: Mapping[str, str], landmark: str) -> dict[str, str]:
    """Bring names to those of timm; what has none there is left out. Values are the names in the file."""
    renaming = {_TORCHVISION: _FROM_TORCHVISION, _HUGGING_FACE: _FROM_HUGGING_FACE}.get(landmark)
    if renaming is None:
        return {_RENAMED.get(name, name): source for source, name in names.items()}
    return {theirs: source for source, name in names.items() if (theirs := renaming.to_ours(name)) is not None}


def _merge_queries(found: Tensors, sources: dict[str, str]) -> None:
    """Join queries, keys and values that a file keeps apart, in this order."""
    for name in [name for name in found if ".attn.query." in name]:
        parts = [name.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
        merged = name.replace(".query.", ".qkv.")
        if name.endswith(".bias"):  # keys of BEiT have none, which is one of zeros
            for part in parts:
                found.setdefault(part, torch.zeros_like(found[name]))
        if not all(part in found for part in parts):
            continue
        found[merged] = torch.cat([found.pop(part) for part in parts])
        sources[merged] = sources[name]


def _cut_registers(found: Tensors) -> None:
    """Take the positions of register tokens out of a table where it has some: class token, registers, grid."""
    registers = found["reg_token"].shape[1] if "reg_token" in found else 0
    positions = found.get("pos_embed")
    if positions is not None and registers and math.isqrt(grid := positions.shape[1] - 1 - registers) ** 2 == grid:
        found["pos_embed"] = torch.cat([positions[:, :1], positions[:, 1 + registers :]], dim=1)


def _merged(name: str) -> bool:
    return re.search(r"attention\.(query|key|value)\.", name) is not None


def _into_ours(found: Tensors, network: nn.Module, root: str) -> Converted:
    names = set(network.state_dict())
    converted = Converted({})
    encoder = network.get_submodule(root.rstrip(".")) if root else network
    _fold_scales(found, converted.notes)
    part, experts = _experts(encoder)
    for name, tensor in found.items():
        if name == "pos_embed":
            converted.tensors[f"{root}position_embedding"] = tensor
            if f"{root}class_position" in names and _has_slot(tensor):
                converted.tensors |= {f"{root}class_position": tensor[:, :1], f"{root}position_embedding": tensor[:, 1:]}
            continue
        known = ENCODER.to_ours(f"encoder.{name}") or _PYRAMID.to_ours(f"encoder.{name}")
        candidates = [known] if known else []
        if name == "cls_token":
            candidates = ["encoder.class_token", "encoder.unused_class_token"]
        split = split_feed_forwards({known: tensor}, experts, part) if known and experts else dict.fromkeys(candidates, tensor)
        here = {f"{root}{ours.removeprefix('encoder.')}": value for ours, value in split.items()}
        here = {ours: value for ours, value in here.items() if ours in names}
        if here:
            converted.tensors |= here
        elif (reason := _reason(name)) is not None:
            converted.dropped[name] = reason
        else:
            converted.unexpected.append(name)
    _note_epsilon(encoder, converted.notes)
    return converted


def _into_timm(found: Tensors, network: nn.Module, root: str) -> Converted:
    state = network.state_dict()
    converted = Converted({})
    positions = found.get("pos_embed")
    here = state.get(f"{root}pos_embed")
    if positions is not None and here is not None and _has_slot(positions) and not _has_slot(here) and "cls_token" in found:
        # timm keeps the position of the class token inside the token where there are registers.
        found = found | {"cls_token": found["cls_token"] + positions[:, :1], "pos_embed": positions[:, 1:]}
    if not any(name.endswith("ls1.gamma") for name in state):
        _fold_scales(found := dict(found), converted.notes)
    for name, tensor in found.items():
        if f"{root}{name}" in state:
            converted.tensors[f"{root}{name}"] = tensor
        elif (reason := _reason(name)) is not None:
            converted.dropped[name] = reason
        else:
            converted.unexpected.append(name)
    return converted


def _fold_scales(found: Tensors, notes: list[str]) -> None:
    """Multiply scales of layers (DINOv2, CaiT) into the linear layers before them, which is the same number."""
    done = False
    for kind, layer in (("ls1", "attn.proj"), ("ls2", "mlp.fc2")):
        for name in [name for name in found if name.endswith(f".{kind}.gamma")]:
            block = name.removesuffix(f"{kind}.gamma")
            scale = found.pop(name)
            if f"{block}{layer}.weight" in found:
                # In float32: half precision has no room for the product of a scale of 1e-5 and a weight.
                for kept, factor in (("weight", scale.float()[:, None]), ("bias", scale.float())):
                    if f"{block}{layer}.{kept}" in found:
                        found[f"{block}{layer}.{kept}"] = found[f"{block}{layer}.{kept}"].float() * factor
                done = True
    if done:
        notes.append("scales of layers are multiplied into the linear layers before them")


def _has_slot(positions: Tensor) -> bool:
    """Whether a table (1, N, C) begins with the position of a class token: N is one more than a square."""
    count = positions.shape[1]
    return math.isqrt(count) ** 2 != count and math.isqrt(count - 1) ** 2 == count - 1


def _experts(encoder: nn.Module) -> tuple[int, int]:
    """Channels and number of the experts in each layer; zeros where there are none."""
    block = next((module for module in encoder.modules() if isinstance(module, Block)), None)
    if block is None or not isinstance(block.feed_forward, ExpertFeedForward):
        return 0, 0
    return block.feed_forward.part, len(block.feed_forward.experts)


def _reason(name: str) -> str | None:
    return next((reason for pattern, reason in _REASONS if re.fullmatch(pattern, name)), None)


def _note_epsilon(encoder: nn.Module, notes: list[str]) -> None:
    norm = next((module for name, module in encoder.named_modules() if name.endswith("blocks.0.norm1")), None)
    if isinstance(norm, nn.LayerNorm) and norm.eps != _EPSILON:
        notes.append(
            f"the file was trained with layer norms of epsilon {_EPSILON:g}, this network computes with {norm.eps:g} as S5 does; "
            f"create it with epsilon={_EPSILON:g} to compute what the file's own program does"
        )


LAYOUTS = (
    Layout(
        "vit",
        "a vision transformer (MAE, DINO, timm, torchvision, Hugging Face)",
        _recognises,
        lambda network: _target(network) is not None,
        _convert,
    ),
)
"""One for all: what tells them apart are names alone."""
