"""What the streams of a method show: tiles by source, and those of a target at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tilth.errors import CatalogError, ConfigError, SensorMismatchError
from tilth.verbs.train_data import TrainingTiles, join

if TYPE_CHECKING:
    from tilth.catalog.table import Catalog
    from tilth.methods.base import Method, Stream
    from tilth.models.segmenter import Segmenter
    from tilth.sensors import Sensor
    from tilth.training.order import Phase


def assign_streams(asked: Mapping[str, Stream], name: str, tiles: TrainingTiles, sensor: Sensor) -> dict[str, Catalog]:
    """Give every stream that the method asks for its catalog.

    Raises:
        ConfigError: the method wants a pool and there is none.
        SensorMismatchError: tiles of another sensor than the model's.
        CatalogError: too few tiles.
    """
    found = {}
    for stream, wanted in asked.items():
        rows = tiles.labelled if wanted.source == "labelled" else tiles.pool
        if rows is not None and tiles.target is not None and wanted.source == "unlabelled":
            rows = join([rows, tiles.target])
        if rows is None:
            raise ConfigError(f"method {name!r} learns from unlabelled tiles, too; use tilth pretrain {name} with --unlabelled CATALOG")
        if rows.sensor() != sensor:
            raise SensorMismatchError(
                f"the {wanted.source} tiles have sensor {rows.sensor().name!r}, the model {sensor.name!r}; "
                "all tiles must come in the same bands and scaling"
            )
        if wanted.differs_from and len(rows) < 2:
            raise CatalogError(f"method {name!r} mixes tiles of the unlabelled pool, which has only one; give at least two")
        found[stream] = rows
    return found


def phases_of(method: Method, tiles: TrainingTiles, steps: int) -> dict[str, tuple[Phase, ...]]:
    """Say when unlabelled streams show tiles of the target: these alone at the end, never before."""
    from tilth.training.order import Phase

    if tiles.target is None or tiles.pool is None:
        return {}
    pool, both = len(tiles.pool), len(tiles.pool) + len(tiles.target)
    first = steps - round(method.target_share * steps)
    phases = (Phase(0, range(pool)), Phase(first, range(pool, both))) if first else (Phase(0, range(pool, both)),)
    return {name: phases for name, stream in method.streams.items() if stream.source == "unlabelled"}


def check_validation(model: Segmenter, tiles: TrainingTiles, split: str | None) -> None:
    """Refuse validation tiles that the model could not be scored on.

    Raises:
        CatalogError: other classes than the model's, or several schemes.
        SensorMismatchError: another sensor than the model's.
    """
    from tilth.evaluation.samples import labelled_tiles

    if tiles.validation is None:
        return
    try:
        labelled_tiles(model, tiles.validation)
    except (CatalogError, SensorMismatchError) as error:
        raise type(error)(f"split {split!r}, to validate on: {error}") from None


def small_tiles(streams: Mapping[str, Catalog], size: int, scale_max: float) -> str | None:
    """Say so if no tile, however much enlarged, fills a crop; None if one can."""
    from tilth.catalog.rows import window_array

    largest = max(int(window_array(rows.table)[:, 2:].max()) for rows in streams.values())
    if largest * scale_max >= size:
        return None
    return (
        f"the largest tile has {largest} pixels a side, {largest * scale_max:g} at most when resized, and weak.size is {size}: part of "
        f"every crop is padding; set weak.size={largest} or less, or a larger weak.scale_max"
    )


def describe_streams(streams: Mapping[str, Catalog]) -> dict[str, Any]:
    """What the run was trained on: counts, sources and fingerprints of every stream."""
    described: dict[int, dict[str, Any]] = {}
    for rows in streams.values():
        # Streams that share a catalog share its description: a fingerprint looks at every file.
        if id(rows) not in described:
            described[id(rows)] = _describe(rows)
    return {name: described[id(rows)] for name, rows in streams.items()}


def _describe(rows: Catalog) -> dict[str, Any]:
    return {
        "tiles": len(rows),
        "labelled_tiles": len(rows.labelled()),
        "sensor": rows.sensor().name,
        "splits": {str(key): value for key, value in rows.counts("split").items()},
        "sources": {str(key): value for key, value in rows.counts("source").items()},
        "licences": {str(key): value for key, value in rows.counts("licence").items()},
        "fingerprint": rows.fingerprint(),
    }
