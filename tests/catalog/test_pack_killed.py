"""Packing that is killed goes on, and the shards are the same bytes as of one that was not."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import pytest

from catalog.conftest import files, rows_of
from tilth.catalog.pack import pack_catalog
from tilth.catalog.table import Catalog


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
