"""A map becomes polygons: one for each patch of a class, with its ground area and mean confidence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tilth.classes import IGNORE_INDEX
from tilth.errors import DataError, UsageError, needs_extra
from tilth.imagery.area import pixel_areas_m2
from tilth.imagery.class_map import ClassMap, read_class_map, refuse_hidden_class
from tilth.imagery.gdal import rasterio_module
from tilth.imagery.raster import Window
from tilth.imagery.read import read_label, read_pixels
from tilth.imagery.vector import write_geopackage
from tilth.prediction.beside import LAYER, confidence_fault, refuse_foreign, refuse_inputs

if TYPE_CHECKING:
    from shapely import Geometry

__all__ = ["LAYER", "PolygonLayer", "remove_small", "write_polygons"]

_ROWS = 512
"""Rows measured at once."""

_CERTAIN = 100
"""Percent."""


@dataclass(frozen=True)
class PolygonLayer:
    """What turning a map into polygons gave.

    Attributes:
        path: the GeoPackage.
        polygons: number of polygons.
        merged_pixels: pixels whose class the removal of small patches changed.
        area_m2: ground in square metres by class name.
    """

    path: Path
    polygons: int
    merged_pixels: int
    area_m2: dict[str, float]


@dataclass(frozen=True)
class _Patches:
    """Connected patches of one class: ``ids`` int32 (h, w), 0 = no data, patch n has the class ``classes[n - 1]``."""

    ids: NDArray[np.int32]
    classes: NDArray[np.uint8]


def write_polygons(
    source: str | Path,
    out: str | Path,
    *,
    confidence: str | Path | None = None,
    minimum_area_m2: float = 0.0,
    sieve_pixels: int = 0,
    overwrite: bool = False,
) -> PolygonLayer:
    """Write the patches of a class map as polygons of a GeoPackage.

    A patch is what hangs together by the sides of pixels. Polygons follow the edges of pixels, so they neither overlap nor leave gaps.
    Patches that are too small are given to their largest neighbour, the smallest first; a small patch without neighbours (an island in
    no data) stays. The layer :data:`LAYER` is in the CRS of the map, with the columns ``class_id``, ``class``, ``pixels``, ``area_m2``
    (ground in square metres, whatever the projection) and, given a confidence raster, ``mean_confidence`` in percent.

    Memory grows with the map, by some fifteen bytes a pixel, and with the number of polygons.

    Args:
        source: map, one band of uint8 class ids.
        out: file to write, ``.gpkg``; one that holds the polygons of a map and nothing else is replaced.
        confidence: raster on the same grid, uint8 percent, as ``tilth predict --confidence`` writes it; 255, unknown, counts in no
            mean.
        minimum_area_m2: minimum mapping unit in square metres; counted in pixels of the mean size on the ground.
        sieve_pixels: the same in pixels; the larger of both counts.
        overwrite: replace any other GeoPackage, too.

    Returns:
        Path, number of polygons, ground by class.

    Raises:
        UsageError: ``out`` is no ``.gpkg`` or what is read, or a size that is negative or larger than the map.
        DataError: the map is none, has no place on the Earth, holds no data, or has a class 255; or the confidence is none, lies on
            another grid or was predicted with another map.
        OutputExistsError: ``out`` exists and is something else.
        MissingFileError: no such file.
        MissingExtraError: geopandas is not installed.
    """
    target = Path(out)
    if target.suffix.lower() != ".gpkg":
        raise UsageError(f"{target}: polygons are written as GeoPackage; give a path that ends in .gpkg")
    if minimum_area_m2 < 0 or sieve_pixels < 0:
        raise UsageError(f"minimum area {minimum_area_m2:g} m2, sieve {sieve_pixels} pixels: expected 0 or more")
    refuse_inputs([target], [place for place in (source, confidence) if place is not None])
    refuse_foreign(target, overwrite=overwrite)
    found = read_class_map(str(source))
    place = _place(found)
    refuse_hidden_class(found)
    classes = read_label(str(source))
    valid = classes != IGNORE_INDEX
    if not valid.any():
        raise DataError(f"{source}: every pixel is no data ({found.nodata}); there is nothing to turn into polygons")
    percent = None if confidence is None else _confidence(str(confidence), found)
    ground = _ground(valid, place)
    if minimum_area_m2 > ground or sieve_pixels > valid.sum():
        raise UsageError(
            f"minimum area {minimum_area_m2:g} m2, sieve {sieve_pixels} pixels: the whole map covers {ground:g} m2, {valid.sum()} pixels; "
            "give a smaller one"
        )
    smallest = max(sieve_pixels, int(np.ceil(minimum_area_m2 * valid.sum() / ground)) if minimum_area_m2 else 0)
    kept = remove_small(classes, valid, smallest) if smallest > 1 else classes
    patches = _find_patches(kept, valid)
    pixels, areas, confident = _measure(patches, place, percent)
    columns: dict[str, Any] = {
        "class_id": patches.classes.astype(np.int16),
        "class": [found.name(value) for value in patches.classes.tolist()],
        "pixels": pixels,
        "area_m2": areas,
    }
    if confident is not None:
        columns["mean_confidence"] = confident
    _write(target, columns, _outlines(patches, place[1]), place[0])
    totals = np.bincount(patches.classes, weights=areas)
    return PolygonLayer(
        path=target,
        polygons=len(pixels),
        merged_pixels=int((kept != classes).sum()),
        area_m2={found.name(value): float(totals[value]) for value in np.flatnonzero(totals).tolist()},
    )


def remove_small(classes: NDArray[np.uint8], valid: NDArray[np.bool_], smallest: int) -> NDArray[np.uint8]:
    """Give patches of fewer than ``smallest`` pixels to their largest neighbour, in rounds of doubling size.

    In one round alone GDAL leaves a small patch as it is when all its neighbours are small, too; that is, where it matters.

    Args:
        classes: uint8 (h, w).
        valid: bool (h, w); other pixels neither change nor swallow any.
        smallest: in pixels.

    Returns:
        uint8 (h, w).
    """
    rasterio_module()
    from rasterio.features import sieve

    result, size = classes, 1
    while size < smallest:
        size = min(2 * size, smallest)
        result = np.where(valid, sieve(result, size, mask=valid, connectivity=4), classes)
    return result


def _place(found: ClassMap) -> tuple[str, tuple[float, float, float, float, float, float]]:
    info = found.info
    if info.crs is None or info.transform is None:
        raise DataError(f"{info.uri}: has no CRS, so polygons of it would lie nowhere; predict a georeferenced scene")
    return info.crs, info.transform


def _confidence(uri: str, found: ClassMap) -> NDArray[np.uint8]:
    """Read the confidence of every pixel in percent: uint8 (h, w)."""
    fault = confidence_fault(found, uri)
    if fault is not None:
        raise DataError(fault)
    pixels = read_pixels(uri)
    data: NDArray[np.uint8] = pixels.data[0]
    data[~pixels.valid] = IGNORE_INDEX
    highest = int(data.max(where=data != IGNORE_INDEX, initial=0))
    if highest > _CERTAIN:
        raise DataError(f"{uri}: expected percentages 0 to 100 (255 = no data), found {highest}; give the confidence of a prediction")
    return data


def _strips(shape: tuple[int, ...]) -> Iterator[Window]:
    height, width = shape[:2]
    for row in range(0, height, _ROWS):
        yield Window(0, row, width, min(_ROWS, height - row))


def _ground(valid: NDArray[np.bool_], place: tuple[str, tuple[float, float, float, float, float, float]]) -> float:
    """Square metres of all valid pixels."""
    total = 0.0
    for window in _strips(valid.shape):
        edges, areas = _areas(window, place)
        rows = valid[window.row : window.row + window.height]
        for index, (left, right) in enumerate(pairwise(edges.tolist())):
            total += float(areas[:, index] @ rows[:, left:right].sum(axis=1))
    return total


def _areas(
    window: Window, place: tuple[str, tuple[float, float, float, float, float, float]]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    found = pixel_areas_m2(window, *place)
    if found is None:
        raise DataError(f"{place[0][:60]}: this CRS has no place on the Earth, so the area of polygons is unknown; predict a placed scene")
    return found


def _find_patches(classes: NDArray[np.uint8], valid: NDArray[np.bool_]) -> _Patches:
    with needs_extra("geo", "polygons"):
        from scipy import ndimage

    ids, labels = np.zeros(classes.shape, np.int32), np.empty(classes.shape, np.int32)
    owners: list[NDArray[np.uint8]] = []
    count = 0
    for value in np.unique(classes[valid]).tolist():
        inside = classes == value
        inside &= valid
        number = ndimage.label(inside, output=labels)
        np.add(labels, count, out=ids, where=inside)
        owners.append(np.full(number, value, np.uint8))
        count += number
    return _Patches(ids, np.concatenate(owners))


def _measure(
    patches: _Patches, place: tuple[str, tuple[float, float, float, float, float, float]], percent: NDArray[np.uint8] | None
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float32] | None]:
    """Pixels, square metres and mean percent of every patch, each (n,); NaN where none of its pixels has one."""
    count = len(patches.classes) + 1
    pixels, areas, sums, known = np.zeros(count, np.int64), np.zeros(count), np.zeros(count), np.zeros(count, np.int64)
    for window in _strips(patches.ids.shape):
        rows = slice(window.row, window.row + window.height)
        ids = patches.ids[rows]
        pixels += np.bincount(ids.ravel(), minlength=count)
        edges, one = _areas(window, place)
        weights = np.repeat(one, np.diff(edges), axis=1)
        areas += np.bincount(ids.ravel(), weights=weights.ravel(), minlength=count)
        if percent is not None:
            some = percent[rows] != IGNORE_INDEX
            sums += np.bincount(ids[some], weights=percent[rows][some], minlength=count)
            known += np.bincount(ids[some], minlength=count)
    mean = None if percent is None else np.divide(sums, known, out=np.full(count, np.nan), where=known > 0)[1:].astype(np.float32)
    return pixels[1:], areas[1:], mean


def _outlines(patches: _Patches, transform: tuple[float, float, float, float, float, float]) -> list[Geometry]:
    """Outline of every patch, in the coordinates of the map."""
    with needs_extra("geo", "polygons"):
        import shapely
    from rasterio import Affine
    from rasterio.features import shapes

    outlines: list[Any] = [None] * len(patches.classes)
    for shape, value in shapes(patches.ids, mask=patches.ids > 0, connectivity=4, transform=Affine(*transform)):
        rings = [np.asarray(ring) for ring in shape["coordinates"]]
        outlines[int(value) - 1] = shapely.Polygon(rings[0], rings[1:])
    result = np.array(outlines, dtype=object)
    # A ring may touch itself where two pixels of a patch meet at a corner.
    broken = ~shapely.is_valid(result)
    result[broken] = shapely.make_valid(result[broken])
    return list(result)


def _write(target: Path, columns: dict[str, Any], outlines: list[Geometry], crs: str) -> None:
    with needs_extra("geo", "polygons"):
        import geopandas

    frame = geopandas.GeoDataFrame(columns, geometry=outlines, crs=crs)
    write_geopackage(target, frame, LAYER)
