"""The table of a prepared data set: headers checked against the sensor and the masks, one row a tile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from tilth.catalog.geometry import cut_windows, footprints
from tilth.catalog.schema import COLUMNS
from tilth.catalog.table import Catalog
from tilth.classes import ClassScheme
from tilth.datasets.division import Windows
from tilth.datasets.layout import Place
from tilth.errors import DataError, SensorMismatchError
from tilth.imagery.grid import grid_difference
from tilth.imagery.read import RasterInfo, Window, read_info
from tilth.sensors import Sensor

# Headers are small reads that wait for the disk, so more threads than cores pay.
_THREADS = 8


def read_headers(places: Sequence[Place], sensor: Sensor, progress: Callable[[int, int], None]) -> list[RasterInfo]:
    """Read the headers of all images and compare them with the sensor, and with their masks.

    Raises:
        DataError: a mask on another grid than its image.
        UnreadableFileError: a damaged file.
        SensorMismatchError: images with another number of bands or another type than the sensor.
    """
    infos = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for done, info in enumerate(pool.map(_header, places), start=1):
            infos.append(info)
            progress(done, len(places))
    expected = f"{len(sensor)} bands of {sensor.dtype}"
    wrong = [info for info in infos if (info.count, info.dtype) != (len(sensor), sensor.dtype)]
    if wrong:
        kinds = Counter(f"{info.count} bands of {info.dtype}" for info in wrong)
        found = ", ".join(f"{kind} ({count})" for kind, count in kinds.items())
        raise SensorMismatchError(
            f"{wrong[0].uri}: {len(wrong)} of {len(infos)} images do not fit sensor {sensor.name!r}: expected {expected}, found {found}; "
            "choose the layer or sensor that fits"
        )
    return infos


def _header(place: Place) -> RasterInfo:
    info = read_info(place.image)
    if place.mask is not None:
        mask = read_info(place.mask)
        difference = grid_difference(info, mask, "mask")
        if difference is not None:
            raise DataError(f"{place.image}: {difference}")
    return info


def make_catalog(
    places: Sequence[Place],
    infos: Sequence[RasterInfo],
    masks: Sequence[str | None],
    sensor: Sensor,
    scheme: ClassScheme | None,
    *,
    trust: str,
    windows: Windows,
    prefix: str,
    source: str | None,
    licence: str | None,
) -> Catalog:
    """Make one row a tile.

    Args:
        places: the data set.
        infos: header of each place's image.
        masks: index raster of each place, or None.
        sensor: of all images.
        scheme: of all masks; None where there are none.
        trust: label kind of tiles with a mask.
        windows: how images are cut; the last windows of a row and column are moved back inside.
        prefix: first part of tile ids.
        source: where the imagery comes from.
        licence: of the imagery.
    """
    cut: list[Window] = []
    owners: list[int] = []
    names: list[str] = []
    for owner, (place, info) in enumerate(zip(places, infos, strict=True)):
        name = f"{prefix}/{place.name}"
        if windows.window_px is None:
            here = [Window(0, 0, info.width, info.height)]
            names.append(name)
        else:
            here = cut_windows(info.width, info.height, windows.window_px, windows.stride_px or windows.window_px, "shift")
            names += [f"{name}_r{window.row}_c{window.column}" for window in here]
        cut += here
        owners += [owner] * len(here)
    corners, position = np.array(cut, dtype=np.int32), np.array(owners, dtype=np.int64)
    by_place: dict[str, list[str | None]] = {
        "image": [place.image for place in places],
        "crs": [info.crs for info in infos],
        "label": list(masks),
        "label_kind": ["none" if mask is None else trust for mask in masks],
        "scheme": [None if mask is None or scheme is None else scheme.name for mask in masks],
        "split": [place.split for place in places],
    }
    rows = {name: pa.array(values, COLUMNS[name]).take(pa.array(position)) for name, values in by_place.items()}
    constant = {"sensor": sensor.name, "source": source, "licence": licence}
    rows |= {name: pa.repeat(pa.scalar(value, COLUMNS[name]), len(cut)) for name, value in constant.items()}
    rows["tile_id"] = pa.array(names)
    rows["window"] = pa.FixedSizeListArray.from_arrays(pa.array(corners.reshape(-1)), 4)
    rows["geometry"] = pa.array(footprints(infos, corners, position), COLUMNS["geometry"])
    return Catalog(pa.table(rows), {sensor.name: sensor}, {} if scheme is None else {scheme.name: scheme})
