"""Which records of LMDB stores there are, and which of them go into which shard: settled before a pixel is read."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from tilth.datasets.config import Card
from tilth.datasets.lmdb_store import Store, data_file, find_stores, opened
from tilth.datasets.store_config import StoredArray, Stores
from tilth.errors import DataError

SHARD_BYTES = 2**28
"""Pixels in a shard, about."""

FORMAT = 1
"""Raised when shards of the old kind would be misunderstood."""


_SET = re.compile("s12")
"""Part of a set's name, for Sentinel-1 and 2 together: no store of radar is called so."""


@dataclass(frozen=True)
class Group:
    """Stores that together hold the places of one split.

    Attributes:
        split: name, or None.
        paths: the store of each array, in the order of :attr:`Stores.arrays`.
    """

    split: str | None
    paths: tuple[Path, ...]


@dataclass(frozen=True)
class Part:
    """Places that lie in one shard.

    Attributes:
        group: their stores.
        indices: of their records.
        stamp: hash of what the shard is made from.
    """

    group: Group
    indices: tuple[int, ...]
    stamp: str


def find_groups(card: Card, stores: Stores, folder: Path, without: Path) -> list[Group]:
    """Find the stores of a set.

    Args:
        card: of the set, for messages.
        stores: what to look for.
        folder: where to look.
        without: folder that is left out.

    Raises:
        DataError: no store, one that is missing, or two for one split.
    """
    here = [path for path in find_stores(folder) if without not in (path, *path.parents)]
    if not here:
        wanted = ", ".join(sorted({array.store or stores.names for array in stores.arrays}))
        raise DataError(f"{folder}: no LMDB store of data set {card.name!r} found, expected {wanted}; see tilth datasets info {card.name}")
    if stores.images[0].store is not None:
        paths = tuple(_one(array, here, folder) for array in stores.arrays)
        return [Group(_split(stores, paths[0]), paths)]
    named = [path for path in here if fnmatch(path.name.lower(), stores.names)] or here
    groups: dict[str | None, Group] = {}
    for path in named:
        split = _split(stores, path)
        group = groups.setdefault(split, Group(split, (path,) * len(stores.arrays)))
        if group.paths[0] != path:
            raise DataError(f"{path}: is split {split!r} by its name, and so is {group.paths[0]}; give the folder of one data set")
    return list(groups.values())


def plan_parts(stores: Stores, group: Group, identity: str, *, partial: bool, shard_bytes: int, warn: Callable[[str], None]) -> list[Part]:
    """Find the places that have every record, and divide them into shards.

    Args:
        stores: kinds of records.
        group: of stores.
        identity: what all shards depend on, such as the card.
        partial: leave out places that lack a record, with a warning.
        shard_bytes: pixels in a shard, about.
        warn: told of what is left out.

    Raises:
        DataError: no places, or a record that is missing.
    """
    with ExitStack() as stack:
        open_stores = {path: stack.enter_context(opened(path)) for path in dict.fromkeys(group.paths)}
        found = [_indices(open_stores[path], array, stores) for path, array in zip(group.paths, stores.arrays, strict=True)]
        every = set.union(*found)
        whole = sorted(set.intersection(*found))
        for path, array, indices in zip(group.paths, stores.arrays, found, strict=True):
            lacking = every - indices
            if lacking:
                name = array.key.replace("{index}", str(min(lacking)))
                line = f"{path}: {len(lacking):,} of {len(every):,} records {array.key!r} are missing, first {name!r}"
                if not partial:
                    raise DataError(f"{line}; fetch the store again, or use --partial to go on with what is there")
                warn(f"{line}; left out")
        if not whole:
            raise DataError(f"{group.paths[0]}: no place has all of {', '.join(repr(array.key) for array in stores.arrays)}")
        first = sum(
            len(open_stores[path].record(array.key, whole[0]).data) for path, array in zip(group.paths, stores.images, strict=False)
        )
    count = max(1, shard_bytes // max(1, first))
    states = [[path.name, *_state(path)] for path in group.paths]
    return [
        Part(group, part, hashlib.sha256(json.dumps([FORMAT, identity, group.split, states, part]).encode()).hexdigest())
        for part in (tuple(whole[start : start + count]) for start in range(0, len(whole), count))
    ]


def _one(array: StoredArray, here: Sequence[Path], folder: Path) -> Path:
    assert array.store is not None
    found = [path for path in here if fnmatch(_SET.sub("", path.name.lower()), array.store)]
    if len(found) != 1:
        raise DataError(f"{folder}: {len(found)} LMDB stores are called {array.store}, expected one; there are {_listed(here)}")
    return found[0]


def _listed(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths[:5]) + (", ..." if len(paths) > 5 else "")


def _split(stores: Stores, path: Path) -> str | None:
    return next((split for text, split in stores.splits.items() if text in path.name.lower()), stores.rest)


def _indices(store: Store, array: StoredArray, stores: Stores) -> set[int]:
    keys = list(dict.fromkeys(known.key for known in stores.arrays))
    found = store.indices(keys)
    if not found[array.key]:
        others = [key for key, indices in found.items() if indices]
        there = f"records {', '.join(others)} alone" if others else "none of this data set"
        raise DataError(f"{store.path}: no record {array.key!r}; there are {there}; is it the right store?")
    return found[array.key]


def _state(path: Path) -> tuple[int, int]:
    status = data_file(path).stat()
    return status.st_size, status.st_mtime_ns
