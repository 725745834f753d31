"""``tilth evaluate`` and ``tilth compare``: scores of a model, and an honest answer to "which one is better?"."""

from __future__ import annotations

from pathlib import Path

import pydantic

from tilth.config import Config
from tilth.errors import CatalogError, UsageError
from tilth.verbs.console import Console
from tilth.verbs.options import InferenceConfig
from tilth.verbs.registry import Result, verb


class EvaluateOptions(Config):
    """Options of ``tilth evaluate``."""

    model: Path = pydantic.Field(json_schema_extra={"positional": True}, description="model or run folder")
    catalog: Path = pydantic.Field(json_schema_extra={"positional": True}, description="catalog with labels")
    out: Path = pydantic.Field(description="folder for metrics.json and pictures")
    split: tuple[str, ...] = pydantic.Field(("test",), description="splits to score; split=[] takes all rows")
    gallery: int = pydantic.Field(8, ge=0, description="tiles to draw")
    inference: InferenceConfig = pydantic.Field(default_factory=InferenceConfig, description="how tiles are predicted")


class CompareOptions(Config):
    """Options of ``tilth compare``."""

    groups: dict[str, str] = pydantic.Field(
        min_length=1, description="by name, the evaluation folder of each seed, such as scores/s4p-{seed}"
    )
    out: Path = pydantic.Field(description="folder for comparison.json")
    metric: str = pydantic.Field("mIoU", description="mIoU, mF1, OA, AA, kappa or fwIoU")
    seeds: tuple[int, ...] = pydantic.Field((0,), min_length=1, description="seeds that stand for {seed}; the same for every group")


@verb("evaluate", EvaluateOptions)
def evaluate(options: EvaluateOptions, console: Console) -> Result:
    """Score a model on labelled tiles: metrics, confusion, best and worst pictures."""
    from tilth.catalog.rows import name_splits
    from tilth.catalog.table import Catalog
    from tilth.evaluation.evaluate import evaluate_catalog
    from tilth.models.segmenter import Segmenter

    everything = Catalog.open(options.catalog)
    catalog = everything.filter(split=options.split) if options.split else everything
    if not len(catalog):
        there = name_splits(everything.table["split"])
        raise CatalogError(f"{options.catalog}: no tile in split {', '.join(options.split)}; splits there: {there}")
    inference = options.inference.arguments()
    found = evaluate_catalog(
        Segmenter.load(options.model, inference["device"]),
        catalog,
        out=options.out,
        model=options.model.name,
        **inference,
        gallery=options.gallery,
        progress=lambda done, total: console.status(f"scoring tile {done}/{total}"),
    )
    scores = found.scores.named()
    text = ", ".join(f"{name} {100 * value:.1f} %" for name, value in scores.items() if value is not None)
    classes = tuple(f"  {item.name}: {'absent' if item.iou is None else f'IoU {100 * item.iou:.1f} %'}" for item in found.per_class)
    return Result(summary=(f"{len(found.tiles)} tiles: {text}", *classes), outputs={"evaluation": options.out}, values=scores)


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
    found = compare_groups(groups, metric=options.metric, seeds=options.seeds, out=options.out)
    return Result(summary=tuple(found.to_markdown().splitlines()), outputs={"comparison": options.out}, values={"verdict": found.verdict})
