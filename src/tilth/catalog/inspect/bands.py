"""Names of bands as people write them, and what they say."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tilth.catalog.inspect import names

_S2 = re.compile(r"^b(?:and)?[_ ]?0?(\d{1,2}|8a)$", re.IGNORECASE)
_RADAR = re.compile(r"^(vv|vh|hh|hv)(?:[_ -].*)?$", re.IGNORECASE)
_QUALITY = re.compile(r"^(clp|qa|scl|cld|cloud|mask|fmask|valid|alpha)", re.IGNORECASE)
_TERRAIN = re.compile(r"^(dem|dsm|slope|aspect|elevation|height)", re.IGNORECASE)
_COLOURS = {
    "coastal": "coastal", "aerosol": "coastal", "blue": "blue", "green": "green", "red": "red", "nir": "nir", "nir08": "nir",
    "nir_narrow": "nir", "swir1": "swir1", "swir_1": "swir1", "swir16": "swir1", "swir2": "swir2", "swir_2": "swir2", "swir22": "swir2",
}  # fmt: skip
_BEFORE_AFTER = re.compile(r"^(pre|before|t1|post|after|t2)(?:$|[_ -])", re.IGNORECASE)


def sentinel2_names(described: Sequence[str]) -> list[str | None]:
    """Sentinel-2 band names in tilth's spelling: ``B2`` and ``b02`` become ``B02``; None for what is no such name."""
    found: list[str | None] = []
    for name in described:
        match = _S2.match(name.strip())
        code = match[1].upper() if match else ""
        known = code == "8A" or (code.isdigit() and 1 <= int(code) <= 12)
        found.append(None if not known else "B8A" if code == "8A" else f"B{int(code):02d}")
    return found


def colour_names(described: Sequence[str]) -> list[str | None]:
    """Plain names of optical bands: ``blue``, ``nir``, ``swir1``; None for what is no such name."""
    return [_COLOURS.get(name.strip().lower()) for name in described]


def radar_names(described: Sequence[str]) -> list[str | None]:
    """Polarisations, ``VV`` or ``VH``; None for what is none."""
    return [match[1].upper() if (match := _RADAR.match(name.strip())) else None for name in described]


def quality_bands(described: Sequence[str]) -> list[int]:
    """Positions of bands that are flags or probabilities, not measurements of the surface."""
    return [place for place, name in enumerate(described) if _QUALITY.match(name.strip())]


def terrain_bands(described: Sequence[str]) -> list[int]:
    """Positions of bands of elevation and slope."""
    return [place for place, name in enumerate(described) if _TERRAIN.match(name.strip())]


def dates_stacked(described: Sequence[str]) -> bool:
    """Say whether the bands are those of two dates, one after the other."""
    first = {match[1].lower() for name in described if (match := _BEFORE_AFTER.match(name.strip()))}
    return bool(first & {"pre", "before", "t1"}) and bool(first & {"post", "after", "t2"})


def says_radar(words: frozenset[str], described: Sequence[str]) -> bool:
    """Say whether names speak of radar."""
    return any(radar_names(described)) or bool(words & names.RADAR_WORDS)


def unique(described: Sequence[str], count: int) -> list[str]:
    """Names for bands, all different: those described, and ``band_1`` ... where there are none."""
    found: list[str] = []
    for place in range(count):
        name = described[place].strip() if place < len(described) and described[place].strip() else f"band_{place + 1}"
        found.append(name if name not in found else f"{name}_{place + 1}")
    return found
