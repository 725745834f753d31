from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from catalog.conftest import assert_same_pixels, files, noise, rows_of
from tilth.catalog import pack as packing
from tilth.catalog import pack_folder
from tilth.catalog.check import check_catalog
from tilth.catalog.config import SplitConfig
from tilth.catalog.overlap import shares_pixels
from tilth.catalog.pack import measure_reading, pack_catalog
from tilth.catalog.split import split_catalog
from tilth.catalog.table import Catalog
from tilth.errors import CatalogError, DataError, OutputExistsError, TilthError
from tilth.imagery.files import folder_lock
from tilth.imagery.packed import is_packed
from tilth.imagery.read import read_label, read_pixels


@pytest.fixture
def catalog(tmp_path, make_catalog) -> Catalog:
    (tmp_path / "land").mkdir()
    return make_catalog(rows_of(tmp_path / "land"))


@pytest.mark.parametrize("codec", ["raw", "zstd", "original"])
def test_packed_catalog_says_and_shows_the_same(tmp_path, catalog, codec):
    report = pack_catalog(catalog, tmp_path / "packed", codec=codec)
    packed = Catalog.open(report.path)
    assert (len(packed), report.left_out) == (9, {})
    assert_same_pixels(packed, catalog)
    kept = [name for name in catalog.table.column_names if name not in {"image", "label", "window"}]
    assert packed.table.select(kept).equals(catalog.table.select(kept))
    assert set(packed.column("packed_from")) == set(catalog.column("image"))
    assert packed.column("packed_from_window") == catalog.column("window")
    assert all(is_packed(uri) for uri in packed.column("image"))
    assert packed.tile(0).window == (0, 0, 41, 33)
    assert packed.tile(0).source == next(packed.tiles()).source == catalog.tile(0).source == catalog.tile(0).image
    assert [(item.what, item.tile_id) for item in check_catalog(packed).findings] == [
        (item.what, item.tile_id) for item in check_catalog(catalog).findings
    ]


def test_folder_can_be_moved_as_a_whole(tmp_path, catalog):
    pack_catalog(catalog, tmp_path / "packed")
    before = Catalog.open(tmp_path / "packed" / "catalog.parquet")
    (tmp_path / "packed").rename(tmp_path / "elsewhere")
    after = Catalog.open(tmp_path / "elsewhere" / "catalog.parquet")
    assert after.fingerprint() == Catalog.open(tmp_path / "elsewhere" / "catalog.parquet").fingerprint()
    assert_same_pixels(after, catalog)
    with pytest.raises(TilthError, match="no such shard"):
        read_pixels(before.tile(0).image)


def test_fingerprint_sees_the_size_of_shards_and_nothing_of_origins(tmp_path, catalog):
    packed = Catalog.open(pack_catalog(catalog, tmp_path / "packed").path)
    first = packed.fingerprint()
    shutil.move(tmp_path / "land", tmp_path / "gone")
    (tmp_path / "packed").rename(tmp_path / "moved")
    moved = Catalog.open(tmp_path / "moved" / "catalog.parquet")
    assert moved.fingerprint() == first != catalog.fingerprint()
    with (tmp_path / "moved" / "images-00000.arrow").open("ab") as file:
        file.write(b"x")
    assert moved.fingerprint() != first


def test_rows_that_show_the_same_pixels_share_a_record(tmp_path, make_catalog):
    (tmp_path / "land").mkdir()
    rows = rows_of(tmp_path / "land", 2)
    rows.append(rows[0] | {"tile_id": "again", "label": None, "label_kind": "none", "scheme": None})
    packed = pack_catalog(make_catalog(rows), tmp_path / "packed").catalog
    assert packed.column("image")[0] == packed.column("image")[2] != packed.column("image")[1]


def test_shards_are_filled_in_order_up_to_their_size(tmp_path, make_catalog, monkeypatch):
    (tmp_path / "land").mkdir()
    Image.fromarray(noise("large", 700, 700, 3)).save(tmp_path / "land" / "large.png")
    one = {"image": str(tmp_path / "land" / "large.png"), "sensor": "rgb"}
    rows = [one | {"tile_id": f"t{index}", "window": (index, 0, 400, 300)} for index in range(6)]
    rows.append(one | {"tile_id": "whole", "window": (0, 0, 700, 700)})
    report = pack_catalog(make_catalog(rows), tmp_path / "packed", shard_mb=1)
    names = [uri.rpartition("/")[2] for uri in report.catalog.column("image")]
    assert names == [f"images-0000{shard}.arrow#{row}" for shard, row in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (3, 0)]]
    assert not list((tmp_path / "packed").glob("labels-*"))


def test_pack_of_a_pack_keeps_where_the_pixels_come_from(tmp_path, catalog):
    once = pack_catalog(catalog, tmp_path / "once").catalog
    twice = pack_catalog(once, tmp_path / "twice", codec="zstd").catalog
    assert twice.column("packed_from") == once.column("packed_from") == catalog.column("image")
    assert twice.column("packed_from_window") == catalog.column("window")
    assert_same_pixels(twice, catalog)


def test_packed_tiles_still_share_ground_with_the_tiles_they_come_from(tmp_path, catalog, make_catalog):
    """Otherwise a packed pool would let a training see validation pixels."""
    packed = Catalog.open(pack_catalog(catalog, tmp_path / "packed").path)
    held_out = catalog.filter(tile_id=["t/1"])
    for pool in (catalog, packed):
        for other in (held_out, packed.filter(tile_id=["t/1"])):
            assert shares_pixels(pool, other).tolist() == [True, True, True] + [False] * 6
    overlaps = [finding.tile_id for finding in check_catalog(packed, pixels=False).findings if finding.what == "split overlap"]
    assert overlaps == [item.tile_id for item in check_catalog(catalog, pixels=False).findings if item.what == "split overlap"] != []


def test_split_of_a_pack_keeps_tiles_of_an_image_together(tmp_path, catalog):
    packed = Catalog.open(pack_catalog(catalog, tmp_path / "packed").path)
    found = split_catalog(packed, SplitConfig(fractions={"train": 0.7, "val": 0.3}))
    wanted = split_catalog(catalog, SplitConfig(fractions={"train": 0.7, "val": 0.3}))
    assert found.column("split") == wanted.column("split")
    assert len(set(zip(found.column("location_id"), found.column("split"), strict=True))) == 3


def test_second_call_keeps_whole_shards_and_makes_changed_ones(tmp_path, catalog):
    out = tmp_path / "packed"
    assert pack_catalog(catalog, out).made == 2
    whole = files(out)
    assert (pack_catalog(catalog, out).made, files(out)) == (0, whole)
    # Columns that do not concern pixels are taken over without reading any.
    changed = catalog.with_columns(split=["test"] * 9)
    assert pack_catalog(changed, out).made == 0
    assert Catalog.open(out / "catalog.parquet").counts("split") == {"test": 9}
    # A damaged shard, a lost one and a changed source are made anew.
    (out / "images-00000.arrow").write_bytes(whole["images-00000.arrow"][:-20])
    assert (pack_catalog(catalog, out).made, files(out)) == (1, whole)
    (out / "labels-00000.arrow").unlink()
    assert (pack_catalog(catalog, out).made, files(out)) == (1, whole)
    source = Path(catalog.tile(0).label)
    Image.fromarray(np.full((50, 90), 2, np.uint8)).save(source)
    assert pack_catalog(catalog, out).made == 1
    assert (read_label(Catalog.open(out / "catalog.parquet").tile(0).label) == 2).all()


def test_foreign_folder_other_pack_and_file_are_refused_with_a_way_out(tmp_path, catalog):
    with pytest.raises(OutputExistsError, match=r"land: holds 6 files \(s0\.png, .* choose another --out"):
        pack_catalog(catalog, tmp_path / "land")
    out = tmp_path / "packed"
    pack_catalog(catalog, out)
    before = files(out)
    with pytest.raises(OutputExistsError, match=r"another pack \(codec raw -> zstd\); remove the folder"):
        pack_catalog(catalog, out, codec="zstd")
    with pytest.raises(OutputExistsError, match=r"shard_mb 512 -> 4"):
        pack_catalog(catalog, out, shard_mb=4)
    with pytest.raises(OutputExistsError, match="other tiles, windows or labels"):
        pack_catalog(catalog.take([0, 1]), out)
    assert files(out) == before
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputExistsError, match="is a file"):
        pack_catalog(catalog, tmp_path / "file")
    with pytest.raises(CatalogError, match="empty"):
        pack_catalog(catalog.take([]), tmp_path / "new")


def test_full_disk_is_refused_before_anything_is_written(tmp_path, catalog, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=20_000))
    with pytest.raises(TilthError, match=r"packed: needs 0\.1 MiB, 0\.0 MiB free"):
        pack_catalog(catalog, tmp_path / "packed")
    assert not (tmp_path / "packed").exists()


@pytest.mark.parametrize("spoilt", ["s1.png", "s1_mask.png"])
def test_tile_that_cannot_be_read_stops_or_is_left_out_and_named(tmp_path, catalog, spoilt):
    file, out = tmp_path / "land" / spoilt, tmp_path / "packed"
    sound = file.read_bytes()
    file.write_bytes(sound[:200])
    with pytest.raises(DataError, match=rf"tile 't/3' cannot be packed: .*{spoilt}: truncated or damaged.*--skip-bad") as caught:
        pack_catalog(catalog, out)
    assert "\n" not in str(caught.value)
    assert not (out / "catalog.parquet").exists()
    report = pack_catalog(catalog, out, skip_bad=True)
    assert list(report.left_out) == ["t/3", "t/4", "t/5"]
    assert "truncated" in report.left_out["t/3"]
    assert report.catalog.column("tile_id") == ["t/0", "t/1", "t/2", "t/6", "t/7", "t/8"]
    assert_same_pixels(Catalog.open(report.path), catalog)
    # Leaving out is a wish, not a setting: without it the shard is made again, and again stops.
    with pytest.raises(DataError, match="t/3"):
        pack_catalog(catalog, out)
    file.write_bytes(sound)
    assert len(pack_catalog(catalog, out).catalog) == 9
    assert_same_pixels(Catalog.open(out / "catalog.parquet"), catalog)


def test_nothing_readable_is_an_error(tmp_path, catalog):
    for file in (tmp_path / "land").iterdir():
        file.write_text("no image")
    with pytest.raises(CatalogError, match="none of the 9 tiles can be read"):
        pack_catalog(catalog, tmp_path / "packed", skip_bad=True)


def test_two_processes_do_not_pack_into_one_folder(tmp_path, catalog):
    out = tmp_path / "packed"
    pack_catalog(catalog, out)
    with folder_lock(out, "packing into"), pytest.raises(TilthError, match="another process is packing"):
        pack_catalog(catalog, out)
    pack_catalog(catalog, out)


def test_a_refused_pack_leaves_the_files_of_the_one_at_work(tmp_path, catalog, monkeypatch):
    """Both find the folder empty; one begins to write before the other learns that it has come second."""
    out = tmp_path / "packed"
    out.mkdir()
    with folder_lock(out, "packing into"):
        original = pack_folder.make_folder

        def begin(folder):
            made = original(folder)
            (out / ".images-00000.1-0.arrow").write_text("at work")
            return made

        monkeypatch.setattr(pack_folder, "make_folder", begin)
        with pytest.raises(TilthError, match="another process"):
            pack_catalog(catalog, out)
        assert [file.name for file in out.iterdir()] == [".images-00000.1-0.arrow"]


def test_a_folder_that_went_away_meanwhile_is_not_locked(tmp_path):
    with pytest.raises(TilthError, match="another process is packing"), folder_lock(tmp_path / "gone", "packing into"):
        pass


def test_few_tiles_are_held_at_once(tmp_path, make_catalog, monkeypatch):
    (tmp_path / "land").mkdir()
    catalog = make_catalog(rows_of(tmp_path / "land", 60))
    taken: list[int] = []
    given: list[int] = []

    def read(shard, entry, *others):
        taken.append(len(given))
        return original(shard, entry, *others)

    original = packing.Shard.record
    monkeypatch.setattr(packing.Shard, "record", read)
    monkeypatch.setattr(pack_folder, "needed_bytes", lambda *_: 0)
    pack_catalog(catalog, tmp_path / "packed", workers=2, progress=lambda done, total: given.append(done))
    assert len(taken) == len(given)
    assert max(place - seen for place, seen in enumerate(taken)) <= 4


def test_reading_is_measured_on_tiles_of_both(tmp_path, catalog):
    report = pack_catalog(catalog, tmp_path / "packed")
    before, after = measure_reading(catalog, report.catalog, count=5)
    assert before > 0
    assert after > 0
