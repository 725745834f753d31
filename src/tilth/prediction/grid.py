"""Where the windows and the strips of a scene lie.

Columns are cut into panels, so memory depends on neither height nor width. Windows lie on one grid for the whole scene, also where only
a part of it is wanted; those that reach over the edge of a panel are computed for both panels. So a pixel has the same windows, in
the same order, whatever the panels are, and wherever the work begins.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from tilth.imagery.raster import Window
from tilth.models.windows import window_starts

PANEL_BYTES = 448 * 2**20
"""What the columns of a panel may take, unless it were less than :data:`LEAST_WINDOWS` wide."""

ROWS_OF_PIXELS = 3
"""Rows of windows whose pixels are held: those in work, those read ahead, and what reading them takes."""

ROWS_OF_RESULTS = 4
"""Strips held: the one that is made, those that wait to be written, and the one that is."""

LEAST_WINDOWS = 8
"""Windows at the edge of a panel are computed twice; a panel as wide as this many keeps that rare."""


@dataclass(frozen=True)
class Panel:
    """Columns that are summed together.

    Attributes:
        left: first column.
        right: column after the last.
        columns: first columns of the windows that reach into it.
    """

    left: int
    right: int
    columns: tuple[int, ...]


@dataclass(frozen=True)
class Place:
    """A strip of a panel: the rows that are finished once a row of windows is summed.

    Attributes:
        panel: where its columns lie.
        row: first row of the windows that finish it.
        window: the strip itself.
    """

    panel: Panel
    row: int
    window: Window


@dataclass(frozen=True)
class Grid:
    """The windows of a scene.

    Attributes:
        width: columns of the scene.
        height: rows of the scene.
        window: side of a window in pixels.
        overlap: pixels that neighbours share at least.
        panel: most columns of a panel; None for one panel.
        wanted: the part of the scene to be predicted; None for all of it.
    """

    width: int
    height: int
    window: int
    overlap: int
    panel: int | None = None
    wanted: Window | None = None

    @property
    def area(self) -> Window:
        """The part of the scene to be predicted."""
        return self.wanted or Window(0, 0, self.width, self.height)

    @property
    def rows(self) -> list[int]:
        """First rows of the windows."""
        return window_starts(self.height, self.window, self.window - self.overlap)

    @property
    def columns(self) -> list[int]:
        """First columns of the windows."""
        return window_starts(self.width, self.window, self.window - self.overlap)

    def panels(self) -> list[Panel]:
        """The panels, from left to right, all about as wide."""
        columns = self.columns
        return [
            Panel(left, right, tuple(column for column in columns if column < right and column + self.window > left))
            for left, right in pairwise(self._edges())
        ]

    def places(self) -> list[Place]:
        """The strips in the order in which they are finished: panel by panel from the left, each from the top."""
        return [place for panel in self.panels() for place in self._strips(panel)]

    def count(self) -> int:
        """Number of windows that the strips are finished by."""
        return sum(len(place.panel.columns) for place in self.places())

    def _edges(self) -> list[int]:
        """First columns of the panels, and the column after the last.

        An edge where a window begins has the fewest windows on both sides.
        """
        edges, end = [self.area.column], self.area.column + self.area.width
        most = self.panel or self.area.width
        columns = self.columns
        while edges[-1] < end:
            left = edges[-1]
            count = math.ceil((end - left) / most)
            right = left + math.ceil((end - left) / count)
            begins = max((column for column in columns if left < column <= right), default=right)
            edges.append(begins if count > 1 and end - begins <= (count - 1) * most else right)
        return edges

    def _strips(self, panel: Panel) -> Iterator[Place]:
        rows = self.rows
        top, bottom = self.area.row, self.area.row + self.area.height
        for row, following in zip(rows, [*rows[1:], self.height], strict=True):
            first, last = max(row, top), min(following, bottom)
            if first < last:
                yield Place(panel, row, Window(panel.left, first, panel.right - panel.left, last - first))


def panel_width(window: int, classes: int, *, pixel_bytes: int = 4, layers: int = 1) -> int:
    """Choose how many columns to sum at once.

    Args:
        window: side of the windows in pixels.
        classes: number of classes; their sums are float32.
        pixel_bytes: of a pixel of the scene in all bands, and whether it is valid.
        layers: bytes a pixel of what is written.
    """
    column = window * (4 * classes + ROWS_OF_PIXELS * pixel_bytes + ROWS_OF_RESULTS * layers)
    return max(PANEL_BYTES // column, LEAST_WINDOWS * window)
