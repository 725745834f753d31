"""Windows that rasters are cut into: they cover, and lie where papers cut them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tilth.catalog.geometry import cut_windows


@pytest.mark.parametrize(("width", "height", "size", "stride"), [(70, 50, 32, 32), (64, 64, 32, 16), (33, 100, 32, 20), (10, 40, 32, 32)])
def test_shifted_windows_cover_every_pixel_and_stay_inside(width, height, size, stride):
    seen = np.zeros((height, width), dtype=int)
    windows = cut_windows(width, height, size, stride, "shift")
    for window in windows:
        assert window.column + window.width <= width
        assert window.row + window.height <= height
        seen[window.row : window.row + window.height, window.column : window.column + window.width] += 1
    assert seen.min() >= 1
    assert len(set(windows)) == len(windows)
    assert set(cut_windows(width, height, size, stride, "drop")) <= set(windows)


@pytest.mark.parametrize(("length", "size", "stride"), [(70, 32, 32), (64, 32, 16), (33, 32, 20), (10, 32, 32), (32, 32, 8), (9, 4, 3)])
def test_windows_are_spread_evenly_or_stand_in_the_middle(length, size, stride):
    spread, shifted, dropped, centred = (
        [window.column for window in cut_windows(length, length, size, stride, edge) if window.row == row]
        for edge, row in (("spread", 0), ("shift", 0), ("drop", 0), ("centre", max(0, (length - size) % stride // 2)))
    )
    assert (spread[0], spread[-1], len(spread)) == (0, max(0, length - size), len(shifted))
    steps = np.diff(spread)
    assert len(steps) == 0 or (steps.max() <= stride and steps[:-1].tolist() == [steps[0]] * (len(steps) - 1))
    assert len(centred) == len(dropped)
    if centred:
        assert 0 <= (length - centred[-1] - size) - centred[0] <= 1


CROPS = np.load(Path(__file__).parents[1] / "fixtures" / "cromss" / "crops.npz")


@pytest.mark.parametrize(
    ("name", "size", "edge"),
    [("510_p102_b1", 102, "centre"), ("512_p102_b1", 102, "centre"), ("510_p256_b0", 256, "drop"), ("512_p256_b0", 256, "drop"),
     ("dense_510_p224", 224, "spread"), ("dense_512_p224", 224, "spread")],
)  # fmt: skip
def test_tiles_for_transformers_are_cut_as_published(name, size, edge):
    """cromss.md section 2.5; a pixel is worth 1000 times its row and its column."""
    side = 510 if "510" in name else 512
    image = 1000 * np.arange(side)[:, None] + np.arange(side)
    image = np.pad(image, (512 - side) // 2, mode="edge")
    corners = [
        (image[window.row, window.column], image[window.row + window.height - 1, window.column + window.width - 1])
        for window in cut_windows(*image.shape, size, size, edge)
    ]
    np.testing.assert_array_equal(corners, CROPS[f"crop_{name}"])
