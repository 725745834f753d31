"""Noise predictors as encoders: which image goes in, which maps come out, and what stays as it is while a head learns."""

from __future__ import annotations

import math

import pytest
import torch

from support.training_sample import SCHEME
from tilth.classes import ClassScheme, LandClass
from tilth.errors import ConfigError
from tilth.models.config import NetworkConfig
from tilth.models.diffusion.noise import noise_field
from tilth.models.diffusion.schedule import build_schedule
from tilth.models.diffusion.segmentation import complete_options, ddpm_segmentor, other_use
from tilth.models.segmenter import Segmenter, build_segmenter
from tilth.sensors import get_sensor

SR3 = {"unet_options": {"width": 8, "norm_groups": 4, "res_blocks": 1, "multipliers": [1, 2, 2, 4, 4]}}
GUIDED = {"unet": "ddpm_guided_256", "unet_options": {"width": 8, "norm_groups": 4, "res_blocks": 1, "head_width": 8}}
KINDS = {"sr3": SR3, "guided": GUIDED}


def segmenter(sensor: str = "rgb", **options) -> Segmenter:
    model = build_segmenter(NetworkConfig(name="ddpm_segmentor", options=SR3 | options), get_sensor(sensor), SCHEME)
    with torch.no_grad():
        # Convolutions of guided type begin as zeros, by which every map would be the same.
        draw = torch.Generator().manual_seed(5)
        for parameter in model.network.encoder.parameters():
            if not parameter.any():
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=draw))
    return model.eval()


def image(sensor: str = "rgb", height: int = 64, width: int = 96, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, len(get_sensor(sensor)), height, width, generator=torch.Generator().manual_seed(1))


def bases(model: Segmenter) -> list[str]:
    return model.network.encoder.taps.names(model.network.encoder.unet)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["decoder", "encoder"])
def test_maps_are_those_of_one_full_pass_for_each_noise_level(kind, side):
    times = [0, 150, 20]
    model = segmenter(**KINDS[kind], times=times, side=side)
    encoder, unet, given = model.network.encoder, model.network.encoder.unet, image()
    found = encoder(given, torch.tensor([[0, 0], [30, 7]]))
    schedule = build_schedule("sr3_linear" if kind == "sr3" else "linear")
    noise = torch.stack([noise_field(0, 0, 3, (row, row + 64), (column, column + 96)) for row, column in ((0, 0), (30, 7))])
    wanted = []
    for time in times:
        # Time t of guided type is index t of its table, that of SR3 type has t steps of noise behind it.
        kept = 1.0 if time == 0 else float(schedule.alphas_cumprod[time - (kind == "sr3")])
        noisy = math.sqrt(kept) * encoder.scaled(given) + math.sqrt(1 - kept) * noise
        wanted.append(unet.features(noisy, math.sqrt(kept) if kind == "sr3" else float(time), [*unet.taps()]))
    for place, name in enumerate(bases(model)):
        expected = torch.cat([maps[name] for maps in wanted], dim=1)
        assert expected.shape[1] == encoder.widths[place]
        assert torch.allclose(found[place], expected, atol=1e-4)
    assert [64 // one.shape[2] for one in found] == list(encoder.strides) == [2, 4, 8, 16]


@torch.no_grad()
def test_noise_levels_one_by_one_give_the_same_maps():
    given = image()
    together = segmenter()
    for chunk in (1, 2):
        for one, other in zip(segmenter(chunk=chunk).network.encoder(given), together.network.encoder(given), strict=True):
            assert torch.allclose(one, other, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(("pairs", "passes"), [(1, [1] * 9), (3, [3] * 3), (4, [3] * 3), (7, [6, 3]), (2, [2, 1] * 3)])
@pytest.mark.parametrize("share", [True, False])
def test_large_batches_go_through_in_slices_that_give_the_same_maps(pairs, passes, share, monkeypatch):
    given, model = image(batch=3), segmenter(share_noise=share).train()
    encoder = model.network.encoder
    places = torch.tensor([[0, 0], [64, 128], [5, 9]])
    torch.manual_seed(3)
    whole, fresh = encoder(given, places), encoder(given, places, fresh=True)
    monkeypatch.setattr("tilth.models.diffusion.features.TOGETHER_ON_CPU", pairs * 64 * 96)
    sizes, features = [], encoder.unet.features
    monkeypatch.setattr(encoder.unet, "features", lambda stacked, *more: sizes.append(len(stacked)) or features(stacked, *more))
    torch.manual_seed(3)
    sliced, drawn = encoder(given, places), encoder(given, places, fresh=True)
    assert sizes == passes * 2
    for one, other in zip([*sliced, *drawn], [*whole, *fresh], strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_a_network_that_learns_is_passed_once(monkeypatch):
    monkeypatch.setattr("tilth.models.diffusion.features.TOGETHER_ON_CPU", 1)
    model, given = segmenter().train(), image()
    sizes, features = [], model.network.encoder.unet.features
    monkeypatch.setattr(
        model.network.encoder.unet, "features", lambda stacked, *more: sizes.append(len(stacked)) or features(stacked, *more)
    )
    model(given).sum().backward()
    assert sizes == [6]
    model.network.encoder.requires_grad_(False)
    model(given)
    assert sizes == [6, *[1] * 6]


@pytest.mark.slow
def test_compiled_it_sees_the_same_noise():
    model, given = segmenter(), image()
    places = torch.tensor([[0, 0], [30, 7]])
    with torch.no_grad():
        compiled = torch.compile(model.network, backend="eager")
        assert torch.allclose(compiled(given, places), model.network(given, places), atol=1e-4)


@pytest.mark.parametrize("sensor", ["rgb", "s1", "s2_l2a", "s1+s2_l2a"])
def test_low_and_high_of_every_band_become_minus_one_and_one(sensor):
    model = segmenter(sensor)
    bands = model.sensor.bands
    ends = torch.tensor([[(value - band.offset) / band.scale for value in (band.low, band.high)] for band in bands])
    stored = ends.T[:, :, None, None].expand(-1, -1, 4, 4)
    scaled = model.network.encoder.scaled(model.normalise(stored))
    assert torch.allclose(scaled[0], torch.tensor(-1.0), atol=1e-5)
    assert torch.allclose(scaled[1], torch.tensor(1.0), atol=1e-5)
    assert torch.allclose(
        Segmenter(model.config, model.network).network.encoder.scaled(torch.zeros(1, len(bands), 1, 1)).flatten()[0],
        torch.tensor(2 * (bands[0].mean - bands[0].low) / (bands[0].high - bands[0].low) - 1),
        atol=1e-5,
    )


@torch.no_grad()
def test_evaluation_depends_on_image_and_place_alone():
    model, given = segmenter(), image(batch=3)
    places = torch.tensor([[0, 0], [64, 128], [5, 9]])
    logits = model(given, places)
    torch.manual_seed(77)
    turned = [2, 0, 1]
    for one, other in zip(model(given[turned], places[turned]), logits[turned], strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    assert torch.equal(model(given[1:2], places[1:2]), model(given[1:2], places[1:2]))
    assert torch.allclose(model(given[1:2], places[1:2])[0], logits[1], atol=1e-5)
    assert not torch.allclose(model(given, None)[1], logits[1], atol=1e-3)


def levels_seen(model, monkeypatch, given):
    """What the noise predictor gets, noise level by noise level."""
    seen = {}
    unet = model.network.encoder.unet
    features = unet.features

    def recorded(stacked, levels, taps):
        seen.update(images=stacked.unflatten(0, (-1, len(given))), levels=levels.reshape(-1, len(given)))
        return features(stacked, levels, taps)

    monkeypatch.setattr(unet, "features", recorded)
    model(given)
    return seen["images"], seen["levels"]


@torch.no_grad()
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_noise_is_shared_by_the_levels_of_an_image_or_not(share, training, monkeypatch):
    model, given = segmenter(share_noise=share).train(training), image()
    # An encoder that is frozen is in evaluation mode in training, too.
    model.network.encoder.eval()
    noisy, levels = levels_seen(model, monkeypatch, given)
    clean = model.network.encoder.scaled(given)
    noise = (noisy - levels[..., None, None, None] * clean) / (1 - levels.double().square()).sqrt().float()[..., None, None, None]
    assert abs(float(noise.std()) - 1) < 0.02
    assert torch.allclose(noise[0], noise[2], atol=1e-3) == share
    assert torch.allclose(noise[0, 0], noise[0, 1], atol=1e-3) == (not training)  # the same place by default
    again, _ = levels_seen(model, monkeypatch, given)
    assert torch.equal(again, noisy) == (not training)


def test_fresh_noise_follows_the_random_state_and_can_be_asked_for_or_forbidden():
    given = image()
    model = segmenter().train()
    torch.manual_seed(1)
    first = model(given).detach()
    model = segmenter().train()
    torch.manual_seed(1)
    assert torch.equal(model(given), first)
    with torch.no_grad():
        fresh, fixed = segmenter(noise="fresh"), segmenter(noise="fixed").train()
        assert not torch.equal(fresh(given), fresh(given))
        assert torch.equal(fixed.network.encode(given)[0], fixed.network.encode(given)[0])


@torch.no_grad()
def test_several_draws_are_averaged_in_evaluation_alone():
    given = image()
    model, one = segmenter(draws=3), segmenter()
    logits = [one.network.decode(one.network.encode(given, draw=draw)) for draw in range(3)]
    assert not torch.allclose(logits[0], logits[1], atol=1e-3)
    assert torch.allclose(model(given), torch.stack(logits).mean(0), atol=1e-5)
    assert torch.equal(one(given), logits[0])


@torch.no_grad()
def test_jittered_levels_lie_between_two_steps_and_stay_for_a_raster(monkeypatch):
    schedule = build_schedule("sr3_linear")
    model, given = segmenter(jitter_level=True, times=[0, 50, 150]), image(batch=4)
    monkeypatch.setattr("tilth.models.diffusion.features.TOGETHER_ON_CPU", 12 * 256**2)  # one pass
    for training in (True, False):
        _, levels = levels_seen(model.train(training), monkeypatch, given)
        assert levels[0].eq(1).all()
        for row, time in ((1, 50), (2, 150)):
            assert (levels[row] < schedule.signals[time - 1]).all()
            assert (levels[row] > schedule.signals[time]).all()
            assert len(levels[row].unique()) == (4 if training else 1)
    with pytest.raises(ConfigError, match="jitter_level: is for noise predictors that take a noise level"):
        segmenter(**GUIDED, jitter_level=True)


@torch.no_grad()
@pytest.mark.parametrize(
    ("sensor", "options"),
    [
        ("rgb", {"head": "uper", "channels": 16}),
        ("s2_l1c", {"side": "encoder", "reduce": "concat"}),
        ("rgb", {"strides": [4]}),
        ("rgb", GUIDED | {"pool_before": True}),
    ],
)
@pytest.mark.parametrize("size", [(1, 1), (33, 70)])
def test_images_of_any_size_and_number_of_bands(sensor, options, size):
    model = segmenter(sensor, **options)
    logits = model(image(sensor, *size))
    assert logits.shape == (2, 3, *size)
    assert torch.isfinite(logits).all()


@torch.no_grad()
def test_one_band_and_one_class():
    sensor = get_sensor("rgb").select(["red"])
    scheme = ClassScheme(name="one", classes=(LandClass(name="land", colour=(1, 2, 3)),))
    model = build_segmenter(NetworkConfig(name="ddpm_segmentor", options=SR3), sensor, scheme).eval()
    assert model(torch.zeros(1, 1, 40, 20)).shape == (1, 1, 40, 20)


def test_a_model_folder_gives_the_same_and_says_all_that_features_depend_on(tmp_path):
    model, given = segmenter("s2_l2a", noise_levels=[0.1, 0.3], noise_seed=4), image("s2_l2a")
    again = Segmenter.load(model.save(tmp_path / "model"))
    with torch.no_grad():
        assert torch.equal(again(given), model(given))
    options = again.config.network.options
    assert options["schedule"] == "sr3_linear"
    assert options["convention"] == "sr3"
    assert len(options["ranges"]) == len(model.sensor)
    # ddpm.md section 2: sqrt(1 - A) of sr3_linear is 0.080 at index 50, so after 51 steps.
    assert build_schedule("sr3_linear").time_of(0.0805) == 51
    assert "encoder.unet.encoder.0.convolution.weight" in again.network.state_dict()
    assert not [
        name for name in again.network.state_dict() if name.endswith(("gain", "bias")) and "unet" not in name and name.startswith("encoder")
    ]


def test_wishes_replace_what_is_made_of_the_maps_but_not_what_the_weights_are():
    trained = complete_options(SR3 | {"schedule": "sr3_cosine"}, get_sensor("rgb"))
    assert trained["times"] == [50, 100, 150]
    wished = other_use(trained, {"noise_levels": [0.2], "head": "uper", "schedule": "linear", "unet": "ddpm_guided_256"})
    assert wished == {name: value for name, value in trained.items() if name != "times"} | {"noise_levels": [0.2], "head": "uper"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"times": [50], "noise_levels": [0.1]}, "times and noise_levels say the same thing twice"),
        ({"times": []}, "times: none is given"),
        ({"times": [2001]}, "time 2001: schedule 'sr3_linear' of 2000 steps"),
        ({"strides": []}, "strides: none is given"),
        ({"strides": [4, 4]}, "give every level once"),
        ({"strides": [32]}, "the decoder has no level 32; it has 1, 2, 4, 8, 16"),
        ({"unet": "ddpm_sr3"}, "no noise predictor is called 'ddpm_sr3'; did you mean"),
        ({"head": "mpl"}, "head: unknown 'mpl'; did you mean 'mlp'"),
        ({"noise": "white"}, "noise: unknown 'white'"),
        ({"ranges": [[-1.0, 1.0]]}, "ranges: 1 for 3 bands"),
        ({"unet_options": {"widht": 8}}, "did you mean 'width'"),
        ({"noise_levels": [1.5]}, "noise_levels: 1.5: a standard deviation"),
    ],
)
def test_options_that_make_no_sense_are_refused_in_a_line(options, message):
    with pytest.raises(ConfigError) as caught:
        ddpm_segmentor(in_channels=3, num_classes=2, image_size=64, **(SR3 | options))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_fusion_of_branches_is_refused():
    config = NetworkConfig(name="ddpm_segmentor", options=SR3, fusion={"kind": "late"})
    with pytest.raises(ConfigError, match="ddpm_segmentor has no branches"):
        build_segmenter(config, get_sensor("s1+s2_l2a"), SCHEME)
