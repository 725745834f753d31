"""Heads over tapped maps: the published formula, the exact saving, sizes."""

import numpy as np
import pytest
import torch
from torch import nn

import tilth
from support.official_ddpm import arrays, value
from tilth.errors import ConfigError
from tilth.models.diffusion.segmentor import PixelBlock, PixelSegmentor, UperSegmentor
from tilth.models.diffusion.taps import LevelTaps, join_levels, stack_levels

WIDTHS = (512, 512, 256, 128)
"""Of ``ddpm_sr3_64``, from H/16 to H/2."""


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def formula_head(**options) -> PixelSegmentor:
    """The head of the fixture with its values, under the names of the recipe."""
    head = PixelSegmentor((16, 16, 8, 4), 5, **options)
    values = {}
    for name, tensor in head.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        shape = tuple(tensor.shape[:2]) if tensor.dim() == 4 else tuple(tensor.shape)
        values[name] = value(name.replace(".norm", ".bn"), shape).reshape(tensor.shape)
    head.load_state_dict(values, strict=False)
    return head


def formula_features() -> list[torch.Tensor]:
    sizes = zip((16, 16, 8, 4), (16, 8, 4, 2), strict=True)
    shapes = [(2, width, 32 // stride, 32 // stride) for width, stride in sizes]
    return [torch.cat([value(f"input:feat.l{level}.t{time}", shape) for time in range(3)], dim=1) for level, shape in enumerate(shapes)]


@pytest.mark.parametrize("products", ["native", "plain"])
@pytest.mark.parametrize("training", [False, True])
def test_pixel_head_computes_the_published_formula(products, training):
    found = {key.partition("/")[2]: array for key, array in arrays("segmentor_formula.npz").items() if key.startswith(f"train{training:d}")}
    features = formula_features()
    with torch.no_grad():
        for level, feature in enumerate(features):
            head = formula_head(products=products).train(training)
            np.testing.assert_allclose(head.levels[level](feature).numpy(), found[f"level{level}"], atol=1e-4, rtol=0)
        logits = head(features)
        np.testing.assert_allclose(logits.numpy(), found["logits"], atol=1e-4, rtol=0)
        np.testing.assert_allclose(logits.softmax(1).numpy(), found["prob"], atol=1e-4, rtol=0)
        np.testing.assert_allclose(head(features, (32, 32)).numpy(), found["logits_full"], atol=1e-4, rtol=0)


def maps(widths, noise_levels, height, width, strides=(16, 8, 4, 2), batch=2):
    return [
        torch.randn(batch, noise_levels * channels, height // stride, width // stride)
        for channels, stride in zip(widths, strides, strict=True)
    ]


@pytest.mark.parametrize("size", [(16, 16), (48, 80)])
@pytest.mark.parametrize("pool_before", [False, True])
@pytest.mark.parametrize("strides", [(16, 8, 4, 2), (16, 8), (2, 16, 4)])
def test_products_at_native_size_equal_the_plain_order_in_values_and_gradients(size, pool_before, strides):
    widths = (12, 10, 6, 4)[: len(strides)]
    features = maps(widths, 2, *size, strides)
    results = []
    for products in ("native", "plain"):
        torch.manual_seed(3)
        head = PixelSegmentor(widths, 5, noise_levels=2, strides=strides, products=products, pool_before=pool_before)
        nn.init.normal_(head.fuse.linear1.bias)
        logits = head(features)
        logits.square().mean().backward()
        gradients = [parameter.grad for parameter in head.parameters() if parameter.grad is not None]
        assert len(gradients) == len(list(head.parameters()))
        results.append((logits.detach(), gradients))
    assert torch.allclose(results[0][0], results[1][0], atol=1e-5)
    for native, plain in zip(results[0][1], results[1][1], strict=True):
        assert torch.allclose(native, plain, atol=1e-5)


@pytest.mark.parametrize(
    ("widths", "noise_levels", "millions"),
    [(WIDTHS, 2, 10.07), (WIDTHS, 1, 5.82), ((1024, 1024, 512, 256), 3, 66.9), ((1024, 512, 512, 256), 3, 45.1)],
)
def test_pixel_head_is_as_large_as_published(widths, noise_levels, millions):
    with torch.device("meta"):
        head = PixelSegmentor(widths, 12, noise_levels=noise_levels)
    digits = 2 if millions < 20 else 1
    assert round(sum(parameter.numel() for parameter in head.parameters()) / 1e6, digits) == millions


def test_pixel_head_of_the_default_network_has_its_parameters():
    with torch.device("meta"):
        head = PixelSegmentor(WIDTHS, 12)
    blocks = [sum(parameter.numel() for parameter in block.parameters()) for block in (*head.levels, head.fuse)]
    assert blocks == [5_514_752, 5_514_752, 1_381_120, 346_496, 3_990_284]
    assert sum(blocks) == 16_747_404


def test_uper_head_has_its_parameters():
    with torch.device("meta"):
        head = UperSegmentor(WIDTHS, 12)
    assert round(sum(parameter.numel() for parameter in head.parameters()) / 1e6, 1) == 37.6


def test_pixels_do_not_see_each_other_within_a_block():
    block = PixelBlock(6, 3).eval()
    x = torch.randn(1, 6, 4, 4)
    changed = x.clone()
    changed[..., 0, 0] += 1
    moved = (block(x) != block(changed)).any(dim=1)[0]
    assert moved[0, 0]
    assert moved.sum() == 1


def test_averaging_before_the_finest_block_is_another_network():
    features = maps((8, 8, 4, 4), 3, 32, 32)
    heads = []
    for pool_before in (False, True):
        torch.manual_seed(1)
        heads.append(PixelSegmentor((8, 8, 4, 4), 5, pool_before=pool_before).eval())
    assert heads[1](features).shape == heads[0](features).shape
    assert not torch.allclose(heads[0](features), heads[1](features), atol=1e-3)
    averaged = [*features[:3], nn.functional.avg_pool2d(features[3], 2).repeat_interleave(2, -1).repeat_interleave(2, -2)]
    assert torch.allclose(heads[1](features), heads[0](averaged), atol=1e-5)


@pytest.mark.parametrize("kind", [PixelSegmentor, UperSegmentor])
@pytest.mark.parametrize("size", [(64, 64), (50, 75)])
def test_taps_and_head_make_a_map_of_the_size_of_the_image(kind, size):
    network = tilth.models.create("ddpm_sr3_64", width=8, norm_groups=4, res_blocks=1, multipliers=(1, 1, 2, 2, 2)).eval()
    select = LevelTaps()
    options = {"channels": 16} if kind is UperSegmentor else {}
    head = kind(select.widths(network), 5, noise_levels=2, **options)
    clean = torch.rand(2, 3, *size) * 2 - 1
    images, levels = stack_levels([clean + 0.1 * torch.randn_like(clean) for _ in range(2)], [0.99, 0.9])
    features = [join_levels(feature, 2) for feature in select.extract(network, images, levels)]
    padded = [side + -side % 16 for side in size]
    finest = 4 if kind is PixelSegmentor else 2
    assert head(features).shape == (2, 5, padded[0] // finest, padded[1] // finest)
    logits = head(features, size)
    assert logits.shape == (2, 5, *size)
    logits.square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in head.parameters())
    if kind is PixelSegmentor:
        whole = nn.functional.interpolate(head(features), size=padded, mode="bilinear", align_corners=False)
        assert torch.allclose(logits, whole[..., : size[0], : size[1]], atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: PixelSegmentor((8, 8), 5), "2 widths for 4 levels"),
        (lambda: PixelSegmentor((8, 8, 4, 4), 5, products="fast"), "products: unknown 'fast'"),
        (lambda: UperSegmentor((8, 8), 5, strides=(4, 8)), "give the largest stride first"),
        (lambda: PixelSegmentor((8, 8, 4, 4), 5)(maps((8, 8, 4, 4), 3, 32, 32)[:3]), "3 maps for 4 levels"),
        (
            lambda: PixelSegmentor((8, 8, 4, 4), 5)(maps((8, 8, 4, 4), 3, 32, 32)[::-1]),
            "maps of 16 x 16, 8 x 8, 4 x 4, 2 x 2 are not of one",
        ),
    ],
)
def test_maps_that_do_not_fit_the_head_are_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
