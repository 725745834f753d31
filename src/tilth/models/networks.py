"""Networks from a configuration: one with a name, or a timm encoder with a decoder, for any number of bands and classes.

Every network here is a :class:`tilth.models.network.SegmentationNetwork`: parts named ``encoder`` (image -> list of feature maps),
``decoder`` (list -> one map) and ``segmentation_head`` (map -> logits), so that a method can reach between them.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from torch import nn

from tilth.errors import ConfigError, RunError, suggest
from tilth.models.create import create
from tilth.models.network import SegmentationNetwork

if TYPE_CHECKING:
    from tilth.models.config import NetworkConfig

STRIDE = 32
"""Sides of windows are multiples of this many pixels; networks pad what they need beyond, and crop."""


def build_network(config: NetworkConfig, in_channels: int, num_classes: int) -> SegmentationNetwork:
    """Build a network with parts ``encoder``, ``decoder`` and ``segmentation_head``.

    Args:
        config: which network, or which encoder and decoder.
        in_channels: bands C of the sensor. Published three-band stems are adapted by timm: weights repeated over the bands and rescaled.
        num_classes: classes K.

    Returns:
        A module from float32 (B, C, H, W), any H and W, to logits (B, K, H, W).

    Raises:
        ConfigError: unknown encoder, an encoder without feature maps, or an option that the decoder does not know.
        RunError: published weights were asked for and cannot be had.
    """
    if config.name is not None:
        named = create(config.name, in_channels, num_classes, config.image_size, **config.options)
        if not isinstance(named, SegmentationNetwork):
            raise ConfigError(f"network: {config.name} built {type(named).__name__}, which does not turn one image into one map")
        return named

    import segmentation_models_pytorch as smp
    import timm

    if not timm.is_model(str(config.encoder)):
        raise ConfigError(f"network.encoder: timm has no model {config.encoder!r}; {_near(str(config.encoder), timm.list_models())}")
    try:
        network = smp.create_model(
            config.decoder,
            encoder_name=f"tu-{config.encoder}",
            encoder_weights=True if config.pretrained else None,
            in_channels=in_channels,
            classes=num_classes,
            **config.options,
        )
    except (TypeError, KeyError, ValueError, AssertionError) as error:
        _blame_option(config, str(error))
        raise ConfigError(
            f"network: {config.encoder} with {config.decoder} and options {config.options} cannot be built: {error}"
        ) from None
    except (RuntimeError, OSError) as error:
        if not config.pretrained:
            raise ConfigError(f"network: {config.encoder} gives no feature maps that {config.decoder} can use: {error}") from None
        raise RunError(
            f"network: weights of {config.encoder!r} could not be fetched ({error}); set network.pretrained=false or fill the cache"
        ) from None
    parts = [getattr(network, part, None) for part in ("encoder", "decoder", "segmentation_head")]
    encoder, decoder, head = (part if isinstance(part, nn.Module) else None for part in parts)
    if encoder is None or decoder is None or head is None:
        raise ConfigError(f"network: {config.decoder!r} built {type(network).__name__}, which lacks encoder, decoder or segmentation_head")
    return SegmentationNetwork(encoder, decoder, head, divisor=STRIDE)


def _blame_option(config: NetworkConfig, complaint: str) -> None:
    """Say which option is unknown: what the decoder does not know goes to the encoder, whose own complaint names neither.

    Raises:
        ConfigError: the complaint is about an option that the decoder does not have; names those that it has.
    """
    import segmentation_models_pytorch as smp

    decoders = {"unet": smp.Unet, "fpn": smp.FPN, "pspnet": smp.PSPNet, "deeplabv3plus": smp.DeepLabV3Plus, "upernet": smp.UPerNet}
    known = [name for name in inspect.signature(decoders[str(config.decoder)]).parameters if name.startswith("decoder_")]
    for name in config.options:
        if name not in known and f"unexpected keyword argument {name!r}" in complaint:
            raise ConfigError(f"network.options.{name}: {config.decoder} on {config.encoder} takes no such option; {suggest(name, known)}")


def _near(name: str, choices: list[str]) -> str:
    """Timm knows over a thousand names: show the near ones, not all."""
    stem = name.split("_")[0].rstrip("0123456789")
    return suggest(name, [choice for choice in choices if choice.startswith(stem)][:12] or ["resnet18", "resnet50", "convnext_tiny"])
