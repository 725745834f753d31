"""Where the pixels of tiles come from: a packed tile still shows the ground of the raster it was taken from.

A packed catalog has two further columns, ``packed_from`` (the raster) and ``packed_from_window``. A virtual raster, as builds with layers
make them, shows the pixels of the image that it lies on the grid of. What asks whether tiles share pixels asks here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tilth.catalog import schema
from tilth.catalog.rows import window_array
from tilth.imagery.references import VIRTUAL_SUFFIX, shown_raster

WINDOW_COLUMN = schema.ORIGIN_WINDOW_COLUMN


def source_images(table: pa.Table) -> pa.ChunkedArray:
    """The raster that each tile's pixels come from: its origin where it is packed, else its image; of a virtual one what it shows.

    The text of virtual rasters is read; see :func:`tilth.imagery.references.shown_raster`.
    """
    return _shown(named_images(table))


def named_images(table: pa.Table) -> pa.ChunkedArray:
    """The raster that each tile is said to come from: its origin where it is packed, else its image."""
    if schema.ORIGIN_COLUMN not in table.column_names:
        return table["image"]
    return pc.coalesce(table[schema.ORIGIN_COLUMN].cast(pa.string()), table["image"])


def _shown(images: pa.ChunkedArray) -> pa.ChunkedArray:
    virtual = pc.ends_with(images, pattern=VIRTUAL_SUFFIX, ignore_case=True)
    if not pc.any(virtual).as_py():
        return images
    names = pc.unique(images.filter(virtual))
    behind = pa.array(map(shown_raster, names.to_pylist()), pa.string())
    return pc.coalesce(behind.take(pc.index_in(images, value_set=names)), images)


def source_windows(table: pa.Table) -> NDArray[np.int32]:
    """The pixels of :func:`source_images` that each tile shows, int32 (N, 4): column, row, width, height in pixels."""
    windows = window_array(table)
    if schema.ORIGIN_COLUMN not in table.column_names or WINDOW_COLUMN not in table.column_names:
        return windows
    known = np.asarray(pc.and_(pc.is_valid(table[schema.ORIGIN_COLUMN]), pc.is_valid(table[WINDOW_COLUMN])))
    windows = windows.copy()
    origins: Any = pc.list_flatten(table[WINDOW_COLUMN].filter(pa.array(known)).cast(pa.list_(pa.int32())))
    windows[known] = origins.to_numpy().reshape(-1, 4)
    return windows
