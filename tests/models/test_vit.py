"""The plain vision transformer and UperNet: positions, sizes, attention, memory, dropped paths, errors. Networks are small."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from support.official_s5 import FINETUNE, S5, arrays, normal
from tilth.errors import ConfigError, UsageError
from tilth.models import create
from tilth.models.decoders.parts import ClassHead
from tilth.models.decoders.upernet import UperNet
from tilth.models.network import SegmentationNetwork
from tilth.models.vision_transformers.attention import attend
from tilth.models.vision_transformers.blocks import DropPath, drop_rates, run_blocks, spread_taps
from tilth.models.vision_transformers.plain import PlainVisionTransformer
from tilth.models.vision_transformers.positions import resize_positions, token_grid
from tilth.models.vision_transformers.pyramid import FeaturePyramid


def small(name: str = "upernet_vit_b", seed: int = 0, **options: Any) -> SegmentationNetwork:
    options = {"num_classes": 5, "image_size": 64, "depth": 4, "width": 32, "heads": 2, "decoder_channels": 16} | options
    network = create(name, seed=seed, **options)
    assert isinstance(network, SegmentationNetwork)
    return network


def encoder(**options: Any) -> PlainVisionTransformer:
    return PlainVisionTransformer(3, 64, **({"width": 32, "depth": 4, "heads": 2} | options))


def gradients(network: nn.Module, image: Tensor) -> dict[str, Tensor]:
    network.zero_grad()
    torch.manual_seed(0)
    network(image).square().mean().backward()
    return {name: parameter.grad.clone() for name, parameter in network.named_parameters() if parameter.grad is not None}


class TestPositions:
    def test_resized_as_the_published_loader_does(self) -> None:
        found = arrays(FINETUNE / "pos_embed_resize.npz")
        resized = resize_positions(torch.from_numpy(found["input"]), (4, 4), (6, 6))
        np.testing.assert_allclose(resized.numpy(), found["output"], atol=1e-5)

    def test_a_table_of_a_class_token_and_14_x_14_positions_fits_10_x_10_and_32_x_32(self) -> None:
        expected = arrays(S5 / "pos_embed.npz")
        table = normal("ckpt:pos_embed", (1, 197, 768))[:, 1:]
        smaller, larger = (resize_positions(table, (14, 14), (side, side))[0].numpy() for side in (10, 32))
        np.testing.assert_allclose(smaller[:, ::16], expected["pos_embed_14_to_10"], atol=1e-5)
        np.testing.assert_allclose(larger[::3, ::24], expected["pos_embed_14_to_32"], atol=1e-5)

    def test_rows_and_columns_are_kept_apart(self) -> None:
        """A table that depends on its row alone must do so after resizing, and likewise for columns."""
        rows = torch.arange(4.0)[:, None].expand(4, 6).reshape(1, 24, 1)
        resized = resize_positions(rows, (4, 6), (7, 3)).reshape(7, 3)
        assert torch.equal(resized, resized[:, :1].expand(7, 3))
        assert bool((resized.diff(dim=0) > 0).all())

    def test_the_same_grid_gives_the_same_table(self) -> None:
        table = torch.randn(1, 12, 5)
        assert resize_positions(table, (3, 4), (3, 4)) is table

    @pytest.mark.parametrize(("size", "patch", "grid"), [(512, 16, (32, 32)), (500, 16, (32, 32)), ((70, 90), 8, (9, 12))])
    def test_parts_of_a_patch_count_as_one(self, size: int | tuple[int, int], patch: int, grid: tuple[int, int]) -> None:
        assert token_grid(size, patch) == grid

    def test_an_image_of_another_size_sees_the_resized_table(self) -> None:
        network = encoder().eval()
        other = encoder().eval()
        other.grid = (2, 6)
        other.position_embedding = nn.Parameter(resize_positions(network.position_embedding, (4, 4), (2, 6)))
        other.load_state_dict({name: tensor for name, tensor in network.state_dict().items() if name != "position_embedding"}, strict=False)
        image = torch.randn(1, 3, 32, 96)
        with torch.no_grad():
            for ours, theirs in zip(network(image), other(image), strict=True):
                assert torch.equal(ours, theirs)


class TestSizes:
    @pytest.mark.parametrize(("height", "width"), [(64, 64), (65, 33), (1, 200), (96, 160), (250, 131)])
    @pytest.mark.parametrize("patch", [16, 8])
    def test_every_size_gives_logits_of_its_size(self, height: int, width: int, patch: int) -> None:
        network = small(patch=patch).eval()
        with torch.no_grad():
            logits = network(torch.randn(1, 3, height, width))
        assert tuple(logits.shape) == (1, 5, height, width)
        assert bool(logits.isfinite().all())

    @pytest.mark.parametrize("patch", [16, 8])
    def test_maps_have_strides_4_8_16_32_for_both_patches(self, patch: int) -> None:
        maps = encoder(patch=patch)(torch.randn(1, 3, 96, 128))
        assert [tuple(found.shape[1:]) for found in maps] == [(32, 24, 32), (32, 12, 16), (32, 6, 8), (32, 3, 4)]

    def test_what_is_added_below_and_right_is_cut_off_again(self) -> None:
        network = small().eval()
        image = torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            whole, part = network(image), network(image[..., :50, :41])
            padded = network(nn.functional.pad(image[..., :50, :41], (0, 7, 0, 14), mode="replicate"))
        assert torch.equal(part, padded[..., :50, :41])
        assert not torch.allclose(part, whole[..., :50, :41])

    def test_any_number_of_bands(self) -> None:
        assert tuple(small(in_channels=14)(torch.randn(2, 14, 64, 64)).shape) == (2, 5, 64, 64)

    @pytest.mark.parametrize(("depth", "taps"), [(12, (2, 5, 8, 11)), (5, (1, 2, 3, 4)), (2, (0, 0, 1, 1)), (1, (0, 0, 0, 0))])
    def test_other_depths_are_tapped_at_the_ends_of_their_quarters(self, depth: int, taps: tuple[int, ...]) -> None:
        assert spread_taps(depth) == taps
        assert len(encoder(depth=depth)(torch.randn(1, 3, 64, 64))) == 4

    @pytest.mark.parametrize(
        ("size", "taps", "shape"),
        [("b", (3, 5, 7, 11), (768, 12, 12)), ("l", (7, 11, 15, 23), (1024, 24, 16)), ("h", (15, 23, 27, 31), (1280, 32, 16))],
    )
    def test_published_sizes_have_the_published_taps(self, size: str, taps: tuple[int, ...], shape: tuple[int, int, int]) -> None:
        with torch.device("meta"):
            found: Any = create(f"upernet_vit_{size}").encoder
        assert found.taps == taps
        assert (found.channels[0], len(found.blocks), found.blocks[0].attention.heads) == shape
        assert {block.norm1.eps for block in found.blocks} | {block.norm2.eps for block in found.blocks} == {1e-5}
        assert found.pyramid.levels[0][1].eps == 1e-6


class TestCounts:
    @pytest.mark.parametrize(
        ("name", "total", "of_encoder"),
        [
            ("upernet_vit_b", 103_158_289, 93_513_984),
            ("upernet_vit_l", 327_427_345, 316_734_464),
            ("upernet_vit_h", 663_383_057, 651_641_600),
            ("upernet_vit_b_moe", 160_402_206, 121_834_752),
            ("upernet_vit_l_moe", 435_012_126, 392_250_368),
            ("upernet_vit_h_moe", 824_451_358, 777_495_296),
        ],
    )
    def test_parameters_are_as_many_as_the_papers_count(self, name: str, total: int, of_encoder: int) -> None:
        with torch.device("meta"):
            network = create(name)
        assert sum(parameter.numel() for parameter in network.parameters()) == total
        assert sum(parameter.numel() for parameter in network.get_submodule("encoder").parameters()) == of_encoder

    def test_only_parameters_that_no_pass_uses_are_frozen(self) -> None:
        frozen = {name for name, parameter in small().named_parameters() if not parameter.requires_grad}
        assert frozen == {"encoder.unused_class_token", "decoder.unused_projection.weight", "decoder.unused_projection.bias"}

    def test_a_step_reaches_every_parameter_that_trains(self) -> None:
        network = small().train()
        found = gradients(network, torch.randn(2, 3, 64, 96))
        assert set(found) == {name for name, parameter in network.named_parameters() if parameter.requires_grad}
        assert not [name for name, gradient in found.items() if not gradient.abs().sum() > 0]


class TestAttention:
    def test_explicit_logits_equal_the_fused_operation(self) -> None:
        query, key, value = torch.randn(3, 2, 4, 9, 8).unbind(0)
        bias = torch.randn(4, 9, 9)
        for added in (None, bias):
            torch.testing.assert_close(attend(query, key, value, "explicit", added), attend(query, key, value, "sdpa", added))

    def test_attention_is_the_softmax_of_scaled_products(self) -> None:
        """Oracle: a loop over queries in float64."""
        query, key, value = torch.randn(3, 5, 4, dtype=torch.float64).unbind(0)
        expected = torch.stack([torch.softmax(key @ one / 2, dim=0) @ value for one in query])
        torch.testing.assert_close(attend(query, key, value), expected)

    def test_a_network_computes_the_same_both_ways_gradients_too(self) -> None:
        image = torch.randn(2, 3, 64, 96)
        fused, explicit = small(drop_path=0.0), small(drop_path=0.0, attention="explicit")
        torch.testing.assert_close(fused.eval()(image), explicit.eval()(image), rtol=1e-4, atol=1e-5)
        found = gradients(explicit, image)
        for name, gradient in gradients(fused, image).items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-6, msg=name)

    def test_checkpointing_gives_equal_gradients_with_paths_dropped(self) -> None:
        image = torch.randn(2, 3, 64, 64)
        kept, again = small(drop_path=0.4).train(), small(drop_path=0.4, checkpointing=True).train()
        found = gradients(again, image)
        for name, gradient in gradients(kept, image).items():
            assert torch.equal(found[name], gradient), name

    def test_checkpointing_runs_layers_twice_in_training_only(self) -> None:
        class Counting(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weight = nn.Parameter(torch.ones(()))
                self.runs = 0

            def forward(self, tokens: Tensor) -> Tensor:
                self.runs += 1
                return tokens * self.weight

        layers = nn.ModuleList(Counting() for _ in range(4))
        run_blocks(layers, torch.ones(2, 3), (0, 1, 2, 3), True)[-1].sum().backward()
        assert [layer.runs for layer in layers] == [2, 2, 2, 2]
        run_blocks(layers.eval(), torch.ones(2, 3), (0, 1, 1, 2), True)[-1].sum().backward()
        assert [layer.runs for layer in layers] == [3, 3, 3, 2]
        run_blocks(layers.train(), torch.ones(2, 3), (0, 1, 1, 2), False)[-1].sum().backward()
        assert [layer.runs for layer in layers] == [4, 4, 4, 2]

    def test_a_used_class_token_takes_part_and_leaves_no_trace_in_the_maps(self) -> None:
        network = encoder(class_slot="used", pyramid=False).eval()
        image = torch.randn(1, 3, 64, 96)
        before = network(image)
        assert [tuple(found.shape) for found in before] == [(1, 32, 4, 6)] * 4
        with torch.no_grad():
            network.class_token += 1
        assert not torch.equal(network(image)[0], before[0])

    def test_behind_a_class_token_each_patch_stays_in_its_place(self) -> None:
        """With layers that add nothing, the maps are the patches and their positions."""
        network = encoder(class_slot="used", pyramid=False).eval()
        for block in network.blocks.children():
            for part in ("attention.projection", "feed_forward.contract"):
                nn.init.zeros_(block.get_parameter(f"{part}.weight"))
        image = torch.randn(1, 3, 64, 64)
        positions = network.position_embedding.reshape(1, 4, 4, 32).permute(0, 3, 1, 2)
        torch.testing.assert_close(network(image)[3], network.patch_embedding(image) + positions)


class TestDropPath:
    def test_rates_grow_linearly_to_the_last_layer(self) -> None:
        assert drop_rates(0.1, 3) == [0.0, 0.05, 0.1]
        network: Any = small(drop_path=0.3)
        rates = [block.drop_path.rate for block in network.encoder.blocks]
        assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])

    def test_drops_whole_images_and_keeps_the_mean(self) -> None:
        torch.manual_seed(0)
        dropped = DropPath(0.25).train()(torch.ones(4000, 3, 2))
        assert bool(((dropped == 0) | (dropped == torch.tensor(1.0) / 0.75)).all())
        assert torch.equal(dropped, dropped[:, :1, :1].expand_as(dropped))
        assert float(dropped.mean()) == pytest.approx(1.0, abs=0.04)

    def test_does_nothing_in_evaluation(self) -> None:
        ones = torch.ones(3, 2)
        assert DropPath(0.9).eval()(ones) is ones

    def test_only_the_feed_forward_branch_is_dropped(self) -> None:
        """With the second branch always dropped, a block in training is its attention alone."""
        block: Any = encoder(drop_path=0.5).blocks[-1]
        block.drop_path.rate = 1 - 1e-7
        tokens = torch.randn(2, 6, 32)
        torch.testing.assert_close(block.train()(tokens), tokens + block.attention(block.norm1(tokens)))
        block.drop_attention = True
        torch.testing.assert_close(block(tokens), tokens)


class TestUperNet:
    def test_one_image_in_training_is_answered_with_a_reason(self) -> None:
        network = small().train()
        with pytest.raises(UsageError, match=r"batch norm sees one value per channel .*two images per batch"):
            network(torch.randn(1, 3, 64, 64))

    def test_one_image_is_fine_in_evaluation_and_with_frozen_norms(self) -> None:
        network = small().train()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        network(torch.randn(1, 3, 64, 64))
        network.eval()(torch.randn(1, 3, 64, 64))

    def test_one_image_is_fine_where_nothing_is_pooled_to_one_pixel(self) -> None:
        assert tuple(UperNet([8, 8, 8], 4, pools=(2, 3))([torch.randn(1, 8, side, side) for side in (16, 8, 4)]).shape) == (1, 4, 16, 16)

    def test_takes_any_number_of_levels_and_their_own_widths(self) -> None:
        maps = [torch.randn(2, width, side, side + 1) for width, side in ((3, 20), (5, 9), (7, 4), (9, 2), (11, 1))]
        assert tuple(UperNet([3, 5, 7, 9, 11], 6)(maps).shape) == (2, 6, 20, 21)

    def test_refuses_a_single_level(self) -> None:
        with pytest.raises(ConfigError, match="two scales or more"):
            UperNet([8])

    def test_logits_are_enlarged_with_the_centres_of_corner_pixels_in_place(self) -> None:
        """So a slope stays one slope from corner to corner, with no flat margin."""
        head = ClassHead(1, 1).eval()
        nn.init.ones_(head.convolution.weight)
        nn.init.zeros_(head.convolution.bias)
        logits = head(torch.arange(6.0).expand(1, 1, 5, 6))
        torch.testing.assert_close(logits, torch.linspace(0, 5, 24).expand(1, 1, 20, 24))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 5}, "heads=5 does not divide width=32"),
        ({"taps": (0, 1, 2)}, "four layers from 0 to 3"),
        ({"taps": (0, 1, 2, 4)}, "four layers from 0 to 3"),
        ({"taps": (1, 0, 2, 3)}, "shallow to deep"),
        ({"patch": 14}, "8 or 16 pixels"),
        ({"size": "g"}, "size='g' is not known; choices: b, h, l"),
        ({"attention": "sdp"}, "did you mean 'sdpa'"),
        ({"drop_path": 1.0}, "drop_path=1.0 is not a share"),
        ({"deep": 3}, "takes no option 'deep'; did you mean 'depth'"),
    ],
)
def test_options_that_make_no_sense_are_answered_with_those_that_do(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        small(**options)


def test_the_same_seed_gives_the_same_fresh_weights() -> None:
    first, second, third = small(seed=1).state_dict(), small(seed=1).state_dict(), small(seed=2).state_dict()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert not torch.equal(first["encoder.position_embedding"], third["encoder.position_embedding"])
    assert float(first["encoder.blocks.0.feed_forward.expand.weight"].std()) == pytest.approx(0.02, rel=0.1)


def test_the_pyramid_of_patches_of_8_pixels_has_one_enlargement() -> None:
    kinds = [[type(part).__name__ for part in level.modules()][-1] for level in FeaturePyramid(8, enlarge=2).levels]
    assert kinds == ["ConvTranspose2d", "Identity", "MaxPool2d", "MaxPool2d"]


@pytest.mark.parametrize("patch", [16, 8])
def test_survives_export_and_computes_the_same(patch: int) -> None:
    network = small(patch=patch).eval()
    image = torch.randn(1, 3, 96, 70)
    exported = torch.export.export(network, (image,)).module()
    torch.testing.assert_close(exported(image), network(image))
