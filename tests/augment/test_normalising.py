import numpy as np
import pytest
import torch

from tilth.augment.normalise import fill_value, from_unit, normalise, to_unit
from tilth.errors import SensorMismatchError
from tilth.sensors import get_sensor


@pytest.mark.parametrize(
    ("name", "dtype"), [("rgb", "uint8"), ("s2_l1c", "uint16"), ("hls", "int16"), ("s1", "float32"), ("s1+s2_l2a", "float64")]
)
def test_every_storage_type_follows_the_sensor(name, dtype):
    sensor = get_sensor(name)
    low, high = {"uint8": (0, 255), "uint16": (0, 60000), "int16": (-3000, 12000)}.get(dtype, (-40, 10000))
    stored = np.random.default_rng(0).integers(low, high, (2, len(sensor), 5, 7)).astype(dtype)
    expected = [(stored[:, i].astype(np.float64) * band.scale + band.offset - band.mean) / band.std for i, band in enumerate(sensor.bands)]
    image = normalise(torch.from_numpy(stored), None, sensor)
    assert image.dtype == torch.float32
    np.testing.assert_allclose(image.numpy(), np.stack(expected, 1), rtol=2e-6, atol=2e-6)


def test_invalid_pixels_of_8_bit_sensors_are_raw_black():
    sensor = get_sensor("rgb")
    valid = torch.tensor([[[True, False]]])
    image = normalise(torch.full((1, 3, 1, 2), 200, dtype=torch.uint8), valid, sensor)
    black = normalise(torch.zeros(1, 3, 1, 1, dtype=torch.uint8), None, sensor)
    assert torch.equal(image[..., 1:], black)
    assert not torch.equal(image[..., :1], black)
    assert fill_value(sensor).tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", ["s1", "s2_l2a", "hls", "s1+s2_l1c"])
def test_invalid_pixels_of_other_sensors_are_the_band_mean(name):
    sensor = get_sensor(name)
    stored = torch.full((1, len(sensor), 2, 2), -9999.0)
    image = normalise(stored, torch.zeros(1, 2, 2, dtype=torch.bool), sensor)
    assert image.abs().max() < 1e-6
    from_mean = normalise(fill_value(sensor).view(1, -1, 1, 1), None, sensor)
    assert from_mean.abs().max() < 1e-5


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 3.4e38])
def test_nothing_that_is_not_finite_survives(bad):
    sensor = get_sensor("s2_l2a")
    stored = torch.full((2, 12, 3, 3), 1500.0)
    stored[1, 4, 1, 1] = bad
    image = normalise(stored, None, sensor)
    assert torch.isfinite(image).all()
    if not np.isfinite(bad):
        assert image[1, 4, 1, 1] == 0
    assert torch.equal(image[0], normalise(stored[:1], None, sensor)[0])


def test_units_go_there_and_back():
    sensor = get_sensor("s1+s2_l1c")
    image = torch.randn(2, 15, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(from_unit(to_unit(image, sensor), sensor), image, rtol=1e-5, atol=1e-5)


def test_unit_zero_and_one_are_low_and_high():
    sensor = get_sensor("s1")
    stored = torch.tensor([[band.low, band.high] for band in sensor.bands]).view(1, 2, 1, 2)
    unit = to_unit(normalise(stored, None, sensor), sensor)
    torch.testing.assert_close(unit[0, :, 0], torch.tensor([[0.0, 1.0], [0.0, 1.0]]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("operation", [lambda x, s: normalise(x, None, s), to_unit, from_unit])
def test_another_number_of_bands_is_refused(operation):
    with pytest.raises(SensorMismatchError, match=r"shape \(1, 4, 2, 2\).*'rgb' needs \(B, 3, H, W\)"):
        operation(torch.zeros(1, 4, 2, 2), get_sensor("rgb"))


def test_the_input_is_left_alone():
    stored = torch.tensor([1.0, float("nan")]).view(1, 1, 1, 2).expand(1, 2, 1, 2).contiguous()
    before = stored.clone()
    normalise(stored, torch.tensor([[[False, True]]]), get_sensor("s1"))
    torch.testing.assert_close(stored, before, equal_nan=True, rtol=0, atol=0)
