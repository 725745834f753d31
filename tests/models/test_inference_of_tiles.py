from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from support.tiny_models import TinySegmenter
from tilth.errors import SensorMismatchError, UsageError
from tilth.imagery.read import Pixels
from tilth.models.inference import evaluating, predict_tile
from tilth.models.windows import blend_weights, fit_window, weight_sum, window_starts
from tilth.sensors import get_sensor


def tile(height: int, width: int, bands: int = 3, dtype: str = "uint8", seed: int = 0) -> Pixels:
    draw = np.random.default_rng(seed)
    return Pixels(draw.integers(0, 256, (bands, height, width)).astype(dtype), draw.random((height, width)) > 0.1)


def brute_force(model: TinySegmenter, pixels: Pixels, window: int, overlap: int) -> torch.Tensor:
    """All windows at once, in double precision, weights from the formula, nothing shared with the program but the starts."""
    _, height, width = pixels.data.shape
    numerator, denominator = np.zeros((len(model.scheme), height, width)), np.zeros((height, width))
    for row in window_starts(height, window, window - overlap):
        for column in window_starts(width, window, window - overlap):
            image, valid = np.zeros((len(pixels.data), window, window)), np.zeros((window, window), dtype=bool)
            part = pixels.data[:, row : row + window, column : column + window]
            high, wide = part.shape[1:]
            image[:, :high, :wide], valid[:high, :wide] = part, pixels.valid[row : row + window, column : column + window]
            with torch.no_grad():
                stored = torch.from_numpy(image[None]).float()
                logits = model.eval()(model.normalise(stored, torch.from_numpy(valid[None])))[0].double()
            for i in range(high):
                for j in range(wide):
                    weight = math.sin(math.pi * (i + 0.5) / window) ** 2 * math.sin(math.pi * (j + 0.5) / window) ** 2
                    numerator[:, row + i, column + j] += weight * torch.softmax(logits[:, i, j], 0).numpy()
                    denominator[row + i, column + j] += weight
    return torch.from_numpy(numerator / denominator)


@pytest.mark.parametrize(
    ("height", "width", "window", "overlap"),
    [(23, 31, 8, 4), (17, 16, 8, 3), (30, 5, 12, 4), (7, 9, 16, 8), (16, 16, 16, 0), (1, 1, 4, 1), (20, 20, 7, 6)],
)
def test_probabilities_equal_the_brute_force_mean(height, width, window, overlap):
    model, pixels = TinySegmenter(), tile(height, width)
    got = predict_tile(model, pixels, window=window, overlap=overlap, batch_size=3)
    assert got.shape == (4, height, width)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), brute_force(model, pixels, window, overlap), atol=1e-5, rtol=0)
    torch.testing.assert_close(got.sum(0), torch.ones(height, width))


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_batch_size_does_not_matter(batch_size):
    model, pixels = TinySegmenter(), tile(40, 33)
    one = predict_tile(model, pixels, window=16, overlap=5, batch_size=1)
    other = predict_tile(model, pixels, window=16, overlap=5, batch_size=batch_size)
    # Convolutions round otherwise in batches of other sizes; a pixel may change class only where two are level to that.
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    first, second = one.topk(2, dim=0).values
    clear = first - second > 2e-5
    assert clear.float().mean() > 0.999
    assert torch.equal(one.argmax(0)[clear], other.argmax(0)[clear])
    assert max(model.batches) <= max(batch_size, 1)


def test_what_lies_under_invalid_pixels_does_not_matter():
    model, pixels = TinySegmenter(get_sensor("s1")), tile(20, 20, bands=2, dtype="float32")
    spoilt = np.where(pixels.valid, pixels.data, np.nan)
    spoilt[0, ~pixels.valid] = np.inf
    clean = predict_tile(model, pixels, window=8, overlap=4)
    assert torch.equal(clean, predict_tile(model, Pixels(spoilt, pixels.valid), window=8, overlap=4))
    assert torch.isfinite(clean).all()


def test_tile_smaller_than_the_window_is_padded_with_invalid_pixels():
    model, pixels = TinySegmenter(get_sensor("s1")), tile(6, 5, bands=2, dtype="float32")
    wide = Pixels(np.pad(pixels.data, ((0, 0), (0, 4), (0, 5)), constant_values=7), np.pad(pixels.valid, ((0, 4), (0, 5))))
    got = predict_tile(model, pixels, window=10, overlap=2)
    torch.testing.assert_close(got, predict_tile(model, wide, window=10, overlap=2)[:, :6, :5])


@pytest.mark.parametrize(
    ("asked", "size", "expected"),
    [
        ((512, 128), (100, 70), (128, 127)),
        ((512, 128), (1, 1), (32, 31)),
        ((512, 16), (64, 64), (64, 16)),
        ((512, 128), (600, 70), (512, 128)),
        ((20, 4), (7, 9), (20, 4)),
    ],
)
def test_a_window_is_no_larger_than_the_network_needs_for_the_image(asked, size, expected):
    assert fit_window(*asked, *size) == expected


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
def test_stored_types_give_the_same_as_float(dtype):
    model, pixels = TinySegmenter(), tile(12, 12)
    other = Pixels(pixels.data.astype(dtype), pixels.valid)
    assert torch.equal(predict_tile(model, pixels, window=8, overlap=4), predict_tile(model, other, window=8, overlap=4))


def test_training_mode_is_restored_and_no_gradient_kept():
    model, pixels = TinySegmenter().train(), tile(12, 12)
    first = predict_tile(model, pixels, window=8, overlap=4)
    assert model.training
    assert not first.requires_grad
    # Dropout was off.
    assert torch.equal(first, predict_tile(model, pixels, window=8, overlap=4))
    # And a training step afterwards works.
    model(model.normalise(torch.zeros(1, 3, 8, 8))).sum().backward()


def test_every_part_gets_its_own_mode_back():
    model = TinySegmenter().train()
    model.dropout.eval()
    before = [part.training for part in model.modules()]
    predict_tile(model, tile(12, 12), window=8, overlap=4)
    assert [part.training for part in model.modules()] == before
    with evaluating(model):
        assert not any(part.training for part in model.modules())
        assert not torch.is_grad_enabled()
    assert [part.training for part in model.modules()] == before
    assert torch.is_grad_enabled()


def test_narrow_precision_stays_near():
    model, pixels = TinySegmenter(), tile(16, 16)
    exact = predict_tile(model, pixels, window=8, overlap=4)
    rough = predict_tile(model, pixels, window=8, overlap=4, precision="bf16-mixed")
    assert rough.dtype == torch.float32
    assert 0 < (exact - rough).abs().max() < 0.1


def test_windows_cover_every_axis_and_end_at_the_border():
    for size in range(1, 40):
        for window in range(1, 12):
            for stride in range(1, window + 1):
                starts = window_starts(size, window, stride)
                covered = {position for start in starts for position in range(start, start + window)}
                assert covered >= set(range(size))
                assert starts == sorted(set(starts))
                assert starts[-1] + window == max(size, window)
                assert (weight_sum(starts, window, size) > 0).all()


@pytest.mark.parametrize("window", [1, 2, 7, 512, 1024])
def test_weights_are_positive_symmetric_and_highest_in_the_middle(window):
    weights = blend_weights(window)
    assert weights.shape == (window, window)
    assert (weights > 0).all()
    assert torch.allclose(weights, weights.flip(0), atol=1e-6)
    assert torch.equal(weights, weights.T)
    assert weights.max() == weights[window // 2, window // 2]


def test_weights_at_half_overlap_sum_to_a_constant():
    total = weight_sum(range(0, 96, 8), 16, 104)[8:-8]
    torch.testing.assert_close(total, torch.ones_like(total))


@pytest.mark.parametrize("settings", [{"window": 0}, {"overlap": 8}, {"overlap": -1}, {"batch_size": 0}, {"precision": "64"}])
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(UsageError):
        predict_tile(TinySegmenter(), tile(8, 8), **({"window": 8, "overlap": 2} | settings))


def test_other_band_count_is_refused():
    with pytest.raises(SensorMismatchError, match=r"tile has 2 bands.*3 of sensor 'rgb'"):
        predict_tile(TinySegmenter(), tile(8, 8, bands=2), window=8, overlap=2)
