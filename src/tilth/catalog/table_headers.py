"""The headers of the images that a table names: their sizes, CRS and footprints, a part at a time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tilth.catalog.discover import Problem
from tilth.catalog.geometry import footprints
from tilth.catalog.headers import THREADS, check_sensor
from tilth.errors import DataError, MissingFileError
from tilth.imagery.grid import grid_difference
from tilth.imagery.read import RasterInfo, read_info
from tilth.sensors import Sensor

_PART = 20_000
"""Rows whose headers are held at once."""


def read_image_headers(
    table: pa.Table,
    windows: NDArray[np.int32] | None,
    sensor: Sensor,
    left_out: list[Problem],
    progress: Callable[[int, int], None] | None,
) -> tuple[pa.Table, NDArray[np.int32], pa.Array]:
    """Read the header of each image, and fill in CRS and footprints where the table has none.

    Args:
        table: with the column ``image``.
        windows: int32 (N, 4), or None to take images whole.
        sensor: that all images are of.
        left_out: receives the images that cannot be read, and those whose label lies on another grid or cannot be read.
        progress: told (rows done, all rows).

    Returns:
        The rows whose image, and label, can be used, their windows, and their positions in the table.

    Raises:
        DataError: no image can be used, or a window reaches outside of its image.
        SensorMismatchError: images of another number of bands or another type.
    """
    kept, sizes, names, shapes = [], [], [], []
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, table.num_rows, _PART):
            rows = table["image"].slice(start, _PART)
            encoded = pc.dictionary_encode(rows).combine_chunks()
            if isinstance(encoded, pa.ChunkedArray):
                encoded = encoded.chunk(0)
            headers = list(pool.map(_header, encoded.dictionary.to_pylist()))
            good = np.array([isinstance(header, RasterInfo) for header in headers])
            left_out += [
                Problem(uri, str(header).removeprefix(f"{uri}: "))
                for uri, header in zip(encoded.dictionary.to_pylist(), headers, strict=True)
                if not isinstance(header, RasterInfo)
            ]
            infos = [header for header in headers if isinstance(header, RasterInfo)]
            check_sensor(infos, sensor)
            owners = encoded.indices.to_numpy()
            usable = np.flatnonzero(good[owners])
            places = (np.cumsum(good) - 1)[owners[usable]]
            if "label" in table.column_names:
                wrong = _off_grid(infos, places, table["label"].slice(start, _PART).take(pa.array(usable)), left_out, pool)
                usable, places = usable[~wrong], places[~wrong]
            own = _windows(infos, places, None if windows is None else windows[start + usable])
            kept.append(start + usable)
            sizes.append(own)
            names.append(pa.array([info.crs for info in infos], pa.string()).take(pa.array(places)))
            shapes.append(pa.array(footprints(infos, own, places), pa.binary()))
            if progress is not None:
                progress(min(start + _PART, table.num_rows), table.num_rows)
    positions = pa.array(np.concatenate(kept))
    if not len(positions):
        raise DataError(
            f"{left_out[-1].file}: {left_out[-1].reason}; none of {table.num_rows} images can be used; root says where relative paths start"
        )
    table = table.take(positions)
    for name, found in (("crs", pa.chunked_array(names)), ("geometry", pa.chunked_array(shapes))):
        place = table.schema.get_field_index(name)
        table = table.append_column(name, found) if place < 0 else table.set_column(place, name, pc.coalesce(table[name], found))
    return table, np.concatenate(sizes), positions


def _header(uri: str) -> RasterInfo | DataError | MissingFileError:
    try:
        return read_info(uri)
    except (DataError, MissingFileError) as error:
        return error


def _off_grid(
    infos: list[RasterInfo], places: NDArray[Any], labels: pa.ChunkedArray, left_out: list[Problem], pool: ThreadPoolExecutor
) -> NDArray[np.bool_]:
    """Say which rows have a label that does not lie on the grid of its image, or that cannot be read; bool (N,)."""
    texts = labels.to_pylist()
    pairs = list(dict.fromkeys((place, label) for place, label in zip(places.tolist(), texts, strict=True) if label is not None))
    wrong = set()
    for (place, label), header in zip(pairs, pool.map(_header, [label for _, label in pairs]), strict=True):
        reason = grid_difference(infos[place], header) if isinstance(header, RasterInfo) else f"its label cannot be used: {header}"
        if reason is not None:
            wrong.add((place, label))
            left_out.append(Problem(infos[place].uri, reason))
    return np.array([pair in wrong for pair in zip(places.tolist(), texts, strict=True)], dtype=np.bool_)


def _windows(infos: list[RasterInfo], places: NDArray[Any], windows: NDArray[np.int32] | None) -> NDArray[np.int32]:
    sizes = np.array([(info.width, info.height) for info in infos], np.int32).reshape(-1, 2)[places]
    if windows is None:
        return np.concatenate([np.zeros_like(sizes), sizes], axis=1)
    outside = np.flatnonzero((windows[:, :2] < 0).any(axis=1) | (windows[:, :2] + windows[:, 2:] > sizes).any(axis=1))
    if outside.size:
        first = int(outside[0])
        info = infos[places[first]]
        raise DataError(
            f"{info.uri}: window {windows[first].tolist()} (column, row, width, height) reaches outside of its "
            f"{info.width} x {info.height} pixels, as {outside.size} windows of the table do"
        )
    return windows
