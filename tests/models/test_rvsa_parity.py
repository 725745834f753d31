"""ViT with rotated windows computes what the published one computes, and reads and writes its files (oracle: published modules)."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from support.s5_parity import check_checkpointing, check_files, check_manifest, compare, published
from tilth.errors import ConfigError, UnreadableFileError
from tilth.models import create, load_weights
from tilth.models.network import SegmentationNetwork
from tilth.models.vision_transformers.rvsa import RelativeAttention, RelativeBlock, RotatedWindowAttention, RotatedWindowTransformer
from tilth.models.weights.layout import NO_SUCH_LAYER
from tilth.models.weights.layouts.s5_rvsa import LAYOUTS

(LAYOUT,) = LAYOUTS
TINY = {"width": 24, "depth": 4, "heads": 3, "interval": 2, "window": 3, "decoder_channels": 8}


def tiny(image_size: int = 64, seed: int = 1, **options: object) -> nn.Module:
    return create("upernet_vit_b_rvsa", num_classes=3, image_size=image_size, seed=seed, **(TINY | options))


def filled(**options: object) -> nn.Module:
    """A tiny network whose every table and sampling convolution matters."""
    network = tiny(**options)
    torch.manual_seed(2)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "relative" in name or any(part in name for part in (".offsets.", ".scales.", ".angles.")):
                parameter.normal_(std=0.3)
    return network.eval()


@pytest.fixture(scope="module")
def vit_b() -> SegmentationNetwork:
    return published("upernet_vit_b_rvsa", LAYOUT)


def test_vit_b_computes_every_stage_as_published(vit_b: SegmentationNetwork) -> None:
    compare(vit_b, "vit_b_rvsa_128_c16", largest=2e-5)


def test_vit_b_uses_the_published_epsilon_of_norms_which_a_dim_image_shows(vit_b: SegmentationNetwork) -> None:
    compare(vit_b, "vit_b_rvsa_128_c16_dim", largest=2e-5)


@pytest.mark.slow
def test_vit_l_computes_as_published() -> None:
    compare(published("upernet_vit_l_rvsa", LAYOUT), "vit_l_rvsa_128_c16", thin=4)


@pytest.mark.parametrize("size", ["b", "l"])
def test_names_shapes_and_counts_are_published_ones(size: str) -> None:
    with torch.device("meta"):
        network = create(f"upernet_vit_{size}_rvsa")
    check_manifest(network, LAYOUT, f"upernet_vit_{size}_rvsa")


def test_only_every_third_layer_of_b_and_sixth_of_l_attends_everywhere() -> None:
    for size, layers in (("b", [2, 5, 8, 11]), ("l", [5, 11, 17, 23])):
        with torch.device("meta"):
            encoder = create(f"upernet_vit_{size}_rvsa").get_submodule("encoder")
        assert isinstance(encoder, RotatedWindowTransformer)
        blocks = list(encoder.blocks)
        assert [index for index, block in enumerate(blocks) if isinstance(block.get_submodule("attention"), RelativeAttention)] == layers


def test_files_make_another_network_the_same() -> None:
    check_files(filled(), tiny(seed=4), LAYOUT, "encoder.")


def test_a_file_of_more_layers_is_refused_and_strangers_are_named() -> None:
    network = tiny(depth=4)
    assert LAYOUT.export is not None
    file = LAYOUT.export(tiny(depth=5, taps=[0, 1, 2, 3])) | {"semsegdecoder.stranger": torch.zeros(1)}
    converted = LAYOUT.convert(file, network, None)
    assert converted.unexpected == ["semsegdecoder.stranger"]
    assert converted.dropped["encoder.blocks.4.norm1.weight"] == NO_SUCH_LAYER
    with pytest.raises(UnreadableFileError, match=r"the file has 5 layers in encoder\.blocks, the network 4"):
        load_weights(network, file)
    assert not LAYOUT.fits(create("upernet_swin_t", width=8, depths=[1, 1], heads=[1, 1], decoder_channels=8))


def test_a_file_of_another_program_gives_its_encoder_and_says_what_else_it_held() -> None:
    """As RVSA's and MTP's: pre-training, class token and other decoders beside the same encoder."""
    network = tiny()
    assert LAYOUT.export is not None
    encoder = {f"backbone.{name}": tensor for name, tensor in LAYOUT.export(network.get_submodule("encoder")).items()}
    others = ["backbone.cls_token", "backbone.norm.weight", "backbone.mask_token", "decode_head.conv_seg.weight", "roi_head.fc.bias"]
    converted = LAYOUT.convert(encoder | {name: torch.zeros(1) for name in others}, network, None)
    assert not converted.unexpected
    assert set(others) <= set(converted.dropped)
    assert all("relative_position_index" in name for name in set(converted.dropped) - set(others))
    assert set(converted.tensors) == {name for name in network.state_dict() if name.startswith("encoder.")}


def test_explicit_attention_gives_the_same() -> None:
    network, other = filled().double(), filled(attention="explicit").double()
    image = torch.randn(2, 3, 80, 112, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(network(image), other(image), rtol=1e-9, atol=1e-10)


def test_checkpointing_gives_the_same_gradients_and_all_parameters_get_one() -> None:
    check_checkpointing(filled(drop_path=0.3), filled(drop_path=0.3), torch.randn(2, 3, 80, 64))


@pytest.mark.parametrize("size", [(64, 64), (33, 70), (17, 130), (176, 48), (208, 96)])
def test_images_of_any_size_give_logits_of_that_size(size: tuple[int, int]) -> None:
    network = filled()
    with torch.no_grad():
        logits = network(torch.randn(1, 3, *size))
    assert logits.shape == (1, 3, *size)
    assert logits.isfinite().all()


def test_tables_are_resized_to_images_of_other_sizes() -> None:
    """A network made for 112 pixels with tables that were resized beforehand is the oracle."""
    small, large = filled(), tiny(image_size=112).eval()
    state = small.state_dict()
    for name, tensor in large.state_dict().items():
        if name.endswith("position_embedding"):
            as_map = state[name].reshape(1, 4, 4, -1).permute(0, 3, 1, 2)
            state[name] = F.interpolate(as_map, size=(7, 7), mode="bicubic").flatten(2).transpose(1, 2)
        elif tensor.shape != state[name].shape:
            state[name] = F.interpolate(state[name].T[None, :, :, None], size=(13, 1), mode="bicubic")[0, :, :, 0].T
    large.load_state_dict(state)
    image = torch.randn(1, 3, 112, 112)
    with torch.no_grad():
        torch.testing.assert_close(small(image), large(image), rtol=1e-4, atol=1e-5)


def test_both_branches_can_be_dropped() -> None:
    for attention in (RotatedWindowAttention(8, 2, 3), RelativeAttention(8, 2, (4, 5))):
        block = RelativeBlock(8, attention, drop_path=1 - 1e-9)
        tokens = torch.randn(2, 20, 8)
        assert torch.equal(block(tokens, (4, 5)), tokens)
        assert not torch.equal(block.eval()(tokens, (4, 5)), tokens)


def test_fresh_layers_have_less_to_say_the_deeper_they_are() -> None:
    network = tiny(width=96, depth=8, interval=4)
    for index, block in enumerate(network.get_submodule("encoder.blocks").children(), start=1):
        for name in ("attention.projection.weight", "feed_forward.contract.weight"):
            assert float(block.get_parameter(name).detach().std()) == pytest.approx(0.02 / (2 * index) ** 0.5, rel=0.05)
        assert float(block.get_parameter("attention.qkv.weight").detach().std()) == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 5}, "heads=5 does not divide width=24"),
        ({"interval": 0}, "interval=0"),
        ({"window": 1}, "window=1"),
        ({"attention": "fast"}, "attention='fast'"),
        ({"patch": 12}, "patch=12"),
    ],
)
def test_options_that_make_no_sense_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny(**options)
