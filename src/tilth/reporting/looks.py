"""The section on features: how well classes can be told from each map, and pictures of the maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilth.evaluation.feature_result import FeatureFigure, FeatureRecord, MapScores
from tilth.reporting import numbers
from tilth.reporting.inputs import PathLike
from tilth.reporting.pictures import embed_file

FIGURE_PIXELS = 1400
"""Longest side of an embedded figure; the files themselves are larger."""

SHEETS = 2
"""Tiles of each encoder and kind whose sheets are embedded."""

_COLUMNS = ("linear_accuracy", "linear_mean_iou", "neighbour_accuracy", "neighbour_mean_iou", "cluster_agreement")
_ORDER = ("probes", "tsne", "clusters", "colours")
_SAID = {
    "clusters": "Pixels of one map in groups of alike ones (k-means). With labels, a group has the colour of the class that most of its "
    "labelled pixels have; several groups of one class have shades of it.",
    "colours": "The three strongest principal components of a map as red, green and blue, on one scale for all tiles that are drawn: alike "
    "colours are alike features, in one map.",
    "tsne": "Pixels of all classes, laid out so that those with alike features lie close; distances between groups mean nothing.",
    "probes": "Mean IoU of simple classifiers of single pixels; the dashed line is what the bands alone give.",
}


@dataclass(frozen=True)
class NamedLook:
    """A look at features, and the folder that its figures lie in."""

    folder: Path
    record: FeatureRecord


def read_looks(folders: Sequence[PathLike]) -> list[NamedLook]:
    """Read looks at features.

    Raises:
        MissingFileError: a folder is without ``features.json``.
        DataError: the file does not validate or was written by a newer version.
    """
    found = []
    for item in folders:
        path = Path(item)
        found.append(NamedLook(path.parent if path.is_file() else path, FeatureRecord.read(path)))
    return found


def feature_section(looks: Sequence[NamedLook]) -> dict[str, Any] | None:
    """Prepare tables and figures; None without a look.

    Raises:
        MissingFileError: a figure is not there.
    """
    return {"looks": [_look(item) for item in looks]} if looks else None


def _look(named: NamedLook) -> dict[str, Any]:
    record = named.record
    best = {name: max((getattr(item, name) or 0.0 for item in record.maps), default=0.0) for name in _COLUMNS}
    rows = [
        {
            "encoder": item.encoder,
            "place": "bands" if item.side == "bands" else f"{item.side} H/{item.stride}",
            "time": numbers.ABSENT if item.time is None else str(item.time),
            "width": item.width,
            "cells": [(value, bool(value) and value == best[name]) for name in _COLUMNS for value in (getattr(item, name),)],
            "unfinished": item.linear_converged is False,
        }
        for item in record.maps
    ]
    figures = sorted(_shown(record.figures), key=lambda figure: _ORDER.index(figure.kind))
    return {
        "record": record,
        "text": _text(record),
        "rows": rows,
        "unfinished": any(row["unfinished"] for row in rows),
        "figures": [
            {"title": figure.title, "said": _SAID[figure.kind], "picture": embed_file(named.folder / figure.file, "photo", FIGURE_PIXELS)}
            for figure in figures
        ],
    }


def _shown(figures: Sequence[FeatureFigure]) -> list[FeatureFigure]:
    """Leave out the sheets of further tiles."""
    counts: dict[tuple[str, str | None], int] = {}
    kept = []
    for figure in figures:
        key = figure.kind, figure.encoder
        counts[key] = counts.get(key, 0) + 1
        if counts[key] <= SHEETS:
            kept.append(figure)
    return kept


def _text(record: FeatureRecord) -> str:
    """Say what the numbers rest on, and which map is best."""
    if not record.test_pixels:
        return f"Maps of {record.learn_tiles + record.test_tiles} tiles of {record.catalog}. Nothing was probed, so there are no scores."
    best = max(record.maps, key=lambda item: item.linear_mean_iou or 0.0)
    shared = f" {record.shared_tiles} tiles that show the same ground were not learnt from." if record.shared_tiles else ""
    return (
        f"Classes of single pixels, learnt from {numbers.whole(record.learn_pixels)} pixels of {record.learn_tiles} tiles and tested on "
        f"{numbers.whole(record.test_pixels)} pixels of {record.test_tiles} other tiles of {record.catalog}.{shared} "
        f"The linear probe does best on {_name(best)}: mIoU {numbers.percent(best.linear_mean_iou)}."
    )


def _name(item: MapScores) -> str:
    if item.side == "bands":
        return "the bands themselves"
    time = "" if item.time is None else f" at t = {item.time}"
    return f"{item.encoder}, {item.side} H/{item.stride}{time}"
