"""What tiles show together: classes of splits, constant bands, empty parts; and that threads change nothing."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tilth.catalog.build import build_catalog
from tilth.catalog.check import check_catalog
from tilth.catalog.config import BuildConfig
from tilth.catalog.findings import DROPPED, KINDS
from tilth.catalog.table import Catalog
from tilth.sensors import get_sensor

from .conftest import noise


@pytest.fixture
def catalog(pairs):
    return build_catalog(BuildConfig(inputs=(str(pairs),), sensor="rgb"))


def paint(pairs, name: str, mask: np.ndarray) -> None:
    Image.fromarray(mask.astype(np.uint8)).save(pairs / "masks" / f"{name}.png")


def kinds(report) -> list[str]:
    return [item.what for item in report.findings]


def test_a_class_that_a_split_lacks_is_named_with_where_it_is(catalog, pairs):
    for name in ("i4", "i5"):
        paint(pairs, name, noise(name, 12, 20) % 2)
    (finding,) = check_catalog(catalog).findings
    assert (finding.severity, finding.what) == ("warning", "class absent in split")
    assert finding.expected == "pixels of class 2 'rare' (tiny) in split 'val'"
    shown = sum(int((np.asarray(Image.open(pairs / "masks" / f"i{index}.png")) == 2).sum()) for index in range(4))
    assert finding.found == f"none; elsewhere: 'train' {shown}"


def test_rare_classes_are_named_with_their_share(catalog, pairs):
    for index in (0, 1, 2, 3, 4, 5, 7):
        mask = noise(f"n{index}", 12, 20) % 2
        mask[0, 0] = 2 if index in (0, 4) else 0
        paint(pairs, f"i{index}", mask)
    (finding,) = check_catalog(catalog).findings
    assert finding.what == "rare class"
    assert finding.found == f"{2 / (7 * 240):.2%}: 2 pixels"


def test_class_pixels_are_counted_over_all_splits(catalog, pairs):
    masks = [np.asarray(Image.open(pairs / "masks" / f"i{index}.png")) for index in (0, 1, 2, 3, 4, 5, 7)]
    expected = np.bincount(np.concatenate([mask.ravel() for mask in masks]), minlength=3)
    assert list(check_catalog(catalog).class_pixels["tiny"].values()) == expected.tolist()


def test_an_alpha_channel_stored_as_a_band_is_suspected(tmp_path):
    for index in range(3):
        data = noise(f"a{index}", 4, 40, 40)
        data[3] = 255
        np.save(tmp_path / f"{index}.npy", data)
    catalog = build_catalog(BuildConfig(inputs=(str(tmp_path),), sensor="rgbn"))
    (finding,) = [item for item in check_catalog(catalog).findings if item.what == "constant band"]
    assert finding.expected == "band 4 (nir, rgbn) to vary"
    assert finding.found == "255 throughout, in all of 3 tiles: an alpha channel?"
    np.save(tmp_path / "1.npy", noise("v", 4, 40, 40))
    assert "constant band" not in kinds(check_catalog(catalog))


@pytest.mark.parametrize(("black", "named"), [(120, True), (40, False)])
def test_black_surroundings_are_named_once_a_file(tmp_path, write_scene, black, named):
    data = noise("b", 3, 400, 400) // 2 + 60
    data[:, :black] = 0
    write_scene(tmp_path / "a.tif", data)
    catalog = build_catalog(BuildConfig(inputs=(str(tmp_path),), sensor="rgb", window_px=200))
    found = [item for item in check_catalog(catalog).findings if item.what == "part empty"]
    assert len(found) == named
    assert all(item.found == "30% black surroundings" and item.tile_id == "" for item in found)


def test_dark_ground_is_no_surrounding(tmp_path, write_scene):
    data = noise("d", 3, 200, 200) // 2 + 60
    data[:, 50:150, 50:150] = noise("w", 3, 100, 100) % 9
    write_scene(tmp_path / "a.tif", data)
    assert "part empty" not in kinds(check_catalog(build_catalog(BuildConfig(inputs=(str(tmp_path),), sensor="rgb"))))


def test_nodata_counts_over_all_tiles_of_a_file(tmp_path, write_scene):
    data = noise("n", 3, 100, 100) // 2 + 60
    data[:, :50, :40] = 0
    write_scene(tmp_path / "a.tif", data, nodata=0)
    catalog = build_catalog(BuildConfig(inputs=(str(tmp_path),), sensor="rgb", window_px=50))
    (finding,) = [item for item in check_catalog(catalog).findings if item.what == "part empty"]
    assert finding.found == "20% not valid"


def test_suspicions_become_warnings_of_the_whole_catalog(tmp_path, write_scene):
    for index in range(3):
        data = np.random.default_rng(index).normal(-1200, 300, (2, 40, 40)).astype(np.float32)
        write_scene(tmp_path / f"{index}.tif", data)
    report = check_catalog(build_catalog(BuildConfig(inputs=(str(tmp_path),), sensor="s1")))
    (finding,) = [item for item in report.findings if item.what == "scaling"]
    assert report.ok
    assert "hundredths of a decibel" in finding.found
    assert finding.expected == "values as sensor s1 scales them"


def test_any_number_of_threads_reports_the_same(catalog, pairs):
    (pairs / "images" / "i0.png").unlink()
    (pairs / "masks" / "i3.png").write_bytes(b"no mask")
    paint(pairs, "i4", np.full((12, 20), 7))
    Image.fromarray(np.full((12, 20, 3), 5, np.uint8)).save(pairs / "images" / "i5.png")
    ticks = []
    reports = [check_catalog(catalog, threads=threads, progress=lambda *tick: ticks.append(tick)).to_json() for threads in (1, 2, 7)]
    assert reports[0] == reports[1] == reports[2]
    assert ticks == [(done, 8) for done in range(1, 9)] * 3


def test_without_headers_no_file_is_opened(make_catalog):
    catalog = make_catalog(12)
    assert set(kinds(check_catalog(catalog, pixels=False))) == {"missing file"}
    report = check_catalog(catalog, headers=False)
    assert report.findings == ()
    assert (report.tiles, report.files, report.class_pixels) == (12, 18, {})


def test_windows_of_a_plain_image_are_read_with_one_decoding(tmp_path, monkeypatch):
    from tilth.imagery import plain

    for name in "ab":
        Image.fromarray(noise(name, 64, 640, 3)).save(tmp_path / f"{name}.png")
    catalog = build_catalog(BuildConfig(inputs=(str(tmp_path),), sensor="rgb", window_px=64))
    decoded = []
    original = plain._colours
    monkeypatch.setattr(plain, "_colours", lambda uri, image: decoded.append(uri) or original(uri, image))
    assert check_catalog(catalog, threads=2).ok
    assert sorted(decoded) == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]


def test_every_kind_has_a_severity_and_a_summary_lists_errors_first(catalog, pairs):
    assert set(KINDS.values()) == {"error", "warning"}
    assert list(KINDS.values()) == sorted(KINDS.values())
    assert set(DROPPED) <= {name for name, severity in KINDS.items() if severity == "warning"}
    paint(pairs, "i0", np.full((12, 20), 255))
    (pairs / "images" / "i7.png").unlink()
    assert [line.split(":")[0] for line in check_catalog(catalog).summary().splitlines()[1:]] == ["error", "warning"]


def test_a_catalog_without_tiles_is_sound():
    empty = Catalog.from_rows([], {"rgb": get_sensor("rgb")})
    assert check_catalog(empty).ok
