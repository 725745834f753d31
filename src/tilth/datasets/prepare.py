"""From a data set in its original layout to a catalog: verify, unpack, decode the masks, write the table.

Everything is written whole and in the same bytes whenever it is written, so a stopped job is simply started again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tilth.catalog.table import Catalog
from tilth.classes import ClassScheme
from tilth.datasets.archives import folder_name, unpack, verify_sum
from tilth.datasets.asked import asked_scheme, asked_sensor
from tilth.datasets.config import Card, Layer
from tilth.datasets.download import download, how_to_get
from tilth.datasets.headers import read_headers
from tilth.datasets.layout import Place, survey
from tilth.datasets.masks import prepare_masks
from tilth.datasets.options import PrepareConfig
from tilth.datasets.prepared_folder import (
    CATALOG_FILE,
    COLOUR_FOLDER,
    EXTRACTED_FOLDER,
    JOINED_FOLDER,
    MASK_FOLDER,
    NOTE_FILE,
    Note,
    check_out,
    relative,
    remove,
    sweep,
)
from tilth.datasets.rows import make_catalog
from tilth.datasets.shares import check_shares
from tilth.datasets.shelf import load_card
from tilth.datasets.stores import Reading, read_stores
from tilth.errors import DataError, MissingFileError, TilthError
from tilth.imagery.files import folder_lock, make_folder, remove_empty
from tilth.imagery.write import write_json
from tilth.sensors import Sensor

Warn = Callable[[str], None]
Progress = Callable[[str, int, int], None]
"""Told (what is done, how many are done, all of them)."""


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
    layer = card.layer(config.layer) if card.layers else None
    sensor = asked_sensor(card, layer, config)
    scheme = asked_scheme(card, config)
    config.windows(card)
    place, folder = Path(out).absolute(), config.folder.absolute()
    made = [item for item in (place, *place.parents) if not item.exists()]
    check_out(place, card, folder)
    if config.download:
        download(card, folder)
    if not folder.is_dir():
        raise MissingFileError(f"{folder}: no such folder of data set {card.name!r}; {how_to_get(card)}")
    make_folder(place)
    try:
        with folder_lock(place, "preparing a data set in"):
            # Looked at again, as another process may have begun meanwhile.
            fresh = check_out(place, card, folder)
            try:
                told = (warn or _no_warning, progress or _no_progress)
                if layer is None:
                    return _prepare_stores(card, sensor, scheme, config, folder, place, *told)
                return _prepare(card, layer, sensor, scheme, config, folder, place, *told)
            except (TilthError, OSError):
                if fresh:
                    remove(place)
                raise
    except (TilthError, OSError):
        remove_empty(made)
        raise


def _prepare(
    card: Card,
    layer: Layer,
    sensor: Sensor,
    asked: ClassScheme | None,
    config: PrepareConfig,
    folder: Path,
    place: Path,
    warn: Warn,
    progress: Progress,
) -> Prepared:
    write_json(place / NOTE_FILE, Note(name=card.name, folder=relative(folder, place)).model_dump())
    sweep(place)
    folders = [folder, *_unpack_all(card, folder, place, progress)]
    found = survey(card, layer, folders, partial=config.partial, warn=warn, without=place)
    if card.images is not None and len(found.places) != card.images:
        warn(f"{folder}: {len(found.places):,} images here, {card.images:,} as published")
    scheme = (asked or _scheme(card, found.root)) if any(item.mask for item in found.places) else None
    places, headers = read_headers(
        found.places,
        sensor,
        lambda done, total: progress("reading headers", done, total),
        joined=place / JOINED_FOLDER,
        align=bool(card.labels) and card.labels[0].align == "resample",
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
        layer=layer,
        prefix=_prefix(card, config, folder),
        source=config.source or (card.title if card.homepage else None),
        licence=config.licence or (card.licence.name if card.homepage else None),
    )
    return Prepared(card, catalog, catalog.save(place / CATALOG_FILE), len(places), decoded)


def _prepare_stores(
    card: Card, sensor: Sensor, asked: ClassScheme | None, config: PrepareConfig, folder: Path, place: Path, warn: Warn, progress: Progress
) -> Prepared:
    write_json(place / NOTE_FILE, Note(name=card.name, folder=relative(folder, place)).model_dump())
    sweep(place)
    own = card.labels[0].scheme(card.name) if card.labels else None
    reading = Reading(
        card=card,
        sensor=sensor,
        # Stored numbers mean positions; another scheme gives these other names.
        codes=card.labels[0].codes(own) if own is not None else None,
        scheme=asked or own,
        prefix=_prefix(card, config, folder),
        partial=config.partial,
    )
    catalog, places = read_stores(
        reading,
        folder,
        place,
        source=config.source or (card.title if card.homepage else None),
        licence=config.licence or (card.licence.name if card.homepage else None),
        warn=warn,
        progress=progress,
    )
    if card.images is not None and places != card.images:
        warn(f"{folder}: {places:,} places here, {card.images:,} as published")
    if own is not None and card.stores is not None:
        check_shares(card.stores, catalog, own, asked or own, warn)
    return Prepared(card, catalog, catalog.save(place / CATALOG_FILE), places, len(catalog.labelled()))


def _prefix(card: Card, config: PrepareConfig, folder: Path) -> str:
    return config.prefix or (card.name if card.homepage else folder.name or card.name)


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
    codes = card.labels[0].codes(card.labels[0].scheme(card.name) if card.labels[0].classes else scheme)
    masks = [None if item.mask is None else (item.mask, item.name) for item in places]
    what = "checking masks" if codes is None else "decoding masks"
    images = [item.image for item in places] if card.labels[0].align == "resample" else None
    folder = place / MASK_FOLDER
    labels = prepare_masks(masks, codes, len(scheme), folder, lambda done, total: progress(what, done, total), images=images)
    return labels, 0 if codes is None else sum(label is not None for label in labels)


def _no_warning(_line: str) -> None:
    pass


def _no_progress(_what: str, _done: int, _total: int) -> None:
    pass
