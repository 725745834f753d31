"""``tilth catalog build|check|split|show``: from imagery on disk to a table of tiles."""

from __future__ import annotations

import json
from pathlib import Path

import pydantic

from tilth.catalog.config import BuildConfig, Duplicates, SplitConfig
from tilth.config import Config
from tilth.verbs.console import Console
from tilth.verbs.options import require_suffix
from tilth.verbs.registry import Result, verb

_LISTED_FINDINGS = 5
"""Findings of each kind shown on the terminal; the report file holds them all."""


class CatalogBuildOptions(BuildConfig):
    """Options of ``tilth catalog build``."""

    inputs: tuple[str, ...] = pydantic.Field(min_length=1, json_schema_extra={"positional": True}, description="folders or files of images")
    out: Path = pydantic.Field(description="catalog file to write, .parquet")

    @pydantic.field_validator("out")
    @classmethod
    def _is_parquet(cls, value: Path) -> Path | None:
        return require_suffix(value, ".parquet", "a catalog is a Parquet file")


class CatalogCheckOptions(Config):
    """Options of ``tilth catalog check``."""

    catalog: Path = pydantic.Field(json_schema_extra={"positional": True}, description="catalog to check")
    headers: bool = pydantic.Field(True, description="open files; without it only the table is checked")
    pixels: bool = pydantic.Field(True, description="read every pixel, not only headers")
    duplicates: Duplicates = pydantic.Field("near", description="duplicates to look for: near, exact (the same pixels) or none")
    threads: int | None = pydantic.Field(None, ge=1, description="files read at once; by default one a core, at most 8")
    out: Path | None = pydantic.Field(None, description="JSON file for all findings")
    clean: Path | None = pydantic.Field(None, description="catalog file for the tiles without an error, one of each duplicate")

    @pydantic.field_validator("clean")
    @classmethod
    def _is_parquet(cls, value: Path | None) -> Path | None:
        return require_suffix(value, ".parquet", "a catalog is a Parquet file")


class CatalogSplitOptions(SplitConfig):
    """Options of ``tilth catalog split``."""

    catalog: Path = pydantic.Field(json_schema_extra={"positional": True}, description="catalog to split")
    out: Path = pydantic.Field(description="catalog file to write, .parquet")
    manifest: Path | None = pydantic.Field(None, description="CSV file for file, row, column, split and subset of every tile")

    @pydantic.field_validator("out")
    @classmethod
    def _is_parquet(cls, value: Path) -> Path | None:
        return require_suffix(value, ".parquet", "a catalog is a Parquet file")

    @pydantic.field_validator("manifest")
    @classmethod
    def _is_csv(cls, value: Path | None) -> Path | None:
        return require_suffix(value, ".csv", "a manifest is a CSV file")


class CatalogShowOptions(Config):
    """Options of ``tilth catalog show``."""

    catalog: Path = pydantic.Field(json_schema_extra={"positional": True}, description="catalog to show")
    out: Path | None = pydantic.Field(None, description="contact sheet to write, .png")
    count: int = pydantic.Field(24, ge=1, le=400, description="tiles on the contact sheet")
    seed: int = pydantic.Field(0, description="another seed shows other tiles")
    labels: bool = pydantic.Field(True, description="count classes, which reads every label")

    @pydantic.field_validator("out")
    @classmethod
    def _is_png(cls, value: Path | None) -> Path | None:
        return require_suffix(value, ".png", "a contact sheet is a PNG image")


@verb("catalog build", CatalogBuildOptions)
def catalog_build(options: CatalogBuildOptions, console: Console) -> Result:
    """Make a catalog of scenes, of pairs of image and mask, or of unlabelled images.

    Labels may be rasters of class ids, of other codes or colours, or on another grid, or polygons; the labels that are made of them, and
    images joined of several sensors, lie in a folder beside the catalog.
    """
    from tilth.catalog.build import build_catalog
    from tilth.catalog.discover import Problem
    from tilth.catalog.fingerprint import made_files
    from tilth.catalog.table import Catalog
    from tilth.catalog.uris import absolute_uri
    from tilth.imagery.files import new_folder

    problems: list[Problem] = []
    notes: list[str] = []
    derived = options.derived or str(options.out.with_name(f"{options.out.stem}_files"))
    with new_folder(Path(absolute_uri(derived))):
        catalog: Catalog = build_catalog(
            options.model_copy(update={"derived": derived}),
            problems=problems,
            notes=notes,
            progress=lambda done, total: console.status(f"reading headers and making labels {done}/{total}"),
        )
        for note in notes:
            console.warn(note)
        for problem in problems:
            console.warn(f"left out {problem.file}: {problem.reason}")
        catalog.save(options.out)
    splits = ", ".join(f"{name or 'no split'} {count}" for name, count in catalog.counts("split").items())
    return Result(
        summary=(f"{len(catalog)} tiles, {len(catalog.labelled())} with labels ({splits}); {len(problems)} files left out",),
        outputs={"catalog": options.out},
        values={"tiles": len(catalog), "labelled": len(catalog.labelled()), "left_out": len(problems)},
        parts=made_files(catalog.table, Path(derived)),
    )


@verb("catalog check", CatalogCheckOptions)
def catalog_check(options: CatalogCheckOptions, console: Console) -> Result:
    """Find damaged files, wrong labels and values, duplicates, splits sharing ground."""
    from tilth.catalog.check import check_catalog
    from tilth.catalog.table import Catalog
    from tilth.imagery.write import write_json

    catalog = Catalog.open(options.catalog)
    report = check_catalog(
        catalog,
        headers=options.headers,
        pixels=options.pixels,
        duplicates=options.duplicates,
        threads=options.threads,
        progress=lambda done, total: console.status(f"checking tile {done}/{total}"),
    )
    total, *shown = report.summary(_LISTED_FINDINGS).splitlines()
    if options.out is None and any(line.startswith("  ... and ") for line in shown):
        shown.append("--out FILE.json keeps them all")
    outputs = {}
    if options.out is not None:
        write_json(options.out, json.loads(report.to_json()))
        outputs["findings"] = options.out
    if options.clean is not None:
        report.sound(catalog).save(options.clean)
        outputs["catalog"] = options.clean
    return Result(
        summary=(*shown, total),
        outputs=outputs,
        values={"errors": len(report.errors), "warnings": len(report.warnings)},
        exit_code=0 if report.ok or options.clean is not None else 1,
    )


@verb("catalog split", CatalogSplitOptions)
def catalog_split(options: CatalogSplitOptions, console: Console) -> Result:
    """Divide tiles into splits that share no ground, and rank the training labels."""
    from tilth.catalog.manifest import write_manifest
    from tilth.catalog.split import split_catalog
    from tilth.catalog.table import Catalog

    catalog = Catalog.open(options.catalog)
    done = split_catalog(catalog, options, progress=lambda done, total: console.status(f"reading labels {done}/{total}"))
    done.save(options.out)
    rows = [
        f"{name or 'no split'}: {len(part)} tiles, {len(part.labelled())} with labels"
        for name in done.counts("split")
        for part in [done.filter(split=name)]
    ]
    outputs = {"catalog": options.out}
    if options.manifest is not None:
        outputs["manifest"] = write_manifest(done, options.manifest, options.seed)
    return Result(summary=tuple(rows), outputs=outputs, values={str(name): count for name, count in done.counts("split").items()})


@verb("catalog show", CatalogShowOptions)
def catalog_show(options: CatalogShowOptions, console: Console) -> Result:
    """Say in plain words what a catalog holds, and draw a contact sheet."""
    from tilth.catalog.show import contact_sheet
    from tilth.catalog.summary import format_summary, summarise
    from tilth.catalog.table import Catalog

    catalog = Catalog.open(options.catalog)
    summary = summarise(catalog, labels=options.labels, progress=lambda done, total: console.status(f"reading labels {done}/{total}"))
    outputs = {}
    if options.out is not None:
        outputs["contact sheet"] = contact_sheet(catalog, options.out, count=options.count, seed=options.seed)
    return Result(summary=tuple(format_summary(summary).splitlines()), outputs=outputs, values=summary)
