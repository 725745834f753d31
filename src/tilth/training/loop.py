"""The training loop: batches in, steps, logs, checkpoints and a model folder out. It knows no method and no verb."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric import Fabric

from tilth.augment.config import WeakConfig
from tilth.errors import InterruptedRunError
from tilth.methods.base import Method
from tilth.models.segmenter import Segmenter
from tilth.training.checkpoint import load_checkpoint, save_checkpoint
from tilth.training.config import LoopConfig
from tilth.training.distributed import gather_over_ranks, mean_over_ranks
from tilth.training.interrupt import StopRequest
from tilth.training.log import MetricLog
from tilth.training.memory import kept_memory
from tilth.training.progress import TrainingProgress
from tilth.training.quarantine import Quarantine
from tilth.training.run import Run
from tilth.training.step import Stepper
from tilth.training.streams import AnyRaw, FeatureDataset, TileDataset, build_loader, plain_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

Validate = Callable[[Segmenter], Mapping[str, float]]


@dataclass
class FitResult:
    """How a training ended.

    Attributes:
        steps: optimiser steps done.
        seconds: wall time over all sessions of the run.
        best_score: best validation score (see :class:`tilth.methods.base.Score`), or None without validation.
        skipped: steps skipped for non-finite losses or gradients.
        bad_tiles: unreadable tiles met, with reasons.
    """

    steps: int
    seconds: float
    best_score: float | None
    skipped: int
    bad_tiles: dict[str, str]


class Trainer:
    """One training, from its first or any later step to its end."""

    def __init__(
        self,
        method: Method,
        dataset: TileDataset | FeatureDataset,
        run: Run,
        config: LoopConfig,
        weak: WeakConfig,
        fabric: Fabric,
        progress: TrainingProgress,
        validate: Validate | None = None,
    ) -> None:
        self.method, self.dataset, self.run, self.config = method, dataset, run, config
        self.fabric, self.progress, self.validate = fabric, progress, validate
        self.quarantine = Quarantine(dataset.order, config.max_bad_share, progress.warn)
        self.stepper = Stepper(method, config, weak, fabric, self.quarantine)
        self.model = self.stepper.model
        method.gather, method.seed = gather_over_ranks, config.seed
        tiles = dataset.order.sizes[next(iter(method.streams))]
        method.passes = lambda step: step * config.batch_size / tiles
        method.average = self.stepper.average.model if self.stepper.average else None
        if config.denominator == "global":
            method.count = mean_over_ranks
        method.check()
        self.step = 0
        self.seconds = 0.0
        self.best_score: float | None = None
        self._unlogged: Mapping[str, Any] | None = None
        self._standing_warnings: list[str] = []

    def fit(self) -> FitResult:
        """Train to the end.

        Raises:
            InterruptedRunError: Ctrl-C or a termination signal; a checkpoint was written.
            RunError: losses stay non-finite, or too many tiles are unreadable.
        """
        writing = closing(MetricLog(self.run, self.step, enabled=self.fabric.is_global_zero))
        with StopRequest() as stop, kept_memory(self.fabric.device), writing as log:
            if self._unlogged is not None:
                log.load_state_dict(self._unlogged, self.fabric.device)
            elif self.step == 0:
                self._save(log)  # so that a run killed before its first checkpoint can be resumed like any other
            began = time.perf_counter() - self.seconds
            for micro_batches in self._batches():
                losses = self.stepper.take(self.step, micro_batches)
                self.step += 1
                self.seconds = time.perf_counter() - began
                # What a skipped step found is not finite, and would spoil the means of its log line.
                log.add([] if self.stepper.skipped_in_a_row else losses, self.config.batch_size * len(self.method.streams))
                last = self.step == self.config.steps
                if self._due(self.config.log_every):
                    self._report(log)
                if self._due(self.config.validate_every):
                    self._validate(log)
                    self.seconds = time.perf_counter() - began
                if self._due(self.method.preview_every) and self.fabric.is_global_zero:
                    self.method.preview(self.stepper.exported, self.step, self.run.previews)
                stopping = self._agree(stop.requested) and not last
                if self.step % self.config.checkpoint_every == 0 or stopping or last:
                    self._save(log)
                if stopping:
                    raise InterruptedRunError(
                        f"stopped after step {self.step} of {self.config.steps}; the same command with --resume goes on from there"
                    )
        self._export()
        self.fabric.barrier()  # no process goes on before the model is there
        return FitResult(self.step, self.seconds, self.best_score, self.stepper.skipped, self.quarantine.tiles)

    def resume(self) -> None:
        """Go back to the newest checkpoint of the run; without one it begins anew."""
        if not self.run.checkpoint.is_file():
            return
        state = load_checkpoint(self.run.checkpoint)
        self.stepper.load_state_dict(state)
        self.method.load_state_dict(state["method"])
        self.step, self.seconds, self.best_score = state["step"], state["seconds"], state["best_score"]
        self.quarantine.by_source = state["bad_tiles"]
        self._unlogged = state["log"]
        if self.fabric.is_global_zero:
            self.run.rewind(self.step)

    def _batches(self) -> Iterator[list[dict[str, AnyRaw]]]:
        """The micro-batches of each remaining step."""
        loader = build_loader(
            self.dataset,
            range(self.step, self.config.steps),
            accumulate=self.config.accumulate,
            rank=self.fabric.global_rank,
            ranks=self.fabric.world_size,
            workers=self.config.workers,
            pin_memory=self.fabric.device.type == "cuda",
        )
        group: list[dict[str, AnyRaw]] = []
        for item in plain_errors(loader):
            group.append(item)
            if len(group) == self.config.accumulate:
                yield group
                group = []

    def _report(self, log: MetricLog) -> None:
        """Write one log line, show it, and pass on what the method finds wrong."""
        stepper = self.stepper
        extra = {"learning_rate": stepper.rate.at(self.step - 1), "skipped": stepper.skipped, "bad_tiles": len(self.quarantine.tiles)}
        event, shares = log.flush(self.step, self.seconds, self.fabric.device, extra)
        event["time_left_s"] = (self.config.steps - self.step) * self.seconds / self.step
        if self.fabric.is_global_zero:
            self.progress.show(self.step, event)
            standing = self.method.warnings(shares, self.step)
            for message in standing:
                if message not in self._standing_warnings:  # said once, until it has passed
                    log.warn(self.step, message)
                    self.progress.warn(message)
            self._standing_warnings = standing

    def _validate(self, log: MetricLog) -> None:
        """Score the exported weights on the first process; keep them if they are the best so far."""
        if self.validate is None:
            return
        scores: Mapping[str, float] = self.validate(self.stepper.exported) if self.fabric.is_global_zero else {}
        kind = self.method.score
        score, loss = map(float, self.fabric.broadcast([scores.get(name, math.nan) for name in (kind.name, "validation_loss")]))
        if self.fabric.is_global_zero:
            log.write(self.step, "val", self.seconds, scores)
            self.progress.show(self.step, scores)
        if not math.isfinite(score):
            return
        self.stepper.rate.observe(-loss if self.config.schedule.watch == "loss" else score if kind.higher_is_better else -score)
        if kind.better(score, self.best_score):
            self.best_score = score
            if self.fabric.is_global_zero and self.config.export == "best":
                self.method.export(self.stepper.exported, self.run.best)

    def _due(self, every: int) -> bool:
        """Whether something that is done every so many steps, and at the end, is due now; never for 0."""
        return every > 0 and (self.step % every == 0 or self.step == self.config.steps)

    def _agree(self, requested: bool) -> bool:
        """Stop together: asked only at log lines where there are several processes, for the question makes them wait."""
        if self.fabric.world_size == 1:
            return requested
        if self.step % self.config.log_every:
            return False
        return bool(mean_over_ranks(torch.tensor(float(requested), device=self.fabric.device)) > 0)

    def _save(self, log: MetricLog) -> None:
        unlogged = log.state_dict()
        if not self.fabric.is_global_zero:
            return
        state = self.stepper.state_dict() | {
            "method": self.method.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "best_score": self.best_score,
            "bad_tiles": self.quarantine.by_source,
            "log": unlogged,
        }
        save_checkpoint(self.run.checkpoint, state)

    def _export(self) -> None:
        """Write the model folder of the run."""
        # A run that was finished before stays as it is: its best weights are in the model folder alone.
        if not self.fabric.is_global_zero or self.run.finished:
            return
        if self.config.export == "best" and self.run.best.is_dir():
            self.run.keep_best()
        else:
            self.method.export(self.stepper.exported, self.run.model)
        self.run.finish(
            {
                "steps": self.step,
                "seconds": self.seconds,
                f"best_{self.method.score.name}": self.best_score,
                "skipped_steps": self.stepper.skipped,
                "bad_tiles": self.quarantine.tiles,
                "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            }
        )
