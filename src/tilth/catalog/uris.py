"""Where files lie: absolute in memory, relative to the catalog file on disk, so that a tree can be moved as a whole."""

# Paths are strings here, changed as whole columns: catalogs hold a million of them, and pathlib takes a hundred times as long.
# ruff: noqa: PTH100, PTH117, PTH118, PTH120, PTH202

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

_SEPARATORS = re.escape(os.sep + (os.altsep or ""))
_NAME = f"[^{_SEPARATORS}]*$"
_FOLDER = f"(?s)^.*[{_SEPARATORS}]"


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


def distinct_folders(uris: pa.ChunkedArray) -> list[str]:
    """List the folders that local files lie in, each once, with the separator at their end."""
    local = uris.filter(pc.invert(_are_remote(uris)))
    found: list[str] = pc.unique(pc.replace_substring_regex(local, _NAME, "")).to_pylist()
    return found


def common_folder(uris: Iterable[str]) -> str:
    """Find the deepest folder that holds all local files, or folders with a separator at their end; empty when there are none."""
    parents = {os.path.dirname(uri) for uri in uris if not is_remote(uri)}
    try:
        return os.path.commonpath(parents) if parents else ""
    except ValueError:  # several drives
        return ""


def file_name(name: str) -> str:
    """Make a relative path of a name, such as a tile id; what a file system may not take, or leads elsewhere, is replaced.

    Example:
        >>> file_name("town/P0000_r0_c512")
        'town/P0000_r0_c512'
    """
    plain = "/".join(re.sub(r"[^\w.+-]", "_", part) if set(part) - {"."} else "_" for part in name.split("/"))
    # Two names must not become one file.
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def file_size(uri: str) -> int:
    """Size of a local file in bytes; -1 where there is none."""
    try:
        return os.path.getsize(uri)
    except OSError:
        return -1


def _map_parents(uris: pa.ChunkedArray, change: Callable[[str], str], concerned: Callable[[str], bool]) -> pa.ChunkedArray:
    """Apply a function to the parent folders of local paths; each folder is looked at once, however many files it has."""
    folders = _encoded(pc.replace_substring_regex(uris, _NAME, ""))
    prefixes = folders.dictionary.to_pylist()
    changed = [_prefix(change(os.path.split(prefix)[0])) if concerned(prefix) else prefix for prefix in prefixes]
    moved = pa.array(changed, pa.string()).take(folders.indices)
    names = pc.replace_substring_regex(uris, _FOLDER, "").combine_chunks()
    remote = _are_remote(uris).combine_chunks()
    return pa.chunked_array([pc.if_else(remote, uris.combine_chunks(), pc.binary_join_element_wise(moved, names, ""))])


def _are_remote(uris: pa.ChunkedArray) -> pa.ChunkedArray:
    """Do what :func:`is_remote` does for a column."""
    return pc.or_(pc.match_substring(uris, "://"), pc.starts_with(uris, "/vsi"))


def _prefix(folder: str) -> str:
    """What stands before the names of files in a folder."""
    return "" if folder in ("", ".") else os.path.join(folder, "x")[:-1]


def _encoded(column: pa.ChunkedArray) -> pa.DictionaryArray:
    """Distinct values of a column and where they stand."""
    encoded = pc.dictionary_encode(column).combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0) if encoded.num_chunks else pa.array([], pa.string()).dictionary_encode()
    return encoded
