"""How many pixels of each class every tile has."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tilth.catalog.table import Catalog, Tile
from tilth.classes import IGNORE_INDEX, ClassScheme
from tilth.errors import DataError
from tilth.imagery.read import read_label


def count_classes(label: NDArray[np.uint8], scheme: ClassScheme) -> tuple[NDArray[np.int64], dict[int, int]]:
    """Count the pixels of each class in a label.

    Args:
        label: uint8 (h, w), 255 = ignore.
        scheme: the K classes.

    Returns:
        int64 (K,) pixel counts without ignored ones, and the counts of values that are outside the scheme.
    """
    counts = np.bincount(label.reshape(-1), minlength=IGNORE_INDEX + 1)
    outside = {value: int(counts[value]) for value in range(len(scheme), IGNORE_INDEX) if counts[value]}
    return counts[: len(scheme)].astype(np.int64), outside


def class_pixels(catalog: Catalog, progress: Callable[[int, int], None] | None = None) -> NDArray[np.int64]:
    """Read every label once and count its classes; all labelled rows must follow one scheme.

    Args:
        catalog: rows without label count as zeros.
        progress: told (labels read, labels in all).

    Returns:
        int64 (N, K) pixels, ignored ones not counted.

    Raises:
        CatalogError: no labelled row, or several schemes.
        DataError: a label cannot be read or holds a value outside the scheme.
    """
    scheme = catalog.scheme()
    result = np.zeros((len(catalog), len(scheme)), dtype=np.int64)
    todo = len(catalog.labelled())
    done = 0
    for index, tile in enumerate(catalog.tiles()):
        if tile.label is None or tile.label_kind == "none":
            continue
        result[index] = tile_classes(tile, scheme)
        done += 1
        if progress is not None:
            progress(done, todo)
    return result


def tile_classes(tile: Tile, scheme: ClassScheme) -> NDArray[np.int64]:
    """Count the classes of one labelled tile; see :func:`class_pixels`."""
    assert tile.label is not None
    counts, outside = count_classes(read_label(tile.label, tile.window), scheme)
    if outside:
        value, pixels = next(iter(outside.items()))
        raise DataError(
            f"{tile.label}: tile {tile.tile_id!r} has {pixels} pixels of value {value}, outside scheme {scheme.name!r} "
            f"(0 to {len(scheme) - 1}, {IGNORE_INDEX} = ignore); look at all with: tilth catalog check"
        )
    return counts
