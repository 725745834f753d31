"""Configuration of the training loop; light to import."""

from __future__ import annotations

from typing import Literal, Self

import pydantic

from tilth.config import Config


class ScheduleConfig(Config):
    """How the learning rate goes from its base value over the run."""

    kind: Literal["cosine", "poly", "exp", "step", "plateau", "constant"] = pydantic.Field("cosine", description="shape of the decay")
    warmup_steps: int = pydantic.Field(0, ge=0, description="steps of linear rise from 0 to the base rate; S5 uses none")
    warmup_share: float = pydantic.Field(
        0.0,
        ge=0,
        lt=1,
        description="the same as a share of the run, where warmup_steps is 0 (ddpm: 0.05, 10,000 of 200,000 steps)",
    )
    warmup_from: float = pydantic.Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the base rate that the rise begins at (ddpm: 0.1, from 1e-6 to 1e-5)",
    )
    final_share: float = pydantic.Field(0.0, ge=0, le=1, description="share of the base rate left at the end (cosine, poly, exp)")
    decay_share: float = pydantic.Field(
        1.0, gt=0, le=1, description="share of the run in which cosine, poly and exp get there; the rest stays there (CromSS: 0.8)"
    )
    hold_steps: int = pydantic.Field(
        1, ge=1, description="steps that share one rate; those of a pass through the tiles, where the rate changes once a pass (CromSS)"
    )
    power: float = pydantic.Field(0.9, gt=0, description="exponent of poly")
    milestones: tuple[float, ...] = pydantic.Field(
        (0.6, 0.9), description="shares of the run after which step multiplies the rate by factor"
    )
    factor: float = pydantic.Field(0.1, gt=0, lt=1, description="multiplier of step and plateau")
    patience: int = pydantic.Field(
        5, ge=1, description="the validation in a row without a better score at which plateau multiplies the rate; torch's patience + 1"
    )
    threshold: float = pydantic.Field(
        0.0, ge=0, lt=1, description="share of itself by which a score must pass the best to be better, for plateau (CromSS: 1e-4)"
    )
    watch: Literal["score", "loss"] = pydantic.Field(
        "score", description="what plateau listens to: the score that the best weights are kept by, or the validation loss (CromSS)"
    )

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if self.kind == "exp" and self.final_share == 0:
            raise ValueError("schedule.kind=exp falls by the same factor in every step and never reaches 0; give schedule.final_share")
        return self

    def warmup(self, steps: int) -> int:
        """Say how many of a run's steps the rate rises in."""
        return self.warmup_steps or int(self.warmup_share * steps)


class TransferConfig(Config):
    """How the parts of a network learn whose encoder was trained before."""

    frozen: Literal["never", "always", "first"] = pydantic.Field(
        "never", description="when the encoder does not learn; first: in the first frozen_steps"
    )
    frozen_steps: int | None = pydantic.Field(None, ge=1, description="steps at the beginning in which it does not, with frozen=first")
    frozen_bn: Literal["fixed", "track"] = pydantic.Field(
        "fixed",
        description="a frozen encoder is left as it is, or, as in CromSS's program, stays in training mode: batch norms follow the tiles",
    )
    rates: Literal["same", "ascending", "descending"] = pydantic.Field(
        "same",
        description="learning rates: one for all, or other ones from block to block of a U-Net's decoder, up or down to its head; the "
        "encoder then gets the smallest",
    )
    rate_factor: float = pydantic.Field(0.8, gt=0, lt=1, description="from one block to the next (CromSS: 0.8)")
    encoder_rate: float = pydantic.Field(
        1.0,
        gt=0,
        le=1,
        description="share of its learning rate that the encoder has besides (diffusion features: 0.1)",
    )

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if (self.frozen == "first") != (self.frozen_steps is not None):
            raise ValueError("transfer.frozen=first and transfer.frozen_steps belong together; give both, or none of them")
        return self


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
    optimiser: Literal["adamw", "adam", "sgd"] = pydantic.Field(
        "adamw", description="adamw (S5); adam adds the decay to the gradient (L2, CromSS), and so does sgd"
    )
    momentum: float = pydantic.Field(0.9, ge=0, lt=1, description="of sgd (CromSS: 0.9)")
    weight_decay: float = pydantic.Field(0.01, ge=0, description="weight decay (S5: 0.01; CromSS: 1e-8, with sgd 1e-4)")
    betas: tuple[float, float] = pydantic.Field((0.9, 0.999), description="betas of adamw and adam (S5, CromSS)")
    no_decay: Literal["standard", "official", "nothing"] = pydantic.Field(
        "standard",
        description="exempt from decay: all vectors, embeddings and position tables; 'official' matches names as the S5 program does; "
        "nothing: all weights decay (CromSS)",
    )
    schedule: ScheduleConfig = pydantic.Field(default_factory=ScheduleConfig, description="learning-rate schedule")
    transfer: TransferConfig = pydantic.Field(default_factory=TransferConfig, description="what of a trained network learns, and how fast")
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
        if self.transfer.frozen_steps is not None and self.transfer.frozen_steps >= self.steps:
            raise ValueError(
                f"transfer.frozen_steps ({self.transfer.frozen_steps}) must be smaller than steps ({self.steps}); for a frozen encoder: "
                "transfer.frozen=always"
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
