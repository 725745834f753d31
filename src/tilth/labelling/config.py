"""Options of labelling. Free of torch, so that the command line may read them at start."""

from __future__ import annotations

import re
from typing import NamedTuple

from tilth.errors import UsageError


class Part(NamedTuple):
    """Which share of the work a process does: part ``number`` of ``parts``, 1 <= number <= parts."""

    number: int = 1
    parts: int = 1

    @classmethod
    def parse(cls, text: str) -> Part:
        """Read ``2/8``.

        Raises:
            UsageError: it is something else.

        Example:
            >>> Part.parse("2/8")
            Part(number=2, parts=8)
        """
        found = re.fullmatch(r"\s*(\d{1,6})\s*/\s*(\d{1,6})\s*", text)
        part = cls(int(found[1]), int(found[2])) if found else cls(0, 0)
        if not 1 <= part.number <= part.parts:
            raise UsageError("expected NUMBER/COUNT, such as 2/8 for the second of eight parts")
        return part

    def holds(self, shard: int) -> bool:
        """Say whether a shard, counted from 0, belongs to this part."""
        return shard % self.parts == self.number - 1


def is_part(text: str) -> str:
    """Check the text of an option and write it in the usual way, for validators.

    Raises:
        UsageError: it is no :class:`Part`.
    """
    part = Part.parse(text)
    return f"{part.number}/{part.parts}"
