"""From a table of images to a catalog, column by column: a million rows pass without a Python object each."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tilth.catalog import schema, uris
from tilth.catalog.discover import Problem
from tilth.catalog.import_config import NAMED_COLUMNS, WINDOW_COLUMNS, ImportConfig
from tilth.catalog.table import Catalog
from tilth.catalog.table_files import read_table
from tilth.catalog.table_headers import read_image_headers
from tilth.classes import ClassScheme, get_scheme
from tilth.errors import CatalogError, DataError, TilthWarning, UsageError, suggest
from tilth.sensors import get_sensor

Progress = Callable[[int, int], None]
"""Told (headers read, all of them)."""

_LOOKED_FOR = 10
_TEXT_COLUMNS = ("tile_id", "location_id", "split", "label_kind", "source", "licence")


def import_table(
    path: str | Path, config: ImportConfig, *, problems: list[Problem] | None = None, progress: Progress | None = None
) -> Catalog:
    """Make a catalog of a table with a row for each tile.

    Args:
        path: ``.parquet``, ``.csv``, a split list (``.txt``: image and mask a line), or a vector file of footprints.
        config: what the columns mean, and what the table does not say.
        problems: receives the files that were left out, or look wrong, with the reason; without it they end in a :class:`TilthWarning`.
        progress: told while headers are read.

    Returns:
        The catalog, rows in the order of the table, with absolute paths.

    Raises:
        MissingFileError: no such table, or no such scheme.
        UsageError: no windows, and headers are not to be read.
        DataError: a column is missing or holds something else, labels without a scheme, or tile ids that are not unique.
        SensorMismatchError: ``headers``, and images with another number of bands or another type than the sensor.
    """
    sensor = get_sensor(config.sensor)
    file = Path(path)
    table = _named_columns(read_table(file, [config.columns.get(name, name) for name in _TEXT_COLUMNS]), config, str(file))
    if not config.labels and "label" in table.column_names:
        table = table.drop_columns(["label"])
    root = Path(uris.absolute_uri(config.root)) if config.root is not None else file.absolute().parent
    written = _texts(table["image"], f"{file}: column {config.columns.get('image', 'image')!r}")
    table = _set(table, "image", uris.make_absolute(written, root))
    for name in schema.FILE_COLUMNS[1:]:
        if name in table.column_names:
            paths = _texts(table[name], f"{file}: column {config.columns.get(name, name)!r}", empty=True)
            table = _set(table, name, uris.make_absolute(paths, root))
    if "location_id" in table.column_names:
        places = schema.cast(table["location_id"], pa.string(), "location_id")
        # Rows without a place must not all be of one that has no name.
        table = _set(table, "location_id", pc.if_else(pc.equal(places, ""), pa.scalar(None, pa.string()), places))
    # Asked for first, because headers of a million images take minutes.
    scheme = _scheme(table, config, str(file))
    windows = _windows(table, config, str(file))
    left_out = _unseen(table["image"], root) if config.headers is not True and windows is not None else []
    ids = None if "tile_id" in table.column_names else _tile_ids(written, windows, config.prefix or file.stem)
    if windows is None or config.headers:
        table, windows, kept = read_image_headers(table, windows, sensor, left_out, progress)
        ids = None if ids is None else ids.take(kept)
    table = table.drop_columns([name for name in WINDOW_COLUMNS if name in table.column_names and _has_windows(table)])
    table = _set(table, "window", pa.FixedSizeListArray.from_arrays(pa.array(windows.reshape(-1)), 4))
    table = table if ids is None else _set(table, "tile_id", ids)
    table = _set(table, "sensor", pa.repeat(pa.scalar(sensor.name), table.num_rows))
    _refuse_same_ids(table, str(file))
    table = _constants(table, config, scheme)
    try:
        catalog = Catalog(table, {sensor.name: sensor}, {} if scheme is None else {scheme.name: scheme})
    except CatalogError as error:
        raise CatalogError(f"{file}: {error}") from None
    _tell(left_out, problems)
    return catalog


def _named_columns(table: pa.Table, config: ImportConfig, file: str) -> pa.Table:
    """Give columns the catalog's names, and leave out what options say."""
    for name, column in config.columns.items():
        if column not in table.column_names:
            raise DataError(f"{file}: has no column {column!r} (columns.{name}); {suggest(column, table.column_names)}")
    names = {column: name for name, column in config.columns.items()}
    # A column that has a catalog's name by chance yields to the one that was named for it.
    taken = [name for name in table.column_names if name in config.columns and name not in names]
    dropped = {*taken, *(name for name in ("sensor", "scheme") if name in table.column_names and name not in names)}
    table = table.drop_columns(sorted(dropped))
    table = table.rename_columns([names.get(name, name) for name in table.column_names])
    if "image" not in table.column_names:
        raise DataError(f"{file}: has no column 'image'; name it with columns.image=NAME; choices: {', '.join(table.column_names)}")
    for name in set(table.column_names) & set(NAMED_COLUMNS) & {"datetime"}:
        table = _set(table, name, _times(table[name], f"{file}: column {config.columns.get(name, name)!r}"))
    return table


def _texts(column: Any, source: str, *, empty: bool = False) -> pa.ChunkedArray:
    """Read a column as text.

    Raises:
        DataError: it holds something else, or empty cells that may not be.
    """
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or pa.types.is_null(column.type)):
        if not pa.types.is_dictionary(column.type):
            raise DataError(f"{source} holds {column.type}, expected paths")
        column = column.cast(column.type.value_type)
    column = column.cast(pa.string())
    column = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
    if column.null_count and not empty:
        raise DataError(f"{source} has {column.null_count} empty cells; every row needs an image")
    return column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])


def _times(column: Any, source: str) -> Any:
    """Read times in any of the ways tables write them; UTC where they name no zone."""
    utc = schema.COLUMNS["datetime"]
    if pa.types.is_timestamp(column.type) and column.type.tz is not None:
        return column.cast(utc)
    try:
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            zoned = pc.any(pc.match_substring_regex(column, r"(Z|[+-]\d\d:?\d\d)$")).as_py()
            return column.cast(utc) if zoned else pc.assume_timezone(column.cast(pa.timestamp("us")), "UTC")
        return pc.assume_timezone(column.cast(pa.timestamp("us")), "UTC")
    except pa.ArrowException as error:
        raise DataError(f"{source} holds no times in ISO 8601: {' '.join(str(error).split())[:120]}") from None


def _has_windows(table: pa.Table) -> bool:
    return set(WINDOW_COLUMNS) <= set(table.column_names)


def _windows(table: pa.Table, config: ImportConfig, file: str) -> Any:
    """Windows as int32 (N, 4); None where headers have to say them.

    Raises:
        DataError: columns of windows that hold no whole numbers, empty cells, or only some of them.
        UsageError: nothing says them.
    """
    named = sorted(set(WINDOW_COLUMNS) & set(config.columns))
    if named and not _has_windows(table):
        missing = ", ".join(name for name in WINDOW_COLUMNS if name not in table.column_names)
        raise DataError(f"{file}: columns.{named[0]} is given, but there is no column for {missing}")
    for name in (*(WINDOW_COLUMNS if _has_windows(table) else ()), *({"window"} & set(table.column_names))):
        if table[name].null_count:
            column = config.columns.get(name, name)
            raise DataError(f"{file}: column {column!r} has {table[name].null_count} empty cells; every row needs a window, or none")
    try:
        if _has_windows(table):
            return np.stack([table[name].cast(pa.int32()).to_numpy() for name in WINDOW_COLUMNS], axis=1).astype(np.int32)
        if "window" in table.column_names:
            fixed = table["window"].cast(schema.COLUMNS["window"])
            return pc.list_flatten(fixed).to_numpy().reshape(-1, 4)
    except (pa.ArrowException, ValueError) as error:
        raise DataError(f"{file}: windows must be whole numbers of pixels: {' '.join(str(error).split())[:120]}") from None
    if config.window_px is not None:
        return np.tile(np.array([0, 0, config.window_px, config.window_px], np.int32), (table.num_rows, 1))
    if config.headers is False:
        raise UsageError(f"{file}: has no windows; give window_px, name col, row, width and height in columns, or let headers be read")
    return None


def _tile_ids(written: pa.ChunkedArray, windows: Any, prefix: str) -> pa.ChunkedArray:
    """Make tile ids of the paths as the table writes them, and of the corners of windows where those differ."""
    stems = pc.replace_substring_regex(pc.replace_substring(written, "\\", "/"), r"\.[^./]+$", "")
    shared = uris.common_folder(written.to_pylist()[:1]) if written.length() == 1 else _common_start(stems)
    stems = pc.utf8_slice_codeunits(stems, len(shared)) if shared else stems
    parts = [pa.scalar(f"{prefix}/"), pc.utf8_ltrim(stems, "./")]
    if windows is not None and windows[:, :2].any():
        column, row = (pa.array(windows[:, axis]).cast(pa.string()) for axis in (0, 1))
        parts += [pa.scalar("_r"), row, pa.scalar("_c"), column]
    return pc.binary_join_element_wise(*parts, "")


def _common_start(stems: pa.ChunkedArray) -> str:
    """Find the folders that all absolute or remote paths start with; relative paths are kept whole."""
    smallest, largest = pc.min_max(stems).as_py().values()
    if not (smallest.startswith("/") or "://" in smallest):
        return ""
    same = 0
    while same < min(len(smallest), len(largest)) and smallest[same] == largest[same]:
        same += 1
    return str(smallest[:same]).rpartition("/")[0]


def _refuse_same_ids(table: pa.Table, file: str) -> None:
    counts = pc.value_counts(table["tile_id"])
    values, numbers = counts.field(0), counts.field(1)
    if len(values) != table.num_rows:
        twice = values.filter(pc.greater(numbers, 1))
        raise DataError(
            f"{file}: {len(twice)} tile ids occur more than once, first {twice[0].as_py()!r}; "
            "name a column of unique ids with columns.tile_id=NAME, or the windows of the tiles"
        )


def _scheme(table: pa.Table, config: ImportConfig, file: str) -> ClassScheme | None:
    """Return the scheme of the labels; None where there are no labels."""
    if "label" not in table.column_names or table["label"].null_count == table.num_rows:
        return None
    if config.scheme is None:
        raise DataError(f"{file}: labels need a class scheme; give scheme=FILE, or labels=false to take images alone")
    return get_scheme(config.scheme)


def _constants(table: pa.Table, config: ImportConfig, scheme: ClassScheme | None) -> pa.Table:
    """Fill what the table does not say."""
    rows = table.num_rows
    for name in ("split", "source", "licence"):
        value = pa.scalar(getattr(config, name), pa.string())
        if name not in table.column_names:
            table = _set(table, name, pa.repeat(value, rows))
        elif value.is_valid:
            table = _set(table, name, pc.fill_null(schema.cast(table[name], pa.string(), name), value))
    label = table["label"] if "label" in table.column_names else pa.chunked_array([pa.nulls(rows, pa.string())])
    labelled = pc.is_valid(label)
    if scheme is not None:
        table = _set(table, "scheme", pc.if_else(labelled, pa.scalar(scheme.name), pa.scalar(None, pa.string())))
    kinds = schema.cast(table["label_kind"], pa.string(), "label_kind") if "label_kind" in table.column_names else None
    filled = pa.repeat(pa.scalar(config.label_kind), rows) if kinds is None else pc.fill_null(kinds, config.label_kind)
    return _set(table, "label_kind", pc.if_else(labelled, filled, "none"))


def _unseen(images: pa.ChunkedArray, root: Path) -> list[Problem]:
    """Look for a few of the files: a wrong root is easily given, and costs a training run that finds none."""
    places = np.unique(np.linspace(0, len(images) - 1, _LOOKED_FOR).astype(np.int64))
    local = [uri for uri in images.take(pa.array(places)).to_pylist() if not uris.is_remote(uri)]
    if not local or any(Path(uri).exists() for uri in local):
        return []
    return [Problem(local[0], f"no such file, nor any of {len(local)} others looked for below {root}; is root right?")]


def _tell(left_out: list[Problem], problems: list[Problem] | None) -> None:
    if problems is not None:
        problems.extend(left_out)
    elif left_out:
        more = f" (and {len(left_out) - 1} more files with problems)" if len(left_out) > 1 else ""
        warnings.warn(f"{left_out[0].file}: {left_out[0].reason}{more}", TilthWarning, stacklevel=3)


def _set(table: pa.Table, name: str, values: Any) -> pa.Table:
    place = table.schema.get_field_index(name)
    return table.append_column(name, values) if place < 0 else table.set_column(place, name, values)
