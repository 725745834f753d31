"""Noise predictors small enough to train in a test."""

from __future__ import annotations

from typing import Any

from tilth.models.config import NetworkConfig

TINY_UNETS: dict[str, dict[str, Any]] = {
    "sr3": {"width": 8, "norm_groups": 4, "multipliers": [1, 1, 2, 2, 2], "res_blocks": 1},
    "guided": {"width": 8, "norm_groups": 4, "multipliers": [1, 1, 2, 2, 2, 2], "res_blocks": 1, "head_width": 8},
}
"""Options of the U-Nets of the two families: as many levels as published, few channels."""
NAMES = {"sr3": "ddpm_sr3_64", "guided": "ddpm_guided_256"}


def tiny_diffusion(kind: str = "sr3", unet_options: dict[str, Any] | None = None, **options: Any) -> NetworkConfig:
    """Configure a small ddpm_segmentor of a family."""
    unet = {**TINY_UNETS[kind], **(unet_options or {})}
    return NetworkConfig(name="ddpm_segmentor", options={"unet": NAMES[kind], "unet_options": unet, **options})
