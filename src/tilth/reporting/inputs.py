"""What a report can be made of; every part is optional, one must be there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilth.evaluation.compare import Comparison

PathLike = str | Path
Rgb = tuple[int, int, int]
Folders = Mapping[str, PathLike] | Sequence[PathLike]
"""Folders with the names to show for them, or only folders, which are then named after themselves."""


@dataclass(frozen=True)
class MapInput:
    """One map to show.

    Attributes:
        path: GeoTIFF of class ids, uint8, with colour table and, as tag ``CLASS_NAMES``, the names of the classes.
        scene: picture of the same ground to lay beside it: a GeoTIFF of the same extent, or a PNG or JPEG.
        name: what to call it; by default the file name.
    """

    path: PathLike
    scene: PathLike | None = None
    name: str | None = None


@dataclass(frozen=True)
class ReportInput:
    """Everything that goes into one report.

    Attributes:
        title: heading of the page.
        runs: run folders, as training leaves them behind.
        evaluations: folders with ``metrics.json`` and ``gallery/``, the most important first.
        comparisons: ``comparison.json`` files, their folders, or comparisons; the first one gives the headline.
        maps: class maps, with or without their scene.
        catalog: a catalog, which is read whole for it (labels and checksum too), or its summary as a ``.json`` file or mapping, with the
            keys that :func:`tilth.catalog.summary.summarise` makes (all optional), ``sensor`` and ``scheme`` in full, ``class_shares``
            ({class: fraction}), ``fingerprint``; other keys are listed as they are.
        commands: shell lines that reproduce the work, in order.
        note: one line under the title, such as who made it and when; without it the page holds no date, so equal inputs give equal bytes.
        gallery_tiles: how many tiles to show of each evaluation.
        galleries: for how many evaluations to embed pictures; the tables of the others are shown without.
    """

    title: str = "tilth report"
    runs: Folders = ()
    evaluations: Folders = ()
    comparisons: Sequence[PathLike | Comparison] = ()
    maps: Sequence[MapInput | PathLike] = ()
    catalog: PathLike | Mapping[str, Any] | None = None
    commands: Sequence[str] = ()
    note: str | None = None
    gallery_tiles: int = 6
    galleries: int = 2

    @property
    def empty(self) -> bool:
        """Whether there is nothing to report."""
        return not (self.runs or self.evaluations or self.comparisons or self.maps or self.catalog or self.commands)
