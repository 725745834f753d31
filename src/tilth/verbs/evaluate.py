"""``tilth evaluate`` and ``tilth compare``: scores of a model, and an honest answer to "which one is better?"."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pydantic

from tilth.config import Config
from tilth.errors import CatalogError, UsageError
from tilth.verbs.console import Console
from tilth.verbs.options import FLIPS_FIELD, Flips, InferenceConfig
from tilth.verbs.registry import Result, verb

if TYPE_CHECKING:
    from tilth.catalog.table import Catalog
    from tilth.evaluation.class_group import ClassGroup
    from tilth.evaluation.result import ClassScore, Evaluation


class EvaluateOptions(Config):
    """Options of ``tilth evaluate``."""

    model: Path = pydantic.Field(json_schema_extra={"positional": True}, description="model or run folder")
    catalog: Path = pydantic.Field(json_schema_extra={"positional": True}, description="catalog with labels")
    out: Path = pydantic.Field(description="folder for metrics.json, tiles.csv and pictures")
    split: tuple[str, ...] = pydantic.Field(("test",), description="splits to score; split=[] takes all rows")
    gallery: int = pydantic.Field(8, ge=0, description="tiles to draw, evenly from the worst to the best")
    gallery_worst: int = pydantic.Field(0, ge=0, description="worst tiles to draw as well")
    boundary_share: float = pydantic.Field(0.02, ge=0, lt=1, description="boundary IoU: distance as share of a tile's diagonal; 0 = none")
    calibration_bins: int = pydantic.Field(15, ge=0, le=1000, description="calibration: bins of confidence; 0 = none")
    bootstrap: int = pydantic.Field(1000, ge=0, description="resamples of tiles behind the 95 % intervals; 0 = none")
    published: bool = pydantic.Field(False, description="also the scores of CromSS's tables: 0/0 is 1, AA is the mean precision")
    over: tuple[str, ...] = pydantic.Field(
        (), description="also the means over these classes alone: their names, or a group of the scheme, such as paper12 of minifrance"
    )
    whole_batches: int = pydantic.Field(
        1, ge=1, description="leave out the tiles at the end that do not fill a batch of this many, as CromSS's tables do; 1 = score all"
    )
    flips: Flips = FLIPS_FIELD
    inference: InferenceConfig = pydantic.Field(default_factory=InferenceConfig, description="how tiles are predicted")


class CompareOptions(Config):
    """Options of ``tilth compare``."""

    groups: dict[str, str] = pydantic.Field(
        min_length=1, description="by name, the evaluation folder of each seed, such as scores/s4p-{seed}"
    )
    out: Path = pydantic.Field(description="folder for comparison.json")
    metric: str = pydantic.Field("mIoU", description="mIoU, mF1, OA, AA, mPrecision, kappa, fwIoU or bIoU")
    over: tuple[str, ...] = pydantic.Field(
        (), description="classes that mIoU, mF1, AA, mPrecision or bIoU is averaged over, as in tilth evaluate; all if none is named"
    )
    seeds: tuple[int, ...] = pydantic.Field((0,), min_length=1, description="seeds that stand for {seed}; the same for every group")


@verb("evaluate", EvaluateOptions)
def evaluate(options: EvaluateOptions, console: Console) -> Result:
    """Score a model on labelled tiles: metrics, confusion, best and worst pictures."""
    from tilth.catalog.rows import name_splits
    from tilth.catalog.table import Catalog
    from tilth.evaluation.evaluate import evaluate_catalog
    from tilth.models.segmenter import Segmenter
    from tilth.models.weights.importing import warning_of_fresh_parts

    everything = Catalog.open(options.catalog)
    catalog = everything.filter(split=options.split) if options.split else everything
    if not len(catalog):
        there = name_splits(everything.table["split"])
        raise CatalogError(f"{options.catalog}: no tile in split {', '.join(options.split)}; splits there: {there}")
    catalog = _whole_batches(catalog, options)
    if (warning := warning_of_fresh_parts(options.model)) is not None:
        console.warn(warning)
    inference = options.inference.arguments()
    found = evaluate_catalog(
        Segmenter.load(options.model, inference["device"]),
        catalog,
        out=options.out,
        model=options.model.name,
        **inference,
        flips=options.flips,
        gallery=options.gallery,
        gallery_worst=options.gallery_worst,
        boundary_share=options.boundary_share,
        calibration_bins=options.calibration_bins,
        bootstrap=options.bootstrap,
        published=options.published,
        over=options.over,
        progress=lambda done, total: console.status(f"scoring tile {done}/{total}"),
    )
    values = found.scores.named() | ({} if found.calibration is None else {"ECE": found.calibration.expected_error})
    return Result(summary=_summary(found), outputs={"evaluation": options.out}, values=values)


def _whole_batches(catalog: Catalog, options: EvaluateOptions) -> Catalog:
    """Leave out what does not fill a batch; all labelled tiles without such an option."""
    import numpy as np

    labelled = catalog.labelled()
    left = len(labelled) % options.whole_batches
    if left and left == len(labelled):
        raise UsageError(
            f"whole_batches={options.whole_batches}: there are only {left} labelled tiles, so none would be scored; give a smaller number"
        )
    return labelled.take(np.arange(len(labelled) - left)) if left else catalog


def _summary(found: Evaluation) -> tuple[str, ...]:
    """Lines for people: the scores, what they rest on, and the classes."""
    scores = found.scores.named()
    lines = [
        f"{len(found.tiles)} tiles: " + ", ".join(f"{name} {100 * value:.1f} %" for name, value in scores.items() if value is not None)
    ]
    if found.resampling is not None and "mIoU" in found.intervals:
        low, high = (100 * end for end in found.intervals["mIoU"])
        lines.append(f"mIoU lies in {low:.1f} to {high:.1f} % (95 % interval over {found.resampling.units} {found.resampling.unit}s)")
    if found.published is not None:
        lines.append("as in CromSS's tables: " + ", ".join(f"{name} {100 * value:.2f} %" for name, value in found.published.items()))
    if found.group is not None:
        lines.append(_group_text(found.group))
    if found.calibration is not None and found.calibration.expected_error is not None and found.calibration.maximum_error is not None:
        expected, largest = 100 * found.calibration.expected_error, 100 * found.calibration.maximum_error
        lines.append(f"confidence and accuracy differ by {expected:.1f} points on average (ECE), by {largest:.1f} at most (MCE)")
    return (*lines, *(f"  {item.name}: {'absent' if item.iou is None else _class_text(item)}" for item in found.per_class))


def _group_text(group: ClassGroup) -> str:
    """Describe means over some of the classes: ``over paper12: mIoU 42.7 %, ...``."""
    absent = f", without {', '.join(group.absent)}, which are absent" if group.absent else ""
    means = ", ".join(f"{name} {100 * value:.1f} %" for name, value in group.means.items())
    return f"over {group.title}: {means or 'nothing to average'}{absent}"


def _class_text(item: ClassScore) -> str:
    """Describe a class that is there: ``IoU 61.2 % (55.0 to 66.1), boundary 40.3 %``."""
    interval = "" if item.interval is None else f" ({100 * item.interval[0]:.1f} to {100 * item.interval[1]:.1f})"
    boundary = "" if item.boundary_iou is None else f", boundary {100 * item.boundary_iou:.1f} %"
    return f"IoU {100 * (item.iou or 0):.1f} %{interval}{boundary}"


@verb("compare", CompareOptions)
def compare(options: CompareOptions, _console: Console) -> Result:
    """Compare evaluations seed by seed: which is better, and how sure that is."""
    from tilth.evaluation.compare import compare as compare_groups

    fixed = [name for name, pattern in options.groups.items() if "{seed}" not in pattern]
    if fixed and len(options.seeds) > 1:
        raise UsageError(f"group {fixed[0]!r}: {options.groups[fixed[0]]} needs {{seed}} where it names the seed; all seeds would be one")
    twice = [seed for seed in options.seeds if options.seeds.count(seed) > 1]
    if twice:
        raise UsageError(f"seed {twice[0]} is given twice; each seed counts once")
    groups = {name: [pattern.replace("{seed}", str(seed)) for seed in options.seeds] for name, pattern in options.groups.items()}
    found = compare_groups(groups, metric=options.metric, seeds=options.seeds, out=options.out, over=options.over)
    return Result(summary=tuple(found.to_markdown().splitlines()), outputs={"comparison": options.out}, values={"verdict": found.verdict})
