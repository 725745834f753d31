"""Find what is wrong with a catalog and its files before a training does, and name it."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from tilth.catalog.check_table import check_table
from tilth.catalog.check_tile import Look, Outcome, TileReader, check_confidence, check_reference
from tilth.catalog.check_whole import Gathered
from tilth.catalog.config import Duplicates
from tilth.catalog.findings import CheckReport, Finding
from tilth.catalog.fingerprint import named_files
from tilth.catalog.table import Catalog, Tile

__all__ = ["CheckReport", "Finding", "check_catalog"]

_MOST_THREADS = 8
# Tiles of one image that one thread reads in a row: a plain image is then decoded once.
_RUN = 64
# Runs that wait or are being read for each thread: bounds memory.
_AHEAD = 4


def check_catalog(
    catalog: Catalog,
    *,
    headers: bool = True,
    pixels: bool = True,
    duplicates: Duplicates = "near",
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Look at a catalog: the table, the header of every file, and the pixels of every tile once.

    The table shows splits that share pixels of an image or ground, mixed coordinate systems and resolutions. Headers show files that are
    missing, damaged, of another size, type or number of bands. Pixels show damage, values outside the scheme, empty and constant tiles,
    duplicates, partly empty files, classes that are rare or absent from a split, and what contradicts the sensor: scaling, order of bands.

    Args:
        catalog: what to check.
        headers: open files; without it only the table is looked at, and ``pixels`` means nothing.
        pixels: read pixels, too.
        duplicates: ``exact``: tiles with the same pixels; ``near``: also those that differ by compression, brightness or a few pixels of
            shift; ``none``.
        threads: how many files are read at once; by default one a core, at most 8.
        progress: told (tiles done, tiles in all).

    Returns:
        The report, the same for any number of threads: first what concerns single tiles by themselves, in catalog order, then the table,
        then what tiles show together. Nothing is raised for bad files.

    Raises:
        MissingExtraError: a format or footprints need a library that is not installed.
    """
    look = Look(pixels=pixels, digests=duplicates != "none", portraits=duplicates == "near")
    findings: list[Finding] = []
    gathered = Gathered(catalog, near=headers and pixels and duplicates == "near")
    if headers:
        outcomes = _examine(catalog, look, gathered, threads or min(_MOST_THREADS, os.cpu_count() or 1))
        for done, (tile, outcome) in enumerate(outcomes, start=1):
            findings += outcome.findings
            gathered.take(done - 1, tile, outcome)
            if progress is not None:
                progress(done, len(catalog))
    findings += check_table(catalog)
    read = headers and pixels
    if read:
        findings += gathered.findings()
    return CheckReport(len(catalog), len(named_files(catalog.table)), tuple(findings), gathered.class_pixels() if read else {})


def _examine(catalog: Catalog, look: Look, gathered: Gathered, threads: int) -> Iterator[tuple[Tile, Outcome]]:
    """Look at all tiles, several at once, and give them in order."""
    waiting: deque[tuple[list[Tile], Future[list[Outcome]]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="check")
    try:
        start = 0
        for tiles in _runs(catalog):
            measured = gathered.measured[start : start + len(tiles)].tolist()
            waiting.append((tiles, pool.submit(_examine_run, catalog, look, tiles, start, measured)))
            start += len(tiles)
            if len(waiting) >= threads * _AHEAD:
                first, future = waiting.popleft()
                yield from zip(first, future.result(), strict=True)
        for first, future in waiting:
            yield from zip(first, future.result(), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)


def _runs(catalog: Catalog) -> Iterator[list[Tile]]:
    """Cut the catalog into runs of tiles that follow each other and have one image."""
    for _, group in itertools.groupby(catalog.tiles(), key=lambda tile: tile.image):
        while run := list(itertools.islice(group, _RUN)):
            yield run


def _examine_run(catalog: Catalog, look: Look, tiles: Sequence[Tile], start: int, measured: Sequence[bool]) -> list[Outcome]:
    reader = TileReader(look)
    outcomes = []
    for row, (tile, measure) in enumerate(zip(tiles, measured, strict=True), start=start):
        scheme = None if tile.scheme is None else catalog.schemes[tile.scheme]
        outcome = reader.examine(tile, catalog.sensors[tile.sensor], scheme, measure=measure)
        outcome.findings += [*check_confidence(catalog, row, look), *check_reference(catalog, row, look)]
        outcomes.append(outcome)
    return outcomes
