"""A sheet of tiles from one end of a number to the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from tilth.catalog.show import contact_sheet
from tilth.catalog.table import Catalog


def draw_by(catalog: Catalog, column: str, path: Path, count: int) -> Path:
    """Draw tiles from the lowest to the highest value of a column; those without one come first.

    Args:
        catalog: at least one tile.
        column: of numbers, may hold nulls.
        path: where to write a PNG.
        count: tiles drawn at most, evenly spread over the order.
    """
    order = np.asarray(pc.array_sort_indices(catalog.table[column].combine_chunks(), null_placement="at_start"))
    steps = np.linspace(0, len(order) - 1, min(count, len(order)))
    chosen = catalog.take(order[np.unique(np.floor(steps + 0.5).astype(np.int64))])
    return contact_sheet(chosen, path, count=len(chosen))
