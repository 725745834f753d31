"""A pool gets labels and a catalog of them that every other stage reads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tilth
from support.curation_world import SCHEME, SIDE, catalog_of, picture, save, with_alpha
from support.labelling_calls import TILES, files, label, rows
from tilth.catalog.check import check_catalog
from tilth.catalog.confidence import confidence_place, read_confidence
from tilth.catalog.table import Catalog
from tilth.classes import ClassScheme, LandClass
from tilth.cli.main import main
from tilth.errors import CatalogError, ConfigError, DataError, OutputExistsError, SensorMismatchError, TilthError, UsageError
from tilth.imagery.grid import window_transform
from tilth.imagery.read import read_info, read_label, read_pixels
from tilth.imagery.write import write_raster
from tilth.labelling.plan import plan_labels
from tilth.models.inference import predict_tile
from tilth.sensors import get_sensor


def test_every_tile_that_can_be_read_has_the_label_of_the_model(world, model, labelled):
    pool, found = Catalog.open(world / "pool.parquet"), Catalog.open(labelled / "catalog.parquet")
    assert found.column("tile_id") == [name for name in pool.column("tile_id") if name != "torn"]
    assert found.counts("label_kind") == {"pseudo": TILES - 1}
    assert found.counts("scheme") == {SCHEME.name: TILES - 1}
    assert found.scheme() == model.scheme
    # The pool has no splits.
    assert found.counts("split") == {"train": TILES - 1}
    assert rows(labelled)["plain_03"]["source"] == "sea"
    for row, tile in enumerate(found.tiles()):
        pixels = read_pixels(tile.image, tile.window)
        highest, classes = (part.numpy() for part in predict_tile(model, pixels, window=SIDE, overlap=0).max(dim=0))
        mask = read_label(tile.label, tile.window)
        np.testing.assert_array_equal(mask, np.where(pixels.valid & (highest >= np.float32(0.5)), classes, 255))
        percents = read_confidence(*confidence_place(found, row))
        np.testing.assert_array_equal(percents, np.where(pixels.valid, np.rint(100 * highest), 255))


def test_columns_are_statistics_of_the_tile(model, labelled):
    for row in rows(labelled).values():
        pixels = read_pixels(row["image"])
        probabilities = predict_tile(model, pixels, window=SIDE, overlap=0).double().numpy()[:, pixels.valid]
        mask = read_label(row["label"])
        counts = np.bincount(mask[mask < 255], minlength=4)
        assert row["ignored_share"] == pytest.approx((mask == 255).mean(), abs=1e-6)
        if not pixels.valid.any():
            assert [row[name] for name in ("mean_confidence", "mean_entropy", "class_shares")] == [None] * 3
            continue
        assert row["mean_confidence"] == pytest.approx(probabilities.max(axis=0).mean(), abs=1e-5)
        assert row["mean_entropy"] == pytest.approx(-(probabilities * np.log(probabilities)).sum(axis=0).mean(), abs=1e-4)
        if counts.sum():
            assert row["class_shares"] == pytest.approx(counts / counts.sum(), abs=1e-6)
        else:
            assert row["class_shares"] is None


def test_record_sums_up(labelled):
    record, found = json.loads((labelled / "label.json").read_text()), rows(labelled)
    masks = np.concatenate([read_label(row["label"]).ravel() for row in found.values()])
    counts = np.bincount(masks, minlength=256)
    assert [item["pixels"] for item in record["classes"]] == counts[:4].tolist()
    assert [item["share"] for item in record["classes"]] == pytest.approx(counts[:4] / counts[:4].sum())
    assert record["ignored_share"] == pytest.approx(counts[255] / counts.sum())
    assert (record["tiles"], record["labelled"], record["ignore_below"]) == (TILES, TILES - 1, 0.5)
    assert [item["tile_id"] for item in record["without_label"]] == ["torn"]
    assert "torn.png: truncated or damaged" in record["without_label"][0]["problem"]
    assert record["mean_confidence"] == pytest.approx(
        np.mean([row["mean_confidence"] for row in found.values() if row["mean_confidence"] is not None])
    )


def test_command_tells_classes_and_draws_tiles(world, tmp_path, capsys):
    words = ["label", str(world / "model"), str(world / "pool.parquet"), str(world / "labelled.parquet"), "--out", str(tmp_path / "out")]
    assert main([*words, f"inference.window={SIDE}", "inference.device=cpu", "--confidence", "--pictures", "5"]) == 0
    printed, err = capsys.readouterr()
    # One of the labelled tiles is kept for validation.
    assert printed.splitlines()[0].startswith("28 of 29 tiles labelled (29 now), ")
    assert "  Background  " in printed
    assert "tile 'torn' has no label: " in err
    assert (tmp_path / "out" / "tiles.png").stat().st_size > 10_000


def test_label_is_a_catalog_for_every_other_stage(world, labelled, tmp_path):
    catalog = labelled / "catalog.parquet"
    assert main(["catalog", "show", str(catalog), "--out", str(tmp_path / "sheet.png"), "--count", "3"]) == 0
    sound = [name for name in rows(labelled) if name.startswith("plain")]
    Catalog.open(catalog).filter(tile_id=sound).save(tmp_path / "sound.parquet")
    assert main(["catalog", "check", str(tmp_path / "sound.parquet")]) == 0
    tilth.curate(unlabelled=catalog, model=world / "model", out=tmp_path / "curated", report=False, inference={"window": SIDE})
    again = Catalog.concat([Catalog.open(world / "labelled.parquet"), Catalog.open(tmp_path / "sound.parquet")])
    assert again.counts("label_kind") == {"clean": 7, "pseudo": 14}


def same_labels(first: Catalog, second: Catalog) -> None:
    for row in range(len(first)):
        one, other = first.tile(row), second.tile(row)
        np.testing.assert_array_equal(read_label(one.label, one.window), read_label(other.label, other.window))
        np.testing.assert_array_equal(read_confidence(*confidence_place(first, row)), read_confidence(*confidence_place(second, row)))


def test_packed_labels_are_those_that_were_packed(world, tmp_path):
    label(world, tmp_path / "out", catalogs=plant_scene(tmp_path))
    before = Catalog.open(tmp_path / "out" / "catalog.parquet")
    tilth.pack(catalog=tmp_path / "out" / "catalog.parquet", out=tmp_path / "packed")
    after = Catalog.open(tmp_path / "packed" / "catalog.parquet")
    assert {tile.window[:2] for tile in after.tiles()} == {(0, 0)}
    same_labels(before, after)
    # A pool that is packed gets the same labels, on the grids of its tiles.
    label(world, tmp_path / "again", catalogs=tmp_path / "packed" / "catalog.parquet")
    found = Catalog.open(tmp_path / "again" / "catalog.parquet")
    assert [Path(uri).name for uri in found.column("label")][:3] == ["scene.tif", "scene-2.tif", "scene-3.tif"]
    for tile, own in zip(found.tiles(), before.tiles(), strict=True):
        info, image = read_info(tile.label), read_info(own.image)
        assert (info.width, info.height) == tile.window[2:] == own.window[2:]
        assert info.transform == window_transform(image.transform, own.window)


def test_tree_of_labels_can_be_moved(labelled, tmp_path):
    shutil.copytree(labelled, tmp_path / "there")
    moved = rows(tmp_path / "there")["plain_00"]
    assert moved["label"] == str(tmp_path / "there" / "masks" / "plain_00.png")
    assert moved["confidence_raster"] == str(tmp_path / "there" / "confidence" / "plain_00.png")


# Larger rasters, places on the ground, names.


def plant_scene(folder: Path) -> Path:
    """Two georeferenced scenes of the same name with windows of odd sizes, some overlapping, some ground in none."""
    rows = []
    windows = [(0, 0, 70, 50), (60, 10, 64, 64), (130, 100, 37, 21), (0, 120, 64, 9)]
    for number, name in enumerate("ab"):
        pixels = picture(number, 140, 170).transpose(2, 0, 1)
        path = folder / name / "scene.tif"
        write_raster(path, pixels, crs="EPSG:32633", transform=(0.5, 0, 1000.0 * number, 0, -0.5, 5_000_000))
        # Not in the order of the ground, and the scenes by turns.
        row = {"image": str(path), "sensor": "rgb", "crs": "EPSG:32633"}
        rows += [{**row, "tile_id": f"{name}{place}", "window": windows[place]} for place in (3, 0, 2, 1)]
    catalog_of([rows[index] for index in (0, 4, 1, 5, 2, 6, 3, 7)]).save(folder / "scenes.parquet")
    return folder / "scenes.parquet"


def test_windows_of_a_scene_share_a_raster_on_its_grid(world, model, tmp_path):
    catalog = plant_scene(tmp_path)
    label(world, tmp_path / "out", catalogs=catalog)
    found = Catalog.open(tmp_path / "out" / "catalog.parquet")
    assert found.column("tile_id") == Catalog.open(catalog).column("tile_id")
    by_scene: dict[str, list] = {}
    for tile in found.tiles():
        by_scene.setdefault(tile.image, []).append(tile)
    assert sorted({Path(tile.label).name for tile in found.tiles()}) == ["scene-2.tif", "scene.tif"]
    for image, tiles in by_scene.items():
        assert len({tile.label for tile in tiles}) == 1
        info, mask = read_info(image), read_info(tiles[0].label)
        assert (info.width, info.height, info.crs, info.transform) == (mask.width, mask.height, mask.crs, mask.transform)
        wanted, best = np.full((140, 170), 255), np.full((140, 170), -1)
        for tile in sorted(tiles, key=lambda tile: tile.window.row):
            highest, classes = (
                part.numpy() for part in predict_tile(model, read_pixels(image, tile.window), window=SIDE, overlap=0).max(0)
            )
            column, row, wide, high = tile.window
            place = np.s_[row : row + high, column : column + wide]
            better = np.rint(100 * highest) > best[place]
            wanted[place][better], best[place][better] = classes[better], np.rint(100 * highest)[better]
        np.testing.assert_array_equal(read_label(tiles[0].label), wanted)


def test_labels_of_large_scenes_are_written_piece_by_piece_to_the_same_pixels(world, tmp_path, monkeypatch):
    from tilth.labelling import rasters, shards

    catalog = plant_scene(tmp_path)
    label(world, tmp_path / "one", catalogs=catalog)
    monkeypatch.setattr(shards, "_HELD_PIXELS", 0)
    monkeypatch.setattr(rasters, "_BLOCK", 16)
    label(world, tmp_path / "two", catalogs=catalog)
    for name in ("scene", "scene-2"):
        np.testing.assert_array_equal(*(read_label(str(tmp_path / out / "masks" / f"{name}.tif")) for out in ("one", "two")))


def test_names_of_rasters_differ_and_later_tiles_change_none(tmp_path):
    images = ["a/P1.png", "b/P1.png", "b/p1-2.png", "c/P1.jpg", "s3://bucket/x:y?.tif", "store/images-00000.arrow#3", "a/P1.png", "c/.png"]
    rows = [
        {"tile_id": str(number), "image": image if "://" in image else f"/pool/{image}", "window": (0, 0, 8, 8), "sensor": "rgb"}
        for number, image in enumerate(images)
    ]
    plan = plan_labels(catalog_of(rows), "model", 2)
    wanted = ["P1", "P1-2", "p1-2-2", "P1-3", "x_y_", "images-00000", ".png"]
    assert plan.stems.to_pylist() == wanted
    # Both tiles of the first image are in the first shard.
    assert plan.order[: plan.shards[0].stop].tolist() == [0, 6]
    for count in range(1, len(rows)):
        fewer = plan_labels(catalog_of(rows[:count]), "model", 2)
        assert fewer.stems.to_pylist() == wanted[: len(fewer.stems)]
    assert sorted(plan.order.tolist()) == list(range(len(rows)))


# What cannot be done.


def test_too_many_unreadable_tiles_are_refused_with_one_of_them(world, tmp_path):
    with pytest.raises(
        DataError, match=r"1 of 23 tiles cannot be labelled, more than max_bad_share allows \(0\); one of them, 'torn': .*torn.png"
    ):
        label(world, tmp_path / "out", max_bad_share=0)
    assert not (tmp_path / "out" / "catalog.parquet").exists()
    # What was done is not lost.
    assert label(world, tmp_path / "out", max_bad_share=0.01).values["made"] < TILES


def test_tile_whose_label_would_be_all_ignored_keeps_its_row(world, tmp_path):
    tiles = [save(tmp_path / "p", "void", with_alpha(picture(1), 0)), save(tmp_path / "p", "odd", picture(2, 33, 47))]
    catalog_of(tiles).save(tmp_path / "p.parquet")
    label(world, tmp_path / "out", catalogs=tmp_path / "p.parquet", ignore_below=1.0)
    for row in rows(tmp_path / "out").values():
        assert (read_label(row["label"]) == 255).all()
        assert (row["ignored_share"], row["class_shares"]) == (1.0, None)
    record = json.loads((tmp_path / "out" / "label.json").read_text())
    assert record["ignored_share"] == 1
    assert [item["share"] for item in record["classes"]] == [None] * 4


def test_splits_are_chosen_and_kept(world, tmp_path):
    catalog = world / "labelled.parquet"
    label(world, tmp_path / "train", catalogs=catalog)
    assert Catalog.open(tmp_path / "train" / "catalog.parquet").counts("split") == {"train": 6}
    label(world, tmp_path / "all", catalogs=catalog, split=[])
    found = Catalog.open(tmp_path / "all" / "catalog.parquet")
    assert found.counts("split") == {"train": 6, "val": 1}
    assert found.counts("label_kind") == {"pseudo": 7}
    with pytest.raises(CatalogError, match="no tile in split test; splits there: train, val"):
        label(world, tmp_path / "none", catalogs=catalog, split=["test"])


def test_wrong_calls_are_one_line_and_leave_nothing(world, labelled, tmp_path):
    pool = Catalog.open(world / "pool.parquet")
    Catalog(pool.table, {"rgb": get_sensor("rgbn")}).save(tmp_path / "rgbn.parquet")
    with pytest.raises(SensorMismatchError, match="bands red, green, blue, nir instead of red, green, blue"):
        label(world, tmp_path / "out", catalogs=tmp_path / "rgbn.parquet")
    pool.filter(tile_id="nobody").save(tmp_path / "empty.parquet")
    with pytest.raises(CatalogError, match="the pool has no tile"):
        label(world, tmp_path / "out", catalogs=tmp_path / "empty.parquet")
    for part in ("0/3", "4/3", "half", "1/0"):
        with pytest.raises(ConfigError, match="expected NUMBER/COUNT, such as 2/8"):
            label(world, tmp_path / "out", part=part)
    assert not (tmp_path / "out").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("precious")
    with pytest.raises(OutputExistsError, match=r"holds notes.txt and no labels that tilth made"):
        label(world, tmp_path / "mine")
    assert files(tmp_path / "mine") == {"notes.txt": b"precious"}
    with pytest.raises(OutputExistsError, match="is a file"):
        label(world, tmp_path / "rgbn.parquet")
    shutil.copytree(labelled, tmp_path / "out")
    shutil.copy(world / "pool" / "plain_00.png", tmp_path / "out" / "masks" / "plain_00.png")
    with pytest.raises(TilthError, match="was not made by tilth"):
        label(world, tmp_path / "out", ignore_below=0.5)


def test_pool_of_which_no_tile_can_be_read_is_refused(world, tmp_path):
    rows = [save(tmp_path, name, picture(1)) for name in "ab"]
    for row in rows:
        Path(row["image"]).write_bytes(b"torn")
    catalog_of(rows).save(tmp_path / "torn.parquet")
    with pytest.raises(DataError, match=r"2 of 2 tiles cannot be labelled, more than max_bad_share allows \(1\)"):
        label(world, tmp_path / "out", catalogs=tmp_path / "torn.parquet", max_bad_share=1)


def test_labels_that_tiles_have_need_not_agree(world, tmp_path):
    mine = ClassScheme(name=SCHEME.name, classes=(LandClass(name="mine", colour=(1, 2, 3)),))
    row = save(tmp_path, "t", picture(9), label=str(tmp_path / "t.png"), label_kind="clean", scheme=SCHEME.name, split="train")
    Catalog.from_rows([row], {"rgb": get_sensor("rgb")}, {mine.name: mine}).save(tmp_path / "mine.parquet")
    label(world, tmp_path / "out", catalogs=[world / "labelled.parquet", tmp_path / "mine.parquet"])
    found = Catalog.open(tmp_path / "out" / "catalog.parquet")
    assert found.schemes == {SCHEME.name: SCHEME}
    assert found.counts("label_kind") == {"pseudo": 7}


def test_catalog_that_is_to_be_labelled_is_not_overwritten(world, labelled, tmp_path):
    shutil.copytree(labelled, tmp_path / "out")
    before = files(tmp_path / "out")
    with pytest.raises(UsageError, match="its catalog is one of those to label"):
        label(world, tmp_path / "out", catalogs=tmp_path / "out" / "catalog.parquet", ignore_below=0.9)
    assert files(tmp_path / "out") == before


def test_check_finds_confidence_that_cannot_be_used(labelled, tmp_path):
    shutil.copytree(labelled, tmp_path / "out")
    catalog = Catalog.open(tmp_path / "out" / "catalog.parquet").filter(tile_id=[f"plain_0{number}" for number in range(5)])
    assert check_catalog(catalog).ok
    sure = tmp_path / "out" / "confidence"
    (sure / "plain_00.png").unlink()
    (sure / "plain_01.png").write_bytes(b"torn")
    Image.fromarray(np.full((SIDE, SIDE), 130, np.uint8)).save(sure / "plain_02.png")
    windows = catalog.column("confidence_window")
    windows[3] = [0, 0, SIDE // 2, SIDE]
    errors = check_catalog(catalog.with_columns(confidence_window=windows)).errors
    named = [("missing file", "plain_00"), ("unreadable", "plain_01"), ("confidence", "plain_02"), ("confidence", "plain_03")]
    assert [(item.what, item.tile_id) for item in errors] == named
    assert [item.what for item in check_catalog(catalog, pixels=False).errors] == ["missing file", "unreadable"]
