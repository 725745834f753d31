"""What tiles show together: duplicates, classes of splits, scaling, order and constancy of bands, files that are partly empty."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tilth.catalog.check_copies import Copies
from tilth.catalog.check_tile import Outcome
from tilth.catalog.findings import Finding, make_finding
from tilth.catalog.origin import named_images
from tilth.catalog.rows import count_values, window_array
from tilth.catalog.statistics import RasterStatistics
from tilth.catalog.suspicion import order_suspicions, scale_suspicions
from tilth.catalog.table import Catalog, Tile
from tilth.errors import DataError, MissingExtraError, MissingFileError
from tilth.imagery.black_border import find_black_border
from tilth.imagery.raster import thinned_positions

MOST_EMPTY = 0.1
"""Part of an image that may be without data or black surrounding."""

LEAST_SHARE = 0.005
"""Classes with a smaller part of the labelled pixels are called rare."""

MEASURED_TILES = 256
"""Tiles of each sensor whose statistics are taken, spread evenly over the catalog."""


class Gathered:
    """Takes in what tiles are like, one after the other in the order of the catalog, and says what they show together."""

    def __init__(self, catalog: Catalog, *, near: bool) -> None:
        self._catalog = catalog
        self._copies = Copies(catalog, near=near)
        self._statistics: dict[str, list[RasterStatistics]] = {name: [] for name in catalog.sensors}
        self._constants: dict[str, list[tuple[float | None, ...]]] = {name: [] for name in catalog.sensors}
        # Per source pixels that are not valid or dark, and tiles that show nothing; of sources where there are any.
        self._filling: dict[str, list[int]] = {}
        self._classes: dict[tuple[str, str | None], NDArray[np.int64]] = {}
        self.measured = _measured_tiles(catalog)

    def take(self, index: int, tile: Tile, outcome: Outcome) -> None:
        """Take in one tile at its position in the catalog."""
        self._copies.take(index, outcome)
        if outcome.statistics is not None:
            self._statistics[tile.sensor].append(outcome.statistics)
        if self.measured[index] and outcome.constants and None in outcome.constants:
            self._constants[tile.sensor].append(outcome.constants)
        hidden = bool(outcome.constants) and None not in outcome.constants
        if outcome.invalid or outcome.dark or hidden:
            # Packed tiles of one raster lie in several shards.
            filling = self._filling.setdefault(tile.source, [0, 0, 0])
            for place, count in enumerate((outcome.invalid, outcome.dark, int(hidden))):
                filling[place] += count
        if outcome.classes is not None and tile.scheme is not None:
            key = (tile.scheme, tile.split)
            self._classes[key] = self._classes.get(key, 0) + outcome.classes

    def class_pixels(self) -> dict[str, dict[str, int]]:
        """Pixels of each class in all labels, by scheme and class name."""
        return {name: dict(zip(scheme.names, self._total(name).tolist(), strict=True)) for name, scheme in self._catalog.schemes.items()}

    def findings(self) -> Iterator[Finding]:
        """Say what tiles show together: first what concerns single tiles, in order of the catalog, then files, sensors, schemes."""
        yield from self._copies.findings()
        yield from self._part_empty()
        for name, sensor in self._catalog.sensors.items():
            for doubt in scale_suspicions(self._statistics[name], sensor):
                yield make_finding("scaling", "", "", f"values as sensor {name} scales them", doubt)
            for doubt in order_suspicions(self._statistics[name], sensor):
                yield make_finding("band order", "", "", f"bands {', '.join(sensor.band_names)} ({name})", doubt)
            yield from self._constant_bands(name)
        yield from self._class_shares()

    def _part_empty(self) -> Iterator[Finding]:
        named = named_images(self._catalog.table).combine_chunks().dictionary_encode()
        places = {name: place for place, name in enumerate(named.dictionary.to_pylist()) if name in self._filling}
        owners = named.indices.to_numpy()
        tiles = np.bincount(owners, minlength=len(named.dictionary))
        sizes = np.bincount(owners, window_array(self._catalog.table)[:, 2:].astype(np.int64).prod(axis=1), minlength=len(named.dictionary))
        for file, (invalid, dark, hidden) in self._filling.items():
            size = sizes[places[file]]
            if hidden == tiles[places[file]]:
                continue  # each of its tiles was named as empty or constant
            share, what = invalid / size, "not valid"
            if share <= MOST_EMPTY < dark / size:
                share, what = _black_share(file), "black surroundings"
            if MOST_EMPTY < share < 1:
                expected = f"an image, or nodata in at most {MOST_EMPTY:.0%} of it"
                yield make_finding("part empty", "", file, expected, f"{share:.0%} {what}")

    def _constant_bands(self, name: str) -> Iterator[Finding]:
        rows = [row for row in self._constants[name] if len(row) == len(self._catalog.sensors[name])]
        for place, values in enumerate(zip(*rows, strict=True)):
            if values[0] is not None and len(set(values)) == 1:
                band = self._catalog.sensors[name].band_names[place]
                hint = ": an alpha channel?" if values[0] in {255, 65535} else ""
                found = f"{values[0]:g} throughout, in all of {len(rows)} tiles{hint}"
                yield make_finding("constant band", "", "", f"band {place + 1} ({band}, {name}) to vary", found)

    def _class_shares(self) -> Iterator[Finding]:
        """Name classes that no label shows, that a split lacks, and that are rare; of schemes that labels follow."""
        used = self._catalog.labelled().counts("scheme")
        for name, scheme in self._catalog.schemes.items():
            if name not in used:
                continue
            total = self._total(name)
            for index in np.flatnonzero(total == 0).tolist():
                yield make_finding("class absent", "", "", f"pixels of class {index} {scheme.names[index]!r} ({name})", "none in any label")
            by_split = {split: counts for (owner, split), counts in self._classes.items() if owner == name and split and counts.any()}
            for split, counts in by_split.items():
                for index in np.flatnonzero((counts == 0) & (total > 0)).tolist():
                    others = ", ".join(f"{other!r} {by_split[other][index]:,}" for other in by_split if by_split[other][index])
                    expected = f"pixels of class {index} {scheme.names[index]!r} ({name}) in split {split!r}"
                    yield make_finding("class absent in split", "", "", expected, f"none; elsewhere: {others or 'without split'}")
            shares = total / max(1, int(total.sum()))
            for index in np.flatnonzero((shares < LEAST_SHARE) & (total > 0)).tolist():
                expected = f"at least {LEAST_SHARE:.1%} of the labelled pixels of class {index} {scheme.names[index]!r} ({name})"
                yield make_finding("rare class", "", "", expected, f"{shares[index]:.2%}: {total[index]:,} pixels")

    def _total(self, name: str) -> NDArray[np.int64]:
        total = np.zeros(len(self._catalog.schemes[name]), dtype=np.int64)
        for (owner, _), counts in self._classes.items():
            if owner == name:
                total += counts
        return total


def _measured_tiles(catalog: Catalog) -> NDArray[np.bool_]:
    """Choose the tiles whose statistics are taken: some of each sensor, evenly spread, bool (N,)."""
    result = np.zeros(len(catalog), dtype=bool)
    encoded = catalog.table["sensor"].combine_chunks().dictionary_encode().indices.to_numpy()
    for code in range(len(count_values(catalog.table["sensor"]))):
        rows = np.flatnonzero(encoded == code)
        result[rows[thinned_positions(rows.size, min(rows.size, MEASURED_TILES))]] = True
    return result


def _black_share(file: str) -> float:
    """Part of a raster that is black surrounding; 0 where that cannot be told."""
    try:
        border = find_black_border(file)
    except (DataError, MissingFileError, MissingExtraError):
        return 0.0
    return 0.0 if border is None else float(border.cells.mean())
