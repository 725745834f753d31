"""How well trust tells wrong labels from right ones, where clean labels are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilth.catalog import schema
from tilth.catalog.confidence import FULL, UNKNOWN, confidence_place, read_confidence
from tilth.catalog.reading import read_ahead
from tilth.catalog.table import Catalog
from tilth.errors import DataError, MissingFileError
from tilth.imagery.read import read_label


def count_right_and_wrong(
    trust: NDArray[np.uint8], given: NDArray[np.uint8], reference: NDArray[np.uint8], classes: int
) -> NDArray[np.int64]:
    """Count pixels by class, right or wrong, and percent.

    Args:
        trust: uint8 of any shape, 0 to 100 percent; 255 where it is not known.
        given: uint8 of that shape, class ids; those that are none do not count.
        reference: uint8 of that shape, clean class ids; those that are none do not count.
        classes: K.

    Returns:
        int64 (K, 2, 101): for each given class the wrong and the right pixels of each percent.
    """
    counted = (trust != UNKNOWN) & (given < classes) & (reference < classes)
    right = (given == reference)[counted].astype(np.int64)
    places = (given[counted].astype(np.int64) * 2 + right) * (FULL + 1) + trust[counted]
    return np.bincount(places, minlength=classes * 2 * (FULL + 1)).reshape(classes, 2, FULL + 1)


def auroc(counts: NDArray[np.int64]) -> float | None:
    """Area under the curve of right against false alarms: the chance that a wrong pixel is trusted less than a right one, ties as halves.

    Args:
        counts: int64 (2, N), wrong and right pixels of each of N values, ascending.

    Returns:
        0 to 1, 0.5 for guessing; None where there is no wrong or no right pixel.
    """
    wrong, right = counts.astype(np.float64)
    pairs = wrong.sum() * right.sum()
    if not pairs:
        return None
    above = right.sum() - right.cumsum()
    return float((wrong * (above + right / 2)).sum() / pairs)


def judge_trust(catalog: Catalog, on_bad: Callable[[str, str], None], threads: int = 2) -> dict[str, Any] | None:
    """Compare trust with clean labels.

    Args:
        catalog: tiles with labels of one scheme and trust; those with a ``reference`` count.
        on_bad: told the id of a tile whose reference cannot be used, and why; it is left out.
        threads: how many read at once.

    Returns:
        ``tiles`` that were compared, ``pixels``, ``wrong_share`` of their labels, ``auroc``, and by class of the given label ``name``,
        ``pixels``, ``wrong_share``, ``auroc``. None where no tile has a reference.
    """
    if schema.REFERENCE_COLUMN not in catalog.table.column_names:
        return None
    names, references = catalog.scheme().names, catalog.column(schema.REFERENCE_COLUMN)
    total, tiles = np.zeros((len(names), 2, FULL + 1), np.int64), 0

    def count(row: int) -> NDArray[np.int64] | tuple[str, str]:
        tile, place = catalog.tile(row), confidence_place(catalog, row)
        assert tile.label is not None, "what is trusted or not is a label"
        assert place is not None, "every tile has trust"
        try:
            reference = read_label(references[row], tile.window)
        except (DataError, MissingFileError, OSError) as error:
            return tile.tile_id, " ".join(str(error).split())
        return count_right_and_wrong(read_confidence(*place), read_label(tile.label, tile.window), reference, len(names))

    rows = [row for row, uri in enumerate(references) if uri is not None]
    for found in read_ahead(rows, count, threads):
        if isinstance(found, tuple):
            on_bad(*found)
        else:
            total += found
            tiles += 1
    if not tiles:
        return None
    each = [{"name": name, **_facts(counts)} for name, counts in zip(names, total, strict=True)]
    return {"tiles": tiles, **_facts(total.sum(0)), "classes": each}


def _facts(counts: NDArray[np.int64]) -> dict[str, Any]:
    pixels = int(counts.sum())
    return {"pixels": pixels, "wrong_share": int(counts[0].sum()) / pixels if pixels else None, "auroc": auroc(counts)}
