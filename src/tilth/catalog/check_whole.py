"""What tiles show together: duplicates, classes of splits, scaling, order and constancy of bands, files that are partly empty."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tilth.catalog.check_table import split_codes
from tilth.catalog.check_tile import Outcome
from tilth.catalog.duplicates import SIDE, Portraits, near_pairs
from tilth.catalog.findings import Finding, make_finding
from tilth.catalog.rows import count_values
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
        size = len(catalog)
        self._catalog = catalog
        self._digests = np.zeros((size, 2), dtype=np.uint64)
        self._portraits = np.zeros((size if near else 0, SIDE, SIDE), dtype=np.int8)
        self._drawn = np.zeros(size, dtype=bool)
        self._statistics: dict[str, list[RasterStatistics]] = {name: [] for name in catalog.sensors}
        self._constants: dict[str, list[tuple[float | None, ...]]] = {name: [] for name in catalog.sensors}
        # Per file pixels looked at, not valid, dark, and tiles that show something.
        self._filling: dict[str, list[int]] = {}
        self._classes: dict[tuple[str, str | None], NDArray[np.int64]] = {}
        self.measured = _measured_tiles(catalog)

    def take(self, index: int, tile: Tile, outcome: Outcome) -> None:
        """Take in one tile at its position in the catalog."""
        if outcome.digest is not None:
            # All zeros stands for none; one hash in 2^128 is that.
            self._digests[index] = np.frombuffer(outcome.digest, dtype=np.uint64)
        if outcome.portrait is not None:
            self._portraits[index], self._drawn[index] = outcome.portrait, True
        if outcome.statistics is not None:
            self._statistics[tile.sensor].append(outcome.statistics)
        if self.measured[index] and outcome.constants and None in outcome.constants:
            self._constants[tile.sensor].append(outcome.constants)
        if outcome.invalid or outcome.dark or tile.image in self._filling:
            filling = self._filling.setdefault(tile.image, [0, 0, 0, 0])
            for place, count in enumerate((outcome.size, outcome.invalid, outcome.dark, int(None in outcome.constants))):
                filling[place] += count
        if outcome.classes is not None and tile.scheme is not None:
            key = (tile.scheme, tile.split)
            self._classes[key] = self._classes.get(key, 0) + outcome.classes

    def class_pixels(self) -> dict[str, dict[str, int]]:
        """Pixels of each class in all labels, by scheme and class name."""
        return {name: dict(zip(scheme.names, self._total(name).tolist(), strict=True)) for name, scheme in self._catalog.schemes.items()}

    def findings(self) -> Iterator[Finding]:
        """Say what tiles show together: first what concerns single tiles, in order of the catalog, then files, sensors, schemes."""
        yield from self._duplicates()
        yield from self._part_empty()
        for name, sensor in self._catalog.sensors.items():
            for doubt in scale_suspicions(self._statistics[name], sensor):
                yield make_finding("scaling", "", "", f"values as sensor {name} scales them", doubt)
            for doubt in order_suspicions(self._statistics[name], sensor):
                yield make_finding("band order", "", "", f"bands {', '.join(sensor.band_names)} ({name})", doubt)
            yield from self._constant_bands(name)
        yield from self._class_shares()

    def _duplicates(self) -> Iterator[Finding]:
        splits, names = split_codes(self._catalog)
        exact = _exact_losers(self._digests, splits)
        near = self._near_losers(splits, set(exact))
        ids, images = self._catalog.table["tile_id"], self._catalog.table["image"]
        for loser in sorted({*exact, *near}):
            keeper, says = exact[loser] if loser in exact else near[loser]
            kind = "duplicate" if loser in exact else "near duplicate"
            apart = splits[loser] >= 0 and splits[keeper] >= 0 and splits[loser] != splits[keeper]
            expected = f"a picture that no other tile has{', least of all in another split' if apart else ''}"
            where = f" (here {names[splits[loser]]!r}, there {names[splits[keeper]]!r})" if apart else ""
            found = f"{says} {ids[keeper].as_py()} ({images[keeper].as_py()}){where}"
            kind = f"{kind} in two splits" if apart else kind
            yield make_finding(kind, ids[loser].as_py(), images[loser].as_py(), expected, found)

    def _near_losers(self, splits: NDArray[np.int64], exact: set[int]) -> dict[int, tuple[int, str]]:
        """Tiles that nearly show the picture of another, with that one; exact duplicates are not named again."""
        tiles = np.flatnonzero(self._drawn)
        tiles = tiles[~np.isin(tiles, sorted(exact))]
        if tiles.size < 2:
            return {}
        pairs, likeness = near_pairs(Portraits(tiles, self._portraits[tiles] if tiles.size < len(self._portraits) else self._portraits))
        days = self._catalog.table["datetime"]
        result: dict[int, tuple[int, str]] = {}
        for (first, second), value in zip(pairs.tolist(), likeness.tolist(), strict=True):
            apart = splits[first] >= 0 and splits[second] >= 0 and splits[first] != splits[second]
            if not apart and None not in (days[first].as_py(), days[second].as_py()) and days[first] != days[second]:
                continue  # one place on two days, as it should be
            # The larger split has the smaller code; within a split the later tile goes.
            loser, keeper = (first, second) if apart and splits[first] < splits[second] else (second, first)
            known = result.get(loser)
            if known is None or (apart and splits[known[0]] in (splits[loser], -1)):
                result[loser] = (keeper, f"correlation {value:.3f} with")
        return result

    def _part_empty(self) -> Iterator[Finding]:
        for file, (size, invalid, dark, shown) in self._filling.items():
            if not shown:
                continue  # each of its tiles was named as empty or constant
            share, what = invalid / max(size, 1), "not valid"
            if share <= MOST_EMPTY < dark / max(size, 1):
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


def _exact_losers(digests: NDArray[np.uint64], splits: NDArray[np.int64]) -> dict[int, tuple[int, str]]:
    """Tiles whose pixels another tile has, with that one: the first tile of the smallest split among those alike stays."""
    rows = np.flatnonzero(digests.any(axis=1))
    # Alike tiles beside each other; among them the smallest split first (it has the highest code), then catalog order.
    order = rows[np.lexsort((rows, -splits[rows], digests[rows, 1], digests[rows, 0]))]
    same = np.append(False, (digests[order[1:]] == digests[order[:-1]]).all(axis=1)) if order.size else np.zeros(0, dtype=bool)
    begins = np.maximum.accumulate(np.where(same, 0, np.arange(order.size))) if order.size else order
    return {int(order[place]): (int(order[begins[place]]), "the same pixels as") for place in np.flatnonzero(same).tolist()}


def _black_share(file: str) -> float:
    """Part of a raster that is black surrounding; 0 where that cannot be told."""
    try:
        border = find_black_border(file)
    except (DataError, MissingFileError, MissingExtraError):
        return 0.0
    return 0.0 if border is None else float(border.cells.mean())
