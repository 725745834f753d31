"""DeepLabV3+ of S5 computes what the published network computes, and reads and writes its files (oracle: published modules)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from support.s5_parity import check_checkpointing, check_files, check_manifest, compare, published
from tilth.errors import ConfigError, UsageError
from tilth.models import create
from tilth.models.weights.layouts.s5_deeplab import LAYOUTS

(LAYOUT,) = LAYOUTS
TINY = {"layers": [1, 1, 1, 1], "planes": [4, 4, 8, 8], "decoder_channels": 8, "fine_channels": 4}


def tiny(seed: int = 1, **options: object) -> nn.Module:
    return create("deeplabv3plus_resnet50", num_classes=3, seed=seed, **(TINY | options))


def filled() -> nn.Module:
    """A tiny network in which every block has something to say."""
    network = tiny()
    torch.manual_seed(2)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim == 1 and name.endswith("weight"):
                parameter.uniform_(0.5, 1.5)
    return network.eval()


def test_resnet_101_computes_every_stage_as_published() -> None:
    compare(published("deeplabv3plus_resnet101", LAYOUT, recipe="B"), "resnet101_128_c16", maps="c{}")


def test_names_shapes_and_counts_are_published_ones() -> None:
    with torch.device("meta"):
        network = create("deeplabv3plus_resnet101")
    check_manifest(network, LAYOUT, "deeplabv3plus_resnet101")


def test_resnet_50_differs_by_the_layers_of_its_third_stage() -> None:
    with torch.device("meta"):
        small, large = create("deeplabv3plus_resnet50").state_dict(), create("deeplabv3plus_resnet101").state_dict()
    assert {name for name in large if name not in small} == {
        name for name in large if any(name.startswith(f"encoder.body.layer3.{block}.") for block in range(6, 23))
    }
    assert all(tensor.shape == large[name].shape for name, tensor in small.items())


def test_files_make_another_network_the_same() -> None:
    check_files(filled(), tiny(seed=4), LAYOUT, "backbone.")


def test_an_encoder_that_was_trained_on_pictures_is_taken_without_its_class_layer() -> None:
    network = tiny()
    assert LAYOUT.export is not None
    file = LAYOUT.export(network.get_submodule("encoder")) | {"fc.weight": torch.zeros(10, 32), "fc.bias": torch.zeros(10)}
    converted = LAYOUT.convert(file, network, None)
    assert set(converted.dropped) == {"fc.weight", "fc.bias"}
    assert not converted.unexpected


def test_only_the_last_stage_is_dilated() -> None:
    with torch.no_grad():
        maps = filled().get_submodule("encoder")(torch.randn(1, 3, 64, 96))
    assert [tuple(found.shape[-2:]) for found in maps] == [(16, 24), (8, 12), (4, 6), (4, 6)]


def test_checkpointing_gives_the_same_gradients_and_counts_no_batch_twice() -> None:
    check_checkpointing(filled(), filled(), torch.randn(2, 3, 48, 64))


def test_checkpointing_goes_with_synchronised_norms_too() -> None:
    kept, again = (nn.SyncBatchNorm.convert_sync_batchnorm(filled()) for _ in range(2))
    norm = again.get_submodule("encoder.body.layer2.0.bn1")
    assert isinstance(norm, nn.SyncBatchNorm)
    before = norm.running_mean.clone()
    check_checkpointing(kept, again, torch.randn(2, 3, 48, 64))
    assert norm.num_batches_tracked == 1
    assert norm.momentum == 0.1
    assert not torch.equal(norm.running_mean, before)


def test_checkpointing_goes_with_norms_that_keep_no_statistics() -> None:
    kept, again = filled(), filled()
    for network in (kept, again):
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.track_running_stats, module.running_mean, module.running_var, module.num_batches_tracked = False, None, None, None
    check_checkpointing(kept, again, torch.randn(2, 3, 48, 64))


@pytest.mark.parametrize("size", [(64, 64), (3, 5), (33, 70), (61, 130), (100, 20)])
def test_images_of_any_size_give_logits_of_that_size(size: tuple[int, int]) -> None:
    with torch.no_grad():
        logits = filled()(torch.randn(1, 3, *size))
    assert logits.shape == (1, 3, *size)
    assert logits.isfinite().all()


def test_a_training_batch_of_one_image_is_refused_in_words() -> None:
    network = filled().train()
    with pytest.raises(UsageError, match="at least two images per batch"):
        network(torch.randn(1, 3, 64, 64))
    assert network(torch.randn(2, 3, 64, 64)).shape == (2, 3, 64, 64)


@pytest.mark.parametrize(("options", "message"), [({"layers": None, "depth": 34}, "depth=34"), ({"layers": [1, 1]}, "has four stages")])
def test_options_that_make_no_sense_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny(**options)
