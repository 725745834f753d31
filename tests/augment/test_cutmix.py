import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tilth import seeds
from tilth.augment.config import CutMixConfig
from tilth.augment.cutmix import boxes, draw_box, fit_box, mix
from tilth.errors import ConfigError, DataError

FIXTURES = Path(__file__).parents[1] / "fixtures" / "s5"
RECORDED = json.loads((FIXTURES / "cutmix_boxes.json").read_text())


def official_value(key, shape):
    """Deterministic tensors of the parity fixtures."""
    import zlib

    return torch.from_numpy(np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape).astype(np.float32))


class Recorded:
    """A generator that plays recorded draws back, in the order the program under test asks for them."""

    def __init__(self, case, config):
        self.gate, self.config = case["gate"], config
        self.area = case.get("area_fraction")
        self.draws = [value for attempt in case.get("tries", []) for value in attempt]
        self.used = 0

    def random(self):
        return self.gate

    def uniform(self, low, high):
        if (low, high) == self.config.area:
            area, self.area = self.area, None
            return area
        assert (low, high) == pytest.approx(self.config.ratio)
        return self.integers(0, 0)

    def integers(self, low, high):
        self.used += 1
        return self.draws[self.used - 1]


@pytest.mark.parametrize("case", RECORDED["cases"])
def test_recorded_draws_give_the_recorded_boxes(case):
    config = CutMixConfig()
    generator = Recorded(case, config)
    box = draw_box(generator, RECORDED["image_size"], config)
    assert box == (tuple(case["box_yxhw"]) if case["box_yxhw"] else None)
    assert generator.used == 3 * len(case.get("tries", []))


def test_only_the_last_recorded_try_fits():
    size = RECORDED["image_size"]
    for case in RECORDED["cases"]:
        fits = [fit_box(case["area_fraction"] * size * size, *attempt, size, size) is not None for attempt in case.get("tries", [])]
        assert fits == [False] * (len(fits) - 1) + [True] * bool(fits)


def test_moments_are_those_of_the_official_program():
    expected = RECORDED["monte_carlo"]
    size, count = expected["image_size"], expected["n"]
    drawn = [draw_box(seeds.generator(number, "moments"), size, CutMixConfig()) for number in range(count)]
    areas = np.array([box[2] * box[3] / size**2 for box in drawn if box])
    # Both sides are samples, so the standard error of the difference is sqrt(2) times that of one.
    rate_error = math.sqrt(2 * 0.25 / count)
    area_error = math.sqrt(2) * expected["area_std"] / math.sqrt(len(areas))
    assert abs(len(areas) / count - expected["fraction_with_box"]) < 3 * rate_error
    assert abs(areas.mean() - expected["area_mean"]) < 3 * area_error
    assert abs(areas.std() - expected["area_std"]) < 3 * area_error / math.sqrt(2)
    assert areas.max() <= 0.4


@pytest.mark.parametrize(("height", "width"), [(64, 64), (40, 90), (7, 3), (1, 1), (1, 30)])
def test_boxes_lie_inside_images_of_any_shape(height, width):
    config = CutMixConfig(probability=1)
    for number in range(200):
        y, x, box_height, box_width = draw_box(seeds.generator(number), (height, width), config)
        assert 0 <= y <= y + box_height <= height
        assert 0 <= x <= x + box_width <= width


def test_boxes_of_a_batch_depend_on_each_seed_alone():
    config, draws = CutMixConfig(probability=0.8), [5, 9, 2**62, 77]
    together = boxes(draws, 48, 32, config)
    assert together.shape == (4, 48, 32)
    assert together.dtype == torch.bool
    for place, draw in enumerate(draws):
        assert torch.equal(boxes([draw], 48, 32, config)[0], together[place])
    assert not torch.equal(boxes(draws, 48, 32, config, view=1), together)


def test_probability_zero_and_one_are_never_and_always():
    assert not boxes(list(range(50)), 32, 32, CutMixConfig(probability=0)).any()
    assert boxes(list(range(50)), 32, 32, CutMixConfig(probability=1)).any((1, 2)).all()


def test_mixing_equals_the_official_step():
    case, arrays = json.loads((FIXTURES / "loss_a.json").read_text()), np.load(FIXTURES / "loss_a.npz")
    samples, size, classes = case["batch"], case["size"], case["classes"]
    box = torch.zeros(samples, size, size, dtype=torch.bool)
    for sample, rectangle in enumerate(case["boxes1"]):
        if rectangle:
            y, x, height, width = rectangle
            box[sample, y : y + height, x : x + width] = True

    def image(name):
        return official_value(f"input:loss_a_{name}", (samples, 3, size, size))

    def teacher(name):
        low = official_value(f"input:loss_a_{name}_lo", (samples, classes, size // 4, size // 4))
        full = official_value(f"input:loss_a_{name}", (samples, classes, size, size))
        return (case["gain"] * low.repeat_interleave(4, 2).repeat_interleave(4, 3) + 0.5 * full).softmax(1).max(1)

    def ignored(rectangles):
        plane = torch.zeros(samples, size, size, dtype=torch.int64)
        for sample, y, x, height, width in rectangles:
            plane[sample, y : y + height, x : x + width] = 255
        return plane

    mixed = mix(box, image("img_u_s1_mix"), image("img_u_s1"))
    np.testing.assert_array_equal(mixed[:, 0, ::2, ::2].numpy(), arrays["fix_img"])
    base, pasted = teacher("logits_u_w"), teacher("logits_u_w_mix")
    np.testing.assert_array_equal(mix(box, pasted.indices, base.indices).numpy(), arrays["fix_target"])
    np.testing.assert_allclose(mix(box, pasted.values, base.values).numpy(), arrays["fix_conf"], atol=1e-6)
    ignore = mix(box, ignored(case["ignore_mix_rects"]), ignored(case["ignore_u_rects"]))
    np.testing.assert_array_equal(ignore.numpy(), arrays["fix_ignore"])


@pytest.mark.parametrize(
    ("pasted", "base", "box"), [((2, 3, 4, 4), (2, 3, 4, 5), (2, 4, 4)), ((2, 4, 4), (2, 4, 4), (1, 4, 4)), ((2, 4), (2, 4), (2, 4, 4))]
)
def test_shapes_that_do_not_belong_together_are_refused(pasted, base, box):
    with pytest.raises(DataError, match="cannot mix"):
        mix(torch.zeros(box, dtype=torch.bool), torch.zeros(pasted), torch.zeros(base))


@pytest.mark.parametrize("values", [{"area": [0.5, 1.0]}, {"area": [0.3, 0.1]}, {"area": [0.1, 0.6], "ratio": [2, 3]}])
def test_ranges_without_a_box_that_fits_are_refused(values):
    with pytest.raises(ConfigError):
        CutMixConfig.parse(values)
