"""Doubts about scaling and band order that the numbers of many images raise together.

A sensor says what stored numbers mean, and nothing in a file contradicts it, so a wrong one trains a network on nonsense without an error.
What contradicts it is physics: reflectance lies between 0 and about 1, backscatter of land between -30 and 0 dB, neighbouring parts of
the spectrum look alike, water is not orange. One image may be odd; most images of a catalog may not. The thresholds were set on some 700
sound images of 20 sources (satellite, aerial, drone, 3 to 13 bands, 8 bit and reflectance), none of which may raise a doubt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from tilth.catalog import spectrum
from tilth.catalog.statistics import RasterStatistics
from tilth.sensors import Sensor

LEAST_VALID = 0.05
"""Images with a smaller share of valid pixels are not judged."""

HIGHEST_REFLECTANCE = 1.2
"""Fresh snow and thick cloud reach about 1.1 at the top of the atmosphere."""

OFFSET = 1000
"""What Sentinel-2 products add to stored reflectance since processing baseline 04.00 (January 2022)."""

_EIGHT_BIT = 255
# 255 as reflectance x 10,000; even deep water mostly has brighter bands, and an image is mostly more than deep water.
_DARKEST_REFLECTANCE = 0.0256


def scale_suspicions(statistics: Sequence[RasterStatistics], sensor: Sensor) -> list[str]:
    """Doubt that stored values are scaled as the sensor says.

    Judged are medians over images, by what the bands are: optical bands in reflectance, optical bands in 8 bit, radar in decibels, and
    for anything else the range that the sensor itself declares.

    Args:
        statistics: of images that the sensor is said to have taken; those of another number of bands, and those that are constant or
            nearly without valid pixels, are passed over.
        sensor: what was declared.

    Returns:
        Plain sentences with the numbers; empty when nothing is suspicious.
    """
    images = judged(statistics, sensor)
    if not images:
        return []
    stored = np.array([[(b.minimum, b.p02, b.p50, b.p98, b.maximum) for b in image.bands] for image in images]).transpose(2, 0, 1)
    kinds = np.array([_kind(sensor, index) for index in range(len(sensor))])
    result: list[str] = []
    sea = _dark_water(images, sensor)
    judges: dict[str, Callable[[NDArray[np.float64], Sensor], list[str]]] = {
        "reflectance": partial(_reflectance, sea=sea),
        "eight bit": partial(_eight_bit, sea=sea),
        "decibel": _decibel,
        "other": _declared_range,
    }
    for kind, judge in judges.items():
        members = np.flatnonzero(kinds == kind)
        if members.size:
            result += judge(stored[:, :, members], sensor.select(sensor.band_names[index] for index in members))
    return result


def order_suspicions(statistics: Sequence[RasterStatistics], sensor: Sensor) -> list[str]:
    """Doubt that bands come in the order that the sensor says.

    Three independent looks: parts of the spectrum that must resemble each other do so only in another order (sensors with near or
    short-wave infrared); the colours of water, bare ground and shadow make sense only with red and blue exchanged; cross-polarised
    backscatter is stronger than co-polarised.

    Args:
        statistics: as for :func:`scale_suspicions`.
        sensor: what was declared.

    Returns:
        Plain sentences with the numbers; empty when nothing is suspicious.
    """
    images = judged(statistics, sensor)
    if not images:
        return []
    return [
        *spectrum.misplaced_bands(images, sensor),
        *spectrum.exchanged_colours(images, sensor),
        *_exchanged_polarisations(images, sensor),
    ]


def judged(statistics: Sequence[RasterStatistics], sensor: Sensor) -> list[RasterStatistics]:
    """Keep the images that can be judged: as many bands as the sensor, enough valid pixels, not constant."""
    return [
        image
        for image in statistics
        if len(image.bands) == len(sensor) and image.valid_share >= LEAST_VALID and any(band.distinct > 1 for band in image.bands)
    ]


def _kind(sensor: Sensor, index: int) -> str:
    band = sensor.bands[index]
    if band.kind == "radar" and "dB" in sensor.unit:
        return "decibel"
    if band.kind == "optical" and "reflectance" in sensor.unit:
        return "reflectance"
    if band.kind == "optical" and sensor.dtype == "uint8" and abs(band.scale * _EIGHT_BIT - 1) < 1e-3 and not band.offset:
        return "eight bit"
    return "other"


def _physical(stored: NDArray[np.float64], sensor: Sensor) -> NDArray[np.float64]:
    """Turn stored values (..., C) into physical ones."""
    scale, offset = np.array([(band.scale, band.offset) for band in sensor.bands]).T
    physical: NDArray[np.float64] = stored * scale + offset
    return physical


def _dark_water(images: Sequence[RasterStatistics], sensor: Sensor) -> bool:
    """Whether most images show open water, which may be nearly black, and are stored as the sensor stores them."""
    return float(np.mean(spectrum.mostly_water(images, sensor))) > 0.5 and all(image.info.dtype == sensor.dtype for image in images)


def _reflectance(stored: NDArray[np.float64], sensor: Sensor, *, sea: bool) -> list[str]:
    """Judge reflectance by (5, N, C): minimum, 2 %, median, 98 %, maximum of each band of each image; the sea may be dark."""
    lowest, _, middle, high, top = stored
    physical = _physical(np.median(middle, axis=0), sensor)
    brightest = int(np.argmax(physical))
    name, number = sensor.band_names[brightest], float(np.median(middle, axis=0)[brightest])
    says = f"band {name}: median {number:,.4g} stored = reflectance {physical[brightest]:.2g}"
    if physical[brightest] > HIGHEST_REFLECTANCE:
        share = number / 65535
        reason = (
            "a 16-bit picture may be scaled by 65535, not by" if 0.02 < share < 1 and top.max() > 20_000 else "they may not be scaled by"
        )
        return [f"{says}, but reflectance lies in 0 to 1; {reason} {1 / sensor.bands[brightest].scale:,.0f}"]
    if physical[brightest] < 0 and number < -1:
        return [f"{says}, but reflectance lies in 0 to 1"]
    if np.median(_physical(high, sensor).max(axis=1)) < _DARKEST_REFLECTANCE:
        if top.max() <= 2:
            return [f"{says}: values lie in {lowest.min():.3g} to {top.max():.3g}; they may be reflectance already, not to be scaled again"]
        if sea:
            return []
        if top.max() <= _EIGHT_BIT:
            return [f"{says}: no value exceeds {top.max():.0f}; an 8-bit picture, not reflectance?"]
        return [f"{says}, 98 % of the values of most images lie below {np.median(high.max(axis=1)):,.4g}: nearly black; another scale?"]
    return _baseline_offset(stored, sensor)


def _baseline_offset(stored: NDArray[np.float64], sensor: Sensor) -> list[str]:
    """Look for the offset of 1000 where the sensor declares none."""
    plain = [index for index, band in enumerate(sensor.bands) if abs(band.scale - 1e-4) < 1e-9 and band.offset == 0]
    if len(plain) != len(sensor):
        return []
    low, middle = stored[1], stored[2]
    advice = f"Sentinel-2 products since January 2022 store reflectance x 10,000 + {OFFSET:,}; use a sensor with offset -0.1"
    cirrus = [index for index, band in enumerate(sensor.bands) if band.centre_nm is not None and 1340 <= band.centre_nm <= 1420]
    if cirrus:
        level = float(np.median(middle[:, cirrus[0]]))
        if OFFSET - 50 <= level <= OFFSET + 200:
            return [f"band {sensor.band_names[cirrus[0]]} has median {level:,.0f} where the atmosphere lets nothing through: {advice}"]
        return []
    darkest = low.min(axis=1)
    red, infrared = (_nearest(sensor, nanometres) for nanometres in (660, 850))
    if red is None or infrared is None:
        return []
    # Over plants red is near 200 and near infrared near 3,000; deserts, bright in every band, cannot be judged.
    green = middle[:, infrared] > 1.5 * middle[:, red]
    if green.sum() < 2 or darkest.min() < OFFSET - 50 or np.median(darkest[green]) > OFFSET + 500 or darkest[green].max() > OFFSET + 1000:
        return []
    return [f"no image has a value below {darkest.min():,.0f} in its darkest band (98 % of pixels), plants and shadow included: {advice}"]


def _nearest(sensor: Sensor, nanometres: float) -> int | None:
    """Band within 40 nm of a wavelength, or None."""
    distances = [abs((band.centre_nm or 0) - nanometres) for band in sensor.bands]
    best = int(np.argmin(distances))
    return best if distances[best] <= 40 else None


def _eight_bit(stored: NDArray[np.float64], _sensor: Sensor, *, sea: bool) -> list[str]:
    lowest, _, _, high, top = stored
    level = float(np.median(high.max(axis=1)))
    if top.max() > _EIGHT_BIT:
        return [f"values reach {top.max():,.6g}: 8 bits end at {_EIGHT_BIT}"]
    if lowest.min() < 0:
        return [f"values go down to {lowest.min():,.4g}: 8 bits start at 0"]
    if top.max() <= 1:
        return [f"values lie in {lowest.min():.3g} to {top.max():.3g}: already divided by {_EIGHT_BIT}?"]
    if level <= 15 and not sea:
        return [f"98 % of the values of most images lie below {level:.0f} of {_EIGHT_BIT}: nearly black; class ids or another scale?"]
    return []


def _decibel(stored: NDArray[np.float64], sensor: Sensor) -> list[str]:
    _, low, middle, high, top = stored
    level = np.median(middle, axis=0)
    physical = _physical(level, sensor)
    says = f"band {sensor.band_names[0]}: median {level[0]:,.4g} stored = {physical[0]:.4g} dB"
    land = "land lies in -30 to 0 dB"
    if physical.max() < -45:
        reason = "values in hundredths of a decibel?" if -45 < physical.max() / 100 < 0 else "another scale?"
        return [f"{says}, but {land}; {reason}"]
    # Not what is stored: decibels may be kept in 8 bits, by a sensor that says so.
    if _physical(low, sensor).min() >= 0:
        if level.max() <= 1.5:
            return [f"{says}, and hardly a value is negative, but {land}; linear backscatter? decibels are 10 log10 of it"]
        if np.median(high.max(axis=1)) <= 50:
            return [f"{says}, and hardly a value is negative, but {land}; sign lost?"]
        if top.max() <= _EIGHT_BIT:
            return [f"{says}, and values lie in 0 to {top.max():.0f}, but {land}; an 8-bit picture?"]
        return [f"{says}, and hardly a value is negative, but {land}; amplitude, not decibels?"]
    if -1 < physical.min() <= physical.max() < 0 and abs(sensor.bands[0].scale) < 0.1:
        return [f"{says}, but {land}; decibels already, not to be scaled again?"]
    return []


def _declared_range(stored: NDArray[np.float64], sensor: Sensor) -> list[str]:
    """Compare with the range of a picture that the sensor itself declares, widened threefold."""
    result = []
    physical = np.median(stored[2], axis=0)
    for band, level, number in zip(sensor.bands, _physical(physical, sensor).tolist(), physical.tolist(), strict=True):
        span = band.high - band.low
        if not band.low - 3 * span <= level <= band.high + 3 * span:
            says = f"band {band.name}: median {number:,.4g} stored = {level:,.4g} {sensor.unit}"
            result.append(f"{says}, far outside of {band.low:g} to {band.high:g}, which the sensor declares")
    return result


def _exchanged_polarisations(images: Sequence[RasterStatistics], sensor: Sensor) -> list[str]:
    """Doubt co- and cross-polarised bands whose cross-polarised backscatter is the stronger one."""
    names = [name.upper() for name in sensor.band_names]
    for co, cross in (("VV", "VH"), ("HH", "HV")):
        if co in names and cross in names:
            first, second = names.index(co), names.index(cross)
            scale = sensor.bands[first].scale
            gaps = np.array([(image.bands[second].p50 - image.bands[first].p50) * scale for image in images])
            if np.median(gaps) > 2 and (gaps > 0).mean() >= 0.9:
                return [
                    f"{co} and {cross} look exchanged: {cross} is stronger by {np.median(gaps):.1f} dB (median of {len(gaps)} images); "
                    f"over land {co} is the stronger one"
                ]
    return []
