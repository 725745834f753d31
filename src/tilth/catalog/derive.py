"""The files that a build makes beside its catalog: rasterised, decoded and resampled labels, and joined images.

Each file is written whole or not at all and says what it was made from, so that a build that was stopped goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from tilth.catalog.align import align_label
from tilth.catalog.config import BuildConfig
from tilth.catalog.discover import Found, Problem
from tilth.catalog.headers import Header, Progress
from tilth.catalog.layers import join_layers
from tilth.catalog.legend import attribute_ids, outside_id, raster_codes
from tilth.catalog.uris import absolute_uri, file_name
from tilth.catalog.vector_labels import Polygons, rasterise, read_polygons
from tilth.classes import ClassScheme
from tilth.errors import DataError, UsageError
from tilth.imagery.label_codes import LabelCodes, write_coded_label
from tilth.imagery.read import RasterInfo
from tilth.sensors import Sensor

_KEPT_FILES = 4
"""Vector files held in memory: one for all images, or one after the other."""


@dataclass
class Derivation:
    """One build's way from what was found to what the catalog names.

    Attributes:
        config: of the build.
        sensor: of the build.
        found: images, with labels as they were found.
        headers: of the images.
    """

    config: BuildConfig
    sensor: Sensor
    found: Sequence[Found]
    headers: Sequence[Header]
    _codes: dict[str, LabelCodes | None] = field(default_factory=dict)
    _coded: dict[str, str] = field(default_factory=dict)
    _polygons: dict[str, Polygons] = field(default_factory=dict)
    _bare: list[str] = field(default_factory=list)
    _said: dict[str, None] = field(default_factory=dict)

    def run(self, left_out: list[Problem], progress: Progress | None) -> tuple[list[Found], list[RasterInfo], list[str]]:
        """Make every file that has to be made.

        Args:
            left_out: receives the images whose label cannot be used, unless they are scenes, where that is an error.
            progress: told after each image.

        Returns:
            The images with the files that the catalog names, their headers, and what the user should know.

        Raises:
            UsageError: files have to be made and no folder was given, or something is in their way.
            DataError: label values or attribute values without a meaning, or damaged files.
            ConfigError: a legend that names what is not there.
        """
        wanted = [self._makes_image() or self._makes_label(item, header) for item, header in zip(self.found, self.headers, strict=True)]
        if not any(wanted):
            return list(self.found), [header.image for header in self.headers], []
        self._check()
        done, infos = [], []
        for number, (item, header) in enumerate(zip(self.found, self.headers, strict=True), start=1):
            try:
                made = self._image(item, header), self._label(item, header)
            except DataError as error:
                if self.config.strict or item.is_scene:
                    raise
                left_out.append(Problem(item.image, str(error)))
            else:
                done.append(replace(item, image=made[0].uri, label=made[1], origin=item.image))
                infos.append(made[0])
            if progress is not None:
                progress(number, len(self.found))
        return done, infos, [*self._said, *self._summary()]

    def _check(self) -> None:
        """Refuse a wrong request before the first file is written."""
        if self.config.derived is None:
            raise UsageError("labels or images have to be made for this catalog; give derived: a folder for them")
        for item in self.found:
            if item.scheme is not None:
                outside_id(self.config, item.scheme)
                self._codes_of(item.scheme)
        if self.config.vector_labels:
            self._polygons_of(next(item for item in self.found if item.label is not None))

    def _makes_image(self) -> bool:
        return bool(self.config.layers)

    def _makes_label(self, item: Found, header: Header) -> bool:
        if item.label is None or item.scheme is None:
            return False
        return self.config.vector_labels or header.resample or self._codes_of(item.scheme) is not None

    def _image(self, item: Found, header: Header) -> RasterInfo:
        if not self._makes_image():
            return header.image
        return join_layers(item, header, self.config, self.sensor, self._place("images", item, ".vrt"))

    def _label(self, item: Found, header: Header) -> str | None:
        if not self._makes_label(item, header):
            return item.label
        assert item.label is not None
        assert item.scheme is not None
        target = self._place("labels", item, ".tif")
        if self.config.vector_labels:
            outside = outside_id(self.config, item.scheme)
            if not rasterise(self._polygons_of(item), header.image, outside, target):
                self._bare.append(item.image)
            return str(target)
        codes, label = self._codes_of(item.scheme), item.label
        if codes is not None and not header.resample:
            return str(write_coded_label(label, target, codes))
        if codes is not None:
            # One large label raster may serve many images; it is decoded once.
            if label not in self._coded:
                self._coded[label] = str(write_coded_label(label, self._place("decoded", item, ".tif"), codes))
            label = self._coded[label]
        if not align_label(label, header.image, target):
            self._bare.append(item.image)
        return str(target)

    def _codes_of(self, scheme: ClassScheme) -> LabelCodes | None:
        if self.config.vector_labels:
            return None
        if scheme.name not in self._codes:
            self._codes[scheme.name] = raster_codes(self.config, scheme)
        return self._codes[scheme.name]

    def _polygons_of(self, item: Found) -> Polygons:
        assert item.label is not None
        assert item.scheme is not None
        key, scheme = f"{item.scheme.name}:{item.label}", item.scheme
        if key not in self._polygons:
            while len(self._polygons) >= _KEPT_FILES:
                self._polygons.pop(next(iter(self._polygons)))
            naming = partial(attribute_ids, config=self.config, scheme=scheme)
            self._polygons[key] = read_polygons(item.label, self.config.label_column, self.config.label_layer, naming)
            self._said |= dict.fromkeys(self._polygons[key].notes)
        return self._polygons[key]

    def _place(self, kind: str, item: Found, suffix: str) -> Path:
        assert self.config.derived is not None
        return Path(absolute_uri(self.config.derived)) / kind / f"{file_name(item.name)}{suffix}"

    def _summary(self) -> list[str]:
        if not self._bare:
            return []
        what = "touched by no polygon" if self.config.vector_labels else "covered by no label"
        filled = "are all 255 (ignored)" if self.config.outside == "ignore" else f"say {self.config.outside} everywhere"
        more = ", ..." if len(self._bare) > 1 else ""
        return [f"{len(self._bare)} of {len(self.found)} images are {what}; their labels {filled}: {self._bare[0]}{more}"]
