"""Catalog: the table of tiles - where the pixels are, where the label is, which split.

A GeoParquet file that pandas, DuckDB and QGIS open. Everything is a catalog: building makes one, curation adds columns and drops
rows, pseudo-labelling fills the label column, a study reads one. A catalog never changes; every operation returns a new one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tilth.catalog import schema, uris
from tilth.catalog.fingerprint import fingerprint
from tilth.catalog.rows import TILE_COLUMNS, Tile, check_rows, count_values, make_array, make_tile, make_tiles, merge
from tilth.classes import ClassScheme
from tilth.errors import CatalogError, MissingFileError, needs_extra, suggest
from tilth.imagery.write import atomic_path
from tilth.sensors import Sensor

if TYPE_CHECKING:
    import geopandas
    import pandas
    from numpy.typing import ArrayLike

__all__ = ["Catalog", "Tile"]

_TILES_AT_ONCE = 4096


class Catalog:
    """A table of tiles with the sensors and class schemes its rows name.

    Attributes:
        table: the rows; columns as in ``catalog.schema.COLUMNS``, then any others. URIs are absolute, footprints are WKB polygons in
            longitude and latitude (OGC:CRS84).
        sensors: definitions by name.
        schemes: definitions by name.

    Example:
        >>> from tilth.sensors import get_sensor
        >>> row = {"tile_id": "a/1", "image": "/data/1.png", "window": (0, 0, 64, 64), "sensor": "rgb"}
        >>> catalog = Catalog.from_rows([row], sensors={"rgb": get_sensor("rgb")})
        >>> len(catalog), catalog.tile(0).window.width
        (1, 64)
    """

    def __init__(self, table: pa.Table, sensors: Mapping[str, Sensor], schemes: Mapping[str, ClassScheme] | None = None) -> None:
        """Check and hold a table.

        Args:
            table: rows; core columns that are missing become null, and ``label_kind`` ``none``. Local URIs must be absolute.
            sensors: definition of every sensor the rows name.
            schemes: definition of every scheme the rows name.

        Raises:
            CatalogError: required columns missing or empty, tile ids not unique, a window without pixels, an unknown label kind, or a
                sensor or scheme without definition.
        """
        self.table = schema.conform(table)
        self.sensors = dict(sensors)
        self.schemes = dict(schemes or {})
        check_rows(self.table, self.sensors, self.schemes)

    @classmethod
    def from_rows(
        cls, rows: Iterable[Mapping[str, Any]], sensors: Mapping[str, Sensor], schemes: Mapping[str, ClassScheme] | None = None
    ) -> Self:
        """Make a catalog from mappings of column to value; local paths are made absolute."""
        listed = [dict(row) for row in rows]
        names = dict.fromkeys([*schema.COLUMNS, *(name for row in listed for name in row)])
        columns: dict[str, Any] = {}
        for name in names:
            values = [row.get(name) for row in listed]
            if name in schema.FILE_COLUMNS:
                values = [None if value is None else uris.absolute_uri(value) for value in values]
            if name == "label_kind":
                values = ["none" if value is None else value for value in values]
            columns[name] = make_array(name, values)
        return cls(pa.table(columns), sensors, schemes)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Read a catalog file; paths in it are relative to its folder.

        Raises:
            MissingFileError: no such file.
            CatalogError: not a Parquet file, not a catalog, or of a newer schema.
        """
        file = Path(path)
        if not file.is_file():
            raise MissingFileError(f"{file}: no such catalog file; make one with: tilth catalog build")
        try:
            table = pq.ParquetFile(file).read()
        except (pa.ArrowException, OSError) as error:
            raise CatalogError(
                f"{file}: not a readable Parquet file ({' '.join(str(error).split())[:120]}); build the catalog again"
            ) from None
        sensors, schemes = schema.decode_metadata(table.schema.metadata, str(file))
        for name in schema.PLACE_COLUMNS:
            if name in table.column_names:
                place = table.schema.get_field_index(name)
                table = table.set_column(place, name, uris.make_absolute(schema.cast(table[name], pa.string(), name), file.parent))
        try:
            return cls(table, sensors, schemes)
        except CatalogError as error:
            raise CatalogError(f"{file}: {error}") from None

    def save(self, path: str | Path) -> Path:
        """Write the catalog as GeoParquet, whole or not at all; local paths become relative to its folder."""
        file = Path(path)
        table = self.table
        for name in schema.PLACE_COLUMNS:
            if name in table.column_names:
                table = table.set_column(table.schema.get_field_index(name), name, uris.make_relative(table[name], file.parent))
        table = table.replace_schema_metadata(schema.encode_metadata(table, self.sensors, self.schemes))
        with atomic_path(file) as temporary:
            pq.write_table(table, temporary, compression="zstd")
        return file

    def __len__(self) -> int:
        """Return the number of tiles."""
        return int(self.table.num_rows)

    def __repr__(self) -> str:
        """Return a short description."""
        return f"Catalog({len(self)} tiles, {len(self.labelled())} labelled, sensors: {', '.join(self.sensors)})"

    def tile(self, index: int) -> Tile:
        """Return one row; negative indices count from the end."""
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"tile {index} of a catalog of {len(self)}")
        return make_tile(*(self.table[name][position].as_py() for name in self._tile_columns()))

    def tiles(self) -> Iterator[Tile]:
        """Go through all rows in order."""
        columns = self._tile_columns()
        for start in range(0, len(self), _TILES_AT_ONCE):
            yield from make_tiles(self.table.slice(start, _TILES_AT_ONCE), columns)

    def column(self, name: str) -> list[Any]:
        """Return a column as a list of Python values.

        Raises:
            CatalogError: there is no such column.
        """
        return list(self._column(name).to_pylist())

    def counts(self, name: str) -> dict[Any, int]:
        """Count the rows of each value of a column, None included, in order of first occurrence."""
        return count_values(self._column(name))

    def filter(self, **conditions: Any) -> Self:
        """Keep the rows where every named column has the given value, or one of a collection of values; None means empty.

        Example:
            ``catalog.filter(split=("train", None), label_kind="clean")``

        Raises:
            CatalogError: unknown column, or a value the column cannot hold.
        """
        mask: Any = None
        for name, wanted in conditions.items():
            column = self._column(name)
            values = list(wanted) if isinstance(wanted, Collection | np.ndarray) and not isinstance(wanted, str | bytes) else [wanted]
            try:
                found = pc.is_in(column, value_set=pa.array(values, type=column.type))
            except (pa.ArrowException, TypeError):
                raise CatalogError(f"filter {name}={wanted!r}: column {name!r} holds {column.type}") from None
            mask = found if mask is None else pc.and_(mask, found)
        return self if mask is None else self._with(self.table.filter(mask))

    def labelled(self) -> Self:
        """Keep the rows that have a label raster and a label kind other than ``none``."""
        return self._with(self.table.filter(pc.and_(pc.is_valid(self.table["label"]), pc.not_equal(self.table["label_kind"], "none"))))

    def take(self, indices: ArrayLike) -> Self:
        """Make a catalog of the rows at the given positions, in that order; a position may not be repeated.

        Raises:
            CatalogError: a position is outside the catalog or named twice.
        """
        positions = np.asarray(indices, dtype=np.int64).reshape(-1)
        if positions.size and (positions.min() < 0 or positions.max() >= len(self)):
            raise CatalogError(f"take: positions must be 0 to {len(self) - 1}, found {positions.min()} to {positions.max()}")
        if np.unique(positions).size != positions.size:
            raise CatalogError("take: a row was named twice; tile ids must stay unique")
        return self._with(self.table.take(pa.array(positions)))

    def with_columns(self, **arrays: Any) -> Self:
        """Replace or append columns; one value a row (NumPy array, list or Arrow array).

        Raises:
            CatalogError: the length differs from the number of rows, or a core column cannot hold the values.
        """
        table = self.table
        for name, values in arrays.items():
            array = make_array(name, values)
            if len(array) != len(self):
                raise CatalogError(f"column {name!r}: {len(array)} values for {len(self)} tiles; give one a tile")
            place = table.schema.get_field_index(name)
            table = table.append_column(name, array) if place < 0 else table.set_column(place, name, array)
        return type(self)(table, self.sensors, self.schemes)

    @classmethod
    def concat(cls, catalogs: Sequence[Catalog]) -> Self:
        """Put catalogs one below the other; columns that one of them lacks are null there.

        Raises:
            CatalogError: nothing given, a tile id twice, or two different definitions under one sensor or scheme name.
        """
        if not catalogs:
            raise CatalogError("concat: no catalog given; name at least one")
        sensors: dict[str, Sensor] = {}
        schemes: dict[str, ClassScheme] = {}
        for catalog in catalogs:
            merge(sensors, catalog.sensors, "sensor")
            merge(schemes, catalog.schemes, "scheme")
        try:
            table = pa.concat_tables([catalog.table for catalog in catalogs], promote_options="permissive")
        except pa.ArrowException as error:
            raise CatalogError(f"concat: columns of one name hold different types ({' '.join(str(error).split())})") from None
        return cls(table, sensors, schemes)

    def fingerprint(self) -> str:
        """Hash what the catalog says and refers to: rows, definitions, and the size of every local file.

        Returns:
            SHA-256 as 64 hexadecimal digits; the same wherever the tree of files lies. A change of pixels that keeps the size of the
            file is not seen, except in packed tiles, whose checksums count. Of virtual rasters all files behind them count.
        """
        return fingerprint(self.table, self.sensors, self.schemes)

    def sensor(self) -> Sensor:
        """Return the one sensor of all rows.

        Raises:
            CatalogError: the catalog is empty or mixes sensors.
        """
        return self.sensors[self._one("sensor", self.counts("sensor"))]

    def scheme(self) -> ClassScheme:
        """Return the one class scheme of all labelled rows.

        Raises:
            CatalogError: no row is labelled, or the labels follow several schemes.
        """
        return self.schemes[self._one("scheme", self.labelled().counts("scheme"))]

    def to_pandas(self) -> pandas.DataFrame:
        """Return the rows as a pandas table; ``geometry`` stays WKB."""
        with needs_extra("geo", "catalogs as pandas tables"):
            import pandas  # noqa: F401 - Arrow imports it, and its own message names no extra

        frame: pandas.DataFrame = self.table.to_pandas()
        return frame

    def to_geopandas(self) -> geopandas.GeoDataFrame:
        """Return the rows as a geopandas table with footprints in longitude and latitude (OGC:CRS84)."""
        with needs_extra("geo", "catalogs as geopandas tables"):
            import geopandas

        frame = self.to_pandas()
        return geopandas.GeoDataFrame(frame, geometry=geopandas.GeoSeries.from_wkb(frame["geometry"]), crs="OGC:CRS84")

    def _column(self, name: str) -> Any:
        if name not in self.table.column_names:
            raise CatalogError(f"catalog has no column {name!r}; {suggest(name, self.table.column_names)}")
        return self.table[name]

    def _tile_columns(self) -> tuple[str, ...]:
        # The window of an origin means nothing without it.
        further = (schema.ORIGIN_COLUMN, schema.ORIGIN_WINDOW_COLUMN)
        there = [self.table.schema.get_field_index(name) >= 0 for name in further]
        return (*TILE_COLUMNS, *further[: 2 if all(there) else int(there[0])])

    def _with(self, table: pa.Table) -> Self:
        """Wrap rows that are known to be right, without checking them again."""
        other = object.__new__(type(self))
        other.table, other.sensors, other.schemes = table.combine_chunks(), self.sensors, self.schemes
        return other

    @staticmethod
    def _one(what: str, counts: Mapping[Any, int]) -> str:
        names = [name for name in counts if name is not None]
        if len(names) != 1 or None in counts:
            found = ", ".join(f"{name or 'unnamed'} ({count} tiles)" for name, count in counts.items()) or "none"
            raise CatalogError(f"catalog: expected exactly one {what}, found {found}; keep one with filter({what}=...)")
        return str(names[0])
