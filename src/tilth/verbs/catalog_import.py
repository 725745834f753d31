"""``tilth catalog import``: from a table that exists already to a catalog."""

from __future__ import annotations

from pathlib import Path

import pydantic

from tilth.catalog.import_config import ImportConfig
from tilth.verbs.console import Console
from tilth.verbs.options import require_suffix
from tilth.verbs.registry import Result, verb

_LISTED = 20
"""Files with problems shown on the terminal."""


class CatalogImportOptions(ImportConfig):
    """Options of ``tilth catalog import``."""

    table: Path = pydantic.Field(
        json_schema_extra={"positional": True}, description=".parquet, .csv, footprints (vector file) or split list (.txt): a row a tile"
    )
    out: Path = pydantic.Field(description="catalog file to write, .parquet")

    @pydantic.field_validator("out")
    @classmethod
    def _is_parquet(cls, value: Path) -> Path | None:
        return require_suffix(value, ".parquet", "a catalog is a Parquet file")


@verb("catalog import", CatalogImportOptions)
def catalog_import(options: CatalogImportOptions, console: Console) -> Result:
    """Make a catalog of a table of images: Parquet, CSV, footprints, or split list.

    Relative paths in the table start from its own folder, or from --root. A split list has a line for each image: its path, a blank, and
    the path of its mask; further words of a line mean nothing.
    """
    from tilth.catalog.discover import Problem
    from tilth.catalog.from_table import import_table

    problems: list[Problem] = []
    catalog = import_table(
        options.table, options, problems=problems, progress=lambda done, total: console.status(f"reading headers {done}/{total}")
    )
    for problem in problems[:_LISTED]:
        console.warn(f"{problem.file}: {problem.reason}")
    if len(problems) > _LISTED:
        console.warn(f"... and {len(problems) - _LISTED} more files with problems")
    catalog.save(options.out)
    labelled = len(catalog.labelled())
    splits = ", ".join(f"{name or 'no split'} {count}" for name, count in catalog.counts("split").items())
    return Result(
        summary=(f"{len(catalog)} tiles, {labelled} with labels ({splits})",),
        outputs={"catalog": options.out},
        values={"tiles": len(catalog), "labelled": labelled, "problems": len(problems)},
    )
