"""Windows and where on Earth they lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tilth.errors import needs_extra
from tilth.imagery.area import equal_area, to_degrees
from tilth.imagery.read import RasterInfo, Window

if TYPE_CHECKING:
    import pyarrow as pa

_NEED = "footprints"

# Footprints looked up or measured at once: bounds memory.
_ASKED = 1 << 16


def cut_windows(width: int, height: int, size: int, stride: int, edge: str) -> list[Window]:
    """Cover a raster with square windows, row by row.

    Args:
        width: columns of the raster, in pixels.
        height: rows of the raster, in pixels.
        size: side of the windows, in pixels.
        stride: step between windows, in pixels.
        edge: ``shift`` moves the last window of a row or column back inside, so that every pixel is covered, and shrinks windows
            to a raster that is smaller; ``spread`` does so with all of them, the steps equal but for the last and at most ``stride``;
            ``drop`` leaves out what does not fit, ``centre`` as much of it on both sides.

    Returns:
        Windows inside the raster.

    Example:
        >>> [window.column for window in cut_windows(10, 4, 4, 4, "shift")]
        [0, 4, 6]
        >>> [[window.column for window in cut_windows(10, 4, 4, 4, edge)] for edge in ("spread", "drop", "centre")]
        [[0, 3, 6], [0, 4], [1, 5]]
    """
    columns, rows = _starts(width, size, stride, edge), _starts(height, size, stride, edge)
    return [Window(column, row, min(size, width), min(size, height)) for row in rows for column in columns]


def _starts(length: int, size: int, stride: int, edge: str) -> list[int]:
    if length < size:
        return [0] if edge in ("shift", "spread") else []
    last = length - size
    if edge == "spread":
        steps = -(-last // stride)
        return sorted({min(step * -(-last // max(steps, 1)), last) for step in range(steps + 1)})
    if edge == "centre":
        return list(range(last % stride // 2, last + 1, stride))
    starts = list(range(0, last + 1, stride))
    if edge == "shift" and starts[-1] + size < length:
        starts.append(length - size)
    return starts


def footprints(infos: Sequence[RasterInfo], windows: NDArray[np.integer[Any]], owners: NDArray[np.integer[Any]]) -> list[bytes | None]:
    """Find the footprints of windows in longitude and latitude.

    Args:
        infos: headers of the rasters.
        windows: (N, 4): column, row, width, height in pixels.
        owners: (N,) position in ``infos`` of the raster each window belongs to.

    Returns:
        N WKB polygons (OGC:CRS84), beyond 180 degrees where they lie across the antimeridian; None where the raster has no place on the
        Earth or the corners have no finite position.
    """
    shapes: list[bytes | None] = [None] * len(windows)
    systems: dict[str, list[int]] = {}
    for index, owner in enumerate(owners.tolist()):
        info = infos[owner]
        if info.crs is not None and info.transform is not None:
            systems.setdefault(info.crs, []).append(index)
    if not systems:
        return shapes
    with needs_extra("geo", _NEED):
        import shapely

    for crs, members in systems.items():
        chosen = np.array(members)
        affine = np.array([infos[owner].transform for owner in owners[chosen].tolist()], dtype=np.float64)[:, :, None]
        left, top, width, height = windows[chosen].T.astype(np.float64)
        # Upper left, lower left, lower right, upper right: counter-clockwise for north-up rasters.
        column = np.stack([left, left, left + width, left + width], axis=1)
        row = np.stack([top, top + height, top + height, top], axis=1)
        x = affine[:, 0] * column + affine[:, 1] * row + affine[:, 2]
        y = affine[:, 3] * column + affine[:, 4] * row + affine[:, 5]
        corners = _unbroken(_corner_degrees(x, y, crs))
        finite = np.isfinite(corners).all(axis=(1, 2))
        for index, shape in zip(chosen[finite].tolist(), shapely.to_wkb(shapely.polygons(corners[finite])), strict=True):
            shapes[index] = shape
    return shapes


def _unbroken(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Let windows that lie across the antimeridian, where longitudes fall back from left to right, go on beyond 180 degrees.

    Taken as they are, their corners would span the globe.
    """
    longitude = corners[..., 0]
    across = (longitude[:, 3] - longitude[:, 0] < -180) | (longitude[:, 2] - longitude[:, 1] < -180)
    longitude[across] += np.where(longitude[across] < 0, 360, 0)
    return corners


def _corner_degrees(x: NDArray[np.float64], y: NDArray[np.float64], crs: str) -> NDArray[np.float64]:
    """Longitude and latitude (N, 4, 2) of corners (N, 4) in a CRS; NaN for windows without a place on the Earth."""
    degrees = to_degrees(x, y, crs)
    if degrees is not None:
        return np.stack(degrees, axis=-1)
    if len(x) == 1:
        return np.full((1, 4, 2), np.nan)
    # One point outside of the projection fails them all.
    return np.concatenate([_corner_degrees(x[index : index + 1], y[index : index + 1], crs) for index in range(len(x))])


def footprint_bounds(geometry: pa.ChunkedArray) -> NDArray[np.float64]:
    """Bounds of WKB footprints.

    Returns:
        (N, 4) west, south, east and north in degrees; NaN where there is no footprint.
    """
    with needs_extra("geo", _NEED):
        import shapely

    bounds: NDArray[np.float64] = shapely.bounds(shapely.from_wkb(geometry.to_numpy()))
    return bounds


def footprint_centres(geometry: pa.ChunkedArray) -> NDArray[np.float64]:
    """Centres of the bounds of WKB footprints.

    Returns:
        (N, 2) longitude and latitude in degrees; NaN where there is no footprint.
    """
    bounds = footprint_bounds(geometry)
    return np.stack([bounds[:, 0] + bounds[:, 2], bounds[:, 1] + bounds[:, 3]], axis=1) / 2


def overlapping_pairs(geometry: pa.ChunkedArray, groups: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Find tiles that see common ground; sharing a border does not count.

    Args:
        geometry: WKB footprints of N tiles.
        groups: int64 (N,); only pairs of different groups are looked for, and tiles of a negative group are left out. The largest group
            should have the smallest number: it is searched, not searched for.

    Returns:
        (M, 2) positions, the first smaller than the second.
    """
    with needs_extra("geo", _NEED):
        import shapely

    shapes = shapely.from_wkb(geometry.to_numpy())
    known = ~shapely.is_missing(shapes)
    places = np.flatnonzero(known if groups is None else known & (groups >= 0))
    if not places.size:
        return np.zeros((0, 2), dtype=np.int64)
    kinds = None if groups is None else groups[places]
    shapes = shapes[places]
    # Shrunk a little, so that neighbours that only touch do not meet through rounding.
    centres = shapely.get_coordinates(shapely.centroid(shapes))
    coordinates, owner = shapely.get_coordinates(shapes, return_index=True)
    shrunk = shapely.set_coordinates(shapes, centres[owner] + (coordinates - centres[owner]) * 0.998)
    tree = shapely.STRtree(shrunk)
    asked = np.arange(places.size) if kinds is None else np.flatnonzero(kinds != kinds.min())
    found = [np.zeros((0, 2), dtype=np.int64)]
    for part in np.array_split(asked, max(1, -(-asked.size // _ASKED))):
        first, second = tree.query(shrunk[part], predicate="intersects")
        first = part[first]
        # Where both sides ask, each pair comes twice.
        kept = first < second if kinds is None else (kinds[first] != kinds[second]) & ((first < second) | (kinds[second] == kinds.min()))
        pair = np.stack([first[kept], second[kept]], axis=1)
        found.append(places[np.sort(pair, axis=1)])
    return np.concatenate(found)


def footprint_areas_m2(geometry: pa.ChunkedArray) -> NDArray[np.float64]:
    """Ground that each footprint covers, in square metres: float64 (N,), NaN without a footprint."""
    with needs_extra("geo", _NEED):
        import shapely

    areas = np.full(len(geometry), np.nan)
    shapes = shapely.from_wkb(geometry.to_numpy())
    known = np.flatnonzero(~shapely.is_missing(shapes))
    for part in np.array_split(known, max(1, -(-known.size // _ASKED))):
        areas[part] = shapely.area(_on_equal_area(shapes[part]))
    return areas


def shared_areas_m2(geometry: pa.ChunkedArray, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Ground that pairs of footprints share, in square metres.

    Args:
        geometry: WKB footprints.
        pairs: (M, 2) positions of footprints that are there.

    Returns:
        float64 (M,).
    """
    with needs_extra("geo", _NEED):
        import shapely

    used, places = np.unique(pairs, return_inverse=True)
    shapes = _on_equal_area(shapely.from_wkb(geometry.take(used).to_numpy()))
    first, second = places.reshape(-1, 2).T
    areas: NDArray[np.float64] = shapely.area(shapely.intersection(shapes[first], shapes[second]))
    return areas


def _on_equal_area(shapes: Any) -> Any:
    """Project polygons in longitude and latitude so that their area is that on the ground, in square metres."""
    import shapely

    return shapely.transform(shapes, lambda degrees: np.stack(equal_area(degrees[:, 0], degrees[:, 1]), axis=1))


def covered_km2(geometry: pa.ChunkedArray) -> float:
    """Area that footprints cover together, in square kilometres; ground seen twice counts once."""
    known = geometry.drop_null()
    if not len(known):
        return 0.0
    with needs_extra("geo", _NEED):
        import shapely

    return float(shapely.union_all(_on_equal_area(shapely.from_wkb(known.to_numpy()))).area / 1e6)
