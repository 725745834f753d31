"""S5's Swin: whole networks and encoders. Swin files of others have no norms behind their stages and are another layout."""

from __future__ import annotations

from tilth.models.swin import SwinTransformer
from tilth.models.weights.layout import Layout
from tilth.models.weights.layouts.renamed import COMPUTED, STRANGERS, RenamedLayout, relative_indices
from tilth.models.weights.layouts.s5_names import UPERNET_NAMES
from tilth.models.weights.rename import Renaming

_OURS, _THEIRS = "encoder.stages.{i}.blocks.{j}", "encoder.layers.{i}.blocks.{j}"

NAMES = Renaming(
    [
        ("encoder.patch_embedding.projection.*", "encoder.patch_embed.proj.*"),
        ("encoder.patch_embedding.norm.*", "encoder.patch_embed.norm.*"),
        (f"{_OURS}.norm1.*", f"{_THEIRS}.norm1.*"),
        (f"{_OURS}.attention.relative_bias", f"{_THEIRS}.attn.relative_position_bias_table"),
        (f"{_OURS}.attention.qkv.*", f"{_THEIRS}.attn.qkv.*"),
        (f"{_OURS}.attention.projection.*", f"{_THEIRS}.attn.proj.*"),
        (f"{_OURS}.norm2.*", f"{_THEIRS}.norm2.*"),
        (f"{_OURS}.feed_forward.expand.*", f"{_THEIRS}.mlp.fc1.*"),
        (f"{_OURS}.feed_forward.contract.*", f"{_THEIRS}.mlp.fc2.*"),
        ("encoder.mergings.{i}.*", "encoder.layers.{i}.downsample.*"),
        ("encoder.norms.{i}.*", "encoder.norm{i}.*"),
        *UPERNET_NAMES,
    ]
)
"""Our names beside S5's."""

_FILE = RenamedLayout(
    NAMES,
    whole=("encoder.", "semsegdecoder.", "semseghead."),
    encoder="encoder.",
    aliases=("backbone.",),
    kind=SwinTransformer,
    dropped=COMPUTED | STRANGERS,
    computed=relative_indices(NAMES),
)

LAYOUTS: tuple[Layout, ...] = (
    _FILE.layout(
        "s5-swin",
        "S5, Swin: whole network or encoder",
        lambda names: {"encoder.layers.0.blocks.0.attn.relative_position_bias_table", "encoder.norm0.weight"} <= names,
    ),
)
