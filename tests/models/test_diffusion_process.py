"""Noise schedules, noisy images, losses and samplers compute what the public programs compute."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from support.official_ddpm import arrays, filled, value
from tilth.errors import ConfigError
from tilth.models.diffusion.process import (
    add_noise,
    clean_from_noise,
    learned_log_variance,
    noise_errors,
    noise_from_clean,
    posterior_mean,
    small_log_variance,
    variational_bits,
)
from tilth.models.diffusion.sampling import build_chain, reverse_step, sample_ancestral, sample_ddim
from tilth.models.diffusion.schedule import KINDS, build_schedule, kept_indices

PUBLISHED = {
    "gd_linear_1000": "linear",
    "gd_cosine_1000": "cosine",
    "sr3_linear_2000": "sr3_linear",
    "sr3_cosine_2000": "sr3_cosine",
}
SHAPE = (4, 3, 16, 16)
SUBSAMPLE = 768


def near(found, wanted, **tolerance):
    np.testing.assert_allclose(np.asarray(found), wanted, **{"rtol": 0, "atol": 0, **tolerance})


def picked(found: torch.Tensor) -> np.ndarray:
    flat = found.expand(SHAPE).flatten()
    return flat[:: max(1, flat.numel() // SUBSAMPLE)][:SUBSAMPLE].numpy()


@pytest.fixture(scope="module")
def process():
    clean, noise = value("input:q.x0", SHAPE).clamp(-1, 1), value("input:q.noise", SHAPE)
    return arrays("process.npz"), clean, noise


def noisy_images(kind, clean, noise, index):
    schedule = build_schedule(kind)
    return schedule, add_noise(clean, noise, torch.from_numpy(schedule.signals)[index + 1])


# --- schedules


@pytest.mark.parametrize("published", PUBLISHED)
def test_tables_match(published):
    found = arrays("schedules.npz")
    schedule = build_schedule(PUBLISHED[published])
    wanted = {key.removeprefix(f"{published}/"): table for key, table in found.items() if key.startswith(published)}
    ours = {
        "betas": schedule.betas,
        "alphas_cumprod": schedule.alphas_cumprod,
        "sqrt_alphas_cumprod_prev": schedule.signals,
        "posterior_variance": schedule.posterior.variance,
        "posterior_log_variance_clipped": small_log_variance(schedule, "tiny" if "sr3" in published else "second"),
        "posterior_mean_coef1": schedule.posterior.clean,
        "posterior_mean_coef2": schedule.posterior.noisy,
    }
    for name, table in wanted.items():
        near(ours[name], table, rtol=1e-10 if table.dtype == np.float64 else 1e-5)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_more_steps_make_smaller_ones(kind):
    near(build_schedule({"kind": kind, "steps": 4000}).betas, arrays("schedules.npz")[f"gd_{kind}_4000/betas"], rtol=1e-10)


@pytest.mark.parametrize("spacing", ["ddim10", "ddim50", "10", "25", "250"])
def test_steps_left_out_match(spacing):
    found, schedule = arrays("schedules.npz"), build_schedule("linear")
    indices = kept_indices(1000, spacing)
    assert indices == found[f"respace_1000_{spacing}/timesteps"].tolist()
    kept = schedule.respaced(indices)
    near(kept.betas, found[f"respace_1000_{spacing}/betas"], rtol=1e-10)
    near(kept.alphas_cumprod, schedule.alphas_cumprod[indices], rtol=1e-12)


def test_spacing_by_sections_counts_in_each():
    assert kept_indices(10, "2,3") == [0, 4, 5, 7, 9]


@pytest.mark.parametrize(
    ("kind", "strengths"),
    [
        ("linear", (0.173, 0.324, 0.463, 0.586)),
        ("cosine", (0.091, 0.169, 0.245, 0.320)),
        ("sr3_linear", (0.080, 0.158, 0.235, 0.310)),
        ("sr3_cosine", (0.051, 0.090, 0.129, 0.168)),
    ],
)
def test_strengths_are_those_of_the_specification(kind, strengths):
    schedule = build_schedule(kind, "guided")  # the list counts from 0
    assert tuple(round(schedule.strength(time), 3) for time in (50, 100, 150, 200)) == strengths


def test_conventions_differ_by_one_step_and_agree_that_nothing_is_clean():
    ours, theirs = build_schedule("linear", "sr3"), build_schedule("linear", "guided")
    assert build_schedule("linear", "paper").index(7) == ours.index(7) == theirs.index(6) == 6
    assert ours.signal(7) == theirs.signal(6) == ours.signals[7]
    for schedule in (ours, theirs):
        assert (schedule.signal(0), schedule.strength(0), schedule.index(0)) == (1.0, 0.0, 0)
    assert (ours.last_time, theirs.last_time) == (1000, 999)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("convention", ["sr3", "guided"])
def test_noise_levels_are_turned_into_times(kind, convention):
    schedule = build_schedule(kind, convention)
    assert [schedule.time_of(schedule.strength(time)) for time in (0, 1, 50, 300)] == [0, 1, 50, 300]
    assert abs(schedule.strength(schedule.time_of(0.3)) - 0.3) < 0.002


def test_own_betas_and_ends():
    assert build_schedule({"betas": [0.1, 0.2]}).steps == 2
    tiny = build_schedule({"kind": "linear", "steps": 20, "start": 1e-4, "end": 0.2})
    near(tiny.betas[[0, -1]], [1e-4, 0.2], rtol=1e-12)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("sr3_lineal", "did you mean 'sr3_linear'"),
        ({"kind": "linear", "step": 5}, "unknown entry 'step'"),
        ({"steps": 1}, "at least 2"),
        ({"start": 0.1}, "belong together"),
        ({"kind": "cosine", "start": 0.1, "end": 0.2}, "belong together"),
        ({"betas": [0.1, 1.0]}, "above 0 and below 1"),
        ({"kind": "linear", "steps": 10}, "above 0 and below 1"),
    ],
)
def test_schedules_that_make_no_sense_are_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        build_schedule(given)


def test_times_and_spacings_that_are_not_there_are_refused():
    schedule = build_schedule("linear")
    for time in (-1, 1001, 1.5):
        with pytest.raises(ConfigError, match=r"0 \(clean\) to 1000"):
            schedule.signal(time)
    with pytest.raises(ConfigError, match="at least 0 and below 1"):
        schedule.time_of(1.0)
    with pytest.raises(ConfigError, match="convention"):
        build_schedule("linear", "ddim")
    for spacing, message in (("ddim999", "no whole stride"), ("1001", "give 1 to 1000"), ("many", "give a number")):
        with pytest.raises(ConfigError, match=message):
            kept_indices(1000, spacing)


# --- noise in and out


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_guided_process_matches(process, kind):
    found, clean, noise = process
    index, key = torch.from_numpy(found["t"]), f"gd_{kind}"
    schedule, noisy = noisy_images(kind, clean, noise, index)
    near(noisy, found[f"{key}/x_t"], atol=2e-5)
    near(posterior_mean(schedule, index, clean, noisy), found[f"{key}/post_mean"], atol=2e-5)
    near(schedule.posterior.variance[index], found[f"{key}/post_var"], atol=2e-5)
    near(small_log_variance(schedule)[index], found[f"{key}/post_logvar"], atol=2e-5)
    recovered = clean_from_noise(schedule, index, noisy, noise)
    near(recovered[1:3], found[f"{key}/x0_from_eps_t50_100"], rtol=1e-4, atol=1e-5)
    near(noise_from_clean(schedule, index, noisy, recovered), noise, atol=1e-4)


def network_output(noisy, index):
    return 0.5 * noisy + 0.001 * index.view(-1, 1, 1, 1)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_guided_losses_match(process, kind):
    found, clean, noise = process
    index, key = torch.from_numpy(found["t"]), f"gd_{kind}"
    schedule, noisy = noisy_images(kind, clean, noise, index)
    predicted = network_output(noisy, index)
    squares = noise_errors(predicted, noise).mean(dim=(1, 2, 3))
    near(squares, found[f"{key}/loss_mse"], atol=2e-5)
    bits = variational_bits(schedule, index, clean, noisy, predicted, noisy.tanh()).mean(dim=(1, 2, 3))
    for name, weight in (("learned_range_mse", 1.0), ("learned_range_rescaled_mse", schedule.steps / 1000)):
        near(squares, found[f"{key}/{name}/mse"], atol=2e-5)
        near(bits * weight, found[f"{key}/{name}/vb"], rtol=1e-4)
        near(squares + bits * weight, found[f"{key}/{name}/loss"], rtol=1e-4)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_guided_steps_match(process, kind):
    found, clean, noise = process
    index, key = torch.from_numpy(found["t"]), f"gd_{kind}"
    schedule, noisy = noisy_images(kind, clean, noise, index)
    guessed = clean_from_noise(schedule, index, noisy, network_output(noisy, index)).clamp(-1, 1)
    near(picked(guessed), found[f"{key}/p_learned_range/pred_xstart"], atol=2e-5)
    for name, variance in (("p_learned_range", "learned"), ("p_fixed_small", "small")):
        mean, spread = reverse_step(schedule, index, noisy, guessed, noisy.tanh(), variance)
        near(picked(mean), found[f"{key}/{name}/mean"], atol=2e-5)
        near(picked(spread), found[f"{key}/{name}/log_variance"], atol=2e-5)


@pytest.mark.parametrize("kind", ["sr3_linear", "sr3_cosine"])
def test_sr3_process_matches(process, kind):
    found, clean, noise = process
    schedule, signal = build_schedule(kind), torch.from_numpy(found[f"{kind}/level"])
    time = int(found[f"{kind}/t"])
    assert bool(((signal <= schedule.signals[time - 1]) & (signal >= schedule.signals[time])).all())
    noisy = add_noise(clean, noise, signal)
    near(noisy, found[f"{kind}/x_t"], atol=2e-5)
    predicted = 0.5 * noisy + 0.1 * signal.float().view(-1, 1, 1, 1)
    near(noise_errors(predicted, noise).mean(), found[f"{kind}/loss"], rtol=1e-5)

    index = torch.full((4,), 500)
    near(picked(posterior_mean(schedule, index, clean, noise)), found[f"{kind}/q500_mean"], atol=2e-5)
    image = clean + noise
    told = torch.full((4,), schedule.signals[501])
    guessed = clean_from_noise(schedule, index, image, 0.5 * image + 0.1 * told.float().view(-1, 1, 1, 1)).clamp(-1, 1)
    mean, spread = reverse_step(schedule, index, image, guessed, None, "small", "tiny")
    near(picked(mean), found[f"{kind}/p500_mean"], atol=2e-5)
    near(spread[0].flatten(), found[f"{kind}/p500_logvar"], atol=2e-5)


def test_divergence_is_that_of_normal_distributions_and_the_first_step_that_of_levels():
    """Closed form for one value at a time: two normal distributions; and the probability of an 8-bit level, by scipy."""
    schedule = build_schedule({"kind": "linear", "steps": 50})
    generator = torch.Generator().manual_seed(0)
    clean = (torch.randint(0, 256, (2, 1, 4, 4), generator=generator) / 127.5 - 1).float()
    clean[0, 0, 0, :2] = torch.tensor([-1.0, 1.0])
    noise, values = (torch.randn(2, 1, 4, 4, generator=generator) for _ in range(2))
    index = torch.tensor([0, 20])
    noisy = add_noise(clean, noise, torch.from_numpy(schedule.signals)[index + 1])
    guess = noise + 0.05
    bits = variational_bits(schedule, index, clean, noisy, guess, values).numpy().astype(float)
    mean = posterior_mean(schedule, index, clean_from_noise(schedule, index, noisy, guess), noisy).numpy()
    deviation = (learned_log_variance(schedule, index, values) / 2).exp().numpy()
    x = clean.numpy()
    lower = np.where(x[0] < -0.999, -np.inf, x[0] - 1 / 255)
    upper = np.where(x[0] > 0.999, np.inf, x[0] + 1 / 255)
    probability = stats.norm.cdf(upper, mean[0], deviation[0]) - stats.norm.cdf(lower, mean[0], deviation[0])
    wanted = -np.log2(np.maximum(probability, 1e-12))
    likely = probability > 1e-4  # the published formula for the distribution is an approximation, poor far out
    assert likely.sum() > 8
    near(bits[0][likely], wanted[likely], rtol=0.02, atol=0.01)
    true_mean, true_deviation = posterior_mean(schedule, index, clean, noisy).numpy(), math.exp(small_log_variance(schedule)[20] / 2)
    for ours, m1, m2, s2 in zip(bits[1].flat, true_mean[1].flat, mean[1].flat, deviation[1].flat, strict=True):
        s1 = true_deviation
        near(ours, (math.log(s2 / s1) + (s1**2 + (m1 - m2) ** 2) / (2 * s2**2) - 0.5) / math.log(2), rtol=2e-3, atol=1e-5)


# --- samplers


def given_noise(step, image):
    return value(f"input:step{step:03d}", tuple(image.shape))


def tiny(kind):
    return filled(f"tiny_{kind}").eval(), value("input:xT", (2, 3, 16, 16))


@pytest.mark.parametrize("clip", [True, False])
def test_ddim_matches(clip):
    found, (network, noise) = arrays("trajectories_tiny.npz"), tiny("gd")
    chain = build_chain(build_schedule("linear"), "guided", "ddim10")
    assert chain.told == tuple(found["gd_ddim/timesteps"])
    steps = list(sample_ddim(chain, network, noise, clip=clip))
    wanted = found[f"gd_ddim/clip{int(clip)}/samples"]
    tolerance = 2e-3 if clip else 1e-3 * float(np.abs(wanted[-1]).max())
    near(torch.stack([step.image for step in steps]), wanted, atol=tolerance)
    near(steps[-1].clean, found[f"gd_ddim/clip{int(clip)}/pred_x0_last"], atol=tolerance)


def test_ddim_with_noise_matches():
    found, (network, noise) = arrays("trajectories_tiny.npz"), tiny("gd")
    chain = build_chain(build_schedule("linear"), "guided", "ddim10")
    steps = list(sample_ddim(chain, network, noise, eta=1.0, fresh=given_noise))
    near(torch.stack([step.image for step in steps[-2:]]), found["gd_ddim_eta1/samples_last2"], atol=2e-3)


def test_ancestral_sampling_matches():
    found, (network, noise) = arrays("trajectories_tiny.npz"), tiny("gd")
    chain = build_chain(build_schedule("linear"), "guided", 10)
    assert chain.told == tuple(found["gd_ancestral/timesteps"])
    steps = [step.image for step in sample_ancestral(chain, network, noise, fresh=given_noise)]
    near(torch.stack(steps), found["gd_ancestral/samples"], atol=2e-3)


def test_sr3_sampling_matches():
    found, (network, noise) = arrays("trajectories_tiny.npz"), tiny("sr3")
    chain = build_chain(build_schedule({"kind": "linear", "steps": 20, "start": 1e-4, "end": 0.2}), "sr3")
    steps = [step.image for step in sample_ancestral(chain, network, noise, floor="tiny", fresh=given_noise)]
    near(torch.stack(steps[4::5]), found["sr3_ancestral/samples_every5"], atol=2e-3)


@pytest.mark.parametrize("variance", ["small", "large"])
def test_a_perfect_network_leads_to_the_image_that_it_knows(variance):
    """Of one known image the right noise is known at every step: all samplers must end at it, whatever noise comes in between."""
    schedule = build_schedule({"kind": "linear", "steps": 200})
    clean = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    chain = build_chain(schedule, "sr3")
    places = {told: index for index, told in enumerate(torch.tensor(chain.told).tolist())}

    def knows(image, told):
        return noise_from_clean(schedule, torch.tensor([places[float(value)] for value in told]), image, clean)

    start = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    with torch.random.fork_rng():
        near(list(sample_ancestral(chain, knows, start, variance=variance))[-1].image, clean, atol=1e-4)
        near(list(sample_ddim(chain, knows, start, eta=0.5))[-1].image, clean, atol=1e-4)


def test_learned_variance_of_a_network_that_learned_none_is_refused():
    network, noise = tiny("gd")
    chain = build_chain(build_schedule("linear"), "guided", 2)
    with pytest.raises(ConfigError, match="predicts noise alone"):
        next(sample_ancestral(chain, network, noise, variance="learned"))
