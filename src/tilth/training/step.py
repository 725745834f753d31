"""One optimiser step after another: weak views, losses, gradients, clipping, update."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from tilth import seeds
from tilth.augment.config import WeakConfig
from tilth.batch import Batch
from tilth.errors import ConfigError, RunError, SmallBatchError
from tilth.methods.base import Losses, Method
from tilth.models.network import set_checkpointing
from tilth.models.segmenter import Segmenter
from tilth.training.average import Average
from tilth.training.config import LoopConfig
from tilth.training.distributed import mean_over_ranks, synchronise_batch_norm
from tilth.training.freezing import Freezing
from tilth.training.optimiser import LearningRate, build_optimiser, same_layout
from tilth.training.quarantine import Quarantine
from tilth.training.streams import AnyRaw, to_batch


class Stepper:
    """Moves the weights of a method, and keeps all that depends on the steps before: optimiser, rate, average, skipped steps.

    Attributes:
        model: what is trained to be used.
        trained: what is optimised: the model, or a module around it.
        student: the same as the method calls it: compiled, and wrapped for devices and precision.
        optimiser: with one group for each learning rate and decay.
        rate: learning rate of every step.
        freezing: what does not learn.
        average: of the weights; None where none is kept.
        skipped: steps skipped for non-finite losses or gradients.
        skipped_in_a_row: of these the last ones without another in between.
    """

    def __init__(self, method: Method, config: LoopConfig, weak: WeakConfig, fabric: Fabric, quarantine: Quarantine) -> None:
        """Lay the network out, move it to its device, and make optimiser and student.

        Args:
            method: gets its student and mixed precision.
            config: how fast and on what to train.
            weak: crop of every tile.
            fabric: devices, precision, processes.
            quarantine: is told what every batch met.
        """
        self.method, self.config, self.weak, self.fabric, self.quarantine = method, config, weak, fabric, quarantine
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
        self.skipped = 0
        self.skipped_in_a_row = 0

    @property
    def exported(self) -> Segmenter:
        """The weights that are validated and exported: the average where one is kept."""
        return self.average.model if self.average else self.model

    def take(self, step: int, micro_batches: list[dict[str, AnyRaw]]) -> list[Losses]:
        """Do one optimiser step.

        Args:
            step: its number, from 0.
            micro_batches: what it learns from, one pass each.

        Returns:
            What each pass found.

        Raises:
            ConfigError: one tile a pass is too few for the network.
            RunError: as :meth:`update`.
        """
        config, sensor = self.config, self.model.sensor
        # Whatever a network draws (dropout, stochastic depth) is a function of seed, step and rank, like all else.
        torch.manual_seed(seeds.derive(config.seed, "step", step, self.fabric.global_rank))
        rate = self.rate.at(step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["rate_share"]
        self.trained.train()
        self.freezing.before(step)
        before = [buffer.clone() for buffer in self.trained.buffers()]
        found = []
        for place, raw in enumerate(micro_batches):
            self.quarantine.note(raw)
            batches = {stream: to_batch(item, sensor, self.weak.size, self.fabric.device) for stream, item in raw.items()}
            more = place + 1 < len(micro_batches)
            with self.fabric.no_backward_sync(self.student, enabled=more and self.fabric.world_size > 1):
                losses = self.losses(step, batches)
                # Passes computed again in the backward pass go through the batch norms a second time.
                statistics = [buffer.clone() for buffer in self.trained.buffers()] if config.checkpointing else None
                self.fabric.backward(losses.total / len(micro_batches))
                if statistics is not None:
                    self._put_back(statistics)
            found.append(losses)
        self.freezing.after(step)
        self.update(step, found, before)
        return found

    def losses(self, step: int, batches: Mapping[str, Batch]) -> Losses:
        """Compute the losses of one pass.

        Raises:
            ConfigError: one tile a pass is too few for the network.
        """
        try:
            return self.method.step(batches, step)
        except ValueError as error:
            if not isinstance(error, SmallBatchError) and "more than 1 value per channel" not in str(error):
                raise
            raise ConfigError(
                "one tile a pass is too few for the batch norm of this decoder; "
                "make loop.batch_size at least twice loop.accumulate times loop.devices"
            ) from None

    def update(self, step: int, found: list[Losses], before: list[Tensor]) -> None:
        """Move the weights; if a loss or the gradient is not finite, leave them and put the batch statistics back.

        Args:
            step: its number, from 0.
            found: losses of all passes, whose gradients are there.
            before: the network's buffers as they were before the step.

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
                self.average.update(self.model, step)
            return
        self._put_back(before)
        self.skipped += 1
        self.skipped_in_a_row += 1
        if self.skipped_in_a_row > self.config.max_skipped_steps:
            raise RunError(
                f"step {step}: loss or gradient not finite {self.skipped_in_a_row} times in a row (loss {float(total):g}); "
                "lower loop.learning_rate, set loop.clip_norm=1, or run tilth catalog check"
            )

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {
            "model": self.trained.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "rate": self.rate.state_dict(),
            "average": self.average.model.state_dict() if self.average else None,
            "precision": self.fabric.strategy.precision.state_dict(),
            "skipped": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave; other entries are not looked at."""
        self.trained.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        same_layout(self.optimiser.optimizer)
        self.rate.load_state_dict(state["rate"])
        if self.average:
            self.average.model.load_state_dict(state["average"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.skipped, self.skipped_in_a_row = state["skipped"], state["skipped_in_a_row"]

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
