"""Which way of training is better, said no more firmly than the seeds allow.

Two groups are compared seed by seed: the i-th evaluation of one is paired with the i-th of the other, and the differences are treated as
a sample. The interval of their mean is the paired Student t interval, ``mean +- t(0.975, n - 1) * s / sqrt(n)`` with the sample standard
deviation s (ddof 1). It describes the spread over seeds on these tiles, not over other places. With more than two groups the intervals
are not corrected for the number of pairs.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

from tilth.errors import DataError, UsageError, needs_extra, suggest
from tilth.evaluation.class_group import MEANS, group_of
from tilth.evaluation.record import Record, mean, read_record
from tilth.evaluation.result import SUMMARY_NAMES, Evaluation
from tilth.evaluation.unlike import unlike
from tilth.evaluation.wording import comparison_markdown, count, spread, verdict

COMPARISON_FILE = "comparison.json"
"""Name of the file a comparison leaves in its folder."""


class Group(Record):
    """One way of training, over its seeds; values are fractions.

    Attributes:
        name: of the group.
        values: the metric, one value a seed.
        mean: of the values.
        deviation: sample standard deviation (ddof 1); None for one seed.
        minimum: smallest value.
        maximum: largest value.
        per_class_iou: mean IoU over seeds by class name; None for an absent class.
    """

    name: str
    values: tuple[float, ...]
    mean: float
    deviation: float | None
    minimum: float
    maximum: float
    per_class_iou: dict[str, float | None]


class Pair(Record):
    """Two groups seed by seed; ``first`` is the one with the higher mean (the earlier one where they are equal).

    Attributes:
        first: name of the group that is ahead.
        second: name of the other group.
        differences: first minus second, one value a seed, as fractions.
        mean: mean difference, 0 or more.
        deviation: sample standard deviation of the differences (ddof 1); None for one seed.
        wins: number of seeds in which ``first`` is strictly better.
        interval: two-sided 95 % paired t interval of the mean difference; None for one seed, or for seeds that all repeat one value.
        outcome: ``better`` where the interval excludes zero, ``unclear`` where it does not, ``single seed`` where there is none.
        verdict: the outcome in plain words.
    """

    first: str
    second: str
    differences: tuple[float, ...]
    mean: float
    deviation: float | None
    wins: int
    interval: tuple[float, float] | None
    outcome: Literal["better", "unclear", "single seed"]
    verdict: str


class Comparison(Record):
    """Groups of evaluations on the same tiles; the content of ``comparison.json``.

    Attributes:
        schema_version: version of this layout.
        metric: one of mIoU, mF1, OA, AA, mPrecision, kappa, fwIoU, bIoU; ``mIoU over paper12`` for a mean over some of the classes.
        catalog_fingerprint: of the tiles all evaluations share.
        split: the splits the tiles come from.
        tiles: number of tiles.
        classes: class names in id order.
        seeds: label of each seed, in the order of the groups' values.
        groups: in the order given.
        pairs: every two groups.
        notes: how the evaluations were not alike though they should be (windows, flips, precision, one model for several seeds), one
            sentence each; empty where nothing is known to differ.
    """

    schema_version: Literal[1] = 1
    metric: str
    catalog_fingerprint: str
    split: tuple[str, ...]
    tiles: int
    classes: tuple[str, ...]
    seeds: tuple[str, ...]
    groups: tuple[Group, ...]
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """The verdicts of all pairs, one a line; for one group its mean and spread; then the notes."""
        only = self.groups[0]
        alone = f"{only.name}: {self.metric} {spread(only.mean, only.deviation)} over {count(len(self.seeds), 'seed')}"
        return "\n".join([*([pair.verdict for pair in self.pairs] or [alone]), *self.notes])

    def to_json(self) -> str:
        """Return the text of ``comparison.json``."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a comparison from a ``comparison.json`` or the folder that holds it.

        Raises:
            MissingFileError: there is no such file.
            DataError: it is not a comparison, or was written by a newer version.
        """
        return read_record(cls, path, COMPARISON_FILE)

    def to_markdown(self) -> str:
        """Return three tables (groups, classes, differences; all in points of 100) and the verdict."""
        return comparison_markdown(self)


def compare(
    groups: Mapping[str, Sequence[str | Path | Evaluation]],
    *,
    metric: str = "mIoU",
    seeds: Sequence[str | int] | None = None,
    out: str | Path | None = None,
    over: Sequence[str] = (),
) -> Comparison:
    """Compare groups of evaluations, seed by seed.

    Args:
        groups: by name, one evaluation a seed (or the path of its ``metrics.json`` or folder), the same seeds in the same order in each.
        metric: one of mIoU, mF1, OA, AA, mPrecision, kappa, fwIoU, bIoU.
        seeds: label of each seed; by default 0, 1, ...
        out: folder that receives ``comparison.json``; None writes nothing.
        over: classes that the metric is averaged over, by name or by the name of a group, see :mod:`tilth.evaluation.class_group`; all if
            empty.

    Returns:
        The comparison.

    Raises:
        UsageError: unknown metric, or one that is no mean over classes; no group, or not one label a seed.
        ConfigError: ``over`` names what is no class.
        MissingFileError: a path leads nowhere.
        DataError: the groups differ in number of seeds, the evaluations were made on different tiles or classes, or one lacks the metric.
    """
    if metric not in SUMMARY_NAMES:
        raise UsageError(f"unknown metric {metric!r}; {suggest(metric, SUMMARY_NAMES)}")
    if over and metric not in MEANS:
        raise UsageError(f"over: {metric} is no mean over classes; {suggest(metric, MEANS)}")
    if not groups:
        raise UsageError("nothing to compare; give at least one group of evaluations")
    read = {name: [_load(entry) for entry in entries] for name, entries in groups.items()}
    number = _same_number(read)
    labels = tuple(str(seed) for seed in (range(number) if seeds is None else seeds))
    if len(labels) != number:
        raise UsageError(f"{count(len(labels), 'seed label')} for {count(number, 'seed')}; give one label a seed")
    _same_tiles(read)
    shares = {item.boundary_share for entries in read.values() for item in entries if item.boundary_share is not None}
    if metric == "bIoU" and len(shares) > 1:
        raise DataError(f"boundary IoU was measured with boundary_share {', '.join(map(str, sorted(shares)))}; evaluate with one")
    summaries = [_group(name, evaluations, metric, over) for name, evaluations in read.items()]
    shared = next(iter(read.values()))[0]
    metric += f" over {group_of(shared, over).title}" if over else ""
    comparison = Comparison(
        metric=metric,
        catalog_fingerprint=shared.catalog_fingerprint,
        split=shared.split,
        tiles=len(shared.tiles),
        classes=shared.classes,
        seeds=labels,
        groups=tuple(summaries),
        pairs=tuple(_pair(one, other, metric) for one, other in itertools.combinations(summaries, 2)),
        notes=unlike(read),
    )
    if out is not None:
        from tilth.imagery.write import write_text

        write_text(Path(out) / COMPARISON_FILE, comparison.to_json())
    return comparison


def paired_interval(differences: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Two-sided Student t interval of the mean of paired differences.

    Args:
        differences: two or more values.
        level: confidence level, between 0 and 1.

    Returns:
        Lower and upper end.

    Raises:
        DataError: fewer than two differences.

    Example:
        >>> low, high = paired_interval([0.01, 0.02, 0.03])
        >>> round(low, 4), round(high, 4)
        (-0.0048, 0.0448)
    """
    with needs_extra("report", "comparing seeds"):
        from scipy.stats import t

    number = len(differences)
    if number < 2:
        raise DataError(f"an interval over seeds needs two or more seeds, got {number}")
    centre = statistics.fmean(differences)
    half = float(t.ppf(0.5 + level / 2, number - 1)) * statistics.stdev(differences) / math.sqrt(number)
    return centre - half, centre + half


def _load(entry: str | Path | Evaluation) -> Evaluation:
    return entry if isinstance(entry, Evaluation) else Evaluation.read(entry)


def _same_number(groups: Mapping[str, Sequence[Evaluation]]) -> int:
    """Return the number of seeds all groups share, at least one."""
    counts = {name: len(evaluations) for name, evaluations in groups.items()}
    if len(set(counts.values())) > 1 or not all(counts.values()):
        found = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise DataError(f"groups must have one evaluation for each of the same seeds: {found}")
    return next(iter(counts.values()))


def _same_tiles(groups: Mapping[str, Sequence[Evaluation]]) -> None:
    """Refuse evaluations that did not measure the same pixels of the same classes."""
    every = [(f"{name}[{index}]", item) for name, evaluations in groups.items() for index, item in enumerate(evaluations)]
    first_name, first = every[0]
    tiles = {tile.tile_id for tile in first.tiles}
    for name, item in every[1:]:
        others = {tile.tile_id for tile in item.tiles}
        if others != tiles:
            odd = sorted(tiles ^ others)[0]
            detail = f"tile {odd!r} is only in one of them ({len(tiles)} and {len(others)} tiles)"
        elif item.catalog_fingerprint != first.catalog_fingerprint:
            detail = f"catalog fingerprints {first.catalog_fingerprint[:12]} and {item.catalog_fingerprint[:12]} differ"
        elif (item.scheme, item.classes) != (first.scheme, first.classes):
            detail = f"class schemes {first.scheme!r} and {item.scheme!r} differ"
        else:
            continue
        raise DataError(f"{first_name} and {name} were evaluated on different data: {detail}; evaluate both on the same catalog")


def _group(name: str, evaluations: Sequence[Evaluation], metric: str, over: Sequence[str]) -> Group:
    values = []
    for index, evaluation in enumerate(evaluations):
        value = group_of(evaluation, over).means.get(metric) if over else evaluation.scores.named()[metric]
        if value is None:
            raise DataError(
                f"{name}[{index}] has no {metric}: no pixel was counted or the metric is undefined there; choose other tiles or metric"
            )
        values.append(value)
    return Group(
        name=name,
        values=tuple(values),
        mean=statistics.fmean(values),
        deviation=statistics.stdev(values) if len(values) > 1 else None,
        minimum=min(values),
        maximum=max(values),
        per_class_iou={
            class_name: mean([item.per_class[index].iou or 0.0 for item in evaluations if not item.per_class[index].absent])
            for index, class_name in enumerate(evaluations[0].classes)
        },
    )


def _pair(one: Group, other: Group, metric: str) -> Pair:
    first, second = (one, other) if one.mean >= other.mean else (other, one)
    differences = tuple(a - b for a, b in zip(first.values, second.values, strict=True))
    # Evaluations that repeat one value are one measurement given several times; an interval over them would be a false certainty.
    repeated = len(set(first.values)) == 1 and len(set(second.values)) == 1
    interval = None if repeated else paired_interval(differences)
    outcome: Literal["better", "unclear", "single seed"] = "single seed"
    if interval is not None:
        outcome = "unclear" if interval[0] <= 0 <= interval[1] else "better"
    pair = Pair(
        first=first.name,
        second=second.name,
        differences=differences,
        mean=statistics.fmean(differences),
        deviation=statistics.stdev(differences) if len(differences) > 1 else None,
        wins=sum(difference > 0 for difference in differences),
        interval=interval,
        outcome=outcome,
        verdict="",
    )
    return pair.model_copy(update={"verdict": verdict(pair, first, second, metric)})
