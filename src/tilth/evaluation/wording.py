"""Scores as people read them: in points of 100, as a verdict and as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tilth.evaluation.compare import Comparison, Group, Pair


def points(value: float | None) -> str:
    """Write a fraction in points of 100, with one decimal, or as many as a small value needs not to read as zero.

    Example:
        >>> points(0.5123), points(0.0004), points(-0.0), points(None)
        ('51.2', '0.04', '0.0', '-')
    """
    if value is None:
        return "-"
    for digits in (1, 2, 3):
        text = f"{100 * value:.{digits}f}"
        if float(text):
            return text
    return f"{100 * value:.0e}" if value else "0.0"


def spread(mean: float, deviation: float | None) -> str:
    """Write mean and standard deviation in points of 100: ``51.2 +- 0.8``; the mean alone without a deviation."""
    return points(mean) if deviation is None else f"{points(mean)} +- {points(deviation)}"


def count(number: int, noun: str) -> str:
    """Write a number with its noun: ``1 seed``, ``3 seeds``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def verdict(pair: Pair, first: Group, second: Group, metric: str) -> str:
    """Say in one line who is ahead, by how much, and whether the seeds support it.

    Args:
        pair: the comparison; its own verdict is not read.
        first: the group that is ahead.
        second: the other group.
        metric: name of the metric.

    Returns:
        "A beats B by ..." only where the interval of the difference excludes zero; otherwise what is missing for that.
    """
    numbers = f"{spread(first.mean, first.deviation)} against {spread(second.mean, second.deviation)}"
    seeds = len(pair.differences)
    if not any(pair.differences):
        where = "the only seed" if seeds == 1 else f"all {seeds} seeds"
        return f"no difference: {first.name} and {second.name} have the same {metric} in {where} ({spread(first.mean, first.deviation)})"
    ahead = f"{first.name} is {points(pair.mean)} {metric} points ahead of {second.name}"
    if pair.interval is None and seeds == 1:
        return f"no verdict from a single seed: {ahead} ({numbers}), but one seed cannot tell a better method from luck; run more seeds"
    if pair.interval is None:
        return f"no verdict: {ahead} ({numbers}), but all {seeds} seeds repeat one value, so they count as one; run independent seeds"
    low, high = (points(end) for end in pair.interval)
    evidence = f"{numbers}; {pair.wins} of {seeds} seeds; 95 % interval of the difference {low} to {high}"
    if pair.outcome == "better":
        return f"{first.name} beats {second.name} by {points(pair.mean)} {metric} points ({evidence})"
    if first.mean == second.mean:
        ahead = f"{first.name} and {second.name} have the same mean {metric}"
    return f"no clear winner: {ahead} ({evidence}, which contains zero)"


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a Markdown table: first column to the left, all others to the right; ``|`` in a cell is escaped."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def comparison_markdown(comparison: Comparison) -> str:
    """Return the tables of groups, classes and differences, and the verdict, as Markdown; see ``Comparison.to_markdown``."""
    metric, groups = comparison.metric, comparison.groups
    of_split = f" of {', '.join(comparison.split)}" if comparison.split else ""
    parts = [
        f"{metric} in points of 100, on {count(comparison.tiles, 'tile')}{of_split}; sd = sample standard deviation over "
        f"{count(len(comparison.seeds), 'seed')}.",
        markdown_table(
            ["group", "mean", "sd", "min", "max", *(f"seed {seed}" for seed in comparison.seeds)],
            (
                [group.name, *map(points, (group.mean, group.deviation, group.minimum, group.maximum)), *map(points, group.values)]
                for group in groups
            ),
        ),
        "IoU by class, mean over seeds (- where the tiles hold no reference pixel of the class):",
        markdown_table(
            ["class", *(group.name for group in groups)],
            ([name, *(points(group.per_class_iou[name]) for group in groups)] for name in comparison.classes),
        ),
    ]
    if comparison.pairs:
        parts += [
            "Differences, seed by seed:",
            markdown_table(["difference", "mean", "sd", "seeds won", "95 % interval"], map(_difference_row, comparison.pairs)),
        ]
    if len(comparison.pairs) > 1:
        parts.append("The intervals are not corrected for the number of pairs compared.")
    return "\n\n".join([*parts, "\n".join(f"- {line}" for line in comparison.verdict.splitlines())]) + "\n"


def _difference_row(pair: Pair) -> list[str]:
    interval = "-" if pair.interval is None else f"{points(pair.interval[0])} to {points(pair.interval[1])}"
    won = f"{pair.wins} of {len(pair.differences)}"
    return [f"{pair.first} - {pair.second}", points(pair.mean), points(pair.deviation), won, interval]
