"""The way from a real folder to a checked, ranked catalog; skipped where the data are not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tilth.catalog.build import build_catalog
from tilth.catalog.check import check_catalog
from tilth.catalog.config import BuildConfig, SplitConfig
from tilth.catalog.show import contact_sheet, summarise
from tilth.catalog.split import split_catalog, subset
from tilth.catalog.table import Catalog

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "vhr"
pytestmark = pytest.mark.skipif(not (DATA / "dubai_mbrsc").is_dir(), reason="real imagery is not here")


def test_dubai_is_built_checked_and_ranked(tmp_path):
    problems = []
    catalog = build_catalog(BuildConfig(inputs=(str(DATA / "dubai_mbrsc"),), sensor="rgb", licence="CC0-1.0"), problems=problems)
    assert problems == []
    assert catalog.counts("split") == {"train": 70, "val": 14, "test": 14}
    assert catalog.scheme().names == ("water", "land_unpaved", "road", "building", "vegetation")
    catalog = Catalog.open(catalog.save(tmp_path / "dubai.parquet"))
    report = check_catalog(catalog.filter(split=("val", "test")))
    assert report.ok
    few = subset(split_catalog(catalog, SplitConfig(keep_splits=True)), tiles=12, drop_others=True)
    # As the README of the data gives them for all pixels.
    published = (0.1429, 0.5177, 0.0959, 0.1262, 0.1052)
    shares = [item["share"] for item in summarise(few)["classes"]["dubai_mbrsc"]]
    assert shares == pytest.approx(published, abs=0.06)
    assert contact_sheet(few, tmp_path / "sheet.png", count=4).stat().st_size > 50_000


def test_unlabelled_pools_of_several_folders_join():
    catalog = build_catalog(BuildConfig(inputs=tuple(str(DATA / "unlabeled" / name) for name in ("ucmerced", "oam_kampala")), sensor="rgb"))
    assert len(catalog) == 942
    assert len(catalog.labelled()) == 0


def test_a_black_corner_is_found():
    catalog = build_catalog(BuildConfig(inputs=(str(DATA / "scenes" / "oam_manila_0.10m.tif"),), sensor="rgb", window_px=512))
    assert [(item.what, item.tile_id) for item in check_catalog(catalog).errors] == [("constant", "scenes/oam_manila_0.10m_r0_c0")]
