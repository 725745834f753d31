"""Options of building, splitting and subsetting catalogs."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pydantic

from tilth.config import Config
from tilth.errors import suggest
from tilth.sensors import sensor_parts

DEFAULT_SUFFIXES = (".tif", ".tiff", ".jpg", ".jpeg", ".png", ".bmp", ".webp", ".npy", ".jp2", ".vrt")
VECTOR_SUFFIXES = (".gpkg", ".geojson", ".json", ".shp", ".fgb", ".parquet")

Duplicates = Literal["near", "exact", "none"]
"""Which duplicates a check looks for: nearly the same pictures too, the same pixels, or none."""


class BuildConfig(Config):
    """How folders of imagery become a catalog.

    Attributes:
        inputs: folders or files of images.
        sensor: built-in name, sum of names, or YAML file; never guessed, because it fixes band order and scaling.
        layout: ``scenes`` (rasters, cut into windows, labels in a folder of their own), ``pairs`` (a folder with ``images`` and
            ``masks``), ``plain`` (unlabelled images, searched recursively), or ``auto``: pairs when a folder looks like it, scenes when
            ``labels``, ``window_px`` or files are given, plain otherwise.
        labels: folder or file of the scenes' label rasters, or a folder of masks for pairs, found by ``label_name``; or a vector file
            (``.gpkg``, ``.geojson``, ``.json``, ``.shp``, ``.fgb``, ``.parquet``) of polygons, or a folder of one for each image.
        label_name: file stem of the label that belongs to an image, ``{stem}`` standing for the image's.
        image_folder: name of the image folder of a pair layout.
        label_folder: name of the mask folder of a pair layout; by default ``masks``, ``labels``, ``label``, ``mask``, ``annotations``
            are tried.
        label_column: attribute of the polygons that says their class.
        label_layer: layer of the vector file, where it has several.
        label_values: class name, or ``ignore``, by attribute value. A value that is not listed must be a class name (in any case); where
            nothing is listed, an id of the scheme will do, too.
        outside: what pixels become that no polygon covers: ``ignore``, or a class name.
        label_codes: what the stored numbers or colours of label rasters mean, where they are no class ids: the name of a built-in scheme
            such as ``worldcover``, a YAML file, or a mapping, with ``values: {10: forest}`` or ``colours: {'#3C1098': forest}``; classes
            by id or name, or ``ignore``. ``unlisted: ignore`` ignores all other values, which are refused otherwise.
        scheme: class scheme: a built-in name such as ``dw``, or a file; by default ``classes.json`` or ``classes.yaml`` in the input
            folder.
        label_scheme: class scheme that labels follow, where it is not ``scheme``, by name or file; by default the built-in one that
            ``label_codes`` names. The ``mappings`` of ``scheme`` say which class becomes which.
        align: what to do with a label raster on another grid than its image (CRS, resolution, extent): ``refuse`` it, or ``resample`` it
            by nearest neighbour.
        label_kind: how far labels can be trusted.
        references: catalog of the same tiles with clean labels, which become the column ``reference``: looked at, never learnt from.
        window_px: side of the windows, in pixels; None takes each image whole.
        stride_px: step between windows, in pixels; by default ``window_px``.
        window_m: side of the windows in metres on the ground, in place of ``window_px``; rounded to whole pixels of each image.
        stride_m: step between windows in metres on the ground; by default ``window_m``.
        edge: what happens to windows that reach over the edge: ``shift`` them back (an image smaller than a window stays whole),
            ``spread`` all windows evenly instead, ``drop`` them, or ``centre`` the others, so that as much is left out on both sides.
        split: split of all tiles, where no split files are found.
        unsplit: split of images that no split file lists; None leaves it empty.
        source: free text: where the imagery comes from.
        licence: licence of the imagery.
        datetime: acquisition time of all images, ISO 8601; UTC where it names no zone.
        datetime_pattern: regular expression with one group that finds the date in a file name: ``YYYYMMDD``, ``YYYY-MM-DD``, either
            with ``THHMMSS``.
        location_pattern: regular expression with one group that finds the name of the place in a file name, which ties seasons and
            sensors of one place together; with ``layers`` the default is the file stem.
        layers: folder (or file) of the rasters of each further sensor, where ``sensor`` is a sum: with ``s2_l2a+s1``, ``layers.s1`` (a YAML
            file goes by its stem).
            Every image is joined with the raster that ``layer_name`` describes; one on another grid is warped bilinearly when it is read.
        layer_name: file stem of the raster of a layer that belongs to an image, ``{stem}`` standing for the image's.
        derived: folder for the files that this makes: rasterised, decoded and resampled labels, joined images. By default
            ``<name of the catalog>_files`` beside the catalog. Nothing is written where nothing has to be made.
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
    label_column: str | None = pydantic.Field(default=None, min_length=1)
    label_layer: str | None = pydantic.Field(default=None, min_length=1)
    label_values: dict[str, str] = pydantic.Field(default_factory=dict)
    outside: str = pydantic.Field(default="ignore", min_length=1)
    label_codes: str | dict[str, Any] | None = None
    scheme: str | None = None
    label_scheme: str | None = None
    align: Literal["refuse", "resample"] = "refuse"
    label_kind: Literal["clean", "noisy", "pseudo"] = "clean"
    references: str | None = None
    window_px: int | None = pydantic.Field(default=None, ge=1)
    stride_px: int | None = pydantic.Field(default=None, ge=1)
    window_m: float | None = pydantic.Field(default=None, gt=0)
    stride_m: float | None = pydantic.Field(default=None, gt=0)
    edge: Literal["shift", "spread", "drop", "centre"] = "shift"
    split: str | None = None
    unsplit: str | None = None
    source: str | None = None
    licence: str | None = None
    datetime: str | None = None
    datetime_pattern: str | None = None
    location_pattern: str | None = None
    layers: dict[str, str] = pydantic.Field(default_factory=dict)
    layer_name: str = "{stem}"
    derived: str | None = None
    prefix: str | None = pydantic.Field(default=None, min_length=1)
    suffixes: tuple[str, ...] = DEFAULT_SUFFIXES
    strict: bool = False

    @pydantic.field_validator("inputs", mode="before")
    @classmethod
    def _one_input(cls, value: object) -> object:
        return (str(value),) if isinstance(value, str) or hasattr(value, "__fspath__") else value

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        for name, pattern in (("label_name", self.label_name), ("layer_name", self.layer_name)):
            if "{stem}" not in pattern:
                raise ValueError(f"{name} must contain {{stem}}, for example '{{stem}}_label'; got {pattern!r}")
        if self.datetime is not None:
            try:
                datetime.fromisoformat(self.datetime)
            except ValueError:
                raise ValueError(f"datetime must be ISO 8601, for example 2019-09-04; got {self.datetime!r}") from None
        _check_pattern("datetime_pattern", self.datetime_pattern, "_([0-9]{8})")
        _check_pattern("location_pattern", self.location_pattern, "^([^_]+)_")
        self._check_windows()
        self._check_labels()
        self._check_layers()
        return self

    def _check_windows(self) -> None:
        if self.window_m is not None and self.window_px is not None:
            raise ValueError("give window_px or window_m, not both")
        for unit, window, stride in (("px", self.window_px, self.stride_px), ("m", self.window_m, self.stride_m)):
            if stride is not None and window is None:
                raise ValueError(f"stride_{unit} needs window_{unit}")
            if stride is not None and window is not None and stride > window:
                raise ValueError(f"stride_{unit} ({stride:g}) must not exceed window_{unit} ({window:g}): pixels in between would be lost")

    def _check_labels(self) -> None:
        if self.layout == "plain" and self.labels is not None:
            raise ValueError("layout 'plain' has no labels; use layout 'scenes' or 'pairs'")
        if self.vector_labels and self.layout == "pairs":
            raise ValueError("polygons are labels of scenes; use layout 'scenes'")
        if self.vector_labels and self.label_codes is not None:
            raise ValueError("label_codes are for label rasters; say what attribute values mean with label_values")
        if self.label_column is not None and self.labels is None:
            raise ValueError("label_column needs labels: the vector file")
        given = [name for name in ("label_layer", "label_values") if getattr(self, name)] + ["outside"] * (self.outside != "ignore")
        if given and not self.vector_labels:
            raise ValueError(f"{given[0]} needs labels: a vector file ({', '.join(VECTOR_SUFFIXES)}), and label_column")

    def _check_layers(self) -> None:
        parts = sensor_parts(self.sensor)
        if not self.layers:
            if self.layer_name != "{stem}":
                raise ValueError("layer_name needs layers")
            return
        for name in self.layers:
            if name not in parts:
                raise ValueError(f"layers.{name}: no part of sensor {self.sensor!r}; {suggest(name, parts)}")
        if len(parts) - len(self.layers) != 1:
            raise ValueError(
                f"sensor {self.sensor!r} has {len(parts)} parts, so layers must name {len(parts) - 1} of them: all but that of inputs"
            )
        if self.layout == "pairs":
            raise ValueError("layers are joined to scenes or plain images; use layout 'scenes' or 'plain'")

    @property
    def vector_labels(self) -> bool:
        """Whether labels are polygons."""
        return self.labels is not None and (self.label_column is not None or self.labels.lower().endswith(VECTOR_SUFFIXES))


def _check_pattern(name: str, pattern: str | None, example: str) -> None:
    if pattern is None:
        return
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"{name} is not a regular expression: {error}") from None
    if groups != 1:
        raise ValueError(f"{name} needs exactly one group, for example {example!r}; got {pattern!r}")


class SplitConfig(Config):
    """How tiles are divided into splits and which of them are labelled first.

    Attributes:
        fractions: share of tiles of each split; shares add up to 1.
        keep_splits: leave the splits as they are and only rank or reduce labels.
        unit: what goes to one split as a whole. ``block``: blocks of ground, and where tiles have no footprint places or image files;
            ``image``: image files; ``location``: places, by ``location_id``; ``tile``: every tile by itself, as papers do it:
            neighbours, which look alike, then lie in different splits, and scores come out too high.
        group: instead of ``unit``, a regular expression with one group, searched in tile ids: tiles with the same match go to one split,
            such as those of a city.
        set_aside: by the name of a further split, how many image files, drawn at random, make it up before the others are divided.
        unlabelled: split of all tiles without a label, so that those with a label alone are divided; None divides all.
        without: catalogs whose images are left without a split here, by file name without folder and suffix: what one set is scored
            on, another may list, too.
        only: splits whose tiles are in the result; others are left out. Empty for all tiles.
        subsets: share in percent of the ranked training labels, by the name of a subset; the smallest one that a tile belongs to is the
            column ``subset``. Each lies inside the larger ones.
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
    unit: Literal["block", "image", "location", "tile"] = "block"
    group: str | None = None
    set_aside: dict[str, Annotated[int, pydantic.Field(ge=1)]] = pydantic.Field(default_factory=dict)
    unlabelled: str | None = pydantic.Field(default=None, min_length=1)
    without: tuple[Path, ...] = ()
    only: tuple[str, ...] = ()
    block_m: float = pydantic.Field(default=1000.0, gt=0)
    block_deg: float | None = pydantic.Field(default=None, gt=0)
    seed: int = 0
    train: str = "train"
    rank_labels: bool = True
    subsets: dict[str, Annotated[float, pydantic.Field(gt=0, le=100)]] = pydantic.Field(default_factory=dict)
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
        if not self.rank_labels and (self.label_tiles is not None or self.label_percent is not None or self.subsets):
            raise ValueError("label_tiles, label_percent and subsets need rank_labels")
        _check_pattern("group", self.group, "^minifrance/([^/]+)/")
        if self.group is not None and self.unit != "block":
            raise ValueError(f"unit {self.unit!r} and group both say what stays together; give one")
        given = [name for name in ("group", "set_aside", "unlabelled", "without") if getattr(self, name)] + ["unit"] * (
            self.unit != "block"
        )
        if self.keep_splits and given:
            raise ValueError(f"keep_splits leaves all splits as they are; leave {given[0]} out")
        twice = [name for name in self.set_aside if name in self.fractions]
        if twice:
            raise ValueError(f"set_aside: {twice[0]!r} is one of fractions; what is set aside needs a name of its own")
        return self
