"""Masks, the decoder and the loss of MAE against loops written out, and the encoder against itself."""

import numpy as np
import pytest
import torch

from support.training_sample import SCHEME
from tilth.errors import ConfigError
from tilth.models.config import NetworkConfig
from tilth.models.mae import MaskedAutoencoder, MaskedDecoder, draw_visible, masked_patches, painting_error, to_patches
from tilth.models.segmenter import build_segmenter
from tilth.models.vision_transformers.positions import sine_cosine_positions
from tilth.sensors import get_sensor

SMALL = {"width": 24, "depth": 4, "heads": 3, "decoder_channels": 8}
NETWORKS = {
    "ours": NetworkConfig(name="upernet_vit_b", image_size=64, options=SMALL),
    "ours, patch 8": NetworkConfig(name="upernet_vit_b", image_size=64, options=SMALL | {"patch": 8}),
    "ours with class token": NetworkConfig(name="cromss_upernet_vit_l", image_size=64, options=SMALL),
    "timm": NetworkConfig(encoder="test_vit", decoder="upernet", image_size=64, options={"decoder_channels": 8}),
    "timm with registers": NetworkConfig(
        encoder="vit_small_patch14_reg4_dinov2",
        decoder="upernet",
        image_size=56,
        options={"decoder_channels": 8, "encoder_options": {"embed_dim": 24, "depth": 4, "num_heads": 3}},
    ),
}


def build(name: str = "ours", sensor: str = "rgb") -> MaskedAutoencoder:
    torch.manual_seed(0)
    return MaskedAutoencoder(build_segmenter(NETWORKS[name], get_sensor(sensor), SCHEME), width=16, depth=2, heads=2)


def sides(model: MaskedAutoencoder) -> tuple[int, int]:
    return 5 * model.patch, 4 * model.patch


@pytest.mark.parametrize(("patches", "ratio", "expected"), [(196, 0.75, 49), (100, 0.9, 10), (10, 0.75, 2), (3, 0.9, 1), (12, 0.0, 12)])
def test_every_image_has_exactly_as_many_visible_patches_as_the_ratio_leaves(patches, ratio, expected):
    visible = draw_visible(range(20), patches, ratio)
    assert visible.shape == (20, expected)
    for places in visible.tolist():
        assert places == sorted(set(places))
        assert 0 <= places[0] <= places[-1] < patches
    assert (masked_patches(visible, patches).sum(1) == patches - expected).all()


def test_a_mask_depends_on_its_samples_seed_alone():
    together = draw_visible([3, 4, 5], 64, 0.75)
    assert torch.equal(together[1], draw_visible([4], 64, 0.75)[0])
    assert not torch.equal(together[0], together[1])


def test_all_patches_are_visible_equally_often():
    counts = torch.bincount(draw_visible(range(4000), 16, 0.75).flatten(), minlength=16)
    assert (counts - 1000).abs().max() < 5 * (1000 * 0.75) ** 0.5


def test_a_crop_of_one_patch_cannot_hide_any():
    with pytest.raises(ConfigError, match=r"enlarge weak\.size"):
        draw_visible([1], 1, 0.75)


def test_patches_hold_rows_columns_bands_in_this_order():
    image = torch.randn(2, 3, 8, 12)
    found = to_patches(image, 4)
    assert found.shape == (2, 6, 48)
    for patch in range(6):
        row, column = divmod(patch, 3)
        for place in range(48):
            y, x, band = place // 12, place // 3 % 4, place % 3
            assert torch.equal(found[:, patch, place], image[:, band, 4 * row + y, 4 * column + x])


def test_fixed_positions_are_sines_and_cosines_of_column_and_row():
    found = sine_cosine_positions((3, 5), 8)[0].double().numpy()
    for place in range(15):
        row, column = divmod(place, 5)
        angles = [axis / 10000 ** (i / 2) for axis in (column, row) for i in (0, 1)]
        expected = [*np.sin(angles[:2]), *np.cos(angles[:2]), *np.sin(angles[2:]), *np.cos(angles[2:])]
        np.testing.assert_allclose(found[place], expected, atol=1e-7)


def loop_error(predicted, image, valid, visible, patch, normalised):
    """The loss written out in loops over patches and their values, in double precision."""
    images, bands, height, width = image.shape
    total, count = 0.0, 0
    for sample in range(images):
        for number in range((height // patch) * (width // patch)):
            if number in visible[sample].tolist():
                continue
            top, left = (axis * patch for axis in divmod(number, width // patch))
            values, guesses = [], []
            for place in range(patch * patch):
                y, x = divmod(place, patch)
                for band in range(bands):
                    if valid[sample, top + y, left + x]:
                        values.append(float(image[sample, band, top + y, left + x]))
                        guesses.append(float(predicted[sample, number, place * bands + band]))
            if not values:
                continue
            target = np.array(values)
            if normalised:
                spread = target.var(ddof=1) if len(target) > 1 else 0.0
                target = (target - target.mean()) / np.sqrt(spread + 1e-6)
            total += float(((np.array(guesses) - target) ** 2).sum())
            count += len(target)
    return total, count


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("bands", [1, 3, 14])
def test_error_equals_the_loops_with_pixels_that_do_not_count(bands, normalised):
    draw = torch.Generator().manual_seed(bands)
    image = 3 + 2 * torch.randn(3, bands, 12, 16, generator=draw)
    valid = torch.rand(3, 12, 16, generator=draw) < 0.7
    valid[0, :4, :8] = False  # two patches without any valid pixel
    valid[1, 4:8, 4:8] = False
    valid[1, 5, 5] = True  # one with a single one
    valid[2] = False
    visible = draw_visible([1, 2, 3], 12, 0.75)
    predicted = torch.randn(3, 12, 16 * bands, generator=draw)
    error, count = painting_error(predicted, image, valid, visible, 4, normalised)
    expected, number = loop_error(predicted, image, valid, visible, 4, normalised)
    assert int(count) == number
    assert float(error) == pytest.approx(expected, rel=2e-5)


def test_where_all_is_valid_the_quotient_is_the_loss_of_the_paper():
    image, predicted = torch.randn(2, 3, 8, 8), torch.randn(2, 4, 48)
    visible = torch.tensor([[0], [2]])
    error, count = painting_error(predicted, image, torch.ones(2, 8, 8, dtype=torch.bool), visible, 4)
    target = to_patches(image, 4)
    target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6) ** 0.5
    mask = masked_patches(visible, 4).float()
    expected = (((predicted - target) ** 2).mean(-1) * mask).sum() / mask.sum()
    assert float(error / count) == pytest.approx(float(expected), rel=1e-5)


def test_what_does_not_count_has_no_gradient_even_if_it_was_painted_wildly():
    image = torch.randn(1, 2, 8, 8)
    valid = torch.zeros(1, 8, 8, dtype=torch.bool)
    valid[0, :4] = True
    predicted = torch.randn(1, 4, 32)
    predicted[0, 2:] = torch.inf
    predicted.requires_grad_()
    error, count = painting_error(predicted, image, valid, torch.tensor([[0]]), 4)
    error.backward()
    assert int(count) == 32
    assert torch.isfinite(error)
    assert predicted.grad[0, 1].abs().min() > 0
    assert not predicted.grad[0, [0, 2, 3]].any()


def test_an_image_without_valid_pixels_costs_nothing():
    predicted = torch.randn(1, 4, 16, requires_grad=True)
    error, count = painting_error(predicted, torch.full((1, 1, 8, 8), 7.0), torch.zeros(1, 8, 8, dtype=torch.bool), torch.tensor([[1]]), 4)
    error.backward()
    assert float(error.detach()) == 0
    assert int(count) == 0
    assert not predicted.grad.any()


@pytest.mark.parametrize("name", NETWORKS)
def test_with_every_patch_visible_tokens_are_those_of_the_plain_encoder(name):
    model = build(name).eval()
    encoder = model.model.network.encoder
    image = torch.randn(2, 3, *sides(model))
    plain = []
    handle = encoder.pyramid if encoder.pyramid is not None else model.model.network.decoder
    hook = handle.register_forward_pre_hook(lambda _module, given: plain.append(given[0][-1]))
    with torch.no_grad():
        model.model(image)
        found = encoder.visible_tokens(image, draw_visible([1, 2], 20, 0.0))
    hook.remove()
    torch.testing.assert_close(found, plain[0].flatten(2).transpose(1, 2), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_hidden_pixels_do_not_reach_the_painting(name):
    model = build(name).eval()
    image = torch.randn(2, 3, *sides(model))
    visible = draw_visible([1, 2], 20, 0.75)
    hidden = masked_patches(visible, 20).reshape(2, 5, 4).repeat_interleave(model.patch, 1).repeat_interleave(model.patch, 2)
    with torch.no_grad():
        first = model(image, visible)
        second = model(torch.where(hidden.unsqueeze(1), torch.full_like(image, 99.0), image), visible)
    assert torch.equal(first, second)
    assert not torch.equal(first, model(image + 1, visible))


@pytest.mark.parametrize("name", NETWORKS)
def test_gradient_reaches_every_weight_that_is_trained_and_no_other(name):
    model = build(name)
    image = torch.randn(2, 3, *sides(model))
    visible = draw_visible([1, 2], 20, 0.5)
    valid = torch.ones(2, *image.shape[-2:], dtype=torch.bool)
    painting_error(model(image, visible), image, valid, visible, model.patch)[0].backward()
    for part, parameter in model.named_parameters():
        trained = part.startswith(("decoder.", "model.network.encoder.")) and ".pyramid." not in part and ".unused_" not in part
        assert parameter.requires_grad == trained, part
        assert (parameter.grad is not None) == trained, part
        if trained:
            assert parameter.grad.abs().sum() > 0, part


def test_positions_of_hidden_patches_take_no_gradient():
    model = build()
    visible = torch.tensor([[1, 6], [1, 11]])
    encoder = model.model.network.encoder
    # On the grid that they were made for, so that no interpolation spreads them.
    model(torch.randn(2, 3, 64, 64), visible).sum().backward()
    reached = encoder.position_embedding.grad[0].abs().sum(-1).nonzero().flatten().tolist()
    assert reached == [1, 6, 11]


def test_decoder_puts_tokens_at_their_places_and_the_mask_token_elsewhere():
    torch.manual_seed(1)
    decoder = MaskedDecoder(8, 6, width=8, depth=1, heads=2)
    seen, visible = torch.randn(1, 2, 8), torch.tensor([[1, 4]])
    entered = []
    decoder.blocks[0].register_forward_pre_hook(lambda _module, given: entered.append(given[0]))
    assert decoder(seen, visible, (2, 3)).shape == (1, 6, 6)
    plain = entered[0] - sine_cosine_positions((2, 3), 8)
    for place in range(6):
        expected = decoder.entry(decoder.entry_norm(seen))[0, [1, 4].index(place)] if place in (1, 4) else decoder.mask_token[0, 0]
        torch.testing.assert_close(plain[0, place], expected)


def test_no_branch_is_dropped_in_training():
    for name in ("ours", "timm"):
        model = build(name).train()
        image, visible = torch.randn(4, 3, 64, 48), draw_visible(range(4), (64 // 16) * (48 // 16), 0.75)
        assert torch.equal(model(image, visible), model(image, visible))


def test_start_positions_are_sine_and_cosine_behind_class_tokens():
    for name in ("ours", "timm with registers"):
        encoder = build(name).model.network.encoder
        encoder.start_positions()
        table = encoder.position_embedding if name == "ours" else encoder.backbone.pos_embed
        torch.testing.assert_close(table[:, -16:], sine_cosine_positions((4, 4), 24))
        assert table.requires_grad


@pytest.mark.parametrize(
    "network",
    [
        NetworkConfig(encoder="test_byobnet", decoder="unet"),
        NetworkConfig(name="upernet_swin_t"),
        NetworkConfig(name="upernet_vit_b_rvsa", image_size=112),
        NetworkConfig(encoder="eva02_tiny_patch14_224", decoder="upernet", image_size=56),
    ],
    ids=lambda network: network.title,
)
def test_other_encoders_are_refused_by_name(network):
    with torch.device("meta"):
        model = build_segmenter(network, get_sensor("rgb"), SCHEME)
    with pytest.raises(ConfigError, match=r"cannot leave patches out; choose a plain ViT: network.name=upernet_vit_b"):
        MaskedAutoencoder(model)


def test_decoder_width_that_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="multiple of 4"):
        MaskedDecoder(8, 6, width=6, depth=1, heads=2)
