"""A prediction that stops goes on with the same call, to the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from support.listing import listing
from support.tiny_models import TinySegmenter
from tilth.errors import OutputExistsError, RunError
from tilth.imagery.write import write_raster
from tilth.prediction.scene import predict_scene

ROOT = Path(__file__).parents[2]
TRANSFORM = (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0)
SETTINGS = {"window": 32, "overlap": 12, "panel": 90, "confidence": True, "probabilities": True}
FILES = ["map.tif", "map.tif.aux.xml", "map_confidence.tif", "map_probabilities.tif"]

# A pause in every pass, so that a signal meets the work and not its end.
_SLOW = """
import sys, time, torch
torch.set_num_threads(1)
from support.tiny_models import TinySegmenter
from tilth.prediction.scene import predict_scene
class Slow(TinySegmenter):
    def forward(self, image):
        time.sleep(0.002)
        return super().forward(image)
predict_scene(Slow(), sys.argv[1], sys.argv[2], window=32, overlap=12, panel=90, confidence=True, probabilities=True)
"""


def scene(path: Path, seed: int = 0, height: int = 300) -> str:
    data = np.random.default_rng(seed).integers(20, 250, (3, height, 160)).astype(np.uint8)
    data[:, 30:90, 20:70] = 0
    return str(write_raster(path, data, crs="EPSG:32633", transform=TRANSFORM, nodata=0))


def bytes_of(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in FILES]


def start(uri: str, out: Path) -> subprocess.Popen:
    paths = os.pathsep.join([str(ROOT / "tests"), str(ROOT / "src")])
    return subprocess.Popen([sys.executable, "-c", _SLOW, uri, str(out)], env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"})


def strips(folder: Path) -> list[Path]:
    return sorted((folder / "map.tif.partial").glob("*.strip"))


def stop_after(done_windows: int):
    def progress(done: int, _windows: int) -> None:
        if done >= done_windows:
            raise KeyboardInterrupt

    return progress


def test_killed_at_random_moments_it_ends_with_the_same_bytes(tmp_path):
    uri = scene(tmp_path / "scene.tif")
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    reference = predict_scene(TinySegmenter(), uri, whole / "map.tif", **SETTINGS)
    assert reference.windows_kept == 0
    random, kept = np.random.default_rng(7), 0
    for _ in range(2):
        process = start(uri, pieces / "map.tif")
        while len(strips(pieces)) <= kept + 3 and process.poll() is None:
            time.sleep(0.005)
        time.sleep(random.uniform(0, 0.2))
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait(timeout=60) == -signal.SIGKILL
        kept = len(strips(pieces))
        assert not (pieces / "map.tif").exists()
    assert 4 < kept < 2 * len(range(0, 300, 20))
    result = predict_scene(TinySegmenter(), uri, pieces / "map.tif", **SETTINGS)
    assert 0 < result.windows_kept < result.windows
    assert bytes_of(pieces) == bytes_of(whole)
    assert listing(pieces) == listing(whole) == FILES
    assert (result.class_pixels, result.class_area_m2) == (reference.class_pixels, reference.class_area_m2)


@pytest.mark.parametrize("moment", [1, 23, 30, 60])
def test_wherever_it_is_interrupted_it_goes_on_to_the_same_bytes(tmp_path, moment):
    uri = scene(tmp_path / "scene.tif", height=120)
    predict_scene(TinySegmenter(), uri, tmp_path / "whole" / "map.tif", **SETTINGS)
    model, out = TinySegmenter(), tmp_path / "pieces" / "map.tif"
    with pytest.raises(KeyboardInterrupt):
        predict_scene(model, uri, out, **SETTINGS, progress=stop_after(moment))
    assert listing(tmp_path / "pieces") == ["map.tif.partial"]
    saved = strips(tmp_path / "pieces")
    assert saved
    again = TinySegmenter()
    result = predict_scene(again, uri, out, **SETTINGS)
    assert result.windows_kept == 5 * len(saved)
    # Two rows of windows reach over the place where the strips end; the others are not computed again.
    assert len(again.batches) <= result.windows - result.windows_kept + 2 * 5
    assert bytes_of(tmp_path / "pieces") == bytes_of(tmp_path / "whole")


def test_a_damaged_strip_is_computed_again(tmp_path):
    uri, out = scene(tmp_path / "scene.tif", height=120), tmp_path / "pieces" / "map.tif"
    predict_scene(TinySegmenter(), uri, tmp_path / "whole" / "map.tif", **SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        predict_scene(TinySegmenter(), uri, out, **SETTINGS, progress=stop_after(40))
    third = strips(tmp_path / "pieces")[2]
    third.write_bytes(third.read_bytes()[:-9])
    result = predict_scene(TinySegmenter(), uri, out, **SETTINGS)
    assert 0 < result.windows_kept < 40
    assert bytes_of(tmp_path / "pieces") == bytes_of(tmp_path / "whole")


@pytest.mark.parametrize("change", ["model", "scene", "settings"])
def test_strips_of_something_else_are_not_gone_on_with(tmp_path, change):
    uri, out = scene(tmp_path / "scene.tif", height=120), tmp_path / "map.tif"
    with pytest.raises(KeyboardInterrupt):
        predict_scene(TinySegmenter(), uri, out, **SETTINGS, progress=stop_after(40))
    model, settings = TinySegmenter(), SETTINGS
    if change == "model":
        model.first.bias.data += 1e-3
    elif change == "scene":
        scene(tmp_path / "scene.tif", seed=1, height=120)
    else:
        settings = SETTINGS | {"overlap": 10}
    result = predict_scene(model, uri, out, **settings)
    assert result.windows_kept == 0
    predict_scene(model, uri, tmp_path / "fresh" / "map.tif", **settings)
    assert bytes_of(tmp_path) == bytes_of(tmp_path / "fresh")


def test_a_finished_map_is_left_as_it_is_and_counted(tmp_path):
    uri, out = scene(tmp_path / "scene.tif"), tmp_path / "map.tif"
    first = predict_scene(TinySegmenter(), uri, out, **SETTINGS)
    before, model = out.stat().st_mtime_ns, TinySegmenter()
    again = predict_scene(model, uri, out, **SETTINGS)
    assert model.batches == []
    assert out.stat().st_mtime_ns == before
    assert (again.windows_kept, again.windows) == (first.windows, first.windows)
    assert (again.class_pixels, again.class_area_m2) == (first.class_pixels, first.class_area_m2)
    # One of its files gone, it is made anew.
    (tmp_path / "map_confidence.tif").unlink()
    assert predict_scene(TinySegmenter(), uri, out, **SETTINGS).windows_kept == 0


def test_files_made_otherwise_are_replaced_only_when_told(tmp_path):
    uri, out = scene(tmp_path / "scene.tif"), tmp_path / "map.tif"
    predict_scene(TinySegmenter(), uri, out, window=32, overlap=12)
    old = out.read_bytes()
    with pytest.raises(OutputExistsError, match=r"map.tif: exists already, made from another .* --overwrite"):
        predict_scene(TinySegmenter(), uri, out, window=32, overlap=10)
    assert out.read_bytes() == old
    predict_scene(TinySegmenter(), uri, out, window=32, overlap=10, overwrite=True)
    assert out.read_bytes() != old
    # A scene that was written anew makes the map an old one.
    os.utime(uri)
    with pytest.raises(OutputExistsError):
        predict_scene(TinySegmenter(), uri, out, window=32, overlap=10)


def test_a_folder_in_the_way_is_not_touched(tmp_path):
    uri = scene(tmp_path / "scene.tif")
    (tmp_path / "map.tif.partial").mkdir()
    (tmp_path / "map.tif.partial" / "notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"holds 'notes.txt' and no unfinished map"):
        predict_scene(TinySegmenter(), uri, tmp_path / "map.tif", window=32, overlap=12)
    assert (tmp_path / "map.tif.partial" / "notes.txt").read_text() == "mine"


def test_an_error_leaves_nothing_of_an_interrupted_map(tmp_path):
    uri, out = scene(tmp_path / "scene.tif"), tmp_path / "deep" / "map.tif"
    sick = TinySegmenter()
    sick.second.bias.data[1] = float("nan")
    with pytest.raises(RunError):
        predict_scene(sick, uri, out, window=32, overlap=12)
    assert listing(tmp_path) == ["scene.tif"]
