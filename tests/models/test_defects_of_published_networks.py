"""Defects of the networks of the official S5 program, B2, B3, B6, B11 and B14 (s5_pretrain.md section 12); ours are free of them."""

from __future__ import annotations

import pytest
import timm
import torch

from support.random_models import random_weights
from support.tiny_networks import OPTIONS
from tilth.models import create, load_weights
from tilth.models.named import NAMES

S5 = [name for name, known in NAMES.items() if "(S5)" in known.summary and known.kind == "segmentation"]


def test_swin_runs_with_the_widths_that_its_decoder_expects():
    """B2: the published Swin-T says that its maps are twice as wide as they are, so it cannot run."""
    network = create("upernet_swin_t", num_classes=4, depths=(1, 1, 1, 1), decoder_channels=16).eval()
    with torch.no_grad():
        maps = network.encoder(torch.randn(1, 3, 64, 64))
        assert [found.shape[1] for found in maps] == [96, 192, 384, 768]
        assert network(torch.randn(1, 3, 64, 64)).shape == (1, 4, 64, 64)


@pytest.mark.parametrize("name", S5)
def test_every_network_that_is_named_can_be_made_and_has_a_decoder(name):
    """B3: of the published names some are never imported, one reads an option that does not exist, and ResNet has no decoder."""
    network = create(name, num_classes=4, image_size=64, **OPTIONS[name]).train()
    logits = network(torch.randn(2, 3, 64, 64))
    assert logits.shape == (2, 4, 64, 64)
    logits.mean().backward()
    assert all(weight.grad is not None for weight in network.parameters() if weight.requires_grad)


def test_networks_of_the_issue_are_among_those_named():
    """B3, continued: none is missing from the list."""
    assert {"upernet_vit_b", "upernet_vit_b_rvsa", "upernet_vit_l_rvsa", "upernet_swin_t", "deeplabv3plus_resnet101"} <= set(S5)


def test_swin_starts_from_a_checkpoint_of_remote_sensing_pretraining():
    """B6: the published option ``rsp``, a classifier's checkpoint with optimiser and configuration beside it, always ends in an error."""
    sizes = {"depths": (2, 2, 2, 2), "window_size": 2, "embed_dim": 12, "num_heads": (1, 2, 3, 4)}
    model = random_weights(timm.create_model("swin_tiny_patch4_window7_224", img_size=64, num_classes=51, **sizes))
    names = {}
    for name, value in model.state_dict().items():
        # As its authors name things: mergings belong to the stage before, and masks are kept.
        number = int(name.split(".")[1]) if name.startswith("layers.") else 0
        named = name.replace(f"layers.{number}.", f"layers.{number - 1}.") if ".downsample." in name else name
        names[named.replace("head.fc.", "head.")] = value
    names["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 4, 4)
    names["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(4, 4, dtype=torch.int64)
    file = {"model": names, "optimizer": {"state": {}, "param_groups": []}, "epoch": 299, "max_accuracy": 0.0}
    ours, again = (
        create("upernet_swin_t", num_classes=2, decoder_channels=8, seed=seed, width=12, depths=(2, 2, 2, 2), heads=(1, 2, 3, 4), window=2)
        for seed in (0, 1)
    )
    report = load_weights(ours, file)
    assert (report.layout, report.verdict) == ("swin", "encoder only")
    assert not report.unexpected
    load_weights(again, file)
    for (name, found), other in zip(ours.encoder.named_parameters(), again.encoder.parameters(), strict=True):
        # S5 normalises each map, which a classifier's file has for the last one alone.
        assert torch.equal(found, other) or name.startswith("norms"), name
    assert torch.equal(ours.encoder.stages[0].blocks[0].attention.qkv.weight, names["layers.0.blocks.0.attn.qkv.weight"])


@pytest.mark.parametrize("name", ["upernet_vit_b", "upernet_vit_b_rvsa"])
def test_an_image_may_be_of_another_size_than_the_network_was_made_for(name):
    """B11: the published position embedding freezes the input size, and weights of another size cannot be loaded."""
    made_for = {side: create(name, num_classes=3, image_size=side, seed=side, **OPTIONS[name]).eval() for side in (64, 128)}
    with torch.no_grad():
        for network in made_for.values():
            for size in ((64, 64), (128, 128), (70, 150)):
                assert network(torch.randn(1, 3, *size)).shape[-2:] == size
    report = load_weights(made_for[128], {f"encoder.{key}": value for key, value in made_for[64].encoder.state_dict().items()})
    assert not report.unexpected


@pytest.mark.parametrize("tokens", [1, 2, 6])
def test_rotated_windows_of_a_map_smaller_than_a_window_are_finite(tokens):
    """B14: under seven tokens a side the published RVSA divides by zero."""
    network = create("upernet_vit_b_rvsa", num_classes=3, image_size=64, **OPTIONS["upernet_vit_b_rvsa"]).train()
    image = torch.randn(2, 3, 16 * tokens, 16 * tokens, requires_grad=True)
    logits = network(image)
    logits.square().mean().backward()
    assert torch.isfinite(logits).all()
    assert torch.isfinite(image.grad).all()
