"""Noise predictors compute what the public programs compute, hand out what is asked for, and run nothing behind it."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import tilth
from support.official_ddpm import PUBLISHED, arrays, filled, network_of, value
from tilth.errors import ConfigError
from tilth.models.diffusion import unet
from tilth.models.diffusion.embeddings import Embedding, noise_level_embedding, time_embedding
from tilth.models.diffusion.layers import SpatialAttention
from tilth.models.diffusion.taps import LevelTaps, join_levels, stack_levels

MINI = {"width": 8, "norm_groups": 4, "res_blocks": 1}
"""The published networks, made small: five and six levels."""
TINY = [("tiny_sr3", 0.7), ("tiny_gd", 500)]


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def mini(kind: str, **options) -> nn.Module:
    name = {"sr3": "ddpm_sr3_64", "guided": "ddpm_guided_256"}[kind]
    widths = {"multipliers": (1, 1, 2, 2, 2)} if kind == "sr3" else {"multipliers": (1, 1, 2, 2, 2, 2), "head_width": 8}
    return tilth.models.create(name, **{**MINI, **widths, **options})


def awake(network: nn.Module) -> nn.Module:
    """Fill what starts as zeros, which would hide everything before it."""
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.05)
    return network


class Refusing(nn.Module):
    def forward(self, *_):
        raise AssertionError("a stage behind the last tap was run")


# --- numbers of the public programs


def test_embeddings_match():
    found = arrays("embeddings.npz")
    for width in (64, 256):
        ours = time_embedding(torch.from_numpy(found["gd_t"]), width).numpy()
        late = found["gd_t"] > 500
        np.testing.assert_allclose(ours[~late], found[f"gd_dim{width}"][~late], atol=2e-6)
        np.testing.assert_allclose(ours[late], found[f"gd_dim{width}"][late], atol=1e-4)
    for width in (64, 128):
        ours = noise_level_embedding(torch.from_numpy(found["sr3_level"])[:, 0], width).numpy()
        np.testing.assert_allclose(ours, found[f"sr3_dim{width}"], atol=2e-6)


def test_embed_scale_multiplies_the_level():
    level = torch.tensor([0.3, 0.7])
    assert torch.equal(noise_level_embedding(level, 16, 100.0), noise_level_embedding(level * 100, 16))
    assert not torch.allclose(noise_level_embedding(level, 16, 100.0), noise_level_embedding(level, 16), atol=0.1)
    torch.manual_seed(1)
    plain = mini("sr3")
    torch.manual_seed(1)
    scaled = mini("sr3", embed_scale=100.0)
    image = torch.randn(1, 3, 16, 16)
    plain.eval(), scaled.eval()
    assert torch.allclose(plain(image, 50.0), scaled(image, 0.5), atol=1e-5)
    assert not torch.allclose(plain(image, 0.5), scaled(image, 0.5), atol=1e-5)


def assert_stages(network: nn.Module, file: str, *, out: float, stages: float) -> None:
    """Every stage in execution order, and what comes out."""
    found = arrays(file)
    image = value(str(found["x_crc_name"]), (1, 3, 64, 64))
    level = torch.from_numpy(found["level"] if "level" in found else found["t"])
    with torch.no_grad():
        predicted = network.eval()(image, level)
        maps = network.features(image, level, list(network.taps()))
    np.testing.assert_allclose(predicted.numpy(), found["out"], atol=out, rtol=0)
    names = [key.removesuffix("/sub") for key in found if key.endswith("/sub")]
    for name, (tap, feature) in zip(names, maps.items(), strict=True):
        assert feature.shape == tuple(found[f"{name}/shape"]), (name, tap)
        flat = feature.flatten().numpy()
        picked = flat[:: max(1, flat.size // 256)][:256]
        np.testing.assert_allclose(picked, found[f"{name}/sub"], atol=stages, rtol=0, err_msg=f"{name} {tap}")
        wide = flat.astype(np.float64)
        statistics = [wide.mean(), wide.std(), wide.min(), wide.max()]
        np.testing.assert_allclose(statistics, found[f"{name}/stats"], atol=stages, rtol=0, err_msg=f"{name} {tap}")


@pytest.mark.parametrize(("name", "file"), [("gd_small", "fwd_gd_small_64.npz"), ("sr3_small", "fwd_sr3_small_64.npz")])
def test_every_stage_of_the_small_networks_matches(name, file):
    assert_stages(filled(name), file, out=1e-4, stages=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "file"),
    [("sr3_64", "fwd_sr3_64_64.npz"), ("ddpmcd_128", "fwd_ddpmcd_sr3_128_64.npz"), ("gd256", "fwd_gd256_64.npz")],
)
def test_every_stage_of_the_published_networks_matches(name, file):
    assert_stages(filled(name), file, out=3e-4, stages=5e-4)


@pytest.mark.parametrize(("name", "key", "level"), [("tiny_gd", "tiny_gd/eps_t500", 500), ("tiny_sr3", "tiny_sr3/eps_l0p7", 0.7)])
@pytest.mark.parametrize("attention", ["sdpa", "explicit"])
def test_tiny_networks_match(name, key, level, attention):
    network = filled(name, attention=attention).eval()
    with torch.no_grad():
        predicted = network(value("input:xT", (2, 3, 16, 16)), level)
    np.testing.assert_allclose(predicted.numpy(), arrays("trajectories_tiny.npz")[key], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("sr3_64", 97_805_763),
        ("ddpmcd_128", 391_048_067),
        ("sr3_small", 24_473_315),
        ("gd256", 552_814_086),
        ("iddpm128", 118_798_470),
        ("gd_small", 24_408_326),
    ],
)
def test_parameters_are_as_many_as_published(name, parameters):
    with torch.device("meta"):
        network = network_of(name)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_attention_only_in_the_middle_and_none_have_their_published_counts():
    with torch.device("meta"):
        middle = network_of("sr3_64", attention_strides=())
        none = network_of("sr3_64", attention_strides=(), middle_attention=False)
    counts = [sum(parameter.numel() for parameter in network.parameters()) for network in (middle, none)]
    assert [round(count / 1e6, 2) for count in counts] == [92.56, 91.51]


def test_attention_stays_where_it_was_published_whatever_the_image():
    with torch.device("meta"):
        small, large = (tilth.models.create("ddpm_sr3_64", image_size=size) for size in (64, 1024))
    assert small.state_dict().keys() == large.state_dict().keys()
    assert [place for place, stage in enumerate(small.encoder) if stage.attention is not None] == [13, 14]


# --- taps


def test_taps_are_listed_in_order_of_execution_with_width_and_stride():
    with torch.device("meta"):
        sr3, guided = network_of("sr3_64"), network_of("gd256")
    taps = list(sr3.taps().values())
    assert [(tap.name, tap.width, tap.stride) for tap in taps[12:20]] == [
        ("enc/16/0", 512, 16),
        ("enc/16/1", 512, 16),
        ("enc/16/2", 512, 16),
        ("mid", 512, 16),
        ("dec/16/0", 512, 16),
        ("dec/16/1", 512, 16),
        ("dec/16/2", 512, 16),
        ("dec/8/0", 512, 8),
    ]
    decoder = [tap for tap in guided.taps().values() if tap.name.startswith("dec")]
    assert [tap.stride for tap in decoder] == [32] * 2 + [16] * 3 + [8] * 3 + [4] * 3 + [2] * 3 + [1] * 4
    assert [tap.width for tap in decoder] == [1024] * 6 + [512] * 6 + [256] * 6
    assert decoder[4].name == "dec/16/2"


@pytest.mark.parametrize("kind", ["sr3", "guided"])
def test_maps_have_the_listed_widths_and_strides(kind):
    network = mini(kind).eval()
    taps = network.taps()
    maps = network.features(torch.randn(1, 3, 64, 96), 0.5, list(taps))
    assert list(maps) == list(taps)
    for name, feature in maps.items():
        assert feature.shape == (1, taps[name].width, 64 // taps[name].stride, 96 // taps[name].stride)


@pytest.mark.parametrize("kind", ["sr3", "guided"])
def test_early_exit_gives_the_same_bits_and_runs_nothing_behind_the_last_tap(kind):
    network = awake(mini(kind)).eval()
    image, level = torch.randn(2, 3, 64, 64), torch.tensor([0.9, 0.3])
    order = list(network.taps())
    with torch.no_grad():
        whole = network.features(image, level, order)
        network.output = Refusing()
        for place in reversed(range(len(order))):
            early = network.features(image, level, order[place : place + 1])
            assert list(early) == [order[place]]
            assert torch.equal(early[order[place]], whole[order[place]]), order[place]
            refuse(network, order[place])


def refuse(network: nn.Module, name: str) -> None:
    if name == "mid":
        network.middle = Refusing()
        return
    stages = network.encoder if name.startswith("enc") else network.decoder
    side = [tap for tap in network.taps() if tap[:3] == name[:3]]
    stages[side.index(name)] = Refusing()


@pytest.mark.parametrize(
    ("name", "last", "percent"), [("sr3_64", "dec/2/2", 20.0), ("sr3_64", "dec/2/0", 27.9), ("gd256", "dec/2/2", 43.4)]
)
def test_early_exit_saves_the_published_share_of_products(name, last, percent):
    # 43.4 is the specification's 40.6 for what lies at full size, and the part of output block 14 that runs before it is enlarged.
    with torch.device("meta"):
        network = network_of(name).eval()
        image, level = torch.empty(1, 3, 256, 256), torch.ones(1)
        counts = []
        for run in (lambda: network(image, level), lambda: network.features(image, level, [last])):
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                run()
            operations = counter.get_flop_counts()["Global"]
            counts.append(
                sum(count for operation, count in operations.items() if "convolution" in str(operation) or "addmm" in str(operation))
            )
    assert round(100 * (1 - counts[1] / counts[0]), 1) == percent


def test_taps_come_in_the_order_asked_for_even_across_sides():
    network = mini("sr3").eval()
    wanted = ["dec/8/1", "enc/2/1", "mid", "dec/16/0"]
    assert list(network.features(torch.randn(1, 3, 32, 32), 0.5, wanted)) == wanted


def test_several_noise_levels_on_the_batch_equal_separate_passes():
    for name, levels in (("tiny_sr3", (0.95, 0.8, 0.5)), ("tiny_gd", (50, 100, 150))):
        network = filled(name).eval()
        images = [torch.randn(2, 3, 16, 16) for _ in levels]
        taps = list(network.taps())
        with torch.no_grad():
            together = network.features(*stack_levels(images, levels), taps)
            apart = [network.features(image, level, taps) for image, level in zip(images, levels, strict=True)]
        for tap in taps:
            expected = torch.cat([maps[tap] for maps in apart], dim=1)
            assert torch.allclose(join_levels(together[tap], 3), expected, atol=1e-4), tap
        assert not torch.allclose(apart[0]["mid"], apart[2]["mid"], atol=1e-2)


def test_levels_are_taken_as_the_families_are_used():
    with torch.device("meta"):
        sr3, guided = network_of("sr3_64"), network_of("gd256")
    usual = LevelTaps()
    assert usual.names(sr3) == ["dec/16/0", "dec/8/0", "dec/4/0", "dec/2/0"]
    assert usual.widths(sr3) == [512, 512, 256, 128]
    # Output blocks 4, 7, 10 and 13.
    assert usual.names(guided) == ["dec/16/2", "dec/8/2", "dec/4/2", "dec/2/2"]
    assert usual.widths(guided) == [1024, 512, 512, 256]
    encoder = LevelTaps(side="encoder")
    assert encoder.names(sr3) == ["enc/16/2", "enc/8/2", "enc/4/2", "enc/2/2"]
    assert LevelTaps(reduce="concat").widths(sr3) == [1536, 1536, 768, 384]
    assert LevelTaps(reduce="mean").widths(sr3) == [512, 512, 256, 128]
    with pytest.raises(ConfigError, match=r"different widths have no mean \(dec/8/0 1024, dec/8/1 512, dec/8/2 512\)"):
        LevelTaps(reduce="mean").names(guided)


def test_levels_are_reduced():
    network = mini("sr3").eval()
    image = torch.randn(1, 3, 32, 32)
    maps = network.features(image, 0.5, list(network.taps()))
    level = [maps["dec/8/0"], maps["dec/8/1"]]
    expected = {"first": level[0], "last": level[1], "mean": (level[0] + level[1]) / 2, "concat": torch.cat(level, dim=1)}
    for reduce, wanted in expected.items():
        (found,) = LevelTaps(strides=(8,), reduce=reduce).extract(network, image, 0.5)
        assert torch.equal(found, wanted), reduce


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda network, image: network.features(image, 0.5, []), "no tap is asked for"),
        (lambda network, image: network.features(image, 0.5, ["dec/8/7"]), "unknown tap 'dec/8/7'; did you mean 'dec/8/"),
        (lambda network, image: network(image, torch.ones(3)), "3 noise levels for 2 images"),
        (lambda network, image: LevelTaps(strides=(64,)).names(network), "decoder has no level 64; it has 1, 2, 4, 8, 16"),
        (lambda network, image: LevelTaps(reduce="median").names(network), "reduce: unknown 'median'"),
        (lambda network, image: LevelTaps(side="middle").names(network), "side: unknown 'middle'"),
        (lambda network, image: stack_levels([image], [0.5, 0.6]), "1 batches of images, 2 noise levels"),
        (lambda network, image: join_levels(torch.ones(4, 1, 1, 1), 3), "a batch of 4 does not hold 3"),
    ],
)
def test_what_cannot_be_tapped_is_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call(mini("sr3").eval(), torch.randn(2, 3, 16, 16))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ddpm_sr3_64", {"norm_groups": 48}, "norm_groups 48 does not divide a width of 64"),
        ("ddpm_sr3_64", {"attention_strides": (32,)}, "5 levels have strides 1, 2, 4, 8, 16, not 32"),
        ("ddpm_sr3_64", {"attention": "flash"}, "attention: unknown 'flash'"),
        ("ddpm_sr3_64", {"schedule": "cosine"}, "schedule: only sr3_linear or nothing can be exported, not 'cosine'"),
        ("ddpm_guided_256", {"head_width": 96}, "head_width 96 does not divide a width of 512"),
        ("ddpm_guided_256", {"head_width": None, "heads": 3}, "3 heads do not divide a width of 512"),
        ("ddpm_guided_256", {"head_order": "old"}, "head_order: unknown 'old'"),
        ("ddpm_guided_256", {"width": 33, "norm_groups": 33, "head_width": 33}, "width 33: .* give an even number"),
    ],
)
def test_networks_that_make_no_sense_are_refused(name, options, message):
    with torch.device("meta"), pytest.raises(ConfigError, match=message):
        tilth.models.create(name, **options)


# --- inputs, options, training


@pytest.mark.parametrize("kind", ["sr3", "guided"])
@pytest.mark.parametrize("size", [(64, 64), (75, 50), (33, 129), (5, 7)])
def test_images_of_any_size_are_padded_by_their_border_and_cut_back(kind, size):
    network = awake(mini(kind)).eval()
    image = torch.randn(1, 3, *size)
    bottom, right = (-side % network.divisor for side in size)
    by_hand = torch.from_numpy(np.pad(image.numpy(), ((0, 0), (0, 0), (0, bottom), (0, right)), mode="edge"))
    with torch.no_grad():
        predicted = network(image, 0.5)
        assert predicted.shape == (1, 3 if kind == "sr3" else 6, *size)
        assert torch.equal(predicted, network(by_hand, 0.5)[..., : size[0], : size[1]])
        feature = network.features(image, 0.5, ["dec/4/0"])["dec/4/0"]
        assert feature.shape[-2:] == ((size[0] + bottom) // 4, (size[1] + right) // 4)


@pytest.mark.parametrize(("bands", "learned", "out"), [(1, True, 2), (4, True, 8), (4, False, 4), (13, False, 13)])
def test_any_number_of_bands(bands, learned, out):
    image = torch.randn(1, bands, 32, 32)
    assert mini("sr3", in_channels=bands)(image, 0.5).shape == (1, bands, 32, 32)
    assert mini("guided", in_channels=bands, learned_sigma=learned)(image, 5).shape == (1, out, 32, 32)
    assert mini("sr3", in_channels=2 * bands, out_channels=bands)(torch.cat([image, image], 1), 0.5).shape == (1, bands, 32, 32)


@pytest.mark.parametrize(("name", "level"), TINY)
def test_a_level_may_be_a_number_or_one_for_each_image(name, level):
    network = filled(name).eval()
    image = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected = network(image, level)
        kind = torch.int64 if isinstance(level, int) else torch.float32
        for form in (torch.tensor(level, dtype=kind), torch.full((1, 1), level, dtype=kind), torch.full((2, 1), level, dtype=kind)):
            assert torch.equal(network(image, form), expected)


@pytest.mark.parametrize(("bias", "heads"), [(False, 1), (True, 4)])
def test_explicit_attention_equals_the_fused_one(bias, heads):
    fused = SpatialAttention(32, groups=8, heads=heads, bias=bias)
    explicit = SpatialAttention(32, groups=8, heads=heads, bias=bias, attention="explicit")
    explicit.load_state_dict(fused.state_dict())
    x = 3 * torch.randn(2, 32, 9, 7)
    assert torch.allclose(fused(x), explicit(x), atol=1e-5)


def test_head_orders_differ_by_the_order_of_channels_alone():
    legacy = SpatialAttention(32, groups=8, heads=4, bias=True)
    new = SpatialAttention(32, groups=8, heads=4, bias=True, order="new")
    new.load_state_dict(legacy.state_dict())
    x = torch.randn(2, 32, 6, 5)
    assert not torch.allclose(legacy(x), new(x), atol=1e-3)
    with torch.no_grad():
        for tensor, source in ((new.qkv.weight, legacy.qkv.weight), (new.qkv.bias, legacy.qkv.bias)):
            tensor.copy_(source.reshape(4, 3, 8, -1).transpose(0, 1).reshape(tensor.shape))
    assert torch.allclose(legacy(x), new(x), atol=1e-5)


@pytest.mark.parametrize(("name", "level"), TINY)
def test_gradients_reach_every_parameter_and_checkpointing_leaves_them_as_they_are(name, level, monkeypatch):
    calls = []
    original = unet.checkpoint
    monkeypatch.setattr(unet, "checkpoint", lambda part, *rest, **how: calls.append(part) or original(part, *rest, **how))
    network = filled(name, dropout=0.2).train()
    image = torch.randn(2, 3, 16, 16)
    gradients = []
    for checkpointing in (False, True):
        network.checkpointing = checkpointing
        network.zero_grad()
        torch.manual_seed(7)
        network(image, level).square().mean().backward()
        gradients.append({key: parameter.grad.clone() for key, parameter in network.named_parameters()})
        assert len(calls) == checkpointing * len(network.taps()) + checkpointing
    for key, gradient in gradients[0].items():
        assert gradient.abs().sum() > 0, key
        assert torch.allclose(gradient, gradients[1][key], atol=1e-7), key
    calls.clear()
    with torch.no_grad():
        network(image, level)
    assert not calls
    # Nothing inside learns, and nothing is asked of the image: there is no backward pass to save memory for.
    network.requires_grad_(requires_grad=False)(image, level)
    assert not calls


@pytest.mark.parametrize(("name", "level"), TINY)
def test_dropout_is_for_training_alone(name, level):
    network = filled(name, dropout=0.2)
    image = torch.randn(1, 3, 16, 16)
    assert not torch.equal(network.train()(image, level), network(image, level))
    assert torch.equal(network.eval()(image, level), network(image, level))


@pytest.mark.parametrize(("name", "level"), TINY)
def test_half_precision_stays_near(name, level):
    network = filled(name).eval()
    image = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        exact = network(image, level)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = network(image, level)
        low = network.bfloat16()(image.bfloat16(), level)
    for rough in (mixed, low):
        assert (rough.float() - exact).norm() < 0.05 * exact.norm()


def test_late_times_survive_half_precision():
    embedding = Embedding(64, 16, 16, kind="time").bfloat16()
    values = torch.tensor([996.0, 997.0, 998.0])
    assert len(embedding(values).unique(dim=0)) == 3


def test_orthogonal_and_zero_starts():
    network = mini("sr3", orthogonal=True)
    weight = network.encoder[1].residual.convolution1.weight.flatten(1)
    assert torch.allclose(weight @ weight.T, torch.eye(8), atol=1e-5)
    assert not network.middle.attention.out.bias.any()
    zero = mini("sr3", zero_residual=True).eval()
    maps = zero.features(torch.randn(1, 3, 16, 16), 0.5, ["enc/1/0", "enc/1/1"])
    assert torch.equal(maps["enc/1/0"], maps["enc/1/1"])


def test_guided_networks_start_by_predicting_nothing():
    assert not mini("guided")(torch.randn(1, 3, 32, 32), 5).any()


@pytest.mark.parametrize("options", [{"film": False}, {"resampling_blocks": False}, {"film": False, "resampling_blocks": False}])
def test_other_forms_of_the_guided_type_run_and_train(options):
    network = awake(mini("guided", **options))
    network(torch.randn(2, 3, 32, 32), 5).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())


@pytest.mark.slow
def test_networks_can_be_exported():
    network = filled("tiny_gd").eval()
    image, level = torch.randn(2, 3, 17, 16), torch.tensor([500, 20])
    program = torch.export.export(network, (image, level))
    assert torch.allclose(program.module()(image, level), network(image, level), atol=1e-5)


def test_every_published_network_is_tested():
    assert {"ddpm_sr3_64", "ddpm_sr3_128", "ddpm_guided_256"} == {created for created, *_ in PUBLISHED.values()}
