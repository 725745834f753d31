"""``tilth pretrain`` and ``tilth finetune``: a catalog in, a run out."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import pydantic

from tilth.augment.config import WeakConfig
from tilth.config import Config
from tilth.errors import CatalogError, ConfigError, SensorMismatchError, TilthError
from tilth.methods import method_names
from tilth.models.config import NetworkConfig
from tilth.training.config import RESUMABLE_CHANGES, LoopConfig
from tilth.verbs.console import Console
from tilth.verbs.options import InferenceConfig
from tilth.verbs.registry import Result, verb

if TYPE_CHECKING:
    from lightning.fabric import Fabric

    from tilth.catalog.table import Catalog
    from tilth.methods.base import Method
    from tilth.models.segmenter import Segmenter
    from tilth.training.loop import FitResult, Trainer
    from tilth.training.run import Run


class TrainOptions(Config):
    """What every training takes."""

    labelled: tuple[Path, ...] = pydantic.Field(min_length=1, description="catalog with labels")
    out: Path = pydantic.Field(description="run folder to write")
    labelled_split: str | None = pydantic.Field("train", description="rows of the labelled catalog to learn from; null for all")
    labelled_tiles: int | None = pydantic.Field(None, ge=1, description="keep only this many labelled tiles, by the catalog's label_rank")
    labelled_percent: float | None = pydantic.Field(
        None, gt=0, le=100, description="keep only this share of the labelled tiles, by label_rank"
    )
    validation_split: str | None = pydantic.Field("val", description="labelled rows to validate on; null for no validation")
    initial_weights: Path | None = pydantic.Field(None, description="model or run folder whose weights to start from")
    resume: bool = pydantic.Field(False, description="go on from the run's newest checkpoint")
    network: NetworkConfig = pydantic.Field(default_factory=NetworkConfig, description="the network, unless initial_weights bring one")
    weak: WeakConfig = pydantic.Field(default_factory=WeakConfig, description="resize, crop and flips of every tile")
    loop: LoopConfig = pydantic.Field(default_factory=LoopConfig, description="length, optimiser, schedule, devices")
    inference: InferenceConfig = pydantic.Field(default_factory=InferenceConfig, description="how validation tiles are predicted")
    settings: dict[str, Any] = pydantic.Field(
        default_factory=dict, description="settings of the method itself, such as settings.threshold=0.9 for s4p"
    )

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if self.labelled_tiles is not None and self.labelled_percent is not None:
            raise ValueError("labelled_tiles and labelled_percent exclude each other; give one")
        return self


class PretrainOptions(TrainOptions):
    """Options of ``tilth pretrain``."""

    method: str = pydantic.Field(json_schema_extra={"positional": True}, description=f"how to learn: {', '.join(method_names())}")
    unlabelled: tuple[Path, ...] = pydantic.Field((), description="catalogs of the unlabelled pool; may name the labelled catalog too")
    unlabelled_split: tuple[str | None, ...] = pydantic.Field(
        ("train",), description="rows of the pool to use; a catalog without any split is used whole"
    )


class FinetuneOptions(TrainOptions):
    """Options of ``tilth finetune``."""

    task: Literal["segment"] = pydantic.Field(json_schema_extra={"positional": True}, description="what to train for")
    method: str = pydantic.Field("supervised", description="how to learn")


@verb("pretrain", PretrainOptions)
def pretrain(options: PretrainOptions, console: Console) -> Result:
    """Train on labelled and unlabelled tiles; leaves a model to use or to finetune."""
    return _train(options, options.unlabelled, options.unlabelled_split, console)


@verb("finetune", FinetuneOptions)
def finetune(options: FinetuneOptions, console: Console) -> Result:
    """Train on labelled tiles, from fresh or pre-trained weights; leaves a model."""
    return _train(options, (), (), console)


def _train(
    options: PretrainOptions | FinetuneOptions, pool: tuple[Path, ...], pool_split: tuple[str | None, ...], console: Console
) -> Result:
    """Wire catalogs, network, method and loop together. Everything is checked before the run folder is made."""
    from tilth.evaluation.evaluate import validation_scores
    from tilth.methods.base import build_method
    from tilth.training.distributed import build_fabric
    from tilth.training.loop import Trainer
    from tilth.training.progress import TrainingProgress
    from tilth.training.run import Run
    from tilth.training.streams import Order, TileDataset
    from tilth.verbs.options import pick_device

    labelled, validation = _labelled(options)
    model = _model(options, labelled)
    method = build_method(options.method, options.settings, model)
    streams = _streams(method, options.method, labelled, _pool(pool, pool_split, labelled), model)

    fabric = build_fabric(options.loop)
    run = Run(options.out)
    recipe = {"verb": f"{'pretrain' if isinstance(options, PretrainOptions) else 'finetune'}"} | _resolved(options, method)
    data = _describe({**streams, **({"validation": validation} if validation is not None else {})})
    _begin(run, recipe, data, options.resume, fabric)
    if options.resume and run.finished:
        return Result(summary=(f"{options.method}: finished before, nothing left to do",), outputs={"run": run.folder, "model": run.model})
    if not fabric.is_global_zero:
        console = Console()

    order = Order(options.loop.seed, method.streams, {name: len(rows) for name, rows in streams.items()}, options.loop.batch_size)
    dataset = TileDataset(order, streams, len(model.scheme), options.weak)
    inference = options.inference

    def validate(current: Segmenter) -> Mapping[str, float]:
        assert validation is not None
        return validation_scores(
            current,
            validation,
            window=inference.window,
            overlap=inference.overlap,
            batch_size=inference.batch_size,
            device=pick_device(str(fabric.device)),
        )

    progress = TrainingProgress(console, options.loop.steps)
    trainer = Trainer(method, dataset, run, options.loop, options.weak, fabric, progress, validate if validation is not None else None)
    if options.resume:
        trainer.resume()
    result = _fit(trainer, run, options.resume)
    if not fabric.is_global_zero:
        return Result()
    score = "" if result.best_score is None else f", best validation mIoU {100 * result.best_score:.1f} %"
    return Result(
        summary=(f"{options.method}: {result.steps} steps in {result.seconds:.0f} s{score}",),
        outputs={"run": run.folder, "model": run.model},
        values={"steps": result.steps, "seconds": result.seconds, "best_mIoU": result.best_score},
    )


def _begin(run: Run, recipe: Mapping[str, Any], data: Mapping[str, Any], resume: bool, fabric: Fabric) -> None:
    """Start or take up the run in the first process; all processes stop together, or one would wait for the others for ever."""
    problem: TilthError | None = None
    if fabric.is_global_zero:
        try:
            if resume:
                run.resume(recipe, data, RESUMABLE_CHANGES)
            else:
                run.start(recipe, data)
        except TilthError as error:
            problem = error
    problem = fabric.broadcast(problem)
    if problem is not None:
        raise problem


def _fit(trainer: Trainer, run: Run, resumed: bool) -> FitResult:
    """Train to the end. Wrong data shows in the first step: a run without a step is not kept, it would be in the way of the next try."""
    try:
        return trainer.fit()
    except BaseException:
        if trainer.step == 0 and trainer.fabric.is_global_zero and not resumed:
            shutil.rmtree(run.folder, ignore_errors=True)
        raise


def _open(paths: tuple[Path, ...]) -> Catalog:
    from tilth.catalog.table import Catalog

    return _concat([Catalog.open(path) for path in paths])


def _concat(catalogs: list[Catalog]) -> Catalog:
    from tilth.catalog.table import Catalog

    return catalogs[0] if len(catalogs) == 1 else Catalog.concat(catalogs)


def _labelled(options: TrainOptions) -> tuple[Catalog, Catalog | None]:
    """The labelled tiles to learn from, and those to validate on."""
    from tilth.catalog.split import subset

    everything = _open(options.labelled).labelled()
    if not len(everything):
        raise CatalogError(f"{options.labelled[0]}: no tile has a label; build the catalog with masks")
    chosen = everything if options.labelled_split is None else everything.filter(split=options.labelled_split)
    if not len(chosen):
        raise CatalogError(f"{_no_tile(options, everything, options.labelled_split)}; see tilth catalog split")
    if options.labelled_tiles is not None or options.labelled_percent is not None:
        chosen = subset(chosen, tiles=options.labelled_tiles, percent=options.labelled_percent, drop_others=True)
    validation = everything.filter(split=options.validation_split) if options.validation_split is not None else None
    if validation is None or len(validation):
        return chosen, validation
    # By default there is validation where there are tiles for it; a split that was asked for must be there.
    if "validation_split" in options.model_fields_set:
        raise CatalogError(f"{_no_tile(options, everything, options.validation_split)}; validation_split=null trains without validation")
    return chosen, None


def _no_tile(options: TrainOptions, catalog: Catalog, split: str | None) -> str:
    there = sorted({"none" if name is None else str(name) for name in catalog.column("split")})
    return f"{options.labelled[0]}: no labelled tile in split {split!r}; splits there: {', '.join(there)}"


def _pool(paths: tuple[Path, ...], splits: tuple[str | None, ...], labelled: Catalog) -> Catalog | None:
    """The unlabelled pool without the tiles whose labels are learnt from."""
    if not paths:
        return None
    # In a catalog with splits, tiles without one were set aside because they see ground of val or test.
    catalogs = [_open((path,)) for path in paths]
    pool = _concat([part if set(part.counts("split")) <= {None} else part.filter(split=splits) for part in catalogs])
    taken = set(labelled.column("tile_id"))
    pool = pool.take([index for index, tile_id in enumerate(pool.column("tile_id")) if tile_id not in taken])
    if not len(pool):
        there = sorted({"none" if name is None else str(name) for name in _concat(catalogs).column("split")})
        wanted = ", ".join("none" if name is None else name for name in splits)
        raise CatalogError(
            f"{paths[0]}: no tile left for the unlabelled pool in split {wanted}, the labelled ones taken out; splits there: "
            f"{', '.join(there)}; see unlabelled_split"
        )
    return pool


def _model(options: TrainOptions, labelled: Catalog) -> Segmenter:
    from tilth.models.segmenter import Segmenter, build_segmenter

    sensor, scheme = labelled.sensor(), labelled.scheme()
    if options.initial_weights is None:
        return build_segmenter(options.network, sensor, scheme, options.loop.seed)
    model = Segmenter.load(options.initial_weights).train()
    if model.sensor != sensor:
        raise SensorMismatchError(
            f"{options.initial_weights}: a model for sensor {model.sensor.name!r}, the catalog has {sensor.name!r}; "
            "bands and scaling must be the same"
        )
    if model.scheme.names != scheme.names:
        raise CatalogError(
            f"{options.initial_weights}: a model for classes {', '.join(model.scheme.names)}; the catalog has {', '.join(scheme.names)}"
        )
    return model


def _streams(method: Method, name: str, labelled: Catalog, pool: Catalog | None, model: Segmenter) -> dict[str, Catalog]:
    """One catalog for each stream that the method asks for."""
    found = {}
    for stream, wanted in method.streams.items():
        rows = labelled if wanted.source == "labelled" else pool
        if rows is None:
            raise ConfigError(f"method {name!r} learns from unlabelled tiles, too; use tilth pretrain {name} with --unlabelled CATALOG")
        if rows.sensor() != model.sensor:
            raise SensorMismatchError(
                f"the {wanted.source} tiles have sensor {rows.sensor().name!r}, the model {model.sensor.name!r}; "
                "all tiles must come in the same bands and scaling"
            )
        if wanted.differs_from and len(rows) < 2:
            raise CatalogError(f"method {name!r} mixes tiles of the unlabelled pool, which has only one; give at least two")
        found[stream] = rows
    return found


def _resolved(options: TrainOptions, method: Method) -> dict[str, Any]:
    """The recipe with every default written out, the method's settings too."""
    return options.model_dump(mode="json") | {"settings": {**options.settings, **method.config.model_dump(mode="json")}}


def _describe(streams: Mapping[str, Catalog]) -> dict[str, Any]:
    """What the run was trained on: counts, sources and fingerprints of every stream."""
    return {
        "streams": {
            name: {
                "tiles": len(rows),
                "labelled_tiles": len(rows.labelled()),
                "sensor": rows.sensor().name,
                "splits": {str(key): value for key, value in rows.counts("split").items()},
                "sources": {str(key): value for key, value in rows.counts("source").items()},
                "licences": {str(key): value for key, value in rows.counts("licence").items()},
                "fingerprint": rows.fingerprint(),
            }
            for name, rows in streams.items()
        }
    }
