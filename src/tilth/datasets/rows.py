"""The table of a prepared data set: one row a tile."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tilth.catalog.geometry import cut_windows, footprints
from tilth.catalog.schema import COLUMNS
from tilth.catalog.table import Catalog
from tilth.classes import ClassScheme
from tilth.datasets.config import Layer
from tilth.datasets.division import Windows
from tilth.datasets.headers import Headers
from tilth.datasets.joining import date_in
from tilth.datasets.layout import Place
from tilth.imagery.read import Window
from tilth.sensors import Sensor


def make_catalog(
    places: Sequence[Place],
    headers: Headers,
    masks: Sequence[str | None],
    sensor: Sensor,
    scheme: ClassScheme | None,
    *,
    trust: str,
    windows: Windows,
    layer: Layer,
    prefix: str,
    source: str | None,
    licence: str | None,
) -> Catalog:
    """Make one row a tile.

    Args:
        places: the data set.
        headers: of each place's image.
        masks: index raster of each place, or None.
        sensor: of all images.
        scheme: of all masks; None where there are none.
        trust: label kind of tiles with a mask.
        windows: how images are cut.
        layer: says which placeholders hold place and date.
        prefix: first part of tile ids.
        source: where the imagery comes from.
        licence: of the imagery.
    """
    names: list[str] = []
    parts: list[NDArray[np.int32]] = []
    for place, (width, height) in zip(places, headers.sizes.tolist(), strict=True):
        endings, cut = _tiles(width, height, windows)
        names += [f"{prefix}/{place.name}{ending}" for ending in endings]
        parts.append(cut)
    corners = np.concatenate(parts)
    position = np.repeat(np.arange(len(places)), [len(part) for part in parts])
    by_place: dict[str, list[Any]] = {
        "image": [place.image for place in places],
        "label": list(masks),
        "label_kind": ["none" if mask is None else trust for mask in masks],
        "scheme": [None if mask is None or scheme is None else scheme.name for mask in masks],
        "split": [place.split for place in places],
        "location_id": [None if layer.location is None else f"{prefix}/{place.values[layer.location]}" for place in places],
        "datetime": [None if layer.dated is None else date_in(place.values[layer.dated]) for place in places],
    }
    rows = {name: pa.array(values, COLUMNS[name]).take(pa.array(position)) for name, values in by_place.items()}
    constant = {"sensor": sensor.name, "source": source, "licence": licence}
    rows |= {name: pa.repeat(pa.scalar(value, COLUMNS[name]), len(corners)) for name, value in constant.items()}
    rows["tile_id"] = pa.array(names)
    rows["window"] = pa.FixedSizeListArray.from_arrays(pa.array(corners.reshape(-1)), 4)
    rows |= _ground(headers, corners, position)
    return Catalog(pa.table(rows), {sensor.name: sensor}, {} if scheme is None else {scheme.name: scheme})


def tile_windows(width: int, height: int, windows: Windows) -> list[Window]:
    """Cut an image as a card says; what is smaller than a window stays whole.

    Windows within overlapping larger ones may coincide; each is listed once.

    Example:
        >>> [window.column for window in tile_windows(1500, 1024, Windows(within_px=1024, window_px=512)) if window.row == 0]
        [0, 512, 476, 988]
    """
    if windows.window_px is None:
        return [Window(0, 0, width, height)]
    size, stride = windows.window_px, windows.stride_px or windows.window_px
    outer = windows.within_px or max(width, height)
    return list(
        dict.fromkeys(
            Window(big.column + small.column, big.row + small.row, small.width, small.height)
            for big in _cut(width, height, outer, outer, windows.edge)
            for small in _cut(big.width, big.height, size, stride, windows.edge)
        )
    )


def _cut(width: int, height: int, size: int, stride: int, edge: str) -> list[Window]:
    return cut_windows(width, height, size, stride, "shift" if min(width, height) < size else edge)


# Sets have few sizes of images.
@lru_cache(maxsize=4096)
def _tiles(width: int, height: int, windows: Windows) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """Windows of images of one size as int32 (n, 4), and how the tiles' ids end."""
    cut = tile_windows(width, height, windows)
    endings = ("",) if windows.window_px is None else tuple(f"_r{window.row}_c{window.column}" for window in cut)
    return endings, np.array(cut, dtype=np.int32)


def _ground(headers: Headers, corners: NDArray[np.int32], position: NDArray[np.int64]) -> dict[str, pa.Array]:
    """Columns ``crs`` and ``geometry``: empty for images without a place on the Earth."""
    order = np.full(len(headers.sizes), -1)
    order[list(headers.placed)] = np.arange(len(headers.placed))
    owners = order[position]
    has = np.flatnonzero(owners >= 0)
    infos = list(headers.placed.values())
    crs = pa.array([info.crs for info in infos], COLUMNS["crs"]).take(pa.array(owners, mask=owners < 0))
    shapes: list[bytes | None] = [None] * len(corners)
    for index, shape in zip(has.tolist(), footprints(infos, corners[has], owners[has]), strict=True):
        shapes[index] = shape
    return {"crs": crs, "geometry": pa.array(shapes, COLUMNS["geometry"])}
