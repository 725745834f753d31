"""Networks from a configuration: one with a name, or a timm encoder with a decoder, for any number of bands and classes.

Every network here is a :class:`tilth.models.network.SegmentationNetwork`: parts named ``encoder`` (image -> list of feature maps),
``decoder`` (list -> one map) and ``segmentation_head`` (map -> logits), so that a method can reach between them.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from tilth.errors import ConfigError, RunError, suggest
from tilth.models.by_name import create
from tilth.models.named import NAMES
from tilth.models.network import SegmentationNetwork

if TYPE_CHECKING:
    from tilth.models.config import FusionConfig, NetworkConfig
    from tilth.sensors import Sensor

STRIDE = 32
"""Sides of windows are multiples of this many pixels; networks pad what they need beyond, and crop."""

_SWIN = ("swin_transformer", "swin_transformer_v2", "swin_transformer_v2_cr")
"""Modules of timm whose models take images of one size unless told otherwise."""

_MIX_TRANSFORMERS = tuple(f"mit_b{size}" for size in range(6))
"""SegFormer's encoders, which segmentation-models-pytorch has and timm has not."""

_FURTHER = "encoder_options"


def build_network(config: NetworkConfig, in_channels: int, num_classes: int) -> SegmentationNetwork:
    """Build a network with parts ``encoder``, ``decoder`` and ``segmentation_head``.

    Args:
        config: which network, or which encoder and decoder. Plain ViTs of timm come with a feature pyramid and UperNet, all other encoders
            with decoders of segmentation-models-pytorch.
        in_channels: bands C of the sensor. Published three-band stems are adapted by timm: weights repeated over the bands and rescaled.
        num_classes: classes K.

    Returns:
        A module from float32 (B, C, H, W), any H and W, to logits (B, K, H, W).

    Raises:
        ConfigError: unknown encoder, an encoder without feature maps, or an option that the decoder does not know.
        RunError: published weights were asked for and cannot be had.
    """
    if config.fusion is not None:
        return _build_fused(config, config.fusion, num_classes)
    if config.name is not None:
        named = create(config.name, in_channels, num_classes, config.image_size, **config.options)
        if not isinstance(named, SegmentationNetwork):
            raise ConfigError(f"network: {config.name} built {type(named).__name__}, which does not turn one image into one map")
        return named
    from tilth.models.vision_transformers.timm_backbone import is_plain_vit

    found = resolve(config)
    # The published name knows where the weights are; timm's own name is all that a model folder needs.
    wanted = str(config.encoder if config.pretrained else found.encoder)
    build = _build_vit if is_plain_vit(str(found.encoder)) else _build_smp
    try:
        network = build(found, wanted, in_channels, num_classes)
    except ConfigError:
        raise
    except (TypeError, KeyError, ValueError, AssertionError) as error:
        _blame_option(found, str(error))
        raise ConfigError(
            f"network: {config.encoder} with {config.decoder} and options {config.options} cannot be built: {_one_line(error)}"
        ) from None
    except (RuntimeError, OSError) as error:
        if not config.pretrained:
            raise ConfigError(
                f"network: {config.encoder} gives no feature maps that {config.decoder} can use: {_one_line(error)}"
            ) from None
        raise RunError(
            f"network: weights of {config.encoder!r} could not be fetched ({_one_line(error)}); "
            "set network.pretrained=false or fill the cache"
        ) from None
    network.title = config.title
    return network


def for_sensor(config: NetworkConfig, sensor: Sensor) -> NetworkConfig:
    """Tell networks that look at wavelengths, and those with branches, which bands a sensor has; what is given stays.

    Returns:
        The same, or with the places of the bands of its branches, or ``wavelengths`` (DOFA), ``groups`` (SatMAE, where its ten bands are
        there), or ranges of values and what else diffusion features depend on among the options, so that the network is built alike
        wherever the configuration is read.

    Raises:
        ConfigError: a band of no known wavelength for a network that needs it.
    """
    if config.fusion is not None:
        from tilth.models.fused import place_branches

        return config.model_copy(update={"fusion": place_branches(config.fusion, sensor)})
    if config.name is None:
        return config
    if config.name == "ddpm_segmentor":
        from tilth.models.diffusion.segmentation import complete_options

        return config.model_copy(update={"options": complete_options(config.options, sensor)})
    encoder = (NAMES[config.name].options | config.options).get("encoder")
    if encoder == "dofa" and config.options.get("wavelengths") is None:
        from tilth.models.vision_transformers.wavelengths import sensor_wavelengths

        found: dict[str, Any] = {"wavelengths": sensor_wavelengths(sensor)}
    elif encoder == "satmae" and config.options.get("groups") is None:
        from tilth.models.vision_transformers.groups import sensor_groups

        groups = sensor_groups(sensor)
        found = {} if groups is None else {"groups": groups}
    else:
        return config
    return config.model_copy(update={"options": config.options | found})


def resolve(config: NetworkConfig) -> NetworkConfig:
    """Say the same so that nothing need be looked up: ``hf-hub:`` and ``local-dir:`` names become timm's own, with arguments.

    Raises:
        ConfigError: no such encoder.
        RunError: the name is published elsewhere and cannot be looked up.
    """
    import timm

    name = config.encoder
    if name is None:
        return config
    options = dict(config.options)
    if ":" in name:
        name, arguments = _look_up(name)
        if arguments:
            options[_FURTHER] = {**arguments, **options.get(_FURTHER, {})}
    if not is_encoder(name):
        raise ConfigError(f"network.encoder: timm has no model {name!r}; {_near(name, [*timm.list_models(), *_MIX_TRANSFORMERS])}")
    return config.model_copy(update={"encoder": name, "options": options})


def is_encoder(name: str) -> bool:
    """Whether a name is a model of timm, with or without the tag of its weights, or an encoder of SegFormer: ``mit_b0`` to ``mit_b5``."""
    import timm

    return name in _MIX_TRANSFORMERS or bool(timm.is_model(name))


def _look_up(published: str) -> tuple[str, dict[str, Any]]:
    """Find timm's own name, and the arguments of the model, of what lies on the hub or in a folder."""
    import timm.models

    try:
        source, place = timm.models.parse_model_name(published)
    except ValueError as error:
        raise ConfigError(f"network.encoder: {published!r}: {_one_line(error)}") from None
    try:
        if source == "hf-hub":
            _, name, arguments = timm.models.load_model_config_from_hf(place)
        else:
            tree = json.loads((Path(place) / "config.json").read_text(encoding="utf-8"))
            name, arguments = tree["architecture"], tree.get("model_args")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"network.encoder: {published!r} cannot be looked up ({_one_line(error)}); give timm's own name and initial_weights=FILE"
        ) from None
    return str(name), dict(arguments or {})


def _build_fused(config: NetworkConfig, fusion: FusionConfig, num_classes: int) -> SegmentationNetwork:
    from tilth.models.fused import JOINT, FusedNetwork

    if config.name == "ddpm_segmentor":
        raise ConfigError("network.fusion: ddpm_segmentor has no branches; give it the bands of all as one image, or another network")
    if not fusion.positions:
        raise ConfigError("network.fusion: it is not said which bands the branches see; build a Segmenter, whose sensor says it")
    one = config.model_copy(update={"fusion": None})
    networks = {name: build_network(one, len(bands), num_classes) for name, bands in fusion.positions.items()}
    fused = FusedNetwork(fusion.positions, networks, shared=fusion.kind == "mid")
    fused.title = config.title
    # Published are ResNet U-Nets of S1 and S2.
    if config.name == "cromss_unet_resnet50" and all(name.startswith(("s1", "s2")) or name == JOINT for name in networks):
        fused.layout = "cromss-fusion"
    return fused


def _build_vit(config: NetworkConfig, encoder: str, in_channels: int, num_classes: int) -> SegmentationNetwork:
    from tilth.models.vision_transformers.timm_backbone import upernet_timm_vit

    if config.decoder != "upernet":
        raise ConfigError(
            f"network: {config.encoder} is a plain vision transformer, whose maps are of one scale; "
            f"network.decoder=upernet makes four of them, {config.decoder} cannot"
        )
    return upernet_timm_vit(
        encoder,
        in_channels=in_channels,
        num_classes=num_classes,
        image_size=config.image_size,
        pretrained=config.pretrained,
        **config.options,
    )


def _build_smp(config: NetworkConfig, encoder: str, in_channels: int, num_classes: int) -> SegmentationNetwork:
    import segmentation_models_pytorch as smp
    import timm.models

    further = {"strict_img_size": False} if timm.models.is_model_in_modules(str(config.encoder), _SWIN) else {}
    options = dict(config.options)
    name, weights = (encoder, "imagenet") if encoder in _MIX_TRANSFORMERS else (f"tu-{encoder}", True)
    network = smp.create_model(
        config.decoder,
        encoder_name=name,
        encoder_weights=weights if config.pretrained else None,
        in_channels=in_channels,
        classes=num_classes,
        **(further | options.pop(_FURTHER, {}) | options),
    )
    parts = [getattr(network, part, None) for part in ("encoder", "decoder", "segmentation_head")]
    maps, decoder, head = (part if isinstance(part, nn.Module) else None for part in parts)
    if maps is None or decoder is None or head is None:
        raise ConfigError(f"network: {config.decoder!r} built {type(network).__name__}, which lacks encoder, decoder or segmentation_head")
    return SegmentationNetwork(maps, decoder, head, divisor=STRIDE)


def _blame_option(config: NetworkConfig, complaint: str) -> None:
    """Say which option is unknown: what the decoder does not know goes to the encoder, whose own complaint names neither.

    Raises:
        ConfigError: the complaint is about an option that the decoder does not have; names those that it has.
    """
    known = _known_options(config)
    for name in config.options:
        if name not in known and f"unexpected keyword argument {name!r}" in complaint:
            raise ConfigError(f"network.options.{name}: {config.decoder} on {config.encoder} takes no such option; {suggest(name, known)}")


def _known_options(config: NetworkConfig) -> list[str]:
    import segmentation_models_pytorch as smp

    from tilth.models.vision_transformers.timm_backbone import is_plain_vit, upernet_timm_vit

    if is_plain_vit(str(config.encoder)):
        given = {"encoder", "in_channels", "num_classes", "image_size", "pretrained"}
        return [name for name in inspect.signature(upernet_timm_vit).parameters if name not in given]
    parameters = inspect.signature(smp.MODEL_ARCHITECTURES_MAPPING[str(config.decoder)]).parameters
    return [*(name for name in parameters if name.startswith(("decoder_", "psp_"))), _FURTHER]


def _near(name: str, choices: list[str]) -> str:
    """Timm knows over a thousand names: show the near ones, not all."""
    stem = name.split("_")[0].rstrip("0123456789")
    return suggest(name, [choice for choice in choices if choice.startswith(stem)][:12] or ["resnet18", "resnet50", "convnext_tiny"])


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
