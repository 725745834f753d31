"""A step of S4P (FixMatch), piece by piece, against the published order of work: same network, batch, tiles, crops, colours and boxes.

    python benchmarks/s4p_step.py [--networks upernet_vit_b:128:2,resnet18:128:8] [--repeats 3] [--threads 1] [--tile 512] [--workers 1]
        [--crops 128,512] [--parts equal,steps,crops,waiting,flips] [--device cpu|cuda] [--model FOLDER --tiles CATALOG]

The published order (published_order.py) makes three loads an unlabelled image with Pillow and torchvision, labels both unlabelled batches
in full precision, and computes attention explicitly; the student is in full precision or, as published, in mixed precision ("bf16").
Ours is the real training loop. Both read JPEG tiles in the measured process itself (``workers=0``), so that all work counts. Both keep
freed memory as our loop does on CPUs, though the published program would not.

equal    losses of one batch in fp32: the same views in both orders (they must agree within 1e-4), and each order with its own views.
steps    seconds of each piece and way, all ways in turns, so that a busy machine slows all; the first round warms up and does not count.
         On a CPU with one thread pieces are told in processor time, which hardly feels other programs, and ratios in both clocks. Images
         are labelled and unlabelled crops. On a GPU also peak memory and the share of the dense bf16 peak (``--peak-tflops``).
crops    unlabelled crops ready to be learnt from, a second and core, from JPEG files and from a packed store.
waiting  share of the time in which our real loop waits for its loader processes.
flips    what bf16 in the teacher changes: labels, and accepted pixels, of a network trained for ``--flip-steps`` steps, or of ``--model``.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch

from measuring import Stopwatch, count_flops, machine, peak_mib, spread, timed, waiter
from published_order import Unlabelled
from s4p_ways import CLASSES, WAYS, Bench, buffers_of, confidences, make_tiles, put_back
from tilth.augment.config import StrongConfig, WeakConfig
from tilth.augment.cutmix import boxes
from tilth.augment.strong import strong_view
from tilth.batch import Batch
from tilth.catalog.pack import pack_catalog
from tilth.catalog.table import Catalog
from tilth.imagery.read import read_pixels
from tilth.methods.s4p.family import S4P
from tilth.methods.s4p.fixmatch import FixMatchConfig
from tilth.models.networks import build_network
from tilth.models.segmenter import Segmenter
from tilth.sensors import get_sensor
from tilth.training.memory import kept_memory
from tilth.training.streams import TileDataset, collate, to_batch

PIECES = ("read", "weak view", "strong view", "teacher", "student", "backward", "optimiser", "rest")
TOLERANCE = 1e-4


def check_equal(bench: Bench) -> None:
    """Compare the losses of one batch, and choose a threshold that a fresh network's confidences straddle.

    Raises:
        SystemExit: the losses differ.
    """
    trainer, loader = bench.trainer(WAYS[2]), bench.published_loader()
    raw = next(trainer._batches())[0]
    place = torch.device(bench.device)
    batches = {stream: to_batch(one, trainer.model.sensor, bench.size, place) for stream, one in raw.items()}
    labelled, first, other = loader.labelled(0), loader.unlabelled(0), loader.unlabelled(0, "partner")
    kept = buffers_of(bench.model)
    # Between two confidences that are far apart, so that no pixel changes sides by rounding.
    sure = confidences(bench.model, torch.cat([batches["unlabelled"]["image"], batches["partner"]["image"]])).flatten().sort().values
    middle = sure[int(0.4 * len(sure)) : int(0.6 * len(sure))]
    gap = int((middle[1:] - middle[:-1]).argmax())
    bench.set_threshold(float((middle[gap] + middle[gap + 1]) / 2))

    def of_ours() -> list[float]:
        put_back(bench.model, kept)
        torch.manual_seed(0)
        trainer.stepper.trained.train()
        return [2 * float(value.detach()) for value in trainer.stepper.losses(trainer.step, batches).terms.values()]

    def of_theirs(x: tuple[torch.Tensor, torch.Tensor], *views: Unlabelled) -> list[float]:
        put_back(bench.model, kept)
        torch.manual_seed(0)
        return [float(value.detach()) for value in bench.published_losses(x, *views, WAYS[0])]

    pairs = [(batches["unlabelled"], first), (batches["partner"], other)]
    given = [dataclasses.replace(theirs, weak=batch["image"], strong=_strong(batch)) for batch, theirs in pairs]
    x = batches["labelled"]
    ours, same, own = of_ours(), of_theirs((x["image"], x["mask"]), *given), of_theirs(labelled, first, other)
    put_back(bench.model, kept)
    weak = max(float((batch["image"].cpu() - theirs.weak).abs().max()) for batch, theirs in pairs)
    strong = float((given[0].strong.cpu() - first.strong).abs().mean())
    print(f"weak views differ by at most {weak:.1e}, strong ones on average by {strong:.3f} deviations (8-bit rounding, Pillow's blur)")
    for name, found in (("tilth", ours), ("published order, same views", same), ("published order, views by Pillow", own)):
        print(f"{name:34} labelled {found[0]:.6f}  unlabelled {found[1]:.6f}")
    apart = max(abs(one - two) for one, two in zip(ours, same, strict=True))
    print(f"largest difference with the same views: {apart:.1e}")
    if weak > TOLERANCE or apart > TOLERANCE or not ours[1] > 0:
        raise SystemExit("the two orders do not compute the same losses")


def _strong(batch: Batch) -> torch.Tensor:
    # Without ``valid``: our FixMatch changes padding like everything else, as the published program does.
    return strong_view(batch["image"], get_sensor("rgb"), batch["draw"], StrongConfig())


def measure_steps(bench: Bench, arguments: argparse.Namespace) -> None:
    """Time all ways in turns and print them."""
    ways = [way for way in WAYS if bench.config.name or way.name != "checkpointing"]
    clock = time.process_time if bench.device == "cpu" and arguments.threads == 1 else time.perf_counter
    watch = Stopwatch(waiter(bench.device), clock)
    steps = {way.name: bench.steps(way, watch) for way in ways}
    totals: dict[str, list[tuple[float, float]]] = {way.name: [] for way in ways}
    pieces: dict[str, list[dict[str, float]]] = {way.name: [] for way in ways}
    memory: dict[str, float] = {}
    for number in range(arguments.repeats + 1):
        # Turn about: what comes first is not always the same.
        for way in sorted(ways, key=lambda one: one.name, reverse=bool(number % 2)):
            with bench.laid_out(way), kept_memory(torch.device(bench.device)):
                if bench.device == "cuda" and number == arguments.repeats:
                    memory[way.name] = peak_mib(lambda one=way.name: next(steps[one]), bench.device)
                    continue
                watch.start()
                took = timed(lambda one=way.name: next(steps[one]), bench.device)
            if number:
                totals[way.name].append(took)
                pieces[way.name].append(watch.pieces)
    print(f"\n{'milliseconds':14}" + "".join(f"{way.name:>16}" for way in ways))
    for piece in PIECES:
        found = [1e3 * statistics.median(one.get(piece, 0.0) for one in pieces[way.name]) for way in ways]
        print(f"{piece:14}" + "".join(f"{value:16.0f}" for value in found))
    print(f"{'all':14}" + "".join(f"{1e3 * statistics.median(sum(one.values()) for one in pieces[way.name]):16.0f}" for way in ways))
    print(f"\n{'':16} {'images a second':>24} {'to published fp32':>24} {'to published bf16':>24} {'the same, processor':>20}")
    for way in ways:
        rates = [2 * bench.batch / wall for wall, _ in totals[way.name]]
        shown = [
            spread([theirs[0] / own[0] for theirs, own in zip(totals[base], totals[way.name], strict=True)], "6.2f")
            for base in ("published fp32", "published bf16")
        ]
        busy = [
            statistics.median(theirs[1] / own[1] for theirs, own in zip(totals[base], totals[way.name], strict=True))
            for base in ("published fp32", "published bf16")
        ]
        print(f"{way.name:16} {spread(rates, '6.2f'):>24} {shown[0]:>24} {shown[1]:>24} {busy[0]:10.2f} {busy[1]:8.2f}")
    if bench.device == "cuda":
        forward, both = (count_flops(lambda: build_network(bench.config, 3, CLASSES), bench.size, backward=back) for back in (False, True))
        for way in ways:
            labelled_by_teacher = 2 if way.published else 1 if way.partner == "batch" else 1.5
            work = bench.batch * (2 * both + labelled_by_teacher * forward)
            rate = work / statistics.median(wall for wall, _ in totals[way.name])
            print(f"{way.name:16} peak {memory[way.name]:8.0f} MiB   {rate / (arguments.peak_tflops * 1e12):6.1%} of the dense bf16 peak")


def measure_crops(folder: Path, size: int, arguments: argparse.Namespace) -> None:
    """Print how many unlabelled crops are ready a second."""
    pool = make_tiles(folder, "pool", 32, arguments.tile)
    packed = pack_catalog(pool, folder / "packed").catalog
    batch, place = 8, torch.device(arguments.device)
    sensor, config = get_sensor("rgb"), FixMatchConfig()
    with kept_memory(torch.device("cpu")):
        bench = Bench("resnet18", size, batch, (make_tiles(folder, "labelled", 4, arguments.tile), pool), folder, arguments.device)
        loader, order = bench.published_loader(), bench.trainer(WAYS[2]).dataset.order

        def read(dataset: TileDataset, stream: str, step: int) -> object:
            return collate([dataset[stream, step, slot] for slot in range(batch)])

        def ready(dataset: TileDataset, step: int, streams: tuple[str, ...]) -> None:
            batches = {stream: to_batch(read(dataset, stream, step), sensor, size, place) for stream in streams}
            method = cast("S4P", bench.trainer(WAYS[2] if len(streams) > 1 else WAYS[4]).method)
            box = boxes(batches["unlabelled"]["draw"], size, size, config.cutmix)
            u = method.pool(batches, box)
            u.mixed(box, strong_view(u.image, sensor, u.draw, config.strong))

        works: dict[str, Callable[[int], object]] = {
            "published order: both loads of an image": lambda step: [loader.unlabelled(step, name) for name in ("unlabelled", "partner")],
            "published order: one load": loader.unlabelled,
        }
        for kind, rows in (("JPEG", pool), ("packed", packed)):
            dataset = TileDataset(order, {"unlabelled": rows, "partner": rows}, CLASSES, WeakConfig(size=size))
            works |= {
                f"{kind}, partner=stream": lambda step, own=dataset: ready(own, step, ("unlabelled", "partner")),
                f"{kind}, partner=batch": lambda step, own=dataset: ready(own, step, ("unlabelled",)),
                f"{kind}, read alone (a GPU does the rest)": lambda step, own=dataset: read(own, "unlabelled", step),
            }
        rates: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
        for repeat in range(arguments.repeats + 1):
            for name, work in works.items():
                took = timed(lambda step=repeat, do=work: do(step), arguments.device)
                if repeat:
                    rates[name].append((batch / took[0], batch / took[1]))
    base = statistics.median(used for _, used in rates["published order: both loads of an image"])
    print(f"\n{arguments.tile} px tiles, {size} px crops: unlabelled crops a second (wall) and a second of one core, ratio of the latter")
    for name, found in rates.items():
        used = statistics.median(one for _, one in found)
        print(f"{name:42} {spread([wall for wall, _ in found], '7.1f')} {used:9.1f} {used / base:7.2f}", flush=True)


def measure_waiting(bench: Bench, arguments: argparse.Namespace) -> None:
    """Print the share of time that our loop waits for data."""
    for way in WAYS[2:5]:
        trainer = bench.trainer(way, arguments.workers)
        bench.set_threshold(bench.threshold)
        trainer.step = 0
        batches, waited, began = trainer._batches(), 0.0, 0.0
        with kept_memory(torch.device(bench.device)):
            for number in range(arguments.wait_steps + 2):
                if number == 2:  # workers have started, and what they read ahead while the first step ran is used up or not
                    waited, began = 0.0, time.perf_counter()
                asked = time.perf_counter()
                raw = next(batches)
                waited += time.perf_counter() - asked
                trainer.stepper.take(trainer.step, raw)
                trainer.step += 1
            waiter(bench.device)()
        share = waited / (time.perf_counter() - began)
        batches.close()
        print(f"{way.name:16} {arguments.workers} loader process(es): {share:.2%} of the time is waiting for data", flush=True)


def measure_flips(folder: Path, arguments: argparse.Namespace) -> None:
    """Print what bf16 changes in pseudo-labels."""
    if arguments.model:
        model, tiles = Segmenter.load(arguments.model, arguments.device), Catalog.open(arguments.tiles)
    else:
        tiles = make_tiles(folder, "flips", 16, arguments.tile)
        bench = Bench("resnet10t", 64, 8, (make_tiles(folder, "labelled", 16, arguments.tile), tiles), folder, arguments.device)
        trainer = bench.trainer(WAYS[3])
        trainer.stepper.rate.base = 3e-3
        for raw, _ in zip(trainer._batches(), range(arguments.flip_steps), strict=False):
            trainer.stepper.take(trainer.step, raw)
            trainer.step += 1
        model = bench.model.eval()
    counts = torch.zeros(5, dtype=torch.float64)
    for row in range(min(len(tiles), 32)):
        tile = tiles.tile(row)
        pixels = read_pixels(tile.image, tile.window)
        stored, valid = (torch.from_numpy(one)[None].to(arguments.device) for one in (pixels.data, pixels.valid))
        found = []
        for mixed in (False, True):
            with torch.no_grad(), torch.autocast(arguments.device, torch.bfloat16, enabled=mixed):
                found.append(model(model.normalise(stored, valid)).float().softmax(1).max(1))
        changed = found[0].indices != found[1].indices
        accepted, accepted16 = (one.values >= arguments.threshold for one in found)
        looks = (valid, changed, accepted, accepted ^ accepted16, changed & accepted & accepted16)
        counts += torch.tensor([float(look.sum()) for look in looks])
    pixels_seen, changed_all, taken, other, changed_taken = counts.tolist()
    print(f"\nbf16 in the teacher, {pixels_seen:,.0f} pixels: {changed_all / pixels_seen:.3%} of the labels change")
    print(f"{taken / pixels_seen:.1%} are accepted at {arguments.threshold}; {other / max(taken, 1):.3%} of them are dropped or new,")
    print(f"and {changed_taken / max(taken, 1):.4%} of them are accepted with another label")


def main() -> None:
    """Measure and print."""
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default="upernet_vit_b:512:12" if cuda else "upernet_vit_b:128:2,resnet18:128:8")
    parser.add_argument("--repeats", type=int, default=10 if cuda else 3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--crops", default="128,512")
    parser.add_argument("--workers", type=int, default=8 if cuda else 1)
    parser.add_argument("--wait-steps", type=int, default=50 if cuda else 6)
    parser.add_argument("--flip-steps", type=int, default=120)
    parser.add_argument("--threshold", type=float, default=0.95)
    parser.add_argument("--model", default="")
    parser.add_argument("--tiles", default="")
    parser.add_argument("--parts", default="equal,steps,crops,waiting,flips")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if cuda else "cpu")
    parser.add_argument("--peak-tflops", type=float, default=989.0)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    parts = arguments.parts.split(",")
    print("\n".join(machine(arguments.threads, arguments.device)))
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        if {"equal", "steps", "waiting"} & set(parts):
            for spec in arguments.networks.split(","):
                name, size, batch = spec.split(":")
                print(f"\n== {name}, {size} px, {batch} + {batch} of {arguments.tile} px tiles, {CLASSES} classes")
                catalogs = make_tiles(folder, "labelled", 16, arguments.tile), make_tiles(folder, "pool", 32, arguments.tile)
                bench = Bench(name, int(size), int(batch), catalogs, folder, arguments.device)
                for part, work in (("equal", check_equal), ("steps", measure_steps), ("waiting", measure_waiting)):
                    if part in parts:
                        work(bench) if part == "equal" else work(bench, arguments)
                del bench
        for size in arguments.crops.split(",") if "crops" in parts else ():
            measure_crops(folder, int(size), arguments)
        if "flips" in parts:
            measure_flips(folder, arguments)


if __name__ == "__main__":
    main()
