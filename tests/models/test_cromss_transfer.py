"""Networks for transfer compute what the published ones compute, for any bands and sizes."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from support.official_cromss import FIXTURES, manifest, official_tensors, recipe, shapes_of
from tilth.errors import ConfigError
from tilth.models import create, load_weights, official_state_dict
from tilth.models.decoders.parts import ClassHead
from tilth.models.network import SegmentationNetwork
from tilth.models.vision_transformers.token_maps import TokenMapUperNet
from tilth.models.vision_transformers.wavelengths import WAVELENGTHS
from tilth.models.weights.layouts.cromss_transfer import DECODER

VITS = {"vit": (3, 224, "ft_vit"), "satmae": (10, 96, "ft_satmae"), "dofa": (9, 224, "ft_dofa")}
TINY = {"width": 32, "depth": 4, "heads": 2, "decoder_channels": 8}


def transformer(kind: str, **options) -> SegmentationNetwork:
    network = create(f"cromss_upernet_{kind}_l", **TINY, **options)
    assert isinstance(network, SegmentationNetwork)
    return network


@pytest.mark.parametrize("decoder", ["deeplabv3plus", "fpn", "pspnet"])
def test_logits_behind_a_resnet_are_the_published_ones(decoder):
    stored = np.load(FIXTURES / f"net_ft_{decoder}.npz")
    network = create(f"cromss_{decoder}_resnet50", num_classes=9).eval()
    tensors = official_tensors(manifest(f"ft_{decoder}"))
    report = load_weights(network, {f"net.{key}": tensor for key, tensor in tensors.items()})
    assert (report.layout, report.missing, report.unexpected, report.dropped) == ("cromss-resnet", [], [], {})
    with torch.no_grad():
        logits = network(recipe("input:s2", (1, 13, 64, 64))).numpy()[..., ::2, ::2]
    assert np.abs(logits - stored["logits"]).max() < 1e-3 * stored["logits"].std()
    exported = official_state_dict(network)
    assert list(exported) == list(tensors)
    assert all(torch.equal(exported[key], tensor) for key, tensor in tensors.items())


def test_logits_of_the_head_on_transformers_are_the_published_ones():
    stored = np.load(FIXTURES / "net_uperhead.npz")["logits"]
    decoder = TokenMapUperNet([48] * 4, 32)
    network = SegmentationNetwork(nn.Identity(), decoder, ClassHead(32, 9, scale=1, dropout=0.0), divisor=1).eval()
    official = official_tensors(manifest("uperhead"))
    network.load_state_dict({str(DECODER.to_ours(f"decoder.{key}")): tensor for key, tensor in official.items()})
    with torch.no_grad():
        logits = network.decode([recipe(f"input:uper{level}", (1, 48, 32 >> level, 32 >> level)) for level in range(4)])
    assert np.abs(logits.numpy()[..., ::2, ::2] - stored).max() < 1e-3 * stored.std()


def test_maps_of_tokens_are_enlarged_to_the_image_and_its_halves():
    plain, enlarging = TokenMapUperNet([12] * 4, 8), TokenMapUperNet([12] * 4, 8, patch=8)
    enlarging.load_state_dict(plain.state_dict())
    maps = [torch.randn(2, 12, 3, 5) for _ in range(4)]
    enlarged = [F.interpolate(found, scale_factor=8 >> level, mode="bilinear") for level, found in enumerate(maps)]
    assert [tuple(found.shape[-2:]) for found in enlarged] == [(24, 40), (12, 20), (6, 10), (3, 5)]
    torch.testing.assert_close(enlarging(maps), plain(enlarged))
    for name, buffer in enlarging.named_buffers():
        torch.testing.assert_close(buffer, plain.get_buffer(name), msg=name)


@pytest.mark.parametrize("decoder", ["deeplabv3plus", "fpn", "pspnet"])
def test_names_and_shapes_of_resnets_are_the_published_ones(decoder):
    with torch.device("meta"):
        network = create(f"cromss_{decoder}_resnet50", num_classes=9)
    assert shapes_of(official_state_dict(network)) == manifest(f"ft_{decoder}")


@pytest.mark.parametrize("kind", VITS)
def test_names_and_shapes_of_transformers_are_the_published_ones(kind):
    bands, size, name = VITS[kind]
    with torch.device("meta"):
        network = create(f"cromss_upernet_{kind}_l", bands, 9, size)
        assert shapes_of(official_state_dict(network)) == manifest(name)
        assert network.encoder.taps == (5, 11, 17, 23)


@pytest.mark.parametrize("kind", VITS)
def test_calls_of_transformers_leave_nothing_behind(kind):  # finding 23: the published program adds hooks with every call
    bands, _, _ = VITS[kind]
    network = transformer(kind, in_channels=bands, num_classes=3, image_size=48).eval()
    image = torch.randn(1, bands, 48, 48)
    with torch.no_grad():
        first = network(image)
        assert torch.equal(network(image), first)
    for module in network.modules():
        assert not any((module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)), module


@pytest.mark.parametrize("kind", VITS)
def test_official_names_come_back_bit_by_bit(kind):
    bands, _, _ = VITS[kind]
    network = transformer(kind, in_channels=bands, num_classes=3, image_size=48)
    official = {
        key: torch.randn_like(tensor) if tensor.is_floating_point() else tensor for key, tensor in official_state_dict(network).items()
    }
    report = load_weights(network, {f"net.{key}": tensor for key, tensor in official.items()})
    assert (report.layout, report.missing, report.unexpected, report.dropped) == ("cromss-vit", [], [], {})
    exported = official_state_dict(network)
    assert set(exported) == set(official)
    assert all(torch.equal(exported[key], tensor) for key, tensor in official.items())


def reference_blocks(official: dict[str, torch.Tensor], tokens: torch.Tensor) -> list[torch.Tensor]:
    """Run timm's layers over tokens by official names, and cut the class token off."""
    outputs = []
    for layer in range(TINY["depth"]):
        block = timm.models.vision_transformer.Block(
            TINY["width"], TINY["heads"], qkv_bias=True, norm_layer=lambda dim, **_: nn.LayerNorm(dim, eps=1e-6)
        )
        prefix = f"encoder.blocks.{layer}."
        block.load_state_dict({key.removeprefix(prefix): tensor for key, tensor in official.items() if key.startswith(prefix)})
        tokens = block.eval()(tokens)
        outputs.append(tokens[:, 1:])
    return outputs


def shaken(network: SegmentationNetwork) -> dict[str, torch.Tensor]:
    """Official tensors of a network whose tables have been moved away from their beginnings."""
    with torch.no_grad():
        for parameter in network.encoder.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return official_state_dict(network.eval())


def test_plain_features_are_those_of_timm():
    network = transformer("vit", num_classes=3, image_size=48)
    official = shaken(network)
    image = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        patches = F.conv2d(image, official["encoder.patch_embed.proj.weight"], official["encoder.patch_embed.proj.bias"], stride=16)
        tokens = torch.cat([official["encoder.cls_token"].expand(2, -1, -1), patches.flatten(2).mT], dim=1) + official["encoder.pos_embed"]
        for wanted, found in zip(reference_blocks(official, tokens), network.encoder(image), strict=True):
            torch.testing.assert_close(found, wanted.mT.reshape(2, 32, 3, 3), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("bands", "given"), [(10, None), (13, [[1, 2, 3, 7], [4, 5, 6, 8], [11, 12]])])
def test_tokens_of_groups_carry_place_and_group_and_are_averaged(bands, given):
    groups = given or [[0, 1, 2, 6], [3, 4, 5, 7], [8, 9]]
    network = transformer("satmae", in_channels=bands, num_classes=3, image_size=24, groups=given)
    official = shaken(network)
    image = torch.randn(2, bands, 24, 24)
    table, of_group = official["encoder.pos_embed"], official["encoder.channel_embed"]
    assert table.shape == (1, 10, 24)
    assert of_group.shape == (1, 3, 8)
    with torch.no_grad():
        sequence = [torch.cat([table[:, :1], torch.zeros(1, 1, 8)], dim=2) + official["encoder.cls_token"].expand(2, -1, -1)]
        for index, group in enumerate(groups):
            name = f"encoder.patch_embed.{index}.proj"
            patches = F.conv2d(image[:, group], official[f"{name}.weight"], official[f"{name}.bias"], stride=8).flatten(2).mT
            sequence.append(patches + torch.cat([table[:, 1:], of_group[:, [index]].expand(-1, 9, -1)], dim=2))
        for wanted, found in zip(reference_blocks(official, torch.cat(sequence, dim=1)), network.encoder(image), strict=True):
            mean = (wanted[:, :9] + wanted[:, 9:18] + wanted[:, 18:]) / 3
            torch.testing.assert_close(found, mean.mT.reshape(2, 32, 3, 3), rtol=1e-5, atol=1e-5)


@pytest.mark.slow  # torchgeo is long to import
def test_kernels_from_wavelengths_are_those_of_torchgeo():
    dofa = pytest.importorskip("torchgeo.models.dofa", reason="oracle from torchgeo")
    network = transformer("dofa", in_channels=9, num_classes=3, image_size=48)
    official = {key.removeprefix("encoder."): tensor for key, tensor in shaken(network).items() if key.startswith("encoder.")}
    oracle = dofa.DOFA(img_size=48, embed_dim=32, depth=4, num_heads=2, num_classes=0).eval()
    left = oracle.load_state_dict(official, strict=False)
    assert (left.missing_keys, left.unexpected_keys) == (["fc_norm.weight", "fc_norm.bias"], [])
    image = torch.randn(2, 9, 48, 48)
    with torch.no_grad():
        wanted, _ = oracle.patch_embed(image, torch.tensor(WAVELENGTHS[9]))
        found = network.encoder.patch_embedding(image)
        torch.testing.assert_close(found.flatten(2).mT, wanted, rtol=1e-4, atol=1e-5)
        tokens = torch.cat([oracle.cls_token.expand(2, -1, -1), wanted], dim=1) + oracle.pos_embed
        for index, block in enumerate(oracle.blocks):
            tokens = block(tokens)
            torch.testing.assert_close(network.encoder(image)[index], tokens[:, 1:].mT.reshape(2, 32, 3, 3), rtol=1e-4, atol=1e-4)


def test_the_order_of_bands_does_not_matter_as_long_as_wavelengths_follow():
    order = [5, 0, 3, 1, 4, 2, 8, 7, 6]
    one = transformer("dofa", in_channels=9, num_classes=3, image_size=32).eval()
    two = transformer("dofa", in_channels=9, num_classes=3, image_size=32, wavelengths=[WAVELENGTHS[9][band] for band in order]).eval()
    two.load_state_dict(one.state_dict())
    image = torch.randn(1, 9, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(two(image[:, order]), one(image), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(two(image), one(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((f"cromss_{decoder}_resnet50", {"encoder": "resnet18"}) for decoder in ("unet", "pspnet", "fpn", "deeplabv3plus")),
        *((f"cromss_upernet_{kind}_l", TINY) for kind in VITS),
    ],
)
@pytest.mark.parametrize(("bands", "size"), [(3, (64, 64)), (12, (45, 98))])
def test_any_size_and_bands_give_a_map_and_gradients_everywhere(name, options, size, bands):
    by_bands = {"satmae": {"groups": [[2, 0], [1]]}, "dofa": {"wavelengths": [0.4 + 0.1 * band for band in range(bands)]}}
    kind = name.removeprefix("cromss_upernet_").removesuffix("_l")
    network = create(name, bands, 4, 64, **options, **by_bands.get(kind, {}))
    logits = network(torch.randn(2, bands, *size))
    assert logits.shape == (2, 4, *size)
    logits.square().mean().backward()
    trained = {key: parameter for key, parameter in network.named_parameters() if parameter.requires_grad}
    assert [key for key, parameter in trained.items() if parameter.grad is None] == []
    still = {key.split(".")[1] for key, parameter in network.named_parameters() if not parameter.requires_grad}
    assert still == {"cromss_pspnet_resnet50": {"layer3", "layer4"}, "cromss_upernet_dofa_l": {"class_position", "position_embedding"}}.get(
        name, set()
    )


@pytest.mark.parametrize("kind", VITS)
def test_checkpointing_and_explicit_attention_change_nothing(kind):
    torch.manual_seed(0)
    networks = [
        transformer(kind, num_classes=3, image_size=48, seed=0, **options)
        for options in ({}, {"checkpointing": True}, {"attention": "explicit"})
    ]
    bands = networks[0].spec.in_channels
    image = torch.randn(2, bands, 48, 48)
    losses = []
    for network in networks:
        loss = network(image).square().mean()
        loss.backward()
        losses.append(loss)
    for network, loss in zip(networks[1:], losses[1:], strict=True):
        torch.testing.assert_close(loss, losses[0], rtol=1e-5, atol=1e-6)
        for mine, first in zip(network.encoder.parameters(), networks[0].encoder.parameters(), strict=True):
            if first.requires_grad:
                torch.testing.assert_close(mine.grad, first.grad, rtol=1e-3, atol=1e-5)


def test_wrong_options_are_answered_with_the_right_ones():
    cases = [
        ("cromss_pspnet_resnet50", {"decoder": "psp"}, "did you mean 'pspnet'"),
        ("cromss_unet_resnet50", {"dropout": 0.1}, "U-Net has no dropout"),
        ("cromss_upernet_vit_l", {"encoder": "dino"}, "choices: dofa, satmae, vit"),
        ("cromss_upernet_vit_l", {"groups": [[0, 1]]}, "knows no groups"),
        ("cromss_upernet_satmae_l", {"groups": [[0, 12]]}, "bands 0 to 9"),
        ("cromss_upernet_satmae_l", {"wavelengths": [0.6]}, "does not look at wavelengths"),
        ("cromss_upernet_dofa_l", {"in_channels": 7}, "got 0 for 7 bands"),
        ("cromss_upernet_dofa_l", {"in_channels": 2, "wavelengths": [665, 560]}, "expected micrometres"),
    ]
    for name, options, message in cases:
        with pytest.raises(ConfigError, match=message):
            create(name, **(options if "resnet" in name else TINY | options))
