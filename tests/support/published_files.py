"""Small files in every layout that somebody publishes, and networks by name that are small enough for them.

What a page says stays literal: ``upernet_vit_b`` is, while the page runs, a network of the same code with few and narrow layers.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn

from support import tiny_networks
from tilth.models import create, official_state_dict
from tilth.models.named import NAMES

# Every second layer with rotated windows: all of them attend everywhere where there are only four.
OPTIONS = tiny_networks.OPTIONS | {
    name: tiny_networks.OPTIONS[name] | {"interval": 2} for name in ("upernet_vit_b_rvsa", "upernet_vit_l_rvsa")
}
WIDTH, DEPTH, HEADS = 24, 4, 2
SIDE = 64
"""Side in pixels that position tables in the files are made for."""


@contextmanager
def small_networks() -> Iterator[None]:
    """Let every network by name be small inside the block."""
    kept = dict(NAMES)
    for name, named in kept.items():
        NAMES[name] = dataclasses.replace(named, options=named.options | OPTIONS[name])
    try:
        yield
    finally:
        NAMES.update(kept)


@contextmanager
def set_up(folder: Path) -> Iterator[None]:
    """What a page needs that imports published files: small networks, and the files in its folder."""
    with small_networks():
        lay_down(folder)
        yield


def lay_down(folder: Path) -> None:
    """Write every file, with small networks in force."""
    for name, tree in files().items():
        torch.save(tree, folder / name)


def files() -> dict[str, Any]:
    """What each file holds, by the name that such files are published under."""
    s5 = official("upernet_vit_b", num_classes=16)
    rvsa = official("upernet_vit_b_rvsa", num_classes=16)
    swin = official("upernet_swin_t", num_classes=16)
    deeplab = official("deeplabv3plus_resnet101", num_classes=16)
    satmae, dofa = official("cromss_upernet_satmae_l", num_classes=1), official("cromss_upernet_dofa_l", num_classes=1)
    fusion = official("cromss_mid2_resnet50", num_classes=9)
    mae = vit() | {"decoder_embed.weight": torch.zeros(2, 2), "decoder_pos_embed": torch.zeros(1, 5, 2), "mask_token": torch.zeros(1, 1, 2)}
    scalemae = vit() | {"fpn.0.weight": torch.zeros(2), "decoder_embed.weight": torch.zeros(2, 2)}
    # A momentum encoder, a student: enough of it to be told from the one that is taken.
    seen, other = resnet(13), {name: tensor for name, tensor in resnet(13, seed=1).items() if not name.startswith("layer4.")}
    # What training programs leave beside the weights: an object of a class of Python.
    settings = argparse.Namespace(lr=1e-4, data_path="somewhere", output_dir=None)
    return {
        "vit_b_s4p_upernet.pth": {"model": prefixed("module.", s5)},
        "vit_b_s4p.pth": {"model": part(s5, "encoder.")},
        "vit_b_moe.pth": {"model": official("upernet_vit_b_moe")},
        "vit_b_rvsa_s4p_upernet.pth": {"model": prefixed("module.", rvsa)},
        "vit-b-rvsa-mtp.pth": {"state_dict": prefixed("backbone.", part(rvsa, "encoder.")), "meta": {"epoch": 80}},
        "swin_t_s4p_upernet.pth": {"model": prefixed("module.", swin)},
        "resnet101_s4p_deeplabv3plus.pth": {"model": prefixed("module.", deeplab)},
        "mae_pretrain_vit_base.pth": {"model": mae, "epoch": 399, "args": settings},
        "scalemae_vit_base.pth": {"model": scalemae, "args": settings},
        "satmae_vit_large.pth": {"model": part(satmae, "encoder."), "args": settings},
        "dofa_vit_large.pth": part(dofa, "encoder."),
        "cromss_mid.ckpt": {"state_dict": prefixed("net.", fusion), "hyper_parameters": {"args": settings}, "epoch": 99},
        "B13_rn50_moco_0099.pth": {
            "state_dict": prefixed("module.encoder_q.", seen) | prefixed("module.encoder_k.", other) | {"module.queue": torch.zeros(2, 4)}
        },
        "B13_rn50_dino_0099.pth": {
            "student": prefixed("module.backbone.", other),
            "teacher": prefixed("backbone.", seen),
            "args": settings,
        },
        "rn50_rda_decur.pth": prefixed("backbone_1.", resnet(2)) | prefixed("backbone_2.", seen),
        "sentinel2_resnet50_satlas.pth": prefixed("backbone.resnet.", resnet(13)) | {"fpn.inner_blocks.0.0.weight": torch.zeros(2)},
        "resnet18_torchvision.pth": resnet(3),
        "vit_tiny_patch16_224_timm.pth": timm.create_model("vit_tiny_patch16_224", num_classes=3).state_dict(),
        "ddpm_cd_gen.pth": official("ddpm_sr3_128"),
        "256x256_diffusion_uncond.pt": official("ddpm_guided_256"),
    }


def official(name: str, **arguments: Any) -> dict[str, Tensor]:
    """A small network's weights under the names of its publisher."""
    return official_state_dict(network(name, **arguments))


def network(name: str, **arguments: Any) -> nn.Module:
    """The small network that a file is made of."""
    return create(name, image_size=SIDE, seed=5, **(OPTIONS[name] | arguments))


def vit() -> dict[str, Tensor]:
    """A vision transformer as MAE, timm and DINO name it."""
    torch.manual_seed(3)
    options = {"img_size": SIDE, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS, "num_classes": 0}
    return dict(timm.create_model("vit_base_patch16_224", **options).state_dict())


def resnet(bands: int, seed: int = 0) -> dict[str, Tensor]:
    """A small ResNet as torchvision names it."""
    torch.manual_seed(seed)
    model = torchvision.models.resnet18(num_classes=4)
    model.conv1 = nn.Conv2d(bands, 64, 7, stride=2, padding=3, bias=False)
    return dict(model.state_dict())


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
