"""Configuration of the training loop; light to import."""

from __future__ import annotations

from typing import Literal, Self

import pydantic

from tilth.config import Config


class ScheduleConfig(Config):
    """How the learning rate goes from its base value over the run."""

    kind: Literal["cosine", "poly", "step", "plateau", "constant"] = pydantic.Field("cosine", description="shape of the decay")
    warmup_steps: int = pydantic.Field(0, ge=0, description="steps of linear rise from 0 to the base rate; S5 uses none")
    final_share: float = pydantic.Field(0.0, ge=0, le=1, description="share of the base rate left at the end (cosine, poly)")
    power: float = pydantic.Field(0.9, gt=0, description="exponent of poly")
    milestones: tuple[float, ...] = pydantic.Field(
        (0.6, 0.9), description="shares of the run after which step multiplies the rate by factor"
    )
    factor: float = pydantic.Field(0.1, gt=0, lt=1, description="multiplier of step and plateau")
    patience: int = pydantic.Field(5, ge=1, description="validations without a better score before plateau multiplies the rate")


class LoopConfig(Config):
    """How long, how fast and on what a run trains."""

    steps: int = pydantic.Field(1000, ge=1, description="optimiser steps")
    batch_size: int = pydantic.Field(
        8, ge=1, description="tiles of each stream in one optimiser step, over all devices and accumulation steps"
    )
    accumulate: int = pydantic.Field(1, ge=1, description="forward and backward passes per optimiser step")
    seed: int = pydantic.Field(0, ge=0, description="everything random in the run is a function of this")
    learning_rate: float = pydantic.Field(
        1e-3, gt=0, description="base rate; S5 uses 2e-5 for ViT and 6e-5 for ResNet and Swin with published weights"
    )
    weight_decay: float = pydantic.Field(0.01, ge=0, description="AdamW weight decay (S5: 0.01)")
    betas: tuple[float, float] = pydantic.Field((0.9, 0.999), description="AdamW betas (S5)")
    no_decay: Literal["standard", "official"] = pydantic.Field(
        "standard",
        description="exempt from decay: all vectors, embeddings and position tables; 'official' matches names as the S5 program does",
    )
    schedule: ScheduleConfig = pydantic.Field(default_factory=ScheduleConfig, description="learning-rate schedule")
    clip_norm: float | None = pydantic.Field(None, gt=0, description="largest gradient norm; S5 does not clip")
    max_skipped_steps: int = pydantic.Field(
        20, ge=0, description="steps in a row with a non-finite loss or gradient that are skipped before the run stops"
    )
    denominator: Literal["device", "global"] = pydantic.Field(
        "device", description="what a mean over pixels divides by: the device's own count (official), or the count over all devices"
    )
    average_decay: float | None = pydantic.Field(
        None, gt=0, lt=1, description="decay of an exponential moving average of the weights; evaluated and exported if kept"
    )
    precision: Literal["32", "bf16-mixed", "16-mixed"] = pydantic.Field("32", description="precision of the student's passes")
    accelerator: Literal["auto", "cpu", "cuda"] = pydantic.Field("auto", description="where to train")
    devices: int = pydantic.Field(1, ge=1, description="processes on each node; under torchrun or SLURM those started there")
    nodes: int = pydantic.Field(1, ge=1, description="nodes")
    workers: int = pydantic.Field(0, ge=0, description="loader processes a device; any number gives the same batches")
    channels_last: bool = pydantic.Field(False, description="memory layout that convolutions prefer")
    compile: bool = pydantic.Field(False, description="compile the network with torch.compile")
    checkpointing: bool = pydantic.Field(
        False, description="compute the activations of the encoder's blocks again in the backward pass instead of keeping them"
    )
    fused: Literal["auto"] | bool = pydantic.Field(
        "auto", description="update all weights in one pass over memory; auto: on GPUs and CPUs, but not with precision=16-mixed"
    )
    log_every: int = pydantic.Field(10, ge=1, description="steps between log lines")
    checkpoint_every: int = pydantic.Field(200, ge=1, description="steps between resumable checkpoints")
    validate_every: int = pydantic.Field(200, ge=1, description="steps between validations")
    export: Literal["best", "last"] = pydantic.Field(
        "best", description="weights of the model folder: best validation mIoU (last without validation), or last"
    )
    max_bad_share: float = pydantic.Field(
        0.05, ge=0, le=1, description="share of a stream's tiles, rounded up, that may turn out unreadable before the run stops"
    )

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        parts = self.devices * self.nodes * self.accumulate
        if self.batch_size % parts:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be cut evenly over {self.devices * self.nodes} devices and "
                f"{self.accumulate} accumulation steps; make it a multiple of {parts}"
            )
        if self.fused is True and self.precision == "16-mixed":
            raise ValueError(
                "fused=yes does not go with precision=16-mixed, whose gradients must be unscaled before they are looked at and clipped; "
                "set fused=auto, or precision=bf16-mixed"
            )
        if self.schedule.warmup_steps >= self.steps:
            raise ValueError(f"schedule.warmup_steps ({self.schedule.warmup_steps}) must be smaller than steps ({self.steps})")
        return self


RESUMABLE_CHANGES = frozenset(
    {"workers", "log_every", "checkpoint_every", "devices", "nodes", "accelerator", "max_bad_share", "checkpointing", "fused"}
)
"""Loop settings that may differ when a run is resumed, because the result does not depend on them.

The number of devices changes rounding, with ``denominator=device`` also what a mean over pixels divides by, and where images of one
batch are pasted into each other, which of them meet.
"""
