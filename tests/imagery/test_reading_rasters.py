from __future__ import annotations

import multiprocessing
import threading
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from tilth.errors import DataError, MissingFileError, UnreadableFileError
from tilth.imagery import gdal
from tilth.imagery.read import Window, read_info, read_label, read_overview, read_pixels
from tilth.imagery.write import write_raster

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def tif(path: Path, data: np.ndarray, **profile) -> str:
    """Write with rasterio itself, so that the reader is not checked against our own writer."""
    settings = {"driver": "GTiff", "count": data.shape[0], "height": data.shape[1], "width": data.shape[2], "dtype": data.dtype.name}
    with rasterio.open(path, "w", **(settings | profile)) as dataset:
        dataset.write(data)
    return str(path)


def numbers(dtype: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 200, shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 14])
def test_values_type_and_band_count_are_kept(tmp_path, dtype, count):
    data = numbers(dtype, (count, 20, 31))
    uri = tif(tmp_path / "a.tif", data)
    info, pixels = read_info(uri), read_pixels(uri)
    assert (info.count, info.height, info.width, info.dtype) == (count, 20, 31, dtype)
    assert pixels.data.dtype == dtype
    np.testing.assert_array_equal(pixels.data, data)
    assert pixels.valid.all()
    np.testing.assert_array_equal(read_pixels(uri, Window(4, 3, 10, 7)).data, data[:, 3:10, 4:14])


def test_header_gives_crs_transform_nodata_and_band_names(tmp_path):
    uri = tif(
        tmp_path / "a.tif", numbers("uint16", (2, 9, 9)), crs="EPSG:32633", transform=rasterio.Affine(10, 0, 500, 0, -10, 900), nodata=0
    )
    with rasterio.open(uri, "r+") as dataset:
        dataset.descriptions = ("B02", None)
    info = read_info(uri)
    assert info.crs == "EPSG:32633"
    assert info.transform == (10, 0, 500, 0, -10, 900)
    assert info.nodata == 0
    assert info.band_names == ("B02", "")


def test_raster_without_georeference_has_neither_crs_nor_transform(tmp_path):
    info = read_info(tif(tmp_path / "a.tif", numbers("uint8", (1, 4, 4))))
    assert info.crs is None
    assert info.transform is None


@pytest.mark.parametrize("suffix", ["vrt", "img", "jp2"])
def test_other_formats_go_through_the_same_door(tmp_path, suffix):
    data = numbers("uint8", (3, 64, 64))
    source = tif(tmp_path / "a.tif", data, crs="EPSG:32633", transform=rasterio.Affine(10, 0, 500, 0, -10, 900))
    from rasterio.shutil import copy

    options = {"QUALITY": "100", "REVERSIBLE": "YES"} if suffix == "jp2" else {}
    copy(source, tmp_path / f"b.{suffix}", driver={"vrt": "VRT", "img": "HFA", "jp2": "JP2OpenJPEG"}[suffix], **options)
    np.testing.assert_array_equal(read_pixels(str(tmp_path / f"b.{suffix}")).data, data)


def test_nodata_in_any_band_makes_a_pixel_invalid(tmp_path):
    data = numbers("int16", (3, 6, 6))
    data[1, 2, 3] = -9999
    pixels = read_pixels(tif(tmp_path / "a.tif", data, nodata=-9999))
    assert not pixels.valid[2, 3]
    assert pixels.valid.sum() == 35


@pytest.mark.parametrize("nodata", [None, np.nan, -1.0])
def test_values_that_are_not_finite_are_invalid_whatever_nodata_is(tmp_path, nodata):
    data = numbers("float32", (2, 6, 6))
    data[0, 0, 0], data[1, 1, 1] = np.nan, np.inf
    pixels = read_pixels(tif(tmp_path / "a.tif", data, nodata=nodata))
    assert np.argwhere(~pixels.valid).tolist() == [[0, 0], [1, 1]]


def test_alpha_band_becomes_valid_and_is_no_band(tmp_path):
    data = numbers("uint8", (4, 6, 6))
    data[3] = 255
    data[3, :2] = 0
    uri = tif(tmp_path / "a.tif", data, photometric="RGB", alpha="yes")
    pixels = read_pixels(uri)
    assert read_info(uri).count == 3
    np.testing.assert_array_equal(pixels.data, data[:3])
    np.testing.assert_array_equal(pixels.valid, data[3] > 0)


def test_described_band_tagged_as_alpha_stays_a_band(tmp_path):
    data = numbers("uint8", (4, 6, 6))
    uri = tif(tmp_path / "a.tif", data, photometric="RGB", alpha="yes")
    with rasterio.open(uri, "r+") as dataset:
        assert dataset.colorinterp[3] == ColorInterp.alpha
        dataset.set_band_description(4, "nir")
    assert read_pixels(uri).data.shape[0] == 4


def test_dataset_mask_makes_pixels_invalid(tmp_path):
    data, mask = numbers("uint8", (3, 8, 8)), np.full((8, 8), 255, dtype=np.uint8)
    mask[:3, :3] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        uri = tif(tmp_path / "a.tif", data)
        with rasterio.open(uri, "r+") as dataset:
            dataset.write_mask(mask)
    np.testing.assert_array_equal(read_pixels(uri).valid, mask > 0)
    np.testing.assert_array_equal(read_pixels(uri, Window(2, 1, 4, 5)).valid, mask[1:6, 2:6] > 0)


@pytest.mark.parametrize("window", [(0, 0, 11, 5), (-1, 0, 3, 3), (8, 0, 3, 3), (0, 3, 2, 3), (0, 0, 0, 2)])
def test_window_outside_the_raster_is_refused_naming_both(tmp_path, window):
    uri = tif(tmp_path / "a.tif", numbers("uint8", (1, 5, 10)))
    with pytest.raises(DataError, match=rf"a\.tif: window of {window[2]} x {window[3]} .* raster of 10 x 5"):
        read_pixels(uri, Window(*window))


@pytest.mark.parametrize("compress", [None, "deflate", "lzw", "jpeg"])
def test_truncated_raster_is_an_error_in_one_quiet_line(tmp_path, capfd, compress):
    options = {"compress": compress} if compress else {}
    uri = tif(tmp_path / "broken.tif", numbers("uint8", (3, 300, 300)), tiled=True, blockxsize=64, blockysize=64, **options)
    whole = Path(uri).read_bytes()
    for share in (0.0005, 0.5, 0.9):
        Path(uri).write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(UnreadableFileError, match=r"broken\.tif") as caught:
            read_pixels(uri)
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_file_of_text_and_folder_are_unreadable(tmp_path):
    (tmp_path / "a.tif").write_text("no raster")
    for place in (tmp_path / "a.tif", tmp_path):
        with pytest.raises(UnreadableFileError):
            read_info(str(place))


def test_missing_file_is_named(tmp_path):
    for read in (read_info, read_pixels, read_label):
        with pytest.raises(MissingFileError, match=r"gone\.tif"):
            read(str(tmp_path / "gone.tif"))


def test_complex_numbers_are_refused(tmp_path):
    with pytest.raises(DataError, match="complex"):
        read_pixels(tif(tmp_path / "a.tif", np.ones((1, 4, 4), dtype=np.complex64)))


def test_overview_is_thinned_and_never_enlarged(tmp_path):
    data = numbers("uint8", (2, 60, 90))
    uri = tif(tmp_path / "a.tif", data)
    np.save(tmp_path / "a.npy", data)
    assert read_overview(uri, 30).data.shape == (2, 20, 30)
    np.testing.assert_array_equal(read_overview(uri, 500).data, data)
    # Both readers take the middle of each cell.
    np.testing.assert_array_equal(read_overview(uri, 30).data, read_overview(str(tmp_path / "a.npy"), 30).data)


def test_replaced_file_is_read_anew(tmp_path):
    uri = tif(tmp_path / "a.tif", np.full((1, 8, 8), 3, dtype=np.uint8))
    assert read_pixels(uri).data.max() == 3
    tif(tmp_path / "b.tif", np.full((1, 8, 8), 5, dtype=np.uint8))
    (tmp_path / "b.tif").replace(uri)
    assert read_pixels(uri).data.max() == 5


def test_few_datasets_are_kept_open(tmp_path):
    for index in range(gdal.KEPT_OPEN + 5):
        read_pixels(tif(tmp_path / f"{index}.tif", numbers("uint8", (1, 4, 4))))
    assert len(gdal._kept()) == gdal.KEPT_OPEN


def _sum_in_child(uri: str, queue: multiprocessing.Queue) -> None:
    before = len(gdal._kept())
    queue.put((before, int(read_pixels(uri).data.sum())))


def test_forked_child_opens_its_own_handles(tmp_path):
    data = numbers("uint8", (1, 64, 64))
    uri = tif(tmp_path / "a.tif", data)
    assert read_pixels(uri).data.sum() == data.sum()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_sum_in_child, args=(uri, queue))
    child.start()
    assert queue.get(timeout=20) == (0, int(data.sum()))
    child.join()
    assert read_pixels(uri).data.sum() == data.sum()


def test_threads_read_the_same_file_at_once(tmp_path):
    data = numbers("uint16", (3, 128, 128))
    uri = tif(tmp_path / "a.tif", data, compress="deflate", tiled=True, blockxsize=32, blockysize=32)
    wrong = []

    def work(seed: int) -> None:
        draw = np.random.default_rng(seed)
        for _ in range(40):
            column, row = draw.integers(0, 90, 2)
            got = read_pixels(uri, Window(int(column), int(row), 30, 30)).data
            if not np.array_equal(got, data[:, row : row + 30, column : column + 30]):
                wrong.append((column, row))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_raster_that_failed_leaves_its_error_to_no_other(tmp_path):
    sound = write_raster(
        tmp_path / "sound.tif", np.ones((1, 8, 8), np.uint8), crs="EPSG:32631", transform=(10, 0, 500_000, 0, -10, 5_000_000)
    )
    source = '<SimpleSource><SourceFilename relativeToVRT="1">gone.tif</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
    lost = tmp_path / "lost.vrt"
    lost.write_text(
        f'<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1">{source}</VRTRasterBand></VRTDataset>'
    )
    read_info(str(sound))
    for _ in range(3):
        with pytest.raises(UnreadableFileError, match=r"lost\.vrt"):
            read_pixels(str(lost))
        # Its handle was kept open, so nothing is opened that would clear the error.
        assert read_info(str(sound)).count == 1
