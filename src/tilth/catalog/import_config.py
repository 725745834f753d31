"""Options of making a catalog of a table that exists already."""

from __future__ import annotations

from typing import Literal, Self

import pydantic

from tilth.config import Config
from tilth.errors import suggest

WINDOW_COLUMNS = ("col", "row", "width", "height")
"""Columns that together say the window of a tile, in pixels; ``window`` may hold all four as a list."""

NAMED_COLUMNS = (
    "tile_id",
    "image",
    "window",
    *WINDOW_COLUMNS,
    "crs",
    "geometry",
    "datetime",
    "location_id",
    "label",
    "label_kind",
    "reference",
    "split",
    "source",
    "licence",
)


class ImportConfig(Config):
    """How a table of images becomes a catalog.

    Attributes:
        sensor: built-in name, sum of names, or YAML file, of all images; a column of that name is left out.
        columns: name of the table's column for a column of the catalog (``tile_id``, ``image``, ``window`` or ``col``, ``row``, ``width``
            and ``height``, ``crs``, ``geometry``, ``datetime``, ``location_id``, ``label``, ``label_kind``, ``reference``, ``split``,
            ``source``, ``licence``), where it has another name there. All other columns are kept as they are.
        root: folder that relative paths of the table start from; by default the table's own.
        window_px: side of all tiles in pixels, where the table has no windows: each image is one tile from its upper left corner.
        headers: read the header of every image, for its size, CRS and place, and to find those that cannot be read or are not of the
            sensor; by default only where the table has no windows and ``window_px`` is not given.
        scheme: class scheme of the labels: a built-in name such as ``dw``, or a file.
        labels: take the labels that the table names; without it all tiles are unlabelled, as pools are.
        label_kind: how far labels can be trusted, where the table does not say so.
        split: split of tiles for which the table names none.
        source: free text where the table names none: where the imagery comes from.
        licence: licence of the imagery, where the table names none.
        prefix: first part of tile ids, where the table has none; by default the name of the table. The rest is the path of the image and,
            where there are windows, their row and column.
    """

    sensor: str = pydantic.Field(min_length=1)
    columns: dict[str, str] = pydantic.Field(default_factory=dict)
    root: str | None = None
    window_px: int | None = pydantic.Field(default=None, ge=1)
    headers: bool | None = None
    scheme: str | None = None
    labels: bool = True
    label_kind: Literal["clean", "noisy", "pseudo"] = "clean"
    split: str | None = None
    source: str | None = None
    licence: str | None = None
    prefix: str | None = pydantic.Field(default=None, min_length=1)

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        for name in self.columns:
            if name not in NAMED_COLUMNS:
                raise ValueError(f"columns.{name}: the catalog has no such column to fill; {suggest(name, NAMED_COLUMNS)}")
        twice = [column for column in self.columns.values() if list(self.columns.values()).count(column) > 1]
        if twice:
            names = ", ".join(name for name, column in self.columns.items() if column == twice[0])
            raise ValueError(f"columns: {twice[0]!r} is named for {names}; a column fills one column of the catalog")
        if "window" in self.columns and set(self.columns) & set(WINDOW_COLUMNS):
            raise ValueError("columns: give window, or col, row, width and height")
        return self
