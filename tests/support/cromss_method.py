"""Recorded numbers of the CromSS method, and small methods to try."""

from __future__ import annotations

import json
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from support.official_cromss import FIXTURES
from support.training_sample import NETWORK
from tilth.batch import Batch
from tilth.classes import ClassScheme, LandClass
from tilth.methods.base import build_method
from tilth.methods.cromss.method import Cromss
from tilth.methods.cromss.settings import CromssConfig
from tilth.models.config import FusionConfig, NetworkConfig
from tilth.models.segmenter import build_segmenter
from tilth.sensors import Sensor, get_sensor

CLASSES = 9
TWO = NETWORK.model_copy(update={"fusion": FusionConfig()})
BOTH = get_sensor("s1+s2_l2a_9")


def numbers(name: str) -> dict[str, Any]:
    return dict(np.load(FIXTURES / f"{name}.npz"))


def tensors(name: str) -> dict[str, Tensor]:
    return {key: torch.from_numpy(value) for key, value in numbers(name).items() if value.dtype.kind in "biuf"}


def log_probabilities(gradient: bool = False) -> tuple[list[Tensor], list[Tensor]]:
    """Logits of the two modalities, and their log-softmax."""
    stored = tensors("confidence")
    logits = [stored[f"logits{place}"].clone().requires_grad_(gradient) for place in (1, 2)]
    return logits, [item.log_softmax(1) for item in logits]


def scenarios() -> dict[str, Any]:
    return cast("dict[str, Any]", json.loads(numbers("losses")["scenarios"].tobytes()))


def settings_of(config: dict[str, Any]) -> CromssConfig:
    """Settings that stand for those of the published program."""
    shares = [*config["lsf"], 0, 0]
    return CromssConfig(
        selection="class" if config["ss"] else "off",
        selected_share=config["ss_prop"],
        rare_class="drop",
        ramp=config["ss_rm_func"],
        ramp_passes=config["ss_nep"],
        confidence=config["ss_ctype"],
        terms=config["loss_type"],
        consistency=config["cl_type"],
        consistency_weight=config["cl_weight"],
        prior_share=shares[0],
        uniform_share=shares[1],
    )


def scheme(count: int = CLASSES) -> ClassScheme:
    return ClassScheme(name="some", classes=tuple(LandClass(name=f"c{index}", colour=(index, 0, 0)) for index in range(count)))


def make_method(
    settings: dict[str, Any] | None = None, network: NetworkConfig = TWO, sensor: Sensor = BOTH, classes: int = CLASSES
) -> Cromss:
    method = build_method("cromss", settings or {}, build_segmenter(network, sensor, scheme(classes)).train())
    assert isinstance(method, Cromss)
    method.passes = float
    return method


def make_batch(bands: int = len(BOTH), size: int = 32, count: int = 2, classes: int = CLASSES, seed: int = 0) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    label = torch.randint(0, classes, (count, size // 8 + 1, size // 8 + 1), generator=draw)
    label = label.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :size, :size].contiguous()
    return Batch(
        image=torch.randn(count, bands, size, size, generator=draw),
        mask=label,
        valid=torch.ones_like(label, dtype=torch.bool),
        tile_id=[str(place) for place in range(count)],
        draw=list(range(count)),
    )
