"""Plain ViTs of timm with pyramid and UperNet: any size and patch, the maps of timm itself, saved without what is looked up."""

from __future__ import annotations

import json

import pytest
import timm
import torch
from safetensors.torch import save_file

from support.training_sample import SCHEME
from tilth.errors import ConfigError, RunError
from tilth.models.config import NetworkConfig
from tilth.models.network import set_checkpointing
from tilth.models.segmenter import Segmenter, build_segmenter
from tilth.models.vision_transformers.timm_backbone import is_plain_vit, upernet_timm_vit
from tilth.sensors import get_sensor

TINY = {"encoder_options": {"depth": 4, "embed_dim": 48, "num_heads": 3}}
# Patch, and what the name stands for: registers, rotary positions, pooling by attention, no class token, post-norm ...
NAMES = {
    "vit_small_patch14_reg4_dinov2.lvd142m": 14,
    "vit_small_patch16_dinov3": 16,
    "eva02_tiny_patch14_224": 14,
    "vit_small_patch8_224.dino": 8,
    "vit_base_patch16_siglip_224": 16,
    "vit_base_patch32_clip_224.openai": 32,
    "vit_base_patch16_224.mae": 16,
    "deit3_small_patch16_224": 16,
    "deit_tiny_distilled_patch16_224": 16,
}


def network(name: str = "test_vit", **options):
    torch.manual_seed(0)
    base = {"in_channels": 5, "num_classes": 3, "image_size": 64, "decoder_channels": 8}
    return upernet_timm_vit(name, **(base | options))


@pytest.mark.parametrize("name", NAMES)
def test_any_image_becomes_a_map_of_its_size_and_every_weight_learns(name):
    model = network(name, **TINY)
    patch = NAMES[name]
    assert model.encoder.patch == model.divisor == patch
    assert model.minimum == (32 if patch == 8 else 2 * patch)
    for height, width in ((40, 75), (1, 1)):
        assert model(torch.randn(2, 5, height, width)).shape == (2, 3, height, width)
    model(torch.randn(2, 5, 96, 131)).square().mean().backward()
    idle = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.abs().sum() > 0]
    assert idle == []


@pytest.mark.parametrize("patch", [8, 14, 16, 32])
def test_maps_have_four_scales_whatever_the_patch(patch):
    name = next(name for name, found in NAMES.items() if found == patch)
    side = 4 * patch
    sizes = [tuple(maps.shape[-2:]) for maps in network(name, **TINY).encoder(torch.randn(1, 5, side, 2 * side))]
    finest = 8 if patch == 8 else 16
    assert sizes == [(finest >> level, 2 * finest >> level) for level in range(4)]


def test_maps_are_those_of_timm():
    model = network("vit_small_patch16_dinov3", in_channels=3, **TINY).eval()
    same = timm.create_model("vit_small_patch16_dinov3", dynamic_img_size=True, num_classes=0, **TINY["encoder_options"]).eval()
    same.load_state_dict(model.encoder.backbone.state_dict(), strict=False)
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = same.forward_intermediates(image, indices=[0, 1, 2, 3], intermediates_only=True)
        found = model.encoder(image)
    assert torch.equal(found[2], expected[2])  # the scale of the tokens
    assert torch.equal(found[3], torch.nn.functional.max_pool2d(expected[3], 2))


def test_final_norm_is_applied_if_wanted_and_gone_otherwise():
    plain, normed = network(), network(final_norm=True)
    assert isinstance(plain.encoder.backbone.norm, torch.nn.Identity)
    normed.encoder.backbone.load_state_dict(plain.encoder.backbone.state_dict(), strict=False)
    image = torch.randn(1, 5, 64, 64)
    with torch.no_grad():
        before, after = (model.eval().encoder(image)[2] for model in (plain, normed))
    assert not torch.equal(before, after)
    assert after.mean(dim=1).abs().max() < 1e-4


def test_layers_behind_the_last_tap_are_left_out():
    assert len(network(taps=[0, 1, 2, 3]).encoder.backbone.blocks) == 4
    assert len(network().encoder.backbone.blocks) == 6
    with pytest.raises(ConfigError, match="four layers from 0 to 5"):
        network(taps=[0, 1, 2, 6])


def test_checkpointing_computes_the_same_gradients():
    image = torch.randn(2, 5, 64, 64)
    grads = []
    for on in (False, True):
        model = network(drop_path=0.0)
        model.segmentation_head.dropout.p = 0.0
        set_checkpointing(model, on)
        assert model.encoder.checkpointing is on
        assert model.encoder.backbone.grad_checkpointing is on
        model(image).square().mean().backward()
        grads.append([value.grad for value in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*grads, strict=True))


def test_names_of_plain_vits_are_told_from_others():
    assert all(is_plain_vit(name) for name in NAMES)
    assert not any(is_plain_vit(name) for name in ("resnet18", "swin_tiny_patch4_window7_224", "beit_base_patch16_224", "nonsense"))


def test_segmenter_comes_back_bit_by_bit(tmp_path):
    config = NetworkConfig(encoder="test_vit", decoder="upernet", image_size=64, options={"decoder_channels": 8})
    model = build_segmenter(config, get_sensor("s2_l2a"), SCHEME).eval()
    again = Segmenter.load(model.save(tmp_path / "model"))
    image = torch.randn(1, 12, 50, 70)
    with torch.no_grad():
        assert torch.equal(again(image), model(image))


def test_weights_and_arguments_of_a_published_folder_are_taken_and_not_needed_again(tmp_path):
    """As on the hub: config.json names architecture and arguments; the model folder keeps what it means."""
    published = tmp_path / "published"
    published.mkdir()
    source = timm.create_model("test_vit", depth=4, num_classes=0, img_size=64)
    save_file(source.state_dict(), published / "model.safetensors")
    # Where timm would fetch from is a folder here; the rest is what its own models say of themselves.
    tree = {"architecture": "test_vit", "num_classes": 0, "model_args": {"depth": 4}, "pretrained_cfg": {"input_size": [3, 64, 64]}}
    (published / "config.json").write_text(json.dumps(tree))
    config = NetworkConfig(encoder=f"local-dir:{published}", decoder="upernet", image_size=64, pretrained=True)
    model = build_segmenter(config, get_sensor("rgb"), SCHEME)
    found = model.network.encoder.backbone.state_dict()
    assert all(torch.equal(found[name], value) for name, value in source.state_dict().items() if name in found)
    assert len(found) > 40
    assert model.config.network.encoder == "test_vit"
    assert model.config.network.options == {"encoder_options": {"depth": 4}}
    folder = model.save(tmp_path / "model")
    (published / "config.json").unlink()
    assert len(Segmenter.load(folder).network.encoder.backbone.blocks) == 4
    with pytest.raises(RunError, match="cannot be looked up"):
        build_segmenter(config, get_sensor("rgb"), SCHEME)


def test_names_on_the_hub_are_looked_up_once(monkeypatch, tmp_path):
    asked = []

    def look_up(place, **_):
        asked.append(place)
        return {}, "test_vit", {"depth": 4}

    monkeypatch.setattr("timm.models.load_model_config_from_hf", look_up)
    config = NetworkConfig(encoder="hf-hub:somebody/vit", decoder="upernet", image_size=64)
    model = build_segmenter(config, get_sensor("rgb"), SCHEME)
    assert set(asked) == {"somebody/vit"}
    assert len(model.network.encoder.backbone.blocks) == 4
    asked.clear()
    assert Segmenter.load(model.save(tmp_path)).config.network.encoder == "test_vit"
    assert asked == []


def test_name_on_the_hub_that_cannot_be_looked_up_is_one_line(monkeypatch):
    def fail(*_, **__):
        raise OSError("no route\nto host")

    monkeypatch.setattr("timm.models.load_model_config_from_hf", fail)
    with pytest.raises(RunError, match=r"'hf-hub:a/b' cannot be looked up \(no route to host\); give timm's own name") as caught:
        build_segmenter(NetworkConfig(encoder="hf-hub:a/b", decoder="upernet"), get_sensor("rgb"), SCHEME)
    assert len(str(caught.value).splitlines()) == 1
