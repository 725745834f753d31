"""What a report can be made of; every part is optional, one must be there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tilth.evaluation.area_result import AreaAssessment
from tilth.evaluation.compare import Comparison

PathLike = str | Path
Rgb = tuple[int, int, int]
Folders = Mapping[str, PathLike] | Sequence[PathLike]
"""Folders with the names to show for them, or only folders, which are then named after themselves."""

VIEWER_PIXELS = 2048
"""Longest side of the pictures of a map: at 2048 x 2048 pixels an image or confidence takes about 1 MB of the page, classes 0.2 MB."""


@dataclass(frozen=True)
class MapInput:
    """One map to show, and what to lay beside it.

    Layers need not lie on the map's grid: they are warped onto it while they are read (classes by the nearest pixel, imagery bilinearly).
    One that says nothing of its place must have the map's shape. One that does not overlap the map is refused.

    Attributes:
        path: GeoTIFF of class ids, uint8, with colour table and, as tag ``CLASS_NAMES``, the names of the classes.
        scene: picture of the same ground to lay beside it: a GeoTIFF, PNG or JPEG.
        name: what to call it; by default the file name.
        label: reference of the same ground: class ids as the map's, 255 or its own nodata value where nothing is known.
        confidence: highest class probability in percent, uint8, 255 = no data; by default ``<stem of path>_confidence.tif`` if it exists.
        others: further maps of the same ground and classes, by the name to show, such as those of other models.
    """

    path: PathLike
    scene: PathLike | None = None
    name: str | None = None
    label: PathLike | None = None
    confidence: PathLike | None = None
    others: Mapping[str, PathLike] = field(default_factory=dict)


@dataclass(frozen=True)
class ReportInput:
    """Everything that goes into one report.

    Attributes:
        title: heading of the page.
        runs: run folders, as training leaves them behind.
        evaluations: folders with ``metrics.json`` and ``gallery/``, the most important first.
        comparisons: ``comparison.json`` files, their folders, or comparisons; the first one gives the headline.
        maps: class maps, with or without what belongs to them.
        assessments: ``assessment.json`` files, their folders, or assessments of maps by reference points.
        features: ``features.json`` files of looks at features, or their folders.
        catalog: a catalog, which is read whole for it (labels and checksum too), or its summary as a ``.json`` file or mapping, with the
            keys that :func:`tilth.catalog.summary.summarise` makes (all optional), ``sensor`` and ``scheme`` in full, ``class_shares``
            ({class: fraction}), ``fingerprint``; other keys are listed as they are.
        commands: shell lines that reproduce the work, in order.
        note: one line under the title, such as who made it and when; without it the page holds no date, so equal inputs give equal bytes.
        gallery_tiles: how many tiles to show of each evaluation.
        galleries: for how many evaluations to embed pictures; the tables of the others are shown without.
        viewer_pixels: longest side of the pictures of a map; larger maps are thinned, and the page says so.
        selection_tiles: tiles to show of each of two trainings by CromSS, as their models see them; 0 for none.
    """

    title: str = "tilth report"
    runs: Folders = ()
    evaluations: Folders = ()
    comparisons: Sequence[PathLike | Comparison] = ()
    maps: Sequence[MapInput | PathLike] = ()
    assessments: Sequence[PathLike | AreaAssessment] = ()
    features: Sequence[PathLike] = ()
    catalog: PathLike | Mapping[str, Any] | None = None
    commands: Sequence[str] = ()
    note: str | None = None
    gallery_tiles: int = 6
    galleries: int = 2
    viewer_pixels: int = VIEWER_PIXELS
    selection_tiles: int = 3

    @property
    def empty(self) -> bool:
        """Whether there is nothing to report."""
        parts = (self.runs, self.evaluations, self.comparisons, self.maps, self.assessments, self.features, self.catalog, self.commands)
        return not any(parts)
