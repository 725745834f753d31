"""The fingerprint of a catalog: what it says and refers to, in 64 digits."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tilth.catalog import schema, uris
from tilth.catalog.rows import count_values
from tilth.classes import ClassScheme
from tilth.imagery.packed import containing_file
from tilth.imagery.packing import SHARD_SUFFIX, shard_checksum
from tilth.imagery.references import files_behind, is_virtual
from tilth.sensors import Sensor


def fingerprint(table: pa.Table, sensors: Mapping[str, Sensor], schemes: Mapping[str, ClassScheme]) -> str:
    """Hash rows, the definitions they name, and the size of every local file (of shards, checksums); see ``Catalog.fingerprint``."""
    files = sorted(named_files(table))
    root = uris.common_folder(uris.distinct_folders(pa.chunked_array([files], pa.string())))
    named = count_values(table["sensor"]), count_values(table["scheme"])
    meaning = schema.describe_meaning(
        {name: value for name, value in sensors.items() if name in named[0]},
        {name: value for name, value in schemes.items() if name in named[1]},
    )
    digest = hashlib.sha256(json.dumps(meaning).encode())
    # Where packed tiles came from says nothing about what is read.
    for name in sorted(set(table.column_names) - {schema.ORIGIN_COLUMN}):
        values = table[name]
        if name in schema.FILE_COLUMNS and root:
            values = uris.make_relative(values, Path(root))
        digest.update(f"\0{name}\0{len(table)}\0".encode() + canonical_bytes(values))
    digest.update(json.dumps([None if uris.is_remote(file) else content_of(file) for file in files]).encode())
    return digest.hexdigest()


def content_of(file: str) -> Any:
    """What is known of a file's content without reading its pixels: its size; of a shard, whose size says little, checksums, too.

    Virtual rasters hold no pixels: what they refer to counts.
    """
    size = uris.file_size(file)
    if is_virtual(file):
        return [size, *map(uris.file_size, files_behind(file)[1:])]
    return [size, shard_checksum(file)] if file.endswith(SHARD_SUFFIX) else size


def named_files(table: pa.Table) -> set[str]:
    """List the files that rows name as image, label or confidence; of packed tiles the file they lie in."""
    columns = [table[name].drop_null() for name in schema.FILE_COLUMNS if name in table.column_names]
    found = pc.unique(pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string()))
    packed = pc.match_substring(found, "#")
    return {*found.filter(pc.invert(packed)).to_pylist(), *map(containing_file, found.filter(packed).to_pylist())}


def made_files(table: pa.Table, folder: Path) -> tuple[Path, ...]:
    """List the files below a folder that rows name, or that virtual rasters among these refer to, as paths that begin with the folder."""
    roots = [f"{place}{os.sep}" for place in dict.fromkeys((str(folder.absolute()), str(folder.resolve())))]
    named = [file for file in named_files(table) if any(file.startswith(root) for root in roots)]
    behind = {part for file in named for part in (files_behind(file) if is_virtual(file) else [file])}
    return tuple(
        sorted({folder / part[len(root) :] for root in roots for part in behind if part.startswith(root) and Path(part).is_file()})
    )


def canonical_bytes(values: Any) -> bytes:
    """Bytes of a column that depend on its values only, not on chunks, string width or integer width."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    nulls = np.packbits(values.is_null().to_numpy()).tobytes() if values.null_count else b""
    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        cells = values.cast(pa.large_binary()).fill_null(b"")
        return b"".join([nulls, pc.binary_length(cells).to_numpy().tobytes(), *map(_content, cells.chunks)])
    if pa.types.is_timestamp(kind):
        values, kind = values.cast(pa.timestamp("us", tz=kind.tz)).cast(pa.int64()), pa.int64()
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        wide = pa.int64() if pa.types.is_integer(kind) and kind != pa.uint64() else pa.uint64() if kind == pa.uint64() else pa.float64()
        return bytes(nulls + values.cast(wide).fill_null(0).to_numpy().tobytes())
    if pa.types.is_fixed_size_list(kind) and not values.null_count:
        return canonical_bytes(pc.list_flatten(values))
    return bytes(nulls + json.dumps(values.to_pylist(), default=str).encode())


def _content(cells: pa.LargeBinaryArray) -> memoryview:
    """All bytes of cells without nulls, one cell after the other."""
    if not len(cells):
        return memoryview(b"")
    _, offsets, data = cells.buffers()
    first, last = np.frombuffer(offsets, dtype=np.int64)[[cells.offset, cells.offset + len(cells)]].tolist()
    return memoryview(data or b"")[first:last]
