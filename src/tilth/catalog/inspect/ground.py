"""Where a group lies: ground sizes of its pixels, and images that show common ground."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tilth.errors import needs_extra
from tilth.imagery.raster import RasterInfo

_MOST = 400


@dataclass(frozen=True)
class Overlap:
    """Images that see common ground.

    Attributes:
        pairs: positions of the two images, and the share of the smaller one's ground that they have in common.
        looked: images that were compared.
    """

    pairs: tuple[tuple[int, int, float], ...]
    looked: int

    @property
    def images(self) -> int:
        """Images that share ground with another one."""
        return len({place for first, second, _ in self.pairs for place in (first, second)})


def ground_pixel_m(info: RasterInfo) -> float | None:
    """True side of a pixel on the ground, in metres; None without a place on the Earth."""
    from tilth.imagery.area import pixel_size_m

    if info.crs is None or info.transform is None:
        return None
    found = pixel_size_m(info.width, info.height, info.crs, info.transform)
    return None if found is None or not all(map(math.isfinite, found)) else math.sqrt(found[0] * found[1])


def nominal_pixel(info: RasterInfo) -> float | None:
    """Side of a pixel in units of the CRS."""
    return None if info.transform is None else math.sqrt(abs(info.transform[0] * info.transform[4] - info.transform[1] * info.transform[3]))


def common_ground(infos: Sequence[RasterInfo], least: float = 0.02) -> Overlap:
    """Find images that see common ground.

    Args:
        infos: headers; those beyond the first 400 are passed over.
        least: smallest share of the smaller image that counts.
    """
    if not any(info.crs for info in infos):
        return Overlap((), 0)
    with needs_extra("geo", "ground that images have in common"):
        import shapely

    from tilth.catalog.geometry import footprints

    looked = list(infos[:_MOST])
    windows = np.array([(0, 0, info.width, info.height) for info in looked], dtype=np.int64).reshape(-1, 4)
    shapes = shapely.from_wkb(np.array(footprints(looked, windows, np.arange(len(looked))), dtype=object))
    known = np.flatnonzero(~shapely.is_missing(shapes))
    if len(known) < 2:
        return Overlap((), len(known))
    first, second = shapely.STRtree(shapes[known]).query(shapes[known], predicate="intersects")
    first, second = known[first[first < second]], known[second[first < second]]
    areas = shapely.area(shapes)
    shares = shapely.area(shapely.intersection(shapes[first], shapes[second])) / np.minimum(areas[first], areas[second])
    kept = shares >= least
    pairs = zip(first[kept].tolist(), second[kept].tolist(), shares[kept].tolist(), strict=True)
    return Overlap(tuple((one, two, share) for one, two, share in pairs), len(known))
