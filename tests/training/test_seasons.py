"""Places with several seasons, and clean labels beside noisy ones: from the rows of a catalog to the batch."""

from __future__ import annotations

import dataclasses
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from support.training_sample import SCHEME, catalog_of, make_rows
from tilth.augment.config import WeakConfig
from tilth.batch import Batch
from tilth.catalog.pack import pack_catalog
from tilth.catalog.seasons import MOST_SEASONS, find_places
from tilth.catalog.table import Catalog
from tilth.errors import CatalogError
from tilth.imagery.read import read_label
from tilth.methods.base import Stream
from tilth.methods.cromss.method import Cromss
from tilth.methods.cromss.smoothing import label_prior
from tilth.sensors import get_sensor
from tilth.training.estimate import _batch
from tilth.training.order import Order
from tilth.training.streams import TileDataset, build_loader, to_batch

WEAK = WeakConfig(size=32, scale_min=0.7, scale_max=1.4, rot90=True, rotation=0.5)
SEASONS = (4, 1, 2, 3, 1)
"""Rows of each place; the last has no location."""


def seasons_of(folder: Path) -> list[dict]:
    """Rows of five places, mixed; the label of season t is that of the first plus t, its reference the one after that."""
    rows: list[dict] = []
    for place, count in enumerate(SEASONS):
        (first,) = make_rows(folder, f"p{place}", 1, split="train", size=(40 + place, 48))
        label = read_label(first["label"])
        for season in range(count):
            row = first | {"tile_id": f"{place}/{season}", "location_id": f"place {place}" if place < 4 else None}
            for column, shift in (("label", season), ("reference", season + 1)):
                row[column] = str(folder / f"{column}{place}{season}.png")
                Image.fromarray(np.where(label == 255, 255, (label + shift) % 3).astype(np.uint8)).save(row[column])
            rows.append(row)
    return sorted(rows, key=lambda row: (row["tile_id"].split("/")[1], row["tile_id"]))


@pytest.fixture
def catalog(tmp_path) -> Catalog:
    return catalog_of(seasons_of(tmp_path))


def dataset_of(catalog: Catalog, stream: Stream | None = None, batch_size: int = 4, weak: WeakConfig = WEAK) -> TileDataset:
    wanted = stream or Stream("labelled", seasons=True, reference=True)
    order = Order(0, {"labelled": wanted}, {"labelled": len(catalog)}, batch_size)
    return TileDataset(order, {"labelled": catalog}, len(SCHEME), weak)


def raw_batches(dataset: TileDataset, steps: range, **more: int) -> list:
    loader = build_loader(dataset, steps, **{"accumulate": 1, "rank": 0, "ranks": 1, "workers": 0, **more}, pin_memory=False)
    return [item["labelled"] for item in loader]


def batches(dataset: TileDataset, steps: range) -> list[Batch]:
    return [to_batch(raw, get_sensor("rgb"), 32, torch.device("cpu")) for raw in raw_batches(dataset, steps)]


def test_rows_of_one_location_and_window_are_one_place(catalog):
    found = find_places(catalog.table)
    wanted: dict[object, list[int]] = {}
    for row, (place, window) in enumerate(zip(catalog.column("location_id"), catalog.column("window"), strict=True)):
        wanted.setdefault((place or f"row {row}", tuple(window)), []).append(row)
    assert [found.seasons(place) for place in range(len(found))] == list(wanted.values())
    alone = find_places(catalog.with_columns(location_id=pa.nulls(len(catalog), pa.string())).table)
    assert [alone.seasons(place) for place in range(len(alone))] == [[row] for row in range(len(catalog))]
    assert len(find_places(catalog.take([]).table)) == 0


def test_windows_of_one_scene_stay_places_of_their_own_when_packed(tmp_path, catalog):
    row = catalog.table.to_pylist()[0]
    rows = [row | {"tile_id": f"w{x}", "window": (x, 0, 20, 20), "location_id": "scene"} for x in (0, 20)]
    rows += [rows[0] | {"tile_id": "w0 later"}]
    packed = pack_catalog(catalog_of(rows), tmp_path / "packed").catalog
    places = find_places(packed.table)
    assert [places.seasons(place) for place in range(len(places))] == [[0, 2], [1]]


def test_tiles_of_a_city_are_no_seasons(catalog):
    rows = [catalog.table.to_pylist()[0] | {"tile_id": str(number), "location_id": "a city"} for number in range(MOST_SEASONS + 1)]
    with pytest.raises(CatalogError, match=r"128 rows have location_id 'a city' and the same window, .*another location_id"):
        dataset_of(catalog_of(rows))


def test_tiles_of_one_moment_are_places_of_their_own_where_nothing_says_where_they_are(catalog):
    first = catalog.table.to_pylist()[0] | {"geometry": None}
    days = {"a city": (1, 1, 2, None), "a place": (1, 2, 3, None), "undated": (None, None)}
    rows = [
        first
        | {"tile_id": f"{name}/{number}", "location_id": name, "datetime": None if day is None else datetime(2020, 6, day, tzinfo=UTC)}
        for name, found in days.items()
        for number, day in enumerate(found)
    ]
    places = find_places(catalog_of(rows).table)
    assert [places.seasons(place) for place in range(len(places))] == [[0], [1], [2], [3], [4, 5, 6, 7], [8, 9]]
    shapely = pytest.importorskip("shapely")
    known = [row | {"geometry": shapely.to_wkb(shapely.box(10, 50, 10.01, 50.01))} for row in rows[:3]]
    assert len(find_places(catalog_of(known).table)) == 1


def test_tiles_of_other_ground_are_places_of_their_own_where_footprints_say_so(catalog):
    shapely = pytest.importorskip("shapely")
    first = catalog.table.to_pylist()[0]
    # Two columns of ground, the upper right one in three seasons of which one is shifted a little, and two tiles without footprint.
    west = [(10.0, 50.0), (10.01, 50.0), (10.0, 50.01), (10.01, 50.01), (10.0101, 50.0102), (10.01, 50.01), None, None]
    boxes = [None if corner is None else shapely.to_wkb(shapely.box(*corner, corner[0] + 0.01, corner[1] + 0.01)) for corner in west]
    rows = [first | {"tile_id": str(number), "location_id": "city", "geometry": box} for number, box in enumerate(boxes)]
    rows.append(first | {"tile_id": "other", "location_id": "town", "geometry": boxes[0]})
    places = find_places(catalog_of(rows).table)
    assert [places.seasons(place) for place in range(len(places))] == [[0], [1], [2], [3, 4, 5], [6, 7], [8]]
    many = [first | {"tile_id": str(number), "location_id": "a city", "geometry": shapely.to_wkb(shapely.box(number, 0, number + 1, 1))}
            for number in range(MOST_SEASONS + 1)]  # fmt: skip
    assert len(find_places(catalog_of(many).table)) == len(many)


def test_every_place_comes_once_an_epoch_in_a_season_drawn_anew(catalog):
    dataset = dataset_of(catalog, batch_size=5)
    assert dataset.order.sizes["labelled"] == len(SEASONS)
    drawn = [raw.tile_id for raw in raw_batches(dataset, range(20))]
    assert all(sorted(tile.split("/")[0] for tile in epoch) == list("01234") for epoch in drawn)
    counts = Counter(tile for epoch in drawn for tile in epoch)
    assert counts["1/0"] == counts["4/0"] == 20
    assert all(counts[f"0/{season}"] > 0 for season in range(4))


def test_seasons_are_drawn_uniformly_and_independently_of_the_slot(catalog):
    order = dataset_of(catalog, batch_size=5).order
    drawn = np.array([[order.season("labelled", step, slot, 4) for slot in range(5)] for step in range(400)])
    # Five deviations of 2000 draws, and of 1600 pairs.
    assert np.abs(np.bincount(drawn.ravel(), minlength=4) - 500).max() < 5 * np.sqrt(2000 * 3 / 16)
    pairs = drawn[:, :-1].ravel() * 4 + drawn[:, 1:].ravel()
    assert np.abs(np.bincount(pairs, minlength=16) - 100).max() < 5 * np.sqrt(1600 * 15 / 256)
    assert order.season("labelled", 0, 0, 1) == 0


def test_the_season_depends_on_step_and_slot_alone(catalog):
    dataset = dataset_of(catalog)
    whole = raw_batches(dataset, range(12))
    for other in (raw_batches(dataset, range(4, 12)), raw_batches(dataset, range(4, 12), workers=2)):
        for found, wanted in zip(other, whole[4:], strict=True):
            assert found.tile_id == wanted.tile_id
            assert torch.equal(found.seasons, wanted.seasons)
    halves = [raw_batches(dataset, range(12), rank=rank, ranks=2) for rank in range(2)]
    assert [one.tile_id + other.tile_id for one, other in zip(*halves, strict=True)] == [raw.tile_id for raw in whole]


def test_labels_of_all_seasons_and_reference_lie_in_the_same_crop(catalog):
    most = set()
    for batch in batches(dataset_of(catalog), range(12)):
        places = [[int(part) for part in tile.split("/")] for tile in batch["tile_id"]]
        seasons, reference = batch["seasons"], batch["reference"]
        assert seasons.dtype == reference.dtype == torch.int64
        assert seasons.shape == (4, max(SEASONS[place] for place, _ in places), 32, 32)
        most.add(seasons.shape[1])
        for sample, (place, drawn) in enumerate(places):
            mask = batch["mask"][sample]
            for season in range(seasons.shape[1]):
                wanted = (
                    torch.where(mask == 255, 255, (mask - drawn + season) % 3) if season < SEASONS[place] else torch.full_like(mask, 255)
                )
                assert torch.equal(seasons[sample, season], wanted)
            assert torch.equal(reference[sample], torch.where(mask == 255, 255, (mask + 1) % 3))
    assert most > {4}


def test_all_else_is_the_same_bit_by_bit_where_places_have_one_season(catalog):
    alone = catalog.filter(tile_id=[f"{place}/0" for place in range(5)])
    plain = batches(dataset_of(alone, Stream("labelled")), range(6))
    for found, wanted in zip(batches(dataset_of(alone), range(6)), plain, strict=True):
        assert torch.equal(found["seasons"][:, 0], found["mask"])
        assert found["seasons"].shape[1] == 1
        assert not {"seasons", "reference", "confidence"} & set(wanted)
        assert {name: value for name, value in found.items() if name in ("tile_id", "draw")} == {
            name: wanted[name] for name in ("tile_id", "draw")
        }
        assert all(torch.equal(found[name], wanted[name]) for name in ("image", "mask", "valid"))


def test_a_season_that_cannot_be_read_counts_as_ignored_and_is_told(tmp_path, catalog):
    (tmp_path / "label02.png").unlink()
    Image.fromarray(np.full((42, 48), 9, np.uint8)).save(tmp_path / "label20.png")
    told: dict[str, str] = {}
    for raw in raw_batches(dataset_of(catalog), range(20)):
        told |= dict(raw.bad)
        for sample, tile in enumerate(raw.tile_id):
            assert tile not in ("0/2", "2/0")
            if tile.startswith("0/"):
                assert (raw.seasons[sample, 2] == 255).all()
                assert (raw.seasons[sample, 3] != 255).any()
    assert set(told) == {"0/2", "2/0"}
    assert "label02.png: no such file" in told["0/2"]
    assert "label value 9 is outside the scheme" in told["2/0"]


def test_reference_is_looked_at_only(tmp_path, catalog):
    for file in tmp_path.glob("reference*.png"):
        file.write_bytes(b"spoilt")
    for raw in raw_batches(dataset_of(catalog), range(4)):
        assert not raw.bad
        assert (raw.reference == 255).all()
    without = Catalog(catalog.table.drop_columns(["reference"]), catalog.sensors, catalog.schemes)
    assert all(raw.reference is None and raw.seasons is not None for raw in raw_batches(dataset_of(without), range(2)))


def test_reference_is_saved_hashed_and_packed_like_a_label(tmp_path, catalog):
    path = catalog.save(tmp_path / "tiles.parquet")
    opened = Catalog.open(path)
    assert opened.column("reference") == catalog.column("reference")
    packed = Catalog.open(pack_catalog(opened, tmp_path / "packed").path)
    assert (tmp_path / "packed" / "references-00000.arrow").is_file()
    for before, after in zip(catalog.table.to_pylist(), packed.table.to_pylist(), strict=True):
        assert ".arrow#" in after["reference"]
        np.testing.assert_array_equal(read_label(after["reference"]), read_label(before["reference"]))
    fields = [dataclasses.asdict(dataset_of(tiles)[("labelled", 3, 1)]) for tiles in (catalog, packed)]
    for name, value in fields[0].items():
        np.testing.assert_array_equal(fields[1][name], value, err_msg=name)
    hashed = opened.fingerprint()
    Path(opened.column("reference")[0]).write_bytes(b"other")
    assert opened.fingerprint() != hashed


def test_cromss_asks_for_both_and_the_estimate_counts_them():
    stream = Cromss.streams["labelled"]
    assert (stream.seasons, stream.reference) == (True, True)
    assert {"seasons", "reference"} <= set(_batch("labelled", stream, 2, 3, 32))
    assert not {"seasons", "reference"} & set(_batch("labelled", Stream("labelled"), 2, 3, 32))


@pytest.mark.parametrize("kind", ["ts", "t", "s"])
def test_seasons_that_a_place_lacks_count_for_nothing(kind):
    draw = torch.Generator().manual_seed(0)
    label = torch.randint(0, 3, (2, 20, 24), generator=draw)
    label[:, :4] = 255
    seasons = torch.stack([label, torch.randint(0, 3, label.shape, generator=draw)], 1)
    wanted = label_prior(label, seasons, 3, kind)
    absent = torch.full((2, 3, 20, 24), 255)
    torch.testing.assert_close(label_prior(label, torch.cat([absent, seasons], 1), 3, kind), wanted, rtol=0, atol=1e-6)
    # A place of one season is what it is without seasons.
    torch.testing.assert_close(
        label_prior(label, torch.cat([label.unsqueeze(1), absent], 1), 3, kind), label_prior(label, None, 3, kind), rtol=0, atol=1e-6
    )


def test_the_most_seasons_are_counted_right():
    label = torch.zeros(1, 3, 3, dtype=torch.int64)
    seasons = label.unsqueeze(1).repeat(1, MOST_SEASONS, 1, 1)
    seasons[:, 100:] = 1
    found = label_prior(label, seasons, 2, "ts", sigma=0)
    torch.testing.assert_close(found[0, 1], torch.full((3, 3), 27 / MOST_SEASONS / 2), rtol=0, atol=1e-6)
