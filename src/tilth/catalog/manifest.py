"""Which tile is in which split, as a table for other programs."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from tilth.catalog.origin import source_images, source_windows
from tilth.catalog.ranking import RANK_COLUMN, SUBSET_COLUMN
from tilth.catalog.table import Catalog
from tilth.imagery.write import write_text


def write_manifest(catalog: Catalog, path: Path, seed: int) -> Path:
    """Write the tiles of a catalog as CSV: tile_id, file, row, column, height, width (pixels), split, subset, label_rank and seed.

    Args:
        catalog: tiles, in the order of the lines.
        path: file to write; it is replaced.
        seed: that the splits were drawn with.

    Returns:
        The file.
    """
    names = catalog.table.column_names
    further = [catalog.column(name) if name in names else [None] * len(catalog) for name in ("split", SUBSET_COLUMN, RANK_COLUMN)]
    rows = zip(
        catalog.column("tile_id"), source_images(catalog.table).to_pylist(), source_windows(catalog.table).tolist(), *further, strict=True
    )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["tile_id", "file", "row", "column", "height", "width", "split", "subset", RANK_COLUMN, "seed"])
    for tile, file, (column, row, width, height), *more in rows:
        writer.writerow([tile, file, row, column, height, width, *("" if value is None else value for value in more), seed])
    write_text(path, text.getvalue())
    return path
