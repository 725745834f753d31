"""What the runs say together: which belong to one configuration, how they differ, their curves and their cost."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tilth.reporting import numbers
from tilth.reporting.collect import Run, find_key, flatten, without_seed
from tilth.reporting.figures import Chart, Format, Series, mean_curve, spread_curve, thin
from tilth.reporting.inputs import Rgb

LINE_COLOURS = 6
"""How many line colours the style sheet defines, as ``--line-1`` and so on."""

# Keys that say where and how often, not what: runs that differ only in these are repetitions of one configuration. Whole keys: what is
# called a name or a folder farther inside, such as that of a method or of its data, does tell runs apart.
_REPETITION = re.compile(r"(out|output|folder|run|run_dir|resume|name|overwrite)|(loop\.)?(seed|workers|devices?)")
_SETTINGS = (
    ("Method", ("method.name", "method.kind", "method")),
    ("Network", ("network.name",)),
    ("Encoder", ("encoder",)),
    ("Decoder", ("decoder",)),
    ("Initial weights", ("initial_weights", "pretrained")),
    ("Optimiser steps", ("steps",)),
    ("Tiles of each stream in a step", ("batch_size",)),
    ("Crop in pixels", ("weak.size",)),
    ("Labelled tiles", ("labelled_tiles",)),
    ("Labelled share in %", ("labelled_percent",)),
    ("Learning rate", ("learning_rate",)),
    ("Schedule", ("schedule.kind",)),
    ("Confidence threshold", ("settings.threshold",)),
    ("Precision", ("precision",)),
)


@dataclass(frozen=True)
class Configuration:
    """Runs that differ in their seed alone."""

    name: str
    runs: tuple[Run, ...]
    number: int

    @property
    def method(self) -> str | None:
        """Name of the method, if the recipe tells."""
        found = find_key(self.runs[0].recipe, "method.name", "method.kind", "method")
        return found if isinstance(found, str) else None

    @property
    def way(self) -> str | None:
        """The method, and behind it the variant of a method whose variants have little in common."""
        variant = find_key(self.runs[0].recipe, "settings.variant")
        return f"{self.method} {variant}" if self.method == "ddpm" else self.method

    @property
    def seeds(self) -> tuple[str, ...]:
        """Seeds of the runs, as far as their recipes tell."""
        found = (find_key(run.recipe, "seed") for run in self.runs)
        return tuple(str(seed) for seed in found if seed is not None)


def configurations(runs: Sequence[Run]) -> list[Configuration]:
    """Put runs together that differ in nothing but seed and place, in the order they come."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        kept = {key: value for key, value in flatten(run.recipe).items() if not _REPETITION.fullmatch(key)}
        key = repr(sorted(kept.items(), key=lambda item: item[0])) if kept else without_seed(run.name)
        groups.setdefault(key, []).append(run)
    named: list[Configuration] = []
    for members in groups.values():
        stems = {without_seed(run.name) for run in members}
        name = members[0].name if len(members) == 1 else stems.pop() if len(stems) == 1 else ", ".join(run.name for run in members)
        named.append(Configuration(name, tuple(members), len(named)))
    return named


def settings(groups: Sequence[Configuration]) -> list[tuple[str, list[Any]]]:
    """List the main settings of every configuration, then what else two of them set differently: rows of label and values.

    What only one method knows is left to the complete settings: it would bury the rest.
    """
    flats = [flatten(group.runs[0].recipe) for group in groups]
    rows: list[tuple[str, list[Any]]] = []
    shown: set[str] = set()
    for label, names in _SETTINGS:
        values = [find_key(group.runs[0].recipe, *names) for group in groups]
        if any(value is not None for value in values):
            rows.append((label, values))
            shown |= {key for flat in flats for key in flat if any(key == name or key.endswith(f".{name}") for name in names)}
    others = sorted({key for flat in flats for key in flat} - shown)
    for key in others:
        values = [flat.get(key) for flat in flats]
        known = [value for value in values if value is not None]
        if not _REPETITION.fullmatch(key) and any(value != known[0] for value in known):
            rows.append((key, values))
    return rows


@dataclass(frozen=True)
class Cost:
    """What one run took: seconds, optimiser steps, tiles a second (median), GB at the peak, parameters, steps skipped; None if unknown."""

    name: str
    seconds: float | None
    steps: int | None
    tiles_per_s: float | None
    memory_gb: float | None
    parameters: int | None
    skipped: int | None = None


def costs(runs: Sequence[Run]) -> list[Cost]:
    """Say what each run took; runs that recorded nothing are left out."""
    rows = []
    for run in runs:
        speed, memory = run.curve("tiles_per_s"), run.curve("memory_gb")
        cost = Cost(
            name=run.name,
            seconds=run.seconds,
            steps=run.last_step,
            tiles_per_s=statistics.median(speed.values) if speed else None,
            memory_gb=max(memory.values) if memory else None,
            parameters=run.parameters,
            skipped=run.finished.get("skipped_steps"),
        )
        if any(value is not None for value in (cost.seconds, cost.steps, cost.tiles_per_s, cost.memory_gb, cost.parameters)):
            rows.append(cost)
    return rows


# Scalar, kind (validation scalars may repeat a training name), title, how it is written, whether the axis starts at zero, what to look for.
_CHARTS: tuple[tuple[str, str, str, Format, bool, str], ...] = (
    ("mIoU", "val", "mIoU on validation tiles", "percent", True, ""),
    ("OA", "val", "Overall accuracy on validation tiles", "percent", True, ""),
    ("loss", "train", "Training loss, total", "number", False, "Methods weigh their terms differently: compare runs of one method."),
    ("loss_labelled", "train", "Loss on labelled tiles", "number", False, ""),
    (
        "loss_unlabelled",
        "train",
        "Loss on unlabelled tiles",
        "number",
        False,
        "It often rises at first, while more pseudo-labels are accepted.",
    ),
    (
        "accepted_share",
        "train",
        "Accepted pseudo-labels",
        "percent",
        True,
        "Share of unlabelled pixels whose prediction is confident enough to be learnt from.",
    ),
    (
        "agreement",
        "train",
        "Pseudo-labels that agree with held-back labels",
        "percent",
        True,
        "Only where labels exist; never learnt from.",
    ),
    ("learning_rate", "train", "Learning rate", "number", True, ""),
    (
        "validation_loss",
        "val",
        "Loss on held-out tiles",
        "number",
        False,
        "Mean cross-entropy of the labels under the model's map; for mae, how badly hidden patches are painted; for ddpm, how badly noise "
        "is told from the image.",
    ),
)
# Names of the scalars, of which a class's id or name follows after a slash; title; what to look for.
_CLASS_CHARTS = (
    (
        ("accepted_share_class", "accepted_share"),
        "Accepted pseudo-labels by class",
        "Of the pixels predicted as a class, the share learnt from. A class that falls to zero while others rise is being forgotten.",
    ),
    (("accepted_class",), "Make-up of the accepted pseudo-labels", "One class that takes over from all others is a sign of collapse."),
)
# Scalars that are called alike and mean something else: method, scalar; see reporting.selection.
_ELSEWHERE = {("cromss", "agreement")}
_KNOWN = {name for name, *_ in _CHARTS} | {"tiles_per_s", "memory_gb"}


def charts(groups: Sequence[Configuration], classes: Sequence[tuple[str, Rgb]]) -> list[Chart]:
    """Make the charts of all runs: one a scalar, one line a run; accepted pseudo-labels by class, one chart a configuration.

    Args:
        groups: the configurations.
        classes: name and colour in id order, for runs that do not tell theirs.
    """
    made = [_chart(groups, name, (kind,), title, form, zero, text) for name, kind, title, form, zero, text in _CHARTS]
    names = sorted({name for group in groups for run in group.runs for kind, name in run.curves if kind == "train" and "/" not in name})
    made += [
        _chart(groups, name, ("train",), name.replace("_", " ").capitalize(), "number", False, "")
        for name in names
        if name not in _KNOWN and name.startswith("loss")
    ]
    made += [class_chart(group, len(groups), classes, *kind) for group in groups for kind in _CLASS_CHARTS]
    return [chart for chart in made if chart is not None]


def _chart(
    groups: Sequence[Configuration], name: str, kinds: tuple[str, ...], title: str, form: Format, zero: bool, text: str
) -> Chart | None:
    lines: list[Series] = []
    averaged = 1
    for group in groups:
        if (group.method, name) in _ELSEWHERE:
            continue
        colour = f"var(--line-{group.number % LINE_COLOURS + 1})"
        known = [(run, curve) for run in group.runs if (curve := run.curve(name, *kinds)) is not None]
        together = spread_curve([curve for _, curve in known]) if len(known) > 1 else None
        if together is not None:
            mean, band, size = together
            lines.append(Series(f"{group.name}, mean of {len(known)}", mean, colour, group.number, band))
            averaged = max(averaged, size)
            continue
        for place, (run, curve) in enumerate(known):
            thinner, size = thin(curve)
            averaged = max(averaged, size)
            lines.append(Series(run.name, thinner, colour, group.number if len(known) == 1 else place))
    if not lines:
        return None
    note = f"Each point is the mean of {averaged} records." if averaged > 1 else ""
    return Chart(f"{kinds[0]}-{name}", title, " ".join(part for part in (text, note) if part), form, tuple(lines), zero)


def class_chart(
    group: Configuration, among: int, classes: Sequence[tuple[str, Rgb]], scalars: Sequence[str], title: str, text: str
) -> Chart | None:
    """Make a chart of one line for each class.

    Args:
        group: the configuration; its runs are averaged.
        among: configurations of the report.
        classes: name and colour in id order, for runs that do not tell theirs.
        scalars: names under which it may be logged; a class's id or name follows after a slash.
        title: of the chart.
        text: what to look for.
    """
    known = list(group.runs[0].classes or classes)
    order = {name: place for place, (name, _) in enumerate(known)} | {str(place): place for place in range(len(known))}
    prefixes = tuple(f"{scalar}/" for scalar in scalars)
    present = {name for run in group.runs for kind, name in run.curves if kind == "train" and name.startswith(prefixes)}
    lines: list[Series] = []
    for name in sorted(present, key=lambda item: (order.get(item.partition("/")[2], len(order)), item)):
        curve, _ = thin(mean_curve([curve for run in group.runs if (curve := run.curve(name, "train"))]))
        if curve.steps:
            written = name.partition("/")[2]
            place = order.get(written)
            # The name proper may be an id: the log numbers the classes.
            label = known[place][0] if place is not None else f"class {written}" if written.isdigit() else written
            colour = f"rgb{known[place][1]}" if place is not None else f"var(--line-{len(lines) % LINE_COLOURS + 1})"
            lines.append(Series(label, curve, colour, len(lines)))
    if not lines:
        return None
    whose = f", {group.name}" if among > 1 else ""
    mean = f" Mean of {len(group.runs)} runs." if len(group.runs) > 1 else ""
    return Chart(f"{scalars[0]}-{group.number}", f"{title}{whose}", f"{text}{mean}", "percent", tuple(lines), from_zero=True, outlined=True)


def total_seconds(rows: Sequence[Cost]) -> float | None:
    """Add the wall times; None if no run recorded one."""
    known = [row.seconds for row in rows if numbers.finite(row.seconds) is not None and row.seconds is not None]
    return sum(known) if known else None
