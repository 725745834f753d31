"""Measuring a model on the labelled tiles of a catalog: once at the end with files and pictures, or in passing during training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from tilth.errors import DataError, OutputExistsError, UsageError
from tilth.evaluation.bootstrap import DEFAULT_DRAWS
from tilth.evaluation.boundary import DEFAULT_SHARE
from tilth.evaluation.calibration import DEFAULT_BINS
from tilth.evaluation.class_group import find_classes, score_group
from tilth.evaluation.gallery import choose, draw_tile, encode_gallery, write_gallery
from tilth.evaluation.measure import Detail, Measured, Progress, coarse, measure
from tilth.evaluation.metrics import scores
from tilth.evaluation.published import published_scores
from tilth.evaluation.record import withdraw
from tilth.evaluation.result import METRICS_FILE, Evaluation, TileScore
from tilth.evaluation.samples import Inference, OnBad, labelled_tiles, read_sample
from tilth.evaluation.summarise import TILES_FILE, summarise, tiles_csv
from tilth.imagery.files import new_folder
from tilth.imagery.write import write_text
from tilth.models.identity import model_hash

if TYPE_CHECKING:
    from tilth.catalog.table import Catalog
    from tilth.models.segmenter import Segmenter

# Predictions kept for the gallery; tiles beyond this are predicted again, so memory does not grow with the catalog.
_KEPT_BYTES = 256 * 1024**2


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
    flips: str = "none",
    gallery: int = 8,
    gallery_worst: int = 0,
    boundary_share: float = DEFAULT_SHARE,
    calibration_bins: int = DEFAULT_BINS,
    bootstrap: int = DEFAULT_DRAWS,
    published: bool = False,
    over: Sequence[str] = (),
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a model on every labelled tile of a catalog.

    Pixels whose label is 255 and pixels without valid imagery count nowhere. The order of the tiles does not change any score.

    Args:
        segmenter: the model.
        catalog: tiles; those without label are skipped.
        out: folder that receives ``gallery/``, ``tiles.csv`` and, last, ``metrics.json``; None writes nothing. The ``metrics.json`` of
            an earlier evaluation is taken away before the first file is replaced.
        model: what to call the model in the result, usually its folder; by default encoder and decoder.
        window: side of the prediction windows in pixels; smaller for tiles that are smaller.
        overlap: overlap of neighbouring windows in pixels.
        batch_size: windows a forward pass.
        device: where to predict.
        precision: as in :func:`tilth.models.inference.predict_tile`.
        flips: views that are averaged, as there.
        gallery: number of tiles to picture, evenly from the worst to the best; 0 for none.
        gallery_worst: number of the worst tiles to picture beforehand.
        boundary_share: distance of the boundary IoU as a share of the diagonal of a tile, see :mod:`tilth.evaluation.boundary`; 0 for
            no boundary IoU.
        calibration_bins: bins of the histogram of confidence, see :mod:`tilth.evaluation.calibration`; 0 for none.
        bootstrap: resamples behind the intervals, see :mod:`tilth.evaluation.bootstrap`; 0 for no intervals.
        published: also score by the conventions of CromSS's tables, see :mod:`tilth.evaluation.published`.
        over: classes to average over as well, by name or by the name of a group, see :mod:`tilth.evaluation.class_group`.
        progress: told after each tile.

    Returns:
        The evaluation; the same as ``Evaluation.read(out)``.

    Raises:
        CatalogError: no labelled tile, several class schemes, or other classes than the model's.
        SensorMismatchError: the tiles come from another sensor than the model's.
        DataError: a label that does not fit its image or its scheme; the message names the tile.
        UsageError: window, overlap, batch size, precision, flips, share, bins or draws make no sense.
        OutputExistsError: ``out`` is a file.
        ConfigError: ``over`` names what is no class.
    """
    if out is not None and Path(out).exists() and not Path(out).is_dir():
        raise OutputExistsError(f"{out}: is a file; give a folder for the evaluation")
    if not 0 <= boundary_share < 1:
        raise UsageError(f"boundary_share {boundary_share:g}: expected a share of the diagonal of a tile, 0 or more and below 1")
    if bootstrap < 0:
        raise UsageError(f"bootstrap {bootstrap}: expected a number of resamples, 0 or more")
    inference = Inference(segmenter, window, overlap, batch_size, device, precision, flips)
    group = find_classes(segmenter.scheme.name, segmenter.scheme.names, over)
    labelled = labelled_tiles(segmenter, catalog)
    pictured = gallery + gallery_worst if out is not None else 0
    detail = Detail(boundary_share, calibration_bins, per_tile=True, keep_bytes=_KEPT_BYTES if pictured > 0 else 0)
    measured = measure(inference, labelled, detail, progress)
    evaluation = summarise(model or describe_model(segmenter), labelled, segmenter.scheme, measured, bootstrap, boundary_share)
    evaluation = evaluation.model_copy(update={"inference": inference.settings(), "model_hash": model_hash(segmenter)})
    if published:
        evaluation = evaluation.model_copy(update={"published": published_scores(np.array(evaluation.confusion)).known()})
    if group:
        evaluation = evaluation.model_copy(update={"group": score_group(over, group, evaluation.per_class)})
    if out is None:
        return evaluation
    entries, drawn = encode_gallery(_pictures(inference, labelled, measured, choose(measured.tiles, gallery, gallery_worst)))
    evaluation = evaluation.model_copy(update={"gallery": entries})
    with new_folder(Path(out)):
        withdraw(Path(out) / METRICS_FILE)
        write_gallery(Path(out), drawn)
        write_text(Path(out) / TILES_FILE, tiles_csv(measured, segmenter.scheme))
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
    flips: str = "none",
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
        flips: views that are averaged, as there.
        on_bad: told id and reason of each tile that is left out.

    Returns:
        ``mIoU``, ``mF1``, ``OA`` and ``iou/<class>`` as fractions, and ``validation_loss``, the mean cross-entropy of the labels under the
        probabilities that scores follow from. What is undefined (absent classes, nothing counted) is left out.
        ``unreadable_tiles``, the number of tiles left out, only where there are any.

    Raises:
        CatalogError, SensorMismatchError, UsageError: as :func:`evaluate_catalog`.
        DataError: no tile is left, or the model's output is not finite.
    """
    place = device if device is not None else next((parameter.device for parameter in segmenter.parameters()), torch.device("cpu"))
    inference = Inference(segmenter, window, overlap, batch_size, place, precision, flips)
    labelled = labelled_tiles(segmenter, catalog)
    reasons: list[str] = []

    def leave_out(tile_id: str, reason: str) -> None:
        reasons.append(reason)
        if on_bad is not None:
            on_bad(tile_id, reason)

    measured = measure(inference, labelled, Detail(), on_bad=leave_out)
    if not measured.tiles:
        raise DataError(f"none of the {len(labelled)} validation tiles can be used; the first: {reasons[0]}; run tilth catalog check")
    result = scores(measured.total.matrix, segmenter.scheme.names, segmenter.scheme.colours)
    named = {name: value for name, value in result.summary.named().items() if name in ("mIoU", "mF1", "OA")}
    named |= {f"iou/{item.name}": item.iou for item in result.per_class}
    named |= {"validation_loss": measured.loss / result.pixels if result.pixels else None}
    known = {name: value for name, value in named.items() if value is not None}
    return known | ({"unreadable_tiles": float(len(reasons))} if reasons else {})


def describe_model(segmenter: Segmenter) -> str:
    """Name a model by its network: ``resnet18 + unet``."""
    return segmenter.config.network.title


def _pictures(
    inference: Inference, labelled: Catalog, measured: Measured, chosen: list[int]
) -> Iterator[tuple[TileScore, dict[str, NDArray[np.uint8]]]]:
    """Draw the chosen tiles one by one, predicting again those that were not kept."""
    sensor, scheme = inference.segmenter.sensor, inference.segmenter.scheme
    for place in chosen:
        sample = read_sample(labelled.tile(place), sensor)
        prediction = measured.kept[place] if place in measured.kept else coarse(inference.predict(sample))
        yield measured.tiles[place], draw_tile(sample.pixels, sample.mask, prediction, sensor, scheme)
