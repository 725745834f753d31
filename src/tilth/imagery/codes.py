"""What stored values or colours of a label mean; light to import, for options. See :mod:`tilth.imagery.label_codes`."""

from __future__ import annotations

import itertools
from typing import Literal, Self

import pydantic

from tilth.classes import IGNORE_INDEX
from tilth.config import Config


class LabelCodes(Config):
    """What stored values or colours of a label raster mean; exactly one of ``values`` and ``colours`` is given.

    Attributes:
        values: class id (or 255 for "no label") by stored value.
        colours: class id (or 255) by colour, ``#RRGGBB`` or ``RRGGBB`` in quotes; kept as ``RRGGBB``.
        unlisted: what becomes of other values: ``refuse`` the file, or ``ignore`` the pixels (255).
        tolerance: how far each of red, green and blue may lie from a listed colour, 0 to 255: some published masks were saved slightly off.

    Example:
        >>> LabelCodes(colours={"#3c1098": 3}).colours
        {'3C1098': 3}
    """

    values: dict[int, int] = pydantic.Field(default_factory=dict)
    colours: dict[str, int] = pydantic.Field(default_factory=dict)
    unlisted: Literal["refuse", "ignore"] = "refuse"
    tolerance: int = pydantic.Field(default=0, ge=0, le=255)

    @pydantic.field_validator("colours")
    @classmethod
    def _one_spelling(cls, colours: dict[str, int]) -> dict[str, int]:
        spelled: dict[str, int] = {}
        for name, target in colours.items():
            digits = name.removeprefix("#").upper()
            if len(digits) != 6 or set(digits) - set("0123456789ABCDEF"):
                raise ValueError(f"colour {name!r}: expected six hexadecimal digits in quotes, such as '#3C1098'")
            if digits in spelled:
                raise ValueError(f"colour {name!r} is listed twice")
            spelled[digits] = target
        return spelled

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if bool(self.values) == bool(self.colours):
            raise ValueError("give either values or colours, with at least one entry")
        wrong = sorted(target for target in self.targets if not 0 <= target <= IGNORE_INDEX)
        if wrong:
            raise ValueError(f"class ids are 0 to 254, and 255 for no label; got {', '.join(map(str, wrong))}")
        if self.tolerance and self.values:
            raise ValueError("tolerance is for colours")
        for (one, first), (other, second) in itertools.combinations(self.colours.items(), 2):
            apart = max(abs(left - right) for left, right in zip(bytes.fromhex(one), bytes.fromhex(other), strict=True))
            if first != second and apart <= 2 * self.tolerance:
                raise ValueError(
                    f"tolerance {self.tolerance}: #{one} and #{other} differ by {apart} only, so colours in between are unclear"
                )
        return self

    @property
    def targets(self) -> frozenset[int]:
        """The class ids that pixels can get, 255 included where something is ignored on purpose."""
        return frozenset((self.values or self.colours).values())
