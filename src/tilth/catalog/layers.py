"""Several sensors of one place as one image: each image of a build joined with the rasters of the same name in other folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tilth.catalog.config import BuildConfig
from tilth.catalog.discover import Found, Problem, list_files
from tilth.catalog.headers import Header, check_sensor
from tilth.catalog.uris import absolute_uri
from tilth.errors import DataError, MissingFileError
from tilth.imagery.read import RasterInfo, read_info
from tilth.sensors import Sensor, get_sensor, sensor_parts


def find_layers(found: Sequence[Found], config: BuildConfig) -> tuple[list[Found], list[Problem]]:
    """Find the rasters that belong to each image, in the order of the sensor's parts.

    Returns:
        The images that have them all, and those that lack one.

    Raises:
        MissingFileError: a layer's folder or file does not exist.
        DataError: no image has all its layers.
    """
    if not config.layers:
        return list(found), []
    places = {name: _files_by_stem(Path(absolute_uri(config.layers[name])), config) for name in _layer_names(config)}
    whole, problems = [], []
    for item in found:
        stem = config.layer_name.replace("{stem}", Path(item.image).stem)
        files = {name: [file for file in by_stem.get(stem, ()) if str(file) != item.image] for name, by_stem in places.items()}
        wrong = next((name for name, candidates in files.items() if len(candidates) != 1), None)
        if wrong is None:
            whole.append(replace(item, layers=tuple(str(candidates[0]) for candidates in files.values())))
        elif files[wrong]:
            problems.append(Problem(item.image, f"layer {wrong} has {len(files[wrong])} rasters named {stem}: {files[wrong][0]}, ..."))
        else:
            problems.append(Problem(item.image, f"layer {wrong} has no raster named {stem} in {config.layers[wrong]}"))
    if not whole:
        raise DataError(f"{problems[0].file}: {problems[0].reason}; none of {len(found)} images has all its layers; set layer_name")
    return whole, problems


def check_layers(headers: Sequence[Header], config: BuildConfig, sensor: Sensor) -> None:
    """Refuse images and layers that are not of their part of the sensor.

    Raises:
        SensorMismatchError: another number of bands or another type than the part's.
    """
    if not config.layers:
        check_sensor([header.image for header in headers], sensor)
        return
    parts = sensor_parts(config.sensor)
    own = next(part for name, part in parts.items() if name not in config.layers)
    check_sensor([header.image for header in headers], get_sensor(own))
    for index, name in enumerate(_layer_names(config)):
        check_sensor([header.layers[index] for header in headers], get_sensor(parts[name]))


def join_layers(item: Found, header: Header, config: BuildConfig, sensor: Sensor, target: Path) -> RasterInfo:
    """Write the virtual raster of an image and its layers, on the image's grid, and read its header."""
    from tilth.imagery.virtual import write_stack

    by_name = dict(zip(_layer_names(config), item.layers, strict=True))
    files = [by_name.get(part, item.image) for part in sensor_parts(config.sensor)]
    return read_info(str(write_stack(target, files, like=header.image, dtype=sensor.dtype)))


def _layer_names(config: BuildConfig) -> list[str]:
    return [name for name in sensor_parts(config.sensor) if name in config.layers]


def _files_by_stem(place: Path, config: BuildConfig) -> dict[str, list[Path]]:
    if not place.exists():
        raise MissingFileError(f"{place}: no such folder or file of a layer")
    files = list_files(place, config.suffixes, recursive=True) if place.is_dir() else [place]
    by_stem: dict[str, list[Path]] = {}
    for file in files:
        by_stem.setdefault(file.stem, []).append(file)
    return by_stem
