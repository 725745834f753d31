"""What a training would take, said before it is done: steps, tiles, passes, memory and time."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilth.training.wording import time_in_words
from tilth.verbs.options import SpeedConfig
from tilth.verbs.train_options import FinetuneOptions, PretrainOptions

if TYPE_CHECKING:
    from tilth.models.config import NetworkConfig
    from tilth.training.estimate import StepCost
    from tilth.training.rates import Rates
    from tilth.verbs.train_data import TrainingTiles

ASSUMED_SENSOR, ASSUMED_CLASSES = "rgb", 16
"""Of catalogs that are not there yet: S5's."""

UNKNOWN = (
    "not counted: reading tiles, their crop and resize, validation, checkpoints, waiting of devices for each other; memory of the program "
    "itself, of the libraries, and gaps that an allocator leaves (on CPUs up to four tenths more were seen)"
)


@dataclass(frozen=True)
class Foresight:
    """What a training would take.

    Attributes:
        lines: for people.
        values: the same for programs: counts, bytes and seconds.
    """

    lines: tuple[str, ...]
    values: dict[str, Any]


def foresee(options: PretrainOptions | FinetuneOptions, *, tiles_there: bool = True, rates: Rates | None = None) -> Foresight:
    """Say what a training would take. Catalogs are opened, weights are not read, nothing is trained or written.

    Args:
        options: of the training.
        tiles_there: open the catalogs. If not, tiles are not counted, and :data:`ASSUMED_SENSOR` and :data:`ASSUMED_CLASSES` stand
            for theirs.
        rates: what was measured on this machine before; measured here where it is asked for and not given.

    Raises:
        TilthError: whatever is wrong with options or catalogs.
    """
    from tilth.methods.base import choose_method
    from tilth.training.estimate import estimate_step
    from tilth.training.feature_plan import foresee_features
    from tilth.verbs.train_data import tiles_of
    from tilth.verbs.train_model import NO_CLASSES
    from tilth.verbs.train_streams import assign_streams

    kind, settings = choose_method(options.method, options.settings)
    tiles: TrainingTiles | None = None
    sensor, scheme = _assumed()
    if tiles_there:
        tiles = tiles_of(options)
        sensor = tiles.learnt_from.sensor()
        assign_streams(kind.streams, options.method, tiles, sensor)
        scheme = NO_CLASSES if tiles.labelled is None else tiles.labelled.scheme()
    network = network_of(options)
    cost = estimate_step(options.method, options.settings, network, sensor, scheme, options.loop, options.weak.size)
    rates = given_rates(options.speed) or rates or measured_rates(options)
    seconds = rates.seconds(cost)
    counts, walked = _counts(tiles), _counts(tiles, {stream.source for stream in kind.streams.values() if stream.seasons})
    shown = dict.fromkeys(counts, options.loop.steps * options.loop.batch_size)
    if "target" in counts:
        last = kind.Config.parse(settings, source=f"settings of method {options.method!r}").model_dump()["target_share"]
        shown |= {"unlabelled": (1 - last) * shown["unlabelled"], "target": last * shown["target"]}
    values = {
        "network": network.title,
        "steps": options.loop.steps,
        "tiles": counts,
        "passes": {name: shown[name] / count for name, count in walked.items()},
        **asdict(cost),
        "operations": cost.operations,
        "seconds_a_step": seconds,
        "seconds": options.loop.steps * seconds,
    }
    lines = _lines(options, values, cost, rates, tiles is None)
    if tiles is not None:
        size, loop = options.weak.size, options.loop
        kept = foresee_features(kind, settings, network, tiles.learnt_from, len(scheme), size, loop)
        lines += [] if kept is None else [kept]
    return Foresight(tuple(lines), values)


def same_work(options: PretrainOptions | FinetuneOptions) -> str:
    """Give trainings that take the same memory and time, such as those of several seeds, the same text."""
    tree = options.model_dump(mode="json", exclude={"out", "resume", "initial_weights"})
    tree["loop"].pop("seed")
    return json.dumps([tree, network_of(options).model_dump(mode="json")], sort_keys=True)


def network_of(options: PretrainOptions | FinetuneOptions) -> NetworkConfig:
    """Find the network: that of the folder that the training starts from, if it is there, or that of the options."""
    from tilth.models.config import NetworkConfig
    from tilth.models.weights.importing import folder_of_ours, kind_of
    from tilth.models.weights.layouts.cromss import PARTS

    folder = None if options.initial_weights is None else folder_of_ours(options.initial_weights)
    if folder is None or kind_of(folder) not in ("tilth-segmenter", "tilth-encoder"):
        return options.network
    branch, _, part = (options.take or "").partition(":")
    tree = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    network = NetworkConfig.parse(tree["network"], source=str(folder))
    in_parts = branch in PARTS
    if (part or in_parts) and "network" in options.model_fields_set:
        return options.network
    return network.model_copy(update={"fusion": None}) if branch and not in_parts else network


def given_rates(speed: SpeedConfig) -> Rates | None:
    """Return the speed that the user gave, if there is one."""
    from tilth.training.rates import Rates

    if speed.tflops is None:
        return None
    moved = None if speed.gigabytes_per_s is None else speed.gigabytes_per_s * 1e9
    return Rates(speed.tflops * 1e12, speed.tflops * 1e12, moved)


def measured_rates(options: PretrainOptions | FinetuneOptions) -> Rates:
    """Measure the device that the training would use: about a second."""
    import torch

    from tilth.training.rates import measure_rates

    on_gpu = options.loop.accelerator != "cpu" and torch.cuda.is_available()
    return measure_rates(torch.device("cuda" if on_gpu else "cpu"), options.loop.precision)


def _assumed() -> tuple[Any, Any]:
    from tilth.classes import ClassScheme, LandClass
    from tilth.sensors import get_sensor

    classes = tuple(LandClass(name=f"class {index}", colour=(index, index, index)) for index in range(ASSUMED_CLASSES))
    return get_sensor(ASSUMED_SENSOR), ClassScheme(name="assumed", classes=classes)


def _counts(tiles: TrainingTiles | None, by_place: Collection[str] = ()) -> dict[str, int]:
    """Count tiles, or places where a pass goes over these and not over each of their seasons."""
    from tilth.catalog.seasons import find_places

    if tiles is None:
        return {}
    parts = {"labelled": tiles.labelled, "unlabelled": tiles.pool, "target": tiles.target}
    return {name: len(find_places(rows.table) if name in by_place else rows) for name, rows in parts.items() if rows is not None}


def _lines(options: PretrainOptions | FinetuneOptions, values: Mapping[str, Any], cost: StepCost, rates: Rates, assumed: bool) -> list[str]:
    loop = options.loop
    devices = loop.devices * loop.nodes
    share = f", {loop.batch_size // devices} on each of {devices} devices" if devices > 1 else ""
    share += f", in {loop.accumulate} passes" if loop.accumulate > 1 else ""
    passes = ", ".join(f"{values['passes'][name]:,.1f} passes over {count:,} {name} tiles" for name, count in values["tiles"].items())
    tiles = f"not known before the catalogs are there; assumed {ASSUMED_SENSOR}, {ASSUMED_CLASSES} classes" if assumed else passes
    weights = "" if options.initial_weights is None else f"; starts from {options.initial_weights}, which is not read now"
    parts = {
        "weights": cost.weights,
        "gradients": cost.gradients,
        "optimiser": cost.optimiser,
        "average": cost.average,
        "tiles": cost.batches,
        "activations": cost.activations,
    }
    shown = ", ".join(f"{name} {_size(count)}" for name, count in parts.items() if count)
    moved = f"{rates.moved / 1e9:,.0f} GB/s" if rates.moved is not None else "moving numbers not counted"
    kind = (
        f"at {rates.convolutions / 1e12:.2g} TFLOP/s in convolutions, {rates.products / 1e12:.2g} in matrix products, {moved}, measured now"
        if options.speed.tflops is None
        else f"at the speed given: {options.speed.tflops:g} TFLOP/s, {moved}"
    )
    return [
        f"{options.method} trains {values['network']}: {cost.parameters / 1e6:.1f} million parameters{weights}",
        f"steps: {loop.steps:,} of {loop.batch_size} tiles of each stream{share}",
        f"tiles: {tiles}",
        f"memory of each device: at least {_size(cost.peak)} ({shown}; not all live at once)",
        f"a step on each device: {cost.operations / 1e12:.3g} TFLOP, {cost.moved / 1e9:.3g} GB moved",
        f"time: about {time_in_words(values['seconds_a_step'])} a step, {time_in_words(values['seconds'])} in all, {kind}",
        UNKNOWN,
    ]


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def missing_catalogs(options: PretrainOptions | FinetuneOptions) -> list[Path]:
    """Catalogs that are not there yet, as those that an earlier stage of a recipe will make."""
    pool = (*options.unlabelled, *options.target) if isinstance(options, PretrainOptions) else ()
    return [path for path in (*options.labelled, *pool) if not path.exists()]
