"""Options of the trainings; light to import."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import pydantic

from tilth.augment.config import WeakConfig
from tilth.config import Config, merge_under
from tilth.methods import method_names, usual_options
from tilth.models.config import NetworkConfig
from tilth.training.config import LoopConfig
from tilth.verbs.options import SpeedConfig, WindowConfig


class TrainOptions(Config):
    """What every training takes."""

    verb: ClassVar[str] = ""

    labelled: tuple[Path, ...] = pydantic.Field(min_length=1, description="catalog with labels")
    out: Path = pydantic.Field(description="run folder to write")
    labelled_split: str | None = pydantic.Field("train", description="rows of the labelled catalog to learn from; null for all")
    labelled_tiles: int | None = pydantic.Field(None, ge=1, description="keep only this many labelled tiles, by the catalog's label_rank")
    labelled_percent: float | None = pydantic.Field(
        None, gt=0, le=100, description="keep only this share of the labelled tiles, by label_rank"
    )
    validation_split: str | None = pydantic.Field(
        "val", description="labelled rows (mae and ddpm: unlabelled ones) to validate on; null for no validation"
    )
    initial_weights: Path | None = pydantic.Field(
        None, description="weights to start from: a model or run folder, a published file, or hf-hub:owner/name"
    )
    take: str | None = pydantic.Field(
        None,
        description="which part of the weights: of several networks s1, s2, teacher, encoder_q, ...; of one network encoder, de1 to de4, "
        "wocls, all; of one of several s2:encoder",
    )
    dry_run: bool = pydantic.Field(False, description="only say what it would take: steps, tiles, memory, time")
    speed: SpeedConfig = pydantic.Field(default_factory=SpeedConfig, description="speed that dry_run reckons with")
    resume: bool = pydantic.Field(False, description="go on from the run's newest checkpoint")
    network: NetworkConfig = pydantic.Field(default_factory=NetworkConfig, description="the network, unless a model folder brings one")
    weak: WeakConfig = pydantic.Field(default_factory=WeakConfig, description="resize, crop and flips of every tile")
    loop: LoopConfig = pydantic.Field(default_factory=LoopConfig, description="length, optimiser, schedule, devices")
    inference: WindowConfig = pydantic.Field(default_factory=WindowConfig, description="how validation tiles are cut up")
    settings: dict[str, Any] = pydantic.Field(
        default_factory=dict, description="settings of the method itself, such as settings.threshold=0.9 for s4p"
    )

    @pydantic.model_validator(mode="wrap")
    @classmethod
    def _usual(cls, values: Any, validate: pydantic.ModelWrapValidatorHandler[Self]) -> Self:
        """Fill in what is usual with the method; it does not count as given."""
        if not isinstance(values, Mapping):
            return validate(values)
        name, settings = values.get("method", cls.model_fields["method"].default), values.get("settings") or {}
        usual = usual_options(str(name), cls.verb, settings if isinstance(settings, Mapping) else {})
        loop = values.get("loop") or {}
        if "loop" in usual and "batch_size" in (loop.model_fields_set if isinstance(loop, LoopConfig) else loop):
            # Who chooses the batch chooses its passes: the usual number need not divide it.
            usual["loop"] = {key: value for key, value in usual["loop"].items() if key != "accumulate"}
        found = validate(merge_under(values, usual))
        found.model_fields_set.intersection_update(values)
        return found

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if self.labelled_tiles is not None and self.labelled_percent is not None:
            raise ValueError("labelled_tiles and labelled_percent exclude each other; give one")
        if self.take is not None and self.initial_weights is None:
            raise ValueError(f"take={self.take}: is a part of initial_weights, and there are none; give both, or leave take out")
        if self.initial_weights is not None and self.network.pretrained:
            raise ValueError(
                f"network.pretrained=yes and initial_weights={self.initial_weights} both fill the encoder; leave one of the two out"
            )
        return self


class PretrainOptions(TrainOptions):
    """Options of ``tilth pretrain``."""

    verb: ClassVar[str] = "pretrain"

    method: str = pydantic.Field(json_schema_extra={"positional": True}, description=f"how to learn: {', '.join(method_names())}")
    labelled: tuple[Path, ...] = pydantic.Field((), description="catalog with labels; not for mae and ddpm, which learn without")
    unlabelled: tuple[Path, ...] = pydantic.Field((), description="catalogs of the unlabelled pool; may name the labelled catalog too")
    unlabelled_split: tuple[str | None, ...] = pydantic.Field(
        ("train",), description="rows of the pool to use; a catalog without any split is used whole"
    )
    unlabelled_tiles: int | None = pydantic.Field(
        None, ge=1, description="keep only this many tiles of the pool, drawn at random, always the same ones; more tiles hold fewer"
    )
    target: tuple[Path, ...] = pydantic.Field(
        (),
        # Not written where there is none, so that runs begun without it can be resumed.
        exclude_if=lambda value: not value,
        description="catalogs of imagery as the one to be mapped, of the same sensor; at the end ddpm learns from these alone, for "
        "settings.target_share of the steps",
    )


class FinetuneOptions(TrainOptions):
    """Options of ``tilth finetune``."""

    verb: ClassVar[str] = "finetune"

    task: Literal["segment"] = pydantic.Field(json_schema_extra={"positional": True}, description="what to train for")
    method: str = pydantic.Field("supervised", description="how to learn")
