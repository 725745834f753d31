"""A catalog at a glance: numbers, and a sheet of tiles with their labels."""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilth.catalog.confidence import FULL, UNKNOWN, confidence_place, read_confidence
from tilth.catalog.summary import format_summary, summarise
from tilth.catalog.table import Catalog, Tile
from tilth.classes import IGNORE_INDEX, ClassScheme
from tilth.errors import CatalogError, DataError, MissingFileError, needs_extra
from tilth.imagery.picture import NO_DATA_GREY, overlay, to_rgb
from tilth.imagery.read import read_label, read_pixels
from tilth.imagery.write import atomic_path
from tilth.seeds import derive

__all__ = ["contact_sheet", "format_summary", "summarise"]

# All lengths of a sheet are pixels; 100 of them are an inch, which fixes how large points of type are.
_DPI = 100
_CELL = 240
_GAP = 4
_MARGIN = 16
_CAPTION = 34
_HEAD = 44
_LINE = 24
_ENTRY = 150
_MAX_WIDTH = 2032


@dataclass(frozen=True)
class _Cell:
    """A tile as drawn: its picture, beside it the picture under the label, and the confidence of that, and two lines of text.

    Attributes:
        pictures: uint8 (h, w, 3), one to three, h and w up to ``_CELL``; none when the files cannot be read.
        caption: two lines.
        problem: why there is no picture, or empty.
    """

    pictures: tuple[NDArray[np.uint8], ...]
    caption: str
    problem: str = ""

    @property
    def height(self) -> int:
        return max((picture.shape[0] for picture in self.pictures), default=_CELL // 2)


def contact_sheet(catalog: Catalog, out_png: str | Path, *, count: int = 24, seed: int = 0) -> Path:
    """Draw tiles of a catalog on one sheet: the image, the image under its label, how sure its maker was, and a legend of classes.

    Colours run from the sensor's ``low`` to its ``high``, so a sheet shows what training sees: a dark sheet means a wrong sensor or
    scale. Pixels without data are grey. Confidence, where the catalog has it, is black for none and white for certainty.

    Args:
        catalog: tiles of any sensors and schemes.
        out_png: where to write.
        count: tiles shown at most; drawn by turns from each split and label kind, shown in catalog order.
        seed: another seed shows other tiles.

    Returns:
        The path written.

    Raises:
        CatalogError: the catalog is empty.
    """
    chosen = _choose(catalog, count, seed)
    tiles = [catalog.tile(index) for index in chosen]
    cells = [_cell(catalog, tile, index) for tile, index in zip(tiles, chosen, strict=True)]
    paired = any(tile.label is not None for tile in tiles)
    beside = max(1 + paired, *(len(cell.pictures) for cell in cells))
    across, least = (number * (_CELL + _GAP) - _GAP + _MARGIN for number in (beside, min(beside, 2)))
    columns = min((_MAX_WIDTH - _MARGIN) // across, len(cells))
    width = max(columns * across + _MARGIN, 3 * least)
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    schemes = [catalog.schemes[name] for name in dict.fromkeys(tile.scheme for tile in tiles) if name is not None]
    entries = max(1, (width - 2 * _MARGIN) // _ENTRY)
    legend = sum((1 + math.ceil(len(scheme) / entries)) * _LINE + _MARGIN // 2 for scheme in schemes)
    height = _HEAD + sum(_CAPTION + max(cell.height for cell in row) + _MARGIN for row in rows) + legend + _MARGIN // 2
    sheet = _Sheet(width, height)
    sheet.write(_MARGIN, _HEAD / 2, _headline(catalog, len(cells)), size=11, weight="bold", va="center")
    top = _HEAD
    for row in rows:
        for place, cell in enumerate(row):
            _draw_cell(sheet, cell, _MARGIN + place * across, top, paired)
        top += _CAPTION + max(cell.height for cell in row) + _MARGIN
    for scheme in schemes:
        top = _draw_legend(sheet, scheme, top, entries)
    return sheet.save(out_png)


class _Sheet:
    """A white picture that is written to in pixels from its upper left corner."""

    def __init__(self, width: int, height: int) -> None:
        with needs_extra("report", "contact sheets"):
            from matplotlib.figure import Figure

        self.height = height
        self.width = width
        self.figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")

    def write(self, left: float, top: float, text: str, size: float, **style: Any) -> None:
        self.figure.text(left / self.width, 1 - top / self.height, text, fontsize=size, **{"va": "top", **style})

    def paste(self, picture: NDArray[np.uint8], left: int, top: int) -> None:
        # Not resampled, so that label borders stay sharp.
        self.figure.figimage(picture, left, self.height - top - picture.shape[0], origin="upper")

    def save(self, path: str | Path) -> Path:
        with needs_extra("report", "contact sheets"):
            from matplotlib.backends.backend_agg import FigureCanvasAgg

        FigureCanvasAgg(self.figure)
        with atomic_path(path) as temporary:
            self.figure.savefig(temporary, format="png", dpi=_DPI, pil_kwargs={"compress_level": 3})
        return Path(path)


def _choose(catalog: Catalog, count: int, seed: int) -> list[int]:
    """Draw tiles by turns from each split and label kind; catalog order within the result."""
    if not len(catalog):
        raise CatalogError("contact sheet: the catalog is empty")
    groups: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for index, tile in enumerate(catalog.tiles()):
        groups.setdefault((tile.split or "", tile.label_kind), []).append((derive(seed, "contact sheet", tile.tile_id), index))
    queues = [sorted(members) for _, members in sorted(groups.items())]
    chosen: list[int] = []
    while len(chosen) < min(count, len(catalog)):
        for queue in queues:
            if queue and len(chosen) < count:
                chosen.append(queue.pop(0)[1])
    return sorted(chosen)


def _headline(catalog: Catalog, shown: int) -> str:
    splits = ", ".join(f"{name or 'none'} {count}" for name, count in catalog.counts("split").items())
    return f"{shown} of {len(catalog)} tiles    split: {splits}    sensor: {', '.join(catalog.counts('sensor'))}"


def _cell(catalog: Catalog, tile: Tile, row: int) -> _Cell:
    name = tile.tile_id if len(tile.tile_id) <= 40 else f"...{tile.tile_id[-37:]}"
    kind = "" if tile.label_kind == "none" else f", {tile.label_kind}"
    caption = f"{name}\n{tile.split or 'no split'}{kind}, {tile.window.width} x {tile.window.height} px"
    try:
        return _Cell(_pictures(catalog, tile, row), caption)
    except (DataError, MissingFileError) as error:
        return _Cell((), caption, str(error))


def _pictures(catalog: Catalog, tile: Tile, row: int) -> tuple[NDArray[np.uint8], ...]:
    """Picture of a tile, of its label over it, and of the label's confidence, fitted into a cell."""
    from PIL import Image

    pixels = read_pixels(tile.image, tile.window)
    picture = to_rgb(pixels.data, pixels.valid, catalog.sensors[tile.sensor])
    scale = _CELL / max(picture.shape[:2])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    smooth = Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST
    small = np.asarray(Image.fromarray(picture).resize(size, smooth))
    if tile.label is None or tile.scheme is None:
        return (small,)
    label = np.asarray(Image.fromarray(read_label(tile.label, tile.window)).resize(size, Image.Resampling.NEAREST))
    pictures = small, overlay(small, label, catalog.schemes[tile.scheme], opacity=0.6)
    place = confidence_place(catalog, row)
    if place is None:
        return pictures
    percents = np.asarray(Image.fromarray(read_confidence(*place)).resize(size, Image.Resampling.NEAREST))
    grey = np.where(percents == UNKNOWN, NO_DATA_GREY, percents.astype(np.uint16) * 255 // FULL).astype(np.uint8)
    return *pictures, grey[..., None].repeat(3, axis=2)


def _draw_cell(sheet: _Sheet, cell: _Cell, left: int, top: int, paired: bool) -> None:
    sheet.write(left, top + 3, cell.caption, size=7.5, linespacing=1.25)
    top += _CAPTION
    for picture in cell.pictures:
        sheet.paste(picture, left, top)
        left += picture.shape[1] + _GAP
    if cell.problem:
        sheet.write(left, top, "\n".join(textwrap.wrap(cell.problem, 38)[:7]), size=7.5, color="#b00020")
    elif paired and len(cell.pictures) == 1:
        sheet.write(left + _GAP, top, "no label", size=7.5, color="#777777")


def _draw_legend(sheet: _Sheet, scheme: ClassScheme, top: int, entries: int) -> int:
    """Draw the classes of a scheme; returns where the next legend begins."""
    sheet.write(_MARGIN, top + _LINE / 2, f"{scheme.name}: pixels of value {IGNORE_INDEX} show the image alone", size=8.5, va="center")
    for place, item in enumerate(scheme.classes):
        left, middle = _MARGIN + place % entries * _ENTRY, top + _LINE * (1 + place // entries)
        patch = np.full((14, 22, 3), 90, dtype=np.uint8)
        patch[1:-1, 1:-1] = item.colour
        sheet.paste(patch, left, middle + 5)
        sheet.write(left + 28, middle + 12, textwrap.shorten(item.name, 20, placeholder="..."), size=8.5, va="center")
    return top + (1 + math.ceil(len(scheme) / entries)) * _LINE + _MARGIN // 2
