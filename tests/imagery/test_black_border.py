from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from scipy import ndimage

from tilth.imagery.black_border import find_black_border
from tilth.imagery.read import Window, read_info, read_pixels
from tilth.imagery.write import write_raster

IMAGES = Path(__file__).parents[2].parent / "shared" / "data" / "vhr"

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


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
    np.testing.assert_array_equal(found(scene(tmp_path / "a.tif", black)), black)


@pytest.mark.parametrize("quality", [50, 75, 90])
def test_corner_blurred_by_compression_is_found_but_for_its_rim(tmp_path, quality):
    black = corner(400, 300)
    data = np.where(black, 0, np.array([90, 110, 70])[:, None, None]).astype(np.uint8)
    uri = str(tmp_path / "a.tif")
    with rasterio.open(
        uri, "w", driver="GTiff", width=300, height=400, count=3, dtype="uint8", compress="jpeg", jpeg_quality=quality, photometric="ycbcr"
    ) as dataset:
        dataset.write(data)
    mask = found(uri)
    assert not (mask & ~black).any()
    assert mask[ndimage.binary_erosion(black, structure=np.ones((3, 3)), iterations=17, border_value=1)].mean() > 0.999


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
    for noise in (1, 2, 10):
        assert found(scene(tmp_path / "noisy.tif", noisy, noise=noise)) is None


def test_scene_that_names_nodata_is_taken_at_its_word(tmp_path):
    assert find_black_border(scene(tmp_path / "a.tif", corner(400, 300), nodata=0)) is None


@pytest.mark.skipif(not IMAGES.is_dir(), reason="needs the shared data")
@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("scenes/oam_manila_0.10m.tif", 0.185),
        ("scenes/oam_brazil_0.10m.tif", 0.0),
        ("scenes/nl_ortho_0.25m.tif", 0.0),
        # An image turned on its canvas: four slivers.
        ("obb_dota/images/P0003.jpg", 0.0585),
        # A lake at the edge of the image, most of it exactly (0, 0, 0).
        ("dubai_mbrsc/images/t7_p9_q10.jpg", 0.0),
    ],
)
def test_real_images_lose_their_surroundings_and_no_ground(name, share):
    mask = found(str(IMAGES / name))
    assert (0.0 if mask is None else mask.mean()) == pytest.approx(share, abs=0.002)
