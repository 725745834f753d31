"""Labelling the pool of :mod:`support.curation_world`, and what it left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tilth
from support.curation_world import SIDE
from tilth.catalog.table import Catalog

TILES, SHARD = 23, 5


def label(world: Path, out: Path, **more: Any):
    options: dict[str, Any] = {"model": world / "model", "catalogs": world / "pool.parquet", "pictures": 0, "shard_tiles": SHARD}
    options |= {"inference": {"window": SIDE, "device": "cpu"}, "confidence": True}
    return tilth.label(**(options | {"out": out} | more))


def files(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def rows(out: Path) -> dict[str, dict[str, Any]]:
    return {row["tile_id"]: row for row in Catalog.open(out / "catalog.parquet").table.to_pylist()}
