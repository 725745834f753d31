"""One of two processes with unequal batches: forward, gradients and statistics of synchronised batch norms."""

from __future__ import annotations

import sys

import torch
import torch.distributed as distributed
from timm.layers.norm_act import BatchNormAct2d
from torch import nn

from tilth.training.distributed import mean_over_ranks, synchronise_batch_norm


def network(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), kind(6), nn.Conv2d(6, 4, 3), kind(4)).double()


def batch() -> torch.Tensor:
    return torch.randn(6, 3, 9, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def compare(rank: int, port: str, results: str) -> None:
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    found = {"count": mean_over_ranks(torch.tensor(2**25 + 1 + 2 * rank))}
    own = batch()[:2] if rank == 0 else batch()[2:]
    for name, kind in (("plain", nn.BatchNorm2d), ("act", BatchNormAct2d)):
        model = network(kind)
        synchronise_batch_norm(model, torch.device("cpu"))
        for _ in range(2):
            model.zero_grad()
            output = model(own)
            output.square().mul(torch.linspace(0, 1, 4, dtype=torch.float64)[:, None, None]).sum().backward()
        for parameter in model.parameters():
            distributed.all_reduce(parameter.grad)
        found[name] = {"output": output.detach(), "grad": [item.grad for item in model.parameters()], "state": model.state_dict()}
        sixteen = network(kind).float()
        synchronise_batch_norm(sixteen, torch.device("cpu"))
        with torch.autocast("cpu", torch.bfloat16):
            found[name]["sixteen"] = sixteen(own.float() + 7).float().detach()
    torch.save(found, f"{results}/{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    compare(int(sys.argv[1]), sys.argv[2], sys.argv[3])
