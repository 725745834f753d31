"""Numbers of a look at features as tables: probes as CSV, points of t-SNE as Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tilth.classes import IGNORE_INDEX
from tilth.evaluation.feature_result import MapScores
from tilth.imagery.write import atomic_path, write_text
from tilth.insight.encoders import Level

PROBES_FILE = "probes.csv"
POINTS_FILE = "tsne.parquet"


@dataclass(frozen=True)
class Points:
    """Pixels of one panel of t-SNE.

    Attributes:
        encoder: its name.
        level: of the map.
        time: of noise.
        places: float32 (n, 2), where t-SNE laid them.
    """

    encoder: str
    level: Level
    time: int | None
    places: NDArray[np.float32]


@dataclass(frozen=True)
class PointsFrom:
    """The pixels themselves, the same in all panels.

    Attributes:
        tiles: (n,), ids.
        rows: (n,), in the raster that the tile is from.
        columns: (n,).
        classes: uint8 (n,), 255 without label.
    """

    tiles: list[str]
    rows: list[int]
    columns: list[int]
    classes: NDArray[np.uint8]


def write_probes(maps: Sequence[MapScores], classes: Sequence[str], path: Path) -> Path:
    """Write a row for each map and probe; cells without a number are empty."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["encoder", "side", "stride", "time", "width", "probe", "accuracy", "mIoU", *(f"IoU {name}" for name in classes)])
    for item in maps:
        place = [item.encoder, item.side, item.stride, item.time, item.width]
        rows.writerow([*place, "linear", item.linear_accuracy, item.linear_mean_iou, *item.linear_class_iou])
        rows.writerow([*place, "k-NN", item.neighbour_accuracy, item.neighbour_mean_iou, *item.neighbour_class_iou])
    return write_text(path, text.getvalue())


def write_points(panels: Sequence[Points], origin: PointsFrom, classes: Sequence[str], path: Path) -> Path:
    """Write a row for each pixel and panel, with the place that t-SNE gave it and where it is from."""
    ids = origin.classes.tolist()
    names = [None if value == IGNORE_INDEX else classes[value] for value in ids]
    tables = [
        pa.table(
            {
                "encoder": pa.array([panel.encoder] * len(ids), pa.string()),
                "side": pa.array([panel.level.side] * len(ids), pa.string()),
                "stride": pa.array([panel.level.stride] * len(ids), pa.int32()),
                "time": pa.array([panel.time] * len(ids), pa.int32()),
                "x": pa.array(panel.places[:, 0], pa.float32()),
                "y": pa.array(panel.places[:, 1], pa.float32()),
                "class_id": pa.array(origin.classes, pa.uint8()),
                "class": pa.array(names, pa.string()),
                "tile_id": pa.array(origin.tiles, pa.string()),
                "row": pa.array(origin.rows, pa.int64()),
                "column": pa.array(origin.columns, pa.int64()),
            }
        )
        for panel in panels
    ]
    with atomic_path(path) as beside:
        pq.write_table(pa.concat_tables(tables), beside, compression="zstd")
    return path
