"""Look at the files of one tile: headers, pixels, label."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilth.catalog.confidence import confidence_place, read_confidence
from tilth.catalog.duplicates import pixel_digest, portrait
from tilth.catalog.findings import Finding, make_finding
from tilth.catalog.schema import REFERENCE_COLUMN
from tilth.catalog.shares import count_classes
from tilth.catalog.statistics import RasterStatistics, pixel_statistics, thin
from tilth.catalog.table import Catalog, Tile
from tilth.classes import IGNORE_INDEX, ClassScheme
from tilth.errors import DataError, MissingFileError, UnreadableFileError
from tilth.imagery.black_border import DARK
from tilth.imagery.grid import grid_difference
from tilth.imagery.packed import check_packed, is_packed
from tilth.imagery.raster import Pixels
from tilth.imagery.read import RasterInfo, read_info, read_label, read_pixels
from tilth.sensors import Sensor

STATISTICS_SIDE = 512
"""Tiles are thinned to this side, in pixels, before their statistics are taken."""

# A first look at every so many values tells most bands from constant ones.
_STRIDE = 97


@dataclass(frozen=True)
class Look:
    """What is looked at.

    Attributes:
        pixels: read pixels and labels, not only headers.
        digests: hash pixels.
        portraits: draw what near duplicates are found by.
    """

    pixels: bool = True
    digests: bool = True
    portraits: bool = True


@dataclass
class Outcome:
    """What one tile is like.

    Attributes:
        findings: what is wrong with it by itself.
        size: pixels of its window that were read; 0 when they could not be.
        invalid: how many of them are not valid.
        dark: how many are as dark as a black surrounding, in 8-bit images that do not say what is valid.
        digest: hash of its pixels; None when they were not read or do not differ.
        portrait: see :func:`tilth.catalog.duplicates.portrait`.
        statistics: taken of the tiles that were chosen for it.
        constants: stored value of each band that is one value throughout, None for others; empty when pixels were not read.
        classes: int64 (K,) pixels of each class; None without a label that could be read.
    """

    findings: list[Finding] = field(default_factory=list)
    size: int = 0
    invalid: int = 0
    dark: int = 0
    digest: bytes | None = None
    portrait: NDArray[np.int8] | None = None
    statistics: RasterStatistics | None = None
    constants: tuple[float | None, ...] = ()
    classes: NDArray[np.int64] | None = None


class TileReader:
    """Looks at tiles one after the other; the headers of the file looked at last are kept, since windows of one image follow each other."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._headers: dict[str, RasterInfo | Finding] = {}

    def examine(self, tile: Tile, sensor: Sensor, scheme: ClassScheme | None, *, measure: bool) -> Outcome:
        """Look at a tile.

        Args:
            tile: which.
            sensor: its sensor.
            scheme: scheme of its label.
            measure: take statistics of its bands, too.
        """
        outcome = Outcome()
        problems = list(self._check_headers(tile, sensor))
        outcome.findings += problems
        if self._look.pixels and not any(item.what == "size" for item in problems):
            # Other bands or another type can still be read; what is missing, damaged or of another size is not looked at again.
            closed = {item.file for item in problems if item.what not in {"bands", "type"}}
            if tile.image not in closed:
                self._check_pixels(tile, outcome, measure=measure)
            if tile.label is not None and tile.label not in closed:
                _check_label(tile, tile.label, scheme, outcome)
        return outcome

    def _header(self, uri: str, tile: Tile) -> RasterInfo | Finding:
        if uri not in self._headers:
            if len(self._headers) >= 2:
                self._headers.clear()
            try:
                self._headers[uri] = read_info(uri)
            except (DataError, MissingFileError) as error:
                self._headers[uri] = _reading_problem(error, tile, uri)
        found = self._headers[uri]
        return found if isinstance(found, RasterInfo) else make_finding(found.what, tile.tile_id, uri, found.expected, found.found)

    def _check_headers(self, tile: Tile, sensor: Sensor) -> Iterator[Finding]:
        image = self._header(tile.image, tile)
        if isinstance(image, Finding):
            yield image
        else:
            window, size = tile.window, f"{image.width} x {image.height}"
            if window.column + window.width > image.width or window.row + window.height > image.height:
                yield make_finding("size", tile.tile_id, tile.image, f"a raster that holds window {tuple(window)}", f"{size} pixels")
            if image.count != len(sensor):
                yield make_finding("bands", tile.tile_id, tile.image, f"{len(sensor)} ({sensor.name})", image.count)
            if image.dtype != sensor.dtype:
                yield make_finding("type", tile.tile_id, tile.image, f"{sensor.dtype} ({sensor.name})", image.dtype)
        if tile.label is None:
            return
        label = self._header(tile.label, tile)
        if isinstance(label, Finding):
            yield label
        elif isinstance(image, Finding):
            return
        elif (label.width, label.height) != (image.width, image.height):
            expected, found = f"{image.width} x {image.height} pixels, as {tile.image}", f"{label.width} x {label.height}"
            yield make_finding("label size", tile.tile_id, tile.label, expected, found)
        elif difference := grid_difference(image, label):
            yield make_finding("label grid", tile.tile_id, tile.label, f"the grid of {tile.image}", difference)

    def _check_pixels(self, tile: Tile, outcome: Outcome, *, measure: bool) -> None:
        try:
            if is_packed(tile.image):
                check_packed(tile.image)
            pixels = read_pixels(tile.image, tile.window)
        except (DataError, MissingFileError) as error:
            outcome.findings.append(_reading_problem(error, tile, tile.image))
            return
        info = self._header(tile.image, tile)
        assert isinstance(info, RasterInfo)
        outcome.size = pixels.valid.size
        outcome.invalid = outcome.size - int(np.count_nonzero(pixels.valid))
        if info.nodata is None and info.dtype == "uint8" and not outcome.invalid:
            outcome.dark = int(np.count_nonzero(pixels.data.max(axis=0) <= DARK))
        outcome.findings += _not_finite(tile, pixels, info)
        outcome.constants = tuple(_constant_value(band, pixels.valid) for band in pixels.data)
        if outcome.invalid == outcome.size:
            outcome.findings.append(make_finding("no data", tile.tile_id, tile.image, "at least one valid pixel", "none"))
            return
        if outcome.size > 1 and None not in outcome.constants:
            row, column = (int(axis[0]) for axis in np.nonzero(pixels.valid))
            found = f"{pixels.data[:, row, column].tolist()} throughout"
            outcome.findings.append(make_finding("constant", tile.tile_id, tile.image, "pixels that differ", found))
            return
        if self._look.digests:
            outcome.digest = pixel_digest(pixels)
        if self._look.portraits:
            outcome.portrait = portrait(pixels)
        if measure:
            outcome.statistics = pixel_statistics(thin(pixels, STATISTICS_SIDE), info)


def check_confidence(catalog: Catalog, row: int, look: Look) -> Iterator[Finding]:
    """Look at the raster that says how sure the maker of a tile's label was, if it has one.

    Args:
        catalog: any.
        row: of the tile.
        look: whether to read its pixels, too.
    """
    tile, file = catalog.tile(row), ""
    try:
        place = confidence_place(catalog, row)
        if place is None:
            return
        file = place[0]
        if look.pixels:
            read_confidence(*place)
        else:
            read_info(file)
    except (UnreadableFileError, MissingFileError) as error:
        yield _reading_problem(error, tile, file)
    except DataError as error:
        yield make_finding("confidence", tile.tile_id, file, "percents on the grid of the image", str(error).removeprefix(f"{file}: "))


def check_reference(catalog: Catalog, row: int, look: Look) -> Iterator[Finding]:
    """Look at the clean labels beside those of a tile, if there are any; trainings only count with them, and count bad ones as none.

    Args:
        catalog: any.
        row: of the tile.
        look: whether to read its pixels, too.
    """
    if REFERENCE_COLUMN not in catalog.table.column_names or (file := catalog.table[REFERENCE_COLUMN][row].as_py()) is None:
        return
    tile, found = catalog.tile(row), None
    try:
        info = read_info(file)
        # An image that cannot be read is found elsewhere.
        with suppress(DataError, MissingFileError):
            found = grid_difference(read_info(tile.image), info, "reference")
        if found is None and look.pixels and tile.scheme is not None:
            outside = count_classes(read_label(file, tile.window), catalog.schemes[tile.scheme])[1]
            found = f"value {next(iter(outside))}" if outside else None
    except (DataError, MissingFileError) as error:
        found = str(error).removeprefix(f"{file}: ")
    if found is not None:
        yield make_finding("reference", tile.tile_id, file, "class ids as in the label, on the grid of the image", found)


def _reading_problem(error: Exception, tile: Tile, uri: str) -> Finding:
    if isinstance(error, MissingFileError):
        return make_finding("missing file", tile.tile_id, uri, "a file", "nothing")
    return make_finding("unreadable", tile.tile_id, uri, "a whole, readable file", str(error).removeprefix(f"{uri}: "))


def _not_finite(tile: Tile, pixels: Pixels, info: RasterInfo) -> Iterator[Finding]:
    nan_means_no_data = info.nodata is not None and np.isnan(info.nodata)
    if pixels.data.dtype.kind == "f" and not nan_means_no_data:
        wrong = int((~np.isfinite(pixels.data)).any(axis=0).sum())
        if wrong:
            found = f"{wrong} of {pixels.valid.size} pixels NaN or infinite"
            yield make_finding("not finite", tile.tile_id, tile.image, "numbers, or NaN declared as nodata", found)


def _constant_value(band: NDArray[Any], valid: NDArray[np.bool_]) -> float | None:
    """The one value that a band (h, w) has where it is valid; None if it has several, or no pixel is valid."""
    values = band.reshape(-1) if valid.all() else band[valid]
    if not values.size or (values[::_STRIDE] != values[0]).any() or (values != values[0]).any():
        return None
    return float(values[0])


def _check_label(tile: Tile, file: str, scheme: ClassScheme | None, outcome: Outcome) -> None:
    try:
        if is_packed(file):
            check_packed(file)
        label = read_label(file, tile.window)
    except (UnreadableFileError, MissingFileError) as error:
        outcome.findings.append(_reading_problem(error, tile, file))
        return
    except DataError as error:
        found = str(error).removeprefix(f"{file}: ")
        outcome.findings.append(make_finding("label value", tile.tile_id, file, f"one band of class ids or {IGNORE_INDEX}", found))
        return
    if (label == IGNORE_INDEX).all():
        outcome.findings.append(
            make_finding("all ignored", tile.tile_id, file, "at least one labelled pixel", f"{IGNORE_INDEX} throughout")
        )
    if scheme is None:
        return
    outcome.classes, outside = count_classes(label, scheme)
    if outside:
        listed = ", ".join(f"{value} ({pixels} pixels)" for value, pixels in outside.items())
        expected = f"0 to {len(scheme) - 1} or {IGNORE_INDEX} ({scheme.name})"
        outcome.findings.append(make_finding("label value", tile.tile_id, file, expected, listed))
