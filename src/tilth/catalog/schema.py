"""What a catalog file looks like: columns, metadata, canonical bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pydantic

from tilth.classes import ClassScheme
from tilth.errors import CatalogError
from tilth.sensors import Sensor

SCHEMA_VERSION = 1
"""Raised when a reader of the old version would misunderstand the new file; added columns do not raise it."""

LABEL_KINDS = ("clean", "noisy", "pseudo", "none")
GEO_KEY = b"geo"
TILTH_KEY = b"tilth"

COLUMNS: dict[str, pa.DataType] = {
    "tile_id": pa.string(),
    "image": pa.string(),
    "window": pa.list_(pa.int32(), 4),
    "crs": pa.string(),
    "geometry": pa.binary(),
    "sensor": pa.string(),
    "datetime": pa.timestamp("us", tz="UTC"),
    "location_id": pa.string(),
    "label": pa.string(),
    "label_kind": pa.string(),
    "scheme": pa.string(),
    "split": pa.string(),
    "source": pa.string(),
    "licence": pa.string(),
}
"""The columns every catalog has, in order, with their types; other columns follow them and are kept as they are."""

REQUIRED = ("tile_id", "image", "window", "sensor", "label_kind")
URI_COLUMNS = ("image", "label")
CONFIDENCE_COLUMN = "confidence_raster"
"""Further column: how sure the maker of a label was, pixel by pixel; see ``catalog.confidence``."""
REFERENCE_COLUMN = "reference"
"""Further column: clean labels beside noisy ones, in classes of the row's scheme and in its window; looked at, never learnt from."""
FILE_COLUMNS = (*URI_COLUMNS, CONFIDENCE_COLUMN, REFERENCE_COLUMN)
"""Columns of files that are read; the last two need not be there."""
ORIGIN_COLUMN = "packed_from"
ORIGIN_WINDOW_COLUMN = "packed_from_window"
PLACE_COLUMNS = (*FILE_COLUMNS, ORIGIN_COLUMN)
"""Columns of paths that are relative on disk: what is read, and in packed catalogs where it came from; see ``catalog.origin``."""


def conform(table: pa.Table) -> pa.Table:
    """Bring a table to the catalog's columns: core columns first and cast, missing ones null, others kept behind.

    Args:
        table: at least ``tile_id``, ``image``, ``window`` and ``sensor``; a missing ``label_kind`` becomes ``none`` everywhere.

    Raises:
        CatalogError: a required column is missing or holds nulls, or a column cannot be cast.
    """
    columns: dict[str, Any] = {}
    for name, kind in COLUMNS.items():
        if name in table.column_names:
            columns[name] = cast(table[name], kind, name)
        elif name == "label_kind":
            columns[name] = pa.repeat(pa.scalar("none"), len(table))
        elif name in REQUIRED:
            raise CatalogError(f"catalog table: column {name!r} is missing; it needs {', '.join(REQUIRED)}")
        else:
            columns[name] = pa.nulls(len(table), kind)
        if name in REQUIRED and columns[name].null_count:
            raise CatalogError(f"catalog table: column {name!r} has {columns[name].null_count} empty cells; every row needs a value")
    columns.update({name: table[name] for name in table.column_names if name not in COLUMNS})
    return pa.table(columns).combine_chunks()


def cast(values: Any, kind: pa.DataType, name: str) -> Any:
    """Cast an Arrow array, saying which column failed; lists of four integers become windows."""
    if values.type == kind:
        return values
    try:
        return values.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise CatalogError(f"catalog column {name!r}: expected {kind}, found {values.type} ({' '.join(str(error).split())})") from None


def encode_metadata(table: pa.Table, sensors: Mapping[str, Sensor], schemes: Mapping[str, ClassScheme]) -> dict[bytes, bytes]:
    """Make the file metadata: ``geo`` (GeoParquet 1.1; a missing ``crs`` there means OGC:CRS84) and ``tilth``."""
    # Bytes 1 to 4 of a WKB geometry are its type; 3 is a polygon. An empty list means "types not stated".
    kinds = pc.unique(pc.binary_slice(table["geometry"].drop_null(), 0, 5)).to_pylist()
    polygons = bool(kinds) and set(kinds) <= {b"\x01\x03\0\0\0", b"\0\0\0\0\x03"}
    column = {"encoding": "WKB", "geometry_types": ["Polygon"] if polygons else []}
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    tilth = {"schema_version": SCHEMA_VERSION, **describe_meaning(sensors, schemes)}
    return {GEO_KEY: json.dumps(geo).encode(), TILTH_KEY: json.dumps(tilth).encode()}


def describe_meaning(sensors: Mapping[str, Sensor], schemes: Mapping[str, ClassScheme]) -> dict[str, Any]:
    """Write sensors and schemes as plain JSON values."""
    return {
        "sensors": {name: sensor.model_dump(mode="json") for name, sensor in sorted(sensors.items())},
        "schemes": {name: scheme.model_dump(mode="json") for name, scheme in sorted(schemes.items())},
    }


def decode_metadata(metadata: Mapping[bytes, bytes] | None, file: str) -> tuple[dict[str, Sensor], dict[str, ClassScheme]]:
    """Read sensors and schemes back.

    Raises:
        CatalogError: no or malformed ``tilth`` metadata, or a newer schema version.
    """
    if not metadata or TILTH_KEY not in metadata:
        raise CatalogError(f"{file}: a Parquet file, but not a tilth catalog (no 'tilth' metadata); make one with: tilth catalog build")
    try:
        tree = json.loads(metadata[TILTH_KEY])
        version = int(tree["schema_version"])
        if version > SCHEMA_VERSION:
            raise CatalogError(f"{file}: catalog schema {version} is newer than {SCHEMA_VERSION}, which this tilth reads; upgrade tilth")
        sensors = {name: Sensor.model_validate(value) for name, value in tree["sensors"].items()}
        schemes = {name: ClassScheme.model_validate(value) for name, value in tree["schemes"].items()}
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError, pydantic.ValidationError) as error:
        raise CatalogError(f"{file}: malformed 'tilth' metadata ({type(error).__name__}); build the catalog again") from None
    return sensors, schemes
