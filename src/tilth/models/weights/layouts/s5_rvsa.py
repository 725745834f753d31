"""S5's ViT with rotated windows: whole networks, and encoders as published by RVSA and MTP, which have the same names."""

from __future__ import annotations

from tilth.models.vision_transformers.rvsa import RotatedWindowTransformer
from tilth.models.weights.layout import Layout
from tilth.models.weights.layouts.renamed import COMPUTED, STRANGERS, RenamedLayout, relative_indices
from tilth.models.weights.layouts.s5_names import PYRAMID_NAMES, UPERNET_NAMES
from tilth.models.weights.rename import Renaming

_BLOCK = "encoder.blocks.{i}"

NAMES = Renaming(
    [
        ("encoder.position_embedding", "encoder.pos_embed"),
        ("encoder.patch_embedding.*", "encoder.patch_embed.proj.*"),
        (f"{_BLOCK}.norm1.*", f"{_BLOCK}.norm1.*"),
        (f"{_BLOCK}.attention.window_relative_rows", f"{_BLOCK}.attn.rel_pos_h"),
        (f"{_BLOCK}.attention.window_relative_columns", f"{_BLOCK}.attn.rel_pos_w"),
        (f"{_BLOCK}.attention.relative_rows", f"{_BLOCK}.attn.full_attn_rel_pos_h"),
        (f"{_BLOCK}.attention.relative_columns", f"{_BLOCK}.attn.full_attn_rel_pos_w"),
        (f"{_BLOCK}.attention.relative_bias", f"{_BLOCK}.attn.relative_position_bias_table"),
        *((f"{_BLOCK}.attention.{part}.*", f"{_BLOCK}.attn.sampling_{part}.2.*") for part in ("offsets", "scales", "angles")),
        (f"{_BLOCK}.attention.qkv.*", f"{_BLOCK}.attn.qkv.*"),
        (f"{_BLOCK}.attention.projection.*", f"{_BLOCK}.attn.proj.*"),
        (f"{_BLOCK}.norm2.*", f"{_BLOCK}.norm2.*"),
        (f"{_BLOCK}.feed_forward.expand.*", f"{_BLOCK}.mlp.fc1.*"),
        (f"{_BLOCK}.feed_forward.contract.*", f"{_BLOCK}.mlp.fc2.*"),
        *PYRAMID_NAMES,
        *UPERNET_NAMES,
    ]
)
"""Our names beside S5's."""

_FILE = RenamedLayout(
    NAMES,
    whole=("encoder.", "semsegdecoder.", "semseghead."),
    encoder="encoder.",
    aliases=("backbone.",),
    kind=RotatedWindowTransformer,
    dropped=COMPUTED | STRANGERS,
    computed=relative_indices(NAMES),
)

LAYOUTS: tuple[Layout, ...] = (
    _FILE.layout(
        "s5-rvsa",
        "S5, ViT with rotated windows: whole network or encoder",
        lambda names: {"encoder.blocks.0.attn.sampling_offsets.2.weight", "encoder.patch_embed.proj.weight"} <= names,
    ),
)
