"""Every tile predicted and counted once; what is kept of a tile does not grow with its pixels."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from tilth.classes import ClassScheme
from tilth.errors import DataError
from tilth.evaluation.boundary import boundary_counts
from tilth.evaluation.calibration import CalibrationHistogram
from tilth.evaluation.counts import COUNTS, class_counts
from tilth.evaluation.metrics import ConfusionMatrix, scores
from tilth.evaluation.result import TileScore
from tilth.evaluation.samples import Inference, OnBad, Prediction, Sample, read_samples

if TYPE_CHECKING:
    from tilth.catalog.table import Catalog

Progress = Callable[[int, int], None]
"""Called after each tile with the number of tiles done and the number of all tiles."""


@dataclass(frozen=True)
class Detail:
    """What is measured beside the confusion matrix; by default nothing, as a validation during training needs.

    Attributes:
        boundary_share: distance of the boundary IoU as a share of the image diagonal; 0 for none.
        calibration_bins: bins of the histogram of confidence; 0 for none.
        per_tile: keep the counts of each tile.
        keep_bytes: predictions are kept for pictures as long as they fit in here.
    """

    boundary_share: float = 0.0
    calibration_bins: int = 0
    per_tile: bool = False
    keep_bytes: int = 0


@dataclass(frozen=True)
class Measured:
    """Counts of all tiles together, and what was kept of each.

    Attributes:
        total: counts of all tiles.
        tiles: score of each tile.
        images: what each tile was cut from; empty unless per-tile counts were asked for.
        counts: uint32 (5, K) of each tile, see :mod:`tilth.evaluation.counts`; empty unless asked for.
        calibration: histogram of confidence, or None.
        loss: cross-entropy of the labels, summed over counted pixels.
        seconds: wall time of reading, predicting and counting.
        kept: predictions by position as far as they were kept, with confidence as uint8 from 0 to 255.
    """

    total: ConfusionMatrix
    tiles: list[TileScore] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    counts: list[NDArray[np.uint32]] = field(default_factory=list)
    calibration: CalibrationHistogram | None = None
    loss: float = 0.0
    seconds: float = 0.0
    kept: dict[int, Prediction] = field(default_factory=dict)

    def stacked(self) -> NDArray[np.uint32]:
        """Return the counts of all tiles: uint32 (T, 5, K)."""
        return np.stack(self.counts) if self.counts else np.zeros((0, COUNTS, self.total.num_classes), dtype=np.uint32)


def measure(
    inference: Inference, labelled: Catalog, detail: Detail, progress: Progress | None = None, on_bad: OnBad | None = None
) -> Measured:
    """Predict and count every tile.

    Args:
        inference: model and how to run it.
        labelled: tiles with labels.
        detail: what to measure.
        progress: told after each tile.
        on_bad: told of unusable tiles, which are then left out; without it they raise.

    Raises:
        DataError: a label that does not fit its image or its scheme, or output that is not finite; the message names the tile.
    """
    scheme = inference.segmenter.scheme
    started = time.perf_counter()
    histogram = CalibrationHistogram(detail.calibration_bins) if detail.calibration_bins else None
    measured, kept_bytes, losses = Measured(ConfusionMatrix(len(scheme)), calibration=histogram), 0, []
    for place, sample in enumerate(read_samples(labelled, inference.segmenter.sensor, on_bad)):
        prediction = inference.predict(sample)
        counts = ConfusionMatrix(len(scheme))
        try:
            counts.update(torch.from_numpy(prediction.classes), torch.from_numpy(sample.mask))
        except DataError as error:
            reason = f"tile {sample.tile.tile_id!r}, {sample.tile.label}: {error}"
            if on_bad is None:
                raise DataError(reason) from None
            on_bad(sample.tile.tile_id, reason)
            continue
        measured.total.merge(counts)
        losses.append(prediction.loss)
        measured.tiles.append(_tile_score(sample.tile.tile_id, counts, scheme))
        _measure_more(measured, sample, prediction, counts, detail)
        # A byte for the class and one for the confidence of each pixel.
        if kept_bytes + 2 * prediction.classes.nbytes <= detail.keep_bytes:
            measured.kept[place] = coarse(prediction)
            kept_bytes += 2 * prediction.classes.nbytes
        if progress is not None:
            progress(place + 1, len(labelled))
    return replace(measured, loss=math.fsum(losses), seconds=time.perf_counter() - started)


def coarse(prediction: Prediction) -> Prediction:
    """Reduce the confidence to what a picture shows of it: uint8, 0 to 255."""
    return replace(prediction, confidence=np.rint(np.clip(prediction.confidence, 0, 1) * 255).astype(np.uint8))


def group(images: Sequence[str]) -> dict[str, list[int]]:
    """List the positions of the tiles of each image, images in order of first appearance."""
    found: dict[str, list[int]] = {}
    for place, image in enumerate(images):
        found.setdefault(image, []).append(place)
    return found


def _measure_more(measured: Measured, sample: Sample, prediction: Prediction, counts: ConfusionMatrix, detail: Detail) -> None:
    """Add what is measured beside the confusion matrix."""
    classes = counts.num_classes
    if detail.per_tile:
        share = detail.boundary_share
        boundary = boundary_counts(prediction.classes, sample.mask, classes, share) if share else None
        measured.counts.append(class_counts(counts.matrix.numpy(), boundary))
        measured.images.append(sample.tile.source)
    if measured.calibration is not None:
        counted = sample.mask < classes
        measured.calibration.update(prediction.confidence[counted], prediction.classes[counted] == sample.mask[counted])


def _tile_score(tile_id: str, counts: ConfusionMatrix, scheme: ClassScheme) -> TileScore:
    result = scores(counts.matrix, scheme.names, scheme.colours)
    return TileScore(
        tile_id=tile_id, mean_iou=result.summary.mean_iou, overall_accuracy=result.summary.overall_accuracy, pixels=result.pixels
    )
