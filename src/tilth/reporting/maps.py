"""Reading a class map for the page: a picture, what each class covers, and where on Earth it lies."""

from __future__ import annotations

import ast
import json
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilth.errors import DataError, MissingFileError, UnreadableFileError, needs_extra
from tilth.imagery.area import Transform, row_length_m, value_areas_m2
from tilth.imagery.raster import Window
from tilth.reporting.inputs import MapInput, PathLike, Rgb
from tilth.reporting.pictures import NEUTRAL, Picture, embed, embed_file, paint, stretch

if TYPE_CHECKING:
    import numpy as np

LONGEST = 1100
_PLAIN_PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


@dataclass(frozen=True)
class MapClass:
    """What one class covers on a map: share of the pixels with data, ground in m² (None without a place on Earth)."""

    name: str
    colour: Rgb
    pixels: int
    share: float | None
    area_m2: float | None


@dataclass(frozen=True)
class MapView:
    """A map, ready to be shown.

    Attributes:
        name: as shown.
        file: file name.
        picture: in class colours, white where there is no data.
        scene: picture of the same ground, or None.
        classes: those that occur, or are named in the file.
        crs: authority code or name; None for a map without.
        pixel: size of one pixel with unit; empty without CRS.
        width: of the map, in pixels.
        height: of the map, in pixels.
        nodata_share: share of pixels without data.
        bar_metres: round length on the ground for a scale bar; None without a place on Earth.
        bar_share: its length as a share of the picture's width.
    """

    name: str
    file: str
    picture: Picture
    scene: Picture | None
    classes: tuple[MapClass, ...]
    crs: str | None
    pixel: str
    width: int
    height: int
    nodata_share: float
    bar_metres: float | None
    bar_share: float


def read_map(item: MapInput | PathLike) -> MapView:
    """Read a class map and, if named, its scene.

    The picture is thinned to at most 1100 pixels a side; shares and areas count every pixel, block by block, whatever the map's size.

    Raises:
        MissingFileError: map or scene does not exist.
        UnreadableFileError: map or scene cannot be read.
        DataError: the map is not one band of 8-bit class ids.
        MissingExtraError: rasterio is not installed.
    """
    with needs_extra("geo", "maps in a report"):
        import rasterio
        import rasterio.errors
    import numpy as np

    given = item if isinstance(item, MapInput) else MapInput(item)
    file = Path(given.path)
    if not file.is_file():
        raise MissingFileError(f"{file}: no such map; give a GeoTIFF of class ids")
    try:
        with _unplaced_is_fine(), rasterio.open(file) as source:
            if source.count < 1 or source.dtypes[0] != "uint8":
                raise DataError(f"{file}: expected 8-bit class ids in band 1, found {source.dtypes[0]}; give the class map of a prediction")
            pixels, areas = _count(source)
            small = source.read(1, out_shape=_small(source.height, source.width))
            nodata = int(source.nodata) if source.nodata is not None else 255
            names, colours = _legend(source)
            crs, pixel = _crs_name(source), _pixel_text(source)
            width, height = source.width, source.height
            place = _place(source)
            ground_m = None if place is None else row_length_m(height / 2, width, *place)
    except rasterio.errors.RasterioError as error:
        raise UnreadableFileError(f"{file}: cannot be read as a map: {error}") from None
    nodata = nodata if 0 <= nodata <= 255 else 255
    counted = int(pixels.sum() - pixels[nodata])
    present = sorted(({int(index) for index in np.nonzero(pixels)[0]} | set(names)) - {nodata})
    classes = tuple(
        MapClass(
            name=names.get(index, f"class {index}"),
            colour=colours.get(index, NEUTRAL[index % len(NEUTRAL)]),
            pixels=int(pixels[index]),
            share=int(pixels[index]) / counted if counted else None,
            area_m2=None if areas is None else float(areas[index]),
        )
        for index in present
    )
    table = [colours.get(index, NEUTRAL[index % len(NEUTRAL)]) for index in range(256)]
    bar = _round_length(ground_m / 4) if ground_m else None
    return MapView(
        name=given.name or file.stem,
        file=file.name,
        picture=embed(paint(small, table, small == nodata), "classes", LONGEST),
        scene=_read_scene(Path(given.scene)) if given.scene else None,
        classes=classes,
        crs=crs,
        pixel=pixel,
        width=width,
        height=height,
        nodata_share=1 - counted / max(int(pixels.sum()), 1),
        bar_metres=bar,
        bar_share=bar / ground_m if bar and ground_m else 0.0,
    )


@contextmanager
def _unplaced_is_fine() -> Iterator[None]:
    """Silence rasterio's warning about files without a geotransform: the page itself says "none" for their coordinate system."""
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def _count(source: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Count pixels, int64 (256,), and ground in m², float64 (256,) or None without a place on Earth, a band of rows at a time."""
    import numpy as np

    pixels, place = np.zeros(256, np.int64), _place(source)
    areas = None if place is None else np.zeros(256, np.float64)
    for first, rows in _bands(source.height, source.width):
        block = source.read(1, window=((first, first + rows), (0, source.width)))
        pixels += np.bincount(block.ravel(), minlength=256)
        if areas is not None and place is not None:
            ground = value_areas_m2(block, Window(0, first, source.width, rows), *place)
            areas = None if ground is None else areas + ground
    return pixels, areas


def _bands(height: int, width: int) -> Iterator[tuple[int, int]]:
    rows = max(1, min(512, 64_000_000 // max(width, 1)))
    for first in range(0, height, rows):
        yield first, min(rows, height - first)


def _place(source: Any) -> tuple[str, Transform] | None:
    """CRS and transform, or None where the map does not say where it lies."""
    return (source.crs.to_wkt(), tuple(source.transform)[:6]) if source.crs and not source.transform.is_identity else None


def _crs_name(source: Any) -> str | None:
    if not source.crs:
        return None
    authority = source.crs.to_authority()
    return f"{authority[0]}:{authority[1]}" if authority else "custom CRS"


def _pixel_text(source: Any) -> str:
    """Size of a pixel on the map, in degrees or metres of its CRS; empty without."""
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


def _round_length(metres: float) -> float:
    power = 10.0 ** math.floor(math.log10(metres))
    return float(max(factor * power for factor in (1, 2, 5) if factor * power <= metres))


def _small(height: int, width: int) -> tuple[int, int]:
    scale = min(1.0, LONGEST / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _legend(source: Any) -> tuple[dict[int, str], dict[int, Rgb]]:
    """Read class names (tag ``CLASS_NAMES``: a JSON list or {id: name}, or words between commas) and the colour table."""
    text = (source.tags(1) | source.tags()).get("CLASS_NAMES", "")
    try:
        tree: Any = json.loads(text) if text else []
    except ValueError:
        try:
            tree = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            tree = [part.strip() for part in text.split(",")]
    names = {int(key): str(value) for key, value in tree.items()} if isinstance(tree, Mapping) else {i: str(v) for i, v in enumerate(tree)}
    try:
        table = source.colormap(1)
    except ValueError:
        return names, {}
    # A palette always has 256 entries; those that are neither named nor drawn are fillers.
    return names, {index: (entry[0], entry[1], entry[2]) for index, entry in table.items()}


def _read_scene(file: Path) -> Picture:
    import rasterio
    import rasterio.errors

    if file.suffix.lower() in _PLAIN_PICTURES:
        return embed_file(file, "photo", LONGEST)
    if not file.is_file():
        raise MissingFileError(f"{file}: no such scene; give a GeoTIFF, PNG or JPEG of the same ground")
    try:
        with _unplaced_is_fine(), rasterio.open(file) as source:
            shape = _small(source.height, source.width)
            bands = [1, 2, 3] if source.count >= 3 else [1]
            data = source.read(bands, out_shape=(len(bands), *shape))
            valid = source.dataset_mask(out_shape=shape) > 0
    except rasterio.errors.RasterioError as error:
        raise UnreadableFileError(f"{file}: cannot be read as a scene: {error}") from None
    return embed(stretch(data, valid), "photo", LONGEST)
