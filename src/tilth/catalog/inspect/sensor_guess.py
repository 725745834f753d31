"""Which sensor took a group of images: proposals with reasons. The user decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilth.catalog.inspect import bands, names
from tilth.catalog.inspect.roles import Part
from tilth.catalog.inspect.sensor_make import as_measured, from_built_in
from tilth.catalog.statistics import RasterStatistics
from tilth.sensors import Sensor, get_sensor

_OFFSET = (900, 1150)

STORED = ("uint8", "uint16", "int16", "float32")
"""Number types that a sensor can have."""


@dataclass(frozen=True, eq=False)
class Proposal:
    """A sensor that may be the one.

    Attributes:
        name: of a built-in sensor, or of the one that is written.
        sensor: its definition.
        written: it is no built-in one and needs a file.
        scale: what the stored numbers are, in words.
        reasons: why.
        alternatives: other built-in sensors that the headers allow, with when to choose them.
        physical: the numbers have a physical unit.
    """

    name: str
    sensor: Sensor
    written: bool
    scale: str
    reasons: tuple[str, ...]
    alternatives: tuple[str, ...] = ()
    physical: bool = True


def propose_sensor(part: Part) -> Proposal | None:
    """Propose a sensor for images; None where no sensor can take their number type, or no pixel could be read."""
    group, sample = part.group, part.sample
    if group.dtype not in STORED or sample is None or not len(sample.pooled("p50")):
        return None
    described = group.band_names
    if bands.says_radar(group.words, described) or _looks_like_decibels(part):
        return _radar(part)
    if group.dtype == "uint8":
        return _eight_bit(part)
    return _reflectance(part)


def _looks_like_decibels(part: Part) -> bool:
    assert part.sample is not None
    medians = part.sample.pooled("p50")
    if part.group.count > 4 or any(bands.sentinel2_names(part.group.band_names)) or (medians >= 0).any():
        return False
    return bool((medians > -40).all() if part.group.dtype == "float32" else ((medians < -200) & (medians > -4500)).all())


def _radar(part: Part) -> Proposal:
    """Radar: decibels, hundredths of decibels, powers, or an 8-bit picture."""
    group, sample = part.group, part.sample
    assert sample is not None
    medians = sample.pooled("p50")
    found = bands.radar_names(group.band_names)
    reasons = [f"bands are called {_listed(group.band_names)}" if any(found) else f"the folder's name says radar, {group.count} bands"]
    level = ", ".join(f"{value:.4g}" for value in medians)
    if group.dtype == "float32" and (medians < 0).all():
        reasons.append(f"medians {level} fit decibels")
        if group.count == 2 and found in ([None, None], ["VV", "VH"]):
            return Proposal("s1", get_sensor("s1"), False, "decibels", tuple(reasons))
        return _made(part, "s1_stack", 1.0, "dB", "decibels", reasons, kind="radar")
    if group.dtype == "int16" and (medians < -200).all():
        reasons.append(f"medians {level} fit hundredths of a decibel")
        return _made(part, "s1_int16", 0.01, "dB", "0.01 dB", reasons, kind="radar")
    if group.dtype == "uint8":
        reasons.append("8-bit values from 0 to 255")
        return _made(
            part, "radar_8bit", 1 / 255, "digital number / 255", "8-bit picture, no decibels", reasons, kind="other", physical=False
        )
    reasons.append(f"medians {level} are no decibels: power or amplitude, perhaps")
    return _made(part, "radar_linear", 1.0, "stored number", "no decibels", reasons, kind="other", physical=False)


def _eight_bit(part: Part) -> Proposal:
    """8-bit pictures: colours, colours with near infrared, or composites of who knows what."""
    group, sample = part.group, part.sample
    assert sample is not None
    known = bands.colour_names(group.band_names)
    pictures = not (any(group.band_names) or group.words & (names.SENTINEL2_WORDS | {"hls", "landsat"})) or known[:3] == [
        "red",
        "green",
        "blue",
    ]
    if group.count == 3 and pictures:
        reason = f"3 bands of 8 bits {'called' if any(known) else 'without a description: taken as'} red, green, blue"
        return Proposal("rgb", get_sensor("rgb"), False, "8-bit picture, digital numbers", (reason,), physical=False)
    if group.count == 4 and not sample.opaque and (pictures or "nir" in known):
        return _four_bands(part, known)
    reason = f"{group.count} band{'s' * (group.count > 1)} of 8 bits; no built-in sensor has these"
    return _made(part, "composite_8bit", 1 / 255, "digital number / 255", "8-bit picture, no physical unit", [reason], physical=False)


def _four_bands(part: Part, known: list[str | None]) -> Proposal:
    from tilth.catalog.suspicion import order_suspicions

    assert part.sample is not None
    doubt = order_suspicions(part.sample.statistics, get_sensor("rgbn"))
    other = known[0] == "blue" or (bool(doubt) and not order_suspicions(part.sample.statistics, get_sensor("gf2")))
    name, second, order = ("gf2", "rgbn", "blue, green, red") if other else ("rgbn", "gf2", "red, green, blue")
    reason = f"4 bands of 8 bits, taken as {order}, near infrared" + (f" ({doubt[0]})" if other and doubt else "")
    return Proposal(
        name,
        get_sensor(name),
        False,
        "8-bit picture, digital numbers",
        (reason,),
        (f"{second}, if the bands are {'red, green, blue' if other else 'blue, green, red'}, near infrared",),
        physical=False,
    )


def _reflectance(part: Part) -> Proposal:
    """Optical bands of 16 bits or decimal numbers."""
    group, sample = part.group, part.sample
    assert sample is not None
    factor, scale, why = _scale_of(part)
    found = bands.sentinel2_names(group.band_names)
    plain = bands.colour_names(group.band_names)
    extra = set(bands.quality_bands(group.band_names)) | set(bands.terrain_bands(group.band_names))
    optical = [name for place, name in enumerate(found) if place not in extra]
    described = f"bands are called {_listed(group.band_names)}"
    if scale == "normalised":
        return _made(part, "normalised", 1.0, "stored number", "numbers scaled per band, no reflectance", [why], physical=False)
    if all(optical) and optical:
        return _sentinel2(part, [described, why], factor, scale)
    if not any(group.band_names):
        return _unnamed(part, why, factor, scale)
    if plain == list(get_sensor("hls").band_names) and group.dtype == "int16" and factor == 1e-4:
        return Proposal("hls", get_sensor("hls"), False, scale, (described, why))
    alternatives = () if not all(plain) else (f"hls has {', '.join(get_sensor('hls').band_names)} as int16",)
    return _made(part, "measured", factor, "reflectance", scale, [described, why], alternatives=alternatives)


def _scale_of(part: Part) -> tuple[float, str, str]:
    """Factor from stored number to reflectance, what that is called, and why."""
    group, sample = part.group, part.sample
    assert sample is not None
    extra = set(bands.quality_bands(group.band_names)) | set(bands.terrain_bands(group.band_names))
    chosen = [place for place in range(group.count) if place not in extra]
    # An offset that is still in would make dark bands look as bright as the others.
    raised = {id(item) for item in raised_images(part)}
    rows = [[band.p50 - 1000 * (id(item) in raised) for band in item.bands] for item in sample.statistics if item.bands]
    medians, high = np.median(np.array(rows), axis=0)[chosen], sample.pooled("p98")[chosen]
    level = f"the brightest band has a median of {_number(medians.max())}"
    if _is_normalised(part, medians):
        return 1.0, "normalised", f"the bands' medians are much alike ({_number(medians.min())} to {_number(medians.max())})"
    if group.dtype == "float32" and high.max() <= 3:
        return 1.0, "reflectance 0 to 1", level
    if medians.max() > 12_000:
        return 1 / 65535, "reflectance x 65535 (16-bit display scale, as EO Browser writes)", f"{level}, too much for reflectance x 10000"
    return 1e-4, "reflectance x 10000", f"{level} (0 to 10000 is reflectance 0 to 1)"


def _is_normalised(part: Part, medians: NDArray[np.float64]) -> bool:
    """Say whether bands were scaled one by one: cirrus is then as bright as the others, or all bands are alike."""
    if len(medians) < 10 or medians.min() <= 0:
        return False
    found = bands.sentinel2_names(part.group.band_names)
    cirrus = found.index("B10") if "B10" in found else 10 if part.group.count == 13 and not any(part.group.band_names) else None
    if cirrus is not None and cirrus < len(medians):
        return bool(medians[cirrus] > 0.4 * np.median(medians))
    return bool(medians.max() / medians.min() < 1.25)


def _sentinel2(part: Part, reasons: list[str], factor: float, scale: str) -> Proposal:
    """Sentinel-2 by the names of the bands; level 1C has B10, and air that brightens the blue."""
    group, sample = part.group, part.sample
    assert sample is not None
    found = bands.sentinel2_names(group.band_names)
    optical = [name for name in found if name]
    level, other, why = _level(part, optical)
    offset = baseline_offset(part) if factor == 1e-4 else 0.0
    reasons = [*reasons, why, *(["its darkest band lies near 1000: the offset of newer products is still in"] if offset else [])]
    built_in = get_sensor(f"s2_{level}")
    alternatives = tuple(_others(optical, other))
    if len(optical) == len(found) and set(optical) <= set(built_in.band_names):
        chosen = next(
            (
                get_sensor(name)
                for name in (f"s2_{level}", f"s2_{level}_9", f"s2_{level}_10")
                if get_sensor(name).band_names == tuple(optical)
            ),
            None,
        )
        if chosen is not None and factor == 1e-4 and not offset and group.dtype == chosen.dtype:
            return Proposal(chosen.name, chosen, False, scale, tuple(reasons), alternatives)
        name = (
            f"{chosen.name if chosen else f's2_{level}_{len(optical)}'}_{group.dtype if chosen and group.dtype != chosen.dtype else 'made'}"
        )
        sensor = from_built_in(built_in, optical, part, name, factor, -0.1 if offset else 0.0)
        return Proposal(sensor.name, sensor, True, scale, tuple(reasons), alternatives)
    return _made(part, "s2_and_more", factor, "reflectance", scale, reasons)


def _level(part: Part, optical: list[str]) -> tuple[str, str, str]:
    assert part.sample is not None
    described = part.group.words
    if "B10" in optical or described & {"l1c", "msil1c"}:
        return "l1c", "l2a", "level 1C: B10 is there" if "B10" in optical else "the name says level 1C"
    if described & {"l2a", "msil2a"} or len(optical) == 12:
        return "l2a", "l1c", "level 2A: " + ("the name says so" if described & {"l2a", "msil2a"} else "12 bands, all but B10")
    blue = float(part.sample.pooled("p02")[part.group.count - 1 if "B02" not in optical else optical.index("B02")])
    if blue > 700:
        return "l1c", "l2a", f"the darkest blue is {blue:,.0f}, so the air is still in: level 1C"
    return "l2a", "l1c", f"the darkest blue is {blue:,.0f}, too dark for level 1C: level 2A"


def _others(optical: list[str], level: str) -> list[str]:
    for name in (f"s2_{level}", f"s2_{level}_9", f"s2_{level}_10"):
        if get_sensor(name).band_names == tuple(optical):
            return [f"{name}, if it is {'top-of-atmosphere' if level == 'l1c' else 'surface'} reflectance"]
    return []


def raised_images(part: Part) -> list[RasterStatistics]:
    """Images whose darkest optical band lies near 1000, as in products since baseline 04.00, whose zero is stored as 1000.

    Where there is the band of cirrus, which is black but for high clouds, it alone decides.
    """
    sample, group = part.sample, part.group
    if sample is None or group.count < 6 or group.dtype not in {"uint16", "int16"}:
        return []
    aside = set(bands.quality_bands(group.band_names)) | set(bands.terrain_bands(group.band_names))

    cirrus = bands.sentinel2_names(group.band_names).index("B10") if "B10" in bands.sentinel2_names(group.band_names) else None

    def darkest(item: RasterStatistics) -> float:
        return (
            item.bands[cirrus].p50 if cirrus is not None else min(band.p02 for place, band in enumerate(item.bands) if place not in aside)
        )

    return [item for item in sample.statistics if item.bands and _OFFSET[0] <= darkest(item) <= _OFFSET[1]]


def baseline_offset(part: Part) -> float:
    """1000 where all images have that offset in, else 0."""
    measured = [item for item in part.sample.statistics if item.bands] if part.sample else []
    return 1000.0 if measured and len(raised_images(part)) == len(measured) else 0.0


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _listed(described: Sequence[str]) -> str:
    called = [name or "-" for name in described]
    return ", ".join(called) if len(called) <= 7 else f"{', '.join(called[:3])} ... {', '.join(called[-2:])}"


def _unnamed(part: Part, why: str, factor: float, scale: str) -> Proposal:
    """Optical bands without names: what the number of bands allows."""
    group = part.group
    reasons = [f"{group.count} bands of {group.dtype} without names", why]
    fits = {13: ("s2_l1c",), 12: ("s2_l2a",), 10: ("s2_l2a_10", "s2_l1c_10"), 9: ("s2_l2a_9", "s2_l1c_9"), 6: ("hls",)}.get(group.count, ())
    if not fits:
        if group.count in {3, 4}:
            reasons.append(f"called red, green, blue{', nir' if group.count == 4 else ''} for want of names: correct that in sensor.yaml")
        return _made(part, "measured", factor, "reflectance", scale, reasons)
    sensor = get_sensor(fits[0])
    alternatives = tuple(f"{name}, if it is that level" for name in fits[1:])
    reasons.append(f"{group.count} bands are those of {sensor.name} ({', '.join(sensor.band_names)}), if they come in that order")
    if sensor.dtype == group.dtype and factor == 1e-4:
        return Proposal(sensor.name, sensor, False, scale, tuple(reasons), alternatives)
    made = from_built_in(sensor, sensor.band_names, part, f"{sensor.name}_{group.dtype}", factor, 0.0)
    return Proposal(made.name, made, True, scale, tuple(reasons), alternatives)


def _made(
    part: Part,
    name: str,
    factor: float,
    unit: str,
    scale: str,
    reasons: list[str],
    *,
    kind: str = "optical",
    alternatives: tuple[str, ...] = (),
    physical: bool = True,
) -> Proposal:
    """A sensor measured from the images themselves."""
    sensor = as_measured(part, name, factor, unit, kind)
    return Proposal(sensor.name, sensor, True, scale, tuple(reasons), alternatives, physical)
