"""From folders of imagery to a catalog. Only headers are read."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from tilth.catalog.config import BuildConfig
from tilth.catalog.discover import Found, Problem, find_images
from tilth.catalog.geometry import cut_windows, footprints
from tilth.catalog.schema import COLUMNS
from tilth.catalog.table import Catalog
from tilth.errors import DataError, MissingFileError, SensorMismatchError, TilthWarning
from tilth.imagery.read import RasterInfo, Window, read_info
from tilth.sensors import Sensor, get_sensor

Progress = Callable[[int, int], None]
"""Told (files or tiles done, all of them)."""

# Headers are small reads that wait for the disk or the network, so more threads than cores pay.
_THREADS = 8


def build_catalog(config: BuildConfig, *, problems: list[Problem] | None = None, progress: Progress | None = None) -> Catalog:
    """Make a catalog of the images that a configuration names.

    Tiles come in the order of inputs, then file paths, then windows row by row. Tile ids are ``<folder>/<stem>``, followed by
    ``_r<row>_c<column>`` (of the upper left pixel) where images are cut into windows.

    Args:
        config: what to read and how.
        problems: receives the files that were left out, with the reason; without it they end in a :class:`TilthWarning`.
        progress: told after each header.

    Returns:
        The catalog, with absolute paths; ``save`` makes them relative.

    Raises:
        MissingFileError: an input does not exist.
        DataError: nothing found, labels or split files that match no image, a label on another grid than its scene, or (``strict``) an
            unreadable file.
        SensorMismatchError: images with another number of bands or another type than the sensor.
        ConfigError: unknown sensor, or a class scheme that does not validate.
    """
    sensor = get_sensor(config.sensor)
    found, left_out = find_images(config)
    if config.strict and left_out:
        raise DataError(f"{left_out[0].file}: {left_out[0].reason}{_more(left_out)}")
    good, infos = _read_headers(found, config, left_out, progress)
    if not good:
        raise DataError(f"{left_out[0].file}: {left_out[0].reason}; none of {len(found)} images can be used")
    _check_sensor(infos, sensor)
    catalog = _make_table(good, infos, config, sensor)
    if problems is not None:
        problems.extend(left_out)
    elif left_out:
        warnings.warn(f"{left_out[0].file}: {left_out[0].reason}{_more(left_out)}; left out of the catalog", TilthWarning, stacklevel=2)
    return catalog


def _more(problems: Sequence[Problem]) -> str:
    return f" (and {len(problems) - 1} more files with problems)" if len(problems) > 1 else ""


def _read_headers(
    found: Sequence[Found], config: BuildConfig, left_out: list[Problem], progress: Progress | None
) -> tuple[list[Found], list[RasterInfo]]:
    """Read all headers; keep the images that can be used, note the others."""
    good, infos = [], []
    with ThreadPoolExecutor(_THREADS) as pool:
        for done, (item, header) in enumerate(zip(found, pool.map(_header, found), strict=True), start=1):
            if isinstance(header, RasterInfo):
                good.append(item)
                infos.append(header)
            elif config.strict or (item.is_scene and isinstance(header, GridError)):
                raise header
            else:
                left_out.append(Problem(item.image, str(header).removeprefix(f"{item.image}: ")))
            if progress is not None:
                progress(done, len(found))
    return good, infos


class GridError(DataError):
    """A label lies on another grid than its image."""


def _header(item: Found) -> RasterInfo | DataError | MissingFileError:
    """Read the header of an image, and of its label to compare grids; problems are returned, not raised."""
    try:
        info = read_info(item.image)
        if item.label is not None:
            _check_grid(info, read_info(item.label))
    except (DataError, MissingFileError) as error:
        return error
    return info


def _check_grid(image: RasterInfo, label: RasterInfo) -> None:
    if (image.width, image.height) != (label.width, label.height):
        raise GridError(
            f"{image.uri}: image has {image.width} x {image.height} pixels, its label {label.uri} {label.width} x {label.height}; "
            "they must share one grid"
        )
    if image.transform is None or label.transform is None:
        return
    if image.crs != label.crs and None not in (image.crs, label.crs):
        raise GridError(f"{image.uri}: CRS is {_short(image.crs)}, that of its label {label.uri} {_short(label.crs)}; warp the label first")
    # The far corners may differ by a hundredth of a pixel: writers round.
    a, b, _, d, e, _ = image.transform
    pixel = max(math.hypot(a, d), math.hypot(b, e))
    for column, row in ((0, 0), (image.width, 0), (0, image.height), (image.width, image.height)):
        here, there = _position(image, column, row), _position(label, column, row)
        if math.dist(here, there) > 0.01 * pixel:
            raise GridError(
                f"{image.uri}: pixel (column {column}, row {row}) lies at {here}, that of its label {label.uri} at {there}; "
                "warp the label first"
            )


def _short(crs: str | None) -> str:
    return str(crs)[:40]


def _position(info: RasterInfo, column: int, row: int) -> tuple[float, float]:
    assert info.transform is not None
    a, b, c, d, e, f = info.transform
    return a * column + b * row + c, d * column + e * row + f


def _check_sensor(infos: Sequence[RasterInfo], sensor: Sensor) -> None:
    for what, expected, values in (
        ("bands", len(sensor), [info.count for info in infos]),
        ("type", sensor.dtype, [info.dtype for info in infos]),
    ):
        wrong = [(info, value) for info, value in zip(infos, values, strict=True) if value != expected]
        if wrong:
            kinds = ", ".join(
                f"{value} in {sum(item == value for _, item in wrong)}" for value in dict.fromkeys(value for _, value in wrong)
            )
            files = ", ".join(info.uri for info, _ in wrong[:3]) + (", ..." if len(wrong) > 3 else "")
            raise SensorMismatchError(
                f"sensor {sensor.name!r} has {what} {expected}, {len(wrong)} of {len(infos)} images differ ({what} {kinds}): {files}; "
                "choose the sensor that fits, or build a catalog each"
            )


def _make_table(found: Sequence[Found], infos: Sequence[RasterInfo], config: BuildConfig, sensor: Sensor) -> Catalog:
    windows: list[Window] = []
    owners: list[int] = []
    names: list[str] = []
    for owner, (item, info) in enumerate(zip(found, infos, strict=True)):
        if config.window_px is None:
            cut = [Window(0, 0, info.width, info.height)]
            names.append(item.name)
        else:
            cut = cut_windows(info.width, info.height, config.window_px, config.stride_px or config.window_px, config.edge)
            names += [f"{item.name}_r{window.row}_c{window.column}" for window in cut]
        windows += cut
        owners += [owner] * len(cut)
    if not windows:
        raise DataError(
            f"{infos[0].uri}: no image is as large as a window of {config.window_px} pixels; use edge: shift, or smaller windows"
        )
    corners = np.array(windows, dtype=np.int32)
    position = np.array(owners, dtype=np.int64)
    times = [_time_of(item, config) for item in found]
    kinds = [config.label_kind if item.label else "none" for item in found]
    columns: dict[str, list[object]] = {
        "image": [item.image for item in found],
        "crs": [info.crs for info in infos],
        "datetime": list(times),
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


def _time_of(item: Found, config: BuildConfig) -> datetime | None:
    """Acquisition time: from the file name where a pattern is given, else the configured one.

    Raises:
        DataError: the pattern finds something that is no date.
    """
    if config.datetime_pattern is not None:
        match = re.search(config.datetime_pattern, Path(item.image).name)
        if match is not None and match[1]:
            try:
                return _with_zone(datetime.fromisoformat(match[1]))
            except ValueError:
                raise DataError(f"{item.image}: datetime_pattern found {match[1]!r}, which is no date (YYYYMMDD or YYYY-MM-DD)") from None
    return None if config.datetime is None else _with_zone(datetime.fromisoformat(config.datetime))


def _with_zone(time: datetime) -> datetime:
    return time if time.tzinfo else time.replace(tzinfo=UTC)
