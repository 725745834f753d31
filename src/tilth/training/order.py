"""Order: which tile sits in which slot of which step of a stream; a pure function of (seed, stream, step, slot)."""

from __future__ import annotations

import dataclasses
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
class Phase:
    """From a step on, a stream shows only some of its tiles.

    Attributes:
        first: its first step.
        rows: of the catalog, one after the other.
    """

    first: int
    rows: range


@dataclass(frozen=True)
class Order:
    """The order in which a stream walks its catalog: a fresh permutation each epoch, and in each phase.

    Attributes:
        seed: seed of the run.
        streams: all streams of the method.
        sizes: number of tiles of each stream; of one that asks for seasons, number of places.
        batch_size: tiles of one step, over all ranks.
        phases: of streams that do not show all their tiles all the time, by first step, which is 0 for the first.
    """

    seed: int
    streams: Mapping[str, Stream]
    sizes: Mapping[str, int]
    batch_size: int
    phases: Mapping[str, tuple[Phase, ...]] = dataclasses.field(default_factory=dict)

    def rows(self, stream: str, step: int) -> range:
        """Rows of the catalog, or places, that a stream shows about now."""
        return self._phase(stream, step)[1].rows

    def index(self, stream: str, step: int, slot: int) -> int:
        """Row of the catalog, or place, in slot ``slot`` of step ``step``."""
        number, phase = self._phase(stream, step)
        size = len(phase.rows)
        epoch, place = divmod((step - phase.first) * self.batch_size + slot, size)
        # The first phase is called as a stream without phases is, so that what a target is learnt after can be compared.
        name = f"{stream}, phase {number}" if number else stream
        index = phase.rows[int(_permutation(self.seed, name, epoch, size)[place])]
        other = self.streams[stream].differs_from
        if other is not None and index == self.index(other, step, slot):
            return phase.rows[(phase.rows.index(index) + 1) % size]
        return index

    def season(self, stream: str, step: int, slot: int, count: int) -> int:
        """Which of the ``count`` seasons of a place the slot shows, uniformly."""
        return int(seeds.generator(self.seed, "season", stream, step, slot).integers(count)) if count > 1 else 0

    def tied(self, stream: str, step: int, slot: int) -> set[int]:
        """Rows, or places, that other streams show in this slot and this stream must not."""
        others = {name for name, other in self.streams.items() if other.differs_from == stream} | {self.streams[stream].differs_from}
        return {self.index(name, step, slot) for name in others if name is not None}

    def _phase(self, stream: str, step: int) -> tuple[int, Phase]:
        """The phase that a stream is in, and its number."""
        phases = self.phases.get(stream) or (Phase(0, range(self.sizes[stream])),)
        return [(number, phase) for number, phase in enumerate(phases) if phase.first <= step][-1]
