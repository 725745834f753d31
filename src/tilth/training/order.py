"""Order: which tile sits in which slot of which step of a stream; a pure function of (seed, stream, step, slot)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilth import seeds
from tilth.methods.base import Stream

Key = tuple[str, int, int]
"""(stream, step, slot)"""


@functools.lru_cache(maxsize=8)
def _permutation(seed: int, stream: str, epoch: int, size: int) -> NDArray[np.int64]:
    return seeds.generator(seed, "order", stream, epoch).permutation(size)


@dataclass(frozen=True)
class Order:
    """The order in which a stream walks its catalog: a fresh permutation each epoch.

    Attributes:
        seed: seed of the run.
        streams: all streams of the method.
        sizes: number of tiles of each stream; of one that asks for seasons, number of places.
        batch_size: tiles of one step, over all ranks.
    """

    seed: int
    streams: Mapping[str, Stream]
    sizes: Mapping[str, int]
    batch_size: int

    def index(self, stream: str, step: int, slot: int) -> int:
        """Row of the catalog, or place, in slot ``slot`` of step ``step``."""
        size = self.sizes[stream]
        epoch, place = divmod(step * self.batch_size + slot, size)
        index = int(_permutation(self.seed, stream, epoch, size)[place])
        other = self.streams[stream].differs_from
        if other is not None and index == self.index(other, step, slot):
            return (index + 1) % size
        return index

    def season(self, stream: str, step: int, slot: int, count: int) -> int:
        """Which of the ``count`` seasons of a place the slot shows, uniformly."""
        return int(seeds.generator(self.seed, "season", stream, step, slot).integers(count)) if count > 1 else 0

    def tied(self, stream: str, step: int, slot: int) -> set[int]:
        """Rows, or places, that other streams show in this slot and this stream must not."""
        others = {name for name, other in self.streams.items() if other.differs_from == stream} | {self.streams[stream].differs_from}
        return {self.index(name, step, slot) for name in others if name is not None}
