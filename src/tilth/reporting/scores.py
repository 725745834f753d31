"""The sections of evaluations and comparisons: scores with their intervals, galleries, calibration, several models beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tilth.evaluation.compare import Comparison
from tilth.evaluation.result import SUMMARY_NAMES, Calibration, Evaluation
from tilth.reporting import diagrams, numbers
from tilth.reporting.collect import NamedEvaluation
from tilth.reporting.galleries import gallery, side_by_side
from tilth.reporting.runs import LINE_COLOURS, Configuration
from tilth.reporting.strips import Strip, draw_strips

MOST_IMAGES = 10
SCORE_TITLES = {
    "mIoU": "mean intersection over union of the classes that are present",
    "mF1": "mean F1 of the classes that are present",
    "OA": "overall accuracy: share of right pixels",
    "AA": "average accuracy: mean recall of the classes that are present",
    "kappa": "Cohen's kappa: agreement beyond chance",
    "mPrecision": "mean over classes of the share of predicted pixels that are right",
    "fwIoU": "intersection over union weighted by how often a class occurs",
    "bIoU": "boundary IoU: intersection over union of the strips along the outlines, mean of the classes that are present",
}


@dataclass(frozen=True)
class Heat:
    """Models against classes.

    Attributes:
        classes: names of the columns.
        rows: name of each model with its IoU by class, fractions or None, and whether it is the best of its column.
        difference: first minus second, for two models; else empty.
    """

    classes: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[float | None, bool], ...]], ...]
    difference: tuple[float | None, ...] = ()


def heat_table(classes: Sequence[str], models: Sequence[tuple[str, Sequence[float | None]]]) -> Heat:
    """Lay models against classes and mark the best model of every class."""
    columns = ([row[place] for _, row in models] for place in range(len(classes)))
    best = [max((value for value in column if value is not None), default=None) for column in columns]
    alone = len(models) < 2
    rows = tuple(
        (name, tuple((value, not alone and value is not None and value == best[place]) for place, value in enumerate(row)))
        for name, row in models
    )
    difference: tuple[float | None, ...] = ()
    if len(models) == 2:
        pairs = zip(models[0][1], models[1][1], strict=True)
        difference = tuple(None if one is None or other is None else one - other for one, other in pairs)
    return Heat(tuple(classes), rows, difference)


def comparison_section(comparisons: Sequence[Comparison], groups: Sequence[Configuration]) -> dict[str, Any] | None:
    """Prepare tables, strip plots and classes; a group that is also a configuration of runs keeps the colour of its curves."""
    if not comparisons:
        return None
    numbers_by_name = {group.name: group.number for group in groups}
    items = []
    for comparison in comparisons:
        colours = [
            f"var(--line-{numbers_by_name.get(group.name, place) % LINE_COLOURS + 1})" for place, group in enumerate(comparison.groups)
        ]
        strips = [
            Strip(group.name, group.values, group.mean, group.deviation, colour)
            for group, colour in zip(comparison.groups, colours, strict=True)
        ]
        ahead = sorted(comparison.groups, key=lambda group: -group.mean)
        heat = heat_table(
            comparison.classes, [(group.name, [group.per_class_iou.get(name) for name in comparison.classes]) for group in ahead]
        )
        dots = [
            diagrams.ClassDots(name, tuple(group.per_class_iou.get(name) for group in comparison.groups)) for name in comparison.classes
        ]
        names = [group.name for group in comparison.groups]
        items.append(
            {
                "comparison": comparison,
                "svg": draw_strips(strips, comparison.metric == "kappa"),
                "heat": heat,
                "dots": diagrams.draw_classes(dots, names, colours) if len(names) > 1 else "",
                "keys": list(zip(names, colours, strict=True)),
            }
        )
    return {"comparisons": items}


def evaluation_section(evaluations: Sequence[NamedEvaluation], galleries: int, tiles: int) -> dict[str, Any] | None:
    """Prepare scores, confusion matrices, calibration and galleries.

    Raises:
        MissingFileError: a picture of a gallery is not there.
        UnreadableFileError: a picture cannot be read.
    """
    if not evaluations:
        return None
    # What earlier versions did not compute, or nobody asked for, has no column.
    late = {"bIoU", "mPrecision"}
    there = {name for item in evaluations for name, value in item.result.scores.named().items() if value is not None}
    names = [name for name in SUMMARY_NAMES if name not in late or name in there]
    groups = {f"mIoU over {group.title}": ", ".join(group.classes) for item in evaluations if (group := item.result.group) is not None}
    names += groups
    first = evaluations[0].result
    alike = [item for item in evaluations if item.result.classes == first.classes]
    heat = (
        heat_table(first.classes, [(item.name, [row.iou for row in item.result.per_class]) for item in alike]) if len(alike) > 1 else None
    )
    return {
        "evaluations": [_evaluation(named, names, tiles if place < galleries else 0) for place, named in enumerate(evaluations)],
        "score_names": names,
        "score_titles": SCORE_TITLES | {name: f"mean intersection over union of {classes}" for name, classes in groups.items()},
        "heat": heat,
        "together": side_by_side(evaluations[:galleries], tiles),
    }


def _evaluation(named: NamedEvaluation, names: Sequence[str], tiles: int) -> dict[str, Any]:
    result = named.result
    confusion = []
    for row in result.confusion:
        total = sum(row)
        confusion.append([(count, count / total if total else None) for count in row])
    judged = [item for item in result.images if item.mean_iou is not None]
    worst = sorted(judged, key=lambda item: (item.mean_iou or 0.0, item.image))
    values = result.scores.named()
    if result.group is not None:
        values |= {f"mIoU over {result.group.title}": result.group.means.get("mIoU")}
    return {
        "name": named.name,
        "result": result,
        "scores": [(name, values.get(name), result.intervals.get(name)) for name in names],
        "interval_words": interval_words(result),
        "measured_words": measured_words(result),
        "confusion": confusion,
        "absent": any(row.absent for row in result.per_class),
        "boundary": any(row.boundary_iou is not None for row in result.per_class),
        "gallery": gallery(named, tiles) if tiles > 0 else [],
        "withheld": 0 if tiles > 0 else len(result.gallery),
        "images": worst[:MOST_IMAGES] if len(judged) > 1 else [],
        "all_images": len(judged),
        "calibration": _calibration(result.calibration),
    }


def interval_words(result: Evaluation) -> str:
    """Say what the intervals of an evaluation mean, and what they do not; empty without any."""
    if not result.intervals and not any(row.interval for row in result.per_class):
        return ""
    drawn = result.resampling
    how = f", drawn {numbers.whole(drawn.draws)} times from its {numbers.whole(drawn.units)} {drawn.unit}s" if drawn else ""
    unit = drawn.unit if drawn else "tile"
    return (
        f"In brackets: 95 % intervals{how}. Had other {unit}s of the same kind been judged, the score would most likely lie in there. "
        "They say nothing about another training, another seed or another region."
    )


def measured_words(result: Evaluation) -> str:
    """Say how the model was run and which one it was; empty where an earlier version did not record it."""
    how, known = result.inference, []
    if how is not None:
        views = "no mirrored views" if how.flips == "none" else f"mirrored views averaged ({how.flips})"
        known.append(
            f"predicted in windows of {numbers.whole(how.window)} pixels that overlap by {numbers.whole(how.overlap)}, {views}, "
            f"precision {how.precision}"
        )
    if result.model_hash is not None:
        known.append(f"model {result.model_hash[:12]}")
    text = "; ".join(known)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _calibration(found: Calibration | None) -> dict[str, Any] | None:
    if found is None or found.expected_error is None:
        return None
    return {"svg": diagrams.draw_reliability(found), "words": calibration_words(found), "found": found}


def calibration_words(found: Calibration) -> list[str]:
    """Say in words whether a model is right as often as it says."""
    bins = [item for item in found.bins if item.confidence is not None and item.accuracy is not None and item.pixels]
    total = sum(item.pixels for item in bins)
    if not total:
        return []
    said = sum((item.confidence or 0.0) * item.pixels for item in bins) / total
    right = sum((item.accuracy or 0.0) * item.pixels for item in bins) / total
    apart = said - right
    if abs(apart) < 0.01:
        verdict = "over all pixels it promises what it keeps"
    else:
        verdict = f"it is {'overconfident' if apart > 0 else 'underconfident'} by {numbers.points(abs(apart)).removeprefix('+')}"
    return [
        f"On average the model is {numbers.percent(said)} sure and right on {numbers.percent(right)} of the pixels: {verdict}.",
        f"Expected calibration error (ECE): {_gap(found.expected_error)}, how far bars and diagonal lie apart, averaged over the pixels. "
        f"Largest gap of a bar (MCE): {_gap(found.maximum_error)}.",
    ]


def _gap(value: float | None) -> str:
    return numbers.points(value).removeprefix("+")
