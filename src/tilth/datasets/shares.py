"""The histogram of a set's labels beside the published one: the only way to see that classes are numbered in another order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tilth.catalog.table import Catalog
from tilth.classes import IGNORE_INDEX, ClassScheme, get_scheme
from tilth.datasets.store_config import Stores
from tilth.imagery.read import read_label

_FAR_PERCENT = 10.0
"""Share of all pixels that may have another class than published before it is told; copies of a set lack a few tiles at most."""


def check_shares(stores: Stores, catalog: Catalog, own: ClassScheme, scheme: ClassScheme, warn: Callable[[str], None]) -> None:
    """Compare the classes of each split with the published shares; does nothing where the card has none.

    Args:
        stores: published shares, in the order of ``own``, and the name of a scheme of another order.
        catalog: the tiles; their labels are read.
        own: the scheme of the card.
        scheme: that the labels were given.
        warn: told where the shares are far off, and which order fits better.
    """
    for split, published in stores.shares.items():
        uris = [tile.label for tile in catalog.filter(split=split).tiles() if tile.label] if split in catalog.counts("split") else []
        counts = np.zeros(IGNORE_INDEX + 1, np.int64)
        for uri in uris:
            counts += np.bincount(read_label(uri).reshape(-1), minlength=IGNORE_INDEX + 1)
        others = [own, *([get_scheme(stores.other_order)] if stores.other_order is not None else [])]
        line = compare_shares(counts[: len(own)], dict(zip(own.names, published, strict=True)), scheme, others)
        if line is not None:
            warn(f"split {split!r}: {line}")


def compare_shares(
    counts: NDArray[np.int64], published: Mapping[str, float], scheme: ClassScheme, others: Sequence[ClassScheme]
) -> str | None:
    """Say whether the classes of labels have the shares that were published.

    Args:
        counts: int64 (K,), pixels by class id.
        published: share of each class in percent, by name.
        scheme: what the ids are taken for; with other names than ``published`` there is nothing to compare.
        others: the same classes in other orders.

    Returns:
        One line where more than a tenth of all pixels would have to change their class, else None.
    """
    if not counts.sum() or set(scheme.names) != set(published):
        return None
    apart = {known.name: _apart(counts, [published[name] for name in known.names]) for known in (scheme, *others)}
    best = min(apart, key=lambda name: apart[name])
    if apart[scheme.name] <= _FAR_PERCENT:
        return None
    line = f"classes have other shares than published, {apart[scheme.name]:.0f} % of pixels apart"
    if apart[best] < apart[scheme.name] / 2:
        return f"{line}; in the order of scheme {best!r} {apart[best]:.0f} %: prepare it anew with --scheme {best}"
    return f"{line}; look at some labels before you trust the names of the classes"


def _apart(counts: NDArray[np.int64], published: Sequence[float]) -> float:
    """Half the sum of differences, in percent: the share of pixels that would have to change their class."""
    expected = np.asarray(published)
    return float(50 * np.abs(counts / counts.sum() - expected / expected.sum()).sum())
