"""Comparing with the nodata value gives GDAL's own mask, which is the oracle."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import rasterio

from tilth.imagery import gdal
from tilth.imagery.read import Window, read_overview, read_pixels

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def write(path: Path, dtype: str, nodata: float | None, bands: int = 3, **options) -> str:
    data = np.random.default_rng(0).integers(0, 4, (bands, 40, 50)).astype(dtype)
    if dtype.startswith("float"):
        data[0, 3, 3] = np.nan
    profile = {"driver": "GTiff", "count": bands, "height": 40, "width": 50, "dtype": dtype, "nodata": nodata} | options
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(data)
    return str(path)


@pytest.mark.parametrize("nodata", [None, 0, 2, 3.0])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "uint32", "int64", "float32", "float64"])
@pytest.mark.parametrize("bands", [1, 3])
def test_valid_is_the_mask_of_gdal(tmp_path, dtype, nodata, bands):
    uri = write(tmp_path / "a.tif", dtype, nodata, bands)
    with rasterio.open(uri) as dataset:
        wanted = (dataset.read_masks() > 0).all(axis=0) & np.isfinite(dataset.read()).all(axis=0)
    np.testing.assert_array_equal(read_pixels(uri).valid, wanted)
    np.testing.assert_array_equal(read_pixels(uri, Window(7, 5, 20, 30)).valid, wanted[5:35, 7:27])
    np.testing.assert_array_equal(read_overview(uri, 100).valid, wanted)
    assert wanted.all() == (nodata is None and not dtype.startswith("float"))


@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", -9999), ("uint8", 1.5), ("int16", 1e6), ("uint16", float("nan"))])
def test_value_that_the_type_cannot_hold_masks_as_gdal_does(tmp_path, dtype, nodata):
    uri = write(tmp_path / "a.vrt.tif", dtype, None)
    name = {"uint8": "Byte", "int16": "Int16", "uint16": "UInt16"}[dtype]
    source = f"<SimpleSource><SourceFilename>{uri}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>"
    band = f'<VRTRasterBand dataType="{name}" band="1"><NoDataValue>{nodata}</NoDataValue>{source}</VRTRasterBand>'
    text = f'<VRTDataset rasterXSize="50" rasterYSize="40">{band}</VRTDataset>'
    vrt = tmp_path / "a.vrt"
    vrt.write_text(text)
    with rasterio.open(vrt) as dataset:
        wanted = dataset.read_masks(1) > 0
    np.testing.assert_array_equal(read_pixels(str(vrt), Window(0, 0, 50, 40)).valid, wanted)


def test_bands_with_nodata_of_their_own_are_compared_each_with_its(tmp_path):
    uri = write(tmp_path / "a.tif", "uint8", None)
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}"><NoDataValue>{band}</NoDataValue><SimpleSource><SourceFilename>{uri}'
        f"</SourceFilename><SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
        for band in (1, 2, 3)
    )
    vrt = tmp_path / "a.vrt"
    vrt.write_text(f'<VRTDataset rasterXSize="50" rasterYSize="40">{bands}</VRTDataset>')
    pixels = read_pixels(str(vrt))
    with rasterio.open(vrt) as dataset:
        wanted = (dataset.read_masks() > 0).all(axis=0)
    np.testing.assert_array_equal(pixels.valid, wanted)
    np.testing.assert_array_equal(wanted, (pixels.data != np.array([1, 2, 3])[:, None, None]).all(axis=0))


def test_warnings_of_libjpeg_are_errors_in_every_thread_and_inside_a_users_environment(tmp_path):
    """Otherwise a damaged JPEG block is grey pixels."""
    uri = write(tmp_path / "a.tif", "uint8", None, compress="jpeg", photometric="ycbcr", tiled=True, blockxsize=16, blockysize=16)
    found: list[str | None] = []

    def work() -> None:
        read_pixels(uri)
        with rasterio.Env(GDAL_NUM_THREADS=1):
            read_pixels(uri)
            found.append(rasterio.env.get_gdal_config(gdal._STRICT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    work()
    assert found == ["YES", "YES"]
    with rasterio.Env():
        pass
    read_pixels(uri)
    assert rasterio.env.get_gdal_config(gdal._STRICT) == "YES"
