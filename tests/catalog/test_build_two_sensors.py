"""Radar and optical imagery of several seasons that does not fit together: what is left out, refused, or not valid."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tilth.augment.config import WeakConfig
from tilth.catalog.build import build_catalog
from tilth.catalog.config import BuildConfig
from tilth.catalog.discover import Problem
from tilth.catalog.seasons import find_places
from tilth.errors import DataError
from tilth.methods.base import Stream
from tilth.training.order import Order
from tilth.training.streams import TileDataset, collate, to_batch

from .conftest import noise

GRID = (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0)
ELSEWHERE = (10.0, 0.0, 600_000.0, 0.0, -10.0, 5_000_000.0)


def optical(name: str) -> np.ndarray:
    return noise(name, 13, 32, 32).astype(np.uint16) * 20 + 1


def radar(name: str, shape: tuple[int, int] = (32, 32)) -> np.ndarray:
    return -noise(name, 2, *shape).astype(np.float32) / 10


@pytest.fixture
def seasons(tmp_path, write_scene):
    """Two places of two seasons, radar and optical."""
    for place in "ab":
        for date in ("20200105", "20200703"):
            write_scene(tmp_path / "s2" / f"{place}_{date}.tif", optical(place + date), transform=GRID)
            write_scene(tmp_path / "s1" / f"{place}_{date}.tif", radar(place + date), transform=GRID)
    return tmp_path


def build(root, problems=None, **options):
    tree = {"inputs": [str(root / "s2")], "sensor": "s1+s2_l1c", "layers": {"s1": str(root / "s1")}, "derived": str(root / "made")}
    tree |= {"location_pattern": "^([a-z])_", "datetime_pattern": "_([0-9]{8})"}
    return build_catalog(BuildConfig.parse(tree | options), problems=problems)


def test_a_season_that_one_sensor_lacks_is_left_out_and_the_others_stay(seasons):
    (seasons / "s1" / "a_20200703.tif").unlink()
    problems: list[Problem] = []
    catalog = build(seasons, problems)
    assert problems == [Problem(str(seasons / "s2" / "a_20200703.tif"), f"layer s1 has no raster named a_20200703 in {seasons / 's1'}")]
    places = find_places(catalog.table)
    assert [len(places.seasons(place)) for place in range(len(places))] == [1, 2]


def test_grids_that_cannot_be_brought_together_are_refused(seasons, write_scene):
    write_scene(seasons / "s1" / "b_20200105.tif", radar("x", (16, 20)), crs=None, transform=GRID)
    with pytest.raises(
        DataError, match=r"b_20200105\.tif: 20 x 16 pixels do not lie on the grid of .* \(32 x 32\), and .* has no CRS"
    ) as caught:
        build(seasons)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("crs", ["EPSG:32631", "EPSG:32633"])
def test_sensors_that_see_other_ground_are_refused(seasons, write_scene, crs):
    write_scene(seasons / "s1" / "b_20200105.tif", radar("x"), crs=crs, transform=ELSEWHERE)
    with pytest.raises(DataError, match=r"b_20200105\.tif: covers none of the ground of .*s2.b_20200105\.tif") as caught:
        build(seasons)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("suffix", ["", "_quantised", "_clipped"])
def test_decibels_that_are_no_numbers_are_not_valid_and_not_learnt(seasons, write_scene, suffix):
    spoilt = radar("nan")
    spoilt[1, 4:9, 10:20] = np.nan
    spoilt[0, 20, 20] = -np.inf
    for name in ("a_20200105", "a_20200703"):
        write_scene(seasons / "s1" / f"{name}.tif", spoilt, transform=GRID)
    catalog = build(seasons, sensor=f"s1{suffix}+s2_l1c{suffix}", layers={f"s1{suffix}": str(seasons / "s1")}).filter(location_id="a")
    weak = WeakConfig(size=32, scale_min=1, scale_max=1, horizontal_flip=0, vertical_flip=0)
    dataset = TileDataset(Order(0, {"pool": Stream("unlabelled", seasons=True)}, {"pool": len(catalog)}, 1), {"pool": catalog}, 3, weak)
    batch = to_batch(collate([dataset[("pool", 0, 0)]]), catalog.sensor(), 32, torch.device("cpu"))
    wanted = np.isfinite(spoilt).all(0)
    np.testing.assert_array_equal(batch["valid"][0].numpy(), wanted)
    assert torch.isfinite(batch["image"]).all()
    assert (batch["mask"] == 255).all()
    assert batch["seasons"].shape == (1, 2, 32, 32)
