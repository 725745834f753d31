"""Tiles that turned out unreadable while training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from tilth.training.order import Order
from tilth.training.streams import AnyRaw


class Quarantine:
    """Notes unreadable tiles, tells each once, and says when there are too many.

    Attributes:
        problem: why the run must stop, or None; the loop asks all processes, so that they stop together.
        by_source: reasons by tile, by the source of the stream they were met in: streams of one source share their tiles.
    """

    def __init__(self, order: Order, max_share: float, warn: Callable[[str], None]) -> None:
        self.order = order
        self.max_share = max_share
        self.warn = warn
        self.by_source: dict[str, dict[str, str]] = {}
        self.problem: str | None = None

    @property
    def tiles(self) -> dict[str, str]:
        """Reasons by tile."""
        return {tile_id: reason for found in self.by_source.values() for tile_id, reason in found.items()}

    def note(self, batches: Mapping[str, AnyRaw]) -> None:
        """Note the unreadable tiles of one micro-batch; a source may have its share of them, rounded up."""
        for stream, batch in batches.items():
            known = self.by_source.setdefault(self.order.streams[stream].source, {})
            for tile_id, reason in batch.bad:
                if tile_id not in known:
                    known[tile_id] = reason
                    self.warn(f"tile {tile_id} left out: {reason}")
            if batch.bad and len(known) > math.ceil(self.max_share * self.order.sizes[stream]):
                self.problem = (
                    f"{len(known)} tiles cannot be read, more than loop.max_bad_share allows; the last: {batch.bad[-1][1]}; "
                    "run tilth catalog check"
                )
