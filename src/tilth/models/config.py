"""Configuration of networks and model folders; light to import."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

import pydantic

from tilth.classes import ClassScheme
from tilth.config import Config, read_numbers
from tilth.errors import suggest
from tilth.models.named import NAMES
from tilth.sensors import Sensor

MODEL_SCHEMA_VERSION = 2
"""Version 2 added named networks; version 1 reads as it did."""

Decoder = Literal["unet", "fpn", "pspnet", "deeplabv3plus", "upernet", "segformer"]


Count = Annotated[int, pydantic.Field(strict=True, ge=1)]
"""A number of things, of which there is at least one."""


class NetworkSpec(Config):
    """A network by name: all that is needed to build it again. What :func:`tilth.models.create` was called with."""

    name: str
    in_channels: Count | tuple[Count, ...]
    num_classes: Count
    image_size: Count
    options: dict[str, Any] = pydantic.Field(default_factory=dict)


class FusionConfig(Config):
    """A branch for each part of a sum of sensors, or for each group of bands."""

    kind: Literal["mid", "late"] = pydantic.Field(
        "mid", description="mid: branches share decoder and class layer; late: they share nothing"
    )
    joint: bool = pydantic.Field(False, description="one branch more, which sees the bands of all")
    branches: dict[str, tuple[str, ...]] = pydantic.Field(
        default_factory=dict,
        description="bands of each branch by name, such as {s1: [VV, VH]}; by default the parts of a sum of sensors, or radar and optical",
    )
    use: tuple[str, ...] = pydantic.Field((), description="build these branches alone, to compare with one modality; by default all")
    positions: dict[str, tuple[int, ...]] = pydantic.Field(
        default_factory=dict, description="places of their bands among those of the sensor, 0 first; found by itself"
    )

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        for name, bands in (self.branches | self.positions).items():
            if not re.fullmatch(r"[A-Za-z]\w*", name) or (name == "joint" and name in self.branches):
                raise ValueError(f"a branch cannot be called {name!r}; take another word of letters, digits and _")
            if not bands or len(set(bands)) != len(bands):
                raise ValueError(f"branch {name}: at least one band, and every band once")
        if any(place < 0 for places in self.positions.values() for place in places):
            raise ValueError("positions are counted from 0")
        return self


class NetworkConfig(Config):
    """Which network: one with a name, or an encoder of timm with a decoder."""

    name: str | None = pydantic.Field(
        None, description="a published network, such as upernet_vit_b; tilth models list shows them; instead of encoder and decoder"
    )
    encoder: str | None = pydantic.Field(
        None,
        description="name of a timm model: resnet50, convnext_tiny, vit_base_patch16_224, ..., or SegFormer's mit_b0 to mit_b5; "
        "default: resnet18",
    )
    decoder: Decoder | None = pydantic.Field(None, description="what turns its feature maps into a map; unet if nothing is said")
    image_size: int = pydantic.Field(
        512, ge=16, description="side that position embeddings are made for; other sizes are interpolated; matters to transformers only"
    )
    pretrained: bool = pydantic.Field(
        False, description="start a timm encoder from its published weights; needs a network or a filled cache"
    )
    options: dict[str, Any] = pydantic.Field(
        default_factory=dict, description="further options of the network, such as decoder_channels for unet or drop_path for ViT"
    )
    # Not written where it is none, so that folders of other networks stay byte for byte what they were.
    fusion: FusionConfig | None = pydantic.Field(
        None, exclude_if=lambda value: value is None, description="one such network for each sensor of a sum, and the mean of their maps"
    )

    @pydantic.field_validator("options", mode="before")
    @classmethod
    def _numbers(cls, options: Any) -> Any:
        return read_numbers(options)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("name") is None:
            return values | {"encoder": values.get("encoder") or "resnet18", "decoder": values.get("decoder") or "unet"}
        return values

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if self.name is None:
            return self
        if self.encoder is not None or self.decoder is not None:
            raise ValueError(f"name={self.name} is a whole network; leave encoder and decoder out, or the name")
        if self.name not in NAMES:
            raise ValueError(f"no network is called {self.name!r}; {suggest(self.name, NAMES)}")
        if NAMES[self.name].kind != "segmentation":
            raise ValueError(f"{self.name} is a {NAMES[self.name].kind} network, which does not turn one image into one map")
        if self.pretrained:
            raise ValueError(f"pretrained is for encoders of timm; {self.name} starts from a file: initial_weights=FILE")
        return self

    @property
    def title(self) -> str:
        """What to call it in a few words."""
        one = self.name or f"{self.encoder} + {self.decoder}"
        return one if self.fusion is None else f"{self.fusion.kind} fusion of {', '.join(self.fusion.positions) or 'branches'}: {one}"


class SegmenterConfig(Config):
    """Everything that ``config.json`` of a model folder holds, and all that prediction needs besides the weights."""

    model_type: Literal["tilth-segmenter"] = "tilth-segmenter"
    schema_version: int = MODEL_SCHEMA_VERSION
    network: NetworkConfig
    sensor: Sensor
    scheme: ClassScheme
