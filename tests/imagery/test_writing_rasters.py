from __future__ import annotations

import json
import warnings
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.shutil import copy
from rio_cogeo.cogeo import cog_validate

from support.listing import listing
from tilth.errors import DataError, TilthError, UsageError
from tilth.imagery.geotiff import Legend, raster_file
from tilth.imagery.read import read_info, read_pixels
from tilth.imagery.write import write_raster

TRANSFORM = (10.0, 0.0, 500_000.0, 0.0, -10.0, 6_000_000.0)
COLOURS = ((0, 0, 255), (0, 128, 0), (200, 200, 200))
NAMES = ("open water", "trees & <shrubs>", "roofs")


def category_names(path, folder) -> list[str]:
    """What GDAL itself takes for the class names: its VRT driver spells them out."""
    copy(str(path), str(folder / "names.vrt"), driver="VRT")
    return [node.text or "" for node in ElementTree.parse(folder / "names.vrt").iter("Category")]


@pytest.mark.parametrize("cog", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("count", [1, 3, 4, 13])
def test_what_is_written_is_read_back(tmp_path, cog, dtype, count):
    data = np.random.default_rng(0).integers(0, 200, (count, 70, 90)).astype(dtype)
    names = tuple(f"band {index}" for index in range(count))
    path = write_raster(tmp_path / "a.tif", data, crs="EPSG:32633", transform=TRANSFORM, band_names=names, cog=cog)
    info, pixels = read_info(str(path)), read_pixels(str(path))
    np.testing.assert_array_equal(pixels.data, data)
    assert pixels.valid.all()
    assert (info.crs, info.transform, info.band_names, info.dtype, info.nodata) == ("EPSG:32633", TRANSFORM, names, dtype, None)
    assert listing(tmp_path) == ["a.tif"]


@pytest.mark.parametrize("cog", [False, True])
def test_fourth_band_is_not_taken_for_alpha(tmp_path, cog):
    data = np.zeros((4, 8, 8), dtype=np.uint8)
    path = write_raster(tmp_path / "a.tif", data, crs=None, transform=None, cog=cog)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        dataset = rasterio.open(path)
    with dataset:
        assert ColorInterp.alpha not in dataset.colorinterp
    assert read_pixels(str(path)).valid.all()


@pytest.mark.parametrize("cog", [False, True])
@pytest.mark.parametrize("shape", [(40, 30), (1100, 700)])
def test_class_map_keeps_colours_names_nodata_and_tags(tmp_path, cog, shape):
    ids = np.random.default_rng(0).integers(0, 3, shape).astype(np.uint8)
    ids[:9] = 255
    path = write_raster(
        tmp_path / "a.tif",
        ids,
        crs="EPSG:32633",
        transform=TRANSFORM,
        nodata=255,
        colours=COLOURS,
        class_names=NAMES,
        tags={"TILTH_SCHEME": "three"},
        cog=cog,
    )
    with rasterio.open(path) as dataset:
        table, tags = dataset.colormap(1), dataset.tags()
        assert dataset.nodata == 255
        assert dataset.crs.to_epsg() == 32633
        np.testing.assert_array_equal(dataset.read(1), ids)
    assert tuple(table[value][:3] for value in range(3)) == COLOURS
    assert json.loads(tags["CLASS_NAMES"]) == list(NAMES)
    assert [tags[f"CLASS_{value}"] for value in range(3)] == list(NAMES)
    assert tags["TILTH_SCHEME"] == "three"
    assert category_names(path, tmp_path) == list(NAMES)


def test_cog_is_valid_and_its_overviews_hold_only_classes(tmp_path):
    ids = np.where(np.random.default_rng(0).random((1500, 1300)) < 0.8, 2, 0).astype(np.uint8)
    path = write_raster(tmp_path / "a.tif", ids, crs="EPSG:32633", transform=TRANSFORM, nodata=255, colours=COLOURS, cog=True)
    valid, errors, notes = cog_validate(path, strict=True)
    assert (valid, errors, notes) == (True, [], [])
    with rasterio.open(path) as dataset:
        assert dataset.overviews(1)
        thinned = dataset.read(1, out_shape=(dataset.height // 4, dataset.width // 4))
    assert set(np.unique(thinned)) <= {0, 2}
    # Mode, not nearest: the rare class is rarer still in the overview.
    assert (thinned == 0).mean() < 0.1


def test_plain_grid_stays_plain(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.ones((2, 5, 6), dtype=np.float32), crs=None, transform=None, nodata=np.nan)
    info = read_info(str(path))
    assert info.crs is None
    assert info.transform is None
    assert np.isnan(info.nodata)


def test_crs_as_text_is_kept(tmp_path):
    wkt = rasterio.CRS.from_proj4("+proj=laea +lat_0=12 +lon_0=7 +ellps=WGS84 +units=m").to_wkt()
    path = write_raster(tmp_path / "a.tif", np.ones((5, 6), dtype=np.uint8), crs=wkt, transform=TRANSFORM)
    assert rasterio.CRS.from_wkt(read_info(str(path)).crs) == rasterio.CRS.from_wkt(wkt)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"data": np.zeros((2, 4, 4), dtype=np.uint8), "colours": COLOURS}, DataError),
        ({"data": np.zeros((4, 4), dtype=np.uint16), "class_names": NAMES}, DataError),
        ({"data": np.zeros((2, 4, 4), dtype=np.uint8), "band_names": ("a",)}, DataError),
        ({"data": np.zeros((4, 4), dtype=np.int64)}, DataError),
        ({"data": np.zeros((0, 4), dtype=np.uint8)}, DataError),
        ({"data": np.zeros((4, 4), dtype=np.uint8), "crs": "EPSG:nonsense"}, DataError),
        ({"data": np.zeros((4, 4), dtype=np.uint8), "path": "a.png"}, UsageError),
    ],
)
def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path, capfd, arguments, error):
    settings = {"crs": None, "transform": None, "path": "a.tif"} | arguments
    with pytest.raises(error) as caught:
        write_raster(tmp_path / settings.pop("path"), settings.pop("data"), **settings)
    assert "\n" not in str(caught.value)
    assert listing(tmp_path) == []
    assert capfd.readouterr() == ("", "")


def test_failure_between_blocks_leaves_the_old_file(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.full((5, 5), 7, dtype=np.uint8), crs=None, transform=None, nodata=255, class_names=NAMES)
    before = {name: (tmp_path / name).read_bytes() for name in listing(tmp_path)}
    legend = Legend()

    def fail() -> None:
        with raster_file(path, width=600, height=600, count=1, dtype="uint8", crs=None, transform=None, legend=legend, cog=True) as write:
            write(np.zeros((600, 300), dtype=np.uint8), 0, 0)
            raise TilthError("stop")

    with pytest.raises(TilthError, match="stop"):
        fail()
    assert {name: (tmp_path / name).read_bytes() for name in listing(tmp_path)} == before


def test_eight_bit_bands_carry_the_statistics_of_their_valid_pixels(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 5, (2, 700, 600)).astype(np.uint8)
    values[0, :30] = 255
    path = write_raster(tmp_path / "map.tif", values, crs=None, transform=None, nodata=255, cog=True)
    with rasterio.open(path) as dataset:
        for band in (1, 2):
            data = dataset.read(band, masked=True).compressed()
            tags = {name: float(value) for name, value in dataset.tags(band).items() if name.startswith("STATISTICS")}
            assert tags == pytest.approx(
                {
                    "STATISTICS_MINIMUM": data.min(),
                    "STATISTICS_MAXIMUM": data.max(),
                    "STATISTICS_MEAN": data.mean(),
                    "STATISTICS_STDDEV": data.std(),
                    "STATISTICS_VALID_PERCENT": 100 * data.size / (700 * 600),
                },
                rel=1e-3,
            )


def test_a_band_without_valid_pixels_has_no_statistics(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "map.tif", np.full((4, 4), 255, np.uint8), crs=None, transform=None, nodata=255)
    with rasterio.open(path) as dataset:
        assert not [name for name in dataset.tags(1) if name.startswith("STATISTICS")]


def test_attribute_table_counts_and_colours_each_class(tmp_path: Path) -> None:
    values = np.array([[0, 1, 1, 255]], np.uint8)
    path = write_raster(
        tmp_path / "map.tif",
        values,
        crs=None,
        transform=None,
        nodata=255,
        class_names=["land & soil", "water", "ice"],
        colours=[(1, 2, 3), (4, 5, 6), (7, 8, 9)],
    )
    # As GDAL itself reads it: its VRT driver spells it out.
    copy(str(path), str(tmp_path / "table.vrt"), driver="VRT")
    table = ElementTree.parse(tmp_path / "table.vrt").getroot().find("VRTRasterBand/GDALRasterAttributeTable")
    assert table is not None
    assert [field.findtext("Name") for field in table.findall("FieldDefn")] == ["Value", "Count", "Class", "Red", "Green", "Blue"]
    assert [field.findtext("Usage") for field in table.findall("FieldDefn")] == ["5", "1", "2", "6", "7", "8"]
    assert [[cell.text for cell in row] for row in table.findall("Row")] == [
        ["0", "1", "land & soil", "1", "2", "3"],
        ["1", "2", "water", "4", "5", "6"],
        ["2", "0", "ice", "7", "8", "9"],
    ]
