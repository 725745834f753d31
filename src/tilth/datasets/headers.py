"""The headers of a data set: read many at once, and checked against the sensor and the masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tilth.datasets.layout import Place
from tilth.errors import DataError, SensorMismatchError, UnreadableFileError
from tilth.imagery.grid import grid_difference, shares_ground
from tilth.imagery.read import RasterInfo, read_info
from tilth.sensors import Sensor

# Headers are small reads that wait for the disk, so more threads than cores pay.
_THREADS = 8
_PART = 20_000
"""Headers that are under way at once: a set may have a million."""


@dataclass(frozen=True)
class Headers:
    """What is kept of the headers of N images.

    Attributes:
        sizes: int32 (N, 2), columns and rows in pixels.
        placed: header by position, of images with a place on the Earth.
    """

    sizes: NDArray[np.int32]
    placed: dict[int, RasterInfo]


def read_headers(
    places: Sequence[Place],
    sensor: Sensor,
    progress: Callable[[int, int], None],
    *,
    joined: Path,
    colour: Path | None = None,
    align: bool = False,
    leave_out: Callable[[str], None] | None = None,
) -> tuple[list[Place], Headers]:
    """Read the headers of all images and compare them with the sensor, and with their masks.

    Args:
        places: the data set.
        sensor: of all images.
        progress: told after each image.
        joined: folder for virtual rasters of images that are made of several.
        colour: folder for virtual rasters that show grey pictures in as many bands as the sensor has; None refuses such pictures.
        align: accept masks on another grid of the same ground.
        leave_out: told, in one line, of images that cannot be read, which are then left out; without it they are refused.

    Returns:
        The places that can be used, and the headers of their images.

    Raises:
        DataError: a mask on another grid than its image, or no image that can be read.
        UnreadableFileError: a damaged file, without ``leave_out``.
        SensorMismatchError: images with another number of bands or another type than the sensor.
    """
    usable: list[Place] = []
    sizes: list[tuple[int, int]] = []
    placed: dict[int, RasterInfo] = {}
    wrong: list[tuple[str, str]] = []
    damaged: list[UnreadableFileError] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(places), _PART):
            found = pool.map(partial(_header, sensor=sensor, joined=joined, colour=colour, align=align), places[start : start + _PART])
            for done, item in enumerate(found, start=start + 1):
                if isinstance(item, UnreadableFileError):
                    if leave_out is None:
                        raise type(item)(f"{item}; mend or remove it, or use --partial to leave such images out")
                    damaged.append(item)
                else:
                    place, info = item
                    if (info.count, info.dtype) != (len(sensor), sensor.dtype):
                        wrong.append((info.uri, f"{info.count} bands of {info.dtype}"))
                    if info.crs is not None:
                        placed[len(usable)] = info
                    usable.append(place)
                    sizes.append((info.width, info.height))
                progress(done, len(places))
    if wrong:
        found_kinds = ", ".join(f"{kind} ({count})" for kind, count in Counter(kind for _, kind in wrong).items())
        raise SensorMismatchError(
            f"{wrong[0][0]}: {len(wrong)} of {len(places)} images do not fit sensor {sensor.name!r}: expected {len(sensor)} bands of "
            f"{sensor.dtype}, found {found_kinds}; choose the layer or sensor that fits"
        )
    if damaged and leave_out is not None:
        if not usable:
            raise DataError(f"{damaged[0]}; none of {len(places)} images can be read")
        leave_out(f"{damaged[0]}; {len(damaged)} of {len(places)} images cannot be read, left out")
    return usable, Headers(np.array(sizes, dtype=np.int32).reshape(-1, 2), placed)


def _header(place: Place, sensor: Sensor, joined: Path, colour: Path | None, align: bool) -> tuple[Place, RasterInfo] | UnreadableFileError:
    try:
        info = read_info(place.image)
        mask = None if place.mask is None else read_info(place.mask)
        parts = [read_info(path) for path in place.joined]
    except UnreadableFileError as error:
        return error
    difference = None if mask is None else grid_difference(info, mask, "mask")
    if difference is not None and not (align and mask is not None and _can_align(info, mask)):
        raise DataError(f"{place.image}: {difference}")
    if parts:
        return _join(place, info, parts, sensor, joined)
    if colour is not None and info.count == 1 and len(sensor) > 1 and info.dtype == sensor.dtype:
        from tilth.imagery.virtual import write_stack

        target = colour / f"{place.name}.vrt"
        target.parent.mkdir(parents=True, exist_ok=True)
        write_stack(target, [place.image] * len(sensor))
        place = replace(place, image=str(target))
        info = replace(info, uri=place.image, count=len(sensor))
    return place, info


def _can_align(image: RasterInfo, mask: RasterInfo) -> bool:
    return None not in (image.crs, image.transform, mask.crs, mask.transform) and shares_ground(image, mask)


def _join(place: Place, info: RasterInfo, parts: Sequence[RasterInfo], sensor: Sensor, folder: Path) -> tuple[Place, RasterInfo]:
    """Write the virtual raster of an image that is made of several rasters; its header says what kind of numbers it holds."""
    from tilth.imagery.virtual import write_stack

    count = sum(part.count for part in parts)
    strange = next((part.dtype for part in parts if not np.can_cast(part.dtype, sensor.dtype, "same_kind")), None)
    if strange is not None or count != len(sensor):
        return place, replace(info, count=count, dtype=strange or sensor.dtype)
    target = folder / f"{place.name}.vrt"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_stack(target, [part.uri for part in parts], like=info, dtype=sensor.dtype)
    return replace(place, image=str(target)), replace(info, count=count, dtype=sensor.dtype)
