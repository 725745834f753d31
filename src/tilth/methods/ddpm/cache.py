"""Learning from maps that are kept on disk: the settings, and the network without the part whose work is done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

import pydantic
from torch import Tensor, nn

from tilth.config import Config
from tilth.models.segmenter import Segmenter


class CacheSettings(Config):
    """Whether the maps of a frozen noise predictor are made anew for every step, or once and kept (ddpm.md section 13)."""

    cache: Literal["auto", "online", "disk"] = pydantic.Field(
        "auto",
        description="maps of a frozen noise predictor are made anew in every step (online) or kept (disk); auto keeps them where "
        "cache_folder is given, each is used at least twice and there is room",
    )
    cache_folder: Path | None = pydantic.Field(
        None, description="where kept maps lie; trainings with other seeds or fewer of the same tiles may share it"
    )
    cache_dtype: Literal["fp16", "int8"] = pydantic.Field("int8", description="of kept maps; int8 has a scale for each 256 values")
    cache_variants: Literal[1, 8] = pydantic.Field(1, description="ways in which each crop is kept: as it lies, or also flipped and turned")
    cache_limit_gb: float = pydantic.Field(50.0, gt=0, description="most GiB that are kept")

    @pydantic.model_validator(mode="after")
    def _check_cache(self) -> Self:
        if self.cache == "disk" and self.cache_folder is None:
            raise ValueError("cache=disk needs a place; give cache_folder")
        return self


class BehindEncoder(nn.Module):
    """A model called with the maps of its encoder instead of an image."""

    def __init__(self, model: Segmenter) -> None:
        super().__init__()
        self.model = model

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Compute logits (B, K, height, width) of maps, finest first, of an image that was padded from ``size``."""
        return self.model.decode(list(maps))[..., : size[0], : size[1]]
