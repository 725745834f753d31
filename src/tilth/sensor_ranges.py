"""Ways to bring the values of a sensor into the range that a network wants, as published protocols do it (cromss.md section 2.3).

Each is asked for by the ending of a built-in sensor's name; m and s are the mean and the deviation of a band.

- ``_8bit``: stored in 8 bits, 0 at m - 2s and 255 at m + 2s. The network sees 0 to 1.
- ``_quantised``: stored as it was measured, and brought to these 8 bits before the network, which sees the same as of ``_8bit``.
- ``_clipped``: cut to m - 2s and m + 2s, radar to the percentiles 1 and 99 of each image; then (x - m) / s.
- ``_physical``: the physical value itself: reflectance, decibels. After ``_8bit`` (``_8bit_physical``) the one that the 8 bits stand for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tilth.errors import ConfigError

if TYPE_CHECKING:
    from tilth.sensors import Band, Sensor

KINDS = ("8bit", "quantised", "clipped", "physical")

_DEVIATIONS = 2
_LEVELS = 256
_PERCENTILES = (1.0, 99.0)
_ROUNDING = 1e-9


def in_range(sensor: Sensor, kind: str) -> Sensor:
    """Make the sensor of the same bands that shows them to the network in another range.

    Args:
        sensor: whose means and deviations count.
        kind: of :data:`KINDS`.

    Returns:
        A sensor named ``<sensor>_<kind>``.

    Raises:
        ConfigError: numbers stored in 8 bits cannot be quantised or clipped once more, nor those that have a range already.
    """
    if kind != "physical" and sensor.dtype == "uint8":
        raise ConfigError(f"sensor {sensor.name}_{kind}: {sensor.name!r} is stored in 8 bits already; leave out _{kind}")
    # Means and deviations of a sensor in another range say no longer what its values are like.
    if kind != "physical" and sensor.name.rpartition("_")[2] in KINDS:
        raise ConfigError(f"sensor {sensor.name}_{kind}: {sensor.name!r} has its range already; leave out one of the two endings")
    changes = {"8bit": _stored, "quantised": _quantised, "clipped": _clipped, "physical": _physical}[kind]
    bands = tuple(band.model_copy(update=changes(band)) for band in sensor.bands)
    kept = {"dtype": "uint8"} if kind == "8bit" else {}
    return sensor.model_copy(update={"name": f"{sensor.name}_{kind}", "bands": bands} | kept)


def same_input(first: Sensor, second: Sensor) -> bool:
    """Say whether a network gets the same numbers for the same ground, however they are stored.

    So a network that learnt from 8-bit tiles (``_8bit``) sees what it knows in tiles as measured (``_quantised``). What a sensor is called,
    and what pictures show, makes no difference.
    """
    if first.band_names != second.band_names:
        return False
    for one, other in zip(first.bands, second.bands, strict=True):
        if (one.kind, one.clip_percentiles) != (other.kind, other.clip_percentiles):
            return False
        if not (_close(one.mean, other.mean) and _close(one.std, other.std)):
            return False
        ranges = _range(one), _range(other)
        if ranges[0] is None or ranges[1] is None:
            if ranges[0] is not ranges[1] or (one.scale, one.offset, first.dtype) != (other.scale, other.offset, second.dtype):
                return False
        elif not all(map(_close, ranges[0], ranges[1])):
            return False
    return True


def _close(one: float, other: float) -> bool:
    return abs(one - other) <= _ROUNDING * max(abs(one), abs(other))


def _range(band: Band) -> tuple[float, float, float] | None:
    """Ends of the range that a network can see, and how many values between them; None where it is not cut."""
    if band.clip is not None:
        return (*band.clip, float(band.levels or 0))
    width = (_LEVELS - 1) * band.scale
    if _close(band.offset, band.mean) and _close(width, band.std):
        return band.offset, band.offset + width, float(_LEVELS)
    return None


def _ends(band: Band) -> tuple[float, float]:
    return band.mean - _DEVIATIONS * band.std, band.mean + _DEVIATIONS * band.std


def _stored(band: Band) -> dict[str, Any]:
    low = _ends(band)[0]
    width = 2 * _DEVIATIONS * band.std
    return {"scale": width / (_LEVELS - 1), "offset": low, "mean": low, "std": width}


def _quantised(band: Band) -> dict[str, Any]:
    ends = _ends(band)
    return {"mean": ends[0], "std": 2 * _DEVIATIONS * band.std, "clip": ends, "levels": _LEVELS}


def _clipped(band: Band) -> dict[str, Any]:
    return {"clip_percentiles": _PERCENTILES} if band.kind == "radar" else {"clip": _ends(band)}


def _physical(band: Band) -> dict[str, Any]:  # noqa: ARG001 - the same for every band
    return {"mean": 0.0, "std": 1.0}
