"""Options that several verbs share; light to import."""

from __future__ import annotations

from typing import Literal

import pydantic

from tilth.config import Config


class InferenceConfig(Config):
    """How images larger than a window are cut up, and where they are computed."""

    window: int = pydantic.Field(512, ge=32, description="side of a window in pixels")
    overlap: int = pydantic.Field(128, ge=0, description="pixels that neighbouring windows share; blended smoothly")
    batch_size: int = pydantic.Field(4, ge=1, description="windows in one forward pass")
    device: str = pydantic.Field("auto", description="auto, cpu, cuda or cuda:N")
    precision: Literal["32", "bf16-mixed", "16-mixed"] = pydantic.Field("32", description="precision of the forward pass")


def pick_device(name: str) -> str:
    """Resolve ``auto`` to the GPU where there is one."""
    import torch

    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"
