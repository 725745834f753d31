"""The grid of a map and its place on the Earth, as far as the page speaks of them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilth.errors import DataError, MissingFileError, UnreadableFileError
from tilth.imagery.area import Transform, row_length_m, to_degrees
from tilth.imagery.gdal import bounded_cache, rasterio_module
from tilth.reporting.viewer import Ground

NODES = 17
"""Points a side whose longitude and latitude the page carries; between them they are interpolated."""

_BAND_PIXELS = 4_000_000


@dataclass(frozen=True)
class Grid:
    """The grid of a map, and the thinner one of its pictures.

    Attributes:
        file: the map.
        width: in pixels.
        height: in pixels.
        shown: width and height of its pictures.
        place: CRS as WKT and transform; None where the map does not say where it lies.
        crs: authority code or name; None for a map without.
    """

    file: Path
    width: int
    height: int
    shown: tuple[int, int]
    place: tuple[str, Transform] | None
    crs: str | None

    @classmethod
    def of(cls, source: Any, file: Path, longest: int) -> Grid:
        """Describe an open raster whose pictures are to have at most ``longest`` pixels a side."""
        scale = min(1.0, longest / max(source.height, source.width))
        shown = max(1, round(source.width * scale)), max(1, round(source.height * scale))
        return cls(file, source.width, source.height, shown, _place(source), crs_name(source))

    @property
    def thinned(self) -> bool:
        """Whether the pictures have fewer pixels than the map."""
        return self.shown != (self.width, self.height)

    def is_that_of(self, source: Any) -> bool:
        """Whether an open raster lies on this very grid."""
        return (source.width, source.height) == (self.width, self.height) and _place(source) == self.place

    def transform(self, thin: bool) -> Transform | None:
        """From pixel of the map, or of its pictures, to coordinates of the CRS."""
        if self.place is None:
            return None
        a, b, c, d, e, f = self.place[1]
        across, down = (self.width / self.shown[0], self.height / self.shown[1]) if thin else (1.0, 1.0)
        return a * across, b * down, c, d * across, e * down, f

    def ground(self) -> Ground | None:
        """Return what the viewer needs to tell coordinates and lengths; None for a map without a place."""
        import numpy as np

        if self.place is None or self.crs is None:
            return None
        wkt, (a, b, c, d, e, f) = self.place
        columns, rows = np.meshgrid(np.linspace(0, self.width, NODES), np.linspace(0, self.height, NODES))
        found = to_degrees(a * columns + b * rows + c, d * columns + e * rows + f, wkt)
        degrees: tuple[tuple[float, ...], tuple[float, ...]] | tuple[()] = ()
        if found is not None and all(np.isfinite(part).all() for part in found):
            # A map across the antimeridian must not be interpolated around the globe.
            longitude = np.unwrap(np.unwrap(found[0], period=360, axis=0), period=360, axis=1)
            degrees = tuple(np.round(longitude.ravel(), 7).tolist()), tuple(np.round(found[1].ravel(), 7).tolist())
        pixel = max(math.hypot(a, d), 1e-12)
        return Ground(
            crs=self.crs,
            transform=(a, b, c, d, e, f),
            decimals=min(max(math.ceil(-math.log10(pixel)), 0), 8),
            metres=row_length_m(self.height / 2, self.width, *self.place),
            degrees=degrees,
            nodes=NODES if degrees else 0,
        )


@contextmanager
def opened(file: Path, what: str) -> Iterator[Any]:
    """Open a raster for the page.

    Args:
        file: to open.
        what: what it is, for messages: ``map``, ``scene``, ...

    Raises:
        MissingFileError: no such file.
        UnreadableFileError: it cannot be read, also when that shows only while it is used.
        MissingExtraError: rasterio is not installed.
    """
    rasterio = rasterio_module()
    # Not among rasterio's public errors, yet this is what GDAL's own failures while warping are.
    from rasterio._err import CPLE_BaseError

    if not file.is_file():
        raise MissingFileError(f"{file}: no such {what}; give a raster of the same ground")
    try:
        # The page itself says "none" for the coordinate system of files without a geotransform.
        with warnings.catch_warnings(), bounded_cache():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with rasterio.open(file) as source:
                if source.count < 1:
                    raise DataError(f"{file}: holds no raster band; for a container name one of its subdatasets")
                yield source
    except (rasterio.errors.RasterioError, CPLE_BaseError) as error:
        raise UnreadableFileError(f"{file}: cannot be read as a {what}: {' '.join(str(error).split())}") from None


def row_bands(height: int, width: int) -> Iterator[tuple[int, int]]:
    """Cut a raster into bands of rows that fit into memory, also as the eight bytes a pixel of counting: first row and number of rows."""
    rows = max(1, min(512, _BAND_PIXELS // max(width, 1)))
    for first in range(0, height, rows):
        yield first, min(rows, height - first)


def crs_name(source: Any) -> str | None:
    """Return the authority code of a raster's CRS, ``custom CRS`` for one without, None for a raster without CRS."""
    if not source.crs:
        return None
    authority = source.crs.to_authority()
    return f"{authority[0]}:{authority[1]}" if authority else "custom CRS"


def pixel_text(source: Any) -> str:
    """Say the size of a pixel on the map, in degrees or metres of its CRS; empty without."""
    if not source.crs:
        return ""
    if source.crs.is_geographic:
        factor, unit = 1.0, "°"
    elif source.crs.is_projected:
        factor, unit = float(source.crs.linear_units_factor[1]), "m"
    else:
        # A local grid: rasterio does not tell its unit.
        factor, unit = 1.0, "units"
    width, height = abs(source.transform.a) * factor, abs(source.transform.e) * factor
    return f"{width:.6g} × {height:.6g}\u202f{unit}"  # noqa: RUF001 - the multiplication sign is meant


def round_length(metres: float) -> float:
    """Return the largest of 1, 2 and 5 times a power of ten that is not longer."""
    power = 10.0 ** math.floor(math.log10(metres))
    return float(max(factor * power for factor in (1, 2, 5) if factor * power <= metres))


def _place(source: Any) -> tuple[str, Transform] | None:
    return (source.crs.to_wkt(), tuple(source.transform)[:6]) if source.crs and not source.transform.is_identity else None
