"""Duplicates: planted copies are found however they were changed, and different pictures are not taken for copies."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tilth.catalog import duplicates
from tilth.catalog.build import build_catalog
from tilth.catalog.check import check_catalog
from tilth.catalog.check_copies import Copies
from tilth.catalog.check_tile import Outcome
from tilth.catalog.config import BuildConfig
from tilth.catalog.duplicates import Portraits, near_pairs, perceptual_hashes, pixel_digest, portrait
from tilth.catalog.table import Catalog
from tilth.classes import ClassScheme, LandClass
from tilth.imagery.raster import Pixels
from tilth.sensors import get_sensor


def picture(seed: int, side: int = 160, bands: int = 3) -> np.ndarray:
    """Something like land: fields with edges, and fine texture. uint8 (C, side, side)."""
    random = np.random.default_rng(seed)
    fields = ndimage.zoom(random.normal(0, 1, (side // 16, side // 16)), 16, order=0)
    smooth = ndimage.gaussian_filter(random.normal(0, 1, (side, side)), 8) * 20
    grey = fields + smooth + random.normal(0, 0.2, (side, side))
    colour = grey + random.normal(0, 0.2, (bands, 1, 1)) * fields
    return np.clip(128 + 30 * colour, 0, 255).astype(np.uint8)


def whole(data: np.ndarray) -> Pixels:
    return Pixels(data, np.ones(data.shape[1:], dtype=bool))


def recompressed(data: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(data.transpose(1, 2, 0)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).transpose(2, 0, 1)


CHANGES = {
    "compressed": lambda data: recompressed(data, 40),
    "brighter": lambda data: np.clip(data * 1.15 + 12.0, 0, 255).astype(np.uint8),
    "flat": lambda data: (data * 0.5 + 40).astype(np.uint8),
    "cropped": lambda data: data[:, 2:-1, 1:-2],
    "halved": lambda data: np.asarray(Image.fromarray(data.transpose(1, 2, 0)).resize((80, 80), Image.Resampling.BOX)).transpose(2, 0, 1),
    "noisy": lambda data: np.clip(data + np.random.default_rng(9).normal(0, 8, data.shape), 0, 255).astype(np.uint8),
    "one band": lambda data: data.mean(axis=0, keepdims=True).astype(np.uint8),
    "sixteen bits": lambda data: data.astype(np.uint16) * 40,
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_are_found_among_other_pictures(change):
    pictures = [picture(seed) for seed in range(40)]
    copies = {40 + place: seed for place, seed in enumerate((3, 17, 29))}
    drawn = [portrait(whole(data)) for data in [*pictures, *(CHANGES[change](pictures[seed]) for seed in copies.values())]]
    pairs, likeness = near_pairs(Portraits(np.arange(len(drawn)) * 2, np.stack(drawn)))
    assert pairs.tolist() == [[2 * seed, 2 * place] for place, seed in copies.items()]
    assert (likeness > 0.95).all()


def test_radar_with_other_speckle_is_no_duplicate_and_a_copy_is():
    random = np.random.default_rng(0)
    scene = ndimage.gaussian_filter(random.normal(0, 1, (128, 128)), 6) * 10 - 12
    speckled = [(scene + 10 * np.log10(random.gamma(1, 1, (2, 128, 128)))).astype(np.float32) for _ in range(3)]
    field = ndimage.gaussian_filter(np.random.default_rng(5).normal(0, 1, (128, 128)), 6) * 10 - 12
    other = (field + 10 * np.log10(random.gamma(1, 1, (2, 128, 128)))).astype(np.float32)
    drawn = [portrait(whole(data)) for data in (speckled[0], speckled[0] + 0.3, other)]
    assert near_pairs(Portraits(np.arange(3), np.stack(drawn)))[0].tolist() == [[0, 1]]


def test_tiles_without_structure_are_not_alike():
    """Water under haze: one smooth gradient with fresh noise each time; and pure noise."""
    random = np.random.default_rng(1)
    ramp = np.linspace(60, 110, 96)[None, :, None] * np.ones((3, 1, 96))
    drawn = [portrait(whole(np.clip(ramp + random.normal(0, 4, ramp.shape), 0, 255).astype(np.uint8))) for _ in range(60)]
    drawn += [portrait(whole(random.integers(0, 256, (3, 64, 64)).astype(np.uint8))) for _ in range(60)]
    assert len(near_pairs(Portraits(np.arange(len(drawn)), np.stack(drawn)))[0]) == 0


@pytest.mark.slow
def test_candidates_lose_next_to_nothing_against_all_pairs():
    """The tables against a comparison of every portrait with every other."""
    pictures = np.stack([portrait(whole(picture(seed, 64))) for seed in range(80)]).repeat(3, axis=0)
    mixed = np.clip(pictures + np.random.default_rng(0).normal(0, 2, pictures.shape), -127, 127).astype(np.int8)
    first, second = np.triu_indices(len(mixed), 1)
    hashes = perceptual_hashes(mixed)
    differ = np.array([number.bit_count() for number in (hashes[first] ^ hashes[second]).tolist()])
    alike = duplicates._agreement(mixed[first], mixed[second]) > 0
    expected = set(zip(first[alike & (differ <= duplicates.MOST_BITS)], second[alike & (differ <= duplicates.MOST_BITS)], strict=True))
    found = set(map(tuple, near_pairs(Portraits(np.arange(len(mixed)), mixed))[0].tolist()))
    assert len(expected) > 100
    assert found <= expected
    assert len(found) >= 0.99 * len(expected)


def test_portraits_ignore_what_is_not_valid():
    data = picture(1)
    broken, valid = data.copy(), np.ones(data.shape[1:], dtype=bool)
    broken[:, 40:60, 50:90], valid[40:60, 50:90] = 255, False
    pictures = np.stack([portrait(whole(data)), portrait(Pixels(broken, valid)), portrait(whole(broken))])
    assert near_pairs(Portraits(np.arange(3), pictures))[0].tolist() == [[0, 1]]
    assert portrait(Pixels(data, np.zeros_like(valid))) is None
    assert portrait(whole(data[:, :31])) is None
    assert portrait(whole(np.full_like(data, 7))) is None


def test_digests_tell_pixels_types_and_shapes_apart():
    data = picture(0, 32)
    same = [pixel_digest(whole(data)), pixel_digest(whole(np.asfortranarray(data))), pixel_digest(whole(data.copy()))]
    other = [pixel_digest(whole(item)) for item in (data.view(np.int8), data.reshape(3, 16, 64), data[::-1], data + np.uint8(1))]
    assert len(set(same)) == 1
    assert len({*same, *other}) == 5


def save(folder, name: str, data: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(data.transpose(1, 2, 0)).save(folder / f"{name}.png")


def catalog_of(tmp_path, names_and_splits: dict[str, str | None]) -> Catalog:
    catalog = build_catalog(BuildConfig(inputs=(str(tmp_path),), sensor="rgb", prefix="t", layout="plain"))
    return catalog.with_columns(split=[names_and_splits[name.removeprefix("t/")] for name in catalog.column("tile_id")])


def found(report) -> list[tuple[str, str]]:
    return [(item.what, item.tile_id.removeprefix("t/")) for item in report.findings if "duplicate" in item.what]


def test_exact_copies_across_splits_are_errors_and_the_smaller_split_keeps_them(tmp_path):
    one, two, three = (picture(seed, 64) for seed in range(3))
    splits = {"a": "train", "b": "train", "c": "test", "d": "train", "e": "val", "f": None}
    for name, data in zip(splits, (one, one, one, two, three, three), strict=True):
        save(tmp_path, name, data)
    catalog = catalog_of(tmp_path, splits)
    report = check_catalog(catalog)
    assert found(report) == [("duplicate in two splits", "a"), ("duplicate in two splits", "b"), ("duplicate", "f")]
    assert "t/c" in report.errors[0].found
    assert report.sound(catalog).column("tile_id") == ["t/c", "t/d", "t/e"]
    assert found(check_catalog(catalog, duplicates="none")) == []


def test_copies_within_a_split_are_warnings_and_the_first_stays(tmp_path):
    one = picture(0, 64)
    for name, data in {"a": one, "b": one, "c": recompressed(one, 60)}.items():
        save(tmp_path, name, data)
    catalog = catalog_of(tmp_path, dict.fromkeys("abc", "train"))
    report = check_catalog(catalog)
    assert report.ok
    assert found(report) == [("duplicate", "b"), ("near duplicate", "c")]
    assert report.sound(catalog).column("tile_id") == ["t/a", "t/c"]
    assert found(check_catalog(catalog, duplicates="exact")) == [("duplicate", "b")]


def test_near_copies_across_splits_are_errors_of_the_larger_split(tmp_path):
    one, two = picture(0, 64), picture(1, 64)
    splits = {"a": "train", "b": "val", "c": "train"}
    for name, data in zip(splits, (one, recompressed(one, 60), two), strict=True):
        save(tmp_path, name, data)
    catalog = catalog_of(tmp_path, splits)
    report = check_catalog(catalog)
    assert found(report) == [("near duplicate in two splits", "a")]
    assert report.sound(catalog).column("tile_id") == ["t/b", "t/c"]


def test_one_place_on_two_days_is_no_near_duplicate_within_a_split(tmp_path):
    one = picture(0, 64)
    save(tmp_path, "a_20200101", one)
    save(tmp_path, "b_20200202", recompressed(one, 60))
    catalog = build_catalog(BuildConfig(inputs=(str(tmp_path),), sensor="rgb", prefix="t", datetime_pattern="_([0-9]{8})"))
    assert found(check_catalog(catalog)) == []
    apart = catalog.with_columns(split=["train", "val"])
    assert found(check_catalog(apart)) == [("near duplicate in two splits", "a_20200101")]


def test_one_window_under_two_ids_is_a_duplicate(tmp_path):
    save(tmp_path, "a", picture(0, 64))
    rows = [{"tile_id": name, "image": str(tmp_path / "a.png"), "window": (8, 8, 40, 40), "sensor": "rgb"} for name in ("x", "y")]
    assert found(check_catalog(Catalog.from_rows(rows, {"rgb": get_sensor("rgb")}))) == [("duplicate", "y")]


def test_constant_tiles_are_no_duplicates(tmp_path):
    for name in "ab":
        save(tmp_path, name, np.zeros((3, 64, 64), np.uint8))
    assert found(check_catalog(catalog_of(tmp_path, {"a": "train", "b": "val"}))) == []


def labelled_pool(tmp_path, labels: dict[str, str | None], masks: dict[str, np.ndarray] | None = None, splits=None) -> Catalog:
    """One picture, or those named alike up to a digit, under several names; label kinds by name."""
    scheme = ClassScheme(name="two", classes=(LandClass(name="a", colour=(0, 0, 0)), LandClass(name="b", colour=(9, 9, 9))))
    rows = []
    for name, kind in labels.items():
        row = {"tile_id": f"t/{name}", "image": str(tmp_path / f"{name}.png"), "window": (0, 0, 64, 64), "sensor": "rgb"}
        if kind is not None:
            mask = (masks or {}).get(name, np.indices((64, 64)).sum(axis=0) % 2)
            Image.fromarray(mask.astype(np.uint8)).save(tmp_path / f"{name}_mask.png")
            row |= {"label": str(tmp_path / f"{name}_mask.png"), "label_kind": kind, "scheme": "two"}
        rows.append(row | {"split": (splits or {}).get(name)})
    return Catalog.from_rows(rows, {"rgb": get_sensor("rgb")}, {"two": scheme})


def test_the_copy_with_the_better_label_stays(tmp_path):
    one = picture(0, 64)
    labels = {"a": None, "b": "pseudo", "c": "clean", "d": "noisy", "e": "clean"}
    for name in labels:
        save(tmp_path, name, one)
    catalog = labelled_pool(tmp_path, labels)
    assert check_catalog(catalog).sound(catalog).column("tile_id") == ["t/c"]
    # However small the other split is.
    splits = {"a": "val", "b": "train", "c": "train", "d": "train", "e": "test"}
    apart = labelled_pool(tmp_path, labels, splits=splits)
    assert check_catalog(apart).sound(apart).column("tile_id") == ["t/e"]
    # A label that cannot be read is none.
    for name in "ce":
        (tmp_path / f"{name}_mask.png").write_bytes(b"torn")
    assert check_catalog(catalog).sound(catalog).column("tile_id") == ["t/d"]


def test_the_nearly_same_picture_with_a_label_stays(tmp_path):
    one = picture(0, 64)
    for name, data in {"a": one, "b": recompressed(one, 60)}.items():
        save(tmp_path, name, data)
    catalog = labelled_pool(tmp_path, {"a": "clean", "b": None}, splits={"a": "train", "b": "val"})
    report = check_catalog(catalog)
    assert found(report) == [("near duplicate in two splits", "b")]
    assert report.sound(catalog).column("tile_id") == ["t/a"]


def test_copies_with_other_labels_are_named(tmp_path):
    for name in "abc":
        save(tmp_path, name, picture(0, 64))
    masks = {name: np.indices((64, 64))[0] % 2 for name in "abc"}
    masks["c"] = masks["c"].copy()
    masks["c"][:32] = 1 - masks["c"][:32]
    report = check_catalog(labelled_pool(tmp_path, dict.fromkeys("abc", "clean"), masks))
    assert [(item.what, item.tile_id, item.found) for item in report.findings if item.what.startswith("copies")] == [
        ("copies labelled differently", "t/c", "50.0% of it different")
    ]


def test_a_long_time_series_costs_little_and_finds_what_lies_in_two_splits(tmp_path, monkeypatch):
    """Many looks at few places: one partner for each tile is enough, so few pairs are compared."""
    places, looks = 3, 150
    random = np.random.default_rng(0)
    drawn = np.stack([portrait(whole(picture(seed, 64))) for seed in range(places)]).repeat(looks, axis=0)
    drawn = np.clip(drawn + random.normal(0, 2, drawn.shape), -127, 127).astype(np.int8)
    rows = [
        {"tile_id": f"{row}", "image": f"/none/{row}.png", "window": (0, 0, 64, 64), "sensor": "rgb", "split": "train"}
        for row in range(len(drawn))
    ]
    # The second place is in two splits, one tile of it in the smaller.
    rows[looks + 70]["split"] = "val"
    copies = Copies(Catalog.from_rows(rows, {"rgb": get_sensor("rgb")}), near=True)
    for row, item in enumerate(drawn):
        copies.take(row, Outcome(portrait=item))
    compared = []
    original = duplicates._agreement
    monkeypatch.setattr(duplicates, "_agreement", lambda first, second: compared.append(len(first)) or original(first, second))
    kinds = {int(item.tile_id): item.what for item in copies.findings()}
    assert sorted(set(range(len(drawn))) - set(kinds)) == [0, looks + 70, 2 * looks]
    assert {row for row, what in kinds.items() if what.endswith("two splits")} == set(range(looks, 2 * looks)) - {looks + 70}
    # All pairs of a place are 11,175.
    assert sum(compared) < 0.2 * places * looks * (looks - 1) / 2
