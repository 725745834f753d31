"""Tiny catalogs and networks to train on: three classes that colours tell apart, and a network of a quarter of a million weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from PIL import Image

from tilth.augment.config import WeakConfig
from tilth.catalog.table import Catalog
from tilth.classes import ClassScheme, LandClass
from tilth.methods.base import build_method
from tilth.models.config import NetworkConfig
from tilth.models.segmenter import Segmenter, build_segmenter
from tilth.sensors import Sensor, get_sensor
from tilth.training.config import LoopConfig
from tilth.training.loop import Trainer
from tilth.training.order import Order
from tilth.training.progress import TrainingProgress
from tilth.training.run import Run
from tilth.training.streams import TileDataset

SCHEME = ClassScheme(
    name="three",
    classes=tuple(
        LandClass(name=name, colour=colour)
        for name, colour in (("water", (30, 60, 140)), ("trees", (40, 110, 40)), ("soil", (170, 140, 100)))
    ),
)
# An encoder of timm made for tests; it has both kinds of batch norm that networks here come with.
NETWORK = NetworkConfig(encoder="test_byobnet", decoder="unet", options={"decoder_channels": [8, 8, 8, 8, 8]})


def make_rows(
    folder: Path,
    prefix: str,
    count: int,
    *,
    split: str | None,
    size: tuple[int, int] = (48, 40),
    labelled: bool = True,
    seed: int = 0,
    ignored: bool = True,
) -> list[dict[str, Any]]:
    """Write PNG tiles of patches in the classes' colours, with noise, and return their catalog rows."""
    folder.mkdir(parents=True, exist_ok=True)
    colours = np.array([item.colour for item in SCHEME.classes])
    rows = []
    for index in range(count):
        draw = np.random.default_rng([seed, index, *prefix.encode()])
        height, width = size
        mask = draw.integers(0, 3, (-(-height // 12), -(-width // 12))).repeat(12, 0).repeat(12, 1)[:height, :width].astype(np.uint8)
        image = np.clip(colours[mask] + draw.normal(0, 40, (height, width, 3)), 0, 255).astype(np.uint8)
        if ignored and index % 3 == 0:
            mask[:5] = 255
        row = {"tile_id": f"{prefix}/{index}", "image": str(folder / f"{prefix}{index}.png"), "window": (0, 0, width, height)}
        row |= {"sensor": "rgb", "split": split}
        Image.fromarray(image).save(row["image"])
        if labelled:
            row |= {"label": str(folder / f"{prefix}{index}_mask.png"), "label_kind": "clean", "scheme": SCHEME.name}
            Image.fromarray(mask).save(row["label"])
        rows.append(row)
    return rows


def catalog_of(rows: list[dict[str, Any]]) -> Catalog:
    return Catalog.from_rows(rows, {"rgb": get_sensor("rgb")}, {SCHEME.name: SCHEME})


def tiles_and_pool(folder: Path) -> tuple[Catalog, Catalog]:
    """Five labelled tiles and a pool of seven without labels, in memory."""
    return catalog_of(make_rows(folder, "lab", 5, split="train")), catalog_of(make_rows(folder, "pool", 7, split=None, labelled=False))


def write_catalogs(folder: Path, size: tuple[int, int] = (48, 40), ignored: bool = True) -> tuple[Path, Path]:
    """Five labelled tiles with three for validation, and a pool of seven without labels; returns the two catalog files."""
    labelled = make_rows(folder, "lab", 5, split="train", size=size, ignored=ignored) + make_rows(folder, "val", 3, split="val", size=size)
    pool = make_rows(folder, "pool", 7, split=None, size=size, labelled=False)
    return catalog_of(labelled).save(folder / "labelled.parquet"), catalog_of(pool).save(folder / "pool.parquet")


def words(labelled: Path, pool: Path, out: Path, *more: str) -> list[str]:
    """Return the command line of a short pre-training with average, validation and a network that learns within it."""
    settings = {
        "network.encoder": NETWORK.encoder,
        "network.options": "{decoder_channels: [8, 8, 8, 8, 8]}",
        "weak.size": "32",
        "loop.steps": "12",
        "loop.batch_size": "4",
        "loop.log_every": "1",
        "loop.checkpoint_every": "4",
        "loop.validate_every": "3",
        "loop.average_decay": "0.9",
        "loop.learning_rate": "0.003",
        "loop.accelerator": "cpu",
        "inference.window": "64",
        "inference.overlap": "16",
        "settings.threshold": "0.4",
    }
    settings |= dict(item.split("=", 1) for item in more if not item.startswith("--"))
    if settings.get("settings.variant", "fixmatch") not in ("fixmatch", "unimatch"):
        del settings["settings.threshold"]
    flags = [item for item in more if item.startswith("--")]
    catalogs = ["--labelled", str(labelled), "--unlabelled", str(pool), "--out", str(out)]
    return ["pretrain", "s4p", *catalogs, *flags, *(f"{key}={value}" for key, value in settings.items())]


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def tiny_model(sensor: Sensor | None = None, network: NetworkConfig = NETWORK, seed: int = 0) -> Segmenter:
    return build_segmenter(network, sensor or get_sensor("rgb"), SCHEME, seed)


class Recorder:
    """Keeps what a training says."""

    def __init__(self) -> None:
        self.statuses: list[str] = []
        self.warnings: list[str] = []

    def status(self, text: str) -> None:
        self.statuses.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def make_trainer(
    folder: Path,
    loop: dict[str, Any],
    *,
    catalogs: tuple[Catalog, Catalog],
    method: str = "s4p",
    settings: dict[str, Any] | None = None,
    network: NetworkConfig = NETWORK,
    weak: dict[str, Any] | None = None,
    validate: Any = None,
    sensor: Sensor | None = None,
    start: bool = True,
) -> tuple[Trainer, Recorder]:
    """Wire a trainer in this process, as the verb does."""
    config = LoopConfig(**{"steps": 4, "batch_size": 2, "accelerator": "cpu", "log_every": 1, **loop})
    built = build_method(method, settings or {}, tiny_model(sensor, network))
    streams = {name: catalogs[0] if wanted.source == "labelled" else catalogs[1] for name, wanted in built.streams.items()}
    order = Order(config.seed, built.streams, {name: len(rows) for name, rows in streams.items()}, config.batch_size)
    crop = WeakConfig(**{"size": 32, **(weak or {})})
    run, recorder = Run(folder), Recorder()
    if start:
        run.start({"loop": config.model_dump(mode="json")}, {"streams": {}})
    precision = "32-true" if config.precision == "32" else config.precision
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
    dataset = TileDataset(order, streams, len(SCHEME), crop)
    return Trainer(built, dataset, run, config, crop, fabric, TrainingProgress(recorder, config.steps), validate), recorder


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Copy the weights of the model that is trained."""
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Say whether weights are the same, bit by bit."""
    return all(torch.equal(value, second[name]) for name, value in first.items())
