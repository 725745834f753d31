"""Labels on disk: one raster of class ids for each image, on its grid, and one of confidence if asked for.

An image with a place on the ground gets GeoTIFFs, any other PNGs. Pixels that no tile covers hold 255.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilth.catalog.confidence import UNKNOWN
from tilth.classes import IGNORE_INDEX, ClassScheme, Colour
from tilth.imagery.files import atomic_path
from tilth.imagery.made_from import STAMP, stamp_in
from tilth.imagery.picture import NO_DATA_GREY
from tilth.imagery.raster import RasterInfo, Window
from tilth.labelling.tile_label import TileLabel

MASKS = "masks"
CONFIDENCE = "confidence"

_UNIT = "percent, highest class probability"
_TRUST_UNIT = "percent, confidence that the given label is right"
_BLOCK = 512
"""Rows that are written at once, or a multiple of them: blocks of a GeoTIFF are then written once."""

Placed = tuple[Window, TileLabel]
_Write = Callable[[NDArray[np.uint8], int], None]


@dataclass(frozen=True)
class LabelFiles:
    """Files of one image: names below the folder, with forward slashes, and sizes in bytes.

    Attributes:
        mask: class ids; None if they are given.
        mask_bytes: size; 0 if they are given.
        sure: percents; None if not asked for.
        sure_bytes: size; 0 if not asked for.
    """

    mask: str | None
    mask_bytes: int
    sure: str | None = None
    sure_bytes: int = 0


def write_labels(
    folder: Path,
    stem: str,
    info: RasterInfo,
    placed: Iterable[Placed],
    *,
    scheme: ClassScheme,
    stamp: str,
    confidence: bool,
    given: bool = False,
) -> LabelFiles:
    """Write the label of an image, and its confidence if asked for.

    Where tiles overlap, the label of the surer one is taken, of equally sure ones the first.

    Args:
        folder: where the folders ``masks`` and ``confidence`` are.
        stem: name of the files without suffix.
        info: header of the image.
        placed: windows of the image and their labels, from the top down; not all are held at once in a GeoTIFF.
        scheme: the classes, whose colours the raster carries.
        stamp: what the files are made from.
        confidence: whether to write it.
        given: the labels are somebody's own, and only how sure one may be of them is written.

    Raises:
        UsageError: a file that was not made by tilth is in the way.
        TilthError: the place cannot be written to.
    """
    suffix = ".png" if info.transform is None else ".tif"
    mask = None if given else f"{MASKS}/{stem}{suffix}"
    sure = f"{CONFIDENCE}/{stem}{suffix}" if confidence or given else None
    unit = _TRUST_UNIT if given else _UNIT
    build = _png if info.transform is None else _geotiff
    with ExitStack() as stack:
        # The mask takes its place last.
        ids = None if mask is None else stack.enter_context(build(folder / mask, info, stamp, scheme))
        percents = None if sure is None else stack.enter_context(build(folder / sure, info, stamp, unit))
        for row, classes, confident in lay_out(placed, info.width, info.height):
            if ids is not None:
                ids(classes, row)
            if percents is not None:
                percents(confident, row)
    sizes = [0 if name is None else (folder / name).stat().st_size for name in (mask, sure)]
    return LabelFiles(mask, sizes[0], sure, sizes[1])


def lay_out(placed: Iterable[Placed], width: int, height: int) -> Iterator[tuple[int, NDArray[np.uint8], NDArray[np.uint8]]]:
    """Lay the labels of windows of one image together, row by row; where they overlap, the surer one counts, or else the first.

    Args:
        placed: windows and their labels; first rows must not decrease.
        width: of the image in pixels.
        height: of the image in pixels.

    Yields:
        First row, classes and percents uint8 (h, width): together every row once, 255 where no tile is.
    """
    top = 0
    layers = _rows(0, width)
    for window, label in placed:
        ready = min(window.row, height) // _BLOCK * _BLOCK
        while top < ready:
            layers, block = _split(layers, min(max(layers.shape[1] // _BLOCK, 1) * _BLOCK, ready - top))
            yield top, block[0], block[1]
            top += block.shape[1]
        missing = window.row + window.height - top - layers.shape[1]
        if missing > 0:
            layers = np.concatenate([layers, _rows(missing, width)], axis=1)
        rows, columns = slice(window.row - top, window.row - top + window.height), slice(window.column, window.column + window.width)
        classes, percents = layers[:, rows, columns]
        better = (label.percents != UNKNOWN) & ((percents == UNKNOWN) | (label.percents > percents))
        classes[better], percents[better] = label.classes[better], label.percents[better]
    while top < height:
        layers, block = _split(layers, min(max(layers.shape[1] // _BLOCK, 1) * _BLOCK, height - top))
        yield top, block[0], block[1]
        top += block.shape[1]


def _rows(count: int, width: int) -> NDArray[np.uint8]:
    """Rows that no tile covers: classes and percents, uint8 (2, count, width)."""
    assert IGNORE_INDEX == UNKNOWN, "one number means nothing in both"
    return np.full((2, count, width), UNKNOWN, np.uint8)


def _split(layers: NDArray[np.uint8], count: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Take the first rows off: what is left, and these, filled up where there are fewer."""
    taken = layers[:, :count]
    if taken.shape[1] < count:
        taken = np.concatenate([taken, _rows(count - taken.shape[1], layers.shape[2])], axis=1)
    return layers[:, count:], taken


@contextmanager
def _png(target: Path, info: RasterInfo, stamp: str, meaning: ClassScheme | str) -> Iterator[_Write]:
    """Build a PNG: ids with a palette of colours, or in grey what has a unit. It is held whole, as the image was when it was read."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    stamp_in(target)
    whole = np.full((info.height, info.width), IGNORE_INDEX, np.uint8)

    def write(rows: NDArray[np.uint8], first: int) -> None:
        whole[first : first + len(rows)] = rows

    yield write
    picture, text = Image.fromarray(whole), PngInfo()
    text.add_text(STAMP, stamp)
    if isinstance(meaning, str):
        text.add_text("UNIT", meaning)
    else:
        picture.putpalette(bytes(value for colour in _palette(meaning) for value in colour))
    with atomic_path(target) as temporary:
        picture.save(temporary, format="PNG", pnginfo=text)


@contextmanager
def _geotiff(target: Path, info: RasterInfo, stamp: str, meaning: ClassScheme | str) -> Iterator[_Write]:
    """Build a GeoTIFF on the grid of the image. Class names are tags, for a sidecar would double the number of files."""
    from tilth.imagery.geotiff import Legend, class_tags, raster_file

    stamp_in(target)
    colours = () if isinstance(meaning, str) else meaning.colours
    tags = {"UNIT": meaning} if isinstance(meaning, str) else class_tags(meaning.names)
    legend = Legend(colours=colours, tags={**tags, STAMP: stamp}, nodata=IGNORE_INDEX)
    grid: dict[str, Any] = {"width": info.width, "height": info.height, "crs": info.crs, "transform": info.transform}
    with raster_file(target, count=1, dtype="uint8", legend=legend, **grid) as write:
        yield lambda rows, first: write(rows, 0, first)


def _palette(scheme: ClassScheme) -> list[Colour]:
    """Colours of all 256 numbers; grey for what is no class."""
    grey: Colour = (NO_DATA_GREY, NO_DATA_GREY, NO_DATA_GREY)
    return [*scheme.colours, *([grey] * (IGNORE_INDEX + 1 - len(scheme)))]
