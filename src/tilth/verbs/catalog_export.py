"""``tilth catalog export``: from a catalog to split lists that other programs read."""

from __future__ import annotations

from pathlib import Path

import pydantic

from tilth.config import Config
from tilth.verbs.console import Console
from tilth.verbs.registry import Result, verb


class CatalogExportOptions(Config):
    """Options of ``tilth catalog export``."""

    catalog: Path = pydantic.Field(json_schema_extra={"positional": True}, description="catalog to export")
    out: Path = pydantic.Field(description="folder for the lists, a .txt file for each split")
    root: Path | None = pydantic.Field(None, description="folder that paths start from; by default the one that all files share")
    cut: bool = pydantic.Field(
        False, description="write tiles that are windows of larger images, packed or virtual as PNG files into --out"
    )


@verb("catalog export", CatalogExportOptions)
def catalog_export(options: CatalogExportOptions, console: Console) -> Result:
    """Write split lists, image and mask a line, as S5 and UniMatch read them.

    tilth catalog import reads such lists.
    """
    from tilth.catalog.split_lists import write_lists
    from tilth.catalog.table import Catalog

    catalog = Catalog.open(options.catalog)
    lists = write_lists(
        catalog, options.out, root=options.root, cut=options.cut, progress=lambda done, total: console.status(f"tile {done}/{total}")
    )
    return Result(
        summary=(f"{len(catalog)} tiles in {len(lists.files)} lists; paths start from {lists.root}",),
        outputs=lists.files,
        values={"tiles": len(catalog), "lists": sorted(lists.files), "root": str(lists.root), "cut": len(lists.cut)},
        parts=lists.cut,
    )
