"""Linear stretch: the formula, what is drawn, and what is left alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tilth import seeds
from tilth.augment.normalise import from_unit, to_unit
from tilth.augment.stretch import linear_stretch
from tilth.sensors import get_sensor

RGB = get_sensor("rgb")
SHARE = (0.05, 0.15)


def unit_images(count: int = 4) -> torch.Tensor:
    return torch.rand(count, 3, 12, 10, generator=torch.Generator().manual_seed(0))


def stretch(unit, draws, valid=None, sensor=RGB, **options):
    image = from_unit(unit, sensor)
    options = {"probability": 1.0, "share": SHARE} | options
    return to_unit(linear_stretch(image, valid, sensor, draws, **options), sensor)


@pytest.mark.parametrize("percentile", [False, True])
def test_values_follow_the_formula(percentile):
    unit = unit_images()
    found = stretch(unit, [1, 2, 3, 4], percentile=percentile)
    for place in range(4):
        generator = seeds.generator(place + 1, "stretch")
        generator.random()
        drawn = generator.uniform(*SHARE)
        values = unit[place].double().numpy()
        low, high = np.quantile(values, (drawn / 2, 1 - drawn / 2)) if percentile else (drawn, 1 - drawn)
        np.testing.assert_allclose(found[place].numpy(), np.clip((values - low) / (high - low), 0, 1), atol=1e-5)


def test_an_image_is_stretched_by_its_own_draw_and_as_often_as_asked():
    unit = unit_images(1).expand(400, -1, -1, -1)
    draws = list(range(400))
    found = stretch(unit, draws, probability=0.5)
    changed = [not torch.allclose(one, other, atol=1e-5) for one, other in zip(found, unit, strict=True)]
    assert 160 < sum(changed) < 240
    turned = stretch(unit, draws[::-1], probability=0.5)
    assert torch.equal(turned, found.flip(0))
    image = from_unit(unit, RGB)
    assert torch.equal(linear_stretch(image, None, RGB, draws, probability=0, share=SHARE), image)


@pytest.mark.parametrize("percentile", [False, True])
def test_pixels_without_data_stay_and_do_not_count(percentile):
    unit = unit_images(2)
    valid = torch.zeros(2, 12, 10, dtype=torch.bool)
    valid[0, :6] = True
    image = from_unit(unit, RGB)
    found = linear_stretch(image, valid, RGB, [1, 2], probability=1, share=SHARE, percentile=percentile)
    assert torch.equal(found[1], image[1])
    assert torch.equal(found[0, :, 6:], image[0, :, 6:])
    alone = linear_stretch(image[:1, :, :6], None, RGB, [1], probability=1, share=SHARE, percentile=percentile)
    assert torch.equal(found[0, :, :6], alone[0])


def test_flat_images_and_other_sensors():
    sensor = get_sensor("s1")
    flat = torch.full((1, 2, 4, 4), 0.5)
    assert torch.isfinite(stretch(flat, [1], sensor=sensor, percentile=True)).all()
    assert torch.allclose(stretch(flat, [1], sensor=sensor), flat, atol=1e-5)
