"""The step of denoising: what noise tiles get, what counts, what learns, and what is left."""

import numpy as np
import pytest
import torch
from PIL import Image

from support.tiny_diffusion import tiny_diffusion
from support.training_sample import NETWORK, SCHEME
from tilth import seeds
from tilth.batch import Batch
from tilth.errors import ConfigError
from tilth.methods.base import build_method, choose_method
from tilth.methods.ddpm.denoise import Denoise
from tilth.methods.ddpm.previews import draw_samples
from tilth.models.diffusion.process import add_noise
from tilth.models.encoder_folder import load_encoder
from tilth.models.segmenter import Segmenter, build_segmenter
from tilth.sensors import get_sensor
from tilth.training.average import Average


def model_of(kind: str = "sr3", sensor: str = "rgb", **options) -> Segmenter:
    return build_segmenter(tiny_diffusion(kind, **options), get_sensor(sensor), SCHEME)


def denoise(model: Segmenter | None = None, **settings) -> Denoise:
    return build_method("ddpm", {"variant": "denoise", **settings}, model or model_of())


def batch_of(bands: int = 3, size: tuple[int, int] = (32, 32), count: int = 2, seed: int = 0) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    return Batch(
        image=torch.randn(count, bands, *size, generator=draw),
        mask=torch.full((count, *size), 255),
        valid=torch.ones(count, *size, dtype=torch.bool),
        tile_id=[f"tile {index}" for index in range(count)],
        draw=[100 * seed + index for index in range(count)],
    )


class Seen:
    """Stands in for the network: keeps what it is asked, and answers with what it is given, or nothing."""

    def __init__(self, answer=None) -> None:
        self.asked: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.answer = answer

    def __call__(self, noisy, told):
        self.asked.append((noisy, told))
        return torch.zeros_like(noisy) if self.answer is None else self.answer(noisy, told)


def asked(batch: Batch, step: int = 0, model: Segmenter | None = None, **settings) -> tuple[torch.Tensor, torch.Tensor]:
    method = denoise(model, **settings)
    method.student = seen = Seen(lambda noisy, _: noisy.repeat(1, 2 if method.learns_variance else 1, 1, 1))
    method.step({"unlabelled": batch}, step)
    return seen.asked[0]


@pytest.mark.parametrize(("kind", "sensor", "bands"), [("sr3", "s2_l2a", 12), ("guided", "s1", 2)])
def test_any_bands_are_denoised_and_only_the_noise_predictor_learns(kind, sensor, bands):
    model = model_of(kind, sensor)
    method = denoise(model)
    losses = method.step({"unlabelled": batch_of(bands, (24, 40))}, 0)
    assert set(losses.terms) == ({"loss_noise"} if kind == "sr3" else {"loss_noise", "loss_bound"})
    losses.total.backward()
    learnt = {name for name, weight in model.network.named_parameters() if weight.grad is not None}
    assert learnt == {name for name, _ in model.network.named_parameters() if name.startswith("encoder.unet.")}
    # A fresh network of guided type predicts nothing, and noise has variance 1.
    assert float(losses.terms["loss_noise"].detach()) == pytest.approx(1, abs=0.35 if kind == "sr3" else 0.05)


def test_noise_is_standard_normal_and_of_the_level_that_is_told():
    batch = batch_of(size=(64, 64), count=8)
    batch["image"][:] = batch["image"].mean()  # a flat picture, so what varies is noise
    method = denoise()
    clean = method.encoder.scaled(batch["image"])
    noisy, told = asked(batch)
    signal = told.view(-1, 1, 1, 1)
    noise = (noisy - signal * clean) / (1 - signal.square()).sqrt()
    assert noise.mean(dim=(1, 2, 3)).abs().max() < 0.05
    assert (noise.std(dim=(1, 2, 3)) - 1).abs().max() < 0.03
    assert len(set(told.tolist())) == 8
    assert not torch.allclose(noise[0], noise[1])


def test_tiles_are_scaled_between_the_ends_of_their_bands():
    sensor = get_sensor("s1")
    method = denoise(model_of(sensor="s1"))
    ends = torch.tensor([[band.low, band.high] for band in sensor.bands]).T[:, :, None, None]
    stored = (ends - torch.tensor([band.offset for band in sensor.bands]).view(-1, 1, 1)) / torch.tensor(
        [band.scale for band in sensor.bands]
    ).view(-1, 1, 1)
    scaled = method.encoder.scaled(method.model.normalise(stored))
    assert torch.allclose(scaled[0], torch.tensor(-1.0), atol=1e-5)
    assert torch.allclose(scaled[1], torch.tensor(1.0), atol=1e-5)


def test_levels_lie_between_two_steps_or_at_one():
    batch, signals = batch_of(count=16, size=(16, 16)), denoise().encoder.schedule.signals
    _, anywhere = asked(batch)
    _, steps = asked(batch, continuous_level=False)
    near = np.abs(signals[None] - steps.double().numpy()[:, None]).min(axis=1)
    assert near.max() < 1e-7
    above = signals[np.searchsorted(-signals, -anywhere.double().numpy()) - 1]
    assert ((anywhere.double().numpy() < above + 1e-7) & (anywhere.double().numpy() < 1)).all()
    assert not np.allclose(anywhere, steps, atol=1e-9)


def test_guided_type_is_told_whole_steps():
    batch = batch_of(count=16, size=(32, 32))
    noisy, told = asked(batch, model=model_of("guided"))
    schedule = denoise(model_of("guided")).encoder.schedule
    assert bool((told == told.round()).all())
    assert told.max() < schedule.steps
    clean = denoise(model_of("guided")).encoder.scaled(batch["image"])
    noise = torch.stack(
        [torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(seeds.derive(draw, "noise"))) for draw in batch["draw"]]
    )
    assert torch.equal(noisy, add_noise(clean, noise, torch.from_numpy(schedule.signals)[told.long() + 1]))


def test_times_are_spread_over_the_whole_schedule():
    told = asked(batch_of(size=(16, 16), count=400), model=model_of("guided"))[1]
    quarters = np.histogram(told.numpy(), bins=4, range=(0, 1000))[0]
    assert quarters.min() > 70


def test_draws_belong_to_the_tile_and_not_to_batch_or_step():
    batch = batch_of(count=4)
    whole = asked(batch)
    for place in (0, 3):
        single = {name: value[place : place + 1] for name, value in batch.items()}
        part = asked(single, step=7)
        assert torch.equal(part[0][0], whole[0][place])
        assert torch.equal(part[1][0], whole[1][place])


def test_legacy_draws_one_time_for_all_tiles_of_a_step():
    batch, model = batch_of(count=4), model_of("guided")
    first, second = (asked(batch, step=step, model=model, legacy_batch_t=True)[1] for step in (0, 1))
    assert len(set(first.tolist())) == len(set(second.tolist())) == 1
    assert first[0] != second[0]
    levels = asked(batch, legacy_batch_t=True)[1]  # between the same two steps, each at its own place
    assert len(set(levels.tolist())) == 4
    assert levels.max() - levels.min() < 0.006


def test_pixels_that_are_not_valid_do_not_count():
    batch = batch_of(count=2)
    batch["valid"][0, :, :16] = False
    method = denoise()
    method.student = seen = Seen()
    losses = method.step({"unlabelled": batch}, 0)
    noise = [torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(seeds.derive(draw, "noise"))) for draw in batch["draw"]]
    wanted = torch.cat([noise[0][:, :, 16:].flatten(), noise[1].flatten()]).square().mean()
    torch.testing.assert_close(losses.total, wanted)
    assert len(seen.asked) == 1


def test_tiles_without_a_valid_pixel_teach_nothing_and_harm_nothing():
    batch = batch_of()
    batch["valid"][:] = False
    method = denoise(model_of("guided"))  # which has both losses
    losses = method.step({"unlabelled": batch}, 0)
    losses.total.backward()
    assert float(losses.total.detach()) == 0
    assert all(bool(torch.isfinite(weight.grad).all()) for weight in method.trained.parameters() if weight.grad is not None)


def test_right_answer_has_no_loss_and_the_log_tells_quarters_of_the_schedule():
    batch = batch_of(count=32, size=(16, 16))
    method = denoise()
    noise = torch.stack(
        [torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(seeds.derive(draw, "noise"))) for draw in batch["draw"]]
    )
    method.student = Seen(lambda *_: noise)
    assert float(method.step({"unlabelled": batch}, 0).total) == 0
    method.student = Seen()
    losses = method.step({"unlabelled": batch}, 0)
    above, below = losses.shares["loss_by_time"]
    assert below.sum() == 32 * 3 * 16 * 16
    assert float(above.sum() / below.sum()) == pytest.approx(float(losses.total), rel=1e-5)
    assert (above / below).tolist() == pytest.approx([1, 1, 1, 1], abs=0.1)


def test_bound_teaches_the_variance_and_leaves_the_mean_alone():
    model = model_of("guided")
    method = denoise(model, bound_weight=1000.0)
    bound = method.step({"unlabelled": batch_of()}, 0).terms["loss_bound"]
    bound.backward()
    gradient = model.network.encoder.unet.output.convolution.weight.grad
    assert gradient[:3].abs().max() == 0
    assert gradient[3:].abs().max() > 0
    half = denoise(model, bound_weight=500.0).step({"unlabelled": batch_of()}, 0).terms["loss_bound"]
    assert float(bound.detach()) == pytest.approx(2 * float(half.detach()), rel=1e-5)


def test_dropout_is_on_in_training_alone():
    method, batch = denoise(), batch_of()
    method.trained.train()
    first, second = (method.step({"unlabelled": batch}, 0).total.item() for _ in range(2))
    assert first != second
    method.trained.eval()
    first, second = (method.step({"unlabelled": batch}, 0).total.item() for _ in range(2))
    assert first == second


def test_held_out_tiles_score_the_average_and_the_weights_as_they_are():
    method, batch = denoise(), batch_of()
    method.trained.eval()
    with torch.no_grad():
        above, below = method.validation_sums(batch)
    assert above.shape == (1,)
    assert below == 4 * 2 * 3 * 32 * 32
    assert method.also_scored == ()
    method.average = Average(method.model, 0.9).model
    method.check()
    with torch.no_grad():
        for weight in method.average.network.encoder.unet.output.parameters():
            weight.zero_()
    with torch.no_grad():
        scored, _ = method.validation_sums(batch)
    assert method.also_scored == ("validation_loss_last",)
    assert float(scored[1]) == pytest.approx(float(above[0]), rel=1e-6)
    assert float(scored[0] / below) == pytest.approx(1, abs=0.05)  # predicts nothing


def test_held_out_tiles_are_seen_at_levels_from_all_over_the_schedule():
    method, told = denoise(model_of("guided"), held_out_levels=5), []
    unet = method.encoder.unet
    unet.register_forward_hook(lambda _, given, __: told.append(given[1]))
    with torch.no_grad():
        method.trained.eval()
        method.validation_sums(batch_of())
    assert [sorted({int(value) // 200 for value in level}) for level in told] == [[0], [1], [2], [3], [4]]


def test_export_holds_the_noise_predictor_and_how_it_was_trained(tmp_path):
    method = denoise(model_of(sensor="s1", schedule="sr3_cosine"))
    method.export(method.model, tmp_path)
    found = load_encoder(tmp_path)
    assert set(found.tensors) == {name for name in method.model.network.state_dict() if name.startswith("encoder.unet.")}
    assert found.config.network.options["schedule"] == "sr3_cosine"
    assert found.config.network.options["convention"] == "sr3"
    sensor = get_sensor("s1")
    wanted = [[(band.low - band.mean) / band.std, (band.high - band.mean) / band.std] for band in sensor.bands]
    assert found.config.network.options["ranges"] == wanted


def test_orthogonal_weights_are_those_of_the_seed_and_leave_the_random_state_alone():
    def weights(seed):
        model = model_of()
        method = build_method("ddpm", {"variant": "denoise", "weights": "orthogonal"}, model, seed)
        before = torch.random.get_rng_state()
        method.start_fresh()
        assert torch.equal(before, torch.random.get_rng_state())
        return model.network.encoder.unet.output.convolution.weight.detach().flatten(1)

    first, again, other = weights(0), weights(0), weights(1)
    torch.testing.assert_close(first @ first.T, torch.eye(3), atol=1e-5, rtol=0)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    model = model_of()
    before = model.network.encoder.unet.output.convolution.weight.clone()
    denoise(model).start_fresh()
    assert torch.equal(before, model.network.encoder.unet.output.convolution.weight)


@pytest.mark.parametrize(("kind", "sensor", "bands"), [("sr3", "rgb", 3), ("guided", "s1", 2)])
def test_pictures_are_made_of_any_bands_and_leave_the_network_as_it_is(tmp_path, kind, sensor, bands):
    method = denoise(model_of(kind, sensor), preview_samples=5, preview_steps=3)
    method.step({"unlabelled": batch_of(bands, (32, 32))}, 0)
    method.trained.train()
    method.preview(method.model, 7, tmp_path / "previews")
    assert method.encoder.unet.training
    with Image.open(tmp_path / "previews" / "step-00000007.png") as picture:
        assert picture.size == (4 * 36 - 4, 2 * 36 - 4)
    drawn = [draw_samples(method.model, samples=2, steps=3, side=32, seed=seed) for seed in (0, 0, 1)]
    assert drawn[0].shape == (2, bands, 32, 32)
    assert drawn[0].abs().max() <= 1
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize(
    ("network", "settings", "message"),
    [
        (NETWORK, {}, "noise predictor of network ddpm_segmentor, and the network is test_byobnet"),
        (tiny_diffusion(unet_options={"out_channels": 5}), {}, "gives 5 channels for 3 bands"),
        (tiny_diffusion(unet_options={"out_channels": 6}), {}, "gives 6 channels for 3 bands"),
        (tiny_diffusion(), {"target_share": 1.5}, "target_share"),
        (tiny_diffusion(), {"preview_step": 5}, "did you mean 'preview_steps'"),
    ],
)
def test_what_cannot_denoise_is_refused(network, settings, message):
    with pytest.raises(ConfigError, match=message):
        denoise(build_segmenter(network, get_sensor("rgb"), SCHEME), **settings)


def test_variant_is_denoise_where_nothing_is_said():
    assert choose_method("ddpm", {})[0] is Denoise
