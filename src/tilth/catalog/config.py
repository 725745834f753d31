"""Options of building, splitting and subsetting catalogs."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Literal, Self

import pydantic

from tilth.config import Config

DEFAULT_SUFFIXES = (".tif", ".tiff", ".jpg", ".jpeg", ".png", ".bmp", ".webp", ".npy", ".jp2", ".vrt")


class BuildConfig(Config):
    """How folders of imagery become a catalog.

    Attributes:
        inputs: folders or files of images.
        sensor: built-in name, sum of names, or YAML file; never guessed, because it fixes band order and scaling.
        layout: ``scenes`` (rasters, cut into windows, labels in a folder of their own), ``pairs`` (a folder with ``images`` and
            ``masks``), ``plain`` (unlabelled images, searched recursively), or ``auto``: pairs when a folder looks like it, scenes when
            ``labels``, ``window_px`` or files are given, plain otherwise.
        labels: folder or file of the scenes' label rasters, or a folder of masks for pairs; found by ``label_name``.
        label_name: file stem of the label that belongs to an image, ``{stem}`` standing for the image's.
        image_folder: name of the image folder of a pair layout.
        label_folder: name of the mask folder of a pair layout; by default ``masks``, ``labels``, ``label``, ``mask``, ``annotations``
            are tried.
        scheme: class scheme file; by default ``classes.json`` or ``classes.yaml`` in the input folder.
        label_kind: how far labels can be trusted.
        window_px: side of the windows, in pixels; None takes each image whole.
        stride_px: step between windows, in pixels; by default ``window_px``.
        edge: what happens to windows that reach over the edge: ``shift`` them back (an image smaller than a window stays whole) or
            ``drop`` them.
        split: split of all tiles, where no split files are found.
        unsplit: split of images that no split file lists; None leaves it empty.
        source: free text: where the imagery comes from.
        licence: licence of the imagery.
        datetime: acquisition time of all images, ISO 8601; UTC where it names no zone.
        datetime_pattern: regular expression with one group that finds the date in a file name: ``YYYYMMDD``, ``YYYY-MM-DD``, either
            with ``THHMMSS``.
        prefix: first part of tile ids; by default the name of the input folder.
        suffixes: file name endings that count as images.
        strict: stop at the first unreadable or mismatched file instead of leaving it out.
    """

    inputs: tuple[str, ...] = pydantic.Field(min_length=1)
    sensor: str = pydantic.Field(min_length=1)
    layout: Literal["auto", "scenes", "pairs", "plain"] = "auto"
    labels: str | None = None
    label_name: str = "{stem}"
    image_folder: str = "images"
    label_folder: str | None = None
    scheme: str | None = None
    label_kind: Literal["clean", "noisy", "pseudo"] = "clean"
    window_px: int | None = pydantic.Field(default=None, ge=1)
    stride_px: int | None = pydantic.Field(default=None, ge=1)
    edge: Literal["shift", "drop"] = "shift"
    split: str | None = None
    unsplit: str | None = None
    source: str | None = None
    licence: str | None = None
    datetime: str | None = None
    datetime_pattern: str | None = None
    prefix: str | None = pydantic.Field(default=None, min_length=1)
    suffixes: tuple[str, ...] = DEFAULT_SUFFIXES
    strict: bool = False

    @pydantic.field_validator("inputs", mode="before")
    @classmethod
    def _one_input(cls, value: object) -> object:
        return (str(value),) if isinstance(value, str) or hasattr(value, "__fspath__") else value

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if "{stem}" not in self.label_name:
            raise ValueError(f"label_name must contain {{stem}}, for example '{{stem}}_label'; got {self.label_name!r}")
        if self.layout == "plain" and self.labels is not None:
            raise ValueError("layout 'plain' has no labels; use layout 'scenes' or 'pairs'")
        if self.stride_px is not None and self.window_px is None:
            raise ValueError("stride_px needs window_px")
        if self.stride_px is not None and self.window_px is not None and self.stride_px > self.window_px:
            raise ValueError(f"stride_px ({self.stride_px}) must not exceed window_px ({self.window_px}): pixels in between would be lost")
        if self.datetime is not None:
            try:
                datetime.fromisoformat(self.datetime)
            except ValueError:
                raise ValueError(f"datetime must be ISO 8601, for example 2019-09-04; got {self.datetime!r}") from None
        if self.datetime_pattern is not None:
            try:
                groups = re.compile(self.datetime_pattern).groups
            except re.error as error:
                raise ValueError(f"datetime_pattern is not a regular expression: {error}") from None
            if groups != 1:
                raise ValueError(f"datetime_pattern needs exactly one group, for example '_([0-9]{{8}})'; got {self.datetime_pattern!r}")
        return self


class SplitConfig(Config):
    """How tiles are divided into splits and which of them are labelled first.

    Attributes:
        fractions: share of tiles of each split; shares add up to 1.
        keep_splits: leave the splits as they are and only rank or reduce labels.
        block_m: side of the blocks that stay together, in metres, for tiles with a footprint. 1000 m is our choice: far beyond the
            range over which neighbouring aerial tiles look alike.
        block_deg: the same in degrees; replaces ``block_m``.
        seed: another seed gives another division.
        train: name of the split whose labels are ranked and reduced.
        rank_labels: add the column ``label_rank`` (reads every label of the training split once).
        label_tiles: keep the labels of this many training tiles only.
        label_percent: keep the labels of this share of training tiles only.
    """

    fractions: dict[str, float] = pydantic.Field(default_factory=lambda: {"train": 0.7, "val": 0.15, "test": 0.15}, min_length=1)
    keep_splits: bool = False
    block_m: float = pydantic.Field(default=1000.0, gt=0)
    block_deg: float | None = pydantic.Field(default=None, gt=0)
    seed: int = 0
    train: str = "train"
    rank_labels: bool = True
    label_tiles: int | None = pydantic.Field(default=None, ge=1)
    label_percent: float | None = pydantic.Field(default=None, gt=0, le=100)

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        wrong = {name: share for name, share in self.fractions.items() if not 0 < share <= 1}
        if wrong:
            raise ValueError(f"every fraction must lie in (0, 1]; got {wrong}")
        total = sum(self.fractions.values())
        if abs(total - 1) > 1e-6:
            raise ValueError(f"fractions must add up to 1, they add up to {total:g}")
        if self.label_tiles is not None and self.label_percent is not None:
            raise ValueError("give label_tiles or label_percent, not both")
        if not self.rank_labels and (self.label_tiles is not None or self.label_percent is not None):
            raise ValueError("label_tiles and label_percent need rank_labels")
        return self
