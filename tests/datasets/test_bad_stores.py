"""Stores of radar, optical bands and labels that are wrong, damaged or cut off: one line each, nothing run, nothing half done."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from support import public_stores
from support.public_stores import assert_labels, contents, draw, packed, prepare, store, tile_records
from tilth.classes import get_scheme
from tilth.cli.main import main
from tilth.datasets import store_plan
from tilth.datasets.records import read_record
from tilth.errors import DataError, UsageError
from tilth.imagery.read import read_label, read_pixels


def test_radar_and_optical_of_another_size_are_refused(tmp_path):
    records = tile_records(0, 16, np.zeros((16, 16), np.uint8), "dw_")
    records["s1_0"] = packed(draw(0, (2, 16, 18), -30, 0, "float32"), "s1_place0.tif")
    store(tmp_path / "set" / "dw_train", records)
    with pytest.raises(
        DataError, match=r"record 's2_0': 13 bands of 16 x 16 pixels, expected 13 bands on the grid of .*'s1_0', 2 bands of 18 x 16"
    ):
        prepare("ssl4eo-s12-dw", tmp_path / "set", tmp_path / "out")


def test_pixels_without_finite_decibels_are_not_valid(tmp_path):
    radar = draw(0, (2, 16, 16), -30, 0, "float32")
    radar[1, 3, 4] = np.nan
    radar[0, 5, 6] = -np.inf
    records = tile_records(0, 16, ONES, "dw_") | {"s1_0": packed(radar, "s1_place0.tif")}
    store(tmp_path / "set" / "dw_train", records)
    catalog, _ = prepare("ssl4eo-s12-dw", tmp_path / "set", tmp_path / "out")
    valid = read_pixels(catalog.tile(0).image).valid
    assert np.argwhere(~valid).tolist() == [[3, 4], [5, 6]]


class Evil:
    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return (os.system, (f"touch {self.target}",))


def change(**values: object):
    return lambda records, _: records.update(values)


ONES = np.ones((16, 16), np.uint8)
BAD = {
    "key missing": (lambda records, _: records.pop("s2_1"), r"1 of 2 records 's2_\{index\}' are missing, first 's2_1'"),
    "labels missing": (lambda records, _: (records.pop("dw_0"), records.pop("dw_1")), r"no record 'dw_\{index\}'; there are records s1_"),
    "other scheme": (change(dw_1=packed(80 * ONES, "dw_place1.tif")), r"record 'dw_1': value 80 in 256 pixels, expected 0, 1, 2"),
    "ids differ": (change(dw_1=packed(ONES, "dw_place7.tif")), r"'dw_1' is of 'dw_place7.tif', and .*ids do not match"),
    "cut array": (change(s1_1=(b"123", (2, 16, 16), "s1_place1.tif")), r"'s1_1': holds 3 bytes, expected 2,048 for 2 x 16 x 16 of float32"),
    "malicious": (lambda records, place: records.update(s1_1=Evil(place / "owned")), r"'s1_1': no record .*: asks for \w+.system"),
    "array pickle": (change(s1_1=np.zeros(3)), r"'s1_1': no record .*: asks for numpy"),
    "no pickle": (change(s1_1=b"\x00\x01"), r"'s1_1': no record of bytes, shape and id"),
    "no tuple": (change(s1_1=[1, 2]), r"'s1_1': expected a record of bytes, shape and id, found list of 2"),
    "strange shape": (change(s1_1=(b"", (0, -1), "s")), r"'s1_1': expected a shape of 1 to 4 whole numbers"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_store_is_refused_in_one_line(case, tmp_path, capsys):
    spoil, message = BAD[case]
    records = tile_records(0, 16, ONES, "dw_") | tile_records(1, 16, ONES, "dw_")
    spoil(records, tmp_path)
    store(tmp_path / "set" / "dw_train", records)
    with pytest.raises(DataError, match=message) as caught:
        prepare("ssl4eo-s12-dw", tmp_path / "set", tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "owned").exists()
    assert not (tmp_path / "out").exists()
    assert main(["datasets", "prepare", "ssl4eo-s12-dw", str(tmp_path / "set"), "--out", str(tmp_path / "out")]) == 1
    assert len(capsys.readouterr().err.strip().splitlines()) <= 2
    if case != "labels missing":
        catalog, lines = prepare("ssl4eo-s12-dw", tmp_path / "set", tmp_path / "part", partial=True)
        assert [tile.tile_id for tile in catalog.tiles()] == ["ssl4eo-s12-dw/train/place0"]
        assert any("left out" in line for line in lines)


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.6, 0.97])
@pytest.mark.parametrize("folder", [True, False])
def test_truncated_store_is_refused_and_kills_nobody(kept, folder, tmp_path):
    public_stores.plant_tiles(tmp_path / "set", "dw_", 11)
    (tmp_path / "set" / ("dw_test.lmdb" if folder else "dw_train.lmdb")).rename(tmp_path / "away")
    file = tmp_path / "set" / ("dw_train.lmdb/data.mdb" if folder else "dw_test.lmdb")
    os.truncate(file, int(file.stat().st_size * kept))
    with pytest.raises(DataError, match=r"dw_\w+.*(truncated|no LMDB store)"):
        prepare("ssl4eo-s12-dw", tmp_path / "set", tmp_path / "out")


def test_what_is_no_store_is_named(tmp_path):
    (tmp_path / "set").mkdir()
    with pytest.raises(DataError, match=r"no LMDB store of data set 'ssl4eo-s12-nol' found, expected \*label\*, \*s1\*, \*s2\*"):
        prepare("ssl4eo-s12-nol", tmp_path / "set", tmp_path / "out")
    public_stores.plant_nol(tmp_path / "set")
    (tmp_path / "set" / "dw_labels.lmdb").rename(tmp_path / "set" / "maps.lmdb")
    with pytest.raises(DataError, match=r"0 LMDB stores are called \*label\*, expected one; there are 0k_251k_uint8_s1.lmdb, "):
        prepare("ssl4eo-s12-nol", tmp_path / "set", tmp_path / "out")
    with pytest.raises(UsageError, match="--sensor s1: 2 bands of float32, stores of 'ssl4eo-s12-nol' hold 15 of uint8"):
        prepare("ssl4eo-s12-nol", tmp_path / "set", tmp_path / "out", sensor="s1")
    with pytest.raises(UsageError, match="its stores hold all bands; leave --layer out"):
        prepare("ssl4eo-s12-nol", tmp_path / "set", tmp_path / "out", layer="s1")
    with pytest.raises(UsageError, match="the tiles of its stores stay whole; leave --window-px, --stride-px and --edge out"):
        prepare("ssl4eo-s12-nol", tmp_path / "set", tmp_path / "out", window_px=128)


@pytest.mark.parametrize("sensor", ["s2_l1c+s1", "s2_l1c_quantised+s1_quantised"])
def test_bands_in_another_order_than_stored_are_refused(sensor, tmp_path):
    public_stores.plant_tiles(tmp_path / "dw", "dw_", 11)
    public_stores.plant_dfc(tmp_path / "dfc")
    for card, folder in (("ssl4eo-s12-dw", "dw"), ("dfc2020", "dfc")):
        with pytest.raises(
            UsageError, match=f"--sensor {sensor.replace('+', '.')}: data set '{card}' holds its bands in another order: VV, "
        ):
            prepare(card, tmp_path / folder, tmp_path / "out", sensor=sensor)


def test_scheme_of_other_classes_is_not_put_over_those_of_a_set(tmp_path):
    public_stores.plant_dfc_stores(tmp_path / "set")
    with pytest.raises(UsageError, match="--scheme esri: other classes than data set 'dfc2020-lmdb' has, water, forest, grassland"):
        prepare("dfc2020-lmdb", tmp_path / "set", tmp_path / "out", scheme="esri")


def test_name_of_the_set_in_names_of_stores_is_not_taken_for_radar(tmp_path):
    truth = public_stores.plant_nol(tmp_path / "set", places=1)
    for old, new in (("0k_251k_uint8_s1", "ssl4eo_s12_s1"), ("0k_251k_uint8_s2c", "ssl4eo_s12_s2c"), ("dw_labels", "ssl4eo_s12_labels")):
        (tmp_path / "set" / f"{old}.lmdb").rename(tmp_path / "set" / f"{new}.lmdb")
    assert_labels(prepare("ssl4eo-s12-nol", tmp_path / "set", tmp_path / "out")[0], truth, "ssl4eo-s12-nol")


def test_link_that_leads_back_is_followed_once(tmp_path):
    public_stores.plant_tiles(tmp_path / "set", "dw_", 11)
    (tmp_path / "set" / "back").symlink_to(tmp_path / "set")
    assert len(prepare("ssl4eo-s12-dw", tmp_path / "set", tmp_path / "out")[0]) == 6


def test_bad_record_takes_nothing_back_that_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(store_plan, "SHARD_BYTES", 1)
    records = tile_records(0, 16, ONES, "dw_") | tile_records(1, 16, ONES, "dw_") | {"s1_1": [1, 2]}
    store(tmp_path / "set" / "dw_train", records)
    with pytest.raises(DataError, match="'s1_1'"):
        prepare("ssl4eo-s12-dw", tmp_path / "set", tmp_path / "out")
    written = (tmp_path / "out" / "images-00000.arrow").stat().st_mtime_ns
    for told in ("'s1_1': expected a record of bytes, shape and id, found list of 2; left out", "1 places could not be read"):
        catalog, lines = prepare("ssl4eo-s12-dw", tmp_path / "set", tmp_path / "out", partial=True)
        assert len(catalog) == 1
        assert any(told in line for line in lines)
    assert (tmp_path / "out" / "images-00000.arrow").stat().st_mtime_ns == written


def test_two_stores_of_one_split_are_refused(tmp_path):
    for name in ("dw_train_a", "dw_train_b"):
        store(tmp_path / "set" / name, tile_records(0, 16, ONES, "dw_"))
    with pytest.raises(DataError, match="is split 'train' by its name, and so is"):
        prepare("ssl4eo-s12-dw", tmp_path / "set", tmp_path / "out")


def test_order_of_classes_that_does_not_fit_the_published_shares_is_told(tmp_path):
    shares = np.array([6.35, 1.57, 9.42, 0.77, 43.78, 0.35, 17.42, 6.59, 0.93, 5.02, 0.82, 6.94, 0.03])
    osm, other = get_scheme("osm"), get_scheme("osm-display")
    counts = np.round(shares * 40).astype(int)
    # Stored as the display dictionary numbers them.
    stored = np.repeat([other.index(name) + 1 for name in osm.names], counts)
    stored = np.concatenate([stored, np.zeros(64 * 64 - len(stored), int)]).reshape(64, 64).astype(np.uint8)
    store(tmp_path / "set" / "osm_train", tile_records(0, 64, stored, "osm_"))
    _, lines = prepare("ssl4eo-s12-osm", tmp_path / "set", tmp_path / "out")
    assert len(lines) == 1
    assert "in the order of scheme 'osm-display' 0 %: prepare it anew with --scheme osm-display" in lines[0]
    catalog, lines = prepare("ssl4eo-s12-osm", tmp_path / "set", tmp_path / "display", scheme="osm-display")
    assert lines == []
    assert catalog.scheme() == other
    np.testing.assert_array_equal(read_label(catalog.tile(0).label)[stored > 0], stored[stored > 0] - 1)
    with pytest.raises(UsageError, match="--scheme dw: 9 classes, data set 'ssl4eo-s12-osm' has 13"):
        prepare("ssl4eo-s12-osm", tmp_path / "set", tmp_path / "nine", scheme="dw")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_records_of_every_pickle_protocol_are_read(protocol):
    value = (b"\x00\xff", (1, np.int64(2)), np.int32(7))
    found = read_record(pickle.dumps(value, protocol), "x")
    assert (found.data, found.shape, found.name) == (b"\x00\xff", (1, 2), "7")


SLOW = """
import sys, time
from pathlib import Path
from tilth.datasets import store_plan
store_plan.SHARD_BYTES = 1
replace = Path.replace
Path.replace = lambda *words: (time.sleep(0.05), replace(*words))[1]
from tilth.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_killed_import_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    public_stores.plant_nol(tmp_path / "set", places=6, side=16)
    words = ["datasets", "prepare", "ssl4eo-s12-nol", str(tmp_path / "set"), "--out"]
    monkeypatch.setattr(store_plan, "SHARD_BYTES", 1)
    assert main([*words, str(tmp_path / "whole")]) == 0
    assert len(list((tmp_path / "whole").glob("*.arrow"))) == 12
    process = subprocess.Popen([sys.executable, "-c", SLOW, *words, str(tmp_path / "killed")], stderr=subprocess.PIPE)
    while process.poll() is None and len(list((tmp_path / "killed").glob("labels-*.arrow"))) < 3:
        time.sleep(0.005)
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = min((tmp_path / "killed").glob("images-*.arrow"))
    before = kept.stat().st_mtime_ns
    assert not (tmp_path / "killed" / "catalog.parquet").exists()
    assert main([*words, str(tmp_path / "killed")]) == 0
    assert kept.stat().st_mtime_ns == before
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
