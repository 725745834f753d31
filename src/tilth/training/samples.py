"""Samples: the tile of a slot, read from disk with all that its stream asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from tilth import seeds
from tilth.augment.config import WeakConfig
from tilth.augment.weak import WeakGeometry, plan_weak
from tilth.catalog import schema
from tilth.catalog.confidence import FULL, confidence_place, read_confidence
from tilth.catalog.seasons import find_places
from tilth.catalog.table import Catalog, Tile
from tilth.classes import IGNORE_INDEX
from tilth.errors import DataError, RunError, TilthError
from tilth.imagery.read import Window, read_label, read_pixels
from tilth.methods.base import Stream
from tilth.sensors import Sensor
from tilth.training.order import Key, Order

_ATTEMPTS = 8
"""Neighbours tried in place of an unreadable tile before the run gives up."""


@dataclass(frozen=True)
class Sample:
    """One tile's source pixels, before the weak view is made on the device.

    Attributes:
        stored: (C, h, w) in the stored type; the pixels the crop depends on, no more.
        valid: bool (h, w).
        mask: uint8 (h, w), 255 = ignore.
        geometry: how the crop lies in those pixels.
        tile_id: catalog identifier.
        draw: seed of the sample.
        bad: unreadable tiles met on the way, with the reason.
        confidence: uint8 (h, w), percents, 255 = not known; None where the stream does not ask for it.
        seasons: uint8 (T, h, w), labels of all seasons of the place, 255 = ignore; None where the stream does not ask for them.
        reference: uint8 (h, w), clean labels, 255 = ignore; None where the stream does not ask for them or the catalog has none.
    """

    stored: NDArray[Any]
    valid: NDArray[np.bool_]
    mask: NDArray[np.uint8]
    geometry: WeakGeometry
    tile_id: str
    draw: int
    bad: tuple[tuple[str, str], ...]
    confidence: NDArray[np.uint8] | None = None
    seasons: NDArray[np.uint8] | None = None
    reference: NDArray[np.uint8] | None = None


class TileDataset(Dataset[Sample]):
    """Reads the sample that belongs to a (stream, step, slot).

    Attributes:
        order: of the slots: as given, over the places of a stream that asks for seasons.
        catalogs: of each stream.
        num_classes: number of classes K.
        weak: settings of the weak view.
    """

    def __init__(self, order: Order, catalogs: Mapping[str, Catalog], num_classes: int, weak: WeakConfig) -> None:
        """Take what is to be read.

        Args:
            order: over the rows of the catalogs.
            catalogs: tiles of each stream.
            num_classes: number of classes K.
            weak: settings of the weak view.

        Raises:
            CatalogError: rows that cannot be seasons of one place; see :func:`tilth.catalog.seasons.find_places`.
        """
        self._places = {name: find_places(rows.table) for name, rows in catalogs.items() if order.streams[name].seasons}
        self.order = dataclasses.replace(order, sizes={**order.sizes, **{name: len(found) for name, found in self._places.items()}})
        self.catalogs = catalogs
        self.num_classes = num_classes
        self.weak = weak
        taught = [rows for name, rows in catalogs.items() if order.streams[name].source == "labelled"]
        self._schemes = {name for rows in taught for name in rows.schemes}

    def __getitem__(self, key: Key) -> Sample:
        """Read a sample; an unreadable tile is replaced by its neighbour in the catalog and reported with the sample."""
        stream, step, slot = key
        catalog, wanted, shown = self.catalogs[stream], self.order.streams[stream], self.order.rows(stream, step)
        first = shown.index(self.order.index(stream, step, slot))
        tied = self.order.tied(stream, step, slot)
        bad: list[tuple[str, str]] = []
        for attempt in range(min(_ATTEMPTS, len(shown))):
            place = shown[(first + attempt) % len(shown)]
            if place in tied:
                continue
            rows = self._places[stream].seasons(place) if wanted.seasons else [place]
            row = rows[self.order.season(stream, step, slot, len(rows))]
            tile = catalog.tile(row)
            draw = seeds.derive(self.order.seed, "draw", stream, step, slot, tile.tile_id)
            try:
                sample = self._read(tile, draw, tuple(bad), catalog.sensors[tile.sensor], wanted)
                return self._with_more(sample, wanted, catalog, row, rows)
            except (TilthError, OSError) as error:
                bad.append((tile.tile_id, str(error)))
        raise RunError(f"stream {stream!r}: {len(bad)} tiles in a row cannot be read, the last says: {bad[-1][1]}; run tilth catalog check")

    def _read(self, tile: Tile, draw: int, bad: tuple[tuple[str, str], ...], sensor: Sensor, wanted: Stream) -> Sample:
        geometry = plan_weak(seeds.generator(draw, "weak"), tile.window.height, tile.window.width, self.weak)
        return self.read(tile, geometry, draw, bad, sensor, wanted)

    def read(
        self, tile: Tile, geometry: WeakGeometry, draw: int, bad: tuple[tuple[str, str], ...], sensor: Sensor, wanted: Stream
    ) -> Sample:
        """Read the pixels and labels of a tile that a crop depends on.

        Raises:
            TilthError: they cannot be read, or do not fit the sensor or the classes.
        """
        window = _part(tile.window, geometry)
        pixels = read_pixels(tile.image, window)
        if len(pixels.data) != len(sensor):
            raise DataError(f"{tile.image}: {len(pixels.data)} bands, sensor {sensor.name!r} has {len(sensor)}")
        return Sample(pixels.data, pixels.valid, self._reader(wanted)(tile, window), geometry, tile.tile_id, draw, bad)

    def _with_more(self, sample: Sample, wanted: Stream, catalog: Catalog, row: int, rows: Sequence[int]) -> Sample:
        """Add what else the stream asks for."""
        if wanted.confidence:
            sample = dataclasses.replace(sample, confidence=_confidence(sample, catalog, row))
        if wanted.seasons:
            sample = self._with_seasons(sample, wanted, catalog, row, rows)
        if wanted.reference and schema.REFERENCE_COLUMN in catalog.table.column_names:
            tile = dataclasses.replace(catalog.tile(row), label=catalog.table[schema.REFERENCE_COLUMN][row].as_py())
            sample = dataclasses.replace(sample, reference=self._compared_labels(tile, _part(tile.window, sample.geometry)))
        return sample

    def _with_seasons(self, sample: Sample, wanted: Stream, catalog: Catalog, row: int, rows: Sequence[int]) -> Sample:
        """Add the labels of all seasons; one that cannot be read counts as ignored, and is reported."""
        read, bad = self._reader(wanted), list(sample.bad)
        maps = np.full((len(rows), *sample.mask.shape), IGNORE_INDEX, np.uint8)
        for season, other in enumerate(rows):
            if other == row:
                maps[season] = sample.mask
                continue
            tile = catalog.tile(other)
            try:
                maps[season] = read(tile, _part(tile.window, sample.geometry))
            except (TilthError, OSError) as error:
                bad.append((tile.tile_id, str(error)))
        return dataclasses.replace(sample, seasons=maps, bad=tuple(bad))

    def _reader(self, wanted: Stream) -> Callable[[Tile, Window], NDArray[np.uint8]]:
        return self._labels if wanted.source == "labelled" else self._compared_labels

    def _labels(self, tile: Tile, window: Window) -> NDArray[np.uint8]:
        if tile.label is None:
            return np.full((window.height, window.width), IGNORE_INDEX, np.uint8)
        mask = read_label(tile.label, window)
        wrong = (mask >= self.num_classes) & (mask != IGNORE_INDEX)
        if wrong.any():
            value = int(mask[wrong][0])
            raise DataError(
                f"{tile.label}: label value {value} is outside the scheme (0 to {self.num_classes - 1}, {IGNORE_INDEX} = ignore)"
            )
        return mask

    def _compared_labels(self, tile: Tile, window: Window) -> NDArray[np.uint8]:
        """Labels that are only compared with: those of another scheme or that cannot be read count as none."""
        try:
            return self._labels(tile if tile.scheme in self._schemes else dataclasses.replace(tile, label=None), window)
        except (TilthError, OSError):
            return np.full((window.height, window.width), IGNORE_INDEX, np.uint8)


def _confidence(sample: Sample, catalog: Catalog, row: int) -> NDArray[np.uint8]:
    """Read how sure the maker of the label was; a tile of which nobody said counts in full."""
    place = confidence_place(catalog, row)
    if place is None:
        return np.full(sample.mask.shape, FULL, np.uint8)
    uri, whole = place
    return read_confidence(uri, _part(whole, sample.geometry))


def _part(whole: Window, geometry: WeakGeometry) -> Window:
    """The pixels of a tile that the crop depends on, counted in the raster that the tile is a window of."""
    part = geometry.window
    return Window(whole.column + part.column, whole.row + part.row, part.width, part.height)
