"""What a card says of who belongs to which split, and of how large scenes are cut. Light to import."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import pydantic

from tilth.config import Config
from tilth.datasets.patterns import placeholders
from tilth.errors import suggest


def _words(value: Any) -> Any:
    """Let one text stand for the words in it: YAML reads a bare 2_10 as the number 210, so lists of stems are written as one text."""
    return tuple(value.split()) if isinstance(value, str) else value


Edge = Literal["shift", "spread", "drop", "centre"]
"""What becomes of windows that reach over the border of an image; see :func:`tilth.catalog.geometry.cut_windows`."""

Words = Annotated[tuple[str, ...], pydantic.BeforeValidator(_words)]


class Splits(Config):
    """Which place belongs to which split; at most one of ``folders``, ``files`` and ``stems``, and without any no split is set.

    Attributes:
        folders: split name by the value that ``{split}`` takes in the patterns.
        files: listing file with ``{split}`` in its path, one stem or file name a line, as ``splits/{split}.txt``.
        listings: split name by the value that ``{split}`` takes in ``files``; each must list something, and other listing files are not
            read. Without it each file is a split of its own name.
        stems: stems by split name; a text is taken apart at spaces.
        by: placeholder whose value is listed.
        rest: split of places that are not listed; None leaves them without one.
        optional: what need not be there: ``true`` for all folders, or for the listing files, without which there are no splits; or names
            of splits whose folder may be missing, as people fetch what they need.
        complete: whether all listed images must be there; false for sets of which parts are published elsewhere.
        unlabelled: splits published without masks; what lies there in place of masks is not read.
        counts: number of places of each split as published.
        protocol: where this division comes from.
    """

    folders: dict[str, str] = pydantic.Field(default_factory=dict)
    files: str | None = None
    listings: dict[str, str] = pydantic.Field(default_factory=dict)
    stems: dict[str, Words] = pydantic.Field(default_factory=dict)
    by: str = "stem"
    rest: str | None = None
    optional: bool | tuple[str, ...] = False
    complete: bool = True
    unlabelled: tuple[str, ...] = ()
    counts: dict[str, int] = pydantic.Field(default_factory=dict)
    protocol: str | None = None

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if sum(map(bool, (self.folders, self.files, self.stems))) > 1:
            raise ValueError("give one of folders, files and stems")
        if self.files is not None and placeholders(self.files) != {"split"}:
            raise ValueError(f"files needs {{split}} and no other placeholder, such as 'splits/{{split}}.txt'; got {self.files!r}")
        if self.listings and self.files is None:
            raise ValueError("listings needs files")
        if isinstance(self.optional, tuple):
            for name in self.optional:
                if name not in self.folders.values():
                    raise ValueError(f"optional: {name!r} is no split of folders; {suggest(name, self.folders.values())}")
        listed = [stem for stems in self.stems.values() for stem in stems]
        twice = sorted({stem for stem in listed if listed.count(stem) > 1})
        if twice:
            raise ValueError(f"stem {twice[0]!r} is listed twice; a place belongs to one split")
        return self

    def may_lack(self, split: str) -> bool:
        """Say whether the folder of a split need not be there."""
        return self.optional is True or (isinstance(self.optional, tuple) and split in self.optional)


class Windows(Config):
    """How large scenes are cut where the user asks for nothing else.

    Attributes:
        within_px: side of larger windows that scenes are cut into first, and each of them into ``window_px``, in pixels: crops of crops
            are cut in the same places.
        window_px: side of the windows, in pixels; None takes each raster whole.
        stride_px: step between windows, in pixels; by default ``window_px``.
        edge: what becomes of the last windows of a row and column, at every step: ``shift`` moves them back inside, so that they overlap
            others, ``drop`` leaves them out; ``spread`` and ``centre`` do so evenly on both sides. An image that is smaller than a
            window stays whole.
    """

    within_px: int | None = pydantic.Field(default=None, ge=1)
    window_px: int | None = pydantic.Field(default=None, ge=1)
    stride_px: int | None = pydantic.Field(default=None, ge=1)
    edge: Edge = "shift"

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if self.stride_px is not None and self.window_px is None:
            raise ValueError("stride_px needs window_px")
        if self.within_px is not None and (self.window_px is None or self.window_px > self.within_px):
            raise ValueError(f"within_px ({self.within_px}) needs a window_px that is not larger")
        if self.stride_px is not None and self.window_px is not None and self.stride_px > self.window_px:
            raise ValueError(f"stride_px ({self.stride_px}) must not exceed window_px ({self.window_px}): pixels in between would be lost")
        return self
