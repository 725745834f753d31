"""Networks of S5 filled by the recipe, compared with what the published modules computed, and their files with the published manifests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from support.official_s5 import S5, arrays, assert_near, assert_statistics, manifest, normal, official_tensors
from support.official_s5 import read_json as read
from tilth.models import create
from tilth.models.network import SegmentationNetwork
from tilth.models.vision_transformers.relative import relative_index
from tilth.models.weights.layout import Layout


def published(name: str, layout: Layout, recipe: str = "A") -> SegmentationNetwork:
    """A network of one task for 128 pixels with the recipe's values, brought in through its layout."""
    network = published_module(name, layout, recipe)
    assert isinstance(network, SegmentationNetwork)
    return network


def published_module(name: str, layout: Layout, recipe: str = "A") -> nn.Module:
    """The same for a network of any kind."""
    with torch.device("meta"):
        network = create(name, image_size=128)
    assert layout.export is not None
    theirs = official_tensors({key: tuple(tensor.shape) for key, tensor in layout.export(network).items()}, recipe)
    converted = layout.convert(theirs, network, None)
    assert not converted.unexpected
    network.load_state_dict(converted.tensors, assign=True)
    for module in network.modules():
        index = getattr(module, "relative_index", None)
        if isinstance(index, Tensor):
            module.relative_index = relative_index(round(len(index) ** 0.5))
    return network.eval()


def compare(network: SegmentationNetwork, fixture: str, *, maps: str = "neck{}", largest: float = 1e-4, thin: int = 1) -> None:
    """Compare every stage with a fixture.

    Args:
        network: in evaluation mode.
        fixture: file name without ending.
        maps: names of the encoder's maps.
        largest: limit of differences of logits.
        thin: step at which the low-resolution logits are stored.
    """
    expected, statistics = arrays(S5 / "forward" / f"{fixture}.npz"), read(S5 / "forward" / f"{fixture}.json")
    image = normal(statistics["input_key"], tuple(statistics["input_shape"])) * np.float32(statistics.get("input_scale", 1.0))
    with torch.no_grad():
        features = network.encode(image)
        decoded = network.decoder(features)
        head: Any = network.segmentation_head
        found = {maps.format(index + ("neck" not in maps)): feature for index, feature in enumerate(features)}
        found |= {"decoder": decoded, "lowres_logits": head.convolution(decoded), "logits": network(image)}
        if "aspp" in expected:
            decoder: Any = network.decoder
            found["aspp"] = decoder.pyramid(features[-1])
    logits = found["logits"][0]
    assert_near(logits[:, 3::7, 5::7], expected["logits_sub"], largest, 1e-5)
    if "argmax" in expected:
        assert (logits.argmax(dim=0).numpy() == expected["argmax"]).mean() >= 0.999
    if "lowres_logits" in expected:
        assert_near(found["lowres_logits"][0, :, ::thin, ::thin], expected["lowres_logits"], largest, 1e-5)
    stored = {stage: tensor for stage, tensor in found.items() if f"{stage}_channels" in expected}
    assert set(stored) == {name.removesuffix("_channels") for name in expected if name.endswith("_channels")}
    for stage, tensor in stored.items():
        part = tensor[0, torch.from_numpy(expected[f"{stage}_channels"])]
        part = part[:, 1::3, 2::3] if part.shape[-1] > 16 else part
        assert_near(part, expected[stage], 1e-4 if stage == "decoder" else 2e-4, 1e-5)
    for stage, tensor in found.items():
        if stage in statistics:
            assert_statistics(tensor, statistics[stage])


def check_manifest(network: nn.Module, layout: Layout, name: str) -> None:
    """Names, shapes and counts of a network on the meta device are those of a manifest, both ways; index tables included."""
    path = S5 / "manifests" / f"{name}.json"
    facts, wanted = read(path), manifest(path)
    assert layout.export is not None
    assert {key: tuple(tensor.shape) for key, tensor in layout.export(network).items()} == wanted
    converted = layout.convert({key: torch.empty(shape, device="meta") for key, shape in wanted.items()}, network, None)
    assert not converted.unexpected
    assert all("relative_position_index" in key for key in converted.dropped)
    ours = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    assert {key: tuple(tensor.shape) for key, tensor in converted.tensors.items()} == ours
    assert sum(parameter.numel() for parameter in network.parameters()) == facts["parameters"]
    encoder = network.get_submodule("encoder")
    assert sum(parameter.numel() for parameter in encoder.parameters()) == facts["encoder_parameters"]
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert len(frozen) == len(facts["never_used_in_forward"])


def check_files(first: nn.Module, second: nn.Module, layout: Layout, encoder: str) -> None:
    """Files written from one network make another one the same: whole, wrapped, or of the encoder alone."""
    assert layout.export is not None
    whole = layout.export(first)
    alone = layout.export(first.get_submodule("encoder"))
    assert {f"{encoder}{key}" for key in alone} == {key for key in whole if key.startswith(encoder)}
    for file in (whole, {f"module.{key}": tensor for key, tensor in whole.items()}):
        _load(second, layout, file)
        assert _same(first.state_dict(), second.state_dict())
        _scramble(second)
    for file in (
        alone,
        {f"backbone.{key}": tensor for key, tensor in alone.items()},
        {f"encoder.{key}": tensor for key, tensor in alone.items()},
    ):
        missing = _load(second, layout, file)
        assert missing == {key for key in second.state_dict() if not key.startswith("encoder.")}
        assert _same(first.get_submodule("encoder").state_dict(), second.get_submodule("encoder").state_dict())
        _scramble(second)
    _load(second.get_submodule("encoder"), layout, alone)
    assert _same(first.get_submodule("encoder").state_dict(), second.get_submodule("encoder").state_dict())


def _load(network: nn.Module, layout: Layout, file: Mapping[str, Tensor]) -> set[str]:
    assert layout.recognises({key: tuple(tensor.shape) for key, tensor in file.items()})
    assert layout.fits(network)
    converted = layout.convert(dict(file), network, None)
    assert not converted.unexpected
    network.load_state_dict(converted.tensors, strict=False)
    return set(network.state_dict()) - set(converted.tensors)


def _scramble(network: nn.Module) -> None:
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.add_(1)


def _same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(tensor, second[key]) for key, tensor in first.items())


def check_checkpointing(kept: nn.Module, again: nn.Module, image: Tensor) -> None:
    """A network that computes activations again gets the gradients, and the buffers, of one that keeps them."""
    again.load_state_dict(kept.state_dict())
    for network, on in ((kept, False), (again, True)):
        network.get_submodule("encoder").checkpointing = on
        torch.manual_seed(3)
        network.train()(image).square().mean().backward()
    for (name, parameter), other in zip(kept.named_parameters(), again.parameters(), strict=True):
        if not parameter.requires_grad:
            continue
        assert parameter.grad is not None, f"{name} gets no gradient"
        assert other.grad is not None
        torch.testing.assert_close(other.grad, parameter.grad, rtol=1e-4, atol=1e-6)
    for buffer, other_buffer in zip(kept.buffers(), again.buffers(), strict=True):
        torch.testing.assert_close(other_buffer, buffer)
