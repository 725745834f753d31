"""The deterministic values of the diffusion fixtures, and the networks that they were made with."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import tilth
from tilth.models.weights.layouts.diffusion import LAYOUTS, PREFIX, SCHEDULE_NAMES

DDPM = Path(__file__).parent.parent / "fixtures" / "ddpm"
LAYOUT = {layout.name: layout for layout in LAYOUTS}

SMALL_SR3: dict[str, Any] = {"width": 32, "norm_groups": 16}
SMALL_GUIDED: dict[str, Any] = {"width": 64, "res_blocks": 1, "head_width": 32}
TINY_SR3: dict[str, Any] = {"width": 32, "norm_groups": 8, "res_blocks": 1, "multipliers": (1, 2), "attention_strides": (2,)}
TINY_GUIDED: dict[str, Any] = {
    "width": 64,
    "res_blocks": 1,
    "multipliers": (1, 2),
    "attention_strides": (2,),
    "head_width": 32,
    "learned_sigma": False,
}
IMPROVED_128: dict[str, Any] = {"width": 128, "attention_strides": (16,), "head_width": None, "heads": 1, "resampling_blocks": False}

PUBLISHED: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "gd256": ("ddpm_guided_256", {}, "manifest_gd256_uncond.json", "state_dict"),
    "iddpm128": ("ddpm_guided_256", IMPROVED_128, "manifest_gd_iddpm128_256.json", "state_dict"),
    "ddpmcd_128": ("ddpm_sr3_128", {}, "manifest_ddpmcd_sr3_128.json", "state_dict"),
    "sr3_64": ("ddpm_sr3_64", {}, "manifest_sr3_64.json", "state_dict"),
    "gd_small": ("ddpm_guided_256", SMALL_GUIDED, "manifest_small.json", "gd_small"),
    "sr3_small": ("ddpm_sr3_64", SMALL_SR3, "manifest_small.json", "sr3_small"),
    "tiny_gd": ("ddpm_guided_256", TINY_GUIDED, "manifest_tiny.json", "tiny_gd"),
    "tiny_sr3": ("ddpm_sr3_64", TINY_SR3, "manifest_tiny.json", "tiny_sr3"),
}
"""Name and options of each network that there is a manifest of, the file, and where in it the shapes are."""


def network_of(name: str, **options: Any) -> nn.Module:
    """Build a network of :data:`PUBLISHED`, with further options."""
    created, fixed, _, _ = PUBLISHED[name]
    return tilth.models.create(created, **{**fixed, **options})


def manifest(name: str) -> dict[str, tuple[int, ...]]:
    """Official names and shapes, in their order."""
    _, _, file, key = PUBLISHED[name]
    return {tensor: tuple(shape) for tensor, shape in json.loads((DDPM / file).read_text())[key].items()}


def value(key: str, shape: tuple[int, ...]) -> Tensor:
    """Value of a tensor of this name; inputs are called ``input:...``."""
    normal = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape, dtype=np.float32)
    if key.startswith("input:"):
        return torch.from_numpy(normal)
    if key.endswith("running_var") or (len(shape) == 1 and key.endswith(".weight")):
        return torch.from_numpy(1 + np.float32(0.1) * np.abs(normal))
    if len(shape) == 1:
        return torch.from_numpy(np.float32(0.1) * normal)
    return torch.from_numpy(normal * np.float32(1 / math.sqrt(math.prod(shape[1:]))))


def official_tensors(name: str) -> dict[str, Tensor]:
    """All tensors of a published network but its schedule, as the recipe fills them, under the manifest's names."""
    found = {key: shape for key, shape in manifest(name).items() if key not in SCHEDULE_NAMES}
    return {key: value(key.removeprefix(PREFIX), shape) for key, shape in found.items()}


def filled(name: str, **options: Any) -> nn.Module:
    """Build a network and load the recipe's values through its layout."""
    with torch.device("meta"):
        network = network_of(name, **options)
    fill(network)
    return network


def fill(network: nn.Module) -> None:
    """Give every tensor the recipe's value, by its official name; zero-initialised ones, too."""
    layout = LAYOUT[network.layout]
    shapes = {key: tuple(tensor.shape) for key, tensor in layout.export(network).items() if key not in SCHEDULE_NAMES}
    stored = {key: value(key.removeprefix(PREFIX), shape) for key, shape in shapes.items()}
    network.load_state_dict(layout.convert(stored, network, None).tensors, assign=True)
    network.requires_grad_()


def arrays(file: str) -> dict[str, NDArray[Any]]:
    """All arrays of one of the fixtures."""
    with np.load(DDPM / file) as found:
        return {name: found[name] for name in found.files}
