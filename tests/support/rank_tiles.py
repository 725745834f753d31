"""One of two processes, started as by torchrun: which tiles it is given, and whose boxes it pastes, in every S4P variant."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from support.s4p_steps import SETTINGS, VARIANTS
from support.training_sample import Recorder, tiny_model
from tilth.augment.config import WeakConfig
from tilth.catalog.table import Catalog
from tilth.methods.base import build_method
from tilth.training.config import LoopConfig
from tilth.training.distributed import build_fabric
from tilth.training.loop import Trainer
from tilth.training.order import Order
from tilth.training.progress import TrainingProgress
from tilth.training.run import Run
from tilth.training.streams import TileDataset

STEPS, BATCH = 2, 4
RUNS = [*((variant, "stream") for variant in VARIANTS), ("fixmatch", "batch"), ("wscl", "batch")]
CROP = WeakConfig(size=32)
ALWAYS = {variant: {"cutmix": {"probability": 1}} for variant in VARIANTS} | {"wscl": {"mix_probability": 1.0}}


def dataset_for(streams: dict[str, Any], labelled: str, pool: str) -> TileDataset:
    rows = {name: Catalog.open(labelled if wanted.source == "labelled" else pool) for name, wanted in streams.items()}
    return TileDataset(Order(0, streams, {name: len(one) for name, one in rows.items()}, BATCH), rows, 3, CROP)


def record(labelled: str, pool: str, results: str) -> None:
    config = LoopConfig(steps=STEPS, batch_size=BATCH, devices=2, accelerator="cpu", learning_rate=1e-4)
    fabric, found = build_fabric(config), {}
    for variant, partner in RUNS:
        settings = {"variant": variant, **SETTINGS[variant], **ALWAYS[variant], "partner": partner}
        method = build_method("s4p", settings, tiny_model())
        dataset = dataset_for(dict(method.streams), labelled, pool)
        trainer = Trainer(method, dataset, Run(Path(results) / "run"), config, CROP, fabric, TrainingProgress(Recorder(), STEPS))
        found[f"{variant} {partner}"] = watched(trainer)
    Path(results, f"{fabric.global_rank}.json").write_text(json.dumps(found))
    fabric.barrier()


def watched(trainer: Trainer) -> list[dict[str, Any]]:
    """Train, and tell of each step the tiles of each stream and, for each unlabelled image, whose box it gets."""
    seen: list[dict[str, Any]] = []
    method = trainer.method
    step, pool = method.step, method.pool

    def keep_tiles(batches: Any, number: int) -> Any:
        seen.append({"tiles": {name: batch["tile_id"] for name, batch in batches.items()}, "draws": batches["unlabelled"]["draw"]})
        return step(batches, number)

    def keep_partners(batches: Any, *boxes: Any) -> Any:
        made = pool(batches, *boxes)
        tile_of = {draw: tile for batch in batches.values() for draw, tile in zip(batch["draw"], batch["tile_id"], strict=True)}
        lenders = [made.draw[place] for place in made.partner.tolist()]
        seen[-1]["pasted"] = [(own, tile_of[own], other, tile_of[other]) for own, other in zip(made.draw, lenders, strict=False)]
        return made

    method.step, method.pool = keep_tiles, keep_partners
    for raw in trainer._batches():
        trainer.stepper.take(trainer.step, raw)
        trainer.step += 1
    return seen


if __name__ == "__main__":
    record(*sys.argv[1:4])
