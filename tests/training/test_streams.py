"""Which tile sits in which slot, and what happens to tiles that cannot be used."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from support.training_sample import SCHEME, catalog_of, make_rows
from tilth.augment.config import WeakConfig
from tilth.catalog.table import Catalog
from tilth.errors import ConfigError, RunError
from tilth.methods.s4p.fixmatch import FixMatch
from tilth.sensors import get_sensor
from tilth.training.order import Order
from tilth.training.streams import TileDataset, build_loader, plain_errors, to_batch

STREAMS = FixMatch.streams
WEAK = WeakConfig(size=32)


def make_order(labelled: int = 5, pool: int = 7, batch_size: int = 4, seed: int = 0) -> Order:
    return Order(seed, STREAMS, {"labelled": labelled, "unlabelled": pool, "partner": pool}, batch_size)


def make_dataset(catalogs, **order) -> TileDataset:
    labelled, pool = catalogs
    made = make_order(len(labelled), len(pool), **order)
    return TileDataset(made, {"labelled": labelled, "unlabelled": pool, "partner": pool}, len(SCHEME), WEAK)


def load(dataset: TileDataset, steps: range, rank: int = 0, ranks: int = 1, workers: int = 0, accumulate: int = 1) -> list[dict]:
    return list(build_loader(dataset, steps, accumulate=accumulate, rank=rank, ranks=ranks, workers=workers, pin_memory=False))


@pytest.mark.parametrize(("size", "batch_size"), [(7, 4), (5, 5), (3, 8), (1, 4), (64, 6)])
@pytest.mark.parametrize("stream", ["labelled", "unlabelled"])
def test_every_tile_comes_once_an_epoch(size, batch_size, stream):
    order = make_order(size, max(size, 2), batch_size)
    size = order.sizes[stream]
    rows = [order.index(stream, place // batch_size, place % batch_size) for place in range(6 * size)]
    epochs = [rows[start : start + size] for start in range(0, len(rows), size)]
    assert all(sorted(epoch) == list(range(size)) for epoch in epochs)
    assert size < 5 or len({tuple(epoch) for epoch in epochs}) == 6


@pytest.mark.parametrize("pool", [2, 3, 7, 50])
def test_partner_is_another_tile_in_every_slot(pool):
    order = make_order(pool=pool, batch_size=6)
    pairs = [(order.index("unlabelled", step, slot), order.index("partner", step, slot)) for step in range(3 * pool) for slot in range(6)]
    assert all(own != partner for own, partner in pairs)
    # Independent: every tile meets many others, and partners are used about equally.
    assert len(set(pairs)) > min(pool * (pool - 1), len(pairs)) * 0.5
    uses = Counter(partner for _, partner in pairs)
    assert min(uses.values()) > 0.4 * max(uses.values())


def test_order_is_a_pure_function_of_its_key():
    first, second = make_order(), make_order()
    keys = [(stream, step, slot) for stream in STREAMS for step in range(9) for slot in range(4)]
    forwards = {key: first.index(*key) for key in keys}
    assert forwards == {key: second.index(*key) for key in reversed(keys)}
    assert forwards != {key: make_order(seed=1).index(*key) for key in keys}
    assert [first.index("labelled", 0, slot) for slot in range(4)] != [first.index("unlabelled", 0, slot) for slot in range(4)]


def test_batches_depend_on_step_alone_not_on_workers_or_the_first_step(catalogs):
    dataset = make_dataset(catalogs)
    whole = load(dataset, range(6))
    for other in (load(dataset, range(2, 6)), load(dataset, range(2, 6), workers=2)):
        for found, wanted in zip(other, whole[2:], strict=True):
            for stream in STREAMS:
                assert found[stream].tile_id == wanted[stream].tile_id
                assert found[stream].draw == wanted[stream].draw
                assert found[stream].geometry == wanted[stream].geometry
                assert torch.equal(found[stream].stored, wanted[stream].stored)
                assert torch.equal(found[stream].mask, wanted[stream].mask)
    draws = [draw for batches in whole for batch in batches.values() for draw in batch.draw]
    assert len(set(draws)) == len(draws)


def test_ranks_and_accumulation_cut_the_same_step_into_parts(catalogs):
    dataset = make_dataset(catalogs, batch_size=8)
    whole = load(dataset, range(4))
    ranks = [load(dataset, range(4), rank=rank, ranks=2, accumulate=2) for rank in range(2)]
    for step, wanted in enumerate(whole):
        parts = [ranks[rank][2 * step + place] for rank in range(2) for place in range(2)]
        for stream in STREAMS:
            assert [tile_id for part in parts for tile_id in part[stream].tile_id] == wanted[stream].tile_id
            assert [draw for part in parts for draw in part[stream].draw] == wanted[stream].draw
            assert all(len(part[stream].tile_id) == 2 for part in parts)
    with pytest.raises(ConfigError, match="cannot be cut evenly over 3 devices"):
        load(dataset, range(4), ranks=3)


def test_tiles_smaller_than_the_crop_and_of_several_sizes_are_padded(tmp_path):
    rows = make_rows(tmp_path, "a", 2, split="train", size=(9, 40)) + make_rows(tmp_path, "b", 2, split="train", size=(48, 12))
    dataset = make_dataset((catalog_of(rows), catalog_of(make_rows(tmp_path, "c", 3, split=None, size=(5, 7), labelled=False))))
    for raw in load(dataset, range(5)):
        for stream, item in raw.items():
            batch = to_batch(item, get_sensor("rgb"), 32, torch.device("cpu"))
            assert batch["image"].shape == (4, 3, 32, 32)
            assert batch["mask"].shape == batch["valid"].shape == (4, 32, 32)
            assert torch.isfinite(batch["image"]).all()
            assert batch["valid"].flatten(1).any(1).all()
            assert (batch["mask"][~batch["valid"]] == 255).all()
            assert stream == "labelled" or (batch["mask"] == 255).all()
            assert set(batch["mask"].unique().tolist()) <= {0, 1, 2, 255}


@pytest.mark.parametrize(("name", "dtype"), [("s2_l2a", "uint16"), ("s2_l2a", "int16"), ("s1", "float32"), ("rgb", "uint8")])
def test_number_types_and_band_counts_reach_the_device(tmp_path, name, dtype):
    sensor = get_sensor(name)
    draw = np.random.default_rng(0)
    rows = []
    for index in range(4):
        stored = draw.uniform(0, 200, (len(sensor), 40, 36)).astype(dtype)
        if dtype == "float32":
            stored[:, 3, 5] = np.nan
        np.save(tmp_path / f"{index}.npy", stored)
        np.save(tmp_path / f"{index}_mask.npy", draw.integers(0, 3, (40, 36)).astype(np.uint8))
        row = {"tile_id": str(index), "image": str(tmp_path / f"{index}.npy"), "window": (0, 0, 36, 40), "sensor": name}
        rows.append(row | {"label": str(tmp_path / f"{index}_mask.npy"), "label_kind": "clean", "scheme": SCHEME.name})
    catalog = Catalog.from_rows(rows, {name: sensor}, {SCHEME.name: SCHEME})
    raw = load(make_dataset((catalog, catalog)), range(1))[0]["labelled"]
    assert raw.stored.numpy().dtype == dtype
    batch = to_batch(raw, sensor, 32, torch.device("cpu"))
    assert batch["image"].shape == (4, len(sensor), 32, 32)
    assert batch["image"].dtype == torch.float32
    assert batch["mask"].dtype == torch.int64
    assert torch.isfinite(batch["image"]).all()


def test_mixed_number_types_of_one_batch_are_not_cut_off(tmp_path):
    rows = make_rows(tmp_path, "a", 2, split="train", size=(40, 40))
    for index, row in enumerate(rows):
        row["image"] = str(tmp_path / f"{index}.npy")
        np.save(row["image"], np.full((3, 40, 40), 200 + 200 * index, np.uint8 if index == 0 else np.uint16))
    catalog = catalog_of(rows)
    raw = load(make_dataset((catalog, catalog), batch_size=2), range(1))[0]["labelled"]
    assert {int(item.max()) for item in raw.stored.numpy()} == {200, 400}


@pytest.fixture
def spoilt(tmp_path):
    """Labelled tiles and pool of which some went bad after the catalog was made: returns (catalogs, folder)."""
    labelled, pool = make_rows(tmp_path, "lab", 6, split="train"), make_rows(tmp_path, "pool", 6, split=None)
    return (catalog_of(labelled), catalog_of(pool)), tmp_path


def spoil(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:60])


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_tile_is_replaced_by_the_same_neighbour_every_time(spoilt, workers):
    catalogs, folder = spoilt
    dataset = make_dataset(catalogs)
    whole = load(dataset, range(6))
    spoil(folder / "lab2.png")
    (folder / "pool4.png").unlink()
    found = load(dataset, range(6), workers=workers)
    again = load(dataset, range(3, 6), workers=workers)
    bad: dict[str, str] = {}
    for step, (now, before) in enumerate(zip(found, whole, strict=True)):
        for stream in STREAMS:
            assert len(now[stream].tile_id) == 4
            bad |= dict(now[stream].bad)
            if step >= 3:
                assert again[step - 3][stream].tile_id == now[stream].tile_id
            for slot, (one, other) in enumerate(zip(now[stream].tile_id, before[stream].tile_id, strict=True)):
                assert one == other if other not in ("lab/2", "pool/4") else one not in ("lab/2", "pool/4"), slot
        assert all(own != partner for own, partner in zip(now["unlabelled"].tile_id, now["partner"].tile_id, strict=True))
    assert set(bad) == {"lab/2", "pool/4"}
    assert "lab2.png" in bad["lab/2"]
    assert "pool4.png" in bad["pool/4"]


def test_label_outside_the_scheme_counts_as_unreadable(spoilt):
    catalogs, folder = spoilt
    Image.fromarray(np.full((48, 40), 7, np.uint8)).save(folder / "lab1_mask.png")
    bad = dict(item for raw in load(make_dataset(catalogs), range(6)) for item in raw["labelled"].bad)
    assert list(bad) == ["lab/1"]
    assert "label value 7 is outside the scheme (0 to 2, 255 = ignore)" in bad["lab/1"]


def test_image_with_other_bands_counts_as_unreadable(spoilt):
    catalogs, folder = spoilt
    Image.fromarray(np.full((48, 40), 9, np.uint8)).save(folder / "lab3.png")
    bad = dict(item for raw in load(make_dataset(catalogs), range(6)) for item in raw["labelled"].bad)
    assert bad["lab/3"].endswith("1 bands, sensor 'rgb' has 3")


def test_wrong_labels_of_the_pool_leave_its_tiles_usable(spoilt):
    catalogs, folder = spoilt
    Image.fromarray(np.full((48, 40), 7, np.uint8)).save(folder / "pool1_mask.png")
    spoil(folder / "pool2_mask.png")
    (folder / "pool3_mask.png").unlink()
    dataset = make_dataset(catalogs)
    known = set()
    for raw in load(dataset, range(9)):
        for stream in ("unlabelled", "partner"):
            assert not raw[stream].bad
            known |= {tile for tile, mask in zip(raw[stream].tile_id, raw[stream].mask, strict=True) if (mask != 255).any()}
    assert known == {"pool/0", "pool/4", "pool/5"}


def test_pool_labels_of_another_scheme_are_not_compared_with(spoilt):
    (labelled, pool), _ = spoilt
    other = SCHEME.model_copy(update={"name": "other"})
    rows = [row | {"scheme": "other"} for row in pool.table.to_pylist()]
    renamed = Catalog.from_rows(rows, pool.sensors, {"other": other})
    assert all((raw["unlabelled"].mask == 255).all() for raw in load(make_dataset((labelled, renamed)), range(3)))


@pytest.mark.parametrize("workers", [0, 1])
def test_many_unreadable_tiles_in_a_row_end_in_one_line(spoilt, workers):
    catalogs, folder = spoilt
    for index in range(6):
        spoil(folder / f"lab{index}.png")
    loader = build_loader(make_dataset(catalogs), range(3), accumulate=1, rank=0, ranks=1, workers=workers, pin_memory=False)
    with pytest.raises(RunError, match=r"^stream 'labelled': 6 tiles in a row cannot be read, the last says: .*lab") as caught:
        list(plain_errors(loader))
    assert len(str(caught.value).splitlines()) == 1
