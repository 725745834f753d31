"""Weak and strong views: batches of tensors against one Pillow image at a time, in the same run.

    python benchmarks/augment.py [--threads 1] [--repeats 5]

Prints best and median milliseconds for a batch of 8 tiles, and the ratio of the medians (ours / Pillow; below 1 is faster). Both sides do
the same work on the same decoded pixels: resize, crop and flips for the weak view; colour jitter, grey and blur for the strong one.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image, ImageFilter
from torchvision.transforms import v2

from tilth import seeds
from tilth.augment.config import StrongConfig, WeakConfig
from tilth.augment.normalise import normalise
from tilth.augment.strong import strong_view
from tilth.augment.weak import WeakGeometry, plan_weak, weak_view
from tilth.sensors import get_sensor

BATCH = 8
SENSOR = get_sensor("rgb")


def make_tiles(side: int) -> list[np.ndarray]:
    """Noise tiles, uint8 (3, side, side)."""
    random = seeds.generator(0, "benchmark", side)
    return [random.integers(0, 256, (3, side, side), dtype=np.uint8) for _ in range(BATCH)]


def weak_by_tensor(tiles: list[np.ndarray], config: WeakConfig, seed: int) -> torch.Tensor:
    """What a training does: read each sample's window, pad, stack, resample the batch, normalise."""
    plans = [plan_weak(seeds.generator(seed, "weak", index), *tile.shape[1:], config) for index, tile in enumerate(tiles)]
    height, width = max(plan.window.height for plan in plans), max(plan.window.width for plan in plans)
    stored = torch.zeros((BATCH, 3, height, width), dtype=torch.uint8)
    valid = torch.zeros((BATCH, height, width), dtype=torch.bool)
    for index, (tile, plan) in enumerate(zip(tiles, plans, strict=True)):
        column, row, columns, rows = plan.window
        stored[index, :, :rows, :columns] = torch.from_numpy(tile[:, row : row + rows, column : column + columns])
        valid[index, :rows, :columns] = True
    image, _, valid = weak_view(stored, None, valid, plans, config.size, SENSOR)
    return normalise(image, valid, SENSOR)


def weak_by_pillow(tiles: list[np.ndarray], config: WeakConfig, seed: int) -> torch.Tensor:
    """The published order of work: resize the whole image, crop, flip, to tensor, normalise."""
    plans = [plan_weak(seeds.generator(seed, "weak", index), *tile.shape[1:], config) for index, tile in enumerate(tiles)]
    return torch.stack([_one_by_pillow(tile, plan, config.size) for tile, plan in zip(tiles, plans, strict=True)])


def _one_by_pillow(tile: np.ndarray, plan: WeakGeometry, size: int) -> torch.Tensor:
    draw = plan.draw
    image = Image.fromarray(tile.transpose(1, 2, 0)).resize((draw.new_width, draw.new_height), Image.Resampling.BILINEAR)
    image = image.crop((draw.x, draw.y, draw.x + size, draw.y + size))
    if draw.hflip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if draw.vflip:
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    return _normalised(image)


def _normalised(image: Image.Image) -> torch.Tensor:
    pixels = torch.from_numpy(np.array(image).transpose(2, 0, 1)).float() / 255
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return (pixels - mean) / std


def strong_by_pillow(tiles: list[np.ndarray]) -> torch.Tensor:
    """Colour jitter, grey and blur with Pillow and torchvision, one image at a time."""
    jitter, grey = v2.RandomApply([v2.ColorJitter(0.5, 0.5, 0.5, 0.25)], p=0.8), v2.RandomGrayscale(0.2)
    views = []
    for tile in tiles:
        image = grey(jitter(Image.fromarray(tile.transpose(1, 2, 0))))
        if torch.rand(()) < 0.5:
            image = image.filter(ImageFilter.GaussianBlur(float(torch.empty(()).uniform_(0.1, 2.0))))
        views.append(_normalised(image))
    return torch.stack(views)


def measure(ours: Callable[[int], object], theirs: Callable[[int], object], repeats: int) -> str:
    """Time both alternately, so that a busy machine slows both."""
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats + 1):
        for place, work in enumerate((ours, theirs)):
            began = time.perf_counter()
            work(repeat)
            if repeat:  # the first round warms up
                times[place].append(1000 * (time.perf_counter() - began))
    middle = [statistics.median(part) for part in times]
    return f"{min(times[0]):8.1f} {middle[0]:8.1f} {min(times[1]):8.1f} {middle[1]:8.1f} {middle[0] / middle[1]:7.2f}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}, Pillow {PIL.__version__}"
    print(f"{platform.machine()}, {arguments.threads} thread(s), {versions}")
    print(f"{'milliseconds for a batch of 8':32} {'ours':>8} {'':8} {'Pillow':>8}")
    print(f"{'':32} {'best':>8} {'median':>8} {'best':>8} {'median':>8} {'ratio':>7}")
    for tile_side, size in ((256, 128), (1024, 128), (512, 512), (1024, 512)):
        tiles, config = make_tiles(tile_side), WeakConfig(size=size)
        row = measure(
            lambda seed, t=tiles, c=config: weak_by_tensor(t, c, seed),
            lambda seed, t=tiles, c=config: weak_by_pillow(t, c, seed),
            arguments.repeats,
        )
        print(f"{f'weak view, {tile_side} px tile -> {size} px':32} {row}")
    for size in (128, 512):
        tiles, strong = make_tiles(size), StrongConfig()
        batch = normalise(torch.from_numpy(np.stack(tiles)), None, SENSOR)
        row = measure(
            lambda seed, b=batch, s=strong: strong_view(b, SENSOR, [seeds.derive(seed, index) for index in range(BATCH)], s),
            lambda _seed, t=tiles: strong_by_pillow(t),
            arguments.repeats,
        )
        print(f"{f'strong view, {size} px':32} {row}")


if __name__ == "__main__":
    main()
