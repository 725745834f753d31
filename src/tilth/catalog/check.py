"""Find what is wrong with the files of a catalog before a training does, and name it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilth.catalog.findings import CheckReport, Finding, make_finding
from tilth.catalog.rows import window_array
from tilth.catalog.shares import count_classes
from tilth.catalog.table import Catalog, Tile
from tilth.classes import IGNORE_INDEX
from tilth.errors import DataError, MissingFileError, UnreadableFileError
from tilth.imagery.read import RasterInfo, read_info, read_label, read_pixels

__all__ = ["CheckReport", "Finding", "check_catalog"]


def check_catalog(catalog: Catalog, *, pixels: bool = True, progress: Callable[[int, int], None] | None = None) -> CheckReport:
    """Look at every file of a catalog: headers always, and the pixels of every tile once.

    Args:
        catalog: what to check.
        pixels: read pixels too; without it only missing files, damaged headers, sizes, bands, types and split overlaps are found.
        progress: told (tiles done, tiles in all).

    Returns:
        The report. Nothing is raised for bad files.

    Raises:
        MissingExtraError: a format needs a library that is not installed.
    """
    headers: dict[str, RasterInfo | Finding] = {}
    counts = {name: np.zeros(len(scheme), dtype=np.int64) for name, scheme in catalog.schemes.items()}
    findings: list[Finding] = []
    for done, tile in enumerate(catalog.tiles(), start=1):
        problems = list(_check_headers(catalog, tile, headers))
        if pixels and not any(item.what == "size" for item in problems):
            # Other bands or another type can still be read; what is missing, damaged or of another size is not looked at again.
            closed = {item.file for item in problems if item.what not in {"bands", "type"}}
            if tile.image not in closed:
                problems += _check_pixels(tile, headers)
            if tile.label is not None and tile.label not in closed:
                problems += _check_label(catalog, tile, tile.label, counts)
        findings += problems
        if progress is not None:
            progress(done, len(catalog))
    findings += _split_overlaps(catalog)
    if pixels:
        findings += _absent_classes(catalog, counts)
    shares = {name: dict(zip(catalog.schemes[name].names, total.tolist(), strict=True)) for name, total in counts.items()}
    return CheckReport(len(catalog), len(headers), tuple(findings), shares if pixels else {})


def _header(uri: str, tile: Tile, headers: dict[str, RasterInfo | Finding]) -> RasterInfo | Finding:
    """Read a header once for all tiles of a file."""
    if uri not in headers:
        try:
            headers[uri] = read_info(uri)
        except (DataError, MissingFileError) as error:
            headers[uri] = _reading_problem(error, tile, uri)
    return headers[uri]


def _reading_problem(error: Exception, tile: Tile, uri: str) -> Finding:
    if isinstance(error, MissingFileError):
        return make_finding("missing file", tile.tile_id, uri, "a file", "nothing")
    return make_finding("unreadable", tile.tile_id, uri, "a whole, readable file", str(error).removeprefix(f"{uri}: "))


def _check_headers(catalog: Catalog, tile: Tile, headers: dict[str, RasterInfo | Finding]) -> Iterator[Finding]:
    image = _header(tile.image, tile, headers)
    if isinstance(image, Finding):
        yield _at(image, tile)
    else:
        sensor, window = catalog.sensors[tile.sensor], tile.window
        if window.column + window.width > image.width or window.row + window.height > image.height:
            yield make_finding(
                "size", tile.tile_id, tile.image, f"a raster that holds window {tuple(window)}", f"{image.width} x {image.height} pixels"
            )
        if image.count != len(sensor):
            yield make_finding("bands", tile.tile_id, tile.image, f"{len(sensor)} ({sensor.name})", image.count)
        if image.dtype != sensor.dtype:
            yield make_finding("type", tile.tile_id, tile.image, f"{sensor.dtype} ({sensor.name})", image.dtype)
    if tile.label is None:
        return
    label = _header(tile.label, tile, headers)
    if isinstance(label, Finding):
        yield _at(label, tile)
    elif not isinstance(image, Finding) and (label.width, label.height) != (image.width, image.height):
        yield make_finding(
            "label size",
            tile.tile_id,
            tile.label,
            f"{image.width} x {image.height} pixels, as {tile.image}",
            f"{label.width} x {label.height}",
        )


def _at(finding: Finding, tile: Tile) -> Finding:
    return Finding(finding.severity, tile.tile_id, finding.file, finding.what, finding.expected, finding.found)


def _check_pixels(tile: Tile, headers: dict[str, RasterInfo | Finding]) -> Iterator[Finding]:
    try:
        pixels = read_pixels(tile.image, tile.window)
    except (DataError, MissingFileError) as error:
        yield _reading_problem(error, tile, tile.image)
        return
    header = headers[tile.image]
    assert isinstance(header, RasterInfo)
    nan_means_no_data = header.nodata is not None and np.isnan(header.nodata)
    if pixels.data.dtype.kind == "f" and not nan_means_no_data:
        wrong = int((~np.isfinite(pixels.data)).any(axis=0).sum())
        if wrong:
            yield make_finding(
                "not finite",
                tile.tile_id,
                tile.image,
                "numbers, or NaN declared as nodata",
                f"{wrong} of {pixels.valid.size} pixels NaN or infinite",
            )
    if not pixels.valid.any():
        yield make_finding("no data", tile.tile_id, tile.image, "at least one valid pixel", "none")
    elif pixels.valid.size > 1 and _is_constant(pixels.data, pixels.valid):
        row, column = (int(axis[0]) for axis in np.nonzero(pixels.valid))
        yield make_finding("constant", tile.tile_id, tile.image, "pixels that differ", f"{pixels.data[:, row, column].tolist()} throughout")


def _is_constant(data: NDArray[Any], valid: NDArray[np.bool_]) -> bool:
    """Whether no band varies over the valid pixels of (C, h, w)."""
    for band in data:
        values = band[valid]
        if (values != values[0]).any():
            return False
    return True


def _check_label(catalog: Catalog, tile: Tile, file: str, counts: dict[str, NDArray[np.int64]]) -> Iterator[Finding]:
    try:
        label = read_label(file, tile.window)
    except (UnreadableFileError, MissingFileError) as error:
        yield _reading_problem(error, tile, file)
        return
    except DataError as error:
        yield make_finding(
            "label value", tile.tile_id, file, f"one band of class ids or {IGNORE_INDEX}", str(error).removeprefix(f"{file}: ")
        )
        return
    if (label == IGNORE_INDEX).all():
        yield make_finding("all ignored", tile.tile_id, file, "at least one labelled pixel", f"{IGNORE_INDEX} throughout")
    if tile.scheme is None:
        return
    scheme = catalog.schemes[tile.scheme]
    inside, outside = count_classes(label, scheme)
    counts[tile.scheme] += inside
    if outside:
        listed = ", ".join(f"{value} ({pixels} pixels)" for value, pixels in outside.items())
        yield make_finding("label value", tile.tile_id, file, f"0 to {len(scheme) - 1} or {IGNORE_INDEX} ({scheme.name})", listed)


def _absent_classes(catalog: Catalog, counts: dict[str, NDArray[np.int64]]) -> Iterator[Finding]:
    """Name the classes that no label shows, of schemes that labels follow."""
    used = catalog.labelled().counts("scheme")
    for name, scheme in catalog.schemes.items():
        if name in used:
            for index in np.flatnonzero(counts[name] == 0).tolist():
                yield make_finding("class absent", "", "", f"pixels of class {index} {scheme.names[index]!r} ({name})", "none in any label")


def _split_overlaps(catalog: Catalog) -> Iterator[Finding]:
    """Find pixels of one image that lie in tiles of two splits."""
    splits = np.array([name or "" for name in catalog.column("split")])
    encoded = catalog.table["image"].combine_chunks().dictionary_encode()
    images, names = encoded.indices.to_numpy(), encoded.dictionary.to_pylist()
    windows = window_array(catalog.table).astype(np.int64)
    order = np.argsort(images, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(images[order])) + 1):
        members = members[splits[members] != ""]
        if len(set(splits[members].tolist())) < 2:
            continue
        left, top, width, height = windows[members].T
        for place, index in enumerate(members.tolist()):
            across = (left < left[place] + width[place]) & (left[place] < left + width)
            down = (top < top[place] + height[place]) & (top[place] < top + height)
            other = across & down & (splits[members] != splits[index])
            other[:place] = False
            if other.any():
                second = int(members[np.argmax(other)])
                ids = catalog.table["tile_id"]
                yield make_finding(
                    "split overlap",
                    ids[index].as_py(),
                    names[images[index]],
                    "pixels in one split only",
                    f"in {splits[index]!r} here, in {splits[second]!r} as {ids[second].as_py()}",
                )
