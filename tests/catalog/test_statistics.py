"""Statistics of rasters against NumPy on all pixels."""

from __future__ import annotations

import numpy as np
import pytest

from tilth.catalog.statistics import DISTINCT_MOST, PATCHES_MOST, correlations, pixel_statistics, raster_statistics
from tilth.imagery.raster import Pixels, RasterInfo
from tilth.imagery.read import Window

from .conftest import noise


def header(data: np.ndarray) -> RasterInfo:
    return RasterInfo("x", data.shape[2], data.shape[1], data.shape[0], data.dtype.name, None, None, None, ("",) * len(data))


def test_bands_are_measured_over_valid_pixels_only():
    data = np.random.default_rng(0).integers(0, 50, (3, 40, 30)).astype(np.int16)
    data[1] += 7 * data[0]
    valid = np.random.default_rng(1).random((40, 30)) < 0.7
    data[:, ~valid] = 9999
    found = pixel_statistics(Pixels(data, valid), header(data))
    assert found.valid_share == pytest.approx(valid.mean())
    for band, one in zip(data, found.bands, strict=True):
        values = band[valid].astype(float)
        assert (one.minimum, one.maximum) == (values.min(), values.max())
        assert (one.mean, one.std) == pytest.approx((values.mean(), values.std()))
        assert [one.p02, one.p50, one.p98] == pytest.approx(np.percentile(values, [2, 50, 98]))
        assert one.zeros == pytest.approx((values == 0).mean())
        assert one.distinct == len(set(values.tolist()))
    assert found.correlation == pytest.approx(np.corrcoef(data[:, valid]))


def test_correlation_of_a_constant_band_is_not_a_number():
    values = np.stack([np.arange(100.0), np.full(100, 0.1), np.full(100, 1e9)])
    found = correlations(values)
    assert found[0, 0] == 1
    assert np.isnan(found[1]).all()
    assert np.isnan(found[:, 2]).all()


def test_nothing_valid_gives_no_bands():
    data = noise("n", 2, 20, 20)
    found = pixel_statistics(Pixels(data, np.zeros((20, 20), dtype=bool)), header(data))
    assert (found.bands, found.valid_share, found.patches.shape) == ((), 0.0, (2, 2, 0))
    assert np.isnan(found.correlation).all()


def test_distinct_values_are_counted_up_to_a_bound():
    data = np.arange(64 * 64, dtype=np.uint16).reshape(1, 64, 64)
    assert pixel_statistics(Pixels(data, np.ones((64, 64), dtype=bool)), header(data)).bands[0].distinct == DISTINCT_MOST


def test_patches_hold_mean_and_texture_and_no_invalid_pixel():
    data = noise("p", 2, 20, 25)
    valid = np.ones((20, 25), dtype=bool)
    valid[3, 3] = False
    found = pixel_statistics(Pixels(data, valid), header(data)).patches
    blocks = [data[:, row : row + 8, column : column + 8].reshape(2, -1) for row in (0, 8) for column in (0, 8, 16)][1:]
    assert found[0] == pytest.approx(np.stack([block.mean(axis=1) for block in blocks], axis=1), abs=1e-3)
    assert found[1] == pytest.approx(np.stack([block.std(axis=1) for block in blocks], axis=1), abs=1e-3)
    many = pixel_statistics(Pixels(noise("m", 1, 256, 256), np.ones((256, 256), dtype=bool)), header(data[:1]))
    assert many.patches.shape == (2, 1, PATCHES_MOST)


def test_a_window_is_measured_as_its_pixels_are(tmp_path, write_scene):
    data = noise("w", 3, 300, 200)
    file = str(write_scene(tmp_path / "s.tif", data))
    inside = np.ascontiguousarray(data[:, 100:250, 20:120])
    found = raster_statistics(file, Window(20, 100, 100, 150))
    expected = pixel_statistics(Pixels(inside, np.ones((150, 100), dtype=bool)), header(inside))
    assert found.bands == expected.bands
    assert np.array_equal(found.patches, expected.patches)
    assert raster_statistics(file).bands[0].mean == data[0].mean()


def test_large_rasters_are_thinned(tmp_path, write_scene, monkeypatch):
    monkeypatch.setattr("tilth.catalog.statistics._READ_NUMBERS", 3 * 400 * 7)
    rows = np.arange(300, dtype=np.uint16)[:, None] * 200 + np.arange(400, dtype=np.uint16)
    file = str(write_scene(tmp_path / "s.tif", np.stack([rows] * 3)))
    # The middles of 15 x 20 cells, wherever a strip begins.
    for first in (0, 1):
        down, across = (np.arange(15) * 2 + 1) * (300 - first) // 30 + first, np.arange(10, 400, 20)
        expected = rows[down[:, None], across].astype(float)
        found = raster_statistics(file, Window(0, first, 400, 300 - first), longest_side=20).bands[0]
        assert found.distinct == len(np.unique(expected)) == 300
        assert found.mean == pytest.approx(expected.mean(), abs=150)
        if first:
            assert (found.minimum, found.maximum, found.mean) == (expected.min(), expected.max(), expected.mean())
