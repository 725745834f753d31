"""Options that several verbs share; light to import."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import pydantic

from tilth.config import Config
from tilth.errors import UsageError


def require_suffix(path: Path | None, suffix: str, what: str) -> Path | None:
    """Refuse the name of an output that does not say what it is; for validators.

    Raises:
        ValueError: it ends otherwise.
    """
    if path is not None and path.suffix.lower() != suffix:
        raise ValueError(f"{what}; expected a name that ends in {suffix}")
    return path


Flips = Literal["none", "horizontal", "both", "all"]
"""Which mirrored views are averaged; see :data:`tilth.models.flips.FLIPS`."""

FLIPS_FIELD: Any = pydantic.Field("none", description="average mirrored views of each window: 1, 2, 4 or 8 times the work, steadier labels")
"""Field of an option of that type."""

SHARD_TILES_FIELD: Any = pydantic.Field(
    256, ge=1, le=1_000_000, description="tiles in one piece of work, and lost at most by a kill; more where one image has more"
)
"""Field of the size of the pieces that processes share."""

BAD_SHARE_FIELD: Any = pydantic.Field(
    0.05, ge=0, le=1, description="share of the tiles, rounded up, that may turn out unreadable; never all"
)
"""Field of how much may be wrong with the tiles."""

THREADS_FIELD: Any = pydantic.Field(2, ge=1, le=256, description="threads that read ahead, and as many that write")
"""Field of the threads beside a model."""


class WindowConfig(Config):
    """How images larger than a window are cut up."""

    window: int = pydantic.Field(512, ge=32, description="side of a window in pixels")
    overlap: int = pydantic.Field(
        128, ge=0, description="pixels that neighbouring windows share, blended smoothly; by default a quarter of the window"
    )
    batch_size: int = pydantic.Field(4, ge=1, description="windows in one forward pass on a GPU; a CPU computes them one by one")

    @pydantic.model_validator(mode="before")
    @classmethod
    def _quarter(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or "overlap" in values or not isinstance(values.get("window"), int):
            return values
        return {**values, "overlap": values["window"] // 4}

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if self.overlap >= self.window:
            raise ValueError(f"overlap ({self.overlap}) must be smaller than window ({self.window}), both in pixels")
        return self


class InferenceConfig(WindowConfig):
    """How images larger than a window are cut up, and where they are computed."""

    device: str = pydantic.Field("auto", description="auto, cpu, cuda or cuda:N")
    precision: Literal["32", "bf16-mixed", "16-mixed"] = pydantic.Field("32", description="precision of the forward pass")

    def arguments(self) -> dict[str, Any]:
        """Return keyword arguments of the functions that predict and score, with the device that is there.

        Raises:
            UsageError: no such device here.
        """
        return self.model_dump() | {"device": pick_device(self.device)}


class SideBySideConfig(InferenceConfig):
    """How images larger than a window are cut up where no seam shows: windows side by side, each pixel once."""

    overlap: int = pydantic.Field(0, ge=0, description="pixels that neighbouring windows share, blended smoothly (S5: none)")

    @pydantic.model_validator(mode="before")
    @classmethod
    def _quarter(cls, values: Any) -> Any:
        # Windows share nothing unless asked to.
        return values


class SpeedConfig(Config):
    """How fast a device is, for whoever wants to know how long something takes on another one than this."""

    tflops: float | None = pydantic.Field(
        None, gt=0, description="million million operations a second that the device reaches on networks; measured here if not given"
    )
    gigabytes_per_s: float | None = pydantic.Field(
        None, gt=0, description="memory that it reads and writes in a second, with tflops; what is not given takes no time"
    )

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if self.gigabytes_per_s is not None and self.tflops is None:
            raise ValueError("gigabytes_per_s is for a device whose tflops are given, too; give both, or leave it out")
        return self


def pick_device(name: str, option: str = "inference.device") -> str:
    """Resolve ``auto`` to the GPU where there is one.

    Args:
        name: what was asked for.
        option: by which option.

    Raises:
        UsageError: no such device here.
    """
    import torch

    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    if name == "auto":
        return "cuda" if gpus else "cpu"
    if name not in {"cpu", *gpus, *(("cuda",) if gpus else ())}:
        raise UsageError(f"{option}={name}: there is no such device here; choices: {', '.join(['auto', 'cpu', *gpus])}")
    return name
