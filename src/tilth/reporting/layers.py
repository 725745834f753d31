"""Reading what lies beside a map, brought onto the map's grid: imagery, reference, confidence, further maps.

Everything is read thinned to the size of the pictures, except where two layers are compared: that counts every pixel of the map, a band
of rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tilth.errors import DataError
from tilth.imagery.area import Transform
from tilth.reporting.ground import Grid, opened, row_bands
from tilth.reporting.pictures import stretch
from tilth.reporting.viewer import DIFFERENT, SAME

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

NOTHING = 255
"""Value of a pixel without class, percentage or comparison."""

_RED_GREEN_BLUE = (("red", "b04", "b4"), ("green", "b03", "b3"), ("blue", "b02", "b2"))


@dataclass(frozen=True)
class Agreement:
    """How far two layers of classes agree.

    Attributes:
        first: name of a layer.
        second: name of the other.
        pixels: pixels of the map where both have a class.
        same: those where it is the same.
    """

    first: str
    second: str
    pixels: int
    same: int


def read_scene(file: Path, grid: Grid) -> Image:
    """Read imagery as an RGB picture of the grid's size; white where there is none.

    Raises:
        MissingFileError: no such file.
        UnreadableFileError: it cannot be read.
        DataError: it does not overlap the map, or has neither place nor shape of the map.
    """
    from rasterio.enums import Resampling

    with opened(file, "scene") as source, _on_grid(source, file, "scene", grid, thin=True) as placed:
        if source.dtypes[0].startswith("complex"):
            raise DataError(f"{file}: complex numbers ({source.dtypes[0]}); give a picture of amplitude or decibels as scene")
        bands = _shown_bands(source)
        size = grid.shown[1], grid.shown[0]
        # Thinned by averaging over what a pixel of the page covers: the nearest pixel alone would flicker.
        data = placed.read(bands, out_shape=(len(bands), *size), resampling=Resampling.bilinear)
        valid = placed.dataset_mask(out_shape=size) > 0
        return stretch(data, valid)


def read_values(file: Path, grid: Grid, what: Literal["reference", "map", "confidence"]) -> np.ndarray:
    """Read class ids or percentages on the grid.

    Returns:
        uint8 (h, w) of the grid's pictures; 255 where there is none.

    Raises:
        MissingFileError: no such file.
        UnreadableFileError: it cannot be read.
        DataError: it is not 8-bit, does not overlap the map, or has neither place nor shape of the map; confidence above 100 %.
    """
    import numpy as np

    with opened(file, what) as source:
        _refuse_other_types(source, file, what)
        with _on_grid(source, file, what, grid, thin=True) as placed:
            values: np.ndarray = _values(placed, source, out_shape=(grid.shown[1], grid.shown[0]))
    if what == "confidence" and np.any((values > 100) & (values != NOTHING)):
        highest = int(values[values != NOTHING].max())
        raise DataError(f"{file}: expected percentages 0 to 100 (255 = no data), found {highest}; give the confidence of a prediction")
    return values


def agreement(first: tuple[str, Path], second: tuple[str, Path], grid: Grid) -> Agreement:
    """Count on every pixel of the map how often two layers of classes agree; each is (name, file)."""
    import numpy as np

    pixels = same = 0
    with (
        opened(first[1], "map") as one,
        opened(second[1], "map") as other,
        _on_grid(one, first[1], "map", grid, thin=False) as here,
        _on_grid(other, second[1], "map", grid, thin=False) as there,
    ):
        for row, rows in row_bands(grid.height, grid.width):
            window = ((row, row + rows), (0, grid.width))
            a, b = _values(here, one, window=window), _values(there, other, window=window)
            known = (a != NOTHING) & (b != NOTHING)
            pixels += int(np.count_nonzero(known))
            same += int(np.count_nonzero(known & (a == b)))
    return Agreement(first[0], second[0], pixels, same)


def differences(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Mark where two layers of classes, uint8 (h, w), agree and differ; 255 where one of them has no class."""
    import numpy as np

    marked = np.where(one == other, SAME, DIFFERENT).astype(np.uint8)
    marked[(one == NOTHING) | (other == NOTHING)] = NOTHING
    return marked


def names_tag(source: Any) -> str:
    """Return the text of the tag ``CLASS_NAMES``, of band or file; empty without."""
    return str((source.tags(1) | source.tags()).get("CLASS_NAMES", ""))


def _values(placed: Any, source: Any, **region: Any) -> np.ndarray:
    """Read band 1, with the raster's own nodata value turned into 255."""
    values: np.ndarray = placed.read(1, **region)
    nodata = source.nodata
    if nodata is not None and nodata != NOTHING and 0 <= nodata <= 255:
        values[values == int(nodata)] = NOTHING
    return values


@contextmanager
def _on_grid(source: Any, file: Path, what: str, grid: Grid, thin: bool) -> Iterator[Any]:
    """Give a dataset on the grid of the map or of its pictures: a warped view, or the raster itself where nobody knows its place."""
    from rasterio.enums import Resampling
    from rasterio.vrt import WarpedVRT

    transform = grid.transform(thin)
    if transform is None or not source.crs or source.transform.is_identity:
        _refuse_other_shape(source, file, what, grid)
        yield source
        return
    if grid.is_that_of(source):
        yield source
        return
    _refuse_elsewhere(source, file, what, grid)
    options: dict[str, Any]
    if what == "scene":
        options = {"resampling": Resampling.bilinear}
        flags = {flag.name for flag in source.mask_flag_enums[0]}
        # Bilinear edges would mix in the fill value, and pixels outside would look like data.
        options |= {} if flags & {"nodata", "alpha"} else {"add_alpha": True}
    else:
        nodata = NOTHING if source.nodata is None else source.nodata
        options = {"resampling": Resampling.nearest, "src_nodata": nodata, "nodata": nodata}
    width, height = grid.shown if thin else (grid.width, grid.height)
    with WarpedVRT(
        source, crs=grid.place[0] if grid.place else None, transform=_affine(transform), width=width, height=height, **options
    ) as view:
        yield view


def _affine(transform: Transform) -> Any:
    from rasterio.transform import Affine

    return Affine(*transform)


def _refuse_other_types(source: Any, file: Path, what: str) -> None:
    if source.dtypes[0] != "uint8":
        wanted = "percentages" if what == "confidence" else "class ids"
        raise DataError(f"{file}: expected 8-bit {wanted} in band 1, found {source.dtypes[0]}; give the {what} as tilth writes it")


def _refuse_other_shape(source: Any, file: Path, what: str, grid: Grid) -> None:
    """Without a place, classes must have the map's pixels, and imagery its proportions."""
    if (source.width, source.height) == (grid.width, grid.height):
        return
    alike = abs(source.width * grid.height / (source.height * grid.width) - 1) <= 0.02
    if what == "scene" and alike:
        return
    who = "it says nothing of its place" if grid.place is not None else "the map says nothing of its place"
    raise DataError(
        f"{file}: a {what} of {source.width} x {source.height} pixels does not fit {grid.file.name} of {grid.width} x {grid.height}, and "
        f"{who}; give one with coordinates, or cut to the same ground"
    )


def _refuse_elsewhere(source: Any, file: Path, what: str, grid: Grid) -> None:
    import math

    from rasterio.transform import array_bounds
    from rasterio.warp import transform_bounds

    if grid.place is None:
        return
    wkt, transform = grid.place
    left, bottom, right, top = array_bounds(grid.height, grid.width, _affine(transform))
    low_x, high_x, low_y, high_y = min(left, right), max(left, right), min(bottom, top), max(bottom, top)
    west, south, east, north = transform_bounds(source.crs, wkt, *source.bounds)
    if all(map(math.isfinite, (west, south, east, north))) and west < high_x and east > low_x and south < high_y and north > low_y:
        return
    raise DataError(
        f"{file}: the {what} does not overlap {grid.file.name}: it covers {west:.6g} to {east:.6g} and {south:.6g} to {north:.6g}, the map "
        f"{low_x:.6g} to {high_x:.6g} and {low_y:.6g} to {high_y:.6g} ({grid.crs}); give the {what} of the same ground"
    )


def _shown_bands(source: Any) -> list[int]:
    """Choose red, green and blue by their names where the file names its bands, else the first three, else the first."""
    names = [(name or "").lower() for name in source.descriptions]
    found = [next((place for place, name in enumerate(names, start=1) if name in choices), 0) for choices in _RED_GREEN_BLUE]
    if all(found):
        return found
    return [1, 2, 3] if source.count >= 3 else [1]
