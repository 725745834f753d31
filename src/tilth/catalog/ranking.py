"""In which order to label tiles, so that every beginning of the order is a fair sample."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tilth.catalog.rows import name_splits
from tilth.catalog.shares import class_pixels
from tilth.catalog.table import Catalog
from tilth.errors import CatalogError
from tilth.seeds import generator

RANK_COLUMN = "label_rank"
"""0 for the training tile whose label is bought first, then 1, 2, ...; null for tiles that are not candidates."""

SUBSET_COLUMN = "subset"
"""Name of the smallest subset of labels that a training tile belongs to; null for tiles that are in none."""

# Candidates looked at for one rank: bounds the work for large catalogs.
_POOL = 256


def label_ranks(
    catalog: Catalog, seed: int = 0, *, split: str | None = "train", progress: Callable[[int, int], None] | None = None
) -> pa.Array:
    """Rank labelled tiles so that the first k, for any k, show every class if they can and otherwise look like all of them.

    Greedy. As long as some class is unseen, the next tile is one of those that show most unseen classes. Among these, or among all tiles
    once every class was seen, a random half is drawn, and of it the tile is taken that brings the tiles so far closest to the whole: the
    smallest chi-squared distance between their means and those of all tiles, over the share of each class and whether it occurs. The
    random half makes seeds differ.

    Args:
        catalog: reads the labels of the candidates once.
        seed: another seed gives another ranking.
        split: candidates are the labelled tiles of this split; None takes all labelled tiles.
        progress: told (labels read, labels in all).

    Returns:
        int32 (N,), null where a tile is no candidate. Independent of the order of rows; tiles whose label is ignored throughout come last.

    Raises:
        CatalogError: no candidate, or labels of several schemes.
        DataError: a label cannot be read, or holds a value outside the scheme.
    """
    labelled = np.array([tile.label is not None and tile.label_kind != "none" for tile in catalog.tiles()], dtype=bool)
    if split is not None:
        labelled &= np.array([value == split for value in catalog.column("split")], dtype=bool)
    candidates = np.flatnonzero(labelled)
    if not candidates.size:
        raise CatalogError(f"no labelled tile in split {split!r}; splits there: {name_splits(catalog.table['split'])}")
    names = catalog.column("tile_id")
    candidates = np.array(sorted(candidates.tolist(), key=lambda index: names[index]))
    order = rank_by_classes(class_pixels(catalog.take(candidates), progress), seed)
    ranks = np.zeros(len(catalog), dtype=np.int32)
    ranks[candidates[order]] = np.arange(candidates.size, dtype=np.int32)
    return pa.array(ranks, mask=~labelled)


def rank_by_classes(pixels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Order tiles by class coverage; the rule is in :func:`label_ranks`.

    Args:
        pixels: (n, K) pixels of each class in each tile.
        seed: another seed gives another order.

    Returns:
        int64 (n,) positions, first to be labelled first.
    """
    random = generator(seed, RANK_COLUMN)
    pixels = pixels[:, pixels.any(axis=0)]
    sums = pixels.sum(axis=1)
    left, empty = np.flatnonzero(sums > 0), np.flatnonzero(sums == 0)
    present = pixels > 0
    features = np.concatenate([pixels / np.maximum(sums, 1)[:, None], present], axis=1)
    target = features[left].mean(axis=0)
    seen, unseen = np.zeros_like(target), np.ones(pixels.shape[1], dtype=bool)
    order: list[int] = []
    while left.size > len(order):
        remaining = left[: left.size - len(order)]
        places = np.arange(remaining.size)
        if unseen.any():
            new = present[np.ix_(remaining, unseen)].sum(axis=1)
            places = np.flatnonzero(new == new.max())
        # Drawing with replacement costs the same however many tiles there are; the pool is then about half of a small catalog.
        pool = places[random.integers(places.size, size=min(_POOL, math.ceil(places.size * 0.7)))]
        distance = ((seen + features[remaining[pool]]) / (len(order) + 1) - target) ** 2 / target
        place = int(pool[np.argmin(distance.sum(axis=1))])
        chosen = int(remaining[place])
        order.append(chosen)
        seen += features[chosen]
        unseen &= ~present[chosen]
        # The last tile takes the place of the chosen one, so that the front of ``left`` holds what is left.
        remaining[place] = remaining[-1]
    return np.array([*order, *random.permutation(empty).tolist()], dtype=np.int64)
