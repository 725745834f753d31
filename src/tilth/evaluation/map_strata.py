"""A class map as strata: how many pixels and how much ground each class has, and where its pixels are; read block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilth.classes import IGNORE_INDEX
from tilth.errors import DataError
from tilth.imagery.area import pixel_areas_m2, value_areas_m2
from tilth.imagery.class_map import ClassMap, read_class_map, refuse_hidden_class
from tilth.imagery.gdal import bounded_cache
from tilth.imagery.raster import RasterInfo, Window
from tilth.imagery.read import read_label

BLOCK = 2048
"""Side of the blocks a map is read in, in pixels."""


@dataclass(frozen=True)
class Strata:
    """The mapped classes of a map.

    Attributes:
        header: names, colours, CRS and transform of the map.
        ids: class ids that the map shows, increasing.
        pixels: int64 (S,), pixels of each class.
        areas_m2: float64 (S,), ground that each class covers; None where the map has no place on the Earth.
        blocks: the windows the map was read in, from the upper left, row by row.
        block_pixels: int64 (blocks, S), pixels of each class in each block.
        pixel_ratio: ground of the largest pixel through that of the smallest, of nine over the map; 1 without a place on the Earth.
    """

    header: ClassMap
    ids: tuple[int, ...]
    pixels: NDArray[np.int64]
    areas_m2: NDArray[np.float64] | None
    blocks: tuple[Window, ...]
    block_pixels: NDArray[np.int64]
    pixel_ratio: float

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each class."""
        return tuple(self.header.name(value) for value in self.ids)

    @property
    def shares(self) -> NDArray[np.float64]:
        """Share of each class: of the ground, or of the pixels where the map has no place on the Earth; float64 (S,), sum 1."""
        sizes = self.pixels.astype(np.float64) if self.areas_m2 is None else self.areas_m2
        found: NDArray[np.float64] = sizes / sizes.sum()
        return found


def read_strata(uri: str) -> Strata:
    """Count the classes of a map.

    Args:
        uri: GeoTIFF of one band of 8-bit class ids, as tilth predicts it; pixels without data belong to no class.

    Raises:
        MissingFileError, UnreadableFileError: it cannot be read.
        DataError: it is not a class map, or has no data at all.
    """
    header = read_class_map(uri)
    refuse_hidden_class(header)
    info = header.info
    counts = []
    areas: NDArray[np.float64] | None = np.zeros(IGNORE_INDEX)
    blocks = tuple(_blocks(info.width, info.height))
    with bounded_cache():
        for window in blocks:
            values = read_label(uri, window)
            counts.append(np.bincount(values.ravel(), minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX])
            found = None if info.crs is None or info.transform is None else value_areas_m2(values, window, info.crs, info.transform)
            if found is None or areas is None:
                areas = None
                continue
            areas += found[:IGNORE_INDEX]
    table = np.stack(counts)
    ids = np.flatnonzero(table.sum(axis=0))
    if not len(ids):
        raise DataError(f"{uri}: every pixel is without data; there is nothing to sample or to assess")
    return Strata(
        header=header,
        ids=tuple(ids.tolist()),
        pixels=table[:, ids].sum(axis=0),
        areas_m2=None if areas is None else areas[ids],
        blocks=blocks,
        block_pixels=table[:, ids],
        pixel_ratio=1.0 if areas is None else _pixel_ratio(info),
    )


def classes_at(header: ClassMap, columns: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Read the classes of single pixels, block by block.

    Args:
        header: of the map.
        columns: int64 (n,), inside the map.
        rows: int64 (n,), inside the map.

    Returns:
        int64 (n,), class ids; 255 where the map has no data.
    """
    result = np.empty(len(columns), dtype=np.int64)
    # Small blocks: a few points a block do not need much of it.
    side = 256
    keys = (rows // side) * (header.info.width // side + 1) + columns // side
    with bounded_cache():
        for key in np.unique(keys):
            places = np.flatnonzero(keys == key)
            left, top = int(columns[places[0]] // side * side), int(rows[places[0]] // side * side)
            window = Window(left, top, min(side, header.info.width - left), min(side, header.info.height - top))
            result[places] = read_label(header.info.uri, window)[rows[places] - top, columns[places] - left]
    return result


def _pixel_ratio(info: RasterInfo) -> float:
    """Compare the ground of pixels at corners, sides and middle of a raster."""
    assert info.crs is not None, "what has areas has a CRS"
    assert info.transform is not None, "and a transform"
    places = [(column, row) for column in (0, info.width // 2, info.width - 1) for row in (0, info.height // 2, info.height - 1)]
    found = [pixel_areas_m2(Window(column, row, 1, 1), info.crs, info.transform) for column, row in places]
    areas = [float(entry[1][0, 0]) for entry in found if entry is not None]
    return max(areas) / min(areas)


def _blocks(width: int, height: int) -> Iterator[Window]:
    for row in range(0, height, BLOCK):
        for column in range(0, width, BLOCK):
            yield Window(column, row, min(BLOCK, width - column), min(BLOCK, height - row))
