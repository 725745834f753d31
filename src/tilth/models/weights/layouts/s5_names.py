"""Names of S5's plain ViT networks and of UperNet beside ours."""

from __future__ import annotations

from tilth.models.weights.rename import Renaming

UPERNET_NAMES: tuple[tuple[str, str], ...] = (
    ("decoder.unused_projection.*", "semsegdecoder.decode_head.conv_seg.*"),
    *(
        (f"decoder.{ours}.{part}.*", f"semsegdecoder.decode_head.{theirs}.{their_part}.*")
        for ours, theirs in (
            ("pooled.{i}", "psp_modules.{i}.1"),
            ("context", "bottleneck"),
            ("laterals.{i}", "lateral_convs.{i}"),
            ("smoothings.{i}", "fpn_convs.{i}"),
            ("fusion", "fpn_bottleneck"),
        )
        for part, their_part in (("convolution", "conv"), ("norm", "bn"))
    ),
    ("segmentation_head.convolution.*", "semseghead.1.*"),
)
"""Our names of UperNet and head beside those of S5, for all of its encoders."""

PYRAMID_NAMES: tuple[tuple[str, str], ...] = (
    ("encoder.pyramid.levels.0.0.*", "encoder.fpn1.0.*"),
    ("encoder.pyramid.levels.0.1.*", "encoder.fpn1.1.ln.*"),
    ("encoder.pyramid.levels.0.3.*", "encoder.fpn1.3.*"),
    ("encoder.pyramid.levels.1.0.*", "encoder.fpn2.0.*"),
)
"""The same for the feature pyramid."""

_ENCODER_NAMES: tuple[tuple[str, str], ...] = (
    ("encoder.unused_class_token", "encoder.cls_token"),
    ("encoder.position_embedding", "encoder.pos_embed"),
    ("encoder.patch_embedding.*", "encoder.patch_embed.projection.*"),
    ("encoder.blocks.{i}.norm1.*", "encoder.layers.{i}.ln1.*"),
    ("encoder.blocks.{i}.attention.qkv.weight", "encoder.layers.{i}.attn.attn.in_proj_weight"),
    ("encoder.blocks.{i}.attention.qkv.bias", "encoder.layers.{i}.attn.attn.in_proj_bias"),
    ("encoder.blocks.{i}.attention.projection.*", "encoder.layers.{i}.attn.attn.out_proj.*"),
    ("encoder.blocks.{i}.norm2.*", "encoder.layers.{i}.ln2.*"),
    ("encoder.blocks.{i}.feed_forward.expand.*", "encoder.layers.{i}.ffn.layers.0.0.*"),
    ("encoder.blocks.{i}.feed_forward.experts.{j}.*", "encoder.layers.{i}.ffn.experts.{j}.*"),
    *PYRAMID_NAMES,
)

DENSE = Renaming([*_ENCODER_NAMES, ("encoder.blocks.{i}.feed_forward.contract.*", "encoder.layers.{i}.ffn.layers.1.*"), *UPERNET_NAMES])
EXPERTS = Renaming([*_ENCODER_NAMES, ("encoder.blocks.{i}.feed_forward.shared.*", "encoder.layers.{i}.ffn.layers.1.*"), *UPERNET_NAMES])

PUBLISHED_TASKS: tuple[tuple[str, ...], ...] = (("vaihingen", "potsdam", "openearthmap", "loveda"), ("dior", "dota"))
"""Orders of the experts in published files; a file does not state it otherwise."""

SPELLED = {"openearthmap": "OpenEarthMap"}
"""Tasks that published names spell in another way than the options of the published program."""
