"""From folders of imagery to a catalog. Only headers are read, unless labels have to be rasterised, decoded or resampled."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from tilth.catalog.clean_labels import add_references
from tilth.catalog.config import BuildConfig
from tilth.catalog.derive import Derivation
from tilth.catalog.discover import Found, Problem, find_images
from tilth.catalog.geometry import cut_windows, footprints
from tilth.catalog.headers import Progress, read_headers
from tilth.catalog.layers import check_layers, find_layers
from tilth.catalog.schema import COLUMNS
from tilth.catalog.table import Catalog
from tilth.catalog.window_size import window_sizes
from tilth.errors import DataError, TilthWarning
from tilth.imagery.read import RasterInfo, Window
from tilth.sensors import Sensor, get_sensor


def build_catalog(
    config: BuildConfig, *, problems: list[Problem] | None = None, notes: list[str] | None = None, progress: Progress | None = None
) -> Catalog:
    """Make a catalog of the images that a configuration names.

    Tiles come in the order of inputs, then file paths, then windows row by row. Tile ids are ``<folder>/<stem>``, followed by
    ``_r<row>_c<column>`` (of the upper left pixel) where images are cut into windows.

    Args:
        config: what to read and how.
        problems: receives the files that were left out, with the reason; without it they end in a :class:`TilthWarning`.
        notes: receives what else the user should know, such as images that no polygon touches; without it they end in a
            :class:`TilthWarning`.
        progress: told after each header, and after each image where files have to be made.

    Returns:
        The catalog, with absolute paths; ``save`` makes them relative.

    Raises:
        MissingFileError: an input does not exist.
        DataError: nothing found, labels or split files that match no image, a label on another grid than its scene, label values or
            attribute values without a meaning, windows in metres where there is no place on the Earth, or (``strict``) an unreadable file.
        SensorMismatchError: images with another number of bands or another type than the sensor.
        ConfigError: unknown sensor, or a class scheme or legend that does not validate.
        UsageError: files have to be made and ``derived`` names no folder for them.
        CatalogError: ``references`` is no catalog of these tiles.
    """
    sensor = get_sensor(config.sensor)
    clean = None if config.references is None else Catalog.open(config.references)
    found, left_out = find_images(config)
    found, alone = find_layers(found, config)
    left_out += alone
    if config.strict and left_out:
        raise DataError(f"{left_out[0].file}: {left_out[0].reason}{_more(left_out)}")
    good, headers = read_headers(found, config, left_out, progress)
    if not good:
        raise DataError(f"{left_out[0].file}: {left_out[0].reason}; none of {len(found)} images can be used")
    check_layers(headers, config, sensor)
    window_sizes([header.image for header in headers], config)
    made, infos, said = Derivation(config, sensor, good, headers).run(left_out, progress)
    if not made:
        raise DataError(f"{left_out[-1].file}: {left_out[-1].reason}; none of {len(found)} images can be used")
    catalog = _make_table(made, infos, config, sensor)
    if clean is not None:
        catalog = add_references(catalog, clean, str(config.references))
    if notes is not None:
        notes.extend(said)
    elif said:
        warnings.warn("; ".join(said), TilthWarning, stacklevel=2)
    if problems is not None:
        problems.extend(left_out)
    elif left_out:
        warnings.warn(f"{left_out[0].file}: {left_out[0].reason}{_more(left_out)}; left out of the catalog", TilthWarning, stacklevel=2)
    return catalog


def _more(problems: Sequence[Problem]) -> str:
    return f" (and {len(problems) - 1} more files with problems)" if len(problems) > 1 else ""


def _make_table(found: Sequence[Found], infos: Sequence[RasterInfo], config: BuildConfig, sensor: Sensor) -> Catalog:
    windows: list[Window] = []
    owners: list[int] = []
    names: list[str] = []
    for owner, (item, info, size) in enumerate(zip(found, infos, window_sizes(infos, config), strict=True)):
        if size is None:
            cut = [Window(0, 0, info.width, info.height)]
            names.append(item.name)
        else:
            cut = cut_windows(info.width, info.height, *size, config.edge)
            names += [f"{item.name}_r{window.row}_c{window.column}" for window in cut]
        windows += cut
        owners += [owner] * len(cut)
    if not windows:
        side = f"{config.window_px} pixels" if config.window_px is not None else f"{config.window_m:g} m"
        raise DataError(f"{infos[0].uri}: no image is as large as a window of {side}; use edge: shift, or smaller windows")
    corners = np.array(windows, dtype=np.int32)
    position = np.array(owners, dtype=np.int64)
    times = [_time_of(item, config) for item in found]
    places = [_location_of(item, config) for item in found]
    kinds = [config.label_kind if item.label else "none" for item in found]
    columns: dict[str, list[object]] = {
        "image": [item.image for item in found],
        "crs": [info.crs for info in infos],
        "datetime": list(times),
        "location_id": list(places),
        "label": [item.label for item in found],
        "label_kind": list(kinds),
        "scheme": [item.scheme.name if item.scheme else None for item in found],
        "split": [item.split for item in found],
    }
    rows = {name: pa.array(values, COLUMNS[name]).take(pa.array(position)) for name, values in columns.items()}
    constant = {"sensor": sensor.name, "source": config.source, "licence": config.licence}
    rows |= {name: pa.repeat(pa.scalar(value, COLUMNS[name]), len(windows)) for name, value in constant.items()}
    rows["tile_id"] = pa.array(names)
    rows["window"] = pa.FixedSizeListArray.from_arrays(pa.array(corners.reshape(-1)), 4)
    rows["geometry"] = pa.array(footprints(infos, corners, position), COLUMNS["geometry"])
    schemes = {item.scheme.name: item.scheme for item in found if item.scheme is not None}
    for item in found:
        if item.scheme is not None and schemes[item.scheme.name] != item.scheme:
            raise DataError(f"{item.label}: scheme {item.scheme.name!r} is defined in two different ways; give 'name' in classes.json")
    return Catalog(pa.table(rows), {sensor.name: sensor}, schemes)


def _location_of(item: Found, config: BuildConfig) -> str | None:
    """Name of the place: from the file name where a pattern is given; where sensors are joined, the file stem."""
    if config.location_pattern is not None:
        match = re.search(config.location_pattern, Path(item.origin or item.image).name)
        return match[1] if match is not None and match[1] else None
    return Path(item.origin or item.image).stem if config.layers else None


def _time_of(item: Found, config: BuildConfig) -> datetime | None:
    """Acquisition time: from the file name where a pattern is given, else the configured one.

    Raises:
        DataError: the pattern finds something that is no date.
    """
    if config.datetime_pattern is not None:
        match = re.search(config.datetime_pattern, Path(item.origin or item.image).name)
        if match is not None and match[1]:
            try:
                return _with_zone(datetime.fromisoformat(match[1]))
            except ValueError:
                raise DataError(f"{item.image}: datetime_pattern found {match[1]!r}, which is no date (YYYYMMDD or YYYY-MM-DD)") from None
    return None if config.datetime is None else _with_zone(datetime.fromisoformat(config.datetime))


def _with_zone(time: datetime) -> datetime:
    return time if time.tzinfo else time.replace(tzinfo=UTC)
