"""Who is taken: order of entropy, quotas of clusters, and the walk through both (s5_pretrain.md sections 2.3 and 2.4).

Pure functions of arrays: the same numbers give the same selection, whatever computed them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


def entropy_order(entropies: NDArray[np.floating]) -> Integers:
    """Put tiles in order, surest first; equal entropies keep the order of the input.

    Args:
        entropies: (N,), finite.

    Returns:
        int64 (N,), positions.
    """
    return np.argsort(entropies, kind="stable").astype(np.int64)


def share_out(total: int, counts: Integers) -> Integers:
    """Divide places in proportion to counts: whole shares first, then one more for the largest remainders, ties to the lower index.

    Args:
        total: number of places, at least 0.
        counts: (M,), at least 0, not all 0.

    Returns:
        int64 (M,), sum ``total``.

    Example:
        >>> share_out(24, np.array([50, 30, 15, 5])).tolist()
        [12, 7, 4, 1]
    """
    # Python's integers do not overflow, and remainders that are equal are so exactly.
    whole = int(counts.sum())
    products = [total * int(count) for count in counts]
    shares = [product // whole for product in products]
    order = sorted(range(len(shares)), key=lambda index: (-(products[index] % whole), index))
    for index in order[: total - sum(shares)]:
        shares[index] += 1
    return np.array(shares, dtype=np.int64)


@dataclass(frozen=True)
class Selection:
    """Which tiles were taken.

    Attributes:
        taken: int64 (n,), positions in the order in which they were accepted: those within quotas, then those that fill up.
        within: how many of them were within a quota.
        used: int64 (M,), tiles taken within the quota of each cluster.
    """

    taken: Integers
    within: int
    used: Integers


def walk(order: Integers, clusters: Integers, quotas: Integers, *, fill_shortfall: bool = True) -> Selection:
    """Go through tiles in order; accept one if the quota of its cluster is not full.

    Args:
        order: (N,) positions, best first.
        clusters: (P,) cluster of every position, 0 to M - 1.
        quotas: (M,) places of each cluster.
        fill_shortfall: afterwards accept skipped tiles, in order, until there are as many as the quotas sum to.

    Returns:
        The selection; fewer than the quotas sum to where tiles or, without filling, clusters run out.
    """
    own = clusters[order]
    # Beside each other the tiles of a cluster, in order: the place among them says who is within the quota.
    grouped = np.argsort(own, kind="stable")
    sizes = np.bincount(own, minlength=len(quotas))
    begins = np.cumsum(sizes) - sizes
    rank = np.empty(len(order), dtype=np.int64)
    rank[grouped] = np.arange(len(order)) - begins[own[grouped]]
    accepted = rank < quotas[own]
    within = order[accepted]
    taken = within
    if fill_shortfall:
        missing = int(quotas.sum()) - len(within)
        taken = np.concatenate([within, order[~accepted][:missing]])
    return Selection(taken, len(within), np.minimum(sizes, quotas))
