"""What is mapped: one raster on its own grid or on another, or several that lie side by side.

A scene is made of parts, each a raster that lies on the scene's grid, as it is or warped on read. Where parts overlap, the first
one with data counts.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilth.errors import UsageError
from tilth.imagery import gdal, plain
from tilth.imagery.black_border import BlackBorder, find_black_border
from tilth.imagery.files import SIDECAR
from tilth.imagery.read import Pixels, RasterInfo, Window, read_info, read_pixels
from tilth.imagery.virtual import write_warped
from tilth.imagery.write import write_raster
from tilth.prediction.checks import check_sensor, pick_bands
from tilth.prediction.target import aligned, grid_for, part_grid, union_grid
from tilth.sensors import Sensor

_BESIDE = (SIDECAR, ".ovr")
"""Suffixes of files that viewers leave beside a raster: their coming and going changes no pixel."""


_SAMPLE = 2**20
"""Bytes at the beginning, in the middle and at the end of a file that stand for what it holds."""


@dataclass(frozen=True)
class Part:
    """A raster on the grid of a scene.

    Attributes:
        uri: what is read.
        place: where it lies in the scene.
        bands: 0-based positions of the bands, in the order of the sensor; None for all.
        border: its black surroundings, if it has some and lies there as it is.
        surroundings: raster on the same grid, 1 where black surroundings may be, if it is warped and has some.
    """

    uri: str
    place: Window
    bands: tuple[int, ...] | None = None
    border: BlackBorder | None = None
    surroundings: str | None = None

    def read(self, window: Window) -> Pixels:
        """Read a window of the part; black surroundings are not valid."""
        if self.bands is not None and Path(self.uri).suffix.lower() not in {".npy", *plain.IMAGE_SUFFIXES}:
            pixels = gdal.raster_pixels(self.uri, window, self.bands)
        else:
            pixels = read_pixels(self.uri, window)
            pixels = pixels if self.bands is None else Pixels(pixels.data[list(self.bands)], pixels.valid)
        if self.border is not None:
            return Pixels(pixels.data, pixels.valid & ~self.border.mask(pixels.data, window))
        if self.surroundings is not None:
            near = read_pixels(self.surroundings, window).data[0] > 0
            return Pixels(pixels.data, pixels.valid & ~(near & BlackBorder.is_dark(pixels.data)))
        return pixels


@dataclass(frozen=True)
class Scene:
    """What is mapped.

    Attributes:
        name: for messages.
        info: the grid of the scene, with the bands of the sensor.
        parts: the rasters on it.
        sources: names of the rasters that were given, in the order of the parts.
        manner: what was asked for of bands and grid, JSON-ready.
        folder: where virtual rasters lie; it goes with the scene.
    """

    name: str
    info: RasterInfo
    parts: tuple[Part, ...]
    sources: tuple[str, ...]
    manner: dict[str, Any]
    folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def black_border(self) -> bool:
        """Whether a black surrounding was found."""
        return any(part.border is not None or part.surroundings is not None for part in self.parts)

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """Files on this machine that the pixels come from."""
        return tuple(dict.fromkeys(file for source in self.sources for file in _files(source)))

    @property
    def is_local(self) -> bool:
        """Whether all of its rasters are files on this machine."""
        return all(Path(source).exists() for source in self.sources)

    def identity(self) -> dict[str, Any]:
        """Say which scene this is: names, sizes and samples of its files, header, grid; neither where it lies nor when it was written."""
        info = self.info
        return {
            "files": [[file.name, file.stat().st_size, _fingerprint(file)] for file in self.files],
            "remote": [source for source in self.sources if not Path(source).exists()],
            "grid": [info.width, info.height, info.crs, info.transform, info.dtype, list(info.band_names), info.nodata],
            **self.manner,
        }

    def read(self, window: Window) -> Pixels:
        """Read a window: data (C, h, w) and valid (h, w); the first part with data counts."""
        found: Pixels | None = None
        for part in self.parts:
            inner = _shared(window, part.place)
            if inner is None:
                continue
            own = Window(inner.column - part.place.column, inner.row - part.place.row, inner.width, inner.height)
            if found is None and inner == window:
                found = part.read(own)
            else:
                found = found or self._empty(window)
                _fill(found, part.read(own), inner.column - window.column, inner.row - window.row)
            if found.valid.all():
                break
        return found or self._empty(window)

    def _empty(self, window: Window) -> Pixels:
        shape = window.height, window.width
        return Pixels(np.zeros((self.info.count, *shape), dtype=self.info.dtype), np.zeros(shape, dtype=np.bool_))


def open_scene(
    uri: str | Path,
    sensor: Sensor,
    *,
    bands: Sequence[str] = (),
    crs: str | None = None,
    resolution: float | None = None,
    black_border: bool = True,
) -> Scene:
    """Look at a raster that is to be mapped; no pixel of a map is read yet.

    Args:
        uri: any raster :func:`tilth.imagery.read.read_pixels` reads.
        sensor: what the model expects.
        bands: numbers from 1 or descriptions of the bands that are the sensor's, in its order; by default all.
        crs: coordinate system of the map, ``EPSG:code`` or WKT; by default the raster's.
        resolution: side of the map's pixels in units of that CRS, metres or degrees; by default about the raster's. A raster that is
            not on that grid is resampled on read, bilinearly.
        black_border: treat large, nearly black regions at the border of 8-bit optical rasters that name no nodata as nodata; see
            :mod:`tilth.imagery.black_border`.

    Raises:
        SensorMismatchError: band count, number type or band names are not the sensor's.
        UsageError: no such band, a CRS that is none, or a raster that has no place to be resampled from.
        MissingFileError: no such raster.
        UnreadableFileError: truncated or damaged.
    """
    source = str(uri)
    info, picked = _look(source, sensor, bands)
    grid = grid_for(info, crs, resolution)
    manner = {"bands": list(bands), "crs": crs, "resolution": resolution, "black_border": black_border}
    if grid is None:
        border = _border(source) if black_border and _is_eight_bit_optical(sensor) else None
        part = Part(source, Window(0, 0, info.width, info.height), picked, border)
        return Scene(source, info, (part,), (source,), manner)
    folder = _folder()
    whole = Window(0, 0, grid.width, grid.height)
    part = _warped(source, info, grid, whole, picked, folder, black_border and _is_eight_bit_optical(sensor))
    return Scene(source, replace(grid, nodata=info.nodata), (part,), (source,), manner, folder)


def open_mosaic(
    uris: Sequence[str | Path],
    sensor: Sensor,
    *,
    bands: Sequence[str] = (),
    crs: str | None = None,
    resolution: float | None = None,
    black_border: bool = True,
) -> Scene:
    """Look at several rasters that are to become one map; see :func:`open_scene`.

    The grid is that of the first raster, or the one asked for, grown to hold all. A raster on the same grid, shifted by whole pixels, is
    read as it is; any other is resampled on read, bilinearly. Where rasters overlap, the first one with data counts.

    Raises:
        As :func:`open_scene`; UsageError too where a raster has no place on the Earth.
    """
    sources = [str(uri) for uri in uris]
    looks = [_look(source, sensor, bands) for source in sources]
    for info, _ in looks:
        if info.crs is None or info.transform is None:
            raise UsageError(f"{info.uri}: has no CRS, so it has no place in a mosaic")
    first = looks[0][0]
    base = grid_for(first, crs, resolution, upright=True) or first
    whole = union_grid(base, [info for info, _ in looks])
    folder, parts = _folder(), []
    wants_border = black_border and _is_eight_bit_optical(sensor)
    for source, (info, picked) in zip(sources, looks, strict=True):
        place = aligned(whole, info)
        if place is not None:
            parts.append(Part(source, place, picked, _border(source) if wants_border else None))
        else:
            grid, place = part_grid(whole, info)
            parts.append(_warped(source, info, grid, place, picked, folder, wants_border))
    manner = {"bands": list(bands), "crs": crs, "resolution": resolution, "black_border": black_border, "mosaic": len(sources)}
    name = f"mosaic of {len(sources)} scenes"
    return Scene(name, replace(whole, uri=name, band_names=first.band_names), tuple(parts), tuple(sources), manner, folder)


def _look(source: str, sensor: Sensor, bands: Sequence[str]) -> tuple[RasterInfo, tuple[int, ...] | None]:
    info, picked = pick_bands(read_info(source), bands)
    check_sensor(info, sensor)
    return info, picked


def _warped(
    source: str, info: RasterInfo, grid: RasterInfo, place: Window, bands: tuple[int, ...] | None, folder: Any, wants_border: bool
) -> Part:
    """Let a raster be warped whenever it is read."""
    stem = f"{len(list(Path(folder.name).iterdir())):06d}"
    virtual = write_warped(Path(folder.name, f"{stem}.vrt"), source, like=grid)
    border = _border(source) if wants_border else None
    surroundings = None
    if border is not None:
        assert info.transform is not None
        high, wide = border.cells.shape
        across, down = info.width / wide, info.height / high
        a, b, c, d, e, f = info.transform
        file = write_raster(
            Path(folder.name, f"{stem}-cells.tif"),
            border.cells.astype(np.uint8),
            crs=info.crs,
            transform=(a * across, b * down, c, d * across, e * down, f),
        )
        surroundings = str(write_warped(Path(folder.name, f"{stem}-cells.vrt"), file, like=grid, resampling="nearest"))
    return Part(str(virtual), place, bands, surroundings=surroundings)


def _border(source: str) -> BlackBorder | None:
    # Without overviews the whole raster is read for it.
    with gdal.bounded_cache():
        return find_black_border(source)


def _fill(found: Pixels, more: Pixels, column: int, row: int) -> None:
    """Put pixels where nothing valid is yet."""
    height, width = more.valid.shape
    inner = slice(row, row + height), slice(column, column + width)
    new: NDArray[np.bool_] = more.valid & ~found.valid[inner]
    np.copyto(found.data[:, *inner], more.data, where=new)
    found.valid[inner] |= new


def _shared(window: Window, place: Window) -> Window | None:
    left, top = max(window.column, place.column), max(window.row, place.row)
    right = min(window.column + window.width, place.column + place.width)
    bottom = min(window.row + window.height, place.row + place.height)
    return Window(left, top, right - left, bottom - top) if left < right and top < bottom else None


def _files(source: str) -> list[Path]:
    """The raster and, for a virtual one, what it refers to, however deep."""
    found: dict[Path, None] = {}
    waiting = [Path(source)]
    for file in waiting:
        if file in found or not file.exists() or file.name.endswith(_BESIDE):
            continue
        found[file], suffix = None, file.suffix.lower()
        if suffix == ".vrt" or (file == Path(source) and suffix not in {".npy", *plain.IMAGE_SUFFIXES}):
            waiting += map(Path, gdal.raster_files(str(file)))
    return [file for file in found if file.is_file()]


def _fingerprint(file: Path) -> str:
    """Hash the beginning, the middle and the end of a file."""
    digest, size = hashlib.sha256(), file.stat().st_size
    with file.open("rb") as stream:
        for start in (0, max(0, size - _SAMPLE) // 2, max(0, size - _SAMPLE)):
            stream.seek(start)
            digest.update(stream.read(_SAMPLE))
    return digest.hexdigest()


def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix=f"tilth-{os.getpid()}-")


def _is_eight_bit_optical(sensor: Sensor) -> bool:
    return sensor.dtype == "uint8" and all(band.kind == "optical" for band in sensor.bands)
