"""Does a scene show what a model was trained to see? Asked before the first pixel is read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from tilth.errors import SensorMismatchError, UsageError, suggest
from tilth.imagery.area import pixel_size_m
from tilth.imagery.gdal import has_control_points
from tilth.imagery.read import RasterInfo
from tilth.sensors import Sensor

_BAND_CODE = re.compile(r"b\d+a?")

_FAR_OFF = 1.5
"""Ground pixels larger or smaller than the sensor's by more than this factor show things of another size than trained on."""


def pick_bands(info: RasterInfo, bands: Sequence[str]) -> tuple[RasterInfo, tuple[int, ...] | None]:
    """Find bands of a scene by number or by description.

    Args:
        info: header of the scene.
        bands: numbers from 1, or descriptions (``B04``, ``b4`` and ``B_04`` are the same), in the order of the sensor; empty for all.

    Returns:
        The header as if the scene held these bands only, and their 0-based positions; None for all.

    Raises:
        UsageError: no such band.
    """
    if not bands:
        return info, None
    plain = [_plain(name) for name in info.band_names]
    picked = []
    for band in bands:
        # A description that is a number, such as a wavelength, is found by it; a position that there is none of by that name counts then.
        if _plain(band) in plain:
            picked.append(plain.index(_plain(band)))
        elif band.isdecimal() and 1 <= int(band) <= info.count:
            picked.append(int(band) - 1)
        else:
            named = [name for name in info.band_names if name]
            there = (
                f"{suggest(band, named)}, or 1 to {info.count}"
                if named
                else f"give numbers from 1 to {info.count}: its bands have no names"
            )
            raise UsageError(f"{info.uri}: no band {band!r}; {there}")
    return replace(info, count=len(picked), band_names=tuple(info.band_names[index] for index in picked)), tuple(picked)


def check_sensor(info: RasterInfo, sensor: Sensor) -> None:
    """Refuse a scene whose bands, number type or band names are not the sensor's.

    Band names count only where they speak the sensor's language: a description that names another band of the sensor, or another
    band code (``B10`` where ``B11`` belongs), contradicts; a missing or foreign one does not.

    Args:
        info: header of the scene.
        sensor: what the model expects.

    Raises:
        SensorMismatchError: what the scene has, what the model expects, and the way out if there is one.
    """
    expected = f"the model expects sensor {sensor.name!r}: {len(sensor)} bands of {sensor.dtype} ({', '.join(sensor.band_names)})"
    if info.count != len(sensor):
        found = f"{info.uri}: has {info.count} band{'s' * (info.count != 1)}; {expected}"
        raise SensorMismatchError(f"{found}; {_way_out(info, sensor)}")
    if info.dtype != sensor.dtype:
        raise SensorMismatchError(
            f"{info.uri}: stores {info.dtype}; {expected}; values of another type are scaled otherwise: "
            f"write a copy in {sensor.dtype} scaled as the training imagery was (gdal_translate -ot -scale), or train on {info.dtype}"
        )
    known = [_plain(name) for name in sensor.band_names]
    for position, (found, name) in enumerate(zip(map(_plain, info.band_names), known, strict=True)):
        other_code = _BAND_CODE.fullmatch(found) and _BAND_CODE.fullmatch(name)
        if found and found != name and (found in known or other_code):
            raise SensorMismatchError(
                f"{info.uri}: band {position + 1} is described as {info.band_names[position]!r} "
                f"where {sensor.band_names[position]!r} belongs; {expected}, in this order{_reordered(info, sensor)}"
            )


def resolution_note(info: RasterInfo, sensor: Sensor) -> str | None:
    """Say that the pixels of a scene are far larger or smaller on the ground than those the model was trained on.

    Args:
        info: header of the scene.
        sensor: whose finest ``gsd_m`` counts, for stacks of bands are resampled to that.

    Returns:
        One line with the way out; None where all is well, or where nothing is known.
    """
    known = [band.gsd_m for band in sensor.bands if band.gsd_m is not None]
    if not known or info.crs is None or info.transform is None:
        return None
    size = pixel_size_m(info.width, info.height, info.crs, info.transform)
    if size is None:
        return None
    expected, found = min(known), (size[0] * size[1]) ** 0.5
    if 1 / _FAR_OFF <= found / expected <= _FAR_OFF:
        return None
    a, _, _, d, _, _ = info.transform
    # In units of the CRS, whatever those are.
    units = expected * float((a * a + d * d) ** 0.5) / size[0]
    return (
        f"{info.uri}: its pixels cover {found:.3g} m, those of sensor {sensor.name!r} {expected:g} m; "
        f"the map will be worse unless the scene is resampled: --resolution {units:.6g}"
    )


def why_unplaced(info: RasterInfo) -> str:
    """Say why the map of a scene has no place on the Earth, and the way out if there is one."""
    if info.crs is None and has_control_points(info.uri):
        return "is placed by ground control points only, so the map has no CRS; bring it onto a grid first: gdalwarp"
    if info.crs is None:
        return "has no CRS, so the map has none"
    return "has a CRS but no geotransform, so nobody knows where the map lies"


def _way_out(info: RasterInfo, sensor: Sensor) -> str:
    if info.count < len(sensor):
        return "bands that are not there cannot be made up: take a model of fewer bands"
    plain = [_plain(name) for name in info.band_names]
    named = all(_plain(name) in plain for name in sensor.band_names)
    shown = ",".join(sensor.band_names if named else [str(index) for index in range(1, len(sensor) + 1)])
    return f"pick those by name or number, in this order: --bands {shown}"


def _reordered(info: RasterInfo, sensor: Sensor) -> str:
    plain = {_plain(name) for name in info.band_names}
    return f": --bands {','.join(sensor.band_names)}" if {_plain(name) for name in sensor.band_names} <= plain else ""


def _plain(name: str) -> str:
    """Bring a band name to one spelling: ``B04``, ``b4`` and ``B_04`` are the same."""
    letters = re.sub(r"[^a-z0-9]", "", name.casefold())
    return re.sub(r"^b0+(?=\d)", "b", letters)
