"""What is looked at: squares of tiles, pixels of classes, and maps read between their pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from support.tiny_models import SCHEME
from tilth.catalog.table import Catalog
from tilth.errors import CatalogError
from tilth.imagery.raster import Pixels
from tilth.insight.config import LookConfig, ProbeConfig
from tilth.insight.pool import choose_pool, scan, views_of
from tilth.insight.views import ClassPicks, Picks, View, look_up, spread_picks
from tilth.sensors import get_sensor


def view(mask: np.ndarray, name: str = "a") -> View:
    mask = mask.astype(np.uint8)
    return View(name, Pixels(np.zeros((3, *mask.shape), np.uint8), np.ones(mask.shape, bool)), mask)


@pytest.mark.parametrize("stride", [1, 2, 8])
def test_maps_are_read_as_if_they_were_resized_to_the_image(stride):
    found = torch.randn(5, 32 // stride, 48 // stride, generator=torch.Generator().manual_seed(0))
    draw = np.random.default_rng(0)
    rows, columns = draw.integers(0, 32, 40), draw.integers(0, 48, 40)
    whole = F.interpolate(found[None], (32, 48), mode="bilinear", align_corners=False)[0]
    wanted = whole[:, rows, columns].T
    torch.testing.assert_close(torch.from_numpy(look_up(found, stride, Picks(rows, columns, rows))), wanted, atol=1e-5, rtol=1e-4)
    assert look_up(found, stride, Picks(*(np.empty(0, np.int64),) * 3)).shape == (0, 5)


def test_pixels_of_probes_are_labelled_drawn_once_and_the_same_each_time():
    mask = np.full((9, 7), 255)
    mask[2:6] = 3
    one = view(mask)
    picks = spread_picks(one, 10, 0)
    assert (mask[picks.rows, picks.columns] == 3).all()
    assert len(set(zip(picks.rows.tolist(), picks.columns.tolist(), strict=True))) == 10
    again, other = spread_picks(one, 10, 0), spread_picks(one, 10, 1)
    assert (again.rows == picks.rows).all()
    assert (again.columns == picks.columns).all()
    assert (other.rows != picks.rows).any() or (other.columns != picks.columns).any()
    assert len(spread_picks(one, 1000, 0).rows) == 28
    assert len(spread_picks(view(np.full((4, 4), 255)), 10, 0).rows) == 0


def test_each_class_gets_its_pixels_wherever_they_are_and_each_pixel_the_same_chance():
    many, few = view(np.repeat([[0, 1]], 40, axis=0).repeat(20, axis=1), "many"), view(np.array([[1, 2], [255, 0]]), "few")
    counts = np.zeros(2)
    for seed in range(60):
        picks = ClassPicks(30, seed)
        for one in (many, few):
            picks.look(one, unlabelled=False)
        found = np.concatenate([picks.of(one).classes for one in (many, few)])
        assert {value: int((found == value).sum()) for value in np.unique(found)} == {0: 30, 1: 30, 2: 1}
        chosen = picks.of(many)
        assert (many.mask[chosen.rows, chosen.columns] == chosen.classes).all()
        counts += [(chosen.rows < 20).sum(), (chosen.rows >= 20).sum()]
    assert counts.min() / counts.max() > 0.9


def test_without_any_label_pixels_are_drawn_as_one_class():
    one = view(np.full((8, 8), 255))
    one.pixels.valid[:4] = False
    picks = ClassPicks(20, 0)
    picks.look(one, unlabelled=True)
    assert len(picks) == 20
    assert (picks.of(one).rows >= 4).all()
    assert set(picks.of(one).classes) == {255}


@pytest.fixture
def rows(tmp_path):
    """Six tiles of 70 x 50 pixels in three rasters; columns of the raster count upwards in red."""

    def make(name: str, window: tuple[int, int, int, int], label: int | None = 1, split: str = "train") -> dict:
        file = tmp_path / f"{name}.png"
        Image.fromarray(np.tile(np.arange(140, dtype=np.uint8)[None, :, None], (100, 1, 3))).save(file)
        row = {"tile_id": f"{name}/{window[0]}-{window[1]}", "image": file, "window": window, "sensor": "rgb", "split": split}
        if label is None:
            return row
        marks = tmp_path / f"{name}-label.png"
        Image.fromarray(np.full((100, 140), label, np.uint8)).save(marks)
        return row | {"label": marks, "label_kind": "clean", "scheme": SCHEME.name}

    return make


def catalog(*rows: dict) -> Catalog:
    return Catalog.from_rows(rows, {"rgb": get_sensor("rgb")}, {SCHEME.name: SCHEME})


def test_squares_lie_inside_of_tiles_and_know_where(rows):
    tiles = catalog(rows("one", (60, 10, 70, 50)), rows("two", (0, 0, 20, 100)))
    pool = choose_pool(tiles, tiles.take([]), LookConfig(window=32, probes=ProbeConfig(pixels=0)))
    found = [one for _, one in views_of(pool, LookConfig(window=32))]
    assert {(one.tile_id, one.mask.shape) for one in found} == {("one/60-10", (32, 32)), ("two/0-0", (32, 20))}
    for one in found:
        top, left = one.pixels.origin
        assert (one.pixels.data[0] == np.arange(left, left + one.mask.shape[1])).all()
        assert one.tile_id == "two/0-0" or (60 <= left <= 98 and 10 <= top <= 28)
    again = [one for _, one in views_of(pool, LookConfig(window=32))]
    assert [one.pixels.origin for one in again] == [one.pixels.origin for one in found]


def test_no_pixel_is_learnt_from_and_tested_on(rows):
    learn = catalog(rows("one", (0, 0, 64, 64)), rows("two", (0, 0, 64, 64)))
    test = catalog(rows("one", (63, 63, 30, 30), split="test"))
    pool = choose_pool(learn, test, LookConfig())
    assert pool.learn.column("tile_id") == ["two/0-0"]
    assert pool.shared == 1
    with pytest.raises(CatalogError, match="all 1 labelled tiles to learn from show pixels of tiles to test on"):
        choose_pool(learn.take([0]), test, LookConfig())


@pytest.mark.parametrize(
    ("learn", "test", "said"),
    [
        ([1, 1], [None], "no labelled tile to test on"),
        ([None], [1], "no labelled tile to learn from"),
        ([255], [1], "to learn from have no labelled pixel"),
        ([1], [255], "to test on have no labelled pixel"),
        ([9], [9], "none of the 2 tiles can be used; the first: tile 'l0/0-0': label .*holds 9; expected a class id, 0 to 3"),
        ([], [], "no tile to look at"),
    ],
)
def test_probes_without_labels_are_refused_in_one_line(rows, learn, test, said):
    sides = [
        [rows(f"{name}{number}", (0, 0, 64, 64), label) for number, label in enumerate(kinds)]
        for name, kinds in (("l", learn), ("t", test))
    ]
    first, second = (catalog(*side) for side in sides)
    with pytest.raises(CatalogError, match=said):
        scan(choose_pool(first, second, LookConfig()), LookConfig(), lambda: None)


def test_ignored_tiles_beside_others_just_add_nothing(rows):
    config = LookConfig(probes=ProbeConfig(pixels=10))
    learn = catalog(rows("one", (0, 0, 64, 64), 255), rows("two", (0, 0, 64, 64), 2))
    found = scan(choose_pool(learn, catalog(rows("three", (0, 0, 64, 64), 0)), config), config, lambda: None)
    assert (found.learn_tiles, found.learn_pixels, found.test_pixels, found.problems) == (2, 10, 10, ())


def test_tiles_that_show_most_classes_are_drawn(rows, tmp_path):
    marks = np.zeros((100, 140), np.uint8)
    marks[:, 20:40], marks[0, 0] = 1, 2
    many = rows("many", (0, 0, 64, 64))
    Image.fromarray(marks).save(many["label"])
    config = LookConfig(pictures=2, window=64)
    pool = choose_pool(
        catalog(rows("other", (0, 0, 64, 64))), catalog(rows("one", (0, 0, 64, 64)), many, rows("two", (0, 0, 64, 64))), config
    )
    found = scan(pool, config, lambda: None)
    assert found.shown[0] == "many/0-0"
    assert found.shown[1] in ("one/0-0", "two/0-0")
    assert [one.variety() for role, one in views_of(pool, config) if one.tile_id == "many/0-0"] == [2], "one pixel is no class that shows"


def test_tiles_without_labels_are_looked_at_all_the_same(rows):
    pool = choose_pool(catalog(rows("one", (0, 0, 64, 64), None)), catalog(rows("two", (0, 0, 64, 64), None)), LookConfig())
    assert pool.scheme is None
    assert not pool.probing
    assert len(scan(pool, LookConfig(), lambda: None).picks) == 500
