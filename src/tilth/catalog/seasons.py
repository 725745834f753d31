"""Places with several seasons: rows of a catalog that show the same pixels of the same ground at other times.

They have the same ``location_id`` and the same window, and no ``datetime`` twice; nothing else marks them. Of packed tiles, the window
counts that they were taken from. Where footprints are known, rows that see other ground are places of their own: many catalogs name a
whole city ``location_id``. Where none is known, rows of one moment are such tiles, and all of their name and window are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tilth.catalog import origin
from tilth.catalog.geometry import footprint_bounds
from tilth.errors import CatalogError

MOST_SEASONS = 127
"""More rows than this are not seasons, but tiles of other ground under one name."""


@dataclass(frozen=True)
class Places:
    """The places of a catalog, in the order in which they first occur.

    Attributes:
        rows: int64 (N,), all rows of the catalog, place by place, in the catalog's order within each.
        starts: int64 (P + 1,), where the rows of each place begin; the last is N.
    """

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number P of places."""
        return len(self.starts) - 1

    def seasons(self, place: int) -> list[int]:
        """Return the rows of a place, one a season."""
        return [int(row) for row in self.rows[self.starts[place] : self.starts[place + 1]]]


def find_places(table: pa.Table) -> Places:
    """Group the rows of a catalog by location, window, ground and time; a row without location is a place of its own.

    Args:
        table: of a catalog.

    Returns:
        The places. Where every row is one, they are the rows in their order.

    Raises:
        CatalogError: more rows than :data:`MOST_SEASONS` are of one place.
        MissingExtraError: rows that may be of one place have footprints, and shapely is not installed.
    """
    count = len(table)
    named = table["location_id"].combine_chunks().dictionary_encode()
    codes = np.asarray(pc.fill_null(named.indices.cast(pa.int64()), -1))
    keys = np.column_stack([np.where(codes < 0, -1 - np.arange(count), codes), origin.source_windows(table)])
    _, alike = np.unique(keys, axis=0, return_inverse=True)
    groups = _by_time(_by_ground(alike.reshape(-1), table["geometry"]), table)
    _, first, place = np.unique(groups, return_index=True, return_inverse=True)
    # Numbered by their first row, so that without seasons nothing changes its place.
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    numbers = rank[place.reshape(-1)]
    sizes = np.bincount(numbers, minlength=len(first))
    if sizes.max(initial=0) > MOST_SEASONS:
        name = table["location_id"][int(np.sort(first)[sizes.argmax()])].as_py()
        raise CatalogError(
            f"{sizes.max()} rows have location_id {name!r} and the same window, which is how seasons of one place look (at most "
            f"{MOST_SEASONS}); give tiles of other ground another location_id, or none"
        )
    return Places(np.argsort(numbers, kind="stable"), np.concatenate([[0], np.cumsum(sizes)]))


def _by_ground(groups: NDArray[np.int64], geometry: pa.ChunkedArray) -> NDArray[np.int64]:
    """Divide groups (N,) of rows where neighbouring footprints lie more than half their size apart; rows without one stay together."""
    rows = np.flatnonzero(np.bincount(groups)[groups] > 1)
    if not len(rows) or geometry.null_count == len(geometry):
        return groups
    bounds = np.nan_to_num(footprint_bounds(geometry.take(pa.array(rows))))
    own = groups[rows]
    for low, high in ((bounds[:, 0], bounds[:, 2]), (bounds[:, 1], bounds[:, 3])):
        order = np.lexsort((low + high, own))
        beyond = np.diff((low + high)[order]) > (high - low)[order][:-1]
        own[order] = np.concatenate([[0], np.cumsum(beyond | (np.diff(own[order]) != 0))])
    divided = groups.copy()
    divided[rows] = -1 - own
    return divided


def _by_time(groups: NDArray[np.int64], table: pa.Table) -> NDArray[np.int64]:
    """Take groups (N,) without footprints apart where a time comes twice: nothing sees one place twice at one moment."""
    times = table["datetime"].combine_chunks()
    asked = np.flatnonzero(np.asarray(pc.and_(pc.is_valid(times), pc.is_null(table["geometry"].combine_chunks()))))
    pairs, counts = np.unique(
        np.column_stack([groups[asked], np.asarray(times.take(pa.array(asked)).cast(pa.int64()))]), axis=0, return_counts=True
    )
    apart = np.isin(groups, pairs[counts > 1, 0])
    return np.where(apart, groups.max(initial=0) + 1 + np.arange(len(groups)), groups)
