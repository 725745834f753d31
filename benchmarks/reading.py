"""Reading tiles: packed against copying memory, and crops of a scene against torchgeo's RasterDataset and RandomGeoSampler.

    python benchmarks/reading.py [--folder FOLDER] [--repeats 5] [--crops 1000] [--store-mb 1024] [--scene-px 8192]

One process, one thread, page cache warm. GDAL keeps decoded blocks, by itself up to a twentieth of the machine's memory;
scenes are read both so and with a cache of 64 MiB, as it is with scenes that are larger than memory: then decoding takes most of the time.
All rows of a table are measured by turns in one run, so that a busy machine slows all of them; given are medians over the repeats with the
smallest and the largest, and ratios of medians. torchgeo is an optional dependency; without
it its rows are left out. The scenes (about 0.2 GB) and stores (twice ``--store-mb``) are made in a temporary folder and removed, unless
``--folder`` says where they may stay.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import rasterio

from tilth import seeds
from tilth.catalog.pack import pack_catalog
from tilth.catalog.table import Catalog
from tilth.imagery import packed
from tilth.imagery.packing import image_record, shard_file
from tilth.imagery.read import Window, read_pixels
from tilth.sensors import get_sensor

CROP = 256
TILE = 512
"""Side of the tiles that a scene is packed as, in pixels; crops are parts of them, as in training."""
SMALL_CACHE_BYTES = 64 * 2**20
PIXEL_M = 10.0
EAST_M, NORTH_M = 500_000.0, 5_500_000.0
Work = Callable[..., int]
"""Reads, and says how many tiles; scenes take the number to read."""


def describe_machine() -> str:
    """Processor, cores, load and versions."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), processor)
    found = []
    for name in ("numpy", "pyarrow", "rasterio", "torch", "torchgeo"):
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    python = f"Python {platform.python_version()}, GDAL {rasterio.__gdal_version__}, {', '.join(found)}"
    return f"{processor}, {os.cpu_count()} cores{load}, {platform.system()}\n{python}"


def measure(title: str, works: dict[str, Work], repeats: int) -> dict[str, float]:
    """Run all works by turns, print tiles a second, and return the medians."""
    rates: dict[str, list[float]] = {name: [] for name in works}
    for repeat in range(repeats + 1):
        for name, work in works.items():
            began = time.perf_counter()
            count = work()
            seconds = time.perf_counter() - began
            if repeat:  # the first round warms up
                rates[name].append(count / seconds)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    base = next(iter(medians.values()))
    print(f"\n{title}")
    print(f"{'':44} {'tiles/s':>9} {'least':>9} {'most':>9} {'ratio':>8}")
    for name, values in rates.items():
        print(f"{name:44} {medians[name]:9,.0f} {min(values):9,.0f} {max(values):9,.0f} {medians[name] / base:8.2f}")
    return medians


def make_scene(path: Path, bands: int, dtype: str, side: int) -> Path:
    """Write a smooth, noisy scene as tiled GeoTIFF with DEFLATE, 512-pixel blocks, pixel-interleaved."""
    if path.exists():
        return path
    random = seeds.generator("benchmark scene", bands)
    profile = {"driver": "GTiff", "count": bands, "dtype": dtype, "width": side, "height": side, "compress": "deflate", "tiled": True}
    profile |= {"blockxsize": 512, "blockysize": 512, "interleave": "pixel", "crs": "EPSG:32633", "predictor": 2}
    largest = 180 if dtype == "uint8" else 4000
    with rasterio.open(path, "w", transform=rasterio.Affine(PIXEL_M, 0, EAST_M, 0, -PIXEL_M, NORTH_M), **profile) as dataset:
        for row in range(0, side, 512):
            for column in range(0, side, 512):
                fields = random.integers(0, largest, (bands, 17, 17)).repeat(31, 1).repeat(31, 2)[:, :512, :512]
                noise = random.integers(0, largest // 8, (bands, 512, 512))
                dataset.write((fields + noise).astype(dtype), window=((row, row + 512), (column, column + 512)))
    return path


def make_store(folder: Path, bands: int, dtype: str, megabytes: int) -> list[str]:
    """Write a shard of noise tiles; returns their URIs in random order."""
    path = folder / f"store-{bands}-{dtype}-{megabytes}.arrow"
    count = megabytes * 2**20 // (bands * CROP * CROP * np.dtype(dtype).itemsize)
    if not path.exists():
        random = seeds.generator("benchmark store", bands)
        source = folder / "tile.npy"
        with shard_file(path, "benchmark") as append:
            for index in range(count):
                np.save(source, random.integers(0, 255, (bands, CROP, CROP), dtype=np.uint8).astype(dtype))
                append(image_record(str(index), str(source), Window(0, 0, CROP, CROP), "raw"))
        source.unlink()
    return [f"{path}#{row}" for row in seeds.generator("benchmark order", count).permutation(count)]


def copies(uris: list[str]) -> Work:
    """Nothing but what any reader must do: a fresh array, and the tile's bytes copied into it from the mapped file."""
    read_pixels(uris[0])
    shard = packed._shards[uris[0].rpartition("#")[0]]
    places = [shard.index[int(uri.rpartition("#")[2])].tolist() for uri in uris]
    dtype = shard.kinds[0][0]
    tiles = [np.ndarray(tuple(place[2:5]), dtype, shard.mapped, place[0]) for place in places]

    def work() -> int:
        for tile in tiles:
            np.copyto(np.empty(tile.shape, tile.dtype), tile)
        return len(tiles)

    return work


def reads(tiles: list[tuple[str, Window | None]]) -> Work:
    """Read through tilth's public function."""

    def work() -> int:
        for uri, window in tiles:
            read_pixels(uri, window)
        return len(tiles)

    return work


def torchgeo_crops(folder: Path, name: str, crops: int) -> Work | None:
    """Read random crops as torchgeo's users do: a raster dataset, a random sampler, ``dataset[query]``."""
    try:
        from torchgeo.datasets import RasterDataset
        from torchgeo.samplers import RandomGeoSampler
    except ImportError:
        return None

    class Scene(RasterDataset):
        filename_glob = name

    dataset = Scene(str(folder))

    def work(crops: int = crops) -> int:
        for query in RandomGeoSampler(dataset, size=CROP, length=crops):
            sample = dataset[query]
        assert sample["image"].shape[-2:] == (CROP, CROP)
        return crops

    return work


def compare_scene(folder: Path, bands: int, dtype: str, side: int, crops: int, repeats: int) -> None:
    """Measure crops of one scene, drawn anew in every round, with a large and a small cache of decoded blocks."""
    scene = make_scene(folder / f"scene-{bands}-{side}.tif", bands, dtype, side)
    random = seeds.generator("benchmark crops", bands)
    grid = side // TILE
    sensor = get_sensor("rgb" if bands == 3 else "s2_l1c")
    rows = [
        {"tile_id": f"t/{row}/{column}", "image": str(scene), "window": (TILE * column, TILE * row, TILE, TILE), "sensor": sensor.name}
        for row, column in np.ndindex(grid, grid)
    ]
    report = pack_catalog(Catalog.from_rows(rows, {sensor.name: sensor}), folder / f"packed-{bands}-{side}")
    tiles = report.catalog.column("image")

    def direct(crops: int = crops) -> int:
        places = random.integers(0, side - CROP + 1, (crops, 2)).tolist()
        return reads([(str(scene), Window(column, row, CROP, CROP)) for column, row in places])()

    def from_pack(crops: int = crops) -> int:
        chosen = random.integers(0, len(tiles), crops).tolist()
        places = random.integers(0, TILE - CROP + 1, (crops, 2)).tolist()
        return reads([(tiles[tile], Window(column, row, CROP, CROP)) for tile, (column, row) in zip(chosen, places, strict=True)])()

    works: dict[str, Work] = {}
    theirs = torchgeo_crops(folder, scene.name, crops)
    if theirs is not None:
        works["torchgeo RasterDataset, RandomGeoSampler"] = theirs
    works |= {"tilth, from the GeoTIFF": direct, "tilth, packed": from_pack}
    megabytes = scene.stat().st_size / 2**20
    title = f"random {CROP} px crops, {side} x {side} scene, {bands} bands {dtype}, {megabytes:,.0f} MiB DEFLATE"
    measure(f"{crops} {title}", works, repeats)
    with rasterio.Env(GDAL_CACHEMAX=SMALL_CACHE_BYTES):
        few = max(1, crops // 5)
        works = {name: (lambda work=work: work(few)) for name, work in works.items()}
        measure(f"{few} {title}, block cache {SMALL_CACHE_BYTES >> 20} MiB", works, repeats)


@contextlib.contextmanager
def place(folder: Path | None) -> Iterator[Path]:
    """The folder to work in, removed afterwards unless it was named."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--crops", type=int, default=1000)
    parser.add_argument("--store-mb", type=int, default=1024)
    parser.add_argument("--scene-px", type=int, default=8192)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    with contextlib.suppress(ImportError):
        import torch

        torch.set_num_threads(1)
    options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in vars(arguments).items() if name != "folder")
    print(f"{describe_machine()}\none process, one thread; python benchmarks/reading.py {options}")
    with place(arguments.folder) as folder:
        for bands, dtype in ((3, "uint8"), (13, "uint16")):
            uris = make_store(folder, bands, dtype, arguments.store_mb)
            works = {"np.copyto into a fresh array": copies(uris), "read_pixels, packed raw": reads([(uri, None) for uri in uris])}
            measure(f"{len(uris)} packed tiles of {CROP} px, {bands} bands {dtype}, in random order", works, arguments.repeats)
        compare_scene(folder, 3, "uint8", arguments.scene_px, arguments.crops, arguments.repeats)
        compare_scene(folder, 13, "uint16", arguments.scene_px // 4, arguments.crops, arguments.repeats)


if __name__ == "__main__":
    main()
