"""Taps, axes and sums of lines, each against a loop over single pixels or Pillow; whole views are in test_weak_view.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tilth.augment.resample import Taps, linear_reach, linear_taps, nearest_sources, resample_linear, take_nearest
from tilth.augment.weak import _Axes

BITS = 22


def triangle(length: int, new_length: int, output: int) -> np.ndarray:
    """Weights of all source pixels in one output, by the definition of the filter."""
    scale = length / new_length
    support, centre = max(scale, 1.0), (output + 0.5) * scale
    weights = np.array([max(0.0, 1 - abs(pixel + 0.5 - centre) / support) for pixel in range(length)])
    return weights / weights.sum()


def dense(taps: Taps, sample: int, length: int) -> np.ndarray:
    """The same sums as a matrix (outputs, length)."""
    matrix = np.zeros((taps.sources.shape[2], length))
    for sources, weights in zip(taps.sources[:, sample], taps.weights[:, sample], strict=True):
        np.add.at(matrix, (np.arange(len(sources)), sources), weights)
    return matrix


def lengths(seed: int, samples: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    length = rng.integers(1, 50, (samples, 1))
    return length, np.maximum((length * rng.uniform(0.2, 3, (samples, 1))).astype(np.int64), 1)


@pytest.mark.parametrize("seed", range(4))
def test_taps_are_triangles_and_reach_is_where_they_have_a_weight(seed):
    length, new_length = lengths(seed)
    outputs = np.random.default_rng(seed).integers(0, new_length, (len(length), 9))
    taps, (first, end) = linear_taps(length, new_length, outputs), linear_reach(length, new_length, outputs)
    np.testing.assert_allclose(taps.weights.sum(axis=0), 1, rtol=1e-12)
    for sample, (old, new) in enumerate(zip(length[:, 0].tolist(), new_length[:, 0].tolist(), strict=True)):
        expected = np.stack([triangle(old, new, output) for output in outputs[sample].tolist()])
        np.testing.assert_allclose(dense(taps, sample, old), expected, atol=1e-12)
        np.testing.assert_allclose(dense(taps.of(sample), 0, old), expected, atol=1e-12)
        for place, weights in enumerate(expected):
            # A weight of rounding alone may count or not.
            assert set(np.flatnonzero(weights > 1e-12)) <= set(range(first[sample, place], end[sample, place]))
            assert set(range(first[sample, place], end[sample, place])) <= set(np.flatnonzero(weights > 0))


def test_taps_of_one_sample_are_no_more_than_it_needs():
    length, new_length = np.array([[40], [10]]), np.array([[10], [40]])
    taps = linear_taps(length, new_length, np.array([[3, 4], [3, 4]]))
    assert len(taps.weights) == len(taps.of(0).weights) >= 8
    assert len(taps.of(1).weights) == 2


@pytest.mark.parametrize("seed", range(4))
def test_nearest_sources_are_those_of_pillow(seed):
    length, new_length = lengths(seed + 10)
    for old, new in zip(length[:, 0].tolist(), new_length[:, 0].tolist(), strict=True):
        row = Image.fromarray(np.arange(old, dtype=np.int32)[None])
        expected = np.asarray(row.resize((new, 1), Image.Resampling.NEAREST))[0]
        outputs = np.arange(new)[None, ::-1]
        np.testing.assert_array_equal(nearest_sources(np.array([[old]]), np.array([[new]]), outputs)[0], expected[::-1])


@pytest.mark.parametrize("flip", [False, True])
def test_axes_count_from_what_was_read_and_end_where_the_tile_does(flip):
    # Length, resized length, place of the crop, first pixel read and how many, flip; the second tile is smaller than the crop.
    size, spans = 12, [(31, 45, 9, 5, 11, flip), (7, 9, 0, 0, 7, flip)]
    axes = _Axes.of(size, spans)
    for sample, (length, new_length, start, first, count, _) in enumerate(spans):
        matrix = dense(axes.taps, sample, count)
        for place in range(size):
            output = start + (size - 1 - place if flip else place)
            assert axes.inside[sample, place] == (output < new_length)
            if output < new_length:
                np.testing.assert_allclose(matrix[place], triangle(length, new_length, output)[first : first + count], atol=1e-12)
                assert axes.nearest[sample, place] == int((output + 0.5) * length / new_length) - first
            else:
                assert not matrix[place].any()
                assert 0 <= axes.nearest[sample, place] < count


def random_taps(seed: int, length: int, new_length: int, samples: int) -> Taps:
    outputs = np.random.default_rng(seed).integers(0, new_length, (samples, 8))
    return linear_taps(np.full((samples, 1), length), np.full((samples, 1), new_length), outputs)


def test_sums_of_floats_are_products_with_dense_matrices():
    source = torch.randn(2, 3, 13, 17, generator=torch.Generator().manual_seed(0))
    columns, rows = random_taps(1, 17, 6, 2), random_taps(2, 13, 30, 2)
    result = torch.empty(2, 3, 8, 8)
    assert resample_linear(source, columns, rows, result) is result
    for sample in range(2):
        expected = dense(rows, sample, 13) @ source[sample].double().numpy() @ dense(columns, sample, 17).T
        np.testing.assert_allclose(result[sample].numpy(), expected, atol=1e-5)


def test_sums_of_8_bits_are_whole_numbers_rounded_after_each_axis():
    source = np.random.default_rng(0).integers(0, 256, (2, 3, 13, 17), dtype=np.uint8)
    columns, rows = random_taps(1, 17, 6, 2).fixed(), random_taps(2, 13, 30, 2).fixed()
    result = resample_linear(torch.from_numpy(source), columns, rows)
    half = 1 << (BITS - 1)
    for sample in range(2):
        across, down = (dense(taps, sample, length).astype(np.int64) for taps, length in ((columns, 17), (rows, 13)))
        wide = (source[sample].astype(np.int64) @ across.T + half) >> BITS
        np.testing.assert_array_equal(result[sample].numpy(), (down @ wide + half) >> BITS)


def test_nearest_pixels_are_picked_one_by_one():
    rng = np.random.default_rng(0)
    planes, rows, columns = rng.integers(0, 99, (3, 5, 7)), rng.integers(0, 5, (3, 4)), rng.integers(0, 7, (3, 6))
    found = take_nearest(*(torch.from_numpy(item) for item in (planes, rows, columns)))
    expected = [[[planes[b, row, column] for column in columns[b]] for row in rows[b]] for b in range(3)]
    np.testing.assert_array_equal(found.numpy(), expected)
