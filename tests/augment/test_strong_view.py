import numpy as np
import pytest
import torch
import torchvision.transforms.functional as reference
from scipy.ndimage import gaussian_filter

from tilth.augment import photometry
from tilth.augment.config import StrongConfig
from tilth.augment.normalise import from_unit, normalise, to_unit
from tilth.augment.strong import draw_strong, strong_view
from tilth.errors import ConfigError, DataError, SensorMismatchError
from tilth.sensors import Band, Sensor, get_sensor

RGB = get_sensor("rgb")
OFF = {"jitter_probability": 0, "grayscale_probability": 0, "blur_probability": 0, "speckle_probability": 0}
DRAWS = list(range(900, 916))
LUMA = tuple(photometry.GREY_WEIGHTS.values())


def random_unit(samples=16, bands=3, height=20, width=23, seed=0):
    return torch.rand(samples, bands, height, width, generator=torch.Generator().manual_seed(seed))


def off(**changes):
    return StrongConfig(**{**OFF, **changes})


OPERATIONS = [
    (lambda x, f: photometry.brightness(x, f).clamp(0, 1), reference.adjust_brightness, 1.0),
    (lambda x, f: photometry.contrast(x, f, LUMA, None).clamp(0, 1), reference.adjust_contrast, 1.0),
    (lambda x, f: photometry.saturation(x, f, LUMA).clamp(0, 1), reference.adjust_saturation, 1.0),
    (photometry.hue, reference.adjust_hue, 0.0),
]


@pytest.mark.parametrize(("ours", "theirs", "centre"), OPERATIONS, ids=["brightness", "contrast", "saturation", "hue"])
def test_colour_operations_equal_torchvision(ours, theirs, centre):
    unit = random_unit()
    unit[0] = 0.3
    unit[1] = unit[1].round()
    factor = centre + random_unit(bands=1, height=1, width=1, seed=1) - 0.5
    expected = torch.stack([theirs(image, float(value)) for image, value in zip(unit, factor, strict=True)])
    # torchvision rounds the weight of red to 0.2989.
    torch.testing.assert_close(ours(unit.clone(), factor), expected, atol=1e-4, rtol=0)


def test_the_whole_chain_equals_torchvision_sample_by_sample():
    config = StrongConfig(blur_probability=0)
    unit = random_unit()
    expected = []
    for image, draw in zip(unit, DRAWS, strict=True):
        plan = draw_strong(draw, config)
        for operation in plan.order if plan.jitter else ():
            image = OPERATIONS[operation][1](image, plan.factors[operation])
        expected.append(reference.rgb_to_grayscale(image, 3) if plan.grayscale else image)
    result = to_unit(strong_view(from_unit(unit, RGB), RGB, DRAWS, config), RGB)
    torch.testing.assert_close(result, torch.stack(expected), atol=5e-4, rtol=0)


def test_blur_is_a_gaussian_with_repeated_borders():
    unit, sigmas = random_unit(6, 2), [0.1, 0.3, 0.8, 1.2, 1.7, 2.0]
    blurred = photometry.gaussian_blur(unit, sigmas)
    for number, sigma in enumerate(sigmas):
        for band in range(2):
            expected = gaussian_filter(unit[number, band].double().numpy(), sigma, mode="nearest", truncate=4)
            np.testing.assert_allclose(blurred[number, band].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["rgb", "gf2", "s2_l1c", "s1", "s1+s2_l2a", "hls"])
def test_a_sample_depends_on_its_seed_alone(name):
    sensor = get_sensor(name)
    image = from_unit(random_unit(bands=len(sensor)), sensor)
    together = strong_view(image, sensor, DRAWS, StrongConfig())
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0)).tolist()
    shuffled = strong_view(image[order], sensor, [DRAWS[place] for place in order], StrongConfig())
    torch.testing.assert_close(shuffled, together[order], atol=1e-6, rtol=1e-6)
    for place in range(0, 16, 5):
        alone = strong_view(image[place : place + 1], sensor, DRAWS[place : place + 1], StrongConfig())
        torch.testing.assert_close(alone[0], together[place], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ["rgb", "s1+s2_l2a"])
def test_blocks_of_samples_do_not_change_the_result(name, monkeypatch):
    sensor = get_sensor(name)
    image = from_unit(random_unit(bands=len(sensor)), sensor)
    together = strong_view(image, sensor, DRAWS, StrongConfig())
    monkeypatch.setattr("tilth.augment.strong._BLOCK_CPU", 1 << 29)  # as on an accelerator
    torch.testing.assert_close(strong_view(image, sensor, DRAWS, StrongConfig()), together, atol=1e-6, rtol=1e-6)


def test_order_of_the_bands_does_not_matter(monkeypatch):
    # What is picked out for an operation goes back where it came from: colours stored blue first, and beside other bands.
    turned = get_sensor("rgb").select(["blue", "green", "red"])
    image = random_unit()
    for block in (1, 1 << 29):
        monkeypatch.setattr("tilth.augment.strong._BLOCK_CPU", block)
        straight = to_unit(strong_view(from_unit(image, RGB), RGB, DRAWS, StrongConfig()), RGB)
        found = to_unit(strong_view(from_unit(image.flip(1), turned), turned, DRAWS, StrongConfig()), turned)
        torch.testing.assert_close(found.flip(1), straight, atol=1e-5, rtol=1e-5)


def test_calls_repeat_exactly_and_views_differ():
    image = from_unit(random_unit(), RGB)
    first = strong_view(image, RGB, DRAWS, StrongConfig())
    assert torch.equal(first, strong_view(image, RGB, DRAWS, StrongConfig()))
    second = strong_view(image, RGB, DRAWS, StrongConfig(), view=1)
    assert (first - second).abs().amax((1, 2, 3)).gt(1e-3).sum() >= 14


def test_draws_follow_the_configured_distribution():
    config, count = StrongConfig(), 4000
    plans = [draw_strong(number, config) for number in range(count)]
    for share, probability in [
        (np.mean([plan.jitter for plan in plans]), 0.8),
        (np.mean([plan.grayscale for plan in plans]), 0.2),
        (np.mean([plan.sigma_px > 0 for plan in plans]), 0.5),
        (np.mean([plan.looks > 0 for plan in plans]), 0.5),
    ]:
        assert abs(share - probability) < 3.5 * np.sqrt(probability * (1 - probability) / count)
    factors = np.array([plan.factors for plan in plans])
    half_widths = np.array([0.5, 0.5, 0.5, 0.25])
    assert (np.abs(factors - [1, 1, 1, 0]) <= half_widths).all()
    assert (np.abs(factors.mean(0) - [1, 1, 1, 0]) < 3.5 * half_widths / np.sqrt(3 * count)).all()
    sigmas = np.array([plan.sigma_px for plan in plans if plan.sigma_px > 0])
    assert sigmas.min() >= 0.1
    assert sigmas.max() <= 2
    assert abs(sigmas.mean() - 1.05) < 3.5 * 1.9 / np.sqrt(12 * len(sigmas))
    orders = [plan.order for plan in plans]
    assert len(set(orders)) == 24
    assert max(orders.count(order) for order in set(orders)) < count / 24 + 4.5 * np.sqrt(count / 24)


def test_nothing_happens_when_all_is_off():
    for name in ("rgb", "s1+s2_l1c"):
        sensor = get_sensor(name)
        image = from_unit(random_unit(4, len(sensor)), sensor)
        torch.testing.assert_close(strong_view(image, sensor, DRAWS[:4], off()), image, atol=1e-5, rtol=1e-5)


def test_8_bit_images_stay_between_black_and_white_and_others_do_not():
    unit = random_unit()
    result = to_unit(strong_view(from_unit(unit, RGB), RGB, DRAWS, StrongConfig()), RGB)
    assert result.min() > -1e-5
    assert result.max() < 1 + 1e-5
    sensor = get_sensor("hls")
    bright = random_unit(bands=6) + 0.5
    assert to_unit(strong_view(from_unit(bright, sensor), sensor, DRAWS, off(jitter_probability=1)), sensor).max() > 2


def test_band_order_does_not_matter_to_colour():
    reversed_rgb = Sensor(name="bgr", bands=RGB.bands[::-1], dtype="uint8", unit=RGB.unit, rgb=RGB.rgb)
    image = from_unit(random_unit(), RGB)
    forward = strong_view(image, RGB, DRAWS, StrongConfig())
    backward = strong_view(image.flip(1), reversed_rgb, DRAWS, StrongConfig())
    torch.testing.assert_close(backward.flip(1), forward, atol=1e-5, rtol=1e-5)


def test_hue_touches_only_the_triplet_a_picture_shows():
    sensor = get_sensor("s2_l1c")
    image = from_unit(random_unit(bands=13), sensor)
    config = off(jitter_probability=1, brightness=0, contrast=0, saturation=0)
    changed = (strong_view(image, sensor, DRAWS, config) - image).abs().amax((0, 2, 3)) > 1e-3
    assert changed.nonzero().flatten().tolist() == sorted(sensor.rgb_indices)


def test_hue_keeps_value_and_chroma_of_unbounded_pixels():
    image = torch.randn(4, 3, 9, 9, generator=torch.Generator().manual_seed(0)) * 3
    turned = photometry.hue(image, torch.tensor([0.1, -0.2, 0.5, 0.0]).view(-1, 1, 1, 1))
    torch.testing.assert_close(turned.amax(1), image.amax(1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(turned.amin(1), image.amin(1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(turned[3], image[3], atol=1e-5, rtol=1e-5)


def test_grey_makes_optical_bands_equal_and_leaves_radar():
    sensor = get_sensor("s1+s2_l2a")
    unit = random_unit(4, 14)
    result = to_unit(strong_view(from_unit(unit, sensor), sensor, DRAWS[:4], off(grayscale_probability=1)), sensor)
    torch.testing.assert_close(result[:, :2], unit[:, :2], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(result[:, 2:], unit[:, 2:].mean(1, keepdim=True).expand(-1, 12, -1, -1), atol=1e-5, rtol=1e-5)


def test_radar_takes_gain_and_contrast_but_no_colour():
    sensor, config = get_sensor("s1"), off(jitter_probability=1)
    stored = torch.from_numpy(np.random.default_rng(0).normal(-15, 4, (8, 2, 30, 30)).astype(np.float32))
    image = normalise(stored, None, sensor)
    result = to_unit(strong_view(image, sensor, DRAWS[:8], config), sensor)
    low, span = torch.tensor([-25.0, -32.0]).view(-1, 1, 1), torch.tensor([25.0, 24.0]).view(-1, 1, 1)
    for number, draw in enumerate(DRAWS[:8]):
        plan = draw_strong(draw, config)
        mean = stored[number].mean((1, 2), keepdim=True)
        expected = mean + plan.radar_contrast * (stored[number] - mean) + plan.radar_gain_db
        torch.testing.assert_close(result[number] * span + low, expected, atol=1e-3, rtol=1e-4)


def test_speckle_is_multiplicative_gamma_noise_with_the_drawn_looks():
    sensor, config = get_sensor("s1"), off(speckle_probability=1, speckle_looks=(4, 4))
    image = normalise(torch.full((1, 2, 200, 200), -12.0), None, sensor)
    noisy = to_unit(strong_view(image, sensor, [11], config), sensor)[0]
    decibels = noisy * torch.tensor([25.0, 24.0]).view(-1, 1, 1) + torch.tensor([-25.0, -32.0]).view(-1, 1, 1) + 12
    power = 10 ** (decibels.double() / 10)
    assert abs(power.mean() - 1) < 3.5 * np.sqrt(1 / 4 / 80_000)
    assert abs(power.var() - 1 / 4) < 0.01
    assert abs(np.corrcoef(power[0].flatten(), power[1].flatten())[0, 1]) < 0.02


def test_bands_of_other_kinds_are_only_blurred():
    height = Band(name="height", kind="other", mean=10, std=5, low=0, high=40)
    sensor = Sensor(name="rgbh", bands=(*get_sensor("hls").bands[:3], height), dtype="float32", unit="mixed", rgb=("red", "green", "blue"))
    image = from_unit(random_unit(bands=4), sensor)
    result = strong_view(image, sensor, DRAWS, StrongConfig(blur_probability=0))
    torch.testing.assert_close(result[:, 3], image[:, 3], atol=1e-5, rtol=1e-5)
    assert (result[:, :3] - image[:, :3]).abs().max() > 0.1
    blurred = strong_view(image, sensor, DRAWS, off(blur_probability=1, blur_sigma=(1, 1)))
    assert (blurred[:, 3] - image[:, 3]).abs().max() > 0.01


@pytest.mark.parametrize("name", ["rgb", "s1"])
def test_with_valid_given_fill_neither_changes_nor_counts(name):
    sensor = get_sensor(name)
    image = from_unit(random_unit(bands=len(sensor)), sensor)
    valid = torch.ones(16, 20, 23, dtype=torch.bool)
    valid[:, :, 15:] = False
    valid[3] = False
    config = StrongConfig(blur_probability=0, speckle_probability=0)
    other = torch.where(valid.unsqueeze(1), image, 5.0)
    first, second = (strong_view(values, sensor, DRAWS, config, valid=valid) for values in (image, other))
    hidden = ~valid.unsqueeze(1).expand_as(image)
    torch.testing.assert_close(first[~hidden], second[~hidden], atol=1e-6, rtol=1e-6)
    assert torch.equal(first[hidden], image[hidden])
    cut = strong_view(image[:1, :, :, :15], sensor, DRAWS[:1], config)
    torch.testing.assert_close(first[:1, :, :, :15], cut, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (7, 1), (3, 2)])
def test_tiny_images_stay_finite(height, width):
    for name in ("rgb", "s1+s2_l1c"):
        sensor = get_sensor(name)
        image = from_unit(random_unit(16, len(sensor), height, width), sensor)
        assert torch.isfinite(strong_view(image, sensor, DRAWS, StrongConfig(blur_probability=1, speckle_probability=1))).all()


def test_the_input_is_left_alone_and_mixed_precision_does_not_matter():
    image = from_unit(random_unit(), RGB)
    before = image.clone()
    plain = strong_view(image, RGB, DRAWS, StrongConfig())
    assert torch.equal(image, before)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(strong_view(image, RGB, DRAWS, StrongConfig()), plain)


def test_what_does_not_fit_is_refused():
    image = torch.zeros(2, 3, 4, 4)
    with pytest.raises(SensorMismatchError):
        strong_view(image, get_sensor("s1"), [1, 2], StrongConfig())
    with pytest.raises(DataError, match="1 seeds for 2 samples"):
        strong_view(image, RGB, [1], StrongConfig())
    with pytest.raises(DataError, match="valid has shape"):
        strong_view(image, RGB, [1, 2], StrongConfig(), valid=torch.ones(2, 4, 5, dtype=torch.bool))
    with pytest.raises(ConfigError, match="blur_sigma"):
        StrongConfig.parse({"blur_sigma": [2, 1]})
