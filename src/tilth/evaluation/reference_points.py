"""Reference points in: where they are on a map, and what an interpreter saw there."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilth.errors import DataError, MissingFileError, UnreadableFileError, needs_extra, suggest

_PLACES = (("x", "y"), ("longitude", "latitude"), ("lon", "lat"))
"""Columns that place a row of a CSV: in the CRS of the map, or in degrees."""


@dataclass(frozen=True)
class ReferencePoints:
    """Points as they were read.

    Attributes:
        source: the file.
        x: float64 (n,), in ``crs``; NaN where there is no place.
        y: float64 (n,).
        crs: ``EPSG:code`` or WKT; None where it is the map's.
        reference: what was filled in, as text; empty where nothing was.
        map_class: what the map showed when the points were drawn, by name; None where the file does not say.
    """

    source: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    crs: str | None
    reference: tuple[str, ...]
    map_class: tuple[str, ...] | None


def read_points(path: str | Path, column: str = "reference") -> ReferencePoints:
    """Read points from a CSV file or from anything GeoPandas reads.

    Args:
        path: a CSV with columns x and y in the CRS of the map, or longitude and latitude in degrees; or a GeoPackage, GeoJSON or
            Shapefile of points in any CRS.
        column: holds the reference class.

    Raises:
        MissingFileError: no such file.
        UnreadableFileError: it cannot be read.
        DataError: a column is missing, a coordinate is no number, or the shapes are no points.
        MissingExtraError: geopandas is not installed and the file is no CSV.
    """
    file = Path(path)
    if not file.is_file():
        raise MissingFileError(f"{file}: no such file; give the points of tilth sample with the column {column!r} filled in")
    return _from_csv(file, column) if file.suffix.lower() == ".csv" else _from_shapes(file, column)


def pixels_of(points: ReferencePoints, crs: str | None, transform: Sequence[float] | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the pixels that points lie in.

    Args:
        points: in any CRS.
        crs: of the map.
        transform: of the map; None where its coordinates are pixels.

    Returns:
        Columns and rows, int64 (n,); they may lie outside of the map, and are -1 for a point that has no place in the CRS of the map.

    Raises:
        DataError: the points have a CRS and the map has none, or it cannot be reached from theirs.
    """
    x, y = points.x, points.y
    if points.crs is not None and crs is None:
        raise DataError(f"{points.source}: the points are in {points.crs[:40]}, the map has no CRS; give points in pixels of the map")
    if points.crs is not None and crs is not None and points.crs != crs:
        x, y = _reproject(points, crs)
    a, b, c, d, e, f = transform or (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    east, north, scale = x - c, y - f, a * e - b * d
    across, down = (e * east - b * north) / scale, (a * north - d * east) / scale
    there = np.isfinite(across) & np.isfinite(down) & (np.abs(across) < 2**40) & (np.abs(down) < 2**40)
    columns, rows = (np.where(there, np.floor(np.where(there, axis, 0.0)), -1).astype(np.int64) for axis in (across, down))
    return columns, rows


def class_ids(points: ReferencePoints, names: Mapping[int, str]) -> NDArray[np.int64]:
    """Turn what was filled in into class ids.

    Args:
        points: with references.
        names: name by class id. A reference is a name (upper and lower case are the same), or an id.

    Returns:
        int64 (n,); -1 where nothing was filled in.

    Raises:
        DataError: a reference that is no class; the nearest name is suggested.
    """
    by_name = {name.casefold(): value for value, name in sorted(names.items(), reverse=True)}
    result = np.full(len(points.reference), -1, dtype=np.int64)
    for place, text in enumerate(points.reference):
        if not text:
            continue
        found = by_name.get(text.casefold())
        # Tables turn a column of ids with gaps into 3.0.
        number = text.removesuffix(".0")
        if found is None and number.isdecimal() and int(number) in names:
            found = int(number)
        if found is None:
            times = sum(other == text for other in points.reference)
            raise DataError(
                f"{points.source}: reference {text!r} ({times} point{'' if times == 1 else 's'}) is no class of the map; "
                f"{suggest(text, names.values())}"
            )
        result[place] = found
    return result


def _from_csv(file: Path, column: str) -> ReferencePoints:
    try:
        # The mark that spreadsheets put first is no part of the first column's name.
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableFileError(f"{file}: cannot be read as CSV in UTF-8: {error}") from None
    head = text.partition("\n")[0]
    rows = list(csv.DictReader(text.splitlines(), delimiter=";" if head.count(";") > head.count(",") else ","))
    there = [name for name in (rows[0] if rows else ()) if name]
    if not rows:
        raise DataError(f"{file}: holds no point; expected a head and one row a point")
    place = next((names for names in _PLACES if set(names) <= set(there)), None)
    if place is None:
        raise DataError(f"{file}: needs columns x and y (in the CRS of the map) or longitude and latitude; found {', '.join(there)}")
    _need_column(file, column, there)
    x, y = (np.array([_number(file, index, name, row[name]) for index, row in enumerate(rows)]) for name in place)
    shown = tuple(_text(row["map_class"]) for row in rows) if "map_class" in there else None
    crs = None if place == _PLACES[0] else "EPSG:4326"
    return ReferencePoints(str(file), x, y, crs, tuple(_text(row[column]) for row in rows), shown)


def _from_shapes(file: Path, column: str) -> ReferencePoints:
    with needs_extra("geo", "points in files other than CSV"):
        import geopandas
    try:
        frame = geopandas.read_file(file)
    # The error of the library that GeoPandas reads with is a child of it.
    except RuntimeError as error:
        raise UnreadableFileError(f"{file}: cannot be read as points: {' '.join(str(error).split())}") from None
    if not len(frame) or not hasattr(frame, "geometry"):
        raise DataError(f"{file}: holds no point")
    kinds = sorted(set(frame.geometry.geom_type.dropna()) - {"Point"})
    if kinds:
        raise DataError(f"{file}: expected points, found {', '.join(kinds)}")
    _need_column(file, column, [name for name in frame.columns if name != frame.geometry.name])
    authority = None if frame.crs is None else frame.crs.to_authority()
    crs = None if frame.crs is None else ":".join(authority) if authority else frame.crs.to_wkt()
    x, y = (np.asarray(axis, dtype=np.float64) for axis in (frame.geometry.x, frame.geometry.y))
    shown = tuple(map(_text, frame["map_class"])) if "map_class" in frame.columns else None
    return ReferencePoints(str(file), x, y, crs, tuple(map(_text, frame[column])), shown)


def _need_column(file: Path, column: str, there: Sequence[str]) -> None:
    if column not in there:
        raise DataError(f"{file}: has no column {column!r} for the reference class; {suggest(column, there)}")


def _text(value: Any) -> str:
    """Text of a cell; empty for what tables take for nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)) or str(value) in ("<NA>", "nan", "None"):
        return ""
    return str(value).strip()


def _number(file: Path, index: int, name: str, value: str | None) -> float:
    try:
        return float(value) if value else math.nan
    except ValueError:
        raise DataError(f"{file}: row {index + 1}: {name} is {value!r}; expected a number with a decimal point") from None


def _reproject(points: ReferencePoints, crs: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bring points into the CRS of a map; NaN where one has no place there."""
    from rasterio._err import CPLE_BaseError  # not public, yet what an impossible projection ends in
    from rasterio.crs import CRS
    from rasterio.errors import CRSError, RasterioError
    from rasterio.warp import transform

    there = np.isfinite(points.x) & np.isfinite(points.y)
    x, y = np.full(len(there), math.nan), np.full(len(there), math.nan)
    try:
        moved = transform(CRS.from_user_input(points.crs), CRS.from_user_input(crs), points.x[there].tolist(), points.y[there].tolist())
    except (CRSError, RasterioError, CPLE_BaseError) as error:
        raise DataError(f"{points.source}: cannot be brought into the CRS of the map: {' '.join(str(error).split())}") from None
    x[there], y[there] = np.asarray(moved[0]), np.asarray(moved[1])
    return x, y
