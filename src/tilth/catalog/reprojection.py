"""Shapes brought into the CRS of an image: only the part near it, and with edges that bend as the projection bends them.

Moving nothing but the vertices draws long edges off their course by many pixels, and loses shapes that reach to where the CRS of the
image ends.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilth.errors import DataError
from tilth.imagery.grid import map_position, pixel_position, short_crs
from tilth.imagery.read import RasterInfo

_STEPS = 33
"""Points looked at along each side of an image."""

_MARGIN = 0.05
"""Part of an image's extent by which shapes are taken beyond it, for what lies between the points looked at."""

_CHORD_PX = 0.05
"""How far the middle of an edge may lie off its course, in pixels of the image."""

_LONGEST, _SHORTEST = 2**-5, 2**-14
"""Longest and shortest piece that edges are cut into, as a part of the extent; whole turns around the globe would seem to go nowhere."""

_TURN = 360.0

Bounds = tuple[float, float, float, float]


def shapes_near(shapes: NDArray[np.object_], tree: Any, crs: Any, image: RasterInfo, source: str) -> tuple[NDArray[np.object_], Any]:
    """Bring what lies near an image into its CRS.

    Longitudes that differ by whole turns mean the same place.

    Args:
        shapes: (N,) polygons and multipolygons.
        tree: ``shapely.STRtree`` over them.
        crs: theirs, as geopandas knows it.
        image: header with CRS and geotransform.
        source: what they come from, for messages.

    Returns:
        (M,) shapes in the CRS of the image, where they are cut off somewhat outside of it; and their positions int64 (M,) in ``shapes``,
        in ascending order. A shape may come in several pieces.

    Raises:
        DataError: there is no way from one CRS to the other, or a shape lies partly where the CRS of the image has no place.
    """
    import shapely
    from pyproj import Transformer
    from pyproj.exceptions import ProjError

    assert image.crs is not None
    try:
        there = Transformer.from_crs(crs, image.crs, always_xy=True)
        back = Transformer.from_crs(image.crs, crs, always_xy=True)
        extents = _extents(back, image, turning=bool(crs.is_geographic))
        pieces, owners = _cut(shapes, tree, extents)
        if not len(pieces):
            return pieces, owners
        # The middle one of three turns is where the image lies.
        pieces = shapely.segmentize(pieces, _longest_edge(there, extents[len(extents) // 2], image))
        moved = shapely.transform(pieces, lambda points: np.stack(there.transform(*points.T), axis=1))
    except ProjError as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{source}: polygons cannot be brought to the CRS {short_crs(image.crs)}: {reason}") from None
    points, places = shapely.get_coordinates(moved, return_index=True)
    lost = places[~np.isfinite(points).all(axis=1)]
    if lost.size:
        raise DataError(
            f"{source}: feature {owners[lost[0]]} (counted from 0 among the polygons) reaches, near {image.uri}, to where the CRS "
            f"{short_crs(image.crs)} has no place; warp the image to a CRS made for its place"
        )
    return moved, owners


def _extents(back: Any, image: RasterInfo, *, turning: bool) -> list[Bounds]:
    """Boxes around the image, with a margin, in the CRS of the shapes."""
    assert image.transform is not None
    steps = np.linspace(-_MARGIN, 1 + _MARGIN, _STEPS)
    columns, rows = (axis.ravel() for axis in np.meshgrid(steps * image.width, steps * image.height))
    x, y = (np.asarray(axis) for axis in back.transform(*map_position(image.transform, columns, rows)))
    known = np.isfinite(x) & np.isfinite(y)
    if not known.any():
        return []
    x, y = x[known], y[known]
    if turning and np.ptp(x) > _TURN / 2:
        # Across the antimeridian, or around a pole: the narrower of both ways around the globe.
        turned = np.where(x < 0, x + _TURN, x)
        x = turned if np.ptp(turned) < np.ptp(x) else x
    margin_x, margin_y = (_MARGIN * np.ptp(axis) + 1e-9 * (1 + np.abs(axis).max()) for axis in (x, y))
    left, bottom, right, top = x.min() - margin_x, y.min() - margin_y, x.max() + margin_x, y.max() + margin_y
    if not turning:
        return [(left, bottom, right, top)]
    bottom, top = max(bottom, -_TURN / 4), min(top, _TURN / 4)
    if right - left > _TURN / 2:
        # Near a pole every longitude may be in the image, and so may the pole itself, which no point looked at need be.
        return [(-_TURN, -_TURN / 4 if bottom < 0 else bottom, _TURN, _TURN / 4 if top > 0 else top)]
    return [(left + turn, bottom, right + turn, top) for turn in (-_TURN, 0.0, _TURN)]


def _cut(shapes: NDArray[np.object_], tree: Any, extents: list[Bounds]) -> tuple[NDArray[np.object_], NDArray[np.int64]]:
    """Cut shapes to boxes; pieces without an area are left out."""
    import shapely

    pieces, owners = [np.zeros(0, dtype=object)], [np.zeros(0, dtype=np.int64)]
    for extent in extents:
        box = shapely.box(*extent)
        found = tree.query(box, predicate="intersects")
        within = shapely.contains_properly(box, shapes[found])
        # Cutting is slow, and most shapes lie inside.
        inside, across = found[within], found[~within]
        cut = shapely.intersection(shapes[across], box)
        solid = shapely.area(cut) > 0
        pieces += [shapes[inside], cut[solid]]
        owners += [inside, across[solid]]
    order = np.argsort(np.concatenate(owners), kind="stable")
    return np.concatenate(pieces)[order], np.concatenate(owners)[order]


def _longest_edge(there: Any, extent: Bounds, image: RasterInfo) -> float:
    """How long an edge may be, in the CRS of the shapes, so that its middle stays on its course: halved until it does."""
    assert image.transform is not None
    left, bottom, right, top = extent
    side = max(right - left, top - bottom)
    share = _LONGEST
    while share > _SHORTEST:
        # Edges of this length in three directions, from points all over the extent.
        starts = np.linspace(0, 1, 9)
        x, y = (axis.ravel()[:, None] for axis in np.meshgrid(left + starts * (right - left), bottom + starts * (top - bottom)))
        across, up = np.array([1.0, 0.0, 0.7]) * share * side, np.array([0.0, 1.0, 0.7]) * share * side
        inside = (x + across <= right) & (y + up <= top)
        ends = [_pixels(there, image, (x + part * across)[inside], (y + part * up)[inside]) for part in (0.0, 0.5, 1.0)]
        off = np.hypot(*(ends[1] - (ends[0] + ends[2]) / 2))
        near = _near(ends[1], image) & np.isfinite(off)
        if near.any() and off[near].max() <= _CHORD_PX:
            break
        share /= 2
    return share * side


def _pixels(there: Any, image: RasterInfo, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Column and row (2, N) of points in the CRS of the shapes."""
    assert image.transform is not None
    moved = (np.asarray(axis, dtype=np.float64) for axis in there.transform(x, y))
    return np.stack(pixel_position(image.transform, *moved))


def _near(pixels: NDArray[np.float64], image: RasterInfo) -> NDArray[np.bool_]:
    size = np.array([[image.width], [image.height]])
    with np.errstate(invalid="ignore"):
        near: NDArray[np.bool_] = np.logical_and.reduce((pixels > -0.5 * size) & (pixels < 1.5 * size))
    return near
