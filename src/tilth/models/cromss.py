"""Builders of the networks of CromSS: fusion networks for pre-training (cromss.md section 3) and networks for transfer (section 7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

from tilth.errors import ConfigError, suggest
from tilth.models.decoders.parts import ClassHead
from tilth.models.fusion import FusionNetwork, fusion_bands
from tilth.models.network import LAYOUT, SegmentationNetwork
from tilth.models.vision_transformers.attention import Attention
from tilth.models.vision_transformers.groups import GroupVisionTransformer
from tilth.models.vision_transformers.plain import PlainVisionTransformer
from tilth.models.vision_transformers.token_maps import TokenMapUperNet
from tilth.models.vision_transformers.wavelengths import WavelengthVisionTransformer

Decoder = Literal["unet", "pspnet", "fpn", "deeplabv3plus"]


def fusion_unet(
    *,
    in_channels: int | Sequence[int],
    num_classes: int,
    image_size: int,
    fusion: Literal["mid", "late"],
    branches: int = 2,
    encoder: str = "resnet50",
    decoder_channels: Sequence[int] = (256, 128, 64, 32, 16),
) -> FusionNetwork:
    """Build U-Nets for S1 and S2 (and both together) that share their decoder or nothing (cromss.md section 3).

    Args:
        in_channels: bands of S1 and of S2.
        num_classes: classes K.
        image_size: of no meaning here; these networks have no tables that depend on it.
        fusion: ``mid`` shares decoder and head between branches, ``late`` shares nothing.
        branches: 2, or 3 with a joint branch that sees the bands of both.
        encoder: ResNet of segmentation_models.pytorch: resnet18, resnet50, ...
        decoder_channels: widths of the five decoder blocks, coarse to fine.

    Returns:
        A network called with images of S1 and S2, which returns one logits tensor for each branch.

    Raises:
        ConfigError: an option makes no sense.
    """
    del image_size
    if fusion not in ("mid", "late"):
        raise ConfigError(f"no fusion is called {fusion!r}; {suggest(fusion, ('mid', 'late'))}")
    bands = fusion_bands(in_channels, branches)
    networks = {
        branch: _smp("unet", encoder, count, num_classes, {"decoder_channels": tuple(decoder_channels)}) for branch, count in bands.items()
    }
    return FusionNetwork(bands, networks, shared=fusion == "mid")


def transfer_resnet(
    *, in_channels: int, num_classes: int, image_size: int, decoder: Decoder, encoder: str = "resnet50", dropout: float | None = None
) -> SegmentationNetwork:
    """Build a ResNet with a decoder of segmentation_models.pytorch, by that library's defaults (cromss.md section 7.1).

    PSPNet uses the first three of the encoder's strides: the last two stages exist, because published files hold them, but never run and
    do not train.

    Args:
        in_channels: bands C.
        num_classes: classes K.
        image_size: of no meaning here; these networks have no tables that depend on it.
        decoder: ``unet``, ``pspnet`` (strides up to 8), ``fpn`` or ``deeplabv3plus`` (strides up to 16).
        encoder: ResNet of segmentation_models.pytorch: resnet18, resnet50, ...
        dropout: probability in the decoder; None is the library's: 0.2, for DeepLabV3+ 0.5. U-Net has none.

    Raises:
        ConfigError: an option makes no sense.
    """
    del image_size
    if decoder not in get_args(Decoder):
        raise ConfigError(f"no decoder is called {decoder!r}; {suggest(decoder, get_args(Decoder))}")
    option = {"pspnet": "psp_dropout", "fpn": "decoder_dropout", "deeplabv3plus": "decoder_aspp_dropout"}.get(decoder)
    if dropout is not None and option is None:
        raise ConfigError(f"dropout={dropout}: U-Net has no dropout; leave it out")
    built = _smp(decoder, encoder, in_channels, num_classes, {} if dropout is None else {str(option): dropout})
    setattr(built, LAYOUT, "cromss-resnet")
    return built


def transfer_vit(
    *,
    in_channels: int,
    num_classes: int,
    image_size: int,
    encoder: Literal["vit", "satmae", "dofa"],
    width: int = 1024,
    depth: int = 24,
    heads: int = 16,
    patch: int | None = None,
    taps: Sequence[int] | None = None,
    groups: Sequence[Sequence[int]] | None = None,
    wavelengths: Sequence[float] | None = None,
    decoder_channels: int = 256,
    drop_path: float = 0.0,
    attention: Attention = "sdpa",
    checkpointing: bool = False,
) -> SegmentationNetwork:
    """Build a large vision transformer with UperNet on maps at 1, 1/2, 1/4 and 1/8 of the image (cromss.md section 7.4).

    Args:
        in_channels: bands C.
        num_classes: classes K.
        image_size: side in pixels that positions are made for; published are 224, and 96 for SatMAE. Others are interpolated to.
        encoder: ``vit`` plain; ``satmae`` tokens of groups of bands; ``dofa`` patch embedding computed from wavelengths.
        width: channels of tokens.
        depth: layers.
        heads: of attention.
        patch: side of a patch in pixels; by default 16, for SatMAE 8.
        taps: four layers, 0-based, whose outputs are used; by default the ends of the quarters: 5, 11, 17, 23.
        groups: of SatMAE: positions of the bands of each group; by default those of ten bands of Sentinel-2. A Segmenter takes them from
            its sensor where it can.
        wavelengths: of DOFA: centre of each band in micrometres; by default those of 9, 10, 12 or 13 bands of Sentinel-2. A Segmenter takes
            them from its sensor.
        decoder_channels: of UperNet.
        drop_path: rate at the last layer, growing from 0 at the first.
        attention: how attention is computed.
        checkpointing: save memory in training by computing activations of layers twice.

    Raises:
        ConfigError: an option makes no sense, or not for this encoder.
    """
    if encoder not in ("vit", "satmae", "dofa"):
        raise ConfigError(f"no encoder is called {encoder!r}; {suggest(encoder, ('vit', 'satmae', 'dofa'))}")
    if groups is not None and encoder != "satmae":
        raise ConfigError(f"groups: {encoder} knows no groups of bands; leave it out, or take cromss_upernet_satmae_l")
    if wavelengths is not None and encoder != "dofa":
        raise ConfigError(f"wavelengths: {encoder} does not look at wavelengths; leave it out, or take cromss_upernet_dofa_l")
    patch = (8 if encoder == "satmae" else 16) if patch is None else patch
    sizes: dict[str, Any] = {"width": width, "depth": depth, "heads": heads, "patch": patch, "taps": taps}
    options: dict[str, Any] = sizes | {"drop_path": drop_path, "attention": attention, "checkpointing": checkpointing}
    built: PlainVisionTransformer
    if encoder == "satmae":
        built = GroupVisionTransformer(in_channels, image_size, groups=groups, **options)
    elif encoder == "dofa":
        built = WavelengthVisionTransformer(in_channels, image_size, wavelengths=wavelengths, **options)
    else:
        built = PlainVisionTransformer(
            in_channels,
            image_size,
            epsilon=1e-6,
            drop_attention=True,
            class_slot="used",
            pyramid=False,
            **options,
        )
    network = SegmentationNetwork(
        built,
        TokenMapUperNet(built.channels, decoder_channels, patch=patch),
        ClassHead(decoder_channels, num_classes, scale=1, dropout=0.0),
        divisor=patch,
    )
    setattr(network, LAYOUT, "cromss-vit")
    return network


def resnet_names() -> list[str]:
    """List the ResNets that segmentation_models.pytorch has under its own names."""
    from segmentation_models_pytorch.encoders.resnet import resnet_encoders

    return list(resnet_encoders)


def _smp(decoder: str, encoder: str, in_channels: int, num_classes: int, options: dict[str, Any]) -> SegmentationNetwork:
    import segmentation_models_pytorch as smp

    if encoder not in resnet_names():
        raise ConfigError(f"encoder: no ResNet is called {encoder!r}; {suggest(encoder, resnet_names())}")
    built = smp.create_model(decoder, encoder_name=encoder, encoder_weights=None, in_channels=in_channels, classes=num_classes, **options)
    stages = [built.encoder.layer1, built.encoder.layer2, built.encoder.layer3, built.encoder.layer4]
    # The stem gives the first feature map, each stage one more; stages that the decoder has no use for do not run.
    for stage in stages[len(built.encoder.out_channels) - 2 :]:
        stage.requires_grad_(False)
    return SegmentationNetwork(built.encoder, built.decoder, built.segmentation_head, divisor=built.encoder.output_stride)
