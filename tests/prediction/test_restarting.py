"""A prediction that stops goes on with the same call, to the same bytes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from support.listing import listing
from support.tiny_models import TinySegmenter
from tilth.errors import OutputExistsError, RunError, TilthError, TilthWarning
from tilth.imagery import files
from tilth.imagery.write import write_raster
from tilth.prediction.beside import stamp_of
from tilth.prediction.grid import Grid, panel_width
from tilth.prediction.scene import predict_scene

ROOT = Path(__file__).parents[2]
TRANSFORM = (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0)
SETTINGS = {"window": 32, "overlap": 12, "panel": 90, "confidence": True, "probabilities": True}
FILES = ["map.tif", "map.tif.aux.xml", "map_confidence.tif", "map_probabilities.tif"]

# Kills itself a moment after a given pass. A killer outside could come too late on a machine that is busy elsewhere.
_KILLED = """
import os, signal, sys, threading, time, torch
torch.set_num_threads(1)
from support.tiny_models import TinySegmenter
from tilth.prediction.scene import predict_scene
passes, moment = int(sys.argv[3]), float(sys.argv[4])
class Killed(TinySegmenter):
    def forward(self, image):
        global passes
        passes -= 1
        if passes == 0:
            threading.Timer(moment, os.kill, [os.getpid(), signal.SIGKILL]).start()
        time.sleep(0.005)
        return super().forward(image)
predict_scene(Killed(), sys.argv[1], sys.argv[2], window=32, overlap=12, panel=90, confidence=True, probabilities=True)
"""


def scene(path: Path, seed: int = 0, height: int = 300) -> str:
    data = np.random.default_rng(seed).integers(20, 250, (3, height, 160)).astype(np.uint8)
    data[:, 30:90, 20:70] = 0
    return str(write_raster(path, data, crs="EPSG:32633", transform=TRANSFORM, nodata=0))


def bytes_of(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in FILES]


def start(uri: str, out: Path, passes: int = -1, moment: float = 0.0) -> subprocess.Popen:
    """A prediction that dies ``moment`` seconds after the start of a pass, or never."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT / "src")]), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", _KILLED, uri, str(out), str(passes), str(moment)], env=environment)


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
    random, kept = np.random.default_rng(7), [0]
    for _ in range(2):
        passes, moment = int(random.integers(20, 30)), random.uniform(0, 0.03)
        assert start(uri, pieces / "map.tif", passes, moment).wait(timeout=300) == -signal.SIGKILL
        kept.append(len(strips(pieces)))
        assert not (pieces / "map.tif").exists()
    assert kept[0] < kept[1] < kept[2] < 2 * len(range(0, 300, 20))
    result = predict_scene(TinySegmenter(), uri, pieces / "map.tif", **SETTINGS)
    assert 0 < result.windows_kept < result.windows
    assert bytes_of(pieces) == bytes_of(whole)
    assert listing(pieces) == listing(whole) == FILES
    assert (result.class_pixels, result.class_area_m2) == (reference.class_pixels, reference.class_area_m2)


@pytest.mark.parametrize("moment", [1, 23, 30, 50])
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
    places = Grid(160, 120, SETTINGS["window"], SETTINGS["overlap"], SETTINGS["panel"]).places()
    assert result.windows_kept == sum(len(place.panel.columns) for place in places[: len(saved)])
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


class Failing(TinySegmenter):
    """Fails on a window, as when memory is short."""

    def forward(self, image):
        if len(self.batches) >= 40:
            raise MemoryError
        return super().forward(image)


def test_map_of_a_scene_of_the_same_name_and_size_is_another_map(tmp_path):
    uris = [scene(tmp_path / year / "scene.tif", seed) for seed, year in enumerate(("2019", "2020"))]
    for uri in uris:
        with Path(uri).open("ab") as file:
            file.truncate(200_000)
    out = tmp_path / "map.tif"
    predict_scene(TinySegmenter(), uris[0], out, window=32, overlap=12)
    with pytest.raises(OutputExistsError, match="another model, scene or settings"):
        predict_scene(TinySegmenter(), uris[1], out, window=32, overlap=12)
    # The same content elsewhere is the same scene.
    moved = tmp_path / "moved" / "scene.tif"
    moved.parent.mkdir()
    shutil.copy2(uris[0], moved)
    again = predict_scene(TinySegmenter(), moved, out, window=32, overlap=12)
    assert again.windows_kept == again.windows


def test_content_behind_virtual_rasters_counts(tmp_path):
    from tilth.imagery.read import read_info
    from tilth.imagery.virtual import write_warped
    from tilth.prediction.sources import open_scene
    from tilth.sensors import get_sensor

    stamps = []
    for seed in (0, 1):
        uri = scene(tmp_path / str(seed) / "scene.tif", seed)
        inner = write_warped(tmp_path / str(seed) / "inner.vrt", uri, like=read_info(uri))
        outer = write_warped(tmp_path / str(seed) / "outer.vrt", str(inner), like=read_info(uri))
        opened = open_scene(outer, get_sensor("rgb"))
        assert [file.name for file in opened.files] == ["outer.vrt", "inner.vrt", "scene.tif"]
        stamps.append([entry[2] for entry in opened.identity()["files"] if entry[0] == "scene.tif"])
    assert stamps[0] != stamps[1]


def test_what_is_elsewhere_is_never_taken_as_finished(tmp_path, monkeypatch):
    from tilth.prediction.sources import Scene

    uri, out = scene(tmp_path / "scene.tif"), tmp_path / "map.tif"
    predict_scene(TinySegmenter(), uri, out, window=32, overlap=12)
    monkeypatch.setattr(Scene, "is_local", property(lambda _: False))
    assert predict_scene(TinySegmenter(), uri, out, window=32, overlap=12).windows_kept == 0


def test_two_processes_do_not_make_one_map(tmp_path):
    uri, out = scene(tmp_path / "scene.tif"), tmp_path / "pieces" / "map.tif"
    process = start(uri, out)
    try:
        while len(strips(out.parent)) < 2 and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGSTOP)
        there = strips(out.parent)
        for settings in (SETTINGS, SETTINGS | {"overlap": 10}):
            with pytest.raises(TilthError, match=r"map.tif.partial: another process is making a map"):
                predict_scene(TinySegmenter(), uri, out, **settings)
        assert strips(out.parent) == there
    finally:
        process.send_signal(signal.SIGCONT)
    assert process.wait(timeout=60) == 0
    predict_scene(TinySegmenter(), uri, tmp_path / "whole" / "map.tif", **SETTINGS)
    assert bytes_of(out.parent) == bytes_of(tmp_path / "whole")


def test_an_error_of_the_machine_keeps_the_strips(tmp_path):
    uri, out = scene(tmp_path / "scene.tif", height=120), tmp_path / "pieces" / "map.tif"
    with pytest.raises(MemoryError), pytest.warns(TilthWarning, match="the same command goes on from there"):
        predict_scene(Failing(), uri, out, **SETTINGS)
    assert listing(out.parent) == ["map.tif.partial"]
    assert {path.suffix for path in (out.parent / "map.tif.partial").iterdir()} == {".strip", ".json"}
    assert predict_scene(TinySegmenter(), uri, out, **SETTINGS).windows_kept > 0
    predict_scene(TinySegmenter(), uri, tmp_path / "whole" / "map.tif", **SETTINGS)
    assert bytes_of(out.parent) == bytes_of(tmp_path / "whole")


def test_killed_after_the_map_is_in_place_the_strips_go_with_the_next_call(tmp_path, monkeypatch):
    uri, out = scene(tmp_path / "scene.tif", height=120), tmp_path / "map.tif"

    def stop(*_arguments, **_named):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tilth.prediction.partial.PartialMap.remove", stop)
        with pytest.raises(KeyboardInterrupt):
            predict_scene(TinySegmenter(), uri, out, **SETTINGS)
    assert (tmp_path / "map.tif.partial").is_dir()
    again = predict_scene(TinySegmenter(), uri, out, **SETTINGS)
    assert again.windows_kept == again.windows
    assert listing(tmp_path) == [*FILES, "scene.tif"]


@pytest.mark.parametrize("moves", [1, 2, 3])
def test_killed_between_the_moves_nothing_is_missing_at_the_end(tmp_path, monkeypatch, moves):
    uri, out = scene(tmp_path / "scene.tif", height=120), tmp_path / "pieces" / "map.tif"
    move, moved = files._move, []

    def killed(source, target):
        if target.parent == out.parent:
            if len(moved) == moves:
                raise KeyboardInterrupt
            moved.append(target)
        move(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(files, "_move", killed)
        with pytest.raises(KeyboardInterrupt):
            predict_scene(TinySegmenter(), uri, out, **SETTINGS)
    predict_scene(TinySegmenter(), uri, out, **SETTINGS)
    predict_scene(TinySegmenter(), uri, tmp_path / "whole" / "map.tif", **SETTINGS)
    assert listing(out.parent) == FILES
    assert bytes_of(out.parent) == bytes_of(tmp_path / "whole")


def test_confidence_of_a_replaced_map_goes_with_it(tmp_path):
    uri, out = scene(tmp_path / "scene.tif"), tmp_path / "map.tif"
    predict_scene(TinySegmenter(), uri, out, **SETTINGS)
    stamp = stamp_of(out)
    # Made from the same, it still belongs to the map.
    predict_scene(TinySegmenter(), uri, out, **SETTINGS | {"confidence": False, "probabilities": False}, overwrite=True)
    assert listing(tmp_path) == [*FILES, "scene.tif"]
    predict_scene(TinySegmenter(), uri, out, window=32, overlap=10, overwrite=True)
    assert stamp_of(out) != stamp
    assert listing(tmp_path) == ["map.tif", "map.tif.aux.xml", "scene.tif"]


def test_panels_are_about_as_wide_and_few_windows_belong_to_two():
    for width, window, overlap, panel in [(10_980, 512, 128, 5120), (8193, 256, 64, 8192), (1000, 32, 12, 90), (170, 32, 24, 23)]:
        grid = Grid(width, 600, window, overlap, panel)
        panels = grid.panels()
        assert [one.right for one in panels] == [*(one.left for one in panels[1:]), width]
        sizes = [one.right - one.left for one in panels]
        assert max(sizes) <= panel
        assert len(panels) == -(-width // panel)
        assert min(sizes) >= min(width, panel) / 2 - window
        twice = sum(len(one.columns) for one in panels) - len(grid.columns)
        assert twice <= (len(panels) - 1) * -(-window // (window - overlap))
    # A Sentinel-2 scene is one panel: nothing is computed twice.
    assert panel_width(512, 16) >= 10_980
