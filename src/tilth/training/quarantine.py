"""Tiles that turned out unreadable while training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from tilth.errors import RunError
from tilth.training.streams import Order, RawBatch


class Quarantine:
    """Notes unreadable tiles, tells each once, and stops the run when there are too many.

    Attributes:
        by_source: reasons by tile, by the source of the stream they were met in: streams of one source share their tiles.
    """

    def __init__(self, order: Order, max_share: float, warn: Callable[[str], None]) -> None:
        self.order = order
        self.max_share = max_share
        self.warn = warn
        self.by_source: dict[str, dict[str, str]] = {}

    @property
    def tiles(self) -> dict[str, str]:
        """Reasons by tile."""
        return {tile_id: reason for found in self.by_source.values() for tile_id, reason in found.items()}

    def note(self, batches: Mapping[str, RawBatch]) -> None:
        """Note the unreadable tiles of one micro-batch.

        Raises:
            RunError: of one source there are more than the share of its tiles, rounded up.
        """
        for stream, batch in batches.items():
            known = self.by_source.setdefault(self.order.streams[stream].source, {})
            for tile_id, reason in batch.bad:
                if tile_id not in known:
                    known[tile_id] = reason
                    self.warn(f"tile {tile_id} left out: {reason}")
            if batch.bad and len(known) > math.ceil(self.max_share * self.order.sizes[stream]):
                raise RunError(
                    f"{len(known)} tiles cannot be read, more than loop.max_bad_share allows; the last: {batch.bad[-1][1]}; "
                    "run tilth catalog check"
                )
