"""How sure the maker of a label was, pixel by pixel: a raster of percents on the grid of the image, as ``tilth label`` writes it.

Two columns of a catalog say where it is: ``confidence_raster``, and ``confidence_window``, the pixels of it that belong to the tile. The
window has a column of its own because that of the image changes when a tile is packed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tilth.catalog import schema
from tilth.catalog.table import Catalog
from tilth.classes import IGNORE_INDEX
from tilth.errors import CatalogError, DataError
from tilth.imagery.raster import Window
from tilth.imagery.read import read_label

WINDOW_COLUMN = "confidence_window"

FULL = 100
"""Stored number of certainty; what is stored are percents, rounded."""

UNKNOWN = IGNORE_INDEX
"""Stored number where nobody said how sure he was: no data."""


def confidence_place(catalog: Catalog, row: int) -> tuple[str, Window] | None:
    """Find the confidence of a tile.

    Args:
        catalog: any.
        row: of the tile.

    Returns:
        The raster and the pixels of it that belong to the tile; None where there is none.

    Raises:
        CatalogError: a raster without a window, or with one of another size than the tile's.
    """
    table = catalog.table
    if schema.CONFIDENCE_COLUMN not in table.column_names:
        return None
    uri = table[schema.CONFIDENCE_COLUMN][row].as_py()
    if uri is None:
        return None
    window = table[WINDOW_COLUMN][row].as_py() if WINDOW_COLUMN in table.column_names else None
    if window is None:
        raise CatalogError(
            f"tile {table['tile_id'][row].as_py()!r}: has a {schema.CONFIDENCE_COLUMN} and no {WINDOW_COLUMN} (column, row, width, height)"
        )
    if window[2:] != table["window"][row].as_py()[2:]:
        raise CatalogError(
            f"tile {table['tile_id'][row].as_py()!r}: {WINDOW_COLUMN} {tuple(window)} has not the size of its window "
            f"{tuple(table['window'][row].as_py())}; a confidence lies on the grid of the image"
        )
    return str(uri), Window(*window)


def without_labels(catalog: Catalog) -> Catalog:
    """Make a catalog of the same tiles without labels, schemes, and what is said of the labels: confidence, and clean ones beside them."""
    bare = {"label": None, "label_kind": "none", "scheme": None}
    table = catalog.with_columns(**{name: [value] * len(catalog) for name, value in bare.items()}).table
    beside = (schema.CONFIDENCE_COLUMN, WINDOW_COLUMN, schema.REFERENCE_COLUMN)
    table = table.drop_columns([name for name in beside if name in table.column_names])
    return Catalog(table, catalog.sensors)


def read_confidence(uri: str, window: Window) -> NDArray[np.uint8]:
    """Read a window of a raster of confidence.

    Returns:
        uint8 (h, w), 0 to 100 percent, 255 where it is not known.

    Raises:
        DataError: another value, or a window outside.
        TilthError: the raster cannot be read.
    """
    percents = read_label(uri, window)
    wrong = (percents > FULL) & (percents != UNKNOWN)
    if wrong.any():
        raise DataError(f"{uri}: confidence {int(percents[wrong][0])} found; expected percents, 0 to {FULL}, and {UNKNOWN} for not known")
    return percents
