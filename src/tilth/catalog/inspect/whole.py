"""Inspecting a folder from beginning to end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilth.catalog.inspect.advice import looked_at, next_steps, no_starter
from tilth.catalog.inspect.inspection import DataSet, look_at
from tilth.catalog.inspect.listing import Listing, list_folder
from tilth.catalog.inspect.sets import find_sets
from tilth.catalog.inspect.starter import Starter, write_starter
from tilth.catalog.inspect.traps import find_traps
from tilth.catalog.inspect.values import values_of
from tilth.catalog.inspect.wording import headline, lines_of
from tilth.errors import DataError

MOST_SETS = 60
"""Data sets below one folder that are looked into."""


@dataclass(frozen=True)
class Inspection:
    """What a folder is.

    Attributes:
        lines: in plain words, for a terminal.
        values: the same for programs, JSON-ready; see :func:`tilth.catalog.inspect.values.values_of`. For several data sets ``kind`` is
            ``collection`` and ``sets`` holds folder, kind and headline of each.
        starter: recipe and what it needs, where one was asked for and can be written.
    """

    lines: tuple[str, ...]
    values: dict[str, Any]
    starter: Starter | None = None


def inspect_folder(
    folder: Path, *, sensor: str | None = None, out: Path | None = None, progress: Callable[[str], None] | None = None
) -> Inspection:
    """Say what a folder is, by looking at its files only.

    Time is bounded: at most :data:`~tilth.catalog.inspect.groups.MOST_HEADERS` headers a folder, and the pixels of
    :data:`~tilth.catalog.inspect.sampling.MOST_IMAGES` thinned images and :data:`~tilth.catalog.inspect.sampling.MOST_LABELS` labels of a
    kind are read.

    Args:
        folder: with anything in it.
        sensor: what the user says took the images; otherwise one is proposed.
        out: where a starter recipe will be written; the caller writes it.
        progress: told what is looked at.

    Raises:
        MissingFileError: no such folder.
        UsageError: it is a file.
        SensorMismatchError: no imagery there has the given sensor's bands and type.
        ConfigError: no such sensor.
        DataError: a starter was asked for, and there is nothing to write one for.
    """
    tell = progress or (lambda _: None)
    listing = list_folder(folder)
    sets = find_sets(listing)
    if len(sets) > 1:
        if out is not None:
            raise DataError(
                f"{folder}: holds {len(sets)} data sets ({', '.join(sets[:3])}, ...); inspect one of them to get a starter recipe"
            )
        return _collection(folder, listing, sets, tell)
    name = sets[0] if sets else "."
    tell(f"looking at {folder / name if name != '.' else folder}")
    data = look_at(listing.part(name), sensor)
    traps = find_traps(data)
    starter = None
    if out is not None:
        starter = write_starter(data, out.resolve())
        if starter is None:
            raise DataError(f"{folder}: no starter recipe: {no_starter(data, headline(data))}")
    title = folder.name or str(folder)
    lines = lines_of(data, title if name == "." else f"{title}/{name}", traps, next_steps(data, folder, out))
    return Inspection((*lines, *((f"({looked_at(data)})",) if data.parts else ())), values_of(data, traps), starter)


def _collection(folder: Path, listing: Listing, sets: list[str], tell: Callable[[str], None]) -> Inspection:
    """One line for each of several data sets."""
    rows, found = [], []
    for name in sets[:MOST_SETS]:
        tell(f"looking at {name}")
        data: DataSet = look_at(listing.part(name))
        rows.append(f"  {name}: {headline(data)}")
        found.append({"folder": str(folder / name), "kind": data.kind, "headline": headline(data)})
    more = [f"  ... and {len(sets) - MOST_SETS} more"] if len(sets) > MOST_SETS else []
    lines = [
        f"{folder.name or folder}: {len(sets)} data sets",
        *rows,
        *more,
        "",
        "Next",
        f"  inspect one of them: tilth inspect {folder / sets[0]}",
    ]
    return Inspection(tuple(lines), {"folder": str(folder), "kind": "collection", "sets": found})
