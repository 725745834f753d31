"""Tables of other programs as Arrow tables: Parquet, CSV, split lists, and vector files with a footprint a row."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tilth.catalog.split_lists import LIST_SUFFIX, read_list
from tilth.errors import DataError, MissingFileError, UnreadableFileError, UsageError, needs_extra

TABLE_SUFFIXES = (".parquet", ".csv", LIST_SUFFIX, ".gpkg", ".geojson", ".json", ".shp", ".fgb")

_DEGREES = "OGC:CRS84"


def read_table(path: str | Path, texts: Collection[str] = ()) -> pa.Table:
    """Read a table; footprints become WKB in longitude and latitude, in the column ``geometry``.

    Args:
        path: ``.parquet``, ``.csv`` (empty cells are null; a column ``geometry`` holds WKT in longitude and latitude), a split list
            (``.txt``), or a vector file with one layer.
        texts: columns of a CSV that are text, though all their cells look like numbers: 0001 is not 1.

    Raises:
        MissingFileError: no such file.
        UsageError: another suffix.
        UnreadableFileError: the file is not what its suffix says.
        DataError: an empty table, a column twice, several layers, or footprints without a CRS.
        MissingExtraError: footprints need libraries that are not installed.
    """
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        raise UsageError(f"{file}: a table ends in {', '.join(TABLE_SUFFIXES)}; for folders of imagery use: tilth catalog build")
    if not file.is_file():
        raise MissingFileError(f"{file}: no such table")
    try:
        table = _csv(file, texts) if suffix == ".csv" else _READERS.get(suffix, _vector)(file)
    except DataError:
        raise
    # The errors of GDAL's drivers are RuntimeErrors.
    except (pa.ArrowException, OSError, RuntimeError, ValueError) as error:
        raise UnreadableFileError(f"{file}: cannot be read as a table: {' '.join(str(error).split())[:200]}") from None
    if not table.num_rows:
        raise DataError(f"{file}: holds no row")
    twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if twice:
        raise DataError(f"{file}: has the column {twice[0]!r} {table.column_names.count(twice[0])} times; name each column differently")
    return table


def _parquet(file: Path) -> pa.Table:
    import pyarrow.parquet as pq

    # A file object, so that a folder name such as year=2020 does not become a column.
    table = pq.ParquetFile(file).read()
    geo = json.loads((table.schema.metadata or {}).get(b"geo", b"{}"))
    name = geo.get("primary_column")
    crs = geo.get("columns", {}).get(name, {}).get("crs", _DEGREES)
    table = table.replace_schema_metadata(None)
    if name is None or name not in table.column_names:
        return table
    return _with_footprints(table, name, table[name], json.dumps(crs) if isinstance(crs, dict) else crs, file)


def _csv(file: Path, texts: Collection[str]) -> pa.Table:
    from pyarrow import csv

    options = csv.ConvertOptions(
        column_types=dict.fromkeys(texts, pa.string()),
        strings_can_be_null=True,
        quoted_strings_can_be_null=True,
        null_values=["", "NA", "NaN", "nan", "null", "NULL"],
    )
    table = csv.read_csv(file, convert_options=options)
    if "geometry" in table.column_names and pa.types.is_string(table["geometry"].type):
        with needs_extra("geo", "footprints"):
            import shapely
        try:
            shapes = shapely.to_wkb(shapely.from_wkt(table["geometry"].to_numpy()))
        except shapely.errors.GEOSException as error:
            raise DataError(f"{file}: column geometry holds no WKT: {' '.join(str(error).split())[:100]}") from None
        table = table.set_column(table.column_names.index("geometry"), "geometry", pa.array(shapes, pa.binary()))
    return table


def _vector(file: Path) -> pa.Table:
    with needs_extra("geo", "tables with footprints"):
        import geopandas
    layers = geopandas.list_layers(file)["name"].tolist()
    if len(layers) != 1:
        raise DataError(f"{file}: holds {len(layers)} layers ({', '.join(layers[:5])}); save the one of the images as a file of its own")
    frame = geopandas.read_file(file, use_arrow=False)
    if not isinstance(frame, geopandas.GeoDataFrame):
        return pa.Table.from_pandas(frame, preserve_index=False)
    name = frame.geometry.name
    shapes = pa.chunked_array([pa.array(frame.geometry.to_wkb().tolist(), pa.binary())])
    table = pa.Table.from_pandas(frame.drop(columns=name), preserve_index=False).replace_schema_metadata(None)
    return _with_footprints(table, name, shapes, None if frame.crs is None else frame.crs.to_wkt(), file)


def _with_footprints(table: pa.Table, name: str, shapes: pa.ChunkedArray, crs: Any, file: Path) -> pa.Table:
    """Put footprints into the column ``geometry``, in longitude and latitude."""
    if crs is None and pc.count(shapes).as_py():
        raise DataError(f"{file}: the footprints have no CRS; assign one")
    if name in table.column_names:
        table = table.drop_columns([name])
    if crs not in (None, _DEGREES):
        with needs_extra("geo", "footprints"):
            import geopandas

        series = geopandas.GeoSeries.from_wkb(shapes.to_numpy(), crs=crs).to_crs(_DEGREES)
        shapes = pa.chunked_array([pa.array(series.to_wkb().tolist(), pa.binary())])
    return table.append_column("geometry", shapes.cast(pa.binary()))


_READERS: dict[str, Callable[[Path], pa.Table]] = {".parquet": _parquet, LIST_SUFFIX: read_list}
