"""LMDB stores become packed tiles: pixels as they are, labels as class ids, one tile a season; restartable shard by shard."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tilth.catalog.schema import COLUMNS
from tilth.catalog.table import Catalog
from tilth.classes import IGNORE_INDEX, ClassScheme
from tilth.datasets import store_plan
from tilth.datasets.config import Card
from tilth.datasets.lmdb_store import Store, opened
from tilth.datasets.records import StoredRecord
from tilth.datasets.store_plan import Part, find_groups, plan_parts
from tilth.errors import DataError
from tilth.imagery.label_codes import LabelCodes, decode
from tilth.imagery.packing import Record, array_record, read_stamp, record_uri, shard_file
from tilth.imagery.raster import RasterInfo
from tilth.imagery.read import read_info
from tilth.sensors import Sensor

Warn = Callable[[str], None]
Progress = Callable[[str, int, int], None]
SHARDS = ("images-*.arrow", "labels-*.arrow")
_SEASON = "_season"


@dataclass(frozen=True)
class Reading:
    """What turns records into tiles.

    Attributes:
        card: of the data set; it has stores.
        sensor: of all bands.
        codes: what stored label values mean; None where they are class ids.
        scheme: of the labels.
        prefix: first part of tile ids.
        partial: leave out places that cannot be read.
    """

    card: Card
    sensor: Sensor
    codes: LabelCodes | None
    scheme: ClassScheme | None
    prefix: str
    partial: bool

    @property
    def identity(self) -> str:
        """Everything that tiles depend on besides their records."""
        assert self.card.stores is not None
        codes = None if self.codes is None else self.codes.model_dump(mode="json")
        stored = self.card.stores.model_dump(mode="json", exclude={"gsd_m", "shares", "other_order"})
        return json.dumps([stored, self.sensor.model_dump(mode="json"), codes, self.prefix])


def read_stores(
    reading: Reading, folder: Path, place: Path, *, source: str | None, licence: str | None, warn: Warn, progress: Progress
) -> tuple[Catalog, int]:
    """Copy the pixels and labels of stores into shards, and make the catalog of them.

    A shard that is whole, and of the same stores and card, is left as it is.

    Args:
        reading: what is stored.
        folder: where the stores lie.
        place: folder for the shards.
        source: where the imagery comes from.
        licence: of the imagery.
        warn: told what is odd.
        progress: told after each place.

    Returns:
        The catalog, and the number of places.

    Raises:
        DataError: stores, records or labels that are missing or do not fit; store and record are named.
        UnreadableFileError: a truncated or damaged store, or a record that is a pickle with code in it.
        MissingExtraError: lmdb is not installed.
    """
    stores = reading.card.stores
    assert stores is not None
    parts: list[Part] = []
    for group in find_groups(reading.card, stores, folder, place):
        parts += plan_parts(stores, group, reading.identity, partial=reading.partial, shard_bytes=store_plan.SHARD_BYTES, warn=warn)
    total, done = sum(len(part.indices) for part in parts), 0
    rows: list[tuple[str, str, str | None, str | None]] = []
    for number, part in enumerate(parts):
        images, labels = place / f"images-{number:05d}.arrow", place / f"labels-{number:05d}.arrow"
        names = _whole(images, labels, part, reading)
        if names is None:
            _write(reading, part, images, labels, warn, lambda step, done=done: progress("reading places", done + step, total))  # type: ignore[misc]  # default binds the count
            names = _whole(images, labels, part, reading)
            assert names is not None, f"{images} was just written"
        elif lost := len(part.indices) - len(names) // stores.seasons:
            warn(f"{images}: {lost:,} places could not be read when it was made; left out")
        done += len(part.indices)
        rows += [
            (name, record_uri(images, row), None if stores.label is None else record_uri(labels, row), part.group.split)
            for row, name in enumerate(names)
        ]
    for stale in (file for pattern in SHARDS for file in place.glob(pattern) if int(file.stem[-5:]) >= len(parts)):
        stale.unlink()
    return _catalog(reading, rows, source, licence), len(rows) // stores.seasons


def _whole(images: Path, labels: Path, part: Part, reading: Reading) -> list[str] | None:
    """Tile ids in the shards of a part; None if they must be made."""
    stores = reading.card.stores
    assert stores is not None
    stamped = read_stamp(images)
    other = stamped if stores.label is None else read_stamp(labels)
    if stamped is None or stamped != other or stamped[0] != part.stamp:
        return None
    return stamped[1] if reading.partial or len(stamped[1]) == len(part.indices) * stores.seasons else None


def _write(reading: Reading, part: Part, images: Path, labels: Path, warn: Warn, told: Callable[[int], None]) -> None:
    stores = reading.card.stores
    assert stores is not None
    with ExitStack() as stack:
        by_path = {path: stack.enter_context(opened(path)) for path in dict.fromkeys(part.group.paths)}
        here = [by_path[path] for path in part.group.paths]
        # Labels take their place first, so that whole images say that the labels are whole, too.
        append_image = stack.enter_context(shard_file(images, part.stamp))
        append_label = stack.enter_context(shard_file(labels, part.stamp)) if stores.label is not None else None
        for step, index in enumerate(part.indices, start=1):
            try:
                made = list(_tiles(reading, here, index, part.group.split))
            except DataError as error:
                if not reading.partial:
                    raise
                warn(f"{error}; left out")
                continue
            for image, label in made:
                append_image(image)
                if append_label is not None and label is not None:
                    append_label(label)
            told(step)


def _tiles(reading: Reading, here: Sequence[Store], index: int, split: str | None) -> Iterator[tuple[Record, Record | None]]:
    """Make the records of one place, season by season."""
    stores = reading.card.stores
    assert stores is not None
    found = [store.record(array.key, index) for store, array in zip(here, stores.arrays, strict=True)]
    sources = [store.source(array.key, index) for store, array in zip(here, stores.arrays, strict=True)]
    name = _shared_name(reading, found, sources) or f"{index:06d}"
    lead = f"{reading.prefix}/{split}/{name}" if split else f"{reading.prefix}/{name}"
    arrays = [item.array(array.dtype, where) for item, array, where in zip(found, stores.arrays, sources, strict=True)]
    bands = [len(part) for part in stores.part_sensors()]
    pictures = [_seasons(array, 3, stores.seasons, where) for array, where in zip(arrays[: len(bands)], sources, strict=False)]
    for picture, count, where in zip(pictures, bands, sources, strict=False):
        if picture.shape[1] != count or picture.shape[2:] != pictures[0].shape[2:]:
            raise DataError(f"{where}: {_size(picture)}, expected {count} bands on the grid of {sources[0]}, {_size(pictures[0])}")
    joined = np.concatenate([picture.astype(reading.sensor.dtype, copy=False) for picture in pictures], axis=1)
    label = None if stores.label is None else _label(reading, arrays[-1], sources[-1], joined.shape)
    for season in range(stores.seasons):
        tile_id = lead if stores.seasons == 1 else f"{lead}{_SEASON}{season}"
        yield (
            _record(tile_id, joined[season], reading.sensor.band_names),
            None if label is None else _record(tile_id, label[season][None], ("label",)),
        )


def _shared_name(reading: Reading, found: Sequence[StoredRecord], sources: Sequence[str]) -> str | None:
    """Return the name that all records of a place give it."""
    stores = reading.card.stores
    assert stores is not None
    names = [
        None if item.name is None else Path(item.name.removeprefix(array.name_start)).name.removesuffix(".tif")
        for item, array in zip(found, stores.arrays, strict=True)
    ]
    for name, item, where in zip(names, found, sources, strict=True):
        if name != names[0]:
            raise DataError(f"{where} is of {item.name!r}, and {sources[0]} of {found[0].name!r}: image and label ids do not match")
    return names[0]


def _seasons(array: NDArray[Any], dimensions: int, seasons: int, source: str) -> NDArray[Any]:
    """Give an array an axis of seasons."""
    whole = array[None] if seasons == 1 and array.ndim == dimensions else array
    if whole.ndim != dimensions + 1 or len(whole) != seasons:
        wanted = f"{seasons} seasons of {dimensions} dimensions" if seasons > 1 else f"{dimensions} dimensions"
        shape = " x ".join(map(str, array.shape))
        raise DataError(f"{source}: shape {shape}, expected {wanted}; a season is missing, or it is another set")
    return whole


def _label(reading: Reading, stored: NDArray[Any], source: str, grid: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return class ids, uint8 (seasons, h, w), of a stored label."""
    stores = reading.card.stores
    assert stores is not None
    assert reading.scheme is not None
    if stores.seasons == 1 and stored.ndim == 3:
        stored = stored[min(stores.label_layer, len(stored) - 1)]
    label = _seasons(stored, 2, stores.seasons, source)
    if label.shape[1:] != grid[2:]:
        raise DataError(f"{source}: {label.shape[2]} x {label.shape[1]} pixels, expected the grid of the image, {grid[3]} x {grid[2]}")
    valid = np.ones(label.shape[1:], np.bool_)
    codes = reading.codes or LabelCodes(values={value: value for value in (*range(len(reading.scheme)), IGNORE_INDEX)})
    return np.stack([decode(season[None], valid, codes, source) for season in label])


def _record(tile_id: str, data: NDArray[Any], names: Sequence[str]) -> Record:
    bands, height, width = data.shape
    mask = None
    if data.dtype.kind == "f":
        valid = np.isfinite(data).all(axis=0)
        mask = None if valid.all() else np.packbits(valid, axis=1)
    header = RasterInfo(tile_id, width, height, bands, data.dtype.name, None, None, None, tuple(names))
    return array_record(tile_id, data, mask, "raw", header)


def _size(picture: NDArray[Any]) -> str:
    return f"{picture.shape[1]} bands of {picture.shape[3]} x {picture.shape[2]} pixels"


def _catalog(reading: Reading, rows: Sequence[tuple[str, str, str | None, str | None]], source: str | None, licence: str | None) -> Catalog:
    assert reading.card.stores is not None
    seasons = reading.card.stores.seasons
    names = [name for name, *_ in rows]
    if not names:
        raise DataError(f"no place of data set {reading.card.name!r} can be read")
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise DataError(f"two places of data set {reading.card.name!r} have the id {twice!r}; give the folder of one copy of the set")
    sizes = [(info.width, info.height) for info in (read_info(uri) for _, uri, *_ in rows)]
    trust = reading.card.labels[0].trust if reading.card.labels else "none"
    labelled = [label is not None for _, _, label, _ in rows]
    scheme = reading.scheme
    columns: dict[str, list[Any]] = {
        "tile_id": names,
        "image": [image for _, image, _, _ in rows],
        "window": [[0, 0, *size] for size in sizes],
        # All seasons of a place lie one behind the other.
        "location_id": [name if seasons == 1 else name.rpartition(_SEASON)[0] for name in names],
        "label": [label for _, _, label, _ in rows],
        "label_kind": [trust if has else "none" for has in labelled],
        "scheme": [scheme.name if has and scheme is not None else None for has in labelled],
        "split": [split for *_, split in rows],
        "sensor": [reading.sensor.name] * len(rows),
        "source": [source] * len(rows),
        "licence": [licence] * len(rows),
    }
    table = pa.table({name: pa.array(values, COLUMNS[name]) for name, values in columns.items()})
    return Catalog(table, {reading.sensor.name: reading.sensor}, {} if scheme is None else {scheme.name: scheme})
