"""Settings of the weak view, the strong view and CutMix. Free of torch, so that the command line may read them at start."""

from __future__ import annotations

from typing import Annotated, Self

import pydantic
from pydantic import Field

from tilth.config import Config

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class WeakConfig(Config):
    """The weak view: random resize, crop and flips, the same for image and label (s5_pretrain.md section 4)."""

    size: int = Field(default=512, ge=1, description="side S of the square crop in pixels; 512 in S5")
    scale_min: Positive = Field(default=0.5, description="smallest resize of the longer side, relative (S5)")
    scale_max: Positive = Field(default=2.0, description="largest resize of the longer side, relative (S5)")
    horizontal_flip: Probability = Field(default=0.5, description="probability of a left-right flip (S5)")
    vertical_flip: Probability = Field(default=0.5, description="probability of an up-down flip (S5)")
    rot90: bool = Field(
        default=False,
        description="also turn by 0, 90, 180 or 270 degrees; in the S5 paper, not its program",
    )
    rotation: Probability = Field(
        default=0.0, description="probability of a rotation by any angle after crop and flips, mirrored at the border (CromSS: 0.2)"
    )
    rotation_degrees: float = Field(default=90.0, gt=0, le=180, description="angle of the rotation from U(-r, r) (CromSS: 90)")

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if self.scale_max < self.scale_min:
            raise ValueError(f"scale_max ({self.scale_max:g}) must not be less than scale_min ({self.scale_min:g})")
        return self


class StrongConfig(Config):
    """The strong view: photometric changes of the weak crop, no geometry.

    Optical values are those of s5_pretrain.md section 4. S5 has no radar input, so the radar values are this project's own proposal.
    """

    jitter_probability: Probability = Field(default=0.8, description="probability of the colour jitter (S5)")
    brightness: Probability = Field(default=0.5, description="factor from U(1 - b, 1 + b) (S5)")
    contrast: Probability = Field(default=0.5, description="factor from U(1 - c, 1 + c), optical bands (S5)")
    saturation: Probability = Field(default=0.5, description="factor from U(1 - s, 1 + s) (S5)")
    hue: float = Field(default=0.25, ge=0, le=0.5, description="shift from U(-h, h), in turns of the colour circle (S5)")
    grayscale_probability: Probability = Field(default=0.2, description="probability of grey optical bands (S5)")
    edge_probability: Probability = Field(default=0.0, description="probability of enhanced edges of optical bands (WSCL: 0.5; S5: none)")
    blur_probability: Probability = Field(default=0.5, description="probability of a Gaussian blur (S5)")
    blur_sigma: tuple[Positive, Positive] = Field(default=(0.1, 2.0), description="range of the blur's standard deviation in pixels (S5)")
    radar_gain_db: float = Field(default=2.0, ge=0, description="radar: offset from U(-g, g) in decibels, with the jitter; own proposal")
    radar_contrast: Probability = Field(
        default=0.25, description="radar: factor from U(1 - c, 1 + c) around the mean, with the jitter; own proposal"
    )
    speckle_probability: Probability = Field(default=0.5, description="radar: probability of added speckle; own proposal")
    speckle_looks: tuple[Positive, Positive] = Field(
        default=(4.0, 32.0), description="radar: range of the looks L of gamma speckle (variance 1/L), log-uniform; own proposal"
    )

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("blur_sigma", "speckle_looks"):
            low, high = getattr(self, name)
            if high < low:
                raise ValueError(f"{name}: the first value ({low:g}) must not be greater than the second ({high:g})")
        return self


class CutMixConfig(Config):
    """The CutMix box (s5_pretrain.md section 4)."""

    probability: Probability = Field(default=0.5, description="probability that a sample gets a box (S5)")
    area: tuple[Positive, Positive] = Field(default=(0.02, 0.4), description="range of the box's share of the image (S5)")
    ratio: tuple[Positive, Positive] = Field(
        default=(0.3, 1 / 0.3), description="range of the box's height / width, on a square image (S5)"
    )

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        for name, (low, high) in (("area", self.area), ("ratio", self.ratio)):
            if high < low:
                raise ValueError(f"{name}: the first value ({low:g}) must not be greater than the second ({high:g})")
        # A box of share A and ratio r fits only if A < r < 1 / A; otherwise its ratio would be redrawn for ever.
        largest = self.area[1]
        if largest >= 1 or self.ratio[1] <= largest or self.ratio[0] * largest >= 1:
            raise ValueError(
                f"no box of area {largest:g} with a ratio in {self.ratio[0]:g}..{self.ratio[1]:g} fits; lower area or widen ratio"
            )
        return self
