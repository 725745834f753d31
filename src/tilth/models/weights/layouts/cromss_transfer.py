"""Networks that CromSS transfers to: ResNets with decoders of segmentation_models.pytorch, and large vision transformers with UperNet.

cromss.md section 7. Names are understood with and without ``net.``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from tilth.errors import UsageError, suggest
from tilth.models.network import SegmentationNetwork
from tilth.models.weights.layout import NO_SUCH_LAYER, Converted, Layout, Tensors
from tilth.models.weights.layouts.cromss import convert_parts, encoder_prefix, split_take
from tilth.models.weights.rename import Renaming

_SINGLE_TAGS = ("nss1", "nss2", "encoder")

_BLOCK = {"convolution": 0, "norm": 1}
ENCODER = Renaming(
    [
        ("encoder.class_token", "encoder.cls_token"),
        ("encoder.group_embedding", "encoder.channel_embed"),
        ("encoder.patch_embedding.groups.{i}.*", "encoder.patch_embed.{i}.proj.*"),
        ("encoder.patch_embedding.first.*", "encoder.patch_embed.fclayer.w1.*"),
        ("encoder.patch_embedding.second.*", "encoder.patch_embed.fclayer.w2.*"),
        ("encoder.patch_embedding.weight_tokens", "encoder.patch_embed.weight_generator.weight_tokens"),
        ("encoder.patch_embedding.bias_token", "encoder.patch_embed.weight_generator.bias_token"),
        ("encoder.patch_embedding.to_kernel.*", "encoder.patch_embed.weight_generator.fc_weight.*"),
        ("encoder.patch_embedding.to_bias.*", "encoder.patch_embed.weight_generator.fc_bias.*"),
        *(
            (f"encoder.patch_embedding.{ours}", f"encoder.patch_embed.weight_generator.transformer_encoder.layers.0.{theirs}")
            for ours, theirs in (
                ("attention.qkv.weight", "self_attn.in_proj_weight"),
                ("attention.qkv.bias", "self_attn.in_proj_bias"),
                ("attention.projection.*", "self_attn.out_proj.*"),
                ("attention_norm.*", "norm1.*"),
                ("feed_forward.expand.*", "linear1.*"),
                ("feed_forward.contract.*", "linear2.*"),
                ("feed_forward_norm.*", "norm2.*"),
            )
        ),
        ("encoder.patch_embedding.*", "encoder.patch_embed.proj.*"),
        ("encoder.blocks.{i}.attention.qkv.*", "encoder.blocks.{i}.attn.qkv.*"),
        ("encoder.blocks.{i}.attention.projection.*", "encoder.blocks.{i}.attn.proj.*"),
        ("encoder.blocks.{i}.feed_forward.expand.*", "encoder.blocks.{i}.mlp.fc1.*"),
        ("encoder.blocks.{i}.feed_forward.contract.*", "encoder.blocks.{i}.mlp.fc2.*"),
        ("encoder.blocks.{i}.norm1.*", "encoder.blocks.{i}.norm1.*"),
        ("encoder.blocks.{i}.norm2.*", "encoder.blocks.{i}.norm2.*"),
    ]
)
"""Plain, SatMAE and DOFA encoders; positions come on top, see :func:`split_positions`."""

DECODER = Renaming(
    [
        ("segmentation_head.convolution.*", "decoder.conv_last.1.*"),
        *((f"decoder.fusion.{part}.*", f"decoder.conv_last.0.{index}.*") for part, index in _BLOCK.items()),
        *((f"decoder.context.{part}.*", f"decoder.ppm_last_conv.{index}.*") for part, index in _BLOCK.items()),
        *((f"decoder.pooled.{{i}}.{part}.*", f"decoder.ppm_conv.{{i}}.{index}.*") for part, index in _BLOCK.items()),
        *((f"decoder.laterals.{{i}}.{part}.*", f"decoder.fpn_in.{{i}}.{index}.*") for part, index in _BLOCK.items()),
        *((f"decoder.smoothings.{{i}}.{part}.*", f"decoder.fpn_out.{{i}}.0.{index}.*") for part, index in _BLOCK.items()),
    ]
)
"""UperNet on the maps of transformers, and the layer that names classes."""
_POSITIONS = "encoder.pos_embed"


def split_positions(table: torch.Tensor) -> Tensors:
    """Split a position embedding (1, 1 + N, C), class token first, into ours."""
    return {"encoder.class_position": table[:, :1], "encoder.position_embedding": table[:, 1:]}


def _recognises_resnet(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    names = {name.removeprefix("net.") for name in shapes}
    return {"encoder.conv1.weight", "encoder.layer1.0.conv1.weight"} <= names and "encoder1.conv1.weight" not in names


def _fits_resnet(network: nn.Module) -> bool:
    return encoder_prefix(network) is not None


def _convert_resnet(tensors: Tensors, network: nn.Module, take: str | None) -> Converted:
    unknown = [name for name in tensors if name.removeprefix("net.").partition(".")[0] not in ("encoder", "decoder", "segmentation_head")]
    known = {name.removeprefix("net."): name for name in tensors if name not in unknown}
    if take is None:
        part = "all" if {name for name in known if name.startswith("decoder.")} == _decoder_names(network) else "encoder"
    else:
        tag, part = split_take(take)
        if tag not in _SINGLE_TAGS:
            raise UsageError(f"take={take!r}: the file holds one network; {suggest(tag, _SINGLE_TAGS)}")
    taken, left = convert_parts({ours: tensors[name] for ours, name in known.items()}, network, part, take or part)
    return Converted(taken, {known[name]: reason for name, reason in left.items()}, unknown)


def _decoder_names(network: nn.Module) -> set[str]:
    return {name for name in network.state_dict() if name.startswith("decoder.")}


def _export_resnet(network: nn.Module) -> Tensors:
    return dict(network.state_dict())


def _recognises_vit(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    names = {name.removeprefix("net.") for name in shapes}
    return {"decoder.ppm_last_conv.0.weight", _POSITIONS} <= names


def _fits_vit(network: nn.Module) -> bool:
    return isinstance(network, SegmentationNetwork) and getattr(network, "layout", None) == "cromss-vit"


def _convert_vit(tensors: Tensors, network: nn.Module, take: str | None) -> Converted:
    if take is not None:
        raise UsageError(f"take={take!r}: the file holds one network; leave take out")
    own = network.state_dict()
    converted = Converted({})
    for name, tensor in tensors.items():
        plain = name.removeprefix("net.")
        if plain == _POSITIONS:
            converted.tensors |= split_positions(tensor)
            continue
        ours = ENCODER.to_ours(plain) or DECODER.to_ours(plain)
        if ours is None:
            converted.unexpected.append(name)
        elif ours not in own:
            converted.dropped[name] = NO_SUCH_LAYER
        else:
            converted.tensors[ours] = tensor
    if not any(name.startswith("encoder.patch_embedding.") for name in converted.tensors):
        raise UsageError(
            "the file embeds patches in another way than this network (plain, by groups of bands or by wavelengths); "
            "create the network of the same kind: cromss_upernet_vit_l, cromss_upernet_satmae_l or cromss_upernet_dofa_l"
        )
    return converted


def _export_vit(network: nn.Module) -> Tensors:
    own = dict(network.state_dict())
    positions = torch.cat([own.pop("encoder.class_position"), own.pop("encoder.position_embedding")], dim=1)
    exported = {_POSITIONS: positions}
    for name, tensor in own.items():
        theirs = ENCODER.to_theirs(name) or DECODER.to_theirs(name)
        assert theirs is not None, name
        exported[theirs] = tensor
    return exported


LAYOUTS = (
    Layout(
        "cromss-resnet",
        "ResNet with decoder (segmentation_models.pytorch)",
        _recognises_resnet,
        _fits_resnet,
        _convert_resnet,
        _export_resnet,
    ),
    Layout("cromss-vit", "CromSS transfer, ViT with UperNet", _recognises_vit, _fits_vit, _convert_vit, _export_vit),
)
