"""Every network by name, small: the code paths of the published sizes with few and narrow layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tilth.models.by_name import create
from tilth.models.named import NAMES

_VIT = {"width": 24, "depth": 4, "heads": 2, "decoder_channels": 8}
_FUSION = {"encoder": "resnet18", "decoder_channels": (16, 8, 8, 8, 4)}
_TRANSFER_VIT = {"width": 32, "depth": 4, "heads": 2, "decoder_channels": 8}
_DEEPLAB = {"layers": (1, 1, 2, 1), "planes": (8, 8, 8, 8), "decoder_channels": 8, "fine_channels": 4}
_SR3 = {"width": 8, "norm_groups": 4, "res_blocks": 1}

OPTIONS: dict[str, dict[str, Any]] = {
    **{f"upernet_vit_{size}": _VIT for size in "blh"},
    # Full attention in every second layer: by default it would be in every one of these four.
    **{f"upernet_vit_{size}_rvsa": _VIT | {"interval": 2} for size in "bl"},
    **{f"upernet_vit_{size}_moe": _VIT | {"part": 8, "tasks": {"vaihingen": 5, "loveda": 7}} for size in "blh"},
    "upernet_swin_t": {"width": 6, "depths": (1, 1, 2, 1), "heads": (1, 2, 3, 6), "decoder_channels": 8},
    **{f"deeplabv3plus_resnet{depth}": _DEEPLAB for depth in (50, 101)},
    **{f"cromss_{fusion}_resnet50": _FUSION for fusion in ("mid2", "late2", "mid3", "late3")},
    **{f"cromss_{decoder}_resnet50": {"encoder": "resnet18"} for decoder in ("unet", "pspnet", "fpn", "deeplabv3plus")},
    **{f"cromss_upernet_{kind}_l": _TRANSFER_VIT for kind in ("vit", "satmae", "dofa")},
    "ddpm_segmentor": {"unet_options": _SR3},
    "ddpm_sr3_64": _SR3,
    "ddpm_sr3_128": _SR3,
    "ddpm_guided_256": {"width": 8, "norm_groups": 4, "res_blocks": 1, "head_width": 8},
}

IMAGE_SIZE = 64
"""Side that position tables of the small networks are made for."""


def tiny_network(name: str, **options: Any) -> nn.Module:
    """A small network, in evaluation mode, always the same; where training begins with zeros there are small numbers."""
    return stirred(create(name, num_classes=5, image_size=IMAGE_SIZE, seed=0, **(OPTIONS[name] | options))).eval()


def stirred(network: nn.Module) -> nn.Module:
    """Add a little to every weight and statistic: zeros that training starts from would hide what lies before them."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=draw)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
                module.running_mean += 0.05 * torch.randn(module.running_mean.shape, generator=draw)
    return network


def images_for(name: str, height: int, width: int, batch: int = 1, bands: int | tuple[int, ...] | None = None) -> tuple[Tensor, ...]:
    """Noise: what a network of this name is called with, but for the task of multi-task networks."""
    draw = torch.Generator().manual_seed(2)
    counts = NAMES[name].in_channels if bands is None else bands
    images = tuple(torch.randn(batch, count, height, width, generator=draw) for count in ((counts,) if isinstance(counts, int) else counts))
    if NAMES[name].kind != "diffusion":
        return images
    # Times of the guided type are steps, the last of them first; SR3 is told how much of the image is left.
    return (*images, torch.linspace(999.0, 250.0, batch) if "guided" in name else torch.linspace(0.3, 0.9, batch))


def outputs(name: str, network: nn.Module, images: tuple[Tensor, ...]) -> list[Tensor]:
    """Everything that a network computes: of all tasks, or of all branches."""
    if NAMES[name].kind == "multi-task":
        return [network(*images, task) for task in network.tasks]
    found = network(*images)
    return list(found) if isinstance(found, tuple) else [found]


class OneTask(nn.Module):
    """A multi-task network with its task decided, so that it takes tensors alone."""

    def __init__(self, network: nn.Module, task: str) -> None:
        super().__init__()
        self.network, self.task = network, task

    def forward(self, image: Tensor) -> Tensor:
        return self.network(image, self.task)


def of_tensors(name: str, network: nn.Module) -> nn.Module:
    """The network as a function of tensors."""
    return OneTask(network, list(network.tasks)[-1]) if NAMES[name].kind == "multi-task" else network
