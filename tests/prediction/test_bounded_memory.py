from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from support.tiny_models import TinySegmenter
from tilth.imagery.read import Pixels, Window
from tilth.models.inference import evaluating
from tilth.prediction.grid import Grid
from tilth.prediction.strips import Manner, predict_strips

ROOT = Path(__file__).parents[2]

_PEAKS = """
import resource, sys
import numpy as np, rasterio, torch
torch.set_num_threads(1)
from support.tiny_models import TinySegmenter
from tilth.imagery import gdal
from tilth.prediction.scene import predict_scene
# The bound of the block cache lies above what these scenes need; lowered, it must hold.
gdal.CACHE_BYTES = 4 * 2**20
folder = sys.argv[1]
for height, width in ((600, 600), (6000, 600), (600, 6000)):
    with rasterio.open(f"{folder}/scene.tif", "w", driver="GTiff", width=width, height=height, count=3, dtype="uint8", tiled=True,
                       crs="EPSG:32633", transform=rasterio.Affine(1, 0, 5e5, 0, -1, 5e6)) as dataset:
        for row in range(0, height, 200):
            block = np.random.default_rng(0).integers(20, 250, (3, 200, width), dtype=np.uint8)
            dataset.write(block, window=((row, row + 200), (0, width)))
    predict_scene(TinySegmenter(), f"{folder}/scene.tif", f"{folder}/map.tif", window=256, overlap=16, panel=512, overwrite=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def test_strips_read_no_more_than_a_window_of_rows_and_a_panel_of_columns():
    height, width, window, panel = 4000, 300, 32, 64
    seen: list[Window] = []

    def read(place: Window) -> Pixels:
        seen.append(place)
        return Pixels(np.full((3, place.height, place.width), 9, dtype=np.uint8), np.ones((place.height, place.width), dtype=bool))

    model, grid = TinySegmenter(), Grid(width, height, window, 8, panel)
    covered = np.zeros((height, width), dtype=int)
    with evaluating(model, torch.device("cpu")):
        for strip in predict_strips(model, read, grid, Manner()):
            column, row, wide, high = strip.window
            assert strip.classes.shape == (high, wide)
            covered[row : row + high, column : column + wide] += 1
            # Read ahead by one strip at most.
            assert len(seen) * (window - 8) <= row + panel * height + 3 * window
    assert (covered == 1).all()
    assert max(place.height for place in seen) <= window
    assert max(place.width for place in seen) <= panel + 2 * window


def test_peak_memory_grows_with_neither_height_nor_width(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", _PEAKS, str(tmp_path)]
    paths = os.pathsep.join([str(ROOT / "tests"), str(ROOT / "src")])
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": paths})
    small, tall, wide = map(float, ran.stdout.split())
    # Held whole, the large scenes would need 58 MB of sums and 11 MB of pixels more.
    assert tall - small < 50
    assert wide - small < 50
