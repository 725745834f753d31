"""From a data set in its original layout to a catalog: verify, unpack, decode the masks, write the table.

Everything is written whole and in the same bytes whenever it is written, so a stopped job is simply started again.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pydantic

from tilth.catalog.table import Catalog
from tilth.classes import ClassScheme
from tilth.config import Config
from tilth.datasets.archives import folder_name, unpack, verify_sum
from tilth.datasets.config import Card, Layer
from tilth.datasets.download import download, how_to_get
from tilth.datasets.headers import read_headers
from tilth.datasets.layout import Place, survey
from tilth.datasets.masks import prepare_masks
from tilth.datasets.options import PrepareConfig
from tilth.datasets.rows import make_catalog
from tilth.datasets.shelf import load_card
from tilth.errors import ConfigError, DataError, MissingFileError, OutputExistsError, TilthError, UsageError
from tilth.imagery.files import folder_lock, make_folder, remove_empty
from tilth.imagery.write import write_json
from tilth.sensors import Sensor, get_sensor

Warn = Callable[[str], None]
Progress = Callable[[str, int, int], None]
"""Told (what is done, how many are done, all of them)."""

CATALOG_FILE = "catalog.parquet"
NOTE_FILE = "dataset.json"
"""Says which card and folder a prepared folder was made from; what it does not stand in is not ours to write into."""
MASK_FOLDER = "masks"
EXTRACTED_FOLDER = "extracted"
COLOUR_FOLDER = "colour"

# What a process that was killed leaves; see imagery.files.atomic_path.
_UNFINISHED = re.compile(r"\..+\.(?P<process>\d+)-\d+(-built)?\.[a-z0-9]+")


class Note(Config):
    """What a prepared folder says of itself.

    Attributes:
        name: of the card.
        folder: of the data set, relative to the prepared folder.
    """

    name: str
    folder: str


@dataclass(frozen=True)
class Prepared:
    """A prepared data set.

    Attributes:
        card: what was prepared.
        catalog: its tiles.
        path: the catalog file.
        images: number of rasters.
        decoded: number of masks that were decoded; others are used as they are.
    """

    card: Card
    catalog: Catalog
    path: Path
    images: int
    decoded: int


def prepare_dataset(config: PrepareConfig, out: str | Path, *, warn: Warn | None = None, progress: Progress | None = None) -> Prepared:
    """Make a catalog of a data set that lies in its original layout, or in the archives it is published in.

    ``out`` receives ``catalog.parquet``, ``masks/`` (index rasters of coded masks), ``colour/`` (virtual rasters of grey pictures that the
    card has shown in colour), ``extracted/`` (archives, where they were not unpacked) and ``dataset.json``. Originals are never touched. A
    call that finds the data wrong leaves nothing behind; one that was killed goes on.

    Args:
        config: which data set, where it lies, and how it is cut.
        out: folder to write into; new, empty, or one of this data set.
        warn: told what is odd, one line each.
        progress: told how far each step is.

    Raises:
        ConfigError: unknown data set, layer or sensor, or a card that does not validate.
        MissingFileError: no such folder; the message says how to get the data.
        OutputExistsError: ``out`` holds something else.
        DataError: the folder is not laid out as the card says, an archive is damaged, or masks hold what the card does not list.
        SensorMismatchError: images with another number of bands or another type than the sensor.
        UsageError: nothing can be downloaded.
        TilthError: the disk has no room, the folder cannot be written to, or another process is preparing in it.
    """
    card = load_card(config.name)
    layer = card.layer(config.layer)
    sensor = _sensor(card, layer, config)
    config.windows(card)
    place, folder = Path(out).absolute(), config.folder.absolute()
    made = [item for item in (place, *place.parents) if not item.exists()]
    _check_out(place, card, folder)
    if config.download:
        download(card, folder)
    if not folder.is_dir():
        raise MissingFileError(f"{folder}: no such folder of data set {card.name!r}; {how_to_get(card)}")
    make_folder(place)
    try:
        with folder_lock(place, "preparing a data set in"):
            # Looked at again, as another process may have begun meanwhile.
            fresh = _check_out(place, card, folder)
            try:
                return _prepare(card, layer, sensor, config, folder, place, warn or _no_warning, progress or _no_progress)
            except (TilthError, OSError):
                if fresh:
                    _remove(place)
                raise
    except (TilthError, OSError):
        remove_empty(made)
        raise


def _prepare(
    card: Card, layer: Layer, sensor: Sensor, config: PrepareConfig, folder: Path, place: Path, warn: Warn, progress: Progress
) -> Prepared:
    write_json(place / NOTE_FILE, Note(name=card.name, folder=_relative(folder, place)).model_dump())
    _sweep(place)
    folders = [folder, *_unpack_all(card, folder, place, progress)]
    found = survey(card, layer, folders, partial=config.partial, warn=warn, without=place)
    if card.images is not None and len(found.places) != card.images:
        warn(f"{folder}: {len(found.places):,} images here, {card.images:,} as published")
    scheme = _scheme(card, found.root) if any(item.mask for item in found.places) else None
    places, headers = read_headers(
        found.places,
        sensor,
        lambda done, total: progress("reading headers", done, total),
        colour=place / COLOUR_FOLDER if layer.grey == "repeat" else None,
        leave_out=warn if config.partial else None,
    )
    masks, decoded = _masks(card, scheme, places, place, progress)
    catalog = make_catalog(
        places,
        headers,
        masks,
        sensor,
        scheme,
        trust=card.labels[0].trust if card.labels else "none",
        windows=config.windows(card),
        prefix=config.prefix or (card.name if card.homepage else folder.name or card.name),
        source=config.source or (card.title if card.homepage else None),
        licence=config.licence or (card.licence.name if card.homepage else None),
    )
    return Prepared(card, catalog, catalog.save(place / CATALOG_FILE), len(places), decoded)


def _sensor(card: Card, layer: Layer, config: PrepareConfig) -> Sensor:
    sensor = get_sensor(config.sensor) if config.sensor is not None else layer.find_sensor()
    if sensor is None:
        raise ConfigError(f"data set {card.name!r} leaves the sensor open; give --sensor, such as rgb: it fixes band order and scaling")
    return sensor


def _check_out(place: Path, card: Card, folder: Path) -> bool:
    """Refuse a folder that is not ours; say whether there is nothing in it yet."""
    if place.exists() and not place.is_dir():
        raise OutputExistsError(f"{place}: is a file; give a folder to write into")
    if place.resolve() == folder.resolve():
        raise UsageError(f"{place}: is the data set itself; give another folder to write into")
    if not place.is_dir() or not any(place.iterdir()):
        return True
    if not (place / NOTE_FILE).is_file():
        raise OutputExistsError(f"{place}: is not empty and holds no prepared data set; choose another --out")
    try:
        note = Note.model_validate_json((place / NOTE_FILE).read_bytes())
    except pydantic.ValidationError:
        raise OutputExistsError(f"{place}: {NOTE_FILE} there is not of a prepared data set; choose another --out") from None
    here = _relative(folder, place)
    if (note.name, note.folder) != (card.name, here):
        raise OutputExistsError(
            f"{place}: holds data set {note.name!r} of {note.folder}, not {card.name!r} of {here}; choose another --out"
        )
    return False


def _relative(folder: Path, place: Path) -> str:
    try:
        return Path(os.path.relpath(folder.resolve(), place.resolve())).as_posix()
    except ValueError:  # another drive
        return folder.resolve().as_posix()


def _sweep(place: Path) -> None:
    """Remove what a process that was killed left half written."""
    for kept in (MASK_FOLDER, COLOUR_FOLDER, "."):
        for file in place.iterdir() if kept == "." else (place / kept).rglob("*"):
            written = _UNFINISHED.fullmatch(file.name)
            # Where the file system has no locks, another process may be at work.
            if written and file.is_file() and not _is_alive(int(written["process"])):
                file.unlink()


def _is_alive(process: int) -> bool:
    """Say whether another process of this number runs; of this one nothing is unfinished yet."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def _unpack_all(card: Card, folder: Path, place: Path, progress: Progress) -> list[Path]:
    """Verify the archives that lie in the folder, and unpack those that are not; return the folders made."""
    archives = [folder / name for name in card.archives if (folder / name).is_file()]
    for done, path in enumerate(archives, start=1):
        progress("verifying archives", done, len(archives))
        verify_sum(path, card.archives[path.name])
    made = []
    for path in archives:
        name = folder_name(path.name)
        target = unpack(
            path,
            (folder, folder / name),
            place / EXTRACTED_FOLDER / name,
            lambda done, total, path=path: progress(f"unpacking {path.name}", done, total),  # type: ignore[misc]  # default binds the path
        )
        if target is not None:
            made.append(target)
    return made


def _scheme(card: Card, root: Path) -> ClassScheme:
    """Return the card's scheme, or read it from the data set's folder."""
    labels = card.labels[0]
    if labels.scheme_file is None:
        return labels.scheme(card.name)
    file = root / labels.scheme_file
    if not file.is_file():
        raise DataError(f"{file}: no such class scheme; masks need one: a list 'classes', each with index, name and colour")
    return ClassScheme.load(file)


def _masks(
    card: Card, scheme: ClassScheme | None, places: Sequence[Place], place: Path, progress: Progress
) -> tuple[list[str | None], int]:
    """Return the index raster of each place, and how many of them were decoded."""
    if scheme is None:
        return [None] * len(places), 0
    codes = card.labels[0].codes(scheme)
    masks = [None if item.mask is None else (item.mask, item.name) for item in places]
    what = "checking masks" if codes is None else "decoding masks"
    labels = prepare_masks(masks, codes, len(scheme), place / MASK_FOLDER, lambda done, total: progress(what, done, total))
    return labels, 0 if codes is None else sum(label is not None for label in labels)


def _remove(place: Path) -> None:
    """Take back what a call wrote that found the data wrong."""
    for name in (MASK_FOLDER, COLOUR_FOLDER, EXTRACTED_FOLDER):
        shutil.rmtree(place / name, ignore_errors=True)
    for file in (place / CATALOG_FILE, place / NOTE_FILE):
        with suppress(OSError):
            file.unlink()


def _no_warning(_line: str) -> None:
    pass


def _no_progress(_what: str, _done: int, _total: int) -> None:
    pass
