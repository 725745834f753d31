"""Columns handled as a whole give what one cell after the other gives."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tilth.catalog import uris
from tilth.catalog.fingerprint import canonical_bytes, named_files
from tilth.catalog.table import Catalog

URIS = [
    "/data/tree/images/a.png",
    "/data/tree/images/deep er/é.png",
    "/data/tree/b.png",
    "/data/other/c.png",
    "/root.png",
    "/data/tree/with\nnewline/d\n.png",
    "/vsizip/data/tree/e.zip/e.tif",
    "/vsis3/bucket/f.tif",
    "s3://bucket/key/g.tif",
    "https://host/h.tif?a=/b",
    None,
    "/data/tree/images/a.png",
]


def cells(values) -> pa.ChunkedArray:
    half = len(values) // 2
    return pa.chunked_array([pa.array(values[:half], pa.string()), pa.array([], pa.string()), pa.array(values[half:], pa.string())])


def one_relative(uri, folder: str):
    if uri is None or uris.is_remote(uri):
        return uri
    parent, name = os.path.split(uri)
    parent = parent[len(folder) + 1 :] if parent == folder or parent.startswith(folder + "/") else os.path.relpath(parent, folder)
    return name if parent in ("", ".") else f"{parent}/{name}"


def test_paths_become_relative_and_absolute_again():
    relative = uris.make_relative(cells(URIS), Path("/data/tree"))
    assert relative.to_pylist() == [one_relative(uri, "/data/tree") for uri in URIS]
    assert uris.make_absolute(relative, Path("/data/tree")).to_pylist() == URIS


def test_paths_are_tidied_when_they_become_absolute():
    given = ["../x/./a.png", "a.png", "b/../c.png", "/abs//d.png", None]
    assert uris.make_absolute(cells(given), Path("/data/tree")).to_pylist() == [
        "/data/x/a.png",
        "/data/tree/a.png",
        "/data/tree/c.png",
        "/abs//d.png",
        None,
    ]


def test_folders_are_those_of_local_files():
    found = uris.distinct_folders(cells(URIS))
    assert sorted(found) == sorted({uri.rpartition("/")[0] + "/" for uri in URIS if uri and not uris.is_remote(uri)})
    assert uris.common_folder(found) == "/"
    assert uris.common_folder(uris.distinct_folders(cells(URIS[:4]))) == "/data"
    assert uris.common_folder(uris.distinct_folders(cells(URIS[7:10]))) == ""


def test_an_empty_column_stays_empty():
    nothing = pa.chunked_array([], pa.string())
    assert uris.make_relative(nothing, Path("/data")).to_pylist() == []
    assert uris.distinct_folders(nothing) == []


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_bytes_of_text_are_those_of_its_cells(kind):
    values = ["one", None, "", "zwölf", "x" * 1000, None]
    for column in (cells(values), cells([item or "" for item in values]), cells(["left", *values, "right"]).slice(1, 6)):
        listed = [(item or "").encode() for item in column.to_pylist()]
        nulls = np.packbits([item is None for item in column.to_pylist()]).tobytes() if column.null_count else b""
        lengths = np.array([len(item) for item in listed], dtype=np.int64).tobytes()
        assert canonical_bytes(column.cast(kind)) == nulls + lengths + b"".join(listed)
        assert canonical_bytes(pc.cast(column, pa.binary())) == nulls + lengths + b"".join(listed)


def test_named_files_are_images_and_labels_and_shards_once(make_catalog):
    catalog = make_catalog(6)
    assert named_files(catalog.table) == {uri for name in ("image", "label") for uri in catalog.column(name) if uri}
    packed = catalog.with_columns(image=[f"/p/images-0.arrow#{index % 3}" for index in range(5)] + ["/data/a#b.png"])
    assert named_files(packed.table) - named_files(catalog.table) == {"/p/images-0.arrow", "/data/a#b.png"}


def test_all_tiles_are_the_tiles_one_by_one(make_catalog):
    catalog = make_catalog(37).take(np.random.default_rng(0).permutation(37))
    assert list(catalog.tiles()) == [catalog.tile(index) for index in range(37)]
    part = catalog.filter(split=("val", None))
    assert [tile.window.width for tile in part.tiles()] == [64] * len(part)
    assert list(Catalog.concat([part.take([3, 1])]).tiles()) == [part.tile(3), part.tile(1)]
