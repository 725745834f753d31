"""Reading the headers of a build, and refusing what does not fit together before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from tilth.catalog.config import BuildConfig
from tilth.catalog.discover import Found, Problem
from tilth.errors import DataError, MissingFileError, SensorMismatchError
from tilth.imagery.grid import grid_difference
from tilth.imagery.read import RasterInfo, read_info
from tilth.sensors import Sensor

Progress = Callable[[int, int], None]
"""Told (files or tiles done, all of them)."""

# Headers are small reads that wait for the disk or the network, so more threads than cores pay.
THREADS = 8


class GridError(DataError):
    """A label lies on another grid than its image."""


@dataclass(frozen=True)
class Header:
    """What the files of one image say of themselves.

    Attributes:
        image: of the image.
        layers: of the rasters to join with it, in the order of ``Found.layers``.
        resample: whether its label lies on another grid and is to be resampled.
    """

    image: RasterInfo
    layers: tuple[RasterInfo, ...] = ()
    resample: bool = False


def read_headers(
    found: Sequence[Found], config: BuildConfig, left_out: list[Problem], progress: Progress | None
) -> tuple[list[Found], list[Header]]:
    """Read all headers; keep the images that can be used, note the others.

    Raises:
        DataError: a label on another grid than its scene, or (``strict``) any problem.
        MissingFileError: ``strict``, and a file is gone.
    """
    good, headers = [], []
    with ThreadPoolExecutor(THREADS) as pool:
        for done, (item, header) in enumerate(zip(found, pool.map(partial(_header, config=config), found), strict=True), start=1):
            if isinstance(header, Header):
                good.append(item)
                headers.append(header)
            elif config.strict or (item.is_scene and isinstance(header, GridError)):
                raise header
            else:
                left_out.append(Problem(item.image, str(header).removeprefix(f"{item.image}: ")))
            if progress is not None:
                progress(done, len(found))
    return good, headers


def _header(item: Found, config: BuildConfig) -> Header | DataError | MissingFileError:
    """Read the headers of an image, its layers and its label; problems are returned, not raised."""
    try:
        image = read_info(item.image)
        layers = tuple(read_info(file) for file in item.layers)
        resample = False
        if item.label is not None and config.vector_labels:
            if image.crs is None or image.transform is None:
                missing = "CRS" if image.crs is None else "geotransform"
                raise GridError(f"{image.uri}: has no {missing}, so the polygons of {item.label} have no place in it")
        elif item.label is not None:
            resample = _on_another_grid(image, read_info(item.label), config)
    except (DataError, MissingFileError) as error:
        return error
    return Header(image, layers, resample)


def _on_another_grid(image: RasterInfo, label: RasterInfo, config: BuildConfig) -> bool:
    """Tell whether a label is to be resampled.

    Raises:
        GridError: it lies on another grid and is not to be, or cannot be, resampled.
    """
    difference = grid_difference(image, label)
    if difference is None:
        return False
    placed = all(info.crs is not None and info.transform is not None for info in (image, label))
    if config.align == "refuse":
        raise GridError(f"{image.uri}: {difference}{', or set align to resample' if placed else ''}")
    if not placed:
        raise GridError(f"{image.uri}: {difference}; without a CRS and a geotransform of both it cannot be resampled")
    return True


def check_sensor(infos: Sequence[RasterInfo], sensor: Sensor) -> None:
    """Refuse images that are not of a sensor.

    Raises:
        SensorMismatchError: another number of bands or another type.
    """
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
