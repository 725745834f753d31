"""Plain vision transformers of timm (DINOv2, DINOv3, MAE, CLIP, EVA, ... names) with the feature pyramid and UperNet.

timm knows how their weights are published; what is added here is what plain ViTs lack for segmentation: four depths, four scales, any size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, cast

import torch
from torch import Tensor, nn

from tilth.errors import ConfigError
from tilth.models.decoders.parts import ClassHead
from tilth.models.decoders.upernet import UperNet
from tilth.models.network import SegmentationNetwork
from tilth.models.vision_transformers.blocks import check_taps, run_blocks, spread_taps
from tilth.models.vision_transformers.positions import sine_cosine_positions, take_tokens
from tilth.models.vision_transformers.pyramid import FeaturePyramid

_MODULES = ("vision_transformer", "eva", "deit")
"""Modules of timm whose models all keep one scale of tokens, take images of any size and give the output of any layer."""

_ENLARGED = 4
"""How much finer than the tokens the finest map is."""


def is_plain_vit(name: str) -> bool:
    """Whether a name of timm, with or without the tag of its weights, is a plain vision transformer."""
    import timm.models

    return bool(timm.models.is_model_in_modules(name, _MODULES))


class TimmVisionTransformer(nn.Module):
    """A plain vision transformer of timm, and maps of four scales from four of its layers.

    Position embeddings are resized to every image by timm (bicubic, antialiased); rotary positions are computed for it. Class tokens and
    registers take part in attention and are dropped behind it. What no map needs (layers behind the last tap, classifier, final norm) is
    taken out of the model.

    Attributes:
        backbone: the model of timm; its names are timm's.
        taps: 0-based layers whose output is given on, shallow to deep.
        patch: side of a patch in pixels.
        pyramid: makes four scales of the maps.
        final_norm: whether tapped maps go through the model's last norm, too.
    """

    def __init__(
        self,
        name: str,
        in_channels: int,
        image_size: int,
        *,
        pretrained: bool = False,
        taps: Sequence[int] | None = None,
        drop_path: float = 0.1,
        final_norm: bool = False,
        checkpointing: bool = False,
        further: Mapping[str, Any] | None = None,
    ) -> None:
        """Build, with published weights if asked for.

        Args:
            name: of timm, also with the tag of its weights, ``hf-hub:owner/name`` or ``local-dir:folder``.
            in_channels: bands; timm repeats published three-band stems over them and rescales.
            image_size: side in pixels that position embeddings are made for, rounded up to whole patches.
            pretrained: start from the published weights.
            taps: four layers, 0-based; by default the ends of the quarters.
            drop_path: rate at the last layer, growing from 0 at the first.
            final_norm: put tapped maps through the model's last norm.
            checkpointing: save memory in training by computing activations twice.
            further: arguments of timm's ``create_model`` beyond these.

        Raises:
            ConfigError: taps that do not exist, patches that are not square, or a last norm that the model does not have.
        """
        super().__init__()
        import timm

        arguments = {"dynamic_img_size": True, "drop_path_rate": drop_path, "in_chans": in_channels, "num_classes": 0} | dict(further or {})
        patch = _patch_of(name, arguments)
        arguments.setdefault("img_size", image_size + -image_size % patch)
        self.backbone = cast("Any", timm.create_model(name, pretrained=pretrained, **arguments))
        self.patch = patch
        depth = len(self.backbone.blocks)
        self.taps = check_taps(spread_taps(depth) if taps is None else taps, depth)
        if final_norm and isinstance(self.backbone.norm, nn.Identity):
            raise ConfigError(f"final_norm: {name} has no norm behind its last layer; leave final_norm out")
        self.final_norm = final_norm
        self.backbone.prune_intermediate_layers(list(self.taps), prune_norm=not final_norm, prune_head=True)
        self.pyramid = FeaturePyramid(self.backbone.embed_dim, enlarge=2 if patch == 8 else 4)
        self.checkpointing = checkpointing

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the four maps."""
        return (self.backbone.embed_dim,) * len(self.taps)

    @property
    def checkpointing(self) -> bool:
        """Whether activations are computed again in the backward pass instead of kept."""
        return bool(self.backbone.grad_checkpointing)

    @checkpointing.setter
    def checkpointing(self, on: bool) -> None:
        self.backbone.set_grad_checkpointing(on)

    @property
    def can_mask(self) -> bool:
        """Whether :meth:`visible_tokens` can be called: not with rotary positions, which are computed for whole grids."""
        from timm.models.vision_transformer import VisionTransformer

        return isinstance(self.backbone, VisionTransformer)

    @property
    def beside_tokens(self) -> tuple[str, ...]:
        """Beginnings of names that no token passes up to the last tap."""
        return ("pyramid.", "backbone.norm.")

    def start_positions(self) -> None:
        """Put sine and cosine into the learned position embedding, where there is one."""
        table, grid = self.backbone.pos_embed, self.backbone.patch_embed.grid_size
        if table is not None:
            with torch.no_grad():
                table[:, -grid[0] * grid[1] :] = sine_cosine_positions(grid, table.shape[-1])

    def visible_tokens(self, image: Tensor, visible: Tensor) -> Tensor:
        """Compute the tokens of some patches behind the last tapped layer, which see nothing of the others.

        Args:
            image: float (B, bands, H, W), sides multiples of the patch.
            visible: int64 (B, V), places in the patches.

        Returns:
            float (B, V, C).
        """
        first = self.backbone.num_prefix_tokens
        # timm knows where class tokens and registers go, and offers that in no public way.
        tokens = self.backbone._pos_embed(self.backbone.patch_embed(image))
        seen = torch.cat([tokens[:, :first], take_tokens(tokens[:, first:], visible)], dim=1)
        outputs = run_blocks(self.backbone.blocks, self.backbone.norm_pre(seen), self.taps[-1:], self.checkpointing)
        return outputs[0][:, first:]

    def forward(self, image: Tensor) -> list[Tensor]:
        """Compute feature maps.

        Args:
            image: float (B, bands, H, W), sides multiples of the patch.

        Returns:
            Four maps float (B, C, h, w), finest first.
        """
        maps = self.backbone.forward_intermediates(image, indices=list(self.taps), norm=self.final_norm, intermediates_only=True)
        return cast("list[Tensor]", self.pyramid(maps))


def upernet_timm_vit(
    encoder: str,
    *,
    in_channels: int,
    num_classes: int,
    image_size: int,
    pretrained: bool = False,
    taps: Sequence[int] | None = None,
    drop_path: float = 0.1,
    final_norm: bool = False,
    decoder_channels: int = 256,
    checkpointing: bool = False,
    encoder_options: Mapping[str, Any] | None = None,
) -> SegmentationNetwork:
    """Build a plain ViT of timm with feature pyramid and UperNet.

    Args:
        encoder: see :class:`TimmVisionTransformer`, as for what is not said here.
        in_channels: bands.
        num_classes: classes K.
        image_size: side in pixels that positions are made for.
        pretrained: start from the published weights.
        taps: four layers that are tapped.
        drop_path: rate at the last layer.
        final_norm: put tapped maps through the model's last norm.
        decoder_channels: of UperNet.
        checkpointing: save memory in training.
        encoder_options: further arguments of timm's ``create_model``.

    Returns:
        The network, for images of any size.

    Raises:
        ConfigError: an option that makes no sense.
    """
    backbone = TimmVisionTransformer(
        encoder,
        in_channels,
        image_size,
        pretrained=pretrained,
        taps=taps,
        drop_path=drop_path,
        final_norm=final_norm,
        checkpointing=checkpointing,
        further=encoder_options,
    )
    patch = backbone.patch
    # Patches of 8 are enlarged half as much, see FeaturePyramid: the finest map has the same stride as with patches of 16.
    enlarged = _ENLARGED // 2 if patch == 8 else _ENLARGED
    decoder = UperNet(backbone.channels, decoder_channels)
    head = ClassHead(decoder_channels, num_classes, scale=Fraction(patch, enlarged))
    # The coarsest map needs a pixel.
    return SegmentationNetwork(backbone, decoder, head, divisor=patch, minimum=32 if patch == 8 else 2 * patch)


def _patch_of(name: str, arguments: Mapping[str, Any]) -> int:
    """Side of a patch in pixels, from a model without memory.

    Raises:
        ConfigError: patches that are not square.
    """
    import timm
    import torch

    with torch.device("meta"):
        rows, columns = cast("Any", timm.create_model(name, **arguments)).patch_embed.patch_size
    if rows != columns:
        raise ConfigError(f"{name} has patches of {rows} x {columns} pixels; the feature pyramid is for square ones")
    return int(rows)
