"""Virtual rasters. Oracles: what was written; rasterio.warp.reproject for warped sources; the centres of pixels for coverage."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.warp import Resampling, reproject, transform

from tilth.errors import DataError, MissingFileError, UnreadableFileError, UsageError
from tilth.imagery.read import Window, read_info, read_label, read_pixels
from tilth.imagery.virtual import write_stack, write_warped
from tilth.imagery.write import write_raster

UTM, GRID = "EPSG:32631", (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0)
DRAW = np.random.default_rng(8)


def raster(path: Path, count: int = 1, dtype: str = "uint16", size: tuple[int, int] = (40, 60), crs: str | None = UTM, grid=GRID, **more):
    values = DRAW.integers(1, 200, (count, *size)).astype(dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_raster(path, values, crs=crs, transform=grid, **more), values


def warped(values, grid, crs, like, resampling, size=(40, 60), target_crs=UTM):
    """The oracle: values and coverage by rasterio.warp.reproject, exact transformer."""
    result, cover = np.zeros((len(values), *size), values.dtype), np.zeros(size, np.uint8)
    common = {
        "src_transform": rasterio.Affine(*grid),
        "src_crs": crs,
        "dst_transform": rasterio.Affine(*like),
        "dst_crs": target_crs,
        "tolerance": 0,
    }
    reproject(values, result, resampling=resampling, **common)
    reproject(np.ones(values.shape[1:], np.uint8), cover, resampling=Resampling.nearest, **common)
    return result, cover > 0


def test_bands_of_one_grid_are_stacked_as_they_are(tmp_path):
    a, first = raster(tmp_path / "a.tif", 2, band_names=("B02", "B03"))
    b, second = raster(tmp_path / "b.tif", 1, "float32")
    info = read_info(str(write_stack(tmp_path / "deep" / "ab.vrt", [a, b])))
    assert (info.count, info.dtype, info.crs, info.transform) == (3, "float32", UTM, GRID)
    assert info.band_names[:2] == ("B02", "B03")
    pixels = read_pixels(info.uri, Window(7, 9, 20, 11))
    assert pixels.data.dtype == np.float32
    assert np.array_equal(pixels.data, np.concatenate([first.astype(np.float32), second])[:, 9:20, 7:27])
    assert pixels.valid.all()


def test_a_type_of_all_bands_can_be_asked_for(tmp_path):
    a, first = raster(tmp_path / "a.tif", 1, "uint16")
    b, second = raster(tmp_path / "b.tif", 1, "int16")
    assert read_info(str(write_stack(tmp_path / "wide.vrt", [a, b]))).dtype == "int32"
    pixels = read_pixels(str(write_stack(tmp_path / "float.vrt", [a, b], dtype="float32")))
    assert pixels.data.dtype == np.float32
    assert np.array_equal(pixels.data, np.concatenate([first, second]).astype(np.float32))


@pytest.mark.parametrize(
    ("crs", "grid", "size"),
    [
        (UTM, (20.0, 0.0, 499_990.0, 0.0, -20.0, 5_000_020.0), (30, 40)),
        ("EPSG:32632", (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), (80, 80)),
        ("EPSG:4326", (0.0001, 0.0, 2.9995, 0.0, -0.0001, 45.1540), (80, 90)),
        (UTM, (8.0, 3.0, 499_900.0, 3.0, -8.0, 5_000_050.0), (60, 90)),
    ],
)
def test_another_grid_is_warped_as_reproject_does(tmp_path, crs, grid, size):
    a, first = raster(tmp_path / "a.tif")
    if not grid[2]:
        (x,), (y,) = transform(UTM, crs, [500_200], [4_999_800])
        grid = (*grid[:2], x - 350, *grid[3:5], y + 350)
    smooth = np.add.outer(np.arange(size[0]) * 30, np.arange(size[1]) * 20).astype(np.uint16)[None] + 100
    b = write_raster(tmp_path / "b.tif", smooth, crs=crs, transform=grid)
    pixels = read_pixels(str(write_stack(tmp_path / "ab.vrt", [a, b])))
    expected, cover = warped(smooth, grid, crs, GRID, Resampling.bilinear)
    assert cover.mean() > 0.1
    assert np.array_equal(pixels.data[0], first[0])
    # The approximate transformer of the VRT is right to an eighth of a pixel.
    assert (pixels.valid == cover).mean() > 0.97
    both = pixels.valid & cover
    assert np.abs(pixels.data[1].astype(int) - expected[0])[both].max() <= 50 / 8 + 1


def test_labels_are_warped_by_nearest_and_uncovered_is_ignored(tmp_path):
    a, _ = raster(tmp_path / "a.tif")
    grid = (30.0, 0.0, 500_100.0, 0.0, -30.0, 4_999_900.0)
    ids = DRAW.integers(0, 6, (1, 8, 9)).astype(np.uint8)
    source = write_raster(tmp_path / "label.tif", ids, crs=UTM, transform=grid, nodata=255)
    label = read_label(str(write_warped(tmp_path / "warped.vrt", source, like=a, resampling="nearest")))
    expected = np.full((40, 60), 255, np.uint8)
    expected[10:34, 10:37] = ids[0].repeat(3, axis=0).repeat(3, axis=1)
    assert np.array_equal(label, expected)


def test_no_data_of_any_source_is_no_data_of_the_stack(tmp_path):
    a, first = raster(tmp_path / "a.tif", nodata=0)
    values = DRAW.normal(size=(1, 40, 60)).astype(np.float32)
    values[0, 5, 5], values[0, 6, 6] = -9999, np.nan
    b = write_raster(tmp_path / "b.tif", values, crs=UTM, transform=GRID, nodata=-9999)
    first[0, 3, 4] = 0
    write_raster(a, first, crs=UTM, transform=GRID, nodata=0)
    valid = read_pixels(str(write_stack(tmp_path / "ab.vrt", [a, b]))).valid
    assert sorted(map(tuple, np.argwhere(~valid))) == [(3, 4), (5, 5), (6, 6)]


@pytest.mark.parametrize("kind", ["alpha", "mask file"])
def test_masks_of_sources_hold_in_the_stack_also_when_warped(tmp_path, kind):
    a, _ = raster(tmp_path / "a.tif", nodata=0)
    mask = np.full((40, 60), 255, np.uint8)
    mask[10:20, 30:45] = 0
    path = tmp_path / "b.tif"
    count = 3 if kind == "alpha" else 2
    with rasterio.open(
        path, "w", driver="GTiff", width=60, height=40, count=count, dtype="uint8", crs=UTM, transform=rasterio.Affine(*GRID)
    ) as file:
        file.write(np.full((2, 40, 60), 7, np.uint8), (1, 2))
        if kind == "alpha":
            file.write(mask, 3)
            file.colorinterp = [rasterio.enums.ColorInterp.gray, rasterio.enums.ColorInterp.undefined, rasterio.enums.ColorInterp.alpha]
        else:
            file.write_mask(mask)
    pixels = read_pixels(str(write_stack(tmp_path / "ab.vrt", [a, path])))
    assert pixels.data.shape[0] == 3
    assert np.array_equal(pixels.valid, mask > 0)
    finer, _ = raster(tmp_path / "finer.tif", size=(80, 120), grid=(5.0, 0.0, 500_000.0, 0.0, -5.0, 5_000_000.0))
    on_finer = read_pixels(str(write_stack(tmp_path / "warped.vrt", [finer, path], resampling="nearest")))
    assert on_finer.data.shape[0] == 3
    assert np.array_equal(on_finer.valid, (mask > 0).repeat(2, axis=0).repeat(2, axis=1))


@pytest.mark.parametrize("resampling", ["nearest", "bilinear"])
def test_no_data_in_one_band_is_no_data_when_warped_as_it_is_when_read_directly(tmp_path, resampling):
    path, values = raster(tmp_path / "a.tif", count=3, dtype="uint8", nodata=0)
    values[1, 10:20, 30:45] = 0
    write_raster(path, values, crs=UTM, transform=GRID, nodata=0)
    plain = read_pixels(str(path))
    like, _ = raster(tmp_path / "finer.tif", size=(80, 120), grid=(5.0, 0.0, 500_000.0, 0.0, -5.0, 5_000_000.0))
    warped_pixels = read_pixels(str(write_warped(tmp_path / "w.vrt", path, like=like, resampling=resampling)))
    inside = np.s_[22:38, 62:88]  # away from the edge, where bilinear weights reach across
    assert not plain.valid[10:20, 30:45].any()
    assert not warped_pixels.valid[inside].any()
    assert warped_pixels.valid[:18].all()
    if resampling == "nearest":
        assert np.array_equal(warped_pixels.valid, plain.valid.repeat(2, axis=0).repeat(2, axis=1))
        # No value is nudged: 1 where it was 1, never in the place of 0.
        assert np.array_equal(warped_pixels.data, values.repeat(2, axis=1).repeat(2, axis=2))


@pytest.mark.parametrize(("crs", "pixel"), [("EPSG:32632", 10.0), (UTM, 7.0), (UTM, 25.0)])
def test_a_warped_raster_reads_the_same_in_windows_as_whole(tmp_path, crs, pixel):
    path, values = raster(tmp_path / "a.tif", count=2, size=(150, 180), nodata=0)
    values[0, 40:60, 50:80] = 0
    write_raster(path, values, crs=UTM, transform=GRID, nodata=0)
    (left,), (top,) = transform(UTM, crs, [500_100.0], [4_999_900.0])
    shape = (round(1200 / pixel), round(1400 / pixel))
    like, _ = raster(tmp_path / "like.tif", size=shape, crs=crs, grid=(pixel, 0.0, left, 0.0, -pixel, top))
    path = str(write_warped(tmp_path / "w.vrt", path, like=like, resampling="bilinear"))
    whole = read_pixels(path)
    assert whole.valid.any()
    assert not whole.valid.all()
    for row in range(0, shape[0], 17):
        for column in range(0, shape[1], 23):
            window = Window(column, row, min(23, shape[1] - column), min(17, shape[0] - row))
            part = read_pixels(path, window)
            place = np.s_[row : row + window.height, column : column + window.width]
            assert np.array_equal(part.valid, whole.valid[place])
            assert np.array_equal(part.data, whole.data[:, *place])


def test_plain_images_of_one_size_stack_by_pixels(tmp_path):
    values = DRAW.integers(0, 255, (12, 20, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    Image.fromarray(values[..., 0]).save(tmp_path / "b.png")
    pixels = read_pixels(str(write_stack(tmp_path / "ab.vrt", [tmp_path / "a.png", tmp_path / "b.png"])))
    assert np.array_equal(pixels.data, np.concatenate([values, values[..., :1]], axis=2).transpose(2, 0, 1))
    Image.fromarray(values[:6]).save(tmp_path / "c.png")
    with pytest.raises(DataError, match=r"c\.png: 20 x 6 pixels do not lie on the grid of .*a\.png \(20 x 12\)"):
        write_stack(tmp_path / "ac.vrt", [tmp_path / "a.png", tmp_path / "c.png"])
    Image.fromarray(values[..., 0]).convert("P").save(tmp_path / "p.png")
    with pytest.raises(DataError, match=r"p\.png: a palette image cannot"):
        write_stack(tmp_path / "ap.vrt", [tmp_path / "a.png", tmp_path / "p.png"])
    assert not list(tmp_path.glob("*c.vrt")) + list(tmp_path.glob(".*"))


def test_a_tree_moves_as_a_whole(tmp_path):
    a, _ = raster(tmp_path / "tree" / "a" / "a.tif")
    b, _ = raster(tmp_path / "tree" / "b & <c>" / "b.tif", grid=(20.0, 0.0, 500_000.0, 0.0, -20.0, 5_000_000.0))
    before = read_pixels(str(write_stack(tmp_path / "tree" / "files" / "ab.vrt", [a, b])))
    shutil.move(tmp_path / "tree", tmp_path / "moved")
    after = read_pixels(str(tmp_path / "moved" / "files" / "ab.vrt"))
    assert np.array_equal(before.data, after.data)
    assert np.array_equal(before.valid, after.valid)


def test_the_same_call_writes_the_same_bytes_and_touches_nothing(tmp_path):
    a, _ = raster(tmp_path / "a.tif")
    b, _ = raster(tmp_path / "b.tif", crs="EPSG:4326", grid=(0.0001, 0.0, 2.9995, 0.0, -0.0001, 45.1540))
    stack = write_stack(tmp_path / "ab.vrt", [a, b])
    files = [stack, tmp_path / "ab.2.vrt"]
    first = [(file.read_bytes(), file.stat().st_mtime_ns) for file in files]
    write_stack(stack, [a, b])
    assert first == [(file.read_bytes(), file.stat().st_mtime_ns) for file in files]
    for file in files:
        os.truncate(file, 100)
    write_stack(stack, [a, b])
    assert [content for content, _ in first] == [file.read_bytes() for file in files]


def test_wrong_requests_say_what_is_wrong(tmp_path):
    a, _ = raster(tmp_path / "a.tif")
    (tmp_path / "broken.tif").write_bytes(b"II*\0 nothing")
    np.save(tmp_path / "b.npy", np.zeros((1, 40, 60), np.uint8))
    no_crs, _ = raster(tmp_path / "no_crs.tif", crs=None, size=(20, 20))
    for sources, error, message in [
        ([], UsageError, "at least one source"),
        ([a, tmp_path / "gone.tif"], MissingFileError, "gone.tif"),
        ([a, tmp_path / "broken.tif"], UnreadableFileError, "broken.tif"),
        ([a, tmp_path / "b.npy"], DataError, "write it as GeoTIFF"),
        ([a, no_crs], DataError, r"no_crs\.tif: 20 x 20 pixels do not lie on the grid .*has no CRS to warp it by"),
    ]:
        with pytest.raises(error, match=message):
            write_stack(tmp_path / "x.vrt", sources)
    with pytest.raises(UsageError, match=r"end in \.vrt"):
        write_stack(tmp_path / "x.tif", [a])
    assert not list(tmp_path.glob("x*"))
    own = write_stack(tmp_path / "own.vrt", [a])
    with pytest.raises(UsageError, match="one of its own sources"):
        write_stack(own, [a, own])


def test_what_others_wrote_is_not_replaced_and_what_is_not_used_any_more_goes(tmp_path):
    a, values = raster(tmp_path / "a.tif")
    b, _ = raster(tmp_path / "b.tif", crs="EPSG:4326", grid=(0.0001, 0.0, 2.9995, 0.0, -0.0001, 45.1540))
    stack = write_stack(tmp_path / "ab.vrt", [a, b])
    (tmp_path / "ab.3.vrt").write_text("<VRTDataset/>")
    assert (tmp_path / "ab.2.vrt").exists()
    write_stack(stack, [a, a])
    assert sorted(file.name for file in tmp_path.glob("*.vrt")) == ["ab.3.vrt", "ab.vrt"]
    assert np.array_equal(read_pixels(str(stack)).data, np.concatenate([values, values]))
    own = '<VRTDataset rasterXSize="60" rasterYSize="40"></VRTDataset>'
    stack.write_text(own)
    with pytest.raises(UsageError, match=r"ab\.vrt: is in the way .* not made by tilth"):
        write_stack(stack, [a, a])
    assert stack.read_text() == own
