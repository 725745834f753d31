"""Class maps in: what the values of a GeoTIFF of class ids mean, as the file itself says."""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tilth.classes import IGNORE_INDEX, Colour
from tilth.errors import DataError
from tilth.imagery.gdal import rasterio_module
from tilth.imagery.raster import RasterInfo, Window
from tilth.imagery.read import read_info, read_pixels

_ROWS = 512
"""Read at once."""


@dataclass(frozen=True)
class ClassMap:
    """Header of a class map.

    Attributes:
        info: size, CRS, transform.
        names: class name by id, for the ids that the file names; empty where it names none.
        colours: 8-bit RGB by id, from the colour table; empty without one.
        nodata: the id that means "no data"; 255 where the file names none.
        tags: every text the file carries, by name.
    """

    info: RasterInfo
    names: dict[int, str]
    colours: dict[int, Colour]
    nodata: int
    tags: dict[str, str]

    def name(self, value: int) -> str:
        """Return the name of a class, or ``class 7`` where the file names none."""
        return self.names.get(value, f"class {value}")


def read_class_map(uri: str) -> ClassMap:
    """Read the header of a map: one band of uint8 class ids.

    Class names are taken from the tag ``CLASS_NAMES``: a JSON list, ``{id: name}``, or words between commas.

    Args:
        uri: GeoTIFF as tilth predicts it, or any single-band 8-bit raster.

    Raises:
        MissingFileError: no such file.
        UnreadableFileError: it cannot be read.
        DataError: it is not one band of uint8.
    """
    info = read_info(uri)
    if info.count != 1 or info.dtype != "uint8":
        raise DataError(f"{uri}: expected a map, one band of 8-bit class ids; found {info.count} of {info.dtype}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio_module().errors.NotGeoreferencedWarning)
        dataset = rasterio_module().open(uri)
    with dataset:
        tags: dict[str, str] = dataset.tags(1) | dataset.tags()
        try:
            table = dataset.colormap(1)
        except ValueError:
            table = {}
    nodata = IGNORE_INDEX if info.nodata is None or not 0 <= info.nodata <= IGNORE_INDEX else int(info.nodata)
    colours = {value: (entry[0], entry[1], entry[2]) for value, entry in table.items()}
    return ClassMap(info, class_names(tags.get("CLASS_NAMES", "")), colours, nodata, tags)


def refuse_hidden_class(found: ClassMap) -> None:
    """Refuse a map that has another value than 255 for "no data" and pixels of 255: read as labels, those would be no data, too.

    Args:
        found: its header.

    Raises:
        DataError: how many pixels, and what to do.
    """
    info = found.info
    if found.nodata == IGNORE_INDEX:
        return
    hidden = 0
    for row in range(0, info.height, _ROWS):
        window = Window(0, row, info.width, min(_ROWS, info.height - row))
        pixels = read_pixels(info.uri, window)
        hidden += int(((pixels.data[0] == IGNORE_INDEX) & pixels.valid).sum())
    if hidden:
        raise DataError(
            f"{info.uri}: {hidden:,} pixels hold 255, yet no data is {found.nodata} there; 255 stands for no data here: give that class "
            "another id, or, if it is no class, make it no data, too"
        )


def class_names(text: str) -> dict[int, str]:
    """Read the text of a tag ``CLASS_NAMES``.

    Example:
        >>> class_names('["land", "water"]'), class_names("{3: 'ice'}"), class_names("")
        ({0: 'land', 1: 'water'}, {3: 'ice'}, {})
    """
    if not text:
        return {}
    tree: Any
    try:
        tree = json.loads(text)
    except ValueError:
        try:
            tree = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            tree = [part.strip() for part in text.split(",")]
    if isinstance(tree, Mapping):
        # Any program may write a tag of that name; keys that are no ids name no class.
        return {int(key): str(value) for key, value in tree.items() if str(key).isdecimal()}
    return dict(enumerate(map(str, tree))) if isinstance(tree, list | tuple) else {}
