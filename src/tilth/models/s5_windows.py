"""Networks of S5 that attend in windows: ViT with rotated windows, and Swin, both with UperNet (s5_pretrain.md sections 7.2, 7.3)."""

from __future__ import annotations

from collections.abc import Sequence

from tilth.models.decoders.parts import ClassHead
from tilth.models.decoders.upernet import UperNet
from tilth.models.network import LAYOUT, SegmentationNetwork
from tilth.models.s5 import MINIMUM, STRIDE, check_patch, preset
from tilth.models.swin import PATCH, SwinTransformer
from tilth.models.vision_transformers.attention import Attention
from tilth.models.vision_transformers.rvsa import RotatedWindowTransformer
from tilth.models.vision_transformers.samples import OffsetAxes


def upernet_vit_rvsa(
    *,
    in_channels: int,
    num_classes: int,
    image_size: int,
    size: str = "b",
    patch: int = 16,
    width: int | None = None,
    depth: int | None = None,
    heads: int | None = None,
    taps: Sequence[int] | None = None,
    interval: int | None = None,
    window: int = 7,
    drop_path: float = 0.1,
    offset_axes: OffsetAxes = "corrected",
    decoder_channels: int = 256,
    attention: Attention = "sdpa",
    checkpointing: bool = False,
) -> SegmentationNetwork:
    """Build a ViT with rotated windows of varied size, feature pyramid and UperNet.

    Args:
        in_channels: bands.
        num_classes: classes K.
        image_size: side in pixels that positions, and the tables of full attention, are made for; other sizes are interpolated to.
        size: ``b``, ``l`` or ``h``; what the next four are where they are not given.
        patch: side of a patch in pixels, 16 or 8.
        width: channels of tokens.
        depth: layers.
        heads: of attention.
        taps: four layers that are tapped, 0-based; for a ``depth`` other than the published one the ends of the quarters.
        interval: every how many layers attention is full; by default a quarter of the depth, as in the published sizes.
        window: side of a window in tokens.
        drop_path: rate at the last layer, for both branches.
        offset_axes: how offsets of windows are scaled on images that are not square: ``corrected``, or ``official`` as the published
            program does, which exchanges width and height.
        decoder_channels: of UperNet.
        attention: ``sdpa`` or ``explicit``.
        checkpointing: save memory in training by computing the activations of layers twice.

    Returns:
        The network; its published layout is ``s5-rvsa``.

    Raises:
        ConfigError: an option that makes no sense.
    """
    chosen = preset(size, width, depth, heads, taps)
    encoder = RotatedWindowTransformer(
        in_channels,
        image_size,
        width=chosen.width,
        depth=chosen.depth,
        heads=chosen.heads,
        taps=chosen.taps,
        interval=max(chosen.depth // 4, 1) if interval is None else interval,
        window=window,
        patch=check_patch(patch),
        drop_path=drop_path,
        offset_axes=offset_axes,
        attention=attention,
        checkpointing=checkpointing,
    )
    decoder = UperNet(encoder.channels, decoder_channels, unused_projection=True)
    head = ClassHead(decoder_channels, num_classes, scale=STRIDE)
    network = SegmentationNetwork(encoder, decoder, head, divisor=patch, minimum=MINIMUM)
    setattr(network, LAYOUT, "s5-rvsa")
    return network


def upernet_swin(
    *,
    in_channels: int,
    num_classes: int,
    image_size: int,
    width: int = 96,
    depths: Sequence[int] = (2, 2, 6, 2),
    heads: Sequence[int] = (3, 6, 12, 24),
    window: int = 7,
    drop_path: float = 0.3,
    decoder_channels: int = 256,
    attention: Attention = "sdpa",
    checkpointing: bool = False,
) -> SegmentationNetwork:
    """Build Swin with UperNet; the defaults are Swin-T.

    Args:
        in_channels: bands.
        num_classes: classes K.
        image_size: not used: Swin has no position embedding.
        width: channels of the finest map.
        depths: blocks of each stage.
        heads: of attention, of each stage.
        window: side of a window in tokens.
        drop_path: rate at the last block.
        decoder_channels: of UperNet.
        attention: ``sdpa`` or ``explicit``.
        checkpointing: save memory in training by computing the activations of blocks twice.

    Returns:
        The network; its published layout is ``s5-swin``.

    Raises:
        ConfigError: an option that makes no sense.
    """
    del image_size  # every builder is given it
    encoder = SwinTransformer(
        in_channels,
        width=width,
        depths=depths,
        heads=heads,
        window=window,
        drop_path=drop_path,
        attention=attention,
        checkpointing=checkpointing,
    )
    decoder = UperNet(encoder.channels, decoder_channels, unused_projection=True)
    head = ClassHead(decoder_channels, num_classes, scale=PATCH)
    network = SegmentationNetwork(encoder, decoder, head, divisor=PATCH, minimum=PATCH)
    setattr(network, LAYOUT, "s5-swin")
    return network
