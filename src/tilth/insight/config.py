"""Options of looking at features; light to import."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import pydantic

from tilth.config import Config

Positive = Annotated[int, pydantic.Field(ge=1)]
NotNegative = Annotated[int, pydantic.Field(ge=0)]
Side = Literal["encoder", "decoder"]


class MapsConfig(Config):
    """Which maps are looked at; side, times and reduction are for noise predictors."""

    strides: tuple[Positive, ...] = pydantic.Field((2, 4, 8, 16), min_length=1, description="levels, those of them that an encoder has")
    sides: tuple[Side, ...] = pydantic.Field(("encoder", "decoder"), min_length=1, description="of a noise predictor: encoder, decoder")
    times: tuple[NotNegative, ...] = pydantic.Field(
        (0, 50, 100, 150), min_length=1, description="of a noise predictor: when noise is added, 0 for the clean image"
    )
    reduce: Literal["first", "last", "mean", "concat"] | None = pydantic.Field(
        None, description="of a noise predictor: which maps of a level; by default those that a training takes"
    )

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("strides", "sides", "times"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name}: {', '.join(map(str, values))}: give each once")
        return self


class ClusterConfig(Config):
    """k-means of the pixels of one map of one tile."""

    count: int = pydantic.Field(10, ge=2, le=64, description="clusters of a map; 8 to 12 show most")
    size: Literal["quarter", "native"] = pydantic.Field("quarter", description="maps are resized to a quarter of the tile's sides, or not")
    restarts: int = pydantic.Field(3, ge=1, le=100, description="beginnings, of which the best result is kept")


class TsneConfig(Config):
    """t-SNE of pixels of all tiles, one panel for each side of each encoder."""

    pixels: int = pydantic.Field(500, ge=0, description="pixels of each class, if there are so many; 0 = no t-SNE")
    components: int = pydantic.Field(50, ge=2, description="principal components that are kept before")
    perplexity: float = pydantic.Field(30.0, gt=0, description="about how many neighbours a pixel keeps; smaller where pixels are few")
    stride: int = pydantic.Field(8, ge=1, description="level; the nearest where an encoder does not have it")
    time: int = pydantic.Field(50, ge=0, description="of a noise predictor; the nearest that is looked at")


class ProbeConfig(Config):
    """What simple classifiers make of single pixels of a map."""

    pixels: int = pydantic.Field(200, ge=0, description="labelled pixels of each tile, drawn evenly; 0 = no probes")
    neighbours: int = pydantic.Field(10, ge=1, description="of the k-NN probe")
    strength: float = pydantic.Field(1.0, gt=0, description="of the linear probe: how little its weights are held back (C of scikit-learn)")
    steps: int = pydantic.Field(500, ge=1, description="of the linear probe, at most; numbers of one that needed more are marked")


class LookConfig(Config):
    """How features are looked at."""

    tiles: int = pydantic.Field(32, ge=1, description="tiles to learn from, at most")
    test_tiles: int = pydantic.Field(16, ge=1, description="tiles to test on, at most")
    window: int = pydantic.Field(256, ge=16, description="of each tile at most a square of this side is looked at, in pixels")
    pictures: int = pydantic.Field(3, ge=0, le=24, description="tiles of which maps are drawn")
    seed: int = pydantic.Field(0, ge=0, description="of all that is drawn at random")
    maps: MapsConfig = pydantic.Field(default_factory=MapsConfig, description="which maps")
    clusters: ClusterConfig = pydantic.Field(default_factory=ClusterConfig, description="k-means maps")
    tsne: TsneConfig = pydantic.Field(default_factory=TsneConfig, description="t-SNE")
    probes: ProbeConfig = pydantic.Field(default_factory=ProbeConfig, description="linear and k-NN probes")
