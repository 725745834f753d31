"""Configuration of networks and model folders; light to import."""

from __future__ import annotations

from typing import Any, Literal

import pydantic

from tilth.classes import ClassScheme
from tilth.config import Config
from tilth.sensors import Sensor

MODEL_SCHEMA_VERSION = 1

Decoder = Literal["unet", "fpn", "deeplabv3plus", "upernet"]


class NetworkConfig(Config):
    """Which network: a timm encoder and a segmentation-models-pytorch decoder."""

    encoder: str = pydantic.Field(
        "resnet18", description="name of a timm model that yields feature maps, such as resnet50 or convnext_tiny"
    )
    decoder: Decoder = pydantic.Field("unet", description="decoder of segmentation-models-pytorch")
    pretrained: bool = pydantic.Field(
        False, description="start the encoder from timm's published weights; needs a network or a filled cache"
    )
    options: dict[str, Any] = pydantic.Field(
        default_factory=dict, description="further options of the decoder, such as decoder_channels for unet or decoder_dropout for fpn"
    )


class SegmenterConfig(Config):
    """Everything that ``config.json`` of a model folder holds, and all that prediction needs besides the weights."""

    model_type: Literal["tilth-segmenter"] = "tilth-segmenter"
    schema_version: int = MODEL_SCHEMA_VERSION
    network: NetworkConfig
    sensor: Sensor
    scheme: ClassScheme
