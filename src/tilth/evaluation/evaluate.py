"""Measuring a model on the labelled tiles of a catalog."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from tilth.classes import ClassScheme
from tilth.errors import DataError, OutputExistsError
from tilth.evaluation.gallery import choose, quadruple, write_gallery
from tilth.evaluation.metrics import ConfusionMatrix, scores
from tilth.evaluation.result import METRICS_FILE, Evaluation, TileScore
from tilth.evaluation.samples import Inference, OnBad, labelled_tiles, read_sample, read_samples
from tilth.imagery.write import write_text

if TYPE_CHECKING:
    from tilth.catalog.table import Catalog
    from tilth.models.segmenter import Segmenter

Progress = Callable[[int, int], None]
"""Called after each tile with the number of tiles done and the number of all tiles."""

# Predictions kept for the gallery; tiles beyond this are predicted again, so memory does not grow with the catalog.
_KEPT_BYTES = 256 * 1024**2


@dataclass(frozen=True)
class _Measured:
    """Counts of all tiles together, score of each, and predictions uint8 (h, w) by position as far as they were kept."""

    total: ConfusionMatrix
    tiles: list[TileScore]
    kept: dict[int, NDArray[np.uint8]]


def evaluate_catalog(
    segmenter: Segmenter,
    catalog: Catalog,
    *,
    out: str | Path | None = None,
    model: str | None = None,
    window: int = 512,
    overlap: int = 128,
    batch_size: int = 4,
    device: str | torch.device = "cpu",
    precision: str = "32",
    gallery: int = 8,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a model on every labelled tile of a catalog.

    Pixels whose label is 255 and pixels without valid imagery count nowhere. The order of the tiles does not change any score.

    Args:
        segmenter: the model.
        catalog: tiles; those without label are skipped.
        out: folder that receives ``metrics.json`` and ``gallery/``; None writes nothing.
        model: what to call the model in the result, usually its folder; by default encoder and decoder.
        window: side of the prediction windows in pixels; smaller for tiles that are smaller.
        overlap: overlap of neighbouring windows in pixels.
        batch_size: windows a forward pass.
        device: where to predict.
        precision: as in :func:`tilth.models.inference.predict_tile`.
        gallery: number of tiles to picture; 0 for none.
        progress: told after each tile.

    Returns:
        The evaluation; the same as ``Evaluation.read(out)``.

    Raises:
        CatalogError: no labelled tile, several class schemes, or other classes than the model's.
        SensorMismatchError: the tiles come from another sensor than the model's.
        DataError: a label that does not fit its image or its scheme; the message names the tile.
        UsageError: window, overlap, batch size or precision make no sense.
        OutputExistsError: ``out`` is a file.
    """
    if out is not None and Path(out).exists() and not Path(out).is_dir():
        raise OutputExistsError(f"{out}: is a file; give a folder for the evaluation")
    inference = Inference(segmenter, window, overlap, batch_size, device, precision)
    labelled = labelled_tiles(segmenter, catalog)
    started = time.perf_counter()
    measured = _measure(inference, labelled, _KEPT_BYTES if out is not None and gallery > 0 else 0, progress)
    seconds = time.perf_counter() - started
    evaluation = _evaluation(model or describe_model(segmenter), labelled, segmenter.scheme, measured, seconds)
    if out is None:
        return evaluation
    pictures = _pictures(inference, labelled, measured, gallery)
    evaluation = evaluation.model_copy(update={"gallery": write_gallery(Path(out), pictures)})
    write_text(Path(out) / METRICS_FILE, evaluation.to_json())
    return evaluation


def validation_scores(
    segmenter: Segmenter,
    catalog: Catalog,
    *,
    window: int = 512,
    overlap: int = 128,
    batch_size: int = 4,
    device: str | torch.device | None = None,
    precision: str = "32",
    on_bad: OnBad | None = None,
) -> dict[str, float]:
    """Measure a model during training: no files, no pictures, and every module is left in the mode (train or eval) it was in.

    Unlike :func:`evaluate_catalog`, tiles that cannot be read or whose label does not fit are left out: one bad file must not end
    days of training.

    Args:
        segmenter: the model.
        catalog: tiles; those without label are skipped.
        window: side of the prediction windows in pixels; smaller for tiles that are smaller.
        overlap: overlap of neighbouring windows in pixels.
        batch_size: windows a forward pass.
        device: where to predict; by default where the model is.
        precision: as in :func:`tilth.models.inference.predict_tile`.
        on_bad: told id and reason of each tile that is left out.

    Returns:
        ``mIoU``, ``mF1``, ``OA`` and ``iou/<class>`` as fractions. What is undefined (absent classes, nothing counted) is left out.
        ``unreadable_tiles``, the number of tiles left out, only where there are any.

    Raises:
        CatalogError, SensorMismatchError, UsageError: as :func:`evaluate_catalog`.
        DataError: no tile is left, or the model's output is not finite.
    """
    place = device if device is not None else next((parameter.device for parameter in segmenter.parameters()), torch.device("cpu"))
    inference = Inference(segmenter, window, overlap, batch_size, place, precision)
    labelled = labelled_tiles(segmenter, catalog)
    reasons: list[str] = []

    def leave_out(tile_id: str, reason: str) -> None:
        reasons.append(reason)
        if on_bad is not None:
            on_bad(tile_id, reason)

    measured = _measure(inference, labelled, on_bad=leave_out)
    if not measured.tiles:
        raise DataError(f"none of the {len(labelled)} validation tiles can be used; the first: {reasons[0]}; run tilth catalog check")
    result = scores(measured.total.matrix, segmenter.scheme.names, segmenter.scheme.colours)
    named = {name: value for name, value in result.summary.named().items() if name in ("mIoU", "mF1", "OA")}
    named |= {f"iou/{item.name}": item.iou for item in result.per_class}
    known = {name: value for name, value in named.items() if value is not None}
    return known | ({"unreadable_tiles": float(len(reasons))} if reasons else {})


def describe_model(segmenter: Segmenter) -> str:
    """Name a model by its network: ``resnet18 + unet``."""
    return f"{segmenter.config.network.encoder} + {segmenter.config.network.decoder}"


def _measure(
    inference: Inference, labelled: Catalog, keep_bytes: int = 0, progress: Progress | None = None, on_bad: OnBad | None = None
) -> _Measured:
    """Predict and count every tile; keep predictions as long as they fit. Unusable tiles raise, or are told and left out."""
    scheme = inference.segmenter.scheme
    measured, kept_bytes = _Measured(ConfusionMatrix(len(scheme)), [], {}), 0
    for place, sample in enumerate(read_samples(labelled, inference.segmenter.sensor, on_bad)):
        prediction = inference.classes(sample)
        counts = ConfusionMatrix(len(scheme))
        try:
            counts.update(torch.from_numpy(prediction), torch.from_numpy(sample.mask))
        except DataError as error:
            reason = f"tile {sample.tile.tile_id!r}, {sample.tile.label}: {error}"
            if on_bad is None:
                raise DataError(reason) from None
            on_bad(sample.tile.tile_id, reason)
            continue
        measured.total.merge(counts)
        measured.tiles.append(_tile_score(sample.tile.tile_id, counts, scheme))
        if kept_bytes + prediction.nbytes <= keep_bytes:
            measured.kept[place] = prediction
            kept_bytes += prediction.nbytes
        if progress is not None:
            progress(place + 1, len(labelled))
    return measured


def _pictures(
    inference: Inference, labelled: Catalog, measured: _Measured, number: int
) -> Iterator[tuple[TileScore, dict[str, NDArray[np.uint8]]]]:
    """Draw the chosen tiles one by one, predicting again those that were not kept."""
    sensor, scheme = inference.segmenter.sensor, inference.segmenter.scheme
    for place in choose(measured.tiles, number):
        sample = read_sample(labelled.tile(place), sensor)
        prediction = measured.kept[place] if place in measured.kept else inference.classes(sample)
        yield measured.tiles[place], quadruple(sample.pixels, sample.mask, prediction, sensor, scheme)


def _tile_score(tile_id: str, counts: ConfusionMatrix, scheme: ClassScheme) -> TileScore:
    result = scores(counts.matrix, scheme.names, scheme.colours)
    return TileScore(
        tile_id=tile_id, mean_iou=result.summary.mean_iou, overall_accuracy=result.summary.overall_accuracy, pixels=result.pixels
    )


def _evaluation(model: str, labelled: Catalog, scheme: ClassScheme, measured: _Measured, seconds: float) -> Evaluation:
    matrix = measured.total.matrix
    result = scores(matrix, scheme.names, scheme.colours)
    return Evaluation(
        model=model,
        catalog_fingerprint=labelled.fingerprint(),
        split=tuple(sorted(split for split in labelled.counts("split") if split is not None)),
        scheme=scheme.name,
        classes=scheme.names,
        colours=scheme.colours,
        confusion=tuple(tuple(row) for row in matrix.tolist()),
        scores=result.summary,
        per_class=result.per_class,
        tiles=tuple(measured.tiles),
        pixels=result.pixels,
        ignored_pixels=measured.total.ignored_pixels,
        seconds=seconds,
    )
