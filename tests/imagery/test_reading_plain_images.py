from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from tilth.errors import DataError, UnreadableFileError
from tilth.imagery.read import Window, read_info, read_pixels


def picture(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp"])
def test_colour_image_is_three_bands(tmp_path, suffix):
    colours = picture((12, 17, 3))
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(colours).save(path, **({"lossless": True} if suffix == "webp" else {}))
    pixels, info = read_pixels(str(path)), read_info(str(path))
    np.testing.assert_array_equal(pixels.data, colours.transpose(2, 0, 1))
    assert pixels.valid.all()
    assert (info.width, info.height, info.count, info.dtype, info.crs, info.band_names) == (17, 12, 3, "uint8", None, ("",) * 3)


def test_window_of_an_image(tmp_path):
    colours = picture((12, 17, 3))
    Image.fromarray(colours).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_pixels(str(tmp_path / "a.png"), Window(5, 2, 6, 9)).data, colours[2:11, 5:11].transpose(2, 0, 1))
    with pytest.raises(DataError, match="raster of 17 x 12"):
        read_pixels(str(tmp_path / "a.png"), Window(12, 0, 6, 6))


def test_returned_pixels_may_be_written_into(tmp_path):
    Image.fromarray(picture((6, 6, 3))).save(tmp_path / "a.png")
    first = read_pixels(str(tmp_path / "a.png"))
    before = first.data.copy()
    first.data[:] = 0
    np.testing.assert_array_equal(read_pixels(str(tmp_path / "a.png")).data, before)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_becomes_valid(tmp_path, mode):
    bands = picture((8, 8, len(mode)))
    bands[..., -1] = np.where(np.arange(8) < 3, 0, 200)
    Image.fromarray(bands, mode).save(tmp_path / "a.png")
    pixels = read_pixels(str(tmp_path / "a.png"))
    np.testing.assert_array_equal(pixels.data, bands[..., :-1].transpose(2, 0, 1))
    np.testing.assert_array_equal(pixels.valid, bands[..., -1] > 0)
    assert read_info(str(tmp_path / "a.png")).count == len(mode) - 1


def test_palette_image_shows_its_colours(tmp_path):
    image = Image.fromarray(np.array([[0, 1], [1, 0]], dtype=np.uint8), "P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.save(tmp_path / "a.png")
    pixels = read_pixels(str(tmp_path / "a.png"))
    assert pixels.data[:, 0].T.tolist() == [[10, 20, 30], [200, 100, 50]]
    assert read_info(str(tmp_path / "a.png")).count == 3


def test_sixteen_bits_are_kept_in_grey_and_colour(tmp_path):
    deep = np.random.default_rng(0).integers(0, 65536, (3, 9, 9)).astype(np.uint16)
    Image.fromarray(deep[0]).save(tmp_path / "grey.png")
    with (
        pytest.warns(rasterio.errors.NotGeoreferencedWarning),
        rasterio.open(tmp_path / "colour.png", "w", driver="PNG", count=3, width=9, height=9, dtype="uint16") as dataset,
    ):
        dataset.write(deep)
    for name, expected in (("grey", deep[:1]), ("colour", deep)):
        pixels = read_pixels(str(tmp_path / f"{name}.png"))
        np.testing.assert_array_equal(pixels.data, expected)
        assert read_info(str(tmp_path / f"{name}.png")).dtype == "uint16"


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("share", [0.001, 0.3, 0.95])
def test_truncated_image_is_an_error_not_grey(tmp_path, suffix, share):
    path = tmp_path / f"broken.{suffix}"
    Image.fromarray(picture((200, 200, 3))).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(UnreadableFileError, match=rf"broken\.{suffix}") as caught:
        read_pixels(str(path))
    assert "\n" not in str(caught.value)


def test_array_is_mapped_and_windowed(tmp_path):
    data = np.random.default_rng(0).normal(size=(5, 10, 12)).astype(np.float32)
    data[2, 3, 4] = np.nan
    np.save(tmp_path / "a.npy", data)
    pixels = read_pixels(str(tmp_path / "a.npy"), Window(2, 1, 6, 7))
    np.testing.assert_array_equal(pixels.data, data[:, 1:8, 2:8])
    assert np.argwhere(~pixels.valid).tolist() == [[2, 2]]
    np.save(tmp_path / "b.npy", data[0])
    assert read_info(str(tmp_path / "b.npy")).count == 1


def test_damaged_or_odd_arrays_are_refused(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((3, 50, 50)))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UnreadableFileError, match=r"a\.npy"):
        read_pixels(str(path))
    np.save(path, np.zeros((2, 3, 4, 5)))
    with pytest.raises(DataError, match=r"\(2, 3, 4, 5\)"):
        read_info(str(path))
    np.save(path, np.array([{"pickled": 1}]))
    with pytest.raises(UnreadableFileError):
        read_pixels(str(path))


def test_plain_images_need_no_gdal(tmp_path):
    Image.fromarray(picture((6, 6, 3))).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", picture((3, 6, 6)))
    (tmp_path / "a.tif").write_bytes(b"II")
    program = f"""
import sys
sys.modules["rasterio"] = None
from tilth.errors import MissingExtraError
from tilth.imagery.read import read_info, read_label, read_pixels
for name in ("a.png", "a.npy"):
    read_info({str(tmp_path)!r} + "/" + name), read_pixels({str(tmp_path)!r} + "/" + name)
try:
    read_pixels({str(tmp_path / "a.tif")!r})
except MissingExtraError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert "pip install 'tilth[geo]'" in ran.stdout
