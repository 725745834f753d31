"""How long the decisions of curation take, and how much memory, from ten thousand tiles to a million.

    python benchmarks/curate.py [--rows 10000 100000 1000000] [--folder DIR]

Every size runs in a process of its own, on invented scores of the real layout: features of 768 numbers around 300 kinds of unequal
size, entropies, class pixels, hashes and portraits of pixels. One tile in ten is selected, from 200 clusters that k-means finds among all
tiles of the pool (``diversity.quotas=equal``: the hardest case, since those of labelled tiles are found among fewer). Scoring itself is
not measured: that costs what the model costs.

Prints seconds of the processor for each part, and by the clock in all; the peak of memory of the process's own (MiB), and that with pages
of the score files that the system kept mapped because nobody else needed the room; and how many times as long a row of the largest pool
takes as one of the smallest. Steps of k-means are compared one by one, since their number depends on the data.

``--kill`` kills the process during k-means, starts it again, and compares what it leaves behind with that of a run that was left alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tilth.catalog.shards import write_table
from tilth.catalog.table import Catalog
from tilth.curation.config import DiversityConfig, FilterConfig
from tilth.curation.decide import Plan, decide
from tilth.curation.outcome import describe_rows
from tilth.curation.scoring import plan_work
from tilth.sensors import get_sensor

WIDTH, CLASSES, KINDS, CLUSTERS, SHARD = 768, 16, 300, 200, 8192
PARTS = (
    "plan",
    "open",
    "filters",
    "copies",
    "first centres",
    "k-means",
    "a step of it",
    "assign, select",
    "write",
    "in all",
    "by the clock",
)


def invent_catalog(rows: int) -> Catalog:
    """Make a catalog of tiles of 512 x 512 pixels, a hundred in an image that is not there."""
    place = np.arange(rows)
    join = pc.binary_join_element_wise
    names = pc.utf8_lpad(pa.array(place).cast(pa.string()), 7, "0")
    images = pc.utf8_lpad(pa.array(place // 100).cast(pa.string()), 5, "0")
    windows = np.stack([place % 10 * 512, place // 10 % 10 * 512, np.full(rows, 512), np.full(rows, 512)], axis=1).astype(np.int32)
    table = pa.table(
        {
            "tile_id": join("pool", names, "/"),
            "image": join("/data/pool/image_", images, ".tif", ""),
            "window": pa.FixedSizeListArray.from_arrays(windows.reshape(-1), 4),
            "sensor": pa.repeat("rgb", rows),
            "source": pa.repeat("invented", rows),
        }
    )
    return Catalog(table, {"rgb": get_sensor("rgb")})


def invent_scores(rows: int, seed: int) -> pa.Table:
    """Make the scores of some tiles: features around :data:`KINDS` directions, some of which are much more frequent than others."""
    draw = np.random.default_rng(seed)
    directions = np.random.default_rng(0).standard_normal((KINDS, WIDTH), dtype=np.float32)
    weights = 1 / np.arange(1, KINDS + 1)
    features = directions[draw.choice(KINDS, rows, p=weights / weights.sum())] + draw.standard_normal((rows, WIDTH), dtype=np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    entropy = pa.array(draw.gamma(2, 0.2, rows))
    share = pa.array(draw.random(rows, dtype=np.float32))
    pixels = draw.integers(0, 30_000, (rows, CLASSES), dtype=np.int32)
    # Every twentieth tile shows nothing but background, every thirtieth is the copy of another.
    pixels[::20, 1:] = 0
    digests = draw.integers(1, 2**62, (rows, 2))
    digests[30::30] = digests[29:-1:30]
    return pa.table(
        {
            **{f"entropy_{name}": entropy for name in ("foreground", "all_classes", "foreground_renormalised")},
            **dict.fromkeys(("confidence", "brightness", "contrast"), share),
            "valid": pa.array(np.ones(rows, np.float32)),
            "bright": pa.array(np.zeros(rows, np.float32)),
            "problem": pa.nulls(rows, pa.string()),
            "pixels": pa.FixedSizeListArray.from_arrays(pixels.reshape(-1), CLASSES),
            "digest": pa.array([value.tobytes() for value in digests], pa.binary(16)),
            "portrait": pa.array([value.tobytes() for value in draw.integers(-90, 90, (rows, 1024), dtype=np.int8)], pa.binary(1024)),
            "feature": pa.FixedSizeListArray.from_arrays(features.reshape(-1), WIDTH),
        }
    )


def make(rows: int, folder: Path) -> None:
    """Write a catalog and its scores."""
    catalog = invent_catalog(rows)
    catalog.save(folder / "pool.parquet")
    for number, plan in enumerate(plan_work(Catalog.open(folder / "pool.parquet"), folder, "pool", "invented", SHARD).plans):
        write_table(folder / plan.name, plan.stamp, invent_scores(plan.stop - plan.start, number))


class Clock:
    """Seconds of the processor for each part, told when the next one begins."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.steps = 0
        self._part, self._since, self.began = "", time.process_time(), time.perf_counter()

    def part(self, name: str) -> None:
        """Begin a part."""
        now = time.process_time()
        if self._part:
            self.seconds[self._part] = self.seconds.get(self._part, 0.0) + now - self._since
        self._part, self._since = name, now

    def say(self, text: str) -> None:
        """Take what curation says as the beginning of a part."""
        words = {"looking": "copies", "drawing": "first centres", "finding": "k-means", "assigning": "assign, select"}
        self.part(words[text.partition(" ")[0]])
        self.steps += self._part == "k-means"


def watch(peak: list[int]) -> None:
    """Keep the largest memory of the process's own, in KiB."""
    while True:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                peak[0] = max(peak[0], int(line.split()[1]))
        time.sleep(0.05)


def run(rows: int, folder: Path, steps: int) -> None:
    """Decide about the tiles in a folder, write the catalogs, and print what that took as JSON."""
    peak = [0]
    threading.Thread(target=watch, args=(peak,), daemon=True).start()
    clock = Clock()
    clock.part("open")
    pool = Catalog.open(folder / "pool.parquet")
    clock.part("plan")
    work = plan_work(pool, folder, "pool", "invented", SHARD)
    assert not work.missing()
    clock.part("open")
    scores = work.scores()
    clock.part("filters")
    wanted = Plan(rows // 10, "foreground", FilterConfig(), DiversityConfig(quotas="equal", clusters=CLUSTERS, iterations=steps), (0,))
    made = decide(scores, wanted, pool.table["source"], np.zeros(rows, dtype=bool), None, folder / "clusters.safetensors", clock.say)
    clock.part("write")
    decisions = describe_rows(pool, scores, wanted, made, None)
    decisions.save(folder / "decisions.parquet")
    decisions.take(np.sort(made.taken)).save(folder / "catalog.parquet")
    clock.part("")
    # After a kill there are fewer steps to do. Each is told when it is done, and before the first one where the search is.
    seconds = clock.seconds | {"a step of it": clock.seconds.get("k-means", 0.0) / max(1, clock.steps - 1)}
    seconds |= {"in all": time.process_time(), "by the clock": time.perf_counter() - clock.began}
    size = sum(path.stat().st_size for path in folder.glob("*.arrow"))
    mapped = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    facts = {"own": peak[0] / 1024, "mapped": mapped, "files": size / 2**20, "steps": made.iterations, "selected": len(made.taken)}
    print(json.dumps({"seconds": seconds, **facts}))


def call(rows: int, folder: Path, steps: int) -> list[str]:
    """Words that run one size."""
    return [sys.executable, __file__, "--rows", str(rows), "--steps", str(steps), "--run", str(folder)]


def kill_and_compare(rows: int, folder: Path, steps: int) -> None:
    """Kill a run during k-means, go on, and compare."""
    names = ("catalog.parquet", "decisions.parquet", "clusters.safetensors")

    def hashes() -> list[str]:
        return [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names]

    subprocess.run(call(rows, folder, steps), check=True, capture_output=True)
    left_alone = hashes()
    for name in names:
        (folder / name).unlink()
    process = subprocess.Popen(call(rows, folder, steps), stdout=subprocess.DEVNULL)
    while not (folder / "clusters.safetensors").exists():
        time.sleep(0.01)
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = (folder / "catalog.parquet").exists()
    resumed = json.loads(subprocess.run(call(rows, folder, steps), check=True, capture_output=True, text=True).stdout)
    words = "the same bytes" if hashes() == left_alone else "OTHER BYTES"
    print(f"{rows:,} rows killed during k-means{' (too late: it was done)' if there else ''} and run again: {words}")
    print(f"k-means of the second run: {resumed['seconds']['k-means']:.1f} s")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--folder", type=Path, help="for the invented scores, 4.2 GB for a million tiles")
    parser.add_argument("--steps", type=int, default=100, help="k-means stops after so many at the latest")
    parser.add_argument("--kill", action="store_true", help="kill and resume instead")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        run(arguments.rows[0], arguments.run, arguments.steps)
        return
    print(f"{os.cpu_count()} cores, {WIDTH} numbers a feature, {CLUSTERS} clusters, one tile in ten selected")
    found = []
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as place:
            make(rows, Path(place))
            if arguments.kill:
                kill_and_compare(rows, Path(place), arguments.steps)
                continue
            found.append(
                json.loads(subprocess.run(call(rows, Path(place), arguments.steps), check=True, capture_output=True, text=True).stdout)
            )
            one = found[-1]
            print(
                f"{rows:,} rows: {one['files']:,.0f} MiB of scores, {one['selected']:,} selected, {one['steps']} steps; peak "
                f"{one['own']:,.0f} MiB own, {one['mapped']:,.0f} MiB with mapped pages",
                flush=True,
            )
    if arguments.kill:
        return
    print(f"\n{'seconds':16}" + "".join(f"{rows:>14,}" for rows in arguments.rows) + f"{'cost of a row':>18}")
    for part in PARTS:
        taken = [one["seconds"].get(part, 0.0) for one in found]
        ratio = f"{taken[-1] / arguments.rows[-1] / (taken[0] / arguments.rows[0]):>16.2f} x" if taken[0] else ""
        print(f"{part:16}" + "".join(f"{value:>14.2f}" for value in taken) + ratio)


if __name__ == "__main__":
    main()
