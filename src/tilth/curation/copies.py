"""Tiles of a pool that show what another shows: the first one stays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilth.catalog.duplicates import SIDE, Portraits, judged_pairs
from tilth.curation.store import Scores

Integers = NDArray[np.int64]

_NO_PICTURES = np.zeros((0, SIDE, SIDE), dtype=np.int8)


def exact_copies(digests: NDArray[np.uint64], rows: Integers) -> Integers:
    """Find tiles with the pixels of an earlier one.

    Args:
        digests: uint64 (N, 2), hashes of pixels.
        rows: positions to look at, best first.

    Returns:
        int64 (N,), position of the tile that stays, -1 for tiles that are no copies.
    """
    found = np.full(len(digests), -1, dtype=np.int64)
    if not rows.size:
        return found
    # Alike tiles beside each other, and first among them the one that stays.
    order = rows[np.lexsort((np.arange(len(rows)), digests[rows, 1], digests[rows, 0]))]
    same = np.append(False, (digests[order[1:]] == digests[order[:-1]]).all(axis=1))
    begins = np.maximum.accumulate(np.where(same, 0, np.arange(order.size)))
    found[order[same]] = order[begins[same]]
    return found


def near_copies(scores: list[Scores], rows: Integers) -> Integers:
    """Find tiles that nearly show the picture of an earlier one; see :mod:`tilth.catalog.duplicates`.

    Args:
        scores: of N tiles in all, one table after the other.
        rows: positions to look at, best first; those without a portrait are passed over.

    Returns:
        int64 (N,), position of a tile before it in the order of ``rows`` that it looks like, -1 for tiles that are no copies. That one may
        be a copy itself, of one that stays.
    """
    total = sum(map(len, scores))
    found = np.full(total, -1, dtype=np.int64)
    drawn = np.concatenate([one.drawn for one in scores])
    looked = rows[drawn[rows]]
    if looked.size < 2:
        return found
    standing = np.full(total, total, dtype=np.int64)
    standing[rows] = np.arange(len(rows))

    def losers(pairs: Integers) -> tuple[Integers, Integers]:
        swapped = standing[pairs[:, 0]] < standing[pairs[:, 1]]
        return np.where(swapped, pairs[:, 1], pairs[:, 0]), np.where(swapped, pairs[:, 0], pairs[:, 1])

    def wanted(pairs: Integers) -> NDArray[np.bool_]:
        return np.asarray(found[losers(pairs)[0]] < 0)

    for pairs, likeness in judged_pairs(_StoredPortraits(np.sort(looked), _NO_PICTURES, scores=tuple(scores)), wanted):
        lost, kept = losers(pairs)
        # Of several, the last one assigned stays.
        best = np.argsort(likeness, kind="stable")
        found[lost[best]] = kept[best]
    return found


@dataclass(frozen=True, eq=False)
class _StoredPortraits(Portraits):
    """Portraits that stay on disk until they are compared; ``scores`` hold them, one table of tiles after the other."""

    scores: tuple[Scores, ...] = ()

    def draw(self, numbers: Integers) -> NDArray[np.int8]:
        """Copy portraits by number."""
        starts = np.cumsum([0, *map(len, self.scores)])
        positions = self.tiles[numbers]
        owners = np.searchsorted(starts, positions, side="right") - 1
        found = np.empty((len(positions), SIDE, SIDE), dtype=np.int8)
        for owner in np.unique(owners).tolist():
            mine = np.flatnonzero(owners == owner)
            found[mine] = self.scores[owner].portraits(positions[mine] - starts[owner])
        return found
