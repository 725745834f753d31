"""What a card says of LMDB stores: which arrays they hold under which keys, and which split a store is. Light to import."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import Literal, Self

import pydantic

from tilth.classes import get_scheme
from tilth.config import Config
from tilth.errors import ConfigError
from tilth.sensors import Sensor, get_sensor


class StoredArray(Config):
    """One kind of record.

    Attributes:
        key: with ``{index}``, which counts from 0.
        store: file or folder name of its store, ``*`` for any text, where each kind has a store of its own.
        dtype: NumPy name of the stored type.
        sensor: of images: built-in name, or a whole definition, for the numbers as they are stored.
        name_start: what the record's id has before the part that all records of one place share.
    """

    key: str = pydantic.Field(pattern=r"^[^{}]*\{index\}[^{}]*$")
    store: str | None = None
    dtype: Literal["uint8", "uint16", "int16", "float32", "float64"] = "uint8"
    sensor: str | Sensor | None = None
    name_start: str = ""


class Stores(Config):
    """LMDB stores in place of rasters; every index is a place.

    Attributes:
        images: arrays whose bands make an image, in this order.
        label: class ids, or codes as the card's labels say.
        names: file or folder names of the stores of this set, ``*`` for any text, where those of others lie beside them.
        seasons: how many images and labels a record holds, along its first axis; 1: none, and no such axis. Each is a tile of its own, and
            all of a place share its ``location_id``.
        gsd_m: ground sampling distance in metres.
        label_layer: which layer is the label, counted from 0, where it has several.
        splits: split by a text in the store's name, the first that fits.
        rest: split of other stores.
        shares: published share of each class in percent, by split, in the order of the classes.
        other_order: built-in scheme of the same classes in another order, that is tried where shares do not fit.
    """

    images: tuple[StoredArray, ...] = pydantic.Field(min_length=1)
    label: StoredArray | None = None
    names: str = "*"
    seasons: int = pydantic.Field(default=1, ge=1)
    gsd_m: float | None = pydantic.Field(default=None, gt=0)
    label_layer: int = pydantic.Field(default=1, ge=0)
    splits: dict[str, str] = pydantic.Field(default_factory=dict)
    rest: str | None = None
    shares: dict[str, tuple[float, ...]] = pydantic.Field(default_factory=dict)
    other_order: str | None = None

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if len({array.store is None for array in self.arrays}) > 1:
            raise ValueError("give a store for each array, or for none")
        try:
            self.sensor()
            if self.other_order is not None:
                get_scheme(self.other_order)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def arrays(self) -> tuple[StoredArray, ...]:
        """Images, and the label if there is one."""
        return self.images if self.label is None else (*self.images, self.label)

    def sensor(self) -> Sensor:
        """Return the sensor of all bands.

        Raises:
            ConfigError: an array of images without a sensor, or an unknown one.
        """
        return reduce(add, self.part_sensors())

    def part_sensors(self) -> list[Sensor]:
        """Return the sensor of each array of images."""
        if any(array.sensor is None for array in self.images):
            raise ConfigError("stores.images: every array needs a sensor")
        given = [array.sensor for array in self.images if array.sensor is not None]
        return [get_sensor(sensor) if isinstance(sensor, str) else sensor for sensor in given]
