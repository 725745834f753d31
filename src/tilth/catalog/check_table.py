"""What the table alone shows: splits that share pixels or ground, mixed coordinate systems and resolutions. No file is opened."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tilth.catalog.findings import Finding, make_finding
from tilth.catalog.geometry import footprint_areas_m2, overlapping_pairs, shared_areas_m2
from tilth.catalog.origin import source_images, source_windows
from tilth.catalog.overlap import crossing_windows
from tilth.catalog.rows import count_values, window_array
from tilth.catalog.table import Catalog

LEAST_SHARED = 0.01
"""Tiles of two splits may share this part of the smaller one: neighbours touch, and grids are rounded."""

MOST_FACTOR = 1.5
"""Between the ground sampling distances of images of one sensor."""

# Images whose pixel sizes differ by less belong together in a message.
_SAME_FACTOR = 1.1
_LISTED = 6
_GEOREFERENCED = (".tif", ".tiff", ".vrt", ".jp2")


def check_table(catalog: Catalog) -> list[Finding]:
    """Find what the rows of a catalog say about each other.

    Raises:
        MissingExtraError: there are footprints and shapely is not installed.
    """
    return [*_split_overlaps(catalog), *_locations(catalog), *_same_ground(catalog), *_mixed_systems(catalog), *_mixed_resolutions(catalog)]


def split_codes(catalog: Catalog) -> tuple[NDArray[np.int64], list[str]]:
    """Split of each tile as a number, the largest split first, -1 for none; and the names of the splits."""
    counts = {name: count for name, count in catalog.counts("split").items() if name}
    names = sorted(counts, key=lambda name: (-counts[name], name))
    return _codes(catalog.table["split"], names), names


def _codes(column: Any, values: list[str]) -> NDArray[np.int64]:
    """Position of each cell among values, -1 where it is none of them."""
    found: NDArray[np.int64] = pc.index_in(column, value_set=pa.array(values, type=pa.string())).fill_null(-1).to_numpy().astype(np.int64)
    return found


def _split_overlaps(catalog: Catalog) -> Iterator[Finding]:
    """Find pixels of one image that lie in tiles of two splits."""
    splits, names = split_codes(catalog)
    if len(names) < 2:
        return
    encoded = source_images(catalog.table).combine_chunks().dictionary_encode()
    images = encoded.indices.to_numpy().astype(np.int64)
    known = np.flatnonzero(splits >= 0)
    # Only images that have tiles in two splits are looked at.
    used = np.unique(images[known] * len(names) + splits[known]) // len(names)
    shared = np.zeros(len(encoded.dictionary), dtype=bool)
    shared[used[1:][used[1:] == used[:-1]]] = True
    rows = known[shared[images[known]]]
    pairs = crossing_windows(images[rows], source_windows(catalog.table).astype(np.int64)[rows], splits[rows])
    pairs = rows[pairs]
    order = np.lexsort((pairs[:, 1], pairs[:, 0], images[pairs[:, 0]]))
    pairs = pairs[order]
    # One finding a tile: the first other tile.
    first = np.append(True, pairs[1:, 0] != pairs[:-1, 0]) if len(pairs) else np.zeros(0, dtype=bool)
    for one, other in pairs[first].tolist():
        ids = catalog.table["tile_id"]
        found = f"in {names[splits[one]]!r} here, in {names[splits[other]]!r} as {ids[other].as_py()}"
        file = encoded.dictionary[int(images[one])].as_py()
        yield make_finding("split overlap", ids[one].as_py(), file, "pixels in one split only", found)


def _locations(catalog: Catalog) -> Iterator[Finding]:
    """Find places in two splits, among tiles without a footprint; of the others the ground says more."""
    splits, names = split_codes(catalog)
    encoded = catalog.table["location_id"].combine_chunks().dictionary_encode()
    places = encoded.indices.fill_null(-1).to_numpy().astype(np.int64)
    bare = np.asarray(pc.is_null(catalog.table["geometry"]))
    known = np.flatnonzero((splits >= 0) & (places >= 0) & bare)
    ids = catalog.table["tile_id"]
    # By place, the smallest split last: tiles of larger splits are the ones named, one finding a tile.
    order = known[np.lexsort((known, splits[known], places[known]))]
    for rows in np.split(order, np.flatnonzero(np.diff(places[order])) + 1) if order.size else ():
        last = int(rows[-1])
        for row in rows[splits[rows] < splits[last]].tolist():
            place = encoded.dictionary[int(places[row])].as_py()
            found = f"{place!r} in {names[splits[row]]!r} here, in {names[splits[last]]!r} as {ids[last].as_py()}"
            file = catalog.table["image"][row].as_py()
            yield make_finding("location in two splits", ids[row].as_py(), file, "a place in one split only", found)


def _same_ground(catalog: Catalog) -> Iterator[Finding]:
    """Find ground that tiles of different images show in two splits."""
    splits, names = split_codes(catalog)
    geometry = catalog.table["geometry"]
    if len(names) < 2 or geometry.null_count == len(catalog):
        return
    pairs = overlapping_pairs(geometry, splits)
    images = source_images(catalog.table).combine_chunks().dictionary_encode().indices.to_numpy()
    pairs = pairs[images[pairs[:, 0]] != images[pairs[:, 1]]]
    if not len(pairs):
        return
    shared = shared_areas_m2(geometry, pairs)
    areas = footprint_areas_m2(geometry)
    share = shared / np.maximum(np.fmin(areas[pairs[:, 0]], areas[pairs[:, 1]]), 1e-9)
    pairs, shared, share = (item[share > LEAST_SHARED] for item in (pairs, shared, share))
    # Largest split first, so the tile that would go comes first; among its partners the one with most ground.
    swap = splits[pairs[:, 0]] > splits[pairs[:, 1]]
    pairs[swap] = pairs[swap][:, ::-1]
    order = np.lexsort((pairs[:, 1], -shared, pairs[:, 0]))
    _, first, count = np.unique(pairs[order, 0], return_index=True, return_counts=True)
    ids = catalog.table["tile_id"]
    for place, others in zip(order[first].tolist(), count.tolist(), strict=True):
        one, other = pairs[place].tolist()
        more = f" (and {others - 1} more)" if others > 1 else ""
        yield make_finding(
            "same ground in two splits",
            ids[one].as_py(),
            catalog.table["image"][one].as_py(),
            "ground in one split only",
            f"{_area(shared[place])} ({share[place]:.0%} of the smaller tile) in {names[splits[one]]!r} here, "
            f"in {names[splits[other]]!r} as {ids[other].as_py()}{more}",
        )


def _area(square_metres: float) -> str:
    return f"{square_metres / 1e6:.3g} km2" if square_metres >= 1e5 else f"{square_metres:.4g} m2"


def _mixed_systems(catalog: Catalog) -> Iterator[Finding]:
    """Name several coordinate systems, and rasters that should have one and have none."""
    counts = count_values(catalog.table["crs"])
    known = {_short(name): count for name, count in counts.items() if name is not None}
    listed = [f"{name} ({count} tiles)" for name, count in sorted(known.items(), key=lambda item: (-item[1], item[0]))]
    shown = ", ".join(listed[:_LISTED]) + (f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else "")
    if known and counts.get(None):
        yield make_finding("mixed CRS", "", "", "a CRS for all rows or none", f"{shown}, none ({counts[None]} tiles)")
    elif len(known) > 1:
        yield make_finding("mixed CRS", "", "", "one CRS", shown)
    if counts.get(None):
        bare = catalog.table["image"].filter(pc.is_null(catalog.table["crs"]))
        lower = pc.utf8_lower(pc.unique(bare))
        wrong = sum(int(pc.sum(pc.ends_with(lower, pattern=suffix)).as_py() or 0) for suffix in _GEOREFERENCED)
        if wrong:
            found = f"none in {wrong} files: no footprints, no areas, splits by file instead of ground"
            yield make_finding("no CRS", "", "", "a CRS in files of formats that hold one", found)


def _short(crs: str) -> str:
    """Name a CRS in few words: WKT by what stands in its first quotes."""
    return crs if len(crs) < 20 else [*crs.split('"'), crs, crs][1][:60]


def _mixed_resolutions(catalog: Catalog) -> Iterator[Finding]:
    """Compare the ground sampling distances of the images of each sensor."""
    geometry = catalog.table["geometry"]
    if geometry.null_count == len(catalog):
        return
    windows = window_array(catalog.table).astype(np.float64)
    distance = np.sqrt(footprint_areas_m2(geometry) / (windows[:, 2] * windows[:, 3]))
    images = catalog.table["image"].combine_chunks().dictionary_encode().indices.to_numpy()
    for name in catalog.counts("sensor"):
        rows = np.flatnonzero(_codes(catalog.table["sensor"], [name]) == 0)
        rows = rows[np.isfinite(distance[rows]) & (distance[rows] > 0)]
        # One value an image: that of its first tile.
        _, first = np.unique(images[rows], return_index=True)
        values = np.sort(distance[rows[first]])
        if values.size < 2 or values[-1] <= MOST_FACTOR * values[0]:
            continue
        groups = np.split(values, np.flatnonzero(values[1:] > _SAME_FACTOR * values[:-1]) + 1)
        listed = [f"{np.median(group):.3g} m ({group.size} files)" for group in groups]
        shown = ", ".join(listed[:_LISTED]) + (f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else "")
        expected = f"pixels of one size on the ground for {name}, within a factor of {MOST_FACTOR:g}"
        yield make_finding("mixed resolution", "", "", expected, f"factor {values[-1] / values[0]:.3g}: {shown}")
