"""Boundary IoU against a test of every pair of pixels, and against erosion as the paper's program does it."""

import time

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from tilth.evaluation.boundary import band_width, boundary_band, boundary_counts


def blobs(seed: int, height: int, width: int, classes: int, ignored: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    coarse = random.integers(0, classes, (height // 5 + 1, width // 5 + 1))
    result = np.kron(coarse, np.ones((5, 5), dtype=int))[:height, :width].astype(np.uint8)
    result[random.random(result.shape) < ignored] = 255
    return result


def slow_band(member: np.ndarray, distance: int) -> np.ndarray:
    """Pixels of a mask from which a pixel outside of it, or of the image, is at most so many steps away along rows and columns."""
    height, width = member.shape
    result = np.zeros_like(member)
    for row, column in np.argwhere(member):
        steps = range(-distance, distance + 1)
        around = [(row + down, column + across) for down in steps for across in steps]
        result[row, column] = any(not (0 <= y < height and 0 <= x < width) or not member[y, x] for y, x in around)
    return result


@pytest.mark.parametrize("distance", [1, 2, 4])
@pytest.mark.parametrize(("height", "width"), [(17, 23), (9, 1), (3, 40)])
def test_bands_equal_a_test_of_every_neighbour(height: int, width: int, distance: int) -> None:
    classes = blobs(distance, height, width, 3, ignored=0.02)
    found = boundary_band(classes, distance)
    expected = np.zeros(classes.shape, dtype=bool)
    for value in range(3):
        expected |= slow_band(classes == value, distance)
    assert np.array_equal(found, expected)
    assert not found[classes == 255].any()


def test_bands_equal_repeated_erosion_with_a_square() -> None:
    classes = blobs(3, 61, 80, 4)
    for distance in (1, 3, 6):
        for value in range(4):
            member = classes == value
            inner = binary_erosion(member, np.ones((3, 3)), iterations=distance, border_value=0)
            assert np.array_equal(boundary_band(classes, distance) & member, member & ~inner)


@pytest.mark.parametrize("seed", range(3))
def test_counts_equal_sets_of_pixels_class_by_class(seed: int) -> None:
    mask, prediction = blobs(seed, 40, 31, 3, ignored=0.03), blobs(seed + 9, 40, 31, 3)
    found = boundary_counts(prediction, mask, 4, share=0.05)
    distance = round(0.05 * np.hypot(40, 31))
    for value in range(4):
        reference = slow_band(mask == value, distance)
        predicted = slow_band((prediction == value) & (mask != 255), distance)
        assert found[:, value].tolist() == [(reference & predicted).sum(), (reference | predicted).sum()]


def test_what_is_predicted_on_ignored_pixels_does_not_matter() -> None:
    mask = blobs(1, 40, 40, 3, ignored=0.2)
    one, other = blobs(2, 40, 40, 3), blobs(2, 40, 40, 3)
    other[mask == 255] = 77
    assert np.array_equal(boundary_counts(one, mask, 3), boundary_counts(other, mask, 3))


def test_a_shifted_square_loses_its_outline_though_its_inside_agrees() -> None:
    mask = np.zeros((200, 200), dtype=np.uint8)
    mask[50:150, 50:150] = 1
    prediction = np.roll(mask, 5, axis=1)
    both, either = boundary_counts(prediction, mask, 2, share=0.01)[:, 1]
    plain = ((mask == 1) & (prediction == 1)).sum() / ((mask == 1) | (prediction == 1)).sum()
    assert plain > 0.9
    assert both / either < 0.4
    perfect = boundary_counts(mask, mask, 2, share=0.01)
    assert np.array_equal(perfect[0], perfect[1])


def test_the_band_is_a_share_of_the_diagonal_and_never_empty() -> None:
    assert [band_width(512, 512), band_width(300, 400), band_width(10, 10)] == [14, 10, 1]
    assert band_width(300, 400, 0.1) == 50


def test_a_tile_takes_less_than_a_tenth_of_a_second() -> None:
    mask, prediction = blobs(1, 512, 512, 6, ignored=0.01), blobs(2, 512, 512, 6)
    taken_s = []
    for _ in range(5):
        started = time.perf_counter()
        boundary_counts(prediction, mask, 6)
        taken_s.append(time.perf_counter() - started)
    assert min(taken_s) < 0.1, taken_s
