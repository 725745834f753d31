"""Work on many tiles, in shards: one Arrow file of results for every so many, whole or not there, that says what it was made from.

The same tiles, files and settings find a shard done; any other make it anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from tilth.catalog import uris
from tilth.imagery import references
from tilth.imagery.files import atomic_path
from tilth.imagery.packed import containing_file

FORMAT = 1
"""Raised when shards of the old kind would be misunderstood."""

_KEY = b"tilth"


@dataclass(frozen=True)
class ShardPlan:
    """A file of results as it will be.

    Attributes:
        name: of the file.
        start: first tile that it holds.
        stop: the tile after the last.
        stamp: hash of what it is made from.
    """

    name: str
    start: int
    stop: int
    stamp: str


def shard_stamp(identity: str, entries: Sequence[Any]) -> str:
    """Hash what a shard is made from.

    Args:
        identity: what all shards depend on, such as model and settings.
        entries: of each tile what its result depends on; JSON-ready.
    """
    return hashlib.sha256(json.dumps([FORMAT, identity, entries]).encode()).hexdigest()


def image_facts(uri: str) -> tuple[str, list[int]]:
    """Say what tells an image from one that replaced it: its name, and size and time of change of all files that decide what is read.

    Where a file lies does not count: trees are moved, and pools grow by others. The numbers are -1 for what is no local file.
    """
    states = map(references.file_state, references.files_behind(containing_file(uri)))
    return uri if uris.is_remote(uri) else Path(uri).name, [number for state in states for number in state[:2]]


def write_table(path: Path, stamp: str, table: pa.Table) -> None:
    """Write a shard in one go.

    Args:
        path: the file.
        stamp: what it is made from.
        table: one row a tile.

    Raises:
        TilthError: the place cannot be written to.
    """
    table = table.replace_schema_metadata({_KEY: json.dumps({"format": FORMAT, "stamp": stamp, "rows": len(table)}).encode()})
    with atomic_path(path) as temporary, pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())


def read_stamp(path: Path) -> str | None:
    """Read what a shard was made from; None if it is not there, damaged or of another format."""
    try:
        with pa.memory_map(str(path)) as source:
            return _stamp_in(pa.ipc.open_file(source).schema.metadata)
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return None


def read_whole(path: Path, stamp: str) -> pa.Table | None:
    """Read a shard into memory; None unless it is there, whole and made from what the stamp says."""
    try:
        with pa.OSFile(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
        return table if _stamp_in(table.schema.metadata) == stamp else None
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return None


def _stamp_in(metadata: Mapping[bytes, bytes] | None) -> str | None:
    header = json.loads((metadata or {})[_KEY])
    return str(header["stamp"]) if header.get("format") == FORMAT else None
