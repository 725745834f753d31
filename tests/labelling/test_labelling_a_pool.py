"""A pool gets labels and a catalog of them: by one process or many, interrupted or not, again or anew."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilth
from support.curation_world import SCHEME, SIDE, catalog_of, picture, save, with_alpha
from tilth.catalog.confidence import confidence_place, read_confidence
from tilth.catalog.table import Catalog
from tilth.cli.main import main
from tilth.errors import CatalogError, ConfigError, DataError, OutputExistsError, SensorMismatchError, TilthError
from tilth.imagery.claims import Claims
from tilth.imagery.grid import window_transform
from tilth.imagery.read import read_info, read_label, read_pixels
from tilth.imagery.write import write_raster
from tilth.labelling.config import Part
from tilth.labelling.job import Request, labelling_identity
from tilth.labelling.plan import plan_labels
from tilth.models.inference import predict_tile
from tilth.models.segmenter import Segmenter
from tilth.models.tiles import Running
from tilth.sensors import get_sensor

TILES, SHARD = 23, 5


def label(world: Path, out: Path, **more: Any):
    options: dict[str, Any] = {"model": world / "model", "catalogs": world / "pool.parquet", "pictures": 0, "shard_tiles": SHARD}
    options |= {"inference": {"window": SIDE, "device": "cpu"}, "confidence": True}
    return tilth.label(**(options | {"out": out} | more))


def files(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def rows(out: Path) -> dict[str, dict[str, Any]]:
    return {row["tile_id"]: row for row in Catalog.open(out / "catalog.parquet").table.to_pylist()}


@pytest.fixture(scope="module")
def labelled(world, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("labelled") / "out"
    label(world, out, ignore_below=0.5)
    return out


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


# Again, in parts, by several, after a kill.


def test_same_command_again_does_nothing_anew_and_leaves_the_same_bytes(world, labelled, tmp_path):
    shutil.copytree(labelled, tmp_path / "out")
    before = files(tmp_path / "out")
    again = label(world, tmp_path / "out", ignore_below=0.5, workers=1, inference={"window": SIDE, "device": "cpu", "batch_size": 9})
    assert again.values["made"] == 0
    assert files(tmp_path / "out") == before


@pytest.mark.parametrize("change", [{"ignore_below": 0.6}, {"confidence": False}])
def test_other_settings_make_everything_anew(world, labelled, tmp_path, change):
    shutil.copytree(labelled, tmp_path / "out")
    changed = label(world, tmp_path / "out", **({"ignore_below": 0.5} | change))
    assert changed.values["made"] == TILES
    label(world, tmp_path / "fresh", **({"ignore_below": 0.5} | change))
    assert files(tmp_path / "out") == files(tmp_path / "fresh")


def test_what_labels_depend_on_is_in_their_stamp_and_nothing_else(model):
    requests = [
        Request(),
        Request(Running(window=64)),
        Request(Running(overlap=1)),
        Request(Running(precision="bf16-mixed")),
        Request(flips="both"),
        Request(ignore_below=0.1),
        Request(confidence=True),
    ]
    assert len({labelling_identity(model, request) for request in requests}) == len(requests)
    other = Request(Running(device="cuda", batch_size=9), part=Part(2, 3), workers=7, max_bad_share=1, shard_tiles=3)
    assert labelling_identity(model, other) == labelling_identity(model, Request())


def test_another_model_makes_everything_anew(world, labelled, tmp_path):
    model = Segmenter.load(world / "model")
    for parameter in model.network.segmentation_head.parameters():
        parameter.data.mul_(-1)
    model.save(tmp_path / "other")
    shutil.copytree(labelled, tmp_path / "out")
    assert label(world, tmp_path / "out", model=tmp_path / "other").values["made"] == TILES


def test_only_what_changed_or_is_lost_is_made_again(world, tmp_path):
    shutil.copytree(world, tmp_path / "world")
    here, out = tmp_path / "world", tmp_path / "out"
    label(here, out)
    whole = files(out)
    (out / "masks" / "plain_00.png").unlink()
    (out / "masks" / "plain_12.png").write_bytes(b"cut short")
    (out / "masks" / "old.png").write_bytes((out / "masks" / "plain_01.png").read_bytes())
    again = label(here, out)
    assert again.values["made"] == 2 * SHARD
    assert files(out) == whole
    save(here / "pool", "plain_06", picture(999))
    assert label(here, out).values["made"] == SHARD
    changed = files(out)
    assert changed["masks/plain_06.png"] != whole["masks/plain_06.png"]
    assert changed["masks/plain_00.png"] == whole["masks/plain_00.png"]


def test_pool_that_grows_is_labelled_where_it_grew(world, tmp_path):
    more = [save(tmp_path / "more", f"more_{number}", picture(300 + number)) for number in range(3)]
    catalog_of(more).save(tmp_path / "more.parquet")
    label(world, tmp_path / "out")
    again = label(world, tmp_path / "out", catalogs=[world / "pool.parquet", tmp_path / "more.parquet"])
    assert again.values["made"] == 6
    assert len(rows(tmp_path / "out")) == TILES + 2


def test_parts_make_together_what_one_makes(world, labelled, tmp_path):
    out = tmp_path / "out"
    made = []
    for part in ("3/3", "1/3", "2/3"):
        assert not (out / "catalog.parquet").exists()
        made.append(label(world, out, ignore_below=0.5, part=part).values)
    assert [values["made"] for values in made] == [5, 10, 8]
    assert [values["missing"] for values in made] == [18, 8, 0]
    assert files(out) == files(labelled)


def test_catalog_of_a_finished_job_is_withdrawn_while_it_is_made_anew(world, labelled, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(labelled, out)
    assert label(world, out, part="1/2").values["missing"] > 0
    assert not (out / "catalog.parquet").exists()


def _label_in_a_process(world: Path, out: Path, ready: Any, more: dict[str, Any]) -> None:
    ready.wait()
    label(world, out, ignore_below=0.5, **more)


def test_processes_that_start_at_once_share_the_work(world, labelled, tmp_path):
    out, fork = tmp_path / "out", multiprocessing.get_context("fork")
    ready = fork.Barrier(3)
    children = [fork.Process(target=_label_in_a_process, args=(world, out, ready, {"workers": number + 1})) for number in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(100)
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert files(out) == files(labelled)


def test_other_job_in_the_same_folder_waits_its_turn(world, labelled, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(labelled, out)
    fork = multiprocessing.get_context("fork")
    begun, over = fork.Event(), fork.Event()

    def work() -> None:
        with Claims(out / "shards" / ".claims") as claims:
            claims.join()
            claims.take(0)
            begun.set()
            over.wait(60)

    child = fork.Process(target=work)
    child.start()
    begun.wait(60)
    before = files(out)
    with pytest.raises(TilthError, match="another process is labelling into it for another model or pool"):
        label(world, out, ignore_below=0.9)
    assert files(out) == before
    # The same job leaves to the other what that has claimed.
    (out / "shards" / "shard-00000.arrow").unlink()
    assert label(world, out, ignore_below=0.5).values == {"made": 0, "missing": SHARD}
    over.set()
    child.join(60)
    assert label(world, out, ignore_below=0.5).values["made"] == SHARD
    assert files(out) == before


def _die_at_sync(world: Path, out: Path, count: int) -> None:
    left, inner = [count], os.fsync

    def strike(handle: int) -> None:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        inner(handle)

    os.fsync = strike
    label(world, out, ignore_below=0.5)


def test_killed_labelling_goes_on_to_the_same_bytes(world, labelled, tmp_path):
    whole, out = files(labelled), tmp_path / "out"
    # Three syncs for each of 52 files: the content twice, and the folder.
    for moment in (2, 100, 151, 154):
        shutil.rmtree(out, ignore_errors=True)
        child = multiprocessing.get_context("fork").Process(target=_die_at_sync, args=(world, out, moment))
        child.start()
        child.join(100)
        assert child.exitcode == -signal.SIGKILL
        label(world, out, ignore_below=0.5)
        assert files(out) == whole


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
