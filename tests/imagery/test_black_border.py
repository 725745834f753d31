from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tilth.imagery.black_border import find_black_border
from tilth.imagery.read import Window, read_info, read_pixels
from tilth.imagery.write import write_raster

SCENES = Path(__file__).parents[2].parent / "shared" / "data" / "vhr" / "scenes"


def scene(path: Path, black: np.ndarray, noise: int = 0, nodata: float | None = None) -> str:
    draw = np.random.default_rng(0)
    data = draw.integers(40, 200, (3, *black.shape)).astype(np.uint8)
    data[:, black] = draw.integers(0, noise + 1, (3, int(black.sum())))
    return str(write_raster(path, data, crs=None, transform=None, nodata=nodata))


def corner(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return rows + columns < 150


def found(uri: str, longest_side: int = 2048) -> np.ndarray | None:
    border = find_black_border(uri, longest_side)
    if border is None:
        return None
    info = read_info(uri)
    whole = Window(0, 0, info.width, info.height)
    return border.mask(read_pixels(uri).data, whole)


def test_black_corner_is_found_exactly(tmp_path):
    black = corner(400, 300)
    np.testing.assert_array_equal(found(scene(tmp_path / "a.tif", black, noise=2)), black)


@pytest.mark.parametrize("longest_side", [37, 100, 333])
def test_thinned_decision_gives_the_same_pixels(tmp_path, longest_side):
    black = corner(400, 300)
    np.testing.assert_array_equal(found(scene(tmp_path / "a.tif", black), longest_side), black)


def test_windows_of_the_mask_fit_together(tmp_path):
    uri = scene(tmp_path / "a.tif", corner(401, 307))
    border, whole = find_black_border(uri, 100), found(uri, 100)
    for window in (Window(0, 0, 50, 60), Window(33, 71, 90, 20), Window(300, 390, 7, 11)):
        part = border.mask(read_pixels(uri, window).data, window)
        np.testing.assert_array_equal(part, whole[window.row : window.row + window.height, window.column : window.column + window.width])


def test_black_inside_small_or_noisy_is_ground(tmp_path):
    inside, small, noisy = (np.zeros((400, 300), dtype=bool) for _ in range(3))
    inside[100:300, 100:200] = True
    small[:30, :30] = True
    noisy[:200] = True
    assert found(scene(tmp_path / "inside.tif", inside)) is None
    assert found(scene(tmp_path / "small.tif", small)) is None
    # Dark water: within the limit in every band, but with a sensor's noise.
    assert found(scene(tmp_path / "noisy.tif", noisy, noise=10)) is None


def test_scene_that_names_nodata_is_taken_at_its_word(tmp_path):
    assert find_black_border(scene(tmp_path / "a.tif", corner(400, 300), nodata=0)) is None


@pytest.mark.skipif(not SCENES.is_dir(), reason="needs the shared data")
@pytest.mark.parametrize(("name", "share"), [("oam_manila_0.10m", 0.185), ("oam_brazil_0.10m", 0.0), ("nl_ortho_0.25m", 0.0)])
def test_real_scenes_lose_their_black_corner_and_no_ground(name, share):
    mask = found(str(SCENES / f"{name}.tif"))
    assert (0.0 if mask is None else mask.mean()) == pytest.approx(share, abs=0.001)
