"""Settings of curation (s5_pretrain.md section 2). Free of torch, so that the command line may read them at start."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from tilth.config import Config

Share = Annotated[float, pydantic.Field(ge=0, le=1)]

EntropyReading = Literal["foreground", "all_classes", "foreground_renormalised"]
"""Which classes the entropy of a pixel is summed over; see :func:`tilth.curation.entropy.pixel_entropies`."""

FeatureInput = Literal["shrink", "resize", "windows"]
"""What the encoder sees when it describes a tile; see :class:`tilth.curation.scorer.TileScorer`."""

Quotas = Literal["labelled", "equal", "none"]
"""What the shares of the clusters follow."""


class ScoringConfig(Config):
    """What is asked of every tile. Another answer to any of these needs the pass over the pixels again."""

    background: tuple[str, ...] | None = pydantic.Field(
        None, description="classes that are no foreground; by default the one called background, if there is one"
    )
    feature_input: FeatureInput = pydantic.Field(
        "shrink",
        description="what a tile's feature is taken from: shrink (the whole tile, made smaller where it is larger than a window), resize "
        "(always as large as a window: S5, at the price of a second look at smaller tiles) or windows (mean over windows)",
    )
    shard_tiles: int = pydantic.Field(1024, ge=1, le=1_000_000, description="tiles in one file of scores, and lost at most by a kill")


class FilterConfig(Config):
    """Which tiles are dropped for what they are, whatever the others are like."""

    least_valid: Share = pydantic.Field(0.5, description="smallest share of pixels with data")
    least_contrast: Share = pydantic.Field(
        0.004,
        description="smallest standard deviation of a band, as share of its way from low to high; a tile below is blank",
    )
    most_bright: Share = pydantic.Field(
        0.95, description="largest share of bright, colourless pixels, as clouds and dense haze are, and snow and salt, too; 1 = off"
    )
    foreground_guard: bool = pydantic.Field(True, description="drop tiles in which the model sees background alone (S5, both versions)")
    min_foreground_pixels: int = pydantic.Field(1, ge=1, description="foreground pixels that a tile must have, with the guard on")
    foreground_exempt: tuple[str, ...] = pydantic.Field(
        (), description="values of the column source whose tiles pass the guard unseen, as SIOR and FAST do in MillionSeg"
    )
    duplicates: Literal["near", "exact", "none"] = pydantic.Field(
        "near", description="copies to drop: near, exact (the same pixels) or none"
    )


class DiversityConfig(Config):
    """How the places of the selection are shared out among kinds of imagery."""

    quotas: Quotas = pydantic.Field(
        "labelled",
        description="labelled: clusters of the labelled tiles, each as large a share as there (S5); equal: clusters of the pool itself, "
        "all alike; none: the entropy alone decides",
    )
    clusters: int = pydantic.Field(64, ge=1, le=65_536, description="number of clusters M; S5 does not say")
    iterations: int = pydantic.Field(100, ge=1, description="k-means stops after so many at the latest")
    seed: int = pydantic.Field(0, description="of k-means++")
    seeding_rows: int = pydantic.Field(100_000, ge=1, description="k-means++ draws its centres from so many rows at most")
    fill_shortfall: bool = pydantic.Field(True, description="fill what clusters cannot from the remaining tiles, in the order of entropy")
