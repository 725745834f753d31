"""Splits and subsets. Oracles: brute force over tiles; random subsets of the same size."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tilth.catalog.build import build_catalog
from tilth.catalog.config import BuildConfig, SplitConfig
from tilth.catalog.ranking import rank_by_classes
from tilth.catalog.split import assign_blocks, label_ranks, split_catalog, subset
from tilth.catalog.table import Catalog
from tilth.errors import CatalogError, ConfigError, DataError
from tilth.sensors import get_sensor


def grid_catalog(side: int = 20, step_deg: float = 0.002, overlap: float = 1.0) -> Catalog:
    """Tiles of about 220 m on a square grid near the equator; ``overlap`` > 1 makes them reach into their neighbours."""
    rows = []
    for index in range(side * side):
        x, y = index % side * step_deg, index // side * step_deg
        shape = shapely.box(x, y, x + step_deg * overlap, y + step_deg * overlap)
        rows.append(
            {
                "tile_id": f"g{index:04d}",
                "image": f"/g/{index}.png",
                "window": (0, 0, 8, 8),
                "sensor": "rgb",
                "geometry": shapely.to_wkb(shape),
            }
        )
    return Catalog.from_rows(rows, {"rgb": get_sensor("rgb")})


def splits_of(catalog):
    return dict(zip(catalog.column("tile_id"), catalog.column("split"), strict=True))


def test_no_block_is_shared_and_fractions_are_met():
    catalog = split_catalog(grid_catalog(), SplitConfig(block_m=500))
    homes = {}
    for block, split in zip(catalog.column("block"), catalog.column("split"), strict=True):
        assert homes.setdefault(block, split) == split
    counts = catalog.counts("split")
    assert counts["train"] == pytest.approx(280, abs=10)
    assert counts["val"] == pytest.approx(60, abs=10)
    assert counts["test"] == pytest.approx(60, abs=10)


def test_blocks_are_squares_of_the_asked_size():
    catalog = grid_catalog()
    centres = {name: (index % 20, index // 20) for index, name in enumerate(catalog.column("tile_id"))}
    blocks = {}
    for name, block in zip(catalog.column("tile_id"), assign_blocks(catalog, SplitConfig(block_m=1000)), strict=True):
        blocks.setdefault(block, []).append(centres[name])
    tile_m = 0.002 * 111_195
    for members in blocks.values():
        for axis in zip(*members, strict=True):
            assert (max(axis) - min(axis)) * tile_m < 1000
    assert 16 <= len(blocks) <= 36


def test_blocks_in_degrees():
    blocks = assign_blocks(grid_catalog(), SplitConfig(block_deg=0.02))
    assert set(blocks) == {"0/0", "0/1", "1/0", "1/1"}


def test_split_is_a_function_of_the_seed_and_not_of_the_order_of_rows():
    catalog = grid_catalog()
    config = SplitConfig(block_m=500, seed=3)
    first = splits_of(split_catalog(catalog, config))
    shuffled = catalog.take(np.random.default_rng(0).permutation(len(catalog)))
    assert splits_of(split_catalog(shuffled, config)) == first
    assert splits_of(split_catalog(catalog, SplitConfig(block_m=500, seed=4))) != first


def test_tiles_that_see_ground_of_another_split_lose_theirs():
    catalog = split_catalog(grid_catalog(overlap=1.5), SplitConfig(block_m=500))
    shapes = catalog.to_geopandas().geometry.to_numpy()
    splits = catalog.column("split")
    assert None in splits
    for name, other in (("train", "val"), ("train", "test"), ("val", "test")):
        here = shapely.union_all(shapes[[split == name for split in splits]])
        there = shapely.union_all(shapes[[split == other for split in splits]])
        assert here.intersection(there).area < 1e-12
    assert None not in split_catalog(grid_catalog(), SplitConfig(block_m=500)).column("split")


def test_tiles_without_footprint_stay_with_their_image():
    rows = [
        {"tile_id": f"{image}/{part}", "image": f"/d/{image}.png", "window": (part * 8, 0, 8, 8), "sensor": "rgb"}
        for image in range(20)
        for part in range(5)
    ]
    catalog = split_catalog(Catalog.from_rows(rows, {"rgb": get_sensor("rgb")}), SplitConfig(fractions={"train": 0.5, "val": 0.5}))
    assert catalog.counts("split") == {"train": 50, "val": 50}
    for image in range(20):
        assert len(catalog.filter(image=f"/d/{image}.png").counts("split")) == 1
    assert catalog.column("block")[0] == "0.png"


def test_tiles_without_footprint_stay_with_their_place():
    # Two seasons of each place; the last file shows two places at once, which ties these together.
    rows = [
        {
            "tile_id": f"{place}{season}",
            "image": f"/d/{place}{season}.png",
            "window": (0, 0, 8, 8),
            "sensor": "rgb",
            "location_id": f"p{place}",
        }
        for place in range(20)
        for season in "sw"
    ]
    rows += [
        {"tile_id": f"both{place}", "image": "/d/both.png", "window": (8 * place, 0, 8, 8), "sensor": "rgb", "location_id": f"p{place}"}
        for place in (0, 1)
    ]
    rows.append({"tile_id": "alone", "image": "/d/alone.png", "window": (0, 0, 8, 8), "sensor": "rgb"})
    catalog = split_catalog(Catalog.from_rows(rows, {"rgb": get_sensor("rgb")}), SplitConfig(seed=2))
    for place in range(20):
        assert len(catalog.filter(location_id=f"p{place}").counts("split")) == 1
    blocks = dict(zip(catalog.column("tile_id"), catalog.column("block"), strict=True))
    assert blocks["0s"] == blocks["both1"] == blocks["1w"] == "location p0"
    assert (blocks["5s"], blocks["alone"]) == ("location p5", "alone.png")
    assert len(set(blocks.values())) == 20


def test_few_blocks_still_fill_every_split():
    catalog = grid_catalog(2)
    assert set(split_catalog(catalog, SplitConfig(block_m=1)).counts("split")) == {"train", "val", "test"}
    with pytest.raises(CatalogError, match=r"1 blocks cannot fill 3 splits.*block_m smaller"):
        split_catalog(catalog, SplitConfig(block_m=1e6))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fractions": {"train": 0.7, "val": 0.2}}, "add up to 0.9"),
        ({"fractions": {"train": 1.5, "val": -0.5}}, "must lie in"),
        ({"label_tiles": 3, "label_percent": 5}, "not both"),
        ({"label_tiles": 3, "rank_labels": False}, "need rank_labels"),
        ({"blocks_m": 5}, "did you mean 'block_m'"),
    ],
)
def test_wrong_options_say_what_is_wrong(options, message):
    with pytest.raises(ConfigError, match=message):
        SplitConfig.parse(options)


def shares(tiles: int, classes: int, seed: int) -> np.ndarray:
    """Pixels of each class: every class is rarer than the one before, and occurs in few tiles."""
    random = np.random.default_rng(seed)
    present = random.random((tiles, classes)) < 0.8 ** np.arange(classes) ** 1.6
    present[:, 0] = True
    return (present * random.integers(1, 1000, (tiles, classes))).astype(np.int64)


@given(tiles=st.integers(1, 60), classes=st.integers(1, 6), seed=st.integers(0, 2**40))
@settings(max_examples=40, deadline=None)
def test_ranking_is_a_permutation(tiles, classes, seed):
    pixels = shares(tiles, classes, seed % 1000)
    order = rank_by_classes(pixels, seed)
    assert sorted(order.tolist()) == list(range(tiles))
    assert (order == rank_by_classes(pixels, seed)).all()


def test_every_class_is_seen_as_early_as_can_be():
    pixels = np.zeros((50, 5), dtype=np.int64)
    pixels[:, 0] = 1000
    pixels[7, 1], pixels[13, 2:4], pixels[49, 4] = 3, 5, 1
    for seed in range(5):
        assert (pixels[rank_by_classes(pixels, seed)[:3]].sum(axis=0) > 0).all()


def test_ranking_covers_rare_classes_better_than_chance_and_looks_like_the_whole():
    pixels = shares(120, 7, 1)
    whole = (pixels / pixels.sum(axis=1, keepdims=True)).mean(axis=0)
    covered, distance = {"ranked": [], "random": []}, {"ranked": [], "random": []}
    for seed in range(10):
        for name, order in (("ranked", rank_by_classes(pixels, seed)), ("random", np.random.default_rng(seed).permutation(120))):
            chosen = pixels[order[:12]]
            covered[name].append((chosen.sum(axis=0) > 0).sum())
            distance[name].append(np.abs((chosen / chosen.sum(axis=1, keepdims=True)).mean(axis=0) - whole).sum())
    assert min(covered["ranked"]) == (pixels.sum(axis=0) > 0).sum()
    assert np.mean(covered["random"]) < np.mean(covered["ranked"])
    assert np.mean(distance["ranked"]) < 0.5 * np.mean(distance["random"])


def test_seeds_choose_different_tiles():
    pixels = shares(120, 5, 2)
    chosen = [set(rank_by_classes(pixels, seed)[:12].tolist()) for seed in range(4)]
    assert all(len(one & other) < 9 for index, one in enumerate(chosen) for other in chosen[:index])


def test_tiles_without_labelled_pixels_come_last():
    pixels = shares(30, 3, 3)
    pixels[[4, 11]] = 0
    assert set(rank_by_classes(pixels, 0)[-2:].tolist()) == {4, 11}


@pytest.fixture
def labelled(pairs):
    for index in range(8, 40):
        Image.fromarray(np.full((4, 4, 3), index, np.uint8)).save(pairs / "images" / f"i{index}.png")
        Image.fromarray(np.full((4, 4), index % 2 if index != 33 else 2, np.uint8)).save(pairs / "masks" / f"i{index}.png")
    (pairs / "splits" / "train.txt").write_text("\n".join(f"i{index}" for index in (0, 1, 2, 3, *range(8, 40))))
    return build_catalog(BuildConfig(inputs=(str(pairs),), sensor="rgb"))


def test_ranks_belong_to_labelled_training_tiles(labelled):
    catalog = split_catalog(labelled, SplitConfig(keep_splits=True))
    assert catalog.column("split") == labelled.column("split")
    ranks = catalog.column("label_rank")
    train = [split == "train" for split in catalog.column("split")]
    assert sorted(rank for rank in ranks if rank is not None) == list(range(36))
    assert [rank is not None for rank in ranks] == train
    assert all(rank is None for rank in split_catalog(catalog, SplitConfig(rank_labels=False)).column("label_rank"))


def test_ranks_do_not_depend_on_the_order_of_rows(labelled):
    catalog = labelled.with_columns(label_rank=label_ranks(labelled, 5))
    other = labelled.take(np.random.default_rng(0).permutation(len(labelled)))
    other = other.with_columns(label_rank=label_ranks(other, 5))
    pairs = [dict(zip(item.column("tile_id"), item.column("label_rank"), strict=True)) for item in (catalog, other)]
    assert pairs[0] == pairs[1]


def test_smaller_subsets_lie_inside_larger_ones(labelled):
    catalog = split_catalog(labelled, SplitConfig(keep_splits=True, seed=1))
    inner: set[str] = set()
    for size in range(1, 37):
        outer = set(subset(catalog, tiles=size, drop_others=True).column("tile_id"))
        assert len(outer) == size
        assert inner < outer
        inner = outer
    inner = set()
    for percent in (0.1, 1, 5, 10, 25, 33.3, 50, 100):
        outer = set(subset(catalog, percent=percent, drop_others=True).column("tile_id"))
        assert len(outer) == max(1, round(36 * percent / 100))
        assert inner <= outer
        inner = outer


def test_subset_takes_labels_from_the_others_of_its_split_only(labelled):
    catalog = split_catalog(labelled, SplitConfig(keep_splits=True, label_tiles=6))
    assert len(catalog) == len(labelled)
    assert len(catalog.filter(split="train").labelled()) == 6
    assert len(catalog.filter(split="val").labelled()) == 2
    unlabelled = catalog.filter(split="train", label_kind="none")
    assert unlabelled.counts("label") == {None: 30}
    assert unlabelled.counts("scheme") == {None: 30}
    assert set(catalog.filter(split="train").labelled().column("tile_id")) == set(
        subset(split_catalog(labelled, SplitConfig(keep_splits=True)), tiles=6, drop_others=True).column("tile_id")
    )


def test_rankings_of_joined_catalogs_interlock(labelled):
    """N tiles of several catalogs are N in all, in turn from each, however the catalogs are ordered."""
    parts = []
    for name in "ab":
        ranked = split_catalog(labelled, SplitConfig(seed=ord(name)))
        parts.append(ranked.with_columns(tile_id=[f"{name}/{tile}" for tile in ranked.column("tile_id")]))
    first, second = (dict(zip(part.column("tile_id"), part.column("label_rank"), strict=True)) for part in parts)
    for size in range(1, 12):
        found = subset(Catalog.concat(parts), tiles=size, drop_others=True)
        turned = subset(Catalog.concat(parts[::-1]), tiles=size, drop_others=True)
        assert len(found) == size
        assert set(found.column("tile_id")) == set(turned.column("tile_id"))
        ranks = [sorted(known[name] for name in found.column("tile_id") if name in known) for known in (first, second)]
        assert ranks == [list(range((size + 1) // 2)), list(range(size // 2))]


def test_tiles_that_were_dropped_leave_no_gap_in_the_ranking(labelled):
    ranked = split_catalog(labelled, SplitConfig())
    kept = ranked.filter(label_rank=[1, 3, 4, 6])
    assert sorted(subset(kept, tiles=3, drop_others=True).column("label_rank")) == [1, 3, 4]


def test_wrong_subsets_say_what_is_wrong(labelled):
    with pytest.raises(CatalogError, match="no column 'label_rank'"):
        subset(labelled, tiles=3)
    catalog = split_catalog(labelled, SplitConfig(keep_splits=True))
    with pytest.raises(CatalogError, match="either tiles or percent"):
        subset(catalog)
    with pytest.raises(CatalogError, match="37 tiles asked for, 36 tiles are ranked"):
        subset(catalog, tiles=37)
    with pytest.raises(CatalogError, match="120 % asked for"):
        subset(catalog, percent=120)
    with pytest.raises(CatalogError, match="lost their label"):
        subset(subset(catalog, tiles=3), tiles=5)
    with pytest.raises(CatalogError, match="no labelled tile in split 'training'"):
        label_ranks(labelled, split="training")


def test_label_value_outside_the_scheme_stops_the_ranking(labelled, pairs):
    Image.fromarray(np.full((4, 4), 8, np.uint8)).save(pairs / "masks" / "i9.png")
    with pytest.raises(DataError, match=r"i9\.png: tile 'pairs/i9' has 16 pixels of value 8"):
        split_catalog(labelled, SplitConfig(keep_splits=True))
