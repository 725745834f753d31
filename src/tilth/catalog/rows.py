"""Rows of a catalog: the tile that readers get, and the checks that every table passes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tilth.catalog import schema
from tilth.classes import ClassScheme
from tilth.errors import CatalogError, suggest
from tilth.imagery.read import Window
from tilth.sensors import Sensor

Definition = TypeVar("Definition", Sensor, ClassScheme)


@dataclass(frozen=True)
class Tile:
    """One row, as a reader of pixels needs it.

    Attributes:
        tile_id: unique within the catalog.
        image: absolute path or URL of the raster.
        window: pixels of ``image`` (and of ``label``) that make up the tile; a whole image is (0, 0, width, height).
        label: absolute path or URL of the label raster, on the same grid as ``image``; None without label.
        label_kind: ``clean``, ``noisy``, ``pseudo`` or ``none``.
        sensor: name of the sensor; its definition is in ``Catalog.sensors``.
        scheme: name of the class scheme of the label; its definition is in ``Catalog.schemes``.
        split: ``train``, ``val``, ``test``, another name, or None.
        crs: ``EPSG:code`` or WKT of the raster; None when it is not georeferenced.
        packed_from: raster that the pixels of a packed tile were copied from, which need not be there any more; None of other tiles.
        packed_from_window: which pixels of it; None where that is not known.
    """

    tile_id: str
    image: str
    window: Window
    label: str | None
    label_kind: str
    sensor: str
    scheme: str | None
    split: str | None
    crs: str | None
    packed_from: str | None = None
    packed_from_window: Sequence[int] | None = None

    @property
    def origin(self) -> tuple[int, int]:
        """Row and column of the tile's first pixel in the raster that it comes from, packed or not."""
        column, row = (self.packed_from_window or self.window)[:2]
        return int(row), int(column)

    @property
    def source(self) -> str:
        """The raster that the pixels come from, packed or not: what tells tiles of one place from those of another."""
        return self.packed_from or self.image


TILE_COLUMNS = ("tile_id", "image", "window", "label", "label_kind", "sensor", "scheme", "split", "crs")


def make_tile(tile_id: str, image: str, window: Sequence[int], *others: Any) -> Tile:
    """Make a tile from the values of ``TILE_COLUMNS``, then perhaps ``packed_from`` and ``packed_from_window``."""
    return Tile(tile_id, image, Window(*window), *others)


def make_tiles(table: pa.Table, columns: Sequence[str]) -> Iterator[Tile]:
    """Make the tiles of all rows of a table from columns as :func:`make_tile` takes them."""
    # Windows come through NumPy: lists in a column are slow to take out of Arrow.
    return map(
        Tile, *(map(Window._make, window_array(table).tolist()) if name == "window" else table[name].to_pylist() for name in columns)
    )


def make_array(name: str, values: Any) -> Any:
    """Make an Arrow array, of the core type where the column is a core one."""
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    kind = schema.COLUMNS.get(name)
    if isinstance(values, np.ndarray) and values.ndim > 1:
        values = values.tolist()
    try:
        return pa.array(values, type=kind)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise CatalogError(f"catalog column {name!r}: expected {kind or 'values of one type'} ({' '.join(str(error).split())})") from None


def check_rows(table: pa.Table, sensors: Mapping[str, Sensor], schemes: Mapping[str, ClassScheme]) -> None:
    """Refuse rows that no stage could use.

    Raises:
        CatalogError: a tile id twice, an unknown label kind, a sensor or scheme without definition, or a window without pixels.
    """
    if pc.count_distinct(table["tile_id"]).as_py() != table.num_rows:
        twice = next(name for name, count in count_values(table["tile_id"]).items() if count > 1)
        raise CatalogError(f"tile_id {twice!r} occurs more than once; give each build its own prefix")
    for kind in count_values(table["label_kind"]):
        if kind not in schema.LABEL_KINDS:
            raise CatalogError(f"label_kind {kind!r} is unknown; {suggest(kind, schema.LABEL_KINDS)}")
    for what, known in (("sensor", sensors), ("scheme", schemes)):
        for name in count_values(table[what]):
            if name is not None and name not in known:
                raise CatalogError(f"{what} {name!r} is named by rows but not defined; {suggest(name, known)}")
    windows = window_array(table)
    wrong = np.flatnonzero((windows[:, :2] < 0).any(axis=1) | (windows[:, 2:] < 1).any(axis=1))
    if wrong.size:
        first = int(wrong[0])
        raise CatalogError(
            f"tile {table['tile_id'][first].as_py()!r}: window {windows[first].tolist()} has no pixels or starts before the raster"
        )


def window_array(table: pa.Table) -> NDArray[np.int32]:
    """Windows as int32 (N, 4): column, row, width, height in pixels."""
    flat: NDArray[np.int32] = pc.list_flatten(table["window"]).to_numpy()
    return flat.reshape(-1, 4)


def count_values(column: Any) -> dict[Any, int]:
    """Count the rows of each value, None included, in order of first occurrence."""
    return {item["values"]: item["counts"] for item in pc.value_counts(column).to_pylist()}


def name_splits(column: Any) -> str:
    """Name the splits that rows have, for messages: in order, ``none`` for rows without."""
    return ", ".join(sorted("none" if name is None else str(name) for name in count_values(column)))


def merge(into: dict[str, Definition], other: Mapping[str, Definition], what: str) -> None:
    """Add definitions by name.

    Raises:
        CatalogError: a name has two different definitions.
    """
    for name, value in other.items():
        if into.setdefault(name, value) != value:
            raise CatalogError(f"concat: {what} {name!r} is defined in two different ways; rename one of them")
