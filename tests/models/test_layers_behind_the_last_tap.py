"""Layers that no map needs never run, so they must not train: distributed training would wait for their gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from support.tiny_networks import OPTIONS, images_for, outputs
from tilth.models import create
from tilth.models.named import NAMES

TRANSFORMERS = [name for name in NAMES if name.startswith(("upernet_vit_b", "cromss_upernet_"))]


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_every_parameter_that_trains_gets_a_gradient_and_the_others_are_those_behind(name: str) -> None:
    options: dict[str, Any] = OPTIONS[name] | {"depth": 6, "taps": [0, 1, 2, 3], "drop_path": 0.0}
    network = create(name, num_classes=5, image_size=64, seed=0, **options).train()
    frozen = {key for key, parameter in network.named_parameters() if key.startswith("encoder.blocks.") and not parameter.requires_grad}
    assert frozen == {key for key, _ in network.named_parameters() if key.startswith(("encoder.blocks.4.", "encoder.blocks.5."))}
    torch.stack([found.square().mean() for found in outputs(name, network, images_for(name, 64, 64, batch=2))]).sum().backward()
    assert [key for key, parameter in network.named_parameters() if (parameter.grad is not None) != parameter.requires_grad] == []
