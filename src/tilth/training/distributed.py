"""Several processes: how they start, and what they need besides averaged gradients: common batch statistics and common counts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal, cast

import torch
import torch.distributed as distributed
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.strategies.ddp import DDPStrategy
from timm.layers.norm_act import BatchNormAct2d, convert_sync_batchnorm
from torch import Tensor, nn

from tilth.errors import RunError

if TYPE_CHECKING:
    from tilth.training.config import LoopConfig


def build_fabric(config: LoopConfig) -> Fabric:
    """Start the processes of a run; under torchrun or SLURM, join those that were started there.

    Raises:
        RunError: more devices than there are, an accelerator that is not there, torchrun or srun started another number of processes, or
            srun was forgotten in a batch script.
    """
    wanted = config.devices * config.nodes
    started = _started_processes()
    if started not in (None, wanted):
        # Each of them would take itself for the only one, and all would write into one folder.
        raise RunError(
            f"{started} processes were started, but loop.devices={config.devices} times loop.nodes={config.nodes} is {wanted}; "
            "make them equal"
        )
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true" if config.precision == "32" else config.precision
    # Batch statistics are common to all processes already. Sending buffers round before each pass would change, where a step makes several
    # passes, tensors that the backward pass of the first one needs.
    strategy = DDPStrategy(broadcast_buffers=False) if wanted > 1 else "auto"
    try:
        fabric = Fabric(
            accelerator=config.accelerator, devices=config.devices, num_nodes=config.nodes, strategy=strategy, precision=precision
        )
    except (RuntimeError, ValueError) as error:
        raise RunError(
            f"loop.accelerator={config.accelerator}, loop.devices={config.devices}: {' '.join(str(error).split())[:200]}"
        ) from None
    fabric.launch()
    return fabric


def _started_processes() -> int | None:
    """How many processes torchrun or srun started; None if this one was started by hand."""
    if distributed.is_torchelastic_launched():
        return int(os.environ["WORLD_SIZE"])
    # SLURM_NTASKS alone is also set in the shell of an allocation, where nothing has been started yet.
    if "SLURM_PROCID" in os.environ and SLURMEnvironment.detect():
        tasks = int(os.environ["SLURM_NTASKS"])
        # A batch script is given the numbers of its job, too, but runs once: its process would wait for the others for ever.
        if tasks > 1 and "SLURM_STEP_ID" not in os.environ:
            raise RunError(
                f"this SLURM job has {tasks} tasks, and this process was not started by srun, so it is the only one; put srun before the "
                "command (srun --ntasks 1 --ntasks-per-node 1 for one device)"
            )
        return tasks
    return None


class _SummedOverRanks(torch.autograd.Function):
    """All-reduce sum whose gradient is the all-reduced gradient, on any backend."""

    @staticmethod
    def forward(_context: object, value: Tensor) -> Tensor:
        total = value.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_context: object, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        distributed.all_reduce(total)
        return total


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm with statistics over all processes, for backends that torch's SyncBatchNorm does not serve (gloo on CPUs)."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C, H, W) by the mean and variance of the batches of all processes together."""
        if not self.training or not distributed.is_initialized():
            return nn.BatchNorm2d.forward(self, input)
        # Sums over a batch need 32 bits at least, also where mixed precision brings 16.
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        sums = torch.cat([values.sum((0, 2, 3)), values.new_tensor([values.numel() / values.shape[1]])])
        total = cast("Tensor", _SummedOverRanks.apply(sums))
        mean = total[:-1] / total[-1]
        centred = values - mean[:, None, None]
        squares = cast("Tensor", _SummedOverRanks.apply(centred.square().sum((0, 2, 3))))
        variance = squares / total[-1]
        if (
            self.track_running_stats
            and self.running_mean is not None
            and self.running_var is not None
            and self.num_batches_tracked is not None
        ):
            with torch.no_grad():
                self.num_batches_tracked += 1
                share = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
                self.running_mean.lerp_(mean.detach(), share)
                self.running_var.lerp_((squares / (total[-1] - 1)).detach(), share)
        result = centred * (variance + self.eps).rsqrt()[:, None, None]
        if self.affine:
            result = result * self.weight[:, None, None] + self.bias[:, None, None]
        return result.to(input.dtype)


class SyncedBatchNormAct2d(BatchNormAct2d):
    """The same for timm's batch norm with an activation in it."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise as :class:`SyncedBatchNorm2d`, then drop and activate."""
        return cast("Tensor", self.act(self.drop(SyncedBatchNorm2d.forward(cast("SyncedBatchNorm2d", self), input))))


_SYNCED = {nn.BatchNorm2d: SyncedBatchNorm2d, BatchNormAct2d: SyncedBatchNormAct2d}


def synchronise_batch_norm(model: nn.Module, device: torch.device) -> None:
    """Make every batch norm use statistics over all processes; names and weights stay as they are.

    Raises:
        RunError: a kind of batch norm that cannot be synchronised on this device.
    """
    if device.type == "cuda":
        for name, child in model.named_children():
            setattr(model, name, convert_sync_batchnorm(child))  # type: ignore[no-untyped-call]  # timm is untyped here
        return
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            if type(module) not in _SYNCED:
                raise RunError(
                    f"batch norm {name!r} is a {type(module).__name__}, which cannot be synchronised over CPU processes; use loop.devices=1"
                )
            module.__class__ = _SYNCED[type(module)]


def mean_over_ranks(value: Tensor) -> Tensor:
    """Average a tensor over all processes; the tensor itself when there is only one."""
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return value
    # In double precision, which holds every pixel count.
    total = value.detach().to(torch.float64, copy=True)
    distributed.all_reduce(total)
    return total / distributed.get_world_size()


def gather_over_ranks(value: Tensor) -> Tensor:
    """Stack a tensor that has one shape on all processes: (R, ...) for R processes, without gradient."""
    own = value.detach().contiguous()
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return own.unsqueeze(0)
    parts = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, own)
    return torch.stack(parts)
