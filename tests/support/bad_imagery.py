"""Rasters, images and maps as they should not be, or as they seldom are; each file is named after what is odd about it."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.transform import Affine

from tilth.classes import ClassScheme, LandClass
from tilth.imagery.write import write_raster

SIDE = 48
UTM = "EPSG:32632"
PLACE = (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0)
HALF_PIXEL = (10.0, 0.0, 500_005.0, 0.0, -10.0, 5_000_000.0)
ELSEWHERE = (10.0, 0.0, 900_000.0, 0.0, -10.0, 5_000_000.0)
ROTATED = (8.660254037844387, 5.0, 500_000.0, 5.0, -8.660254037844387, 5_000_000.0)
HTML = b"<!DOCTYPE html>\n<html><body><h1>404 Not Found</h1></body></html>\n"
CLASSES = ("land", "water", "forest", "crop", "road", "roof")
SCHEME = ClassScheme(
    name="six", classes=tuple(LandClass(name=name, colour=(40 * place, 255 - 40 * place, 9)) for place, name in enumerate(CLASSES))
)
VRT = """<VRTDataset rasterXSize="48" rasterYSize="48">{bands}</VRTDataset>"""
VRT_BAND = """<VRTRasterBand dataType="Byte" band="{band}"><SimpleSource>
<SourceFilename relativeToVRT="1">gone.tif</SourceFilename><SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"""


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    """Random uint8, none of it black."""
    return np.random.default_rng(seed).integers(20, 250, shape).astype(np.uint8)


def ids(count: int = 6, side: int = SIDE, seed: int = 0) -> np.ndarray:
    """Random class ids uint8 (side, side), in blocks of 4 pixels."""
    return np.random.default_rng(seed).integers(0, count, (side // 4, side // 4)).astype(np.uint8).repeat(4, 0).repeat(4, 1)


def tif(path: Path, data: np.ndarray, *, crs: str | None = UTM, transform: Any = PLACE, **profile: Any) -> Path:
    """A GeoTIFF with whatever rasterio can put into one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = data[None] if data.ndim == 2 else data
    more = {"crs": crs} | ({"transform": Affine(*transform)} if transform is not None else {}) | profile
    count, height, width = bands.shape
    with rasterio.open(path, "w", driver="GTiff", width=width, height=height, count=count, dtype=bands.dtype, **more) as dataset:
        dataset.write(bands)
    return path


def cut(source: Path, target: Path, share: float = 0.5) -> Path:
    """The first part of a file."""
    whole = source.read_bytes()
    target.write_bytes(whole[: int(len(whole) * share)])
    return target


def plant_scenes(folder: Path) -> None:
    """Rasters with three bands of 8 bits, but for what their names say."""
    data = noise(3, SIDE, SIDE)
    tif(folder / "sound.tif", data)
    tif(folder / "pixel.tif", data[:, :1, :1])
    tif(folder / "bands_300.tif", noise(300, 8, 8))
    tif(folder / "south_up.tif", data[:, ::-1], transform=(10.0, 0.0, 500_000.0, 0.0, 10.0, 5_000_000.0 - 10 * SIDE))
    tif(folder / "rotated.tif", data, transform=ROTATED)
    tif(folder / "dateline.tif", data, crs="EPSG:4326", transform=(0.001, 0, 180 - SIDE / 2000, 0, -0.001, 10.0))
    tif(folder / "no_crs.tif", data, crs=None)
    tif(folder / "no_place.tif", data, crs=None, transform=None)
    tif(folder / "crs_only.tif", data, transform=None)
    corners = [(0, 0), (0, SIDE), (SIDE, 0), (SIDE, SIDE)]
    points = [GroundControlPoint(row=row, col=column, x=500_000 + 10 * column, y=5_000_000 - 10 * row) for row, column in corners]
    tif(folder / "gcps.tif", data, transform=None, gcps=points)
    tif(folder / "no_data.tif", np.zeros_like(data), nodata=0)
    tif(folder / "complex.tif", data.astype(np.complex64))
    tif(folder / "wide.tif", data.astype(np.uint16))
    tif(folder / "radar.tif", noise(2, SIDE, SIDE).astype(np.float32) / -10)
    holes = noise(2, SIDE, SIDE).astype(np.float32) / -10
    holes[:, :8], holes[:, 8, 0] = np.nan, np.inf
    tif(folder / "nan_nodata.tif", holes, nodata=np.nan)
    write_raster(folder / "swapped.tif", data[::-1], crs=UTM, transform=PLACE, band_names=("blue", "green", "red"))
    damaged_scenes(folder, data)


def damaged_scenes(folder: Path, data: np.ndarray) -> None:
    """Rasters that cannot be read, or not under their name."""
    cut(folder / "sound.tif", folder / "cut.tif")
    (folder / "empty.tif").write_bytes(b"")
    (folder / "html.tif").write_bytes(HTML)
    Image.fromarray(data.transpose(1, 2, 0)).save(folder / "jpeg.tif", format="JPEG", quality=100, subsampling=0)
    tif(folder / "torn_tile.tif", data, compress="deflate", tiled=True, blockxsize=16, blockysize=16)
    whole = bytearray((folder / "torn_tile.tif").read_bytes())
    whole[len(whole) // 2 : len(whole) // 2 + 200] = bytes(200)
    (folder / "torn_tile.tif").write_bytes(whole)
    (folder / "zero_size.tif").write_bytes(without_columns((folder / "sound.tif").read_bytes()))
    (folder / "gone.vrt").write_text(VRT.format(bands="".join(VRT_BAND.format(band=band) for band in (1, 2, 3))))
    os.mkfifo(folder / "pipe.tif")


def without_columns(whole: bytes) -> bytes:
    """A little-endian TIFF whose header says that it is 0 pixels wide."""
    changed = bytearray(whole)
    (start,) = struct.unpack_from("<I", changed, 4)
    (count,) = struct.unpack_from("<H", changed, start)
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        if struct.unpack_from("<H", changed, entry) == (256,):
            struct.pack_into("<I", changed, entry + 8, 0)
    return bytes(changed)


def plant_images(folder: Path) -> None:
    """Images without place."""
    folder.mkdir(parents=True)
    data = noise(3, SIDE, SIDE).transpose(1, 2, 0)
    Image.fromarray(data).save(folder / "sound.png")
    Image.fromarray(data).convert("CMYK").save(folder / "cmyk.jpg", quality=100, subsampling=0)
    Image.fromarray(data).quantize(256).save(folder / "palette.png")
    Image.fromarray(data[..., 0]).save(folder / "grey.png")
    deep = noise(3, SIDE, SIDE).astype(np.uint16) * 200
    with rasterio.open(folder / "deep.png", "w", driver="PNG", width=SIDE, height=SIDE, count=3, dtype="uint16") as dataset:
        dataset.write(deep)
    (folder / "html.jpg").write_bytes(HTML)
    shutil.copy(folder / "sound.png", folder / "png.jpg")
    cut(folder / "sound.png", folder / "cut.png")
    np.save(folder / "sound.npy", data.transpose(2, 0, 1))
    np.save(folder / "objects.npy", np.array([{}, None], dtype=object))
    np.save(folder / "four_axes.npy", noise(1, 3, 8, 8))
    cut(folder / "sound.npy", folder / "cut.npy")


def plant_maps(folder: Path) -> None:
    """Class maps and what lies beside them."""
    classes = ids()
    write_map(folder / "sound.tif", classes)
    write_map(folder / "rotated.tif", classes, transform=ROTATED)
    write_map(folder / "other_ground.tif", classes, transform=ELSEWHERE)
    write_map(folder / "other_classes.tif", classes, class_names=CLASSES[::-1])
    write_map(folder / "no_place.tif", classes, crs=None, transform=None)
    write_map(folder / "nothing.tif", np.full_like(classes, 255))
    write_map(folder / "class_17.tif", np.where(classes == 5, 17, classes).astype(np.uint8), class_names=(), colours=())
    write_map(folder / "odd_tag.tif", classes, class_names=(), colours=(), tags={"CLASS_NAMES": '{"a": "b"}'})
    write_map(folder / "percent_250.tif", classes * 50, class_names=(), colours=())
    write_map(folder / "per_mille.tif", classes.astype(np.uint16) * 200, class_names=(), colours=())
    write_map(folder / "small.tif", classes[:8, :8])
    cut(folder / "sound.tif", folder / "cut.tif")
    (folder / "html.tif").write_bytes(HTML)


def write_map(path: Path, data: np.ndarray, **more: Any) -> None:
    settings = {"crs": UTM, "transform": PLACE, "nodata": 255, "class_names": CLASSES, "colours": SCHEME.colours} | more
    write_raster(path, data, **settings)


def plant_links(folder: Path, image: Path) -> None:
    """Links in a circle, links to nothing, and a folder that is called like a raster."""
    (folder / "in_circles").mkdir(parents=True)
    (folder / "loop.tif").symlink_to("loop.tif")
    (folder / "dead.tif").symlink_to("nowhere.tif")
    (folder / "folder.tif").mkdir()
    (folder / "in_circles" / "again").symlink_to(".")
    shutil.copy(image, folder / "in_circles" / "a.png")
