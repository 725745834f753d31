"""``tilth pack``: the tiles of a catalog, decoded once and laid down for fast reading."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pydantic

from tilth.config import Config
from tilth.verbs.console import Console
from tilth.verbs.registry import Result, verb

_LISTED = 5
"""Tiles left out that are named with their reason."""


class PackOptions(Config):
    """Options of ``tilth pack``."""

    catalog: Path = pydantic.Field(json_schema_extra={"positional": True}, description="catalog to pack")
    out: Path = pydantic.Field(description="folder for catalog.parquet and the shards")
    shard_mb: int = pydantic.Field(512, ge=1, description="largest size of a shard, in MiB")
    codec: Literal["raw", "zstd", "original"] = pydantic.Field(
        "raw", description="raw reads fastest, zstd is smaller, original keeps whole jpg and png files as they are"
    )
    workers: int = pydantic.Field(4, ge=1, le=256, description="threads that read")
    skip_bad: bool = pydantic.Field(False, description="leave out tiles that cannot be read")
    measure: bool = pydantic.Field(True, description="compare the time of reading a few tiles before and after")


@verb("pack", PackOptions)
def pack(options: PackOptions, console: Console) -> Result:
    """Copy the tiles of a catalog into a few large files that read much faster."""
    import time

    from tilth.catalog.fingerprint import made_files
    from tilth.catalog.pack import measure_reading, pack_catalog
    from tilth.catalog.table import Catalog

    catalog = Catalog.open(options.catalog)
    began = time.monotonic()
    report = pack_catalog(
        catalog,
        options.out,
        shard_mb=options.shard_mb,
        codec=options.codec,
        workers=options.workers,
        skip_bad=options.skip_bad,
        progress=lambda done, total: console.status(f"packing tile {done}/{total}"),
    )
    seconds = time.monotonic() - began
    for name, reason in list(report.left_out.items())[:_LISTED]:
        console.warn(f"left out tile {name!r}: {reason}")
    lines = [
        f"{len(report.catalog)} tiles, {report.stored_bytes / 2**20:,.1f} MiB in {report.made + report.kept} shards "
        f"({report.made} written, {report.kept} kept) in {seconds:.1f} s; {len(report.left_out)} tiles left out"
    ]
    values: dict[str, float] = {
        "tiles": len(report.catalog),
        "bytes": report.stored_bytes,
        "written": report.made,
        "left_out": len(report.left_out),
    }
    if options.measure and report.made:
        before, after = measure_reading(catalog, report.catalog)
        lines.append(f"reading a few tiles at random: {before / after:.1f} times as fast as from the original files")
        values["speedup"] = before / after
    return Result(
        summary=tuple(lines), outputs={"catalog": report.path}, values=values, parts=made_files(report.catalog.table, options.out)
    )
