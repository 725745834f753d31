"""What a card says of a data set: where its files lie, what they mean, who made it and on which terms. Light to import.

A card is data, never code. It may grow: ``layers`` and ``labels`` are lists, and each label says its kind, although one layer is taken at
a time and masks are the only labels so far.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import pydantic

from tilth.config import Config
from tilth.datasets.division import Splits, Windows
from tilth.datasets.encoding import Labels
from tilth.datasets.patterns import Patterns, one_or_more, placeholders
from tilth.datasets.store_config import Stores
from tilth.errors import ConfigError, suggest
from tilth.sensors import Sensor, get_sensor


class Licence(Config):
    """On which terms the data may be used.

    Attributes:
        name: SPDX-like name, or a few words.
        commercial: whether commercial use is allowed; None if that is not known.
        note: what else a user must know.
    """

    name: str = pydantic.Field(min_length=1)
    commercial: bool | None = None
    note: str | None = None


class Layer(Config):
    """One kind of raster that every place of the data set has.

    Attributes:
        name: as asked for with ``--layer``.
        pattern: path of the rasters with ``{placeholders}``, ``{stem}`` among them; several are tried together. Folders above may differ.
        sensor: built-in name, or a whole definition; None leaves it to whoever prepares the set.
        gsd_m: ground sampling distance in metres; None where it varies or is not known.
        joined: further rasters of the same place, and ``pattern`` among them: their bands in this order make the image, through a virtual
            raster beside the catalog, on the grid of ``pattern``. A placeholder that ``pattern`` does not have stands for files of another
            date: those of a place are paired with its images in the order of the dates in their names.
        location: placeholder that names the place, where a place has several images; ``location_id`` in the catalog.
        dated: placeholder that holds the date of an image, as ``YYYYMMDD``, with ``THHMMSS`` behind it or not.
        leave_out: names of files that fit the pattern and are no images of this layer; ``*`` stands for any text.
        grey: what becomes of pictures with one band where the sensor has three: ``refuse`` them, or ``repeat`` the band, through a virtual
            raster beside the catalog. Sets of photographs and of collected imagery hold a few such pictures, and their users turn them
            into colour.
    """

    name: str = "image"
    pattern: Patterns
    sensor: str | Sensor | None = None
    gsd_m: float | None = pydantic.Field(default=None, gt=0)
    leave_out: Annotated[tuple[str, ...], pydantic.BeforeValidator(one_or_more)] = ()
    joined: Annotated[tuple[str, ...], pydantic.BeforeValidator(one_or_more)] = ()
    location: str | None = None
    dated: str | None = None
    grey: Literal["refuse", "repeat"] = "refuse"

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        fields = {placeholders(pattern) for pattern in self.pattern}
        if len(fields) > 1 or "stem" not in next(iter(fields)):
            raise ValueError(f"layer {self.name!r}: every pattern needs {{stem}} and the same placeholders; got {', '.join(self.pattern)}")
        self._check_joined()
        if isinstance(self.sensor, str):
            try:
                get_sensor(self.sensor)
            except ConfigError as error:
                raise ValueError(f"layer {self.name!r}: {error}") from None
        return self

    def _check_joined(self) -> None:
        for name in (self.location, self.dated):
            if name is not None and name not in self.placeholders:
                raise ValueError(f"layer {self.name!r}: the pattern has no {{{name}}}")
        if self.joined and not set(self.pattern) <= set(self.joined):
            raise ValueError(f"layer {self.name!r}: joined must list the pattern itself, {self.pattern[0]!r}, in the order of the bands")
        own = {name for pattern in self.joined for name in placeholders(pattern) - self.placeholders}
        if len(own) > 1 or (own and (self.dated is None or self.location is None)):
            raise ValueError(f"layer {self.name!r}: joined may have one placeholder of its own, and needs location and dated then")

    @property
    def placeholders(self) -> frozenset[str]:
        """Names between braces."""
        return placeholders(self.pattern[0])

    def find_sensor(self) -> Sensor | None:
        """Return the sensor, or None where the card leaves it open."""
        return get_sensor(self.sensor) if isinstance(self.sensor, str) else self.sensor


class Archive(Config):
    """One file as the publisher hands it out; without a sum its contents are not verified.

    Attributes:
        md5: MD5 of the file, 32 hexadecimal digits.
        sha256: SHA-256 of the file, 64 hexadecimal digits.
    """

    md5: str | None = pydantic.Field(default=None, pattern="^[0-9a-f]{32}$")
    sha256: str | None = pydantic.Field(default=None, pattern="^[0-9a-f]{64}$")


class Download(Config):
    """How to get the data.

    Attributes:
        torchgeo: name of the class of ``torchgeo.datasets`` that downloads it.
        arguments: arguments of one call each; ``root`` and ``download`` are set.
        instructions: what to do by hand, where torchgeo cannot.
    """

    torchgeo: str | None = None
    arguments: tuple[dict[str, Any], ...] = ({},)
    instructions: str | None = None

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if (self.torchgeo is None) == (self.instructions is None):
            raise ValueError("give either torchgeo or instructions")
        return self


class Card(Config):
    """A data set, described.

    Attributes:
        name: as typed: lower case letters, digits, ``-`` and ``_``.
        title: as people know it.
        description: what it shows, in a sentence or two.
        homepage: where it is published; None for a layout that anybody may use.
        citation: paper to cite.
        licence: terms of use.
        layers: what every place has; one of them is taken.
        stores: LMDB stores, instead of layers.
        labels: at most one so far.
        splits: who belongs where.
        windows: how large scenes are cut.
        images: number of images as published, where ``splits`` does not say it.
        archives: what the publisher hands out, by file name.
        download: how to get it; None for the user's own data.
    """

    name: str = pydantic.Field(pattern="^[a-z0-9][a-z0-9_-]*$")
    title: str = pydantic.Field(min_length=1)
    description: str = pydantic.Field(min_length=1)
    homepage: str | None = None
    citation: str | None = None
    licence: Licence
    layers: tuple[Layer, ...] = ()
    stores: Stores | None = None
    labels: tuple[Labels, ...] = pydantic.Field(default=(), max_length=1)
    splits: Splits = Splits()
    windows: Windows = Windows()
    images: int | None = pydantic.Field(default=None, ge=1)
    archives: dict[str, Archive] = pydantic.Field(default_factory=dict)
    download: Download | None = None

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if bool(self.layers) == (self.stores is not None):
            raise ValueError("give either layers or stores")
        for label in self.labels:
            if bool(label.pattern) != bool(self.layers):
                raise ValueError("labels of layers need a pattern, and those of stores have none")
        if self.stores is not None and bool(self.labels) != (self.stores.label is not None):
            raise ValueError("stores.label and labels need each other")
        for split, shares in self.stores.shares.items() if self.stores is not None else ():
            if not self.labels or len(shares) != len(self.labels[0].classes):
                raise ValueError(f"stores.shares: {split} needs a share for each class of labels, got {len(shares)}")
        names = [layer.name for layer in self.layers]
        if len(set(names)) < len(names):
            raise ValueError(f"layer names must differ; got {', '.join(names)}")
        for layer in self.layers:
            for label in self.labels:
                if label.by_place is not None and label.by_place not in layer.placeholders:
                    raise ValueError(f"labels by_place: layer {layer.name!r} has no {{{label.by_place}}}")
                for pattern in label.pattern:
                    strange = placeholders(pattern) - layer.placeholders
                    if strange:
                        raise ValueError(f"mask pattern {pattern!r}: layer {layer.name!r} has no {{{min(strange)}}}")
            if ("split" in layer.placeholders) != bool(self.splits.folders):
                raise ValueError(f"layer {layer.name!r}: {{split}} in a pattern and splits.folders need each other")
            if self.splits.by not in layer.placeholders:
                raise ValueError(f"splits.by: layer {layer.name!r} has no {{{self.splits.by}}}")
        for archive in self.archives:
            if "/" in archive or "\\" in archive:
                raise ValueError(f"archives: {archive!r} must be a file name without folders")
        return self

    def layer(self, name: str | None) -> Layer:
        """Return the layer of this name, by default the first.

        Raises:
            ConfigError: there is no such layer.
        """
        names = [layer.name for layer in self.layers]
        if name is not None and name not in names:
            raise ConfigError(f"data set {self.name!r} has no layer {name!r}; {suggest(name, names)}")
        return self.layers[0 if name is None else names.index(name)]
