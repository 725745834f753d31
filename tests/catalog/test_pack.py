from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from catalog.conftest import noise
from tilth.catalog import pack as packing
from tilth.catalog import pack_folder
from tilth.catalog.build import build_catalog
from tilth.catalog.check import check_catalog
from tilth.catalog.config import BuildConfig, SplitConfig
from tilth.catalog.overlap import shares_pixels
from tilth.catalog.pack import measure_reading, pack_catalog
from tilth.catalog.split import split_catalog
from tilth.catalog.table import Catalog
from tilth.errors import CatalogError, DataError, OutputExistsError, TilthError
from tilth.imagery.files import folder_lock
from tilth.imagery.packed import is_packed
from tilth.imagery.read import read_label, read_pixels
from tilth.sensors import get_sensor


def rows_of(folder: Path, count: int = 9) -> list[dict[str, object]]:
    """Three tiles of a scene each (two of them overlap), the first six labelled."""
    rows: list[dict[str, object]] = []
    for index in range(count):
        name = f"s{index // 3}"
        image, mask = folder / f"{name}.png", folder / f"{name}_mask.png"
        if not image.exists():
            Image.fromarray(noise(name, 50, 90, 3)).save(image)
            label = noise(f"{name} mask", 50, 90) % 3
            label[:3] = 255
            Image.fromarray(label).save(mask)
        row: dict[str, object] = {"tile_id": f"t/{index}", "image": str(image), "window": (20 * (index % 3), index % 3, 41, 33)}
        row |= {"sensor": "rgb", "split": ("train", "val")[index % 2], "location_id": name, "score": index / 7}
        if index < 6:
            row |= {"label": str(mask), "label_kind": "clean", "scheme": "tiny"}
        rows.append(row)
    return rows


@pytest.fixture
def catalog(tmp_path, make_catalog) -> Catalog:
    (tmp_path / "land").mkdir()
    return make_catalog(rows_of(tmp_path / "land"))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def assert_same_pixels(packed: Catalog, catalog: Catalog) -> None:
    by_id = {tile.tile_id: tile for tile in catalog.tiles()}
    for tile in packed.tiles():
        source = by_id[tile.tile_id]
        found, wanted = read_pixels(tile.image, tile.window), read_pixels(source.image, source.window)
        np.testing.assert_array_equal(found.data, wanted.data)
        np.testing.assert_array_equal(found.valid, wanted.valid)
        assert (tile.label is None) == (source.label is None)
        if tile.label is not None:
            np.testing.assert_array_equal(read_label(tile.label, tile.window), read_label(source.label, source.window))


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


def _die_in(catalog: Catalog, out: Path, where: str, count: int) -> None:
    """Pack, and die by SIGKILL at the so manieth record, or before the so manieth sync of a file or folder."""
    left = [count]

    def strike(*words) -> None:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    if where == "sync":
        inner = os.fsync
        os.fsync = lambda handle: (strike(), inner(handle))
    pack_catalog(catalog, out, shard_mb=1, progress=strike if where == "record" else None)


@pytest.mark.parametrize(
    ("where", "moments"),
    [
        pytest.param("record", (1, 2, 9, 10, 12), id="record"),
        pytest.param("sync", (2, 7), id="sync"),
        pytest.param("sync", (1, 3, 4, 5, 6, 8), id="sync, more moments", marks=pytest.mark.slow),
    ],
)
def test_killed_pack_goes_on_to_the_same_bytes(tmp_path, make_catalog, where, moments):
    (tmp_path / "land").mkdir()
    catalog = make_catalog(rows_of(tmp_path / "land"))
    pack_catalog(catalog, tmp_path / "whole", shard_mb=1)
    whole = files(tmp_path / "whole")
    assert sorted(whole) == ["catalog.parquet", "images-00000.arrow", "labels-00000.arrow", "pack.json"]
    out = tmp_path / "packed"
    died = 0
    for moment in moments:
        shutil.rmtree(out, ignore_errors=True)
        child = multiprocessing.get_context("fork").Process(target=_die_in, args=(catalog, out, where, moment))
        child.start()
        child.join(60)
        assert child.exitcode == -signal.SIGKILL
        died += (out / "catalog.parquet").exists()
        again = multiprocessing.get_context("fork").Process(target=_die_in, args=(catalog, out, where, 1))
        again.start()
        again.join(60)
        pack_catalog(catalog, out, shard_mb=1)
        assert files(out) == whole
    # The catalog is there only when everything else is.
    assert died <= 1


def joined(folder: Path, write_scene, derived: str, seed: int = 0) -> Catalog:
    """A catalog of one scene of two sensors, joined by a virtual raster."""
    optical, radar = get_sensor("s2_l2a"), get_sensor("s1")
    random = np.random.default_rng(seed)
    write_scene(folder / "s2" / "x.tif", random.integers(1, 9000, (len(optical), 40, 40)).astype(optical.dtype))
    write_scene(folder / "s1" / "x.tif", np.random.default_rng(9).normal(-10, 3, (2, 40, 40)).astype(radar.dtype))
    layers = {"s1": str(folder / "s1")}
    return build_catalog(
        BuildConfig(inputs=(str(folder / "s2"),), sensor="s2_l2a+s1", layers=layers, window_px=20, derived=str(folder / derived))
    )


def test_a_source_behind_a_virtual_raster_that_changes_is_seen_everywhere(tmp_path, write_scene):
    """In the fingerprint, by readers that have the virtual raster open, and by packing."""
    catalog = joined(tmp_path, write_scene, "files")
    packed = pack_catalog(catalog, tmp_path / "packed")
    before, first = read_pixels(catalog.tile(0).image, catalog.tile(0).window).data, (catalog.fingerprint(), packed.catalog.fingerprint())
    virtual = Path(catalog.tile(0).image)
    text = virtual.read_bytes()
    again = joined(tmp_path, write_scene, "files", seed=1)
    assert virtual.read_bytes() == text
    now = read_pixels(again.tile(0).image, again.tile(0).window).data
    assert (now[:-2] != before[:-2]).any()
    assert (now[-2:] == before[-2:]).all()
    report = pack_catalog(again, tmp_path / "packed")
    assert (report.made, report.kept) == (1, 0)
    assert_same_pixels(report.catalog, again)
    # Shards of the same size with other pixels are other shards.
    assert report.catalog.fingerprint() != first[1]
    with (tmp_path / "s1" / "x.tif").open("ab") as file:
        file.write(b"x")
    assert again.fingerprint() != first[0]
    (tmp_path / "s1" / "x.tif.aux.xml").write_text("<PAMDataset/>")
    assert pack_catalog(again, tmp_path / "packed").made == 1


def test_one_scene_joined_twice_still_shares_its_pixels(tmp_path, write_scene):
    """Held-out pixels must not come back through another build."""
    one, two = (joined(tmp_path, write_scene, name) for name in ("one", "two"))
    assert one.tile(0).image != two.tile(0).image
    plain = build_catalog(BuildConfig(inputs=(str(tmp_path / "s2"),), sensor="s2_l2a", window_px=20))
    packed = pack_catalog(two, tmp_path / "packed").catalog
    for pool in (two, plain, packed):
        assert shares_pixels(pool, one.take([1])).tolist() == [False, True, False, False]
    assert set(packed.column("packed_from")) == {str(tmp_path / "s2" / "x.tif")}
    rows = [one.with_columns(split=["train"] * 4), two.with_columns(split=["val"] * 4, tile_id=[f"again/{row}" for row in range(4)])]
    found = check_catalog(Catalog.concat(rows), headers=False).findings
    assert [item.what for item in found if item.what == "split overlap"] == ["split overlap"] * 4


def test_a_raster_with_an_empty_corner_is_no_more_empty_when_packed(tmp_path, write_scene):
    """Less than a tenth of the raster is without data, and more than a tenth of the tile in each corner."""
    for name, corner in (("first", np.s_[:, :40, :40]), ("last", np.s_[:, -40:, -40:])):
        data = np.random.default_rng(0).integers(1, 255, (3, 256, 256)).astype(np.uint8)
        data[corner] = 0
        write_scene(tmp_path / name / "x.tif", data, nodata=0)
        catalog = build_catalog(BuildConfig(inputs=(str(tmp_path / name),), sensor="rgb", window_px=64))
        packed = pack_catalog(catalog, tmp_path / f"packed {name}").catalog
        assert [item.what for part in (catalog, packed) for item in check_catalog(part).findings] == []
    data[:, :128] = 0
    write_scene(tmp_path / "half" / "x.tif", data, nodata=0)
    half = build_catalog(BuildConfig(inputs=(str(tmp_path / "half"),), sensor="rgb", window_px=256))
    for part in (half, pack_catalog(half, tmp_path / "packed half").catalog):
        (finding,) = check_catalog(part).findings
        assert (finding.what, finding.file, finding.found) == ("part empty", str(tmp_path / "half" / "x.tif"), "52% not valid")
