"""Definitions of sensors that no built-in one is: from a built-in one, or measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tilth.catalog.inspect import bands
from tilth.catalog.inspect.ground import ground_pixel_m
from tilth.catalog.inspect.roles import Part
from tilth.sensors import Band, Sensor


def from_built_in(built_in: Sensor, chosen: Sequence[str], part: Part, name: str, factor: float, offset: float) -> Sensor:
    """The bands of a built-in sensor, with another order, number type, scale or offset.

    Args:
        built_in: whose means and deviations are kept, since those are physical values.
        chosen: names of its bands, in the order of the files.
        part: the images.
        name: of the new sensor.
        factor: physical value = stored value * factor + offset.
        offset: see ``factor``.
    """
    kept = built_in.select(chosen)
    update: dict[str, object] = {"scale": factor, "offset": offset}
    pixel, native = ground_pixel_m(part.group.infos[0]), [band.gsd_m for band in kept.bands if band.gsd_m is not None]
    if pixel is not None and (not native or not 0.8 < pixel / min(native) < 1.25):
        # What a model learns from is the images' own resolution, whatever the instrument's is.
        update["gsd_m"] = _short(pixel)
    changed = tuple(band.model_copy(update=update) for band in kept.bands)
    dtype: Any = part.group.dtype
    return Sensor(name=name, bands=changed, dtype=dtype, unit=built_in.unit, rgb=kept.rgb)


def as_measured(part: Part, name: str, factor: float, unit: str, kind: str) -> Sensor:
    """A sensor whose means, deviations and ranges are those of the images that were looked at.

    Bands of elevation, slope and flags keep their stored numbers.
    """
    sample, group = part.sample, part.group
    assert sample is not None
    called = bands.unique(group.band_names, group.count)
    if not any(group.band_names) and group.count in {3, 4} and group.dtype != "uint8":
        called = ["red", "green", "blue", "nir"][: group.count]
    aside = set(bands.quality_bands(group.band_names)) | set(bands.terrain_bands(group.band_names))
    mean, std = _moments(part)
    low, high = sample.pooled("p02"), sample.pooled("p98")
    pixel = ground_pixel_m(group.infos[0])
    made = []
    for place, band in enumerate(called):
        scale = 1.0 if place in aside else factor
        bottom, top = low[place] * scale, high[place] * scale
        what: Any = "other" if place in aside else kind
        made.append(
            Band(
                name=band,
                kind=what,
                gsd_m=None if pixel is None else _short(pixel),
                scale=scale,
                mean=_short(mean[place] * scale),
                std=_short(max(std[place] * scale, 1e-6 if scale < 1 else 1e-3)),
                low=_short(bottom),
                high=_short(top if top > bottom else bottom + max(abs(bottom), 1.0) * 0.01),
            )
        )
    dtype: Any = group.dtype
    return Sensor(name=name, bands=tuple(made), dtype=dtype, unit=unit, rgb=_shown(called, group.band_names))


def _moments(part: Part) -> tuple[Any, Any]:
    """Mean and standard deviation of each band over all images that were looked at."""
    assert part.sample is not None
    rows = [item for item in part.sample.statistics if item.bands]
    means = np.array([[band.mean for band in item.bands] for item in rows])
    squares = np.array([[band.std**2 + band.mean**2 for band in item.bands] for item in rows])
    mean = means.mean(axis=0)
    return mean, np.sqrt(np.maximum(squares.mean(axis=0) - mean**2, 0))


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _shown(called: Sequence[str], described: Sequence[str]) -> tuple[str, str, str]:
    """Bands for pictures: red, green and blue where the names tell, else the first three."""
    for found in (bands.sentinel2_names(described), bands.colour_names(described)):
        for wanted in (("B04", "B03", "B02"), ("red", "green", "blue")):
            if all(name in found for name in wanted):
                first, second, third = (called[found.index(name)] for name in wanted)
                return first, second, third
    repeated = [*called[:3], *([called[0]] * 3)]
    return repeated[0], repeated[1], repeated[2]
