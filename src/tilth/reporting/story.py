"""The words of the report: the answer, the key numbers, and what was done."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tilth.evaluation.area_result import AreaAssessment
from tilth.evaluation.compare import Comparison
from tilth.reporting import numbers
from tilth.reporting.collect import NamedEvaluation
from tilth.reporting.maps import MapView
from tilth.reporting.runs import Configuration

METHODS = {
    "supervised": "Supervised training: the network learns from the labelled tiles alone.",
    "s4p": "S4P, semi-supervised pre-training with FixMatch: the network learns from the labelled tiles and, at the same time, from its "
    "own confident predictions on weakly changed unlabelled tiles, which it must repeat on strongly changed copies of them.",
    "cromss": "CromSS: two sensors learn from noisy labels, each helping to choose which labels the other trusts.",
    "ddpm denoise": "Diffusion pre-training: a network learns to tell the noise from the image, without any label.",
    "ddpm segment": "Diffusion features: a head learns from the labelled tiles, on maps inside a network that learnt to remove noise.",
    "sep": "SEP, supervised pre-training on labels that another model made.",
    "mae": "Masked autoencoder: the network learns to fill in hidden parts of unlabelled imagery.",
}


@dataclass(frozen=True)
class Figure:
    """One key number: its label, the number as written, and what belongs to it."""

    label: str
    value: str
    note: str = ""


def score_text(metric: str, value: Any, deviation: Any = None) -> str:
    """Write a score as its metric is usually read: kappa as a plain number, all others in percent."""
    if metric == "kappa":
        text = numbers.significant(value, 2) if numbers.finite(value) is None else f"{float(value):.2f}"
        return text if numbers.finite(deviation) is None else f"{text} ± {float(deviation):.2f}"
    text = numbers.percent(value)
    if numbers.finite(deviation) is None:
        return text
    return f"{float(value) * 100:.1f} {numbers.spread(deviation)}{numbers.SPACE}%"


def score_interval(metric: str, ends: tuple[float, float] | None) -> str:
    """Write the ends of a score's interval in brackets, in the unit of :func:`score_text`; nothing where there is none."""
    if metric != "kappa" or ends is None:
        return numbers.interval(ends)
    low, high = (f"{end:.2f}".replace("-", "\u2212") for end in ends)
    return f"[{low}, {high}]"


def nice(verdict: str) -> str:
    """Set a verdict for reading: true signs, a capital where it does not begin with a name, a full stop."""
    text = re.sub(r"(?<![\w.-])-(?=\d)", "\u2212", verdict.replace("+-", "±").strip())
    text = f"No {text[3:]}" if text.startswith("no ") else text
    return text if text.endswith((".", "!", "?")) else f"{text}."


def headline(
    comparisons: Sequence[Comparison],
    evaluations: Sequence[NamedEvaluation],
    groups: Sequence[Configuration],
    maps: Sequence[MapView],
    assessments: Sequence[AreaAssessment] = (),
) -> list[str]:
    """Answer first: the verdicts of the first comparison, else the main score, else what there is; one sentence an item."""
    if comparisons:
        first = comparisons[0]
        lines = [nice(line) for line in first.verdict.splitlines()]
        return [
            *lines,
            f"Measured on {_count(first.tiles, 'tile')}{_of(first.split)}, {_count(len(first.seeds), 'seed')} for each way of training.",
        ]
    if evaluations:
        return _from_evaluation(evaluations[0], evaluations[1:])
    trained = [(group, run, curve) for group in groups for run in group.runs if (curve := run.curve("mIoU", "val"))]
    if trained:
        _, run, curve = max(trained, key=lambda item: item[2].values[-1])
        best = f", its best {numbers.percent(max(curve.values))}" if max(curve.values) > curve.values[-1] else ""
        return [
            f"{run.name} ends with an mIoU of {numbers.percent(curve.values[-1])} on the validation tiles "
            f"(step {numbers.whole(curve.steps[-1])}){best}.",
            "Validation tiles were seen while training was watched; evaluate on held-back tiles for a number to rely on.",
        ]
    if assessments:
        return [_from_assessment(item) for item in assessments]
    if maps:
        return [_from_map(view) for view in maps]
    return []


def _from_assessment(found: AreaAssessment) -> str:
    between = found.overall_interval
    sure = f" (95 % interval {numbers.percent(between[0])} to {numbers.percent(between[1])})" if between else ""
    return (
        f"The map {found.map} is right on {numbers.percent(found.overall_accuracy)} of its ground{sure}, "
        f"judged by {_count(found.samples, 'reference point')}."
    )


def _from_evaluation(named: NamedEvaluation, others: Sequence[NamedEvaluation]) -> list[str]:
    """Tell the score of the first model, and which of the others did better on the same tiles."""
    result = named.result
    if result.scores.mean_iou is None:
        return [f"{named.name} was evaluated, but no labelled pixel was counted, so there is no score to report."]
    present = [item for item in result.per_class if item.iou is not None]
    lines = [
        f"{named.name} reaches an mIoU of {numbers.percent(result.scores.mean_iou)} and is right on "
        f"{numbers.percent(result.scores.overall_accuracy)} of the pixels of {_count(len(result.tiles), 'tile')}{_of(result.split)}."
    ]
    if len(present) > 1:
        best, worst = max(present, key=lambda item: item.iou or 0), min(present, key=lambda item: item.iou or 0)
        lines.append(
            f"It finds {best.name} best (IoU {numbers.percent(best.iou)}) and {worst.name} least well (IoU {numbers.percent(worst.iou)})."
        )
    alike = [item for item in others if _same_tiles(item, named) and (item.result.scores.mean_iou or 0) > result.scores.mean_iou]
    if alike:
        better = max(alike, key=lambda item: item.result.scores.mean_iou or 0)
        lines.append(f"{better.name} scores higher on the same tiles: {numbers.percent(better.result.scores.mean_iou)}.")
    if not others:
        lines.append("This is one training; how much the score would vary with another seed is not known.")
    return lines


def _same_tiles(one: NamedEvaluation, other: NamedEvaluation) -> bool:
    return (one.result.catalog_fingerprint, one.result.split) == (other.result.catalog_fingerprint, other.result.split)


def _from_map(view: MapView) -> str:
    covered = [item for item in view.classes if item.share]
    if not covered:
        return f"The map {view.name} holds no classified pixel."
    largest = max(covered, key=lambda item: item.share or 0)
    total = sum(item.area_m2 for item in covered if item.area_m2 is not None)
    extent = f" covers {numbers.area(total)} and" if total else ""
    return f"The map {view.name}{extent} is mostly {largest.name} ({numbers.percent(largest.share)})."


def key_numbers(
    comparisons: Sequence[Comparison],
    evaluations: Sequence[NamedEvaluation],
    maps: Sequence[MapView],
    seconds: float | None,
    catalog: dict[str, Any],
) -> list[Figure]:
    """Choose the handful of numbers that stand at the top."""
    found: list[Figure] = []
    if comparisons:
        found += _from_comparison(comparisons[0])
    elif evaluations:
        result = evaluations[0].result
        found += [
            Figure("mIoU", numbers.percent(result.scores.mean_iou), "mean over classes"),
            Figure("Overall accuracy", numbers.percent(result.scores.overall_accuracy), "share of right pixels"),
            Figure("Pixels judged", numbers.whole(result.pixels), f"{_count(len(result.tiles), 'tile')}{_of(result.split)}"),
        ]
    tiles, labelled = numbers.finite(catalog.get("tiles")), numbers.finite(catalog.get("labelled"))
    if tiles is not None:
        found.append(Figure("Tiles", numbers.whole(tiles), f"{numbers.whole(labelled)} with labels" if labelled is not None else ""))
    if maps and not comparisons:
        total = sum(item.area_m2 or 0.0 for item in maps[0].classes)
        if total:
            found.append(Figure("Mapped", numbers.area(total), maps[0].name))
    if seconds is not None:
        found.append(Figure("Training time", numbers.duration(seconds), "all runs together"))
    return found


def _from_comparison(comparison: Comparison) -> list[Figure]:
    groups = sorted(comparison.groups, key=lambda group: -group.mean)[:3]
    seeds = _count(len(comparison.seeds), "seed")
    found = [
        Figure(f"{comparison.metric}, {group.name}", score_text(comparison.metric, group.mean, group.deviation), f"mean ± sd over {seeds}")
        for group in groups
    ]
    if len(comparison.groups) == 2 and comparison.pairs:
        pair = comparison.pairs[0]
        note = "one seed, no interval"
        if pair.interval:
            low, high = (numbers.bare_points(end, signed=True) for end in pair.interval)
            note = f"95 % interval {low} to {high}"
        found.append(Figure("Difference", numbers.points(pair.mean), note))
    return found


def steps_done(
    catalog: dict[str, Any],
    groups: Sequence[Configuration],
    evaluations: Sequence[NamedEvaluation],
    comparisons: Sequence[Comparison],
    maps: Sequence[MapView],
    assessments: Sequence[AreaAssessment] = (),
) -> list[tuple[str, str]]:
    """Tell in plain words what was done, as far as the inputs show it: (stage, sentence)."""
    told: list[tuple[str, str]] = []
    tiles, labelled = numbers.finite(catalog.get("tiles")), numbers.finite(catalog.get("labelled"))
    if tiles is not None:
        of_them = f", {numbers.whole(labelled)} of them with labels" if labelled is not None else ""
        told.append(("Data", f"A catalog of {_count(int(tiles), 'tile')} was made{of_them}."))
    for group in groups:
        words = METHODS.get(group.way or "", f"Method {group.method}." if group.method else "Training.")
        seeds = f" with seeds {', '.join(group.seeds)}" if len(group.seeds) > 1 else f" with seed {group.seeds[0]}" if group.seeds else ""
        told.append((f"Training: {group.name}", f"{words} {_count(len(group.runs), 'run')}{seeds}."))
    if evaluations:
        first = evaluations[0].result
        told.append(
            (
                "Evaluation",
                f"{_count(len(evaluations), 'model')} judged against the labels of {_count(len(first.tiles), 'tile')}{_of(first.split)}. "
                "Pixels without a label are never counted.",
            )
        )
    told += [
        (
            "Comparison",
            f"{', '.join(group.name for group in item.groups)} compared by {item.metric} on {_count(item.tiles, 'tile')}{_of(item.split)}, "
            f"seed by seed over {_count(len(item.seeds), 'seed')}.",
        )
        for item in comparisons
    ]
    if maps:
        told.append(("Map", f"{_count(len(maps), 'scene')} classified pixel by pixel and written as GeoTIFF."))
    told += [
        ("Areas", f"Ground of the map {item.map} estimated from {_count(item.samples, 'reference point')}, a stratified random sample.")
        for item in assessments
    ]
    return told


def _count(number: int, noun: str) -> str:
    return f"{numbers.whole(number)} {noun}{'' if number == 1 else 's'}"


def _of(split: Sequence[str]) -> str:
    return f" of the {' and '.join(split)} split{'' if len(split) == 1 else 's'}" if split else ""
