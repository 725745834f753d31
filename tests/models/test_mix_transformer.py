"""SegFormer's own encoders, which are not in timm."""

from __future__ import annotations

import pytest
import torch

from tilth.errors import ConfigError
from tilth.models.config import NetworkConfig
from tilth.models.networks import build_network, is_encoder, resolve


@pytest.mark.parametrize("bands", [1, 4])
def test_encoders_of_segformer_take_any_bands_and_odd_sizes(bands):
    network = build_network(NetworkConfig(encoder="mit_b0", decoder="segformer"), bands, 5)
    logits = network(torch.zeros(2, bands, 45, 70))
    assert logits.shape == (2, 5, 45, 70)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in network.encoder.parameters())


@pytest.mark.slow
def test_segformer_of_the_recipe_is_as_large_as_published():
    """Table 4 of ddpm.md section 12: 64.1 million parameters, 12 classes."""
    config = NetworkConfig(encoder="mit_b4", decoder="segformer", options={"decoder_segmentation_channels": 768})
    network = build_network(config, 3, 12)
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(64.1e6, rel=2e-3)


def test_names_are_known_beside_those_of_timm():
    assert is_encoder("mit_b5")
    assert is_encoder("resnet18.a1_in1k")
    assert not is_encoder("mit_b6")
    with pytest.raises(ConfigError, match="did you mean 'mit_b5'"):
        resolve(NetworkConfig(encoder="mit_b6"))
