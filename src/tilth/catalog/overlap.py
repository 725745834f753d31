"""Which tiles show pixels of other tiles, whatever the tiles are called."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tilth.catalog import uris
from tilth.catalog.origin import source_images, source_windows
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
    images, searched = uris.make_real(source_images(catalog.table)), uris.make_real(source_images(others.table))
    known = pc.unique(searched)
    codes, other_codes = (_positions(column, known) for column in (images, searched))
    order = np.argsort(other_codes, kind="stable")
    # The others of a tile's image lie between first and last in this order.
    first, last = (np.searchsorted(other_codes[order], codes, side=side) for side in ("left", "right"))
    windows, other_windows = source_windows(catalog.table).astype(np.int64), source_windows(others.table).astype(np.int64)[order]
    result = np.zeros(len(catalog), dtype=bool)
    rows = np.flatnonzero(last > first)
    pairs = np.cumsum((last - first)[rows])
    for part in np.split(rows, np.flatnonzero(np.diff(pairs // _PAIRS)) + 1):
        counts = (last - first)[part]
        tile = np.repeat(part, counts)
        other = np.arange(len(tile)) - np.repeat(np.cumsum(counts) - counts - first[part], counts)
        result[tile[_intersect(windows[tile], other_windows[other])]] = True
    return result


def crossing_windows(images: NDArray[np.int64], windows: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find pairs of tiles of different groups that have pixels of one image in common.

    Args:
        images: (N,) number of the image of each tile.
        windows: (N, 4): column, row, width, height in pixels.
        groups: (N,).

    Returns:
        (M, 2) positions, the first smaller than the second.
    """
    found = [np.zeros((0, 2), dtype=np.int64)]
    if not images.size:
        return found[0]
    # Images lie side by side on one axis, further apart than any window reaches; from each tile on to the right it is looked for others.
    reach = int((windows[:, 0] + windows[:, 2]).max()) + 1
    left = images * reach + windows[:, 0]
    order = np.argsort(left, kind="stable")
    begins = left[order]
    counts = np.searchsorted(begins, begins + windows[order, 2], side="left") - np.arange(order.size) - 1
    pairs = np.cumsum(counts)
    rows = np.flatnonzero(counts > 0)
    for part in np.split(rows, np.flatnonzero(np.diff(pairs[rows] // _PAIRS)) + 1):
        one = np.repeat(part, counts[part])
        other = np.arange(one.size) - np.repeat(np.cumsum(counts[part]) - counts[part] - part - 1, counts[part])
        first, second = order[one], order[other]
        kept = (groups[first] != groups[second]) & _intersect(windows[first], windows[second])
        found.append(np.sort(np.stack([first[kept], second[kept]], axis=1), axis=1))
    return np.concatenate(found)


def _positions(column: pa.ChunkedArray, values: pa.Array) -> NDArray[np.int64]:
    """Position of each cell among the values, -1 for none."""
    found: NDArray[np.int64] = pc.index_in(column, value_set=values).fill_null(-1).to_numpy().astype(np.int64)
    return found


def _intersect(left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell for each pair of windows (n, 4) whether they share a pixel."""
    start, end = np.maximum(left[:, :2], right[:, :2]), np.minimum(left[:, :2] + left[:, 2:], right[:, :2] + right[:, 2:])
    shared: NDArray[np.bool_] = (start < end).all(axis=1)
    return shared
