"""Packing what virtual rasters refer to, and what is empty in a corner."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from catalog.conftest import assert_same_pixels
from tilth.catalog.build import build_catalog
from tilth.catalog.check import check_catalog
from tilth.catalog.config import BuildConfig
from tilth.catalog.overlap import shares_pixels
from tilth.catalog.pack import pack_catalog
from tilth.catalog.table import Catalog
from tilth.imagery.read import read_pixels
from tilth.sensors import get_sensor


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
