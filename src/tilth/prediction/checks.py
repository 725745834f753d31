"""Does a scene show what a model was trained to see? Asked before the first pixel is read."""

from __future__ import annotations

import re

from tilth.errors import SensorMismatchError
from tilth.imagery.read import RasterInfo
from tilth.sensors import Sensor

_BAND_CODE = re.compile(r"b\d+a?")


def check_sensor(info: RasterInfo, sensor: Sensor) -> None:
    """Refuse a scene whose bands, number type or band names are not the sensor's.

    Band names count only where they speak the sensor's language: a description that names another band of the sensor, or another
    band code (``B10`` where ``B11`` belongs), contradicts; a missing or foreign one does not.

    Args:
        info: header of the scene.
        sensor: what the model expects.

    Raises:
        SensorMismatchError: what the scene has, what the model expects.
    """
    expected = f"the model expects sensor {sensor.name!r}: {len(sensor)} bands of {sensor.dtype} ({', '.join(sensor.band_names)})"
    if info.count != len(sensor):
        raise SensorMismatchError(f"{info.uri}: has {info.count} band{'s' * (info.count != 1)}; {expected}")
    if info.dtype != sensor.dtype:
        raise SensorMismatchError(f"{info.uri}: stores {info.dtype}; {expected}; values of another type are scaled otherwise")
    known = [_plain(name) for name in sensor.band_names]
    for position, (found, name) in enumerate(zip(map(_plain, info.band_names), known, strict=True)):
        other_code = _BAND_CODE.fullmatch(found) and _BAND_CODE.fullmatch(name)
        if found and found != name and (found in known or other_code):
            raise SensorMismatchError(
                f"{info.uri}: band {position + 1} is described as {info.band_names[position]!r} "
                f"where {sensor.band_names[position]!r} belongs; {expected}, in this order"
            )


def _plain(name: str) -> str:
    """Bring a band name to one spelling: ``B04``, ``b4`` and ``B_04`` are the same."""
    letters = re.sub(r"[^a-z0-9]", "", name.casefold())
    return re.sub(r"^b0+(?=\d)", "b", letters)
