"""The training loop: batches in, steps, logs, checkpoints and a model folder out. It knows no method and no verb."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from tilth import seeds
from tilth.augment.config import WeakConfig
from tilth.batch import Batch
from tilth.errors import ConfigError, InterruptedRunError, RunError, SmallBatchError
from tilth.methods.base import Losses, Method
from tilth.models.network import set_checkpointing
from tilth.models.segmenter import Segmenter
from tilth.training.average import Average
from tilth.training.checkpoint import load_checkpoint, save_checkpoint
from tilth.training.config import LoopConfig
from tilth.training.distributed import gather_over_ranks, mean_over_ranks, synchronise_batch_norm
from tilth.training.freezing import Freezing
from tilth.training.interrupt import StopRequest
from tilth.training.log import MetricLog
from tilth.training.memory import kept_memory
from tilth.training.optimiser import LearningRate, build_optimiser, same_layout
from tilth.training.progress import TrainingProgress
from tilth.training.quarantine import Quarantine
from tilth.training.run import Run
from tilth.training.streams import RawBatch, TileDataset, build_loader, plain_errors, to_batch

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
        dataset: TileDataset,
        run: Run,
        config: LoopConfig,
        weak: WeakConfig,
        fabric: Fabric,
        progress: TrainingProgress,
        validate: Validate | None = None,
    ) -> None:
        self.method, self.dataset, self.run, self.config, self.weak = method, dataset, run, config, weak
        self.fabric, self.progress, self.validate = fabric, progress, validate
        self.model, self.trained = method.model, method.trained
        if config.channels_last:
            self.trained.to(memory_format=torch.channels_last)
        if config.checkpointing:
            set_checkpointing(self.model.network, on=True)
        self.trained.to(fabric.device)
        if fabric.world_size > 1:
            synchronise_batch_norm(self.trained, fabric.device)
        self.rate = LearningRate(config)
        self.freezing = Freezing(self.model, config.transfer, alone=fabric.world_size == 1)
        self.average = Average(self.model, config.average_decay) if config.average_decay else None
        trained = cast("nn.Module", torch.compile(self.trained)) if config.compile else self.trained
        self.student, self.optimiser = fabric.setup(trained, build_optimiser(self.trained, config, self.model))
        method.student, method.autocast = self.student, fabric.autocast
        method.gather, method.seed = gather_over_ranks, config.seed
        tiles = dataset.order.sizes[next(iter(method.streams))]
        method.passes = lambda step: step * config.batch_size / tiles
        method.average = self.average.model if self.average else None
        if config.denominator == "global":
            method.count = mean_over_ranks
        method.check()
        self.step = 0
        self.seconds = 0.0
        self.skipped = 0
        self.skipped_in_a_row = 0
        self.best_score: float | None = None
        self.quarantine = Quarantine(dataset.order, config.max_bad_share, progress.warn)
        self._unlogged: Mapping[str, Any] | None = None
        self._standing_warnings: list[str] = []

    @property
    def exported(self) -> Segmenter:
        """The weights that are validated and exported: the average where one is kept."""
        return self.average.model if self.average else self.model

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
                losses = self._optimise(micro_batches)
                self.step += 1
                self.seconds = time.perf_counter() - began
                # What a skipped step found is not finite, and would spoil the means of its log line.
                log.add([] if self.skipped_in_a_row else losses, self.config.batch_size * len(self.method.streams))
                last = self.step == self.config.steps
                if self.step % self.config.log_every == 0 or last:
                    self._report(log)
                if self.step % self.config.validate_every == 0 or last:
                    self._validate(log)
                    self.seconds = time.perf_counter() - began
                stopping = self._agree(stop.requested) and not last
                if self.step % self.config.checkpoint_every == 0 or stopping or last:
                    self._save(log)
                if stopping:
                    raise InterruptedRunError(
                        f"stopped after step {self.step} of {self.config.steps}; the same command with --resume goes on from there"
                    )
        self._export()
        self.fabric.barrier()  # no process goes on before the model is there
        return FitResult(self.step, self.seconds, self.best_score, self.skipped, self.quarantine.tiles)

    def resume(self) -> None:
        """Go back to the newest checkpoint of the run; without one it begins anew."""
        if not self.run.checkpoint.is_file():
            return
        state = load_checkpoint(self.run.checkpoint)
        self.trained.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        same_layout(self.optimiser.optimizer)
        self.rate.load_state_dict(state["rate"])
        self.method.load_state_dict(state["method"])
        if self.average:
            self.average.model.load_state_dict(state["average"])
        self.step, self.seconds, self.skipped = state["step"], state["seconds"], state["skipped"]
        self.skipped_in_a_row, self.best_score = state["skipped_in_a_row"], state["best_score"]
        self.quarantine.by_source = state["bad_tiles"]
        self._unlogged = state["log"]
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        if self.fabric.is_global_zero:
            self.run.rewind(self.step)

    def _batches(self) -> Iterator[list[dict[str, RawBatch]]]:
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
        group: list[dict[str, RawBatch]] = []
        for item in plain_errors(loader):
            group.append(item)
            if len(group) == self.config.accumulate:
                yield group
                group = []

    def _optimise(self, micro_batches: list[dict[str, RawBatch]]) -> list[Losses]:
        """One optimiser step: weak views, losses, gradients, clipping, update."""
        config, sensor = self.config, self.model.sensor
        # Whatever a network draws (dropout, stochastic depth) is a function of seed, step and rank, like all else.
        torch.manual_seed(seeds.derive(config.seed, "step", self.step, self.fabric.global_rank))
        rate = self.rate.at(self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["rate_share"]
        self.trained.train()
        self.freezing.before(self.step)
        before = [buffer.clone() for buffer in self.trained.buffers()]
        found = []
        for place, raw in enumerate(micro_batches):
            self.quarantine.note(raw)
            batches = {stream: to_batch(item, sensor, self.weak.size, self.fabric.device) for stream, item in raw.items()}
            more = place + 1 < len(micro_batches)
            with self.fabric.no_backward_sync(self.student, enabled=more and self.fabric.world_size > 1):
                losses = self._losses(batches)
                # Passes computed again in the backward pass go through the batch norms a second time.
                statistics = [buffer.clone() for buffer in self.trained.buffers()] if config.checkpointing else None
                self.fabric.backward(losses.total / len(micro_batches))
                if statistics is not None:
                    self._put_back(statistics)
            found.append(losses)
        self.freezing.after(self.step)
        self._update(found, before)
        return found

    def _losses(self, batches: Mapping[str, Batch]) -> Losses:
        try:
            return self.method.step(batches, self.step)
        except ValueError as error:
            if not isinstance(error, SmallBatchError) and "more than 1 value per channel" not in str(error):
                raise
            raise ConfigError(
                "one tile a pass is too few for the batch norm of this decoder; "
                "make loop.batch_size at least twice loop.accumulate times loop.devices"
            ) from None

    def _update(self, found: list[Losses], before: list[Tensor]) -> None:
        """Move the weights; if a loss or the gradient is not finite, leave them and put the batch statistics back.

        Raises:
            RunError: steps that are not finite, or unreadable tiles on any process, are too many; all processes raise it together.
        """
        norm = self._clip()
        total = torch.stack([losses.total.detach() for losses in found]).sum()
        told = torch.stack([total.detach() + norm, total.new_tensor(float(self.quarantine.problem is not None))])
        magnitude, stopped = mean_over_ranks(told).tolist()
        if stopped:
            raise RunError(self.quarantine.problem or "stopped, because another process met too many unreadable tiles; see its message")
        finite = math.isfinite(magnitude)
        # Under 16-bit precision the gradient scaler must see overflowed gradients too: it skips the step and lowers its scale.
        if finite or self.config.precision == "16-mixed":
            self.optimiser.step()
        self.optimiser.zero_grad()
        if finite:
            self.skipped_in_a_row = 0
            if self.average:
                self.average.update(self.model, self.step)
            return
        self._put_back(before)
        self.skipped += 1
        self.skipped_in_a_row += 1
        if self.skipped_in_a_row > self.config.max_skipped_steps:
            raise RunError(
                f"step {self.step}: loss or gradient not finite {self.skipped_in_a_row} times in a row (loss {float(total):g}); "
                "lower loop.learning_rate, set loop.clip_norm=1, or run tilth catalog check"
            )

    def _clip(self) -> Tensor:
        """Clip the gradient where it is asked for; returns its norm before."""
        if self.config.clip_norm is None and self.config.precision != "16-mixed":
            # Clipping at infinity would write all gradients once more, unchanged; only a gradient scaler needs it, to unscale them.
            return get_total_norm([weight.grad for weight in self.trained.parameters() if weight.grad is not None])
        norm = self.fabric.clip_gradients(
            self.student, self.optimiser, max_norm=self.config.clip_norm or math.inf, error_if_nonfinite=False
        )
        assert norm is not None, "clipping by norm gives the norm"
        return norm

    def _put_back(self, buffers: list[Tensor]) -> None:
        """Give the network's buffers earlier values."""
        for buffer, value in zip(self.trained.buffers(), buffers, strict=True):
            buffer.copy_(value)

    def _report(self, log: MetricLog) -> None:
        """Write one log line, show it, and pass on what the method finds wrong."""
        extra = {"learning_rate": self.rate.at(self.step - 1), "skipped": self.skipped, "bad_tiles": len(self.quarantine.tiles)}
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
        scores: Mapping[str, float] = self.validate(self.exported) if self.fabric.is_global_zero else {}
        kind = self.method.score
        score, loss = map(float, self.fabric.broadcast([scores.get(name, math.nan) for name in (kind.name, "validation_loss")]))
        if self.fabric.is_global_zero:
            log.write(self.step, "val", self.seconds, scores)
            self.progress.show(self.step, scores)
        if not math.isfinite(score):
            return
        self.rate.observe(-loss if self.config.schedule.watch == "loss" else score if kind.higher_is_better else -score)
        if kind.better(score, self.best_score):
            self.best_score = score
            if self.fabric.is_global_zero and self.config.export == "best":
                self.method.export(self.exported, self.run.best)

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
        state = {
            "model": self.trained.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "rate": self.rate.state_dict(),
            "method": self.method.state_dict(),
            "average": self.average.model.state_dict() if self.average else None,
            "precision": self.fabric.strategy.precision.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "skipped": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
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
            self.method.export(self.exported, self.run.model)
        self.run.finish(
            {
                "steps": self.step,
                "seconds": self.seconds,
                f"best_{self.method.score.name}": self.best_score,
                "skipped_steps": self.skipped,
                "bad_tiles": self.quarantine.tiles,
                "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            }
        )
