"""A map judged by reference points: error matrix, accuracies and error-adjusted areas; see :mod:`tilth.evaluation.area_estimate`."""

from __future__ import annotations

import csv
import io
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tilth.classes import IGNORE_INDEX
from tilth.errors import DataError, OutputExistsError, TilthWarning
from tilth.evaluation.area_estimate import area_classes, estimate, interval
from tilth.evaluation.area_result import ASSESSMENT_FILE, AreaAssessment
from tilth.evaluation.map_strata import Strata, classes_at, read_strata
from tilth.evaluation.record import Interval, withdraw
from tilth.evaluation.reference_points import ReferencePoints, class_ids, pixels_of, read_points
from tilth.imagery.files import new_folder
from tilth.imagery.write import write_text

TABLE_FILE = "assessment.csv"
"""Name of the table beside ``assessment.json``."""

# Pixels that differ more than this in ground are no longer one kind of thing to draw from.
_EVEN = 1.05


def assess_map(uri: str, reference: str | Path, *, column: str = "reference", out: str | Path | None = None) -> AreaAssessment:
    """Judge a map by a stratified random sample of reference points, drawn from this map.

    The weight of a class is the share of the ground that the map gives it (of the pixels where the map has no place on the Earth). Within
    a class points count alike, as pixels were drawn alike.

    Args:
        uri: GeoTIFF of one band of 8-bit class ids, as tilth predicts it.
        reference: points with reference classes, see :func:`tilth.evaluation.reference_points.read_points`. Points without reference,
            outside of the map or where it has no data do not count; how many they are is told.
        column: holds the reference class, by name or id.
        out: folder that receives ``assessment.csv`` and, last, ``assessment.json``; None writes nothing.

    Returns:
        The assessment.

    Raises:
        MissingFileError, UnreadableFileError: map or points cannot be read.
        DataError: not a map of classes, not points, an unknown class, no point that counts, or a mapped class without a point.
        OutputExistsError: ``out`` is a file.

    Warns:
        TilthWarning: points that do not count, classes with a single point, points that were drawn from another map, several points in
            one pixel, pixels that differ in ground, or points that all agree with the map.
    """
    if out is not None and Path(out).exists() and not Path(out).is_dir():
        raise OutputExistsError(f"{out}: is a file; give a folder for the assessment")
    points = read_points(reference, column)
    strata = read_strata(uri)
    named = strata.header.names or dict(zip(strata.ids, strata.names, strict=True))
    references = class_ids(points, dict(zip(strata.ids, strata.names, strict=True)) | named)
    columns, rows = pixels_of(points, strata.header.info.crs, strata.header.info.transform)
    shown = _mapped(strata, columns, rows)
    left_out = {
        "without reference": references < 0,
        "outside of the map": (references >= 0) & (shown < 0),
        "where the map has no data": (references >= 0) & (shown == IGNORE_INDEX),
    }
    counted = ~np.logical_or.reduce(list(left_out.values()))
    numbers = {reason: int(where.sum()) for reason, where in left_out.items() if where.any()}
    if not counted.any():
        raise DataError(f"{points.source}: none of the {len(shown)} points counts: {_list(numbers)}")
    if numbers:
        warnings.warn(f"{points.source}: {_list(numbers)}; these points do not count", TilthWarning, stacklevel=2)
    _check_draw(points, strata, shown, counted, columns, rows)
    assessment = _assess(points.source, strata, shown[counted], references[counted], numbers)
    if (shown[counted] == references[counted]).all():
        # Rule of three: an error rate of 3 / n goes unseen in n points in 5 % of samples.
        _warn(
            f"{points.source}: all {assessment.samples} points agree with the map, so every interval has no width; an error rate of up to "
            f"{300 / assessment.samples:.2g} % would easily go unseen; was the reference filled in without looking at the map class?",
            level=3,
        )
    if out is not None:
        with new_folder(Path(out)):
            withdraw(Path(out) / ASSESSMENT_FILE)
            write_text(Path(out) / TABLE_FILE, assessment_csv(assessment))
            write_text(Path(out) / ASSESSMENT_FILE, assessment.to_json())
    return assessment


def assessment_csv(assessment: AreaAssessment) -> str:
    """Lay out an assessment as a table: one row a mapped class, then the columns of the error matrix (points by reference class)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    scores = ("users_accuracy", "producers_accuracy", "area_share")
    head = [part for score in scores for part in (score, f"{score}_lower", f"{score}_upper")]
    areas = ["mapped_area_ha", "area_ha", "area_ha_lower", "area_ha_upper"]
    names = [item.name for item in assessment.classes]
    writer.writerow(["class", "mapped_share", "samples", *head, *areas, *(f"reference {name}" for name in names)])
    for item, row in zip(assessment.classes, assessment.error_matrix, strict=True):
        values = [part for score in scores for part in (getattr(item, score), *_ends(getattr(item, f"{score}_interval")))]
        square = [None if value is None else value / 1e4 for value in (item.mapped_area_m2, item.area_m2, *_ends(item.area_interval_m2))]
        writer.writerow([item.name, f"{item.mapped_share:.8g}", item.samples, *map(_cell, values), *map(_cell, square), *row])
    return text.getvalue()


def _mapped(strata: Strata, columns: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Look up what the map shows at points: class ids, 255 without data, -1 outside."""
    info = strata.header.info
    inside = (columns >= 0) & (rows >= 0) & (columns < info.width) & (rows < info.height)
    shown = np.full(len(columns), -1, dtype=np.int64)
    shown[inside] = classes_at(strata.header, columns[inside], rows[inside])
    return shown


def _check_draw(
    points: ReferencePoints,
    strata: Strata,
    shown: NDArray[np.int64],
    counted: NDArray[np.bool_],
    columns: NDArray[np.int64],
    rows: NDArray[np.int64],
) -> None:
    """Warn of what makes a sample less than the estimators take it for; refuse a class that nobody looked at."""
    for index, value in enumerate(strata.ids):
        number = int((shown[counted] == value).sum())
        if number == 0:
            raise DataError(
                f"{points.source}: no point counts where the map shows {strata.header.name(value)!r} "
                f"({100 * strata.shares[index]:.2g} % of the map); every mapped class needs points, two or more: fill in or draw some"
            )
        if number == 1 < strata.pixels[index]:
            _warn(
                f"{points.source}: only one point where the map shows {strata.header.name(value)!r}: intervals that rest on it are left out"
            )
    if points.map_class is not None:
        drawn = [(name, strata.header.name(int(value))) for name, value, here in zip(points.map_class, shown, counted, strict=True) if here]
        other = [pair for pair in drawn if pair[0] and pair[0] != pair[1]]
        if other:
            _warn(
                f"{points.source}: {len(other)} of {len(drawn)} points were drawn as another class than the map shows there "
                f"(first: {other[0][0]!r}, now {other[0][1]!r}); intervals hold for a sample drawn from this very map"
            )
    places = np.stack((columns, rows))[:, counted]
    twice = places.shape[1] - np.unique(places, axis=1).shape[1]
    if twice:
        _warn(f"{points.source}: points that share a pixel with another one: {twice}; each counts")
    if strata.pixel_ratio > _EVEN:
        _warn(
            f"{strata.header.info.uri}: its largest pixels cover {strata.pixel_ratio:.2f} times the ground of its smallest; within a class "
            "points count alike, so bring the map into an equal-area projection before drawing them"
        )


def _assess(
    source: str, strata: Strata, shown: NDArray[np.int64], references: NDArray[np.int64], left_out: dict[str, int]
) -> AreaAssessment:
    """Estimate over all classes that the map shows or a reference names."""
    ids = sorted({*strata.ids, *references.tolist()})
    size, place = len(ids), {value: index for index, value in enumerate(ids)}
    cells = np.array([place[int(a)] * size + place[int(b)] for a, b in zip(shown, references, strict=True)])
    counts = np.bincount(cells, minlength=size * size).reshape(size, size)
    there = [place[value] for value in strata.ids]
    weights, pixels = np.zeros(size), np.zeros(size, dtype=np.int64)
    weights[there], pixels[there] = strata.shares, strata.pixels
    mapped = None
    if strata.areas_m2 is not None:
        mapped = np.zeros(size)
        mapped[there] = strata.areas_m2
    found = estimate(counts, weights, pixels.tolist())
    classes = area_classes([strata.header.name(value) for value in ids], counts, weights, found, mapped)
    return AreaAssessment(
        map=Path(strata.header.info.uri).name,
        reference=Path(source).name,
        classes=tuple(
            item.model_copy(update={"colour": strata.header.colours.get(value)}) for item, value in zip(classes, ids, strict=True)
        ),
        error_matrix=tuple(tuple(row) for row in counts.tolist()),
        area_proportions=tuple(tuple(min(1.0, value) for value in row) for row in found.proportions.tolist()),
        overall_accuracy=min(1.0, found.overall),
        overall_interval=interval(found.overall, found.overall_error),
        samples=int(counts.sum()),
        left_out=left_out,
        weights="pixels" if strata.areas_m2 is None else "ground area",
    )


def _warn(text: str, level: int = 4) -> None:
    warnings.warn(text, TilthWarning, stacklevel=level)


def _list(numbers: dict[str, int]) -> str:
    return ", ".join(f"{number} {reason}" for reason, number in numbers.items())


def _ends(found: Interval | None) -> tuple[float | None, float | None]:
    return (None, None) if found is None else found


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.8g}"
