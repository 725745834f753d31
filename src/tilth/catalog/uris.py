"""Where files lie: absolute in memory, relative to the catalog file on disk, so that a tree can be moved as a whole."""

# Paths are strings here: catalogs hold 100,000 of them, and pathlib takes ten times as long.
# ruff: noqa: PTH100, PTH117, PTH118, PTH120

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc


def is_remote(uri: str) -> bool:
    """Tell whether a URI is no local path: ``s3://...``, ``https://...``, or a GDAL virtual path ``/vsi...``."""
    return "://" in uri or uri.startswith("/vsi")


def absolute_uri(uri: str | Path) -> str:
    """Make a local path absolute (against the working folder); remote URIs stay as they are."""
    text = str(uri)
    return text if is_remote(text) else os.path.abspath(text)


def make_relative(uris: pa.ChunkedArray, folder: Path) -> pa.ChunkedArray:
    """Write absolute local paths relative to a folder, with forward slashes."""
    lexical, real = str(folder.absolute()), os.path.realpath(folder)

    def relative(parent: str) -> str:
        # Inside the tree the path is kept as written, so that links to bulk storage stay links; outside, ".." is only
        # right between real folders.
        if parent == lexical or parent.startswith(lexical + os.sep):
            return parent[len(lexical) + 1 :].replace(os.sep, "/")
        try:
            return os.path.relpath(os.path.realpath(parent), real).replace(os.sep, "/")
        except ValueError:  # another drive
            return parent

    return _map_parents(uris, relative, lambda uri: os.path.isabs(uri))


def make_absolute(uris: pa.ChunkedArray, folder: Path) -> pa.ChunkedArray:
    """Read paths that are relative to a folder."""
    real = os.path.realpath(folder)
    return _map_parents(uris, lambda parent: os.path.normpath(os.path.join(real, parent)), lambda uri: not os.path.isabs(uri))


def make_real(uris: pa.ChunkedArray) -> pa.ChunkedArray:
    """Write absolute local paths with links to folders followed, so that one file has one name."""
    return _map_parents(uris, os.path.realpath, os.path.isabs)


def common_folder(uris: Iterable[str]) -> str:
    """Find the deepest folder that holds all local files of a list; empty when there are none."""
    parents = {os.path.dirname(uri) for uri in uris if not is_remote(uri)}
    try:
        return os.path.commonpath(parents) if parents else ""
    except ValueError:  # several drives
        return ""


def _map_parents(uris: pa.ChunkedArray, change: Callable[[str], str], concerned: Callable[[str], bool]) -> pa.ChunkedArray:
    """Apply a function to the parent folders of distinct local paths; each folder is looked at once, however many files it has."""
    encoded = pc.dictionary_encode(uris).combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0) if encoded.num_chunks else pa.array([], pa.string()).dictionary_encode()
    folders: dict[str, str] = {}
    changed = []
    for uri in encoded.dictionary.to_pylist():
        if is_remote(uri) or not concerned(uri):
            changed.append(uri)
            continue
        parent, name = os.path.split(uri)
        if parent not in folders:
            folders[parent] = change(parent)
        changed.append(os.path.join(folders[parent], name) if folders[parent] not in ("", ".") else name)
    return pa.chunked_array([pa.array(changed, pa.string()).take(encoded.indices)])
