"""``tilth pretrain`` and ``tilth finetune``: a catalog in, a run out."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tilth.errors import TilthError
from tilth.training.config import RESUMABLE_CHANGES
from tilth.verbs.console import Console
from tilth.verbs.registry import Result, verb
from tilth.verbs.train_options import FinetuneOptions, PretrainOptions, TrainOptions

ORIGIN_FILE = "initial_weights.json"
"""In a run folder: where the weights were from that it started with, and what became of them."""

if TYPE_CHECKING:
    from lightning.fabric import Fabric

    from tilth.catalog.table import Catalog
    from tilth.methods.base import Method
    from tilth.models.segmenter import Segmenter
    from tilth.training.loop import FitResult, Trainer, Validate
    from tilth.training.run import Run
    from tilth.verbs.train_data import TrainingTiles


@verb("pretrain", PretrainOptions)
def pretrain(options: PretrainOptions, console: Console) -> Result:
    """Train on labelled and unlabelled tiles; leaves a model to use or to finetune."""
    return _train("pretrain", options, console)


@verb("finetune", FinetuneOptions)
def finetune(options: FinetuneOptions, console: Console) -> Result:
    """Train on labelled tiles, from fresh or pre-trained weights; leaves a model."""
    return _train("finetune", options, console)


def _train(name: str, options: PretrainOptions | FinetuneOptions, console: Console) -> Result:
    """Wire catalogs, network, method and loop together. Everything is checked before the run folder is made."""
    from tilth.methods.base import build_method
    from tilth.training.distributed import build_fabric
    from tilth.training.feature_plan import plan_features
    from tilth.training.loop import Trainer
    from tilth.training.order import Order
    from tilth.training.progress import TrainingProgress
    from tilth.training.run import Run
    from tilth.training.streams import TileDataset
    from tilth.verbs.train_data import tiles_of
    from tilth.verbs.train_model import NO_CLASSES, starting_model
    from tilth.verbs.train_streams import assign_streams, check_validation, phases_of

    if options.dry_run:
        from tilth.verbs.dry_run import foresee

        found = foresee(options)
        return Result(summary=found.lines, values=found.values)
    tiles = tiles_of(options)
    start = starting_model(options, tiles.learnt_from.sensor(), NO_CLASSES if tiles.labelled is None else tiles.labelled.scheme())
    model = start.model
    method = build_method(options.method, options.settings, model, options.loop.seed)
    if options.initial_weights is None and not options.network.pretrained:
        method.start_fresh()
    streams = assign_streams(method.streams, options.method, tiles, model.sensor)
    if method.needs_labels:
        check_validation(model, tiles, options.validation_split)

    fabric = build_fabric(options.loop)
    console = console if fabric.is_global_zero else Console()
    for line in start.told:
        console.say(line)
    sizes = {name: len(rows) for name, rows in streams.items()}
    phases = phases_of(method, tiles, options.loop.steps)
    order = Order(options.loop.seed, method.streams, sizes, options.loop.batch_size, phases)
    dataset = TileDataset(order, streams, len(model.scheme), options.weak)
    kept = plan_features(method, dataset, options.loop, options.weak, fabric, console)
    progress = TrainingProgress(console, options.loop.steps)
    run = Run(options.out)
    validate = None if tiles.validation is None else _validation(options, method, tiles.validation, fabric, console)
    trainer = Trainer(method, dataset if kept is None else kept.dataset, run, options.loop, options.weak, fabric, progress, validate)

    beside = {"target": tiles.target, "validation": tiles.validation}
    seen = {**streams, **{name: rows for name, rows in beside.items() if rows is not None}}
    _begin(run, name, _resolved(options, method, tiles), seen, options.resume, fabric)
    if options.resume and run.finished:
        return Result(summary=(f"{options.method}: finished before, nothing left to do",), outputs={"run": run.folder, "model": run.model})
    if start.origin is not None and fabric.is_global_zero:
        from tilth.imagery.write import write_json

        write_json(run.folder / ORIGIN_FILE, start.origin)
    _tell(console, options, tiles, streams, dataset.order.sizes, method.target_share)
    if options.loop.transfer.frozen == "always" and start.origin is None and not options.network.pretrained:
        console.warn("the encoder is frozen and its weights are random: only the decoder learns; give initial_weights")
    if kept is not None:
        kept.fill(fabric, console)
    result = _fit(trainer, run, options.resume)
    if not fabric.is_global_zero:
        return Result()
    score = "" if result.best_score is None else f", best {_score_in_words(method, result.best_score)}"
    return Result(
        summary=(f"{options.method}: {result.steps} steps in {result.seconds:.0f} s{score}",),
        outputs={"run": run.folder, "model": run.model},
        values={"steps": result.steps, "seconds": result.seconds, f"best_{method.score.name}": result.best_score},
    )


def _score_in_words(method: Method, score: float) -> str:
    return f"validation mIoU {100 * score:.1f} %" if method.needs_labels else f"validation loss {score:.4g}"


def _tell(
    console: Console,
    options: TrainOptions,
    tiles: TrainingTiles,
    streams: Mapping[str, Catalog],
    sizes: Mapping[str, int],
    share: float,
) -> None:
    """Say what was decided about the tiles and what looks wrong with them; a pass over a stream goes over ``sizes`` of them."""
    from tilth.verbs.train_streams import small_tiles

    if tiles.pool is not None and tiles.left_out:
        console.say(
            f"unlabelled pool: {len(tiles.pool)} tiles; {tiles.left_out} left out, which show labelled tiles or tiles of other splits"
        )
    for name, rows in streams.items():
        if sizes[name] < len(rows):
            console.say(
                f"{name}: {len(rows)} tiles show {sizes[name]} places (equal location_id) in several seasons; a pass shows each in one"
            )
    if tiles.target is not None:
        console.say(f"target: {len(tiles.target)} tiles, learnt from alone in the last {share:.0%} of the steps")
    small = small_tiles(streams, options.weak.size, options.weak.scale_max)
    if small is not None:
        console.warn(small)


def _validation(options: TrainOptions, method: Method, tiles: Catalog, fabric: Fabric, console: Console) -> Validate:
    """Make what scores a model during training; a tile that cannot be used is told of once."""
    from tilth.evaluation.evaluate import validation_scores
    from tilth.training.held_out import HeldOutLoss

    told: set[str] = set()

    def leave_out(tile_id: str, reason: str) -> None:
        if tile_id not in told:
            told.add(tile_id)
            console.warn(f"validation tile {tile_id!r} left out: {reason}")

    if not method.needs_labels:
        return HeldOutLoss(method, tiles, options.loop, options.weak, fabric.device, leave_out)

    def validate(current: Segmenter) -> Mapping[str, float]:
        return validation_scores(current, tiles, device=fabric.device, on_bad=leave_out, **options.inference.model_dump())

    return validate


def _begin(run: Run, verb_name: str, recipe: Mapping[str, Any], seen: Mapping[str, Catalog], resume: bool, fabric: Fabric) -> None:
    """Start or take up the run in the first process; all processes stop together, or one would wait for the others for ever."""
    from tilth.verbs.train_streams import describe_streams

    problem: TilthError | None = None
    if fabric.is_global_zero:
        try:
            data = {"verb": verb_name, "streams": describe_streams(seen)}
            if resume:
                run.resume(recipe, data, RESUMABLE_CHANGES)
            else:
                run.start(recipe, data)
        except TilthError as error:
            problem = error
    problem = fabric.broadcast(problem)
    if problem is not None:
        raise problem


def _fit(trainer: Trainer, run: Run, resume: bool) -> FitResult:
    """Train to the end. Wrong data shows in the first step: a run without a step is not kept, it would be in the way of the next try."""
    try:
        if resume:
            trainer.resume()
        return trainer.fit()
    except BaseException:
        if trainer.step == 0 and trainer.fabric.is_global_zero and not resume:
            shutil.rmtree(run.folder, ignore_errors=True)
        raise


def _resolved(options: TrainOptions, method: Method, tiles: TrainingTiles) -> dict[str, Any]:
    """The recipe with every default written out, the method's settings too; ``--config`` takes it as it is."""
    written = options.model_dump(mode="json", exclude={"resume", "dry_run", "speed"}) | {
        "settings": {**options.settings, **method.config.model_dump(mode="json")}
    }
    # A default split that has no tiles is none; written out it would be one that was asked for.
    return written if tiles.validation is not None else written | {"validation_split": None}
