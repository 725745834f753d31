"""How long catalogs take, and how much memory, from ten thousand rows to a million.

    python benchmarks/catalog.py [--rows 10000 100000 1000000]

Every step runs in a process of its own, on a catalog file of invented tiles: one image file a tile, a label for every second, a footprint
for each, blocks of ground of 25 tiles. Prints seconds by the clock and of the processor, the peak of memory (MiB, of which some 150 are
the libraries), and how many times as long the processor takes for a row of the largest catalog as for one of the smallest. No pixels are
read: that costs what the disk and the format cost.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import shapely

from tilth.catalog.check import check_catalog
from tilth.catalog.config import SplitConfig
from tilth.catalog.split import split_catalog
from tilth.catalog.table import Catalog
from tilth.classes import ClassScheme, LandClass
from tilth.sensors import get_sensor

STEPS = ("make", "save", "open", "go through", "one by one", "filter and take", "fingerprint", "split", "check table")
DRAWS = 10_000
"""Rows looked up one by one, in random order."""


def make(rows: int) -> Catalog:
    """Make a catalog of a grid of tiles of 256 x 256 pixels of 10 m, each its own image."""
    place = np.arange(rows)
    side = int(np.ceil(np.sqrt(rows)))
    # 2.56 km in degrees at the equator, with gaps so that no tiles overlap.
    west, south = 0.0231 * (place % side), -20 + 0.0231 * (place // side)
    numbers = pa.array(place).cast(pa.string())
    names = pa.compute.utf8_lpad(numbers, 7, "0")
    join = pa.compute.binary_join_element_wise
    labelled = pa.array(place % 2 == 0)
    table = pa.table(
        {
            "tile_id": join("grid", names, "/"),
            "image": join("/data/grid/images/tile_", names, ".tif", ""),
            "window": pa.FixedSizeListArray.from_arrays(np.tile(np.array([0, 0, 256, 256], np.int32), rows), 4),
            "crs": pa.repeat("EPSG:4326", rows),
            "geometry": pa.array(shapely.to_wkb(shapely.box(west, south, west + 0.023, south + 0.023))),
            "sensor": pa.repeat("s2_l2a", rows),
            "label": pa.compute.if_else(labelled, join("/data/grid/masks/tile_", names, ".png", ""), None),
            "label_kind": pa.compute.if_else(labelled, "clean", "none"),
            "scheme": pa.compute.if_else(labelled, "cover", None),
        }
    )
    scheme = ClassScheme(name="cover", classes=(LandClass(name="water", colour=(0, 0, 255)), LandClass(name="land", colour=(0, 255, 0))))
    return Catalog(table, {"s2_l2a": get_sensor("s2_l2a")}, {"cover": scheme})


def go_through(catalog: Catalog) -> None:
    """Make the tile of every row."""
    for _ in catalog.tiles():
        pass


def look_up(catalog: Catalog) -> None:
    """Make tiles one by one, in random order."""
    for index in np.random.default_rng(0).integers(len(catalog), size=DRAWS).tolist():
        catalog.tile(index)


def choose(catalog: Catalog) -> None:
    """Filter by two columns, and take a random half of what is left."""
    kept = catalog.filter(label_kind="clean", sensor="s2_l2a")
    kept.take(np.random.default_rng(0).permutation(len(kept))[: len(kept) // 2])


def step(name: str, rows: int, folder: Path) -> None:
    """Do one step and print its seconds, those of the processor, and the peak of memory in MiB."""
    file = folder / f"{rows}.parquet"
    actions: dict[str, Callable[[Catalog], Any]] = {
        "save": lambda catalog: catalog.save(folder / "again.parquet"),
        "go through": go_through,
        "one by one": look_up,
        "filter and take": choose,
        "fingerprint": Catalog.fingerprint,
        "split": lambda catalog: split_catalog(catalog, SplitConfig(block_m=13_000, rank_labels=False)).save(folder / f"{rows}s.parquet"),
        "check table": lambda catalog: check_catalog(catalog, headers=False),
    }
    source: Catalog | None = None
    if name not in ("make", "open"):
        source = Catalog.open(folder / f"{rows}s.parquet" if name == "check table" else file)
    began, used = time.perf_counter(), time.process_time()
    made = make(rows) if name == "make" else Catalog.open(file) if source is None else actions[name](source)
    print(time.perf_counter() - began, time.process_time() - used, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    if name == "make":
        made.save(file)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        step(arguments.step[0], arguments.rows[0], Path(arguments.step[1]))
        return
    print(f"{os.cpu_count()} cores, pyarrow {pa.__version__}, shapely {shapely.__version__}")
    print(f"{'':16}" + "".join(f"{rows:>17,} rows  " for rows in arguments.rows))
    print(f"{'':16}" + f"{'seconds':>9}{'CPU':>7}{'MiB':>6}  " * len(arguments.rows) + f"{'cost of a row':>16}")
    with tempfile.TemporaryDirectory() as folder:
        for name in STEPS:
            line, costs = f"{name:16}", []
            for rows in arguments.rows:
                command = [sys.executable, __file__, "--rows", str(rows), "--step", name, folder]
                seconds, used, peak = map(float, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
                line += f"{seconds:>9.2f}{used:>7.2f}{peak:>6.0f}  "
                costs.append(used / (1 if name == "one by one" else rows))
            print(f"{line}{costs[-1] / costs[0]:>14.2f} x", flush=True)


if __name__ == "__main__":
    main()
