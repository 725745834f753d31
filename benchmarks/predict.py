"""A whole scene against the network alone, in the same run: what reading, blending and writing cost, in time and in memory.

    python benchmarks/predict.py [--size 2048] [--classes 16] [--threads 1] [--repeats 3] [--plain] [--memory 1024,2048,4096]

The network is a U-Net on ResNet-18 with random weights, the scene noise, so labels are as hard to compress as can be; windows of 256
pixels share 64. Printed are seconds, their ratio to the network alone, and the same of processor time, which counts all threads:

- network alone: ``network(window)`` in evaluation mode without gradients, once for each window that the scene has, windows one by one
  as on any CPU, on input that was read and normalised before. Nothing else.
- predict_scene: everything from the file of the scene to the finished Cloud Optimized GeoTIFF: hash of the model, reading,
  normalisation, network, softmax, blending, choice of the class, strips kept to go on from, overviews, ground by class.
- plain loop (``--plain``): what published programs do: one window after the other is read, normalised, computed, moved to an array of
  probabilities of the whole scene, which is divided, decided and written at the end.

``--memory`` measures in fresh processes: highest resident memory (VmHWM of /proc/self/status, reset before) of predict_scene less that
before it, when the model is loaded and has computed a window; scenes are so many rows high and ``--size`` wide.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import rasterio
import torch
from torch import Tensor

from tilth import seeds
from tilth.classes import ClassScheme, LandClass
from tilth.imagery.read import Window, read_pixels
from tilth.models.config import NetworkConfig
from tilth.models.inference import evaluating
from tilth.models.segmenter import Segmenter, build_segmenter
from tilth.models.windows import blend_weights, window_starts
from tilth.prediction.scene import predict_scene
from tilth.sensors import get_sensor

WINDOW, OVERLAP = 256, 64
POOL = 64
"""Windows prepared for the network alone; more than fit any cache."""

Times = tuple[float, float]


def make_model(classes: int) -> Segmenter:
    """A U-Net on ResNet-18 with random weights."""
    scheme = ClassScheme(name="many", classes=tuple(LandClass(name=f"class {index}", colour=(index,) * 3) for index in range(classes)))
    return build_segmenter(NetworkConfig(encoder="resnet18"), get_sensor("rgb"), scheme)


def make_scene(path: Path, height: int, width: int) -> Path:
    """Noise, uint8, three bands, tiled, compressed as scenes are."""
    profile = {"driver": "GTiff", "height": height, "width": width, "count": 3, "dtype": "uint8", "crs": "EPSG:32633"}
    place = rasterio.Affine(10, 0, 5e5, 0, -10, 5e6)
    with rasterio.open(path, "w", **profile, transform=place, tiled=True, compress="deflate", zlevel=1) as dataset:
        for row in range(0, height, 256):
            rows = min(256, height - row)
            block = seeds.generator(0, "scene", row).integers(1, 255, (3, rows, width), dtype=np.uint8)
            dataset.write(block, window=((row, row + rows), (0, width)))
    return path


def windows_of(height: int, width: int) -> list[Window]:
    """The windows that predict_scene computes."""
    rows, columns = (window_starts(size, WINDOW, WINDOW - OVERLAP) for size in (height, width))
    return [Window(column, row, WINDOW, WINDOW) for row in rows for column in columns]


def network_input(model: Segmenter, scene: Path, window: Window) -> Tensor:
    """A window as the network takes it."""
    pixels = read_pixels(str(scene), window)
    return model.normalise(torch.from_numpy(pixels.data)[None].float(), torch.from_numpy(pixels.valid)[None])


def network_alone(model: Segmenter, inputs: list[Tensor], count: int) -> None:
    """Run the network and nothing else."""
    with evaluating(model, torch.device("cpu")):
        for index in range(count):
            model(inputs[index % len(inputs)])


def plain_loop(model: Segmenter, scene: Path, out: Path, height: int, width: int) -> None:
    """Window by window, with the probabilities of the whole scene in memory."""
    weights = blend_weights(WINDOW)
    total = torch.zeros(len(model.scheme), height, width)
    weight = torch.zeros(height, width)
    with rasterio.open(scene) as dataset, evaluating(model, torch.device("cpu")):
        for window in windows_of(height, width):
            rows, columns = slice(window.row, window.row + WINDOW), slice(window.column, window.column + WINDOW)
            stored = dataset.read(window=((rows.start, rows.stop), (columns.start, columns.stop)))
            probabilities = model(model.normalise(torch.from_numpy(stored)[None].float())).softmax(dim=1)[0]
            total[:, rows, columns] += probabilities * weights
            weight[rows, columns] += weights
        profile = dataset.profile | {"count": 1, "nodata": 255}
    classes = (total / weight).argmax(dim=0).to(torch.uint8).numpy()
    with rasterio.open(out, "w", **profile) as dataset:
        dataset.write(classes, 1)


def timed(work: Callable[[], object]) -> Times:
    """Seconds on the wall and of the processors."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def spread(values: list[float], shown: str = "7.2f") -> str:
    """Median, and lowest to highest."""
    return f"{statistics.median(values):{shown}} ({min(values):{shown}} to {max(values):{shown}})"


def measure_time(model: Segmenter, folder: Path, arguments: argparse.Namespace) -> None:
    """Time all ways in turn, so that a busy machine slows all, and print them."""
    size = arguments.size
    scene, count = make_scene(folder / "scene.tif", size, size), len(windows_of(size, size))
    inputs = [
        network_input(model, scene, window).contiguous(memory_format=torch.channels_last) for window in islice(windows_of(size, size), POOL)
    ]
    ways: dict[str, Callable[[], object]] = {
        "network alone": lambda: network_alone(model, inputs, count),
        "predict_scene": lambda: predict_scene(model, scene, folder / "map.tif", window=WINDOW, overlap=OVERLAP),
    }
    if arguments.plain:
        ways["plain loop"] = lambda: plain_loop(model, scene, folder / "plain.tif", size, size)
    network_alone(model, inputs, 2)
    times: dict[str, list[Times]] = {name: [] for name in ways}
    for repeat in range(arguments.repeats):
        # Turn about: what comes first is not always the same.
        for name in sorted(ways, reverse=bool(repeat % 2)):
            for old in folder.glob("map*"):
                old.unlink()
            times[name].append(timed(ways[name]))
    print(f"{size} x {size} pixels, {count} windows")
    print(f"{'':16} {'seconds':>27} {'ratio':>27} {'ratio, processor time':>27}")
    for name, found in times.items():
        ratios = [[one[kind] / alone[kind] for one, alone in zip(found, times["network alone"], strict=True)] for kind in (0, 1)]
        print(f"{name:16} {spread([one[0] for one in found])} {spread(ratios[0])} {spread(ratios[1])}")


def measure_memory(folder: Path, arguments: argparse.Namespace) -> None:
    """Print the peaks of fresh processes."""
    print(f"{'rows':>7} {'columns':>8} {'added, MiB':>11}")
    for height in (int(text) for text in arguments.memory.split(",")):
        command = [sys.executable, __file__, "--peak-of", str(height), "--size", str(arguments.size)]
        command += ["--classes", str(arguments.classes), "--threads", str(arguments.threads)]
        ran = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"TMPDIR": str(folder)})
        print(f"{height:7} {arguments.size:8} {float(ran.stdout):11.0f}", flush=True)


def peak(model: Segmenter, folder: Path, height: int, width: int) -> float:
    """Highest resident memory that predicting adds, in MiB."""
    scene = make_scene(folder / "scene.tif", height, width)
    network_alone(model, [network_input(model, scene, Window(0, 0, WINDOW, WINDOW))], 2)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    predict_scene(model, scene, folder / "map.tif", window=WINDOW, overlap=OVERLAP)
    return (_status("VmHWM") - before) / 1024


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(name))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--classes", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--memory", default="")
    parser.add_argument("--peak-of", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = make_model(arguments.classes)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if arguments.peak_of:
            print(peak(model, folder, arguments.peak_of, arguments.size))
            return
        versions = f"torch {torch.__version__}, GDAL {rasterio.__gdal_version__}"
        print(f"{platform.machine()}, {os.cpu_count()} processors, {arguments.threads} thread(s), {arguments.classes} classes, {versions}")
        if arguments.repeats:
            measure_time(model, folder, arguments)
        if arguments.memory:
            measure_memory(folder, arguments)


if __name__ == "__main__":
    main()
