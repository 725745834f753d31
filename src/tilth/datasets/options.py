"""Options of preparing a data set. Light to import."""

from __future__ import annotations

from pathlib import Path

import pydantic

from tilth.config import Config
from tilth.datasets.config import Card
from tilth.datasets.division import Edge, Windows
from tilth.errors import ConfigError


class PrepareConfig(Config):
    """How a data set in its original layout becomes a catalog.

    Attributes:
        name: name of a card, or path of a card of your own (``.yaml``).
        folder: where the data set lies, unpacked or as the archives it is published in; it is never written to, but by ``download``.
        layer: which of the card's layers to take; by default the first.
        sensor: built-in name, sum of names or YAML file, where the card leaves it open; or instead of the card's.
        scheme: class scheme of as many classes, by built-in name or file, instead of the card's: other names, or another order.
        partial: accept that images of a published split, or masks, are missing, and leave out images that cannot be read.
        window_px: side of the windows in pixels, 0 for whole images; by default as the card says.
        stride_px: step between windows, in pixels; by default as the card says, or ``window_px`` where that is given.
        edge: what becomes of windows that reach over the right and lower border: ``shift`` moves them back inside, where they overlap
            others, ``drop`` leaves them out, ``spread`` and ``centre`` do so evenly on both sides; by default as the card says.
        prefix: first part of tile ids; by default the card's name, for cards without homepage the folder's.
        source: where the imagery comes from; by default the card's title.
        licence: licence of the imagery; by default the card's.
        download: fetch the data into the folder first.
    """

    name: str = pydantic.Field(min_length=1)
    folder: Path
    layer: str | None = None
    sensor: str | None = None
    scheme: str | None = None
    partial: bool = False
    window_px: int | None = pydantic.Field(default=None, ge=0)
    stride_px: int | None = pydantic.Field(default=None, ge=1)
    edge: Edge | None = None
    prefix: str | None = pydantic.Field(default=None, min_length=1)
    source: str | None = None
    licence: str | None = None
    download: bool = False

    def windows(self, card: Card) -> Windows:
        """Return how scenes are cut, with what the card says where nothing was asked for.

        Raises:
            ConfigError: a step or an edge without windows, or a step that leaves pixels out.
        """
        if self.window_px is None:
            asked = card.windows.model_dump() | {"stride_px": self.stride_px or card.windows.stride_px}
        else:
            asked = {"window_px": self.window_px or None, "stride_px": self.stride_px}
        if self.edge is not None and asked["window_px"] is None:
            raise ConfigError(f"prepare: edge={self.edge} needs window_px: images stay whole")
        return Windows.parse(asked | {"edge": self.edge or card.windows.edge}, source="prepare")
