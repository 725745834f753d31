"""Sensor: which bands there are, in which order and unit, and how stored numbers become network input.

The chain from file to network is data, never a hidden default: ``physical = stored * scale + offset`` per band, cut to a range and to a
number of levels where the band says so, then ``(physical - mean) / std``. ``low`` and ``high`` bound what a picture shows and what
photometric augmentation calls 0 and 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self

import pydantic

from tilth.config import Config, read_yaml
from tilth.errors import ConfigError, suggest
from tilth.sensor_ranges import KINDS, in_range

_YAML = (".yaml", ".yml")

_LIMITS = ("clip", "clip_percentiles", "levels")
_PERCENT = 100

StorageType = Literal["uint8", "uint16", "int16", "float32"]


class Band(Config):
    """One band of a sensor.

    Attributes:
        name: as users know it: ``red``, ``B8A``, ``VV``.
        kind: ``optical`` bands take illumination changes, ``radar`` bands (decibels) take speckle, ``other`` neither.
        centre_nm: centre wavelength in nanometres; None for radar.
        gsd_m: native ground sampling distance in metres; None if unknown.
        scale: physical value = stored value * scale + offset.
        offset: see ``scale``.
        mean: mean of the physical value over typical imagery; subtracted before the network.
        std: standard deviation of the physical value, greater than zero.
        low: physical value shown as black, and 0 for photometric augmentation.
        high: physical value shown as white, and 1 for photometric augmentation; greater than ``low``.
        clip: physical values below the first or above the second become that before the network sees them.
        clip_percentiles: the same by percentiles of each image as the network gets it (a crop, a tile, a window of a scene), 0 to 100.
        levels: how many values are told apart between the ends of ``clip``, both included; those between two become the lower one, as 256
            levels are what 8-bit storage leaves. None: as many as there are.
    """

    name: str = pydantic.Field(min_length=1)
    kind: Literal["optical", "radar", "other"] = "optical"
    centre_nm: float | None = None
    gsd_m: float | None = pydantic.Field(default=None, gt=0)
    scale: float = 1.0
    offset: float = 0.0
    mean: float
    std: float = pydantic.Field(gt=0)
    low: float
    high: float
    clip: tuple[float, float] | None = None
    clip_percentiles: tuple[float, float] | None = None
    levels: int | None = pydantic.Field(default=None, ge=2)

    @property
    def limited(self) -> bool:
        """Whether values are cut before the network sees them."""
        return self.clip is not None or self.clip_percentiles is not None

    @pydantic.model_serializer(mode="wrap")
    def _say_no_more(self, write: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Bands that are not cut are written as they always were: catalogs, models and hashes of either stay what they are.
        tree: dict[str, Any] = write(self)
        return {name: value for name, value in tree.items() if value is not None or name not in _LIMITS}

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if self.high <= self.low:
            raise ValueError(f"band {self.name!r}: high ({self.high:g}) must be greater than low ({self.low:g})")
        for name in ("clip", "clip_percentiles"):
            ends = getattr(self, name)
            if ends is not None and ends[1] <= ends[0]:
                raise ValueError(f"band {self.name!r}: {name}: the second value ({ends[1]:g}) must be greater than the first ({ends[0]:g})")
        if self.clip_percentiles is not None and not all(0 <= percent <= _PERCENT for percent in self.clip_percentiles):
            raise ValueError(f"band {self.name!r}: clip_percentiles are percents, 0 to {_PERCENT}")
        if self.levels is not None and self.clip is None:
            raise ValueError(f"band {self.name!r}: levels lie between the ends of clip; give clip, too")
        if self.scale == 0:
            raise ValueError(f"band {self.name!r}: scale must not be 0")
        return self


class Sensor(Config):
    """An ordered list of named bands; what a tile's channels are and how they are normalised.

    Attributes:
        name: identifier; sums are named ``first+second``.
        bands: in channel order, names unique.
        dtype: numeric type in storage.
        unit: unit of the physical value, for people: ``digital number / 255``, ``reflectance``, ``dB``.
        rgb: the three bands a picture shows as red, green and blue; a one-band picture repeats the band.

    Example:
        >>> rgb = get_sensor("rgb")
        >>> len(rgb), rgb.band_names, len(get_sensor("s1+s2_l2a"))
        (3, ('red', 'green', 'blue'), 14)
    """

    name: str = pydantic.Field(min_length=1)
    bands: tuple[Band, ...] = pydantic.Field(min_length=1)
    dtype: StorageType
    unit: str
    rgb: tuple[str, str, str]

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        duplicates = sorted({name for name in self.band_names if self.band_names.count(name) > 1})
        if duplicates:
            raise ValueError(f"band names must differ; twice: {', '.join(duplicates)}")
        for name in self.rgb:
            if name not in self.band_names:
                raise ValueError(f"rgb names a band the sensor does not have: {name!r}; {suggest(name, self.band_names)}")
        return self

    def __len__(self) -> int:
        """Return the number of bands C."""
        return len(self.bands)

    @property
    def band_names(self) -> tuple[str, ...]:
        """Band names in channel order."""
        return tuple(band.name for band in self.bands)

    @property
    def rgb_indices(self) -> tuple[int, int, int]:
        """Channel positions of the bands a picture shows as red, green and blue."""
        red, green, blue = (self.band_names.index(name) for name in self.rgb)
        return red, green, blue

    def select(self, names: Iterable[str], name: str | None = None) -> Sensor:
        """Make the sensor that keeps the named bands, in the given order.

        Args:
            names: bands to keep.
            name: name of the new sensor; by default ``old[B02,B03]``.

        Raises:
            ConfigError: a band is not in this sensor.
        """
        kept = list(names)
        for band in kept:
            if band not in self.band_names:
                raise ConfigError(f"sensor {self.name!r} has no band {band!r}; {suggest(band, self.band_names)}")
        bands = tuple(self.bands[self.band_names.index(band)] for band in kept)
        shown = self.rgb if set(self.rgb) <= set(kept) else (kept * 3)[:3]
        return Sensor(
            name=name or f"{self.name}[{','.join(kept)}]", bands=bands, dtype=self.dtype, unit=self.unit, rgb=(shown[0], shown[1], shown[2])
        )

    @property
    def limited(self) -> bool:
        """Whether values of any band are cut before the network sees them."""
        return any(band.limited for band in self.bands)

    def __add__(self, other: Sensor) -> Sensor:
        """Concatenate the bands of two sensors that see the same grid; pictures show the one with more bands."""
        shown = self if len(self) >= len(other) else other
        return Sensor(
            name=f"{self.name}+{other.name}",
            bands=self.bands + other.bands,
            dtype=self.dtype if self.dtype == other.dtype else "float32",
            unit=self.unit if self.unit == other.unit else f"{self.unit}; {other.unit}",
            rgb=shown.rgb,
        )

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a sensor from a YAML file with this class's fields; see ``docs/data.md`` for an example."""
        return cls.parse(read_yaml(path), source=str(path))


def get_sensor(name: str) -> Sensor:
    """Look up a sensor: a built-in name, the path of a YAML file, or a sum of them such as ``s1+s2_l2a`` or ``s2_l2a+radar.yaml``.

    A built-in name may end in ``_8bit``, ``_quantised``, ``_clipped`` or ``_physical``; see :mod:`tilth.sensor_ranges`.

    Raises:
        ConfigError: unknown name; the message lists the built-in ones.
        MissingFileError: no such YAML file.
    """
    if name.endswith(_YAML) and ("+" not in name or Path(name).is_file()):
        return Sensor.load(name)
    first, *others = (Sensor.load(part) if part.endswith(_YAML) else _built_in(part) for part in name.split("+"))
    return sum(others, start=first)


def sensor_parts(name: str) -> dict[str, str]:
    """Split a sum of sensors into its parts, as they are written, by name: a built-in name or the stem of a YAML file."""
    return {Path(part).stem if part.endswith(_YAML) else part: part for part in name.split("+")}


def sensor_names() -> tuple[str, ...]:
    """Names of the built-in sensors."""
    return tuple(_BUILT_IN)


def _built_in(name: str) -> Sensor:
    stem, _, kind = name.rpartition("_")
    if name not in _BUILT_IN:
        if stem and kind in KINDS:
            return in_range(_built_in(stem), kind)
        endings = f"endings: _{', _'.join(KINDS)}"
        raise ConfigError(f"unknown sensor {name!r}; {suggest(name, _BUILT_IN)} ({endings}); or give the path of a YAML file")
    return _BUILT_IN[name]


def _eight_bit(name: str, centre_nm: float, mean: float, std: float) -> Band:
    return Band(name=name, centre_nm=centre_nm, scale=1 / 255, mean=mean, std=std, low=0.0, high=1.0)


def _reflectance(name: str, centre_nm: float, gsd_m: float, mean: float, std: float, scale: float = 1e-4) -> Band:
    """Band in reflectance; mean and std are given in reflectance x 10,000, as data sets publish them."""
    high = max(0.3, round((mean + 2 * std) / 10_000, 2))
    return Band(name=name, centre_nm=centre_nm, gsd_m=gsd_m, scale=scale, mean=mean / 10_000, std=std / 10_000, low=0.0, high=high)


# ImageNet statistics, as in S5 (s5_pretrain.md section 4); near infrared takes those of red.
_RGB = (_eight_bit("red", 665, 0.485, 0.229), _eight_bit("green", 560, 0.456, 0.224), _eight_bit("blue", 490, 0.406, 0.225))
_NIR = _eight_bit("nir", 842, 0.485, 0.229)

# Means and deviations of the SSL4EO-S12 collection (cromss.md section 2); decibels for Sentinel-1, top-of-atmosphere
# reflectance x 10,000 for Sentinel-2 L1C.
_S1 = (
    Band(name="VV", kind="radar", gsd_m=10, mean=-12.54847273, std=5.25697717, low=-25.0, high=0.0),
    Band(name="VH", kind="radar", gsd_m=10, mean=-20.19237134, std=5.91150917, low=-32.0, high=-8.0),
)
_S2_NAMES = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
_S2_CENTRES_NM = (443, 490, 560, 665, 705, 740, 783, 842, 865, 940, 1375, 1610, 2190)
_S2_GSD_M = (60, 10, 10, 10, 20, 20, 20, 10, 20, 60, 60, 20, 20)
_L1C_MEAN = (
    *(1605.57504906, 1390.78157673, 1314.8729939, 1363.52445545, 1549.44374991, 2091.74883118, 2371.7172463),
    *(2299.90463006, 2560.29504086, 830.06605044, 22.10351321, 2177.07172323, 1524.06546312),
)
_L1C_STD = (
    *(786.78685367, 850.34818441, 875.06484736, 1138.84957046, 1122.17775652, 1161.59187054, 1274.39184232),
    *(1248.42891965, 1345.52684884, 577.31607053, 51.15431158, 1336.09932639, 1136.53823676),
)
# Surface reflectance (level 2A, no B10) of the same collection, as its authors publish it.
_L2A_MEAN = (752.401, 884.297, 1144.162, 1297.473, 1624.910, 2194.642, 2422.212, 2517.761, 2581.647, 2645.519, 2368.512, 1805.068)
_L2A_STD = (1108.029, 1155.152, 1183.629, 1368.114, 1370.265, 1355.554, 1416.515, 1474.789, 1439.309, 1582.280, 1455.521, 1343.484)
_L1C = Sensor(
    name="s2_l1c",
    bands=tuple(_reflectance(*row) for row in zip(_S2_NAMES, _S2_CENTRES_NM, _S2_GSD_M, _L1C_MEAN, _L1C_STD, strict=True)),
    dtype="uint16",
    unit="top-of-atmosphere reflectance",
    rgb=("B04", "B03", "B02"),
)
_L2A_ROWS = [row for row in zip(_S2_NAMES, _S2_CENTRES_NM, _S2_GSD_M, strict=True) if row[0] != "B10"]
_L2A = Sensor(
    name="s2_l2a",
    bands=tuple(_reflectance(*row, mean, std) for row, mean, std in zip(_L2A_ROWS, _L2A_MEAN, _L2A_STD, strict=True)),
    dtype="uint16",
    unit="surface reflectance",
    rgb=("B04", "B03", "B02"),
)
_THREE = ("B04", "B03", "B02")
_NINE = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B11", "B12")
_TEN = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
# Statistics of the global HLS sample that the Prithvi models were trained on.
_HLS = tuple(
    _reflectance(*row)
    for row in (
        ("blue", 490, 30, 775.2, 1281.5),
        ("green", 560, 30, 1080.9, 1270.0),
        ("red", 655, 30, 1228.6, 1399.5),
        ("nir", 865, 30, 2497.2, 1368.4),
        ("swir1", 1610, 30, 2204.2, 1291.7),
        ("swir2", 2200, 30, 1610.8, 1154.5),
    )
)
_NUMBER = "digital number / 255"
_BUILT_IN: dict[str, Sensor] = {
    sensor.name: sensor
    for sensor in (
        Sensor(name="rgb", bands=_RGB, dtype="uint8", unit=_NUMBER, rgb=("red", "green", "blue")),
        Sensor(name="rgbn", bands=(*_RGB, _NIR), dtype="uint8", unit=_NUMBER, rgb=("red", "green", "blue")),
        Sensor(name="gf2", bands=(*_RGB[::-1], _NIR), dtype="uint8", unit=_NUMBER, rgb=("red", "green", "blue")),
        Sensor(name="s1", bands=_S1, dtype="float32", unit="dB", rgb=("VV", "VH", "VV")),
        _L1C,
        _L2A,
        _L1C.select(_THREE, "s2_l1c_3"),
        _L1C.select(_NINE, "s2_l1c_9"),
        # As encoders of colour pictures want it: red, green and blue first.
        _L1C.select((*_THREE, *_NINE[3:]), "s2_l1c_9_rgb"),
        _L1C.select(_TEN, "s2_l1c_10"),
        _L1C.select([name for name in _S2_NAMES if name != "B10"], "s2_l1c_12"),
        _L2A.select(_NINE, "s2_l2a_9"),
        _L2A.select(_TEN, "s2_l2a_10"),
        Sensor(name="hls", bands=_HLS, dtype="int16", unit="surface reflectance", rgb=("red", "green", "blue")),
    )
}
