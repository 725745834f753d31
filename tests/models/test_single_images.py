"""Batch norm has no statistics of one pixel of one image: every network says so in training, and only there."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from support.tiny_networks import images_for, outputs, tiny_network
from tilth.errors import UsageError
from tilth.models.config import NetworkConfig
from tilth.models.named import NAMES
from tilth.models.network import SegmentationNetwork, with_statistics
from tilth.models.networks import build_network

SIDES = {
    # Of 64 pixels, the pools of DeepLabV3+ and UperNet are one pixel; of 32, the deepest map of any ResNet.
    **{name: 64 for name in NAMES if "deeplab" in name or name.startswith("upernet")},
    **{name: 32 for name in NAMES if name.startswith("cromss") and "resnet" in name and "pspnet" not in name and "deeplab" not in name},
}
ONE_OF_A_KIND = [name for name in SIDES if not any(part in name for part in ("_l", "_h", "101", "mid2", "late3"))]


@pytest.mark.parametrize("name", ONE_OF_A_KIND)
def test_one_image_in_training_is_refused_in_words(name: str) -> None:
    network, side = tiny_network(name).train(), SIDES[name]
    with pytest.raises(
        UsageError, match=r"one value per channel in a training batch of one image; train with at least two images per batch"
    ):
        outputs(name, network, images_for(name, side, side))
    assert all(found.isfinite().all() for found in outputs(name, network, images_for(name, side, side, batch=2)))
    assert all(found.isfinite().all() for found in outputs(name, network.eval(), images_for(name, side, side)))


@pytest.mark.parametrize("decoder", ["unet", "deeplabv3plus", "fpn"])
def test_encoders_of_timm_are_no_exception(decoder: Any) -> None:
    network = build_network(NetworkConfig(encoder="resnet10t", decoder=decoder), 3, 2).train()
    with pytest.raises(UsageError, match="at least two images per batch"):
        network(torch.randn(1, 3, 32, 32))
    with pytest.raises(UsageError, match="at least two images per batch"):
        network.decode(network.encode(torch.randn(1, 3, 32, 32)))


def test_other_complaints_pass_as_they_are() -> None:
    def compute() -> None:
        raise ValueError("something else")

    with pytest.raises(ValueError, match="something else") as caught:
        with_statistics(compute)
    assert not isinstance(caught.value, UsageError)


class Maps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, stride=8), nn.BatchNorm2d(4))

    def forward(self, image: Tensor) -> list[Tensor]:
        return [self.layers(image)]


class Joined(nn.Module):
    def forward(self, features: list[Tensor]) -> Tensor:
        return nn.functional.interpolate(features[0], scale_factor=8)


def small() -> SegmentationNetwork:
    torch.manual_seed(0)
    return SegmentationNetwork(Maps(), Joined(), nn.Conv2d(4, 2, 1), divisor=8)


def test_batch_norm_in_an_encoder_is_heard_too() -> None:
    with pytest.raises(UsageError, match="at least two images per batch"):
        small().train()(torch.randn(1, 3, 8, 8))


def test_compiled_networks_stay_whole() -> None:
    network, image = small().train(), torch.randn(2, 3, 20, 30)
    compiled = torch.compile(copy.deepcopy(network), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(image), network(image))


@pytest.mark.parametrize("strict", [True, False])
def test_exported_networks_stay_whole(strict: bool) -> None:
    network, image = small().eval(), torch.randn(1, 3, 20, 30)
    program = torch.export.export(network, (image,), strict=strict)
    torch.testing.assert_close(program.module()(image), network(image))
