"""What a card says of who belongs to which split, and of how large scenes are cut. Light to import."""

from __future__ import annotations

from typing import Annotated, Any, Self

import pydantic

from tilth.config import Config
from tilth.datasets.patterns import placeholders


def _words(value: Any) -> Any:
    """Let one text stand for the words in it: YAML reads a bare 2_10 as the number 210, so lists of stems are written as one text."""
    return tuple(value.split()) if isinstance(value, str) else value


Words = Annotated[tuple[str, ...], pydantic.BeforeValidator(_words)]


class Splits(Config):
    """Which place belongs to which split; at most one of ``folders``, ``files`` and ``stems``, and without any no split is set.

    Attributes:
        folders: split name by the value that ``{split}`` takes in the patterns.
        files: listing file with ``{split}`` in its path, one stem a line, as ``splits/{split}.txt``.
        stems: stems by split name; a text is taken apart at spaces.
        by: placeholder whose value is listed.
        rest: split of places that are not listed; None leaves them without one.
        optional: without any listing file there are no splits, instead of an error.
        unlabelled: splits published without masks.
        counts: number of places of each split as published.
        protocol: where this division comes from.
    """

    folders: dict[str, str] = pydantic.Field(default_factory=dict)
    files: str | None = None
    stems: dict[str, Words] = pydantic.Field(default_factory=dict)
    by: str = "stem"
    rest: str | None = None
    optional: bool = False
    unlabelled: tuple[str, ...] = ()
    counts: dict[str, int] = pydantic.Field(default_factory=dict)
    protocol: str | None = None

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if sum(map(bool, (self.folders, self.files, self.stems))) > 1:
            raise ValueError("give one of folders, files and stems")
        if self.files is not None and placeholders(self.files) != {"split"}:
            raise ValueError(f"files needs {{split}} and no other placeholder, such as 'splits/{{split}}.txt'; got {self.files!r}")
        listed = [stem for stems in self.stems.values() for stem in stems]
        twice = sorted({stem for stem in listed if listed.count(stem) > 1})
        if twice:
            raise ValueError(f"stem {twice[0]!r} is listed twice; a place belongs to one split")
        return self


class Windows(Config):
    """How large scenes are cut where the user asks for nothing else.

    Attributes:
        window_px: side of the windows, in pixels; None takes each raster whole.
        stride_px: step between windows, in pixels; by default ``window_px``.
    """

    window_px: int | None = pydantic.Field(default=None, ge=1)
    stride_px: int | None = pydantic.Field(default=None, ge=1)

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if self.stride_px is not None and self.window_px is None:
            raise ValueError("stride_px needs window_px")
        if self.stride_px is not None and self.window_px is not None and self.stride_px > self.window_px:
            raise ValueError(f"stride_px ({self.stride_px}) must not exceed window_px ({self.window_px}): pixels in between would be lost")
        return self
