"""Tiles that show the pixels of others, or nearly: which of them stays, and whether their labels agree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tilth.catalog import schema
from tilth.catalog.check_table import split_codes
from tilth.catalog.check_tile import Outcome
from tilth.catalog.duplicates import SIDE, Portraits, judged_pairs
from tilth.catalog.findings import Finding, make_finding
from tilth.catalog.table import Catalog, Tile
from tilth.errors import DataError, MissingFileError
from tilth.imagery.read import read_label


class Copies:
    """Takes in what tiles look like, one after the other in the order of the catalog, and says which show the same.

    Of two tiles the one with the better label stays (clean, noisy, pseudo, none; one that cannot be read is none), then that of the
    smaller split, then the first.
    """

    def __init__(self, catalog: Catalog, *, near: bool) -> None:
        size = len(catalog)
        self._catalog = catalog
        self._digests = np.zeros((size, 2), dtype=np.uint64)
        self._portraits = np.zeros((size if near else 0, SIDE, SIDE), dtype=np.int8)
        self._drawn = np.zeros(size, dtype=bool)
        self._labelled = np.zeros(size, dtype=bool)

    def take(self, index: int, outcome: Outcome) -> None:
        """Take in one tile at its position in the catalog."""
        if outcome.digest is not None:
            # All zeros stands for none; one hash in 2^128 is that.
            self._digests[index] = np.frombuffer(outcome.digest, dtype=np.uint64)
        if outcome.portrait is not None:
            self._portraits[index], self._drawn[index] = outcome.portrait, True
        self._labelled[index] = outcome.classes is not None

    def findings(self) -> Iterator[Finding]:
        """Name each tile that shows what a better one shows, in order of the catalog; labels of copies are read again."""
        splits, names = split_codes(self._catalog)
        standing = self._standing(splits)
        exact = _exact_losers(self._digests, standing)
        near = self._near_losers(splits, standing, exact)
        ids, images = self._catalog.table["tile_id"], self._catalog.table["image"]
        for loser in sorted({*exact, *near}):
            keeper, says = (exact[loser], "the same pixels as") if loser in exact else near[loser]
            kind = "duplicate" if loser in exact else "near duplicate"
            apart = splits[loser] >= 0 and splits[keeper] >= 0 and splits[loser] != splits[keeper]
            expected = f"a picture that no other tile has{', least of all in another split' if apart else ''}"
            where = f" (here {names[splits[loser]]!r}, there {names[splits[keeper]]!r})" if apart else ""
            found = f"{says} {ids[keeper].as_py()} ({images[keeper].as_py()}){where}"
            kind = f"{kind} in two splits" if apart else kind
            yield make_finding(kind, ids[loser].as_py(), images[loser].as_py(), expected, found)
            if loser in exact and self._labelled[loser] and self._labelled[keeper]:
                yield from _label_difference(self._catalog.tile(loser), self._catalog.tile(keeper))

    def _standing(self, splits: NDArray[np.int64]) -> NDArray[np.int64]:
        """Place of each tile in the order in which tiles stay, int64 (N,)."""
        kinds = pc.index_in(self._catalog.table["label_kind"], value_set=pa.array(schema.LABEL_KINDS)).to_numpy().astype(np.int64)
        kinds = np.where(self._labelled, kinds, len(schema.LABEL_KINDS))
        standing = np.empty(len(splits), dtype=np.int64)
        # The smallest split has the highest code.
        standing[np.lexsort((-splits, kinds))] = np.arange(len(splits))
        return standing

    def _near_losers(self, splits: NDArray[np.int64], standing: NDArray[np.int64], exact: dict[int, int]) -> dict[int, tuple[int, str]]:
        """Tiles that nearly show the picture of another, with that one; exact duplicates are not named again.

        One partner is looked for each tile, in another split if there is one there.
        """
        tiles = np.flatnonzero(self._drawn)
        tiles = tiles[~np.isin(tiles, sorted(exact))]
        if tiles.size < 2:
            return {}
        days: Any = self._catalog.table["datetime"]
        moments, known = days.cast(pa.int64()).fill_null(0).to_numpy(), days.is_valid().to_numpy()
        keepers = np.full(len(splits), -1, dtype=np.int64)
        likeness = np.zeros(len(splits))
        # 1 for a partner within the split, 2 for one in another.
        reached = np.zeros(len(splits), dtype=np.int8)

        def order(pairs: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int8]]:
            swapped = standing[pairs[:, 0]] < standing[pairs[:, 1]]
            losers, stayers = np.where(swapped, pairs[:, 1], pairs[:, 0]), np.where(swapped, pairs[:, 0], pairs[:, 1])
            apart = (splits[losers] >= 0) & (splits[stayers] >= 0) & (splits[losers] != splits[stayers])
            return losers, stayers, np.where(apart, 2, 1).astype(np.int8)

        def wanted(pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
            losers, stayers, level = order(pairs)
            # One place on two days is as it should be, within a split.
            series = (level == 1) & known[losers] & known[stayers] & (moments[losers] != moments[stayers])
            result: NDArray[np.bool_] = (reached[losers] < level) & ~series
            return result

        for pairs, values in judged_pairs(Portraits(tiles, self._portraits, rows=tiles), wanted):
            losers, stayers, level = order(pairs)
            # Of several, the last one assigned stays.
            best = np.lexsort((values, level))
            best = best[level[best] >= reached[losers[best]]]
            keepers[losers[best]], likeness[losers[best]], reached[losers[best]] = stayers[best], values[best], level[best]
        return {loser: (int(keepers[loser]), f"correlation {likeness[loser]:.3f} with") for loser in np.flatnonzero(keepers >= 0).tolist()}


def _exact_losers(digests: NDArray[np.uint64], standing: NDArray[np.int64]) -> dict[int, int]:
    """Tiles whose pixels another tile has, with the one among those alike that stays."""
    rows = np.flatnonzero(digests.any(axis=1))
    # Alike tiles beside each other, and first among them the one that stays.
    order = rows[np.lexsort((standing[rows], digests[rows, 1], digests[rows, 0]))]
    same = np.append(False, (digests[order[1:]] == digests[order[:-1]]).all(axis=1)) if order.size else np.zeros(0, dtype=bool)
    begins = np.maximum.accumulate(np.where(same, 0, np.arange(order.size))) if order.size else order
    return {int(order[place]): int(order[begins[place]]) for place in np.flatnonzero(same).tolist()}


def _label_difference(tile: Tile, other: Tile) -> Iterator[Finding]:
    """Compare the labels of two tiles with the same pixels."""
    if tile.scheme != other.scheme or tile.label is None or other.label is None:
        return
    try:
        one, two = read_label(tile.label, tile.window), read_label(other.label, other.window)
    except (DataError, MissingFileError):
        return
    if one.shape == two.shape and (one != two).any():
        expected = f"the label of {other.tile_id}, which has the same pixels ({other.label})"
        yield make_finding("copies labelled differently", tile.tile_id, tile.label, expected, f"{(one != two).mean():.1%} of it different")
