"""Which tiles show pixels of other tiles, whatever the tiles are called."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tilth.catalog import uris
from tilth.catalog.rows import window_array
from tilth.catalog.table import Catalog

# Pairs of windows compared at once: bounds memory to some 100 MB.
_PAIRS = 1 << 21


def shares_pixels(catalog: Catalog, others: Catalog) -> NDArray[np.bool_]:
    """Tell for every tile whether a tile of another catalog has pixels of the same image file in its window.

    Args:
        catalog: N tiles to tell of.
        others: tiles to look for, by image and window; ids do not count. Links to folders are followed, links to files are not.

    Returns:
        bool (N,). Windows that only touch share nothing.
    """
    images, searched = uris.make_real(catalog.table["image"]), uris.make_real(others.table["image"])
    known = pc.unique(searched)
    codes, other_codes = (_positions(column, known) for column in (images, searched))
    order = np.argsort(other_codes, kind="stable")
    # The others of a tile's image lie between first and last in this order.
    first, last = (np.searchsorted(other_codes[order], codes, side=side) for side in ("left", "right"))
    windows, other_windows = window_array(catalog.table).astype(np.int64), window_array(others.table).astype(np.int64)[order]
    result = np.zeros(len(catalog), dtype=bool)
    rows = np.flatnonzero(last > first)
    pairs = np.cumsum((last - first)[rows])
    for part in np.split(rows, np.flatnonzero(np.diff(pairs // _PAIRS)) + 1):
        counts = (last - first)[part]
        tile = np.repeat(part, counts)
        other = np.arange(len(tile)) - np.repeat(np.cumsum(counts) - counts - first[part], counts)
        result[tile[_intersect(windows[tile], other_windows[other])]] = True
    return result


def _positions(column: pa.ChunkedArray, values: pa.Array) -> NDArray[np.int64]:
    """Position of each cell among the values, -1 for none."""
    found: NDArray[np.int64] = pc.index_in(column, value_set=values).fill_null(-1).to_numpy().astype(np.int64)
    return found


def _intersect(left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell for each pair of windows (n, 4) whether they share a pixel."""
    start, end = np.maximum(left[:, :2], right[:, :2]), np.minimum(left[:, :2] + left[:, 2:], right[:, :2] + right[:, 2:])
    shared: NDArray[np.bool_] = (start < end).all(axis=1)
    return shared
