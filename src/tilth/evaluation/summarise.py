"""From counts to what is written down: the evaluation of ``metrics.json`` and the table of tiles."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from tilth.classes import ClassScheme
from tilth.evaluation.bootstrap import bootstrap_intervals
from tilth.evaluation.counts import ScoreTable, known, score_table
from tilth.evaluation.measure import Measured, group
from tilth.evaluation.metrics import scores
from tilth.evaluation.result import Evaluation, ImageScore

if TYPE_CHECKING:
    from tilth.catalog.table import Catalog

TILES_FILE = "tiles.csv"
"""Name of the table of tiles, beside ``metrics.json``."""


def summarise(
    model: str, labelled: Catalog, scheme: ClassScheme, measured: Measured, draws: int, boundary_share: float = 0.0
) -> Evaluation:
    """Put together what was measured.

    Args:
        model: what to call the model.
        labelled: the tiles that were measured.
        scheme: their classes.
        measured: with the counts of each tile.
        draws: resamples behind the intervals; 0 for none.
        boundary_share: that boundaries were measured with; 0 for none.

    Returns:
        The evaluation, without gallery.
    """
    matrix = measured.total.matrix
    result = scores(matrix, scheme.names, scheme.colours)
    counts = measured.stacked()
    whole = score_table(counts.sum(axis=0, dtype=np.int64)[None])
    places, unit = _places(labelled, measured)
    intervals = bootstrap_intervals(counts, places, draws, unit=unit)
    more = [
        {"boundary_iou": known(value), "interval": interval}
        for value, interval in zip(whole.boundary_iou[0], intervals.per_class, strict=True)
    ]
    return Evaluation(
        model=model,
        catalog_fingerprint=labelled.fingerprint(),
        split=tuple(sorted(split for split in labelled.counts("split") if split is not None)),
        scheme=scheme.name,
        classes=scheme.names,
        colours=scheme.colours,
        confusion=tuple(tuple(row) for row in matrix.tolist()),
        scores=result.summary.model_copy(update={"mean_boundary_iou": known(whole.summary["bIoU"][0])}),
        per_class=tuple(item.model_copy(update=update) for item, update in zip(result.per_class, more, strict=True)),
        tiles=tuple(measured.tiles),
        pixels=result.pixels,
        ignored_pixels=measured.total.ignored_pixels,
        seconds=measured.seconds,
        intervals=intervals.summary,
        resampling=intervals.resampling,
        calibration=None if measured.calibration is None else measured.calibration.result(),
        boundary_share=boundary_share or None,
        images=_image_scores(measured),
    )


def tiles_csv(measured: Measured, scheme: ClassScheme) -> str:
    """Lay out the scores of all tiles as a table for spreadsheets, to be joined with the catalog by ``tile_id``.

    Returns:
        CSV with a head: tile_id, image, pixels, mIoU, OA, bIoU and ``iou/<class>``; scores are fractions, empty where undefined.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["tile_id", "image", "pixels", "mIoU", "OA", "bIoU", *(f"iou/{name}" for name in scheme.names)])
    table = score_table(measured.stacked())
    names = short_names(measured.images)
    for place, tile in enumerate(measured.tiles):
        values = (tile.mean_iou, tile.overall_accuracy, known(table.summary["bIoU"][place]), *map(known, table.iou[place]))
        writer.writerow([tile.tile_id, names[place], tile.pixels, *("" if value is None else f"{value:.6g}" for value in values)])
    return text.getvalue()


def short_names(images: Sequence[str]) -> list[str]:
    """Shorten paths to what tells them apart: the part below the folder that all share, with forward slashes.

    Example:
        >>> short_names(["/data/a/1.tif", "/data/b/1.tif"]), short_names(["/data/a/1.tif"]), short_names([])
        (['a/1.tif', 'b/1.tif'], ['1.tif'], [])
    """
    if not images:
        return []
    paths = [image.replace(os.sep, "/").split("/") for image in images]
    folders = [path[:-1] for path in paths]
    shared = 0
    for level in zip(*folders, strict=False):
        if len(set(level)) > 1:
            break
        shared += 1
    return ["/".join(path[shared:]) for path in paths]


def _places(labelled: Catalog, measured: Measured) -> tuple[list[tuple[str, str]], Literal["image", "location"]]:
    """Say what place each tile shows: its location where the catalog names one, else its image; and what such places are called."""
    locations = dict(zip(labelled.column("tile_id"), labelled.column("location_id"), strict=True))
    named = [locations[tile.tile_id] for tile in measured.tiles]
    places = [("location", name) if name is not None else ("image", image) for name, image in zip(named, measured.images, strict=True)]
    return places, "image" if all(name is None for name in named) else "location"


def _image_scores(measured: Measured) -> tuple[ImageScore, ...]:
    """Score the tiles of each image together; nothing where every image is one tile, for that is said already."""
    places = group(measured.images)
    if len(places) == len(measured.images):
        return ()
    counts = measured.stacked()
    table: ScoreTable = score_table(np.stack([counts[tiles].sum(axis=0, dtype=np.int64) for tiles in places.values()]))
    return tuple(
        ImageScore(
            image=name,
            tiles=len(tiles),
            mean_iou=known(table.summary["mIoU"][index]),
            overall_accuracy=known(table.summary["OA"][index]),
            pixels=int(table.pixels[index]),
        )
        for index, (name, tiles) in enumerate(zip(short_names(list(places)), places.values(), strict=True))
    )
