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

from tilth.errors import DataError, MissingExtraError, MissingFileError, UnreadableFileError
from tilth.reporting.inputs import MapInput, PathLike, Rgb
from tilth.reporting.pictures import NEUTRAL, Picture, embed, embed_file, paint, stretch

if TYPE_CHECKING:
    import numpy as np

LONGEST = 1100
_EARTH_RADIUS_M = 6_371_007.2  # sphere of the same area as the WGS 84 ellipsoid
_PLAIN_PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


@dataclass(frozen=True)
class MapClass:
    """What one class covers on a map: share of the pixels with data, area in m² (None without CRS)."""

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
        bar_metres: round length for a scale bar; None without CRS.
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
    try:
        import rasterio
        import rasterio.errors
    except ImportError:
        raise MissingExtraError("showing a map needs rasterio; install it, or leave the map out of the report") from None
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
            crs, unit_m = _crs(source)
            step_x, step_y = abs(source.transform.a), abs(source.transform.e)
            ground_m = _ground_width(source, unit_m)
            width, height = source.width, source.height
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
            area_m2=float(areas[index]) if unit_m else None,
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
        pixel=_pixel_text(step_x, step_y, crs, unit_m),
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


def _count(source: Any) -> tuple[np.ndarray, np.ndarray]:
    """Count pixels and ground area (m²; 0 without CRS) of every id, float64 and int64 (256,), a band of rows at a time."""
    import numpy as np
    from rasterio.windows import Window

    pixels, areas = np.zeros(256, np.int64), np.zeros(256, np.float64)
    _, unit_m = _crs(source)
    for first, rows in _bands(source.height, source.width):
        block = source.read(1, window=Window(0, first, source.width, rows))
        counts = np.bincount(block.ravel(), minlength=256)
        pixels += counts
        if unit_m and source.crs.is_geographic:
            top = source.transform.f + source.transform.e * first
            areas += counts * _cell_area(top, top + source.transform.e * rows, abs(source.transform.a)) / rows
        elif unit_m:
            areas += counts * abs(source.transform.determinant) * unit_m**2
    return pixels, areas


def _bands(height: int, width: int) -> Iterator[tuple[int, int]]:
    rows = max(1, min(512, 64_000_000 // max(width, 1)))
    for first in range(0, height, rows):
        yield first, min(rows, height - first)


def _cell_area(top_deg: float, bottom_deg: float, width_deg: float) -> float:
    """Area in m² between two parallels, ``width_deg`` wide, on the sphere of equal area (within 0.5 % of the ellipsoid)."""
    height = abs(math.sin(math.radians(top_deg)) - math.sin(math.radians(bottom_deg)))
    return _EARTH_RADIUS_M**2 * math.radians(width_deg) * height


def _crs(source: Any) -> tuple[str | None, float]:
    """Return a name for the CRS and the metres in one of its units (0 without a CRS)."""
    crs = source.crs
    if not crs:
        return None, 0.0
    authority = crs.to_authority()
    name = f"{authority[0]}:{authority[1]}" if authority else "custom CRS"
    if crs.is_geographic:
        return name, math.radians(1) * _EARTH_RADIUS_M
    return name, float(crs.linear_units_factor[1])


def _ground_width(source: Any, unit_m: float) -> float:
    """Width of the map on the ground in metres, along its middle row; 0 without a CRS."""
    width = source.width * math.hypot(source.transform.a, source.transform.d) * unit_m
    if unit_m and source.crs.is_geographic:
        width *= math.cos(math.radians(source.transform.f + source.transform.e * source.height / 2))
    return float(width)


def _pixel_text(step_x: float, step_y: float, crs: str | None, unit_m: float) -> str:
    if crs is None:
        return ""
    degrees = unit_m > 1000
    factor = 1.0 if degrees else unit_m
    return f"{step_x * factor:.6g} × {step_y * factor:.6g}\u202f{'°' if degrees else 'm'}"  # noqa: RUF001 - the multiplication sign is meant


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
