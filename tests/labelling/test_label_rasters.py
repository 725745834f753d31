"""Label rasters lie on the grid of their image, hold each tile where it is, and say what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.curation_world import SCHEME
from tilth.errors import UsageError
from tilth.imagery.class_map import read_class_map
from tilth.imagery.raster import RasterInfo, Window
from tilth.imagery.read import read_info, read_label
from tilth.labelling import rasters
from tilth.labelling.rasters import lay_out, write_labels
from tilth.labelling.tile_label import TileLabel

STAMP = "0" * 64
GRID = (0.5, 0.0, 400_000.0, 0.0, -0.5, 5_000_000.0)


def label_of(draw: np.random.Generator, height: int, width: int, holes: bool = True) -> TileLabel:
    percents = draw.integers(25, 101, (height, width)).astype(np.uint8)
    classes = draw.integers(0, 4, (height, width)).astype(np.uint8)
    classes[draw.random((height, width)) < 0.1] = 255
    if holes:
        empty = draw.random((height, width)) < 0.1
        classes[empty], percents[empty] = 255, 255
    return TileLabel(classes, percents, np.zeros(4, np.int64), None, None)


def info_of(width: int, height: int, georeferenced: bool) -> RasterInfo:
    place = {"crs": "EPSG:32633", "transform": GRID} if georeferenced else {"crs": None, "transform": None}
    return RasterInfo("image.tif", width, height, 3, "uint8", nodata=None, band_names=("", "", ""), **place)


def pixel_by_pixel(placed: list[tuple[Window, TileLabel]], width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    classes, percents = np.full((height, width), 255), np.full((height, width), 255)
    for window, label in placed:
        for row in range(window.height):
            for column in range(window.width):
                y, x, sure = window.row + row, window.column + column, int(label.percents[row, column])
                if sure != 255 and (percents[y, x] == 255 or sure > percents[y, x]):
                    classes[y, x], percents[y, x] = label.classes[row, column], sure
    return classes, percents


@pytest.mark.parametrize("seed", range(12))
def test_overlapping_windows_are_laid_out_by_who_is_surer(monkeypatch, seed):
    monkeypatch.setattr(rasters, "_BLOCK", 8)
    draw = np.random.default_rng(seed)
    width, height = draw.integers(10, 60, 2).tolist()
    placed = []
    for _ in range(draw.integers(1, 7)):
        wide, high = (int(draw.integers(1, side + 1)) for side in (width, height))
        window = Window(int(draw.integers(0, width - wide + 1)), int(draw.integers(0, height - high + 1)), wide, high)
        placed.append((window, label_of(draw, high, wide)))
    placed.sort(key=lambda item: item[0].row)
    blocks = list(lay_out(iter(placed), width, height))
    assert [row for row, _, _ in blocks] == np.cumsum([0, *(len(classes) for _, classes, _ in blocks)])[:-1].tolist()
    wanted = pixel_by_pixel(placed, width, height)
    np.testing.assert_array_equal(np.concatenate([block[1] for block in blocks]), wanted[0])
    np.testing.assert_array_equal(np.concatenate([block[2] for block in blocks]), wanted[1])


def test_few_rows_are_held_at_once():
    """Of a tall image with a tile now and then, no block is larger than what its tiles need."""
    draw = np.random.default_rng(0)
    placed = [(Window(0, row, 8, 8), label_of(draw, 8, 8)) for row in (0, 700, 5000, 40_000)]
    assert max(len(classes) for _, classes, _ in lay_out(iter(placed), 8, 50_000)) <= 1024


@pytest.mark.parametrize("georeferenced", [True, False])
@pytest.mark.parametrize("confidence", [True, False])
def test_written_rasters_read_back(tmp_path, georeferenced, confidence):
    draw = np.random.default_rng(3)
    info = info_of(75, 41, georeferenced)
    placed = [(Window(0, 0, 30, 41), label_of(draw, 41, 30)), (Window(40, 3, 20, 20), label_of(draw, 20, 20))]
    files = write_labels(tmp_path, "p", info, placed, scheme=SCHEME, stamp=STAMP, confidence=confidence)
    suffix = "tif" if georeferenced else "png"
    assert files.mask == f"masks/p.{suffix}"
    assert (files.sure is not None) == confidence
    classes, percents = pixel_by_pixel(placed, 75, 41)
    mask = tmp_path / files.mask
    np.testing.assert_array_equal(read_label(str(mask)), classes)
    assert files.mask_bytes == mask.stat().st_size
    assert {path.name for path in (tmp_path / "masks").iterdir()} == {f"p.{suffix}"}
    if confidence:
        np.testing.assert_array_equal(read_label(str(tmp_path / files.sure)), percents)
    found = read_info(str(mask))
    assert (found.crs, found.transform) == (info.crs, info.transform)
    if georeferenced:
        header = read_class_map(str(mask))
        assert list(header.names.values()) == list(SCHEME.names)
        assert [header.colours[number] for number in range(4)] == list(SCHEME.colours)
        assert header.nodata == 255
    else:
        with Image.open(mask) as image:
            assert image.mode == "P"
            np.testing.assert_array_equal(np.array(image), classes)
            assert np.array(image.convert("RGB"))[classes == 1].tolist() == [list(SCHEME.colours[1])] * int((classes == 1).sum())


@pytest.mark.parametrize("georeferenced", [True, False])
def test_same_labels_are_the_same_bytes(tmp_path, georeferenced):
    info = info_of(300, 280, georeferenced)
    for name in ("one", "two"):
        placed = [(Window(0, 0, 300, 280), label_of(np.random.default_rng(5), 280, 300))]
        write_labels(tmp_path / name, "p", info, placed, scheme=SCHEME, stamp=STAMP, confidence=True)
    for folder in ("masks", "confidence"):
        (first,), (second,) = ((tmp_path / name / folder).iterdir() for name in ("one", "two"))
        assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("georeferenced", [True, False])
def test_file_of_somebody_else_is_not_overwritten(tmp_path, georeferenced):
    info = info_of(8, 8, georeferenced)
    placed = [(Window(0, 0, 8, 8), label_of(np.random.default_rng(1), 8, 8))]
    write_labels(tmp_path, "p", info, placed, scheme=SCHEME, stamp=STAMP, confidence=False)
    (mask,) = (tmp_path / "masks").iterdir()
    foreign = Image.fromarray(np.zeros((8, 8), np.uint8))
    foreign.save(mask)
    before = Path(mask).read_bytes()
    with pytest.raises(UsageError, match="was not made by tilth"):
        write_labels(tmp_path, "p", info, placed, scheme=SCHEME, stamp=STAMP, confidence=False)
    assert Path(mask).read_bytes() == before
