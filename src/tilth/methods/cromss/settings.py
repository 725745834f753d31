"""Settings of CromSS; defaults are those that its authors recommend (cromss.md section 4.11)."""

from __future__ import annotations

from typing import Literal, Self

import pydantic

from tilth.config import Config
from tilth.methods.cromss.confidence import ConfidenceKind
from tilth.methods.cromss.consistency import ConsistencyKind
from tilth.methods.cromss.ramps import RampKind
from tilth.methods.cromss.selection import RankingKind, RareKind
from tilth.methods.cromss.smoothing import PriorKind

_TERMS = "cdf"


class CromssConfig(Config):
    """Settings of CromSS."""

    selection: Literal["class", "all", "off"] = pydantic.Field(
        "class",
        description="which labels count in full: the surest of each class (CromSS), the surest of all, or, without selection, all of them",
    )
    selected_share: float = pydantic.Field(0.5, ge=0, le=1, description="share of the pixels of a class that does so at last (CromSS: 0.5)")
    ranked_over: Literal["all", "process"] = pydantic.Field(
        "all", description="who is compared: the pixels of all processes, or, as in the published program, of each by itself"
    )
    ranking: RankingKind = pydantic.Field(
        "exact", description="exact thresholds, or, a little faster, histogram: thresholds up to 1/2048 too low"
    )
    rare_class: RareKind = pydantic.Field(
        "keep", description="classes of so few pixels that none would be selected: keep one, or, as the published program, drop the class"
    )
    ramp: RampKind = pydantic.Field(
        "exp", description="how selection sets in: exp (CromSS) and linear from about no selection, none at once"
    )
    ramp_passes: float = pydantic.Field(80, ge=0, description="passes through the labelled tiles until it is complete (CromSS: 80 of 200)")
    ramp_steps: int | None = pydantic.Field(None, ge=0, description="the same in steps, instead; for trainings of few passes")
    confidence: ConfidenceKind = pydantic.Field(
        "ce", description="how sure a prediction is: by its entropy (CromSS), or gini: the sum of its squared probabilities"
    )
    terms: str = pydantic.Field(
        "cd", pattern=f"^[{_TERMS}]+$", description="losses against the labels, added: c cross-entropy, d Dice, f focal (CromSS: cd)"
    )
    dice_present: Literal["target", "label"] = pydantic.Field(
        "target", description="whether Dice takes a class for present by its softened labels (CromSS) or by its labels"
    )
    consistency: ConsistencyKind = pydantic.Field(
        "ce", description="how modalities learn from each other: ce (CromSS), kl, mse, or not at all"
    )
    consistency_weight: float = pydantic.Field(1.0, ge=0, description="weight of that loss (CromSS: 1)")
    prior: PriorKind = pydantic.Field(
        "ts", description="where labels are softened from: t the other seasons, s the neighbourhood, ts both (CromSS)"
    )
    prior_share: float = pydantic.Field(0.15, ge=0, le=1, description="share of that prior in a label (CromSS: 0.15); 0 for none")
    prior_sigma: float = pydantic.Field(3.0, ge=0, description="standard deviation of its filter in pixels (CromSS: 3)")
    uniform_share: float = pydantic.Field(0.05, ge=0, le=1, description="share of the uniform distribution in a label (CromSS: 0.05)")
    ignore_mean: Literal["valid", "all"] = pydantic.Field(
        "valid", description="without selection: mean over labelled pixels, or over all, ignored ones as 0, as the published program"
    )
    collapse_grace: int = pydantic.Field(200, ge=0, description="steps before a collapse of the predictions is warned of")

    @pydantic.field_validator("selection", mode="before")
    @classmethod
    def _read_off(cls, value: object) -> object:
        """Take a bare ``off`` for the word: YAML, and so the command line, reads it as false."""
        return "off" if value is False else value

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.terms)) != len(self.terms):
            raise ValueError(f"terms={self.terms}: every letter at most once")
        if self.prior_share + self.uniform_share > 1:
            raise ValueError(f"prior_share ({self.prior_share:g}) and uniform_share ({self.uniform_share:g}) are together more than 1")
        if self.ignore_mean == "all" and self.selection != "off":
            raise ValueError("ignore_mean=all is for trainings without selection; set selection=off, or leave ignore_mean out")
        return self
