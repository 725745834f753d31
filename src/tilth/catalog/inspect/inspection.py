"""Looking at a folder: what it is, as values that programs can use and words for people."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tilth.catalog.discover import Problem
from tilth.catalog.inspect import layout, sensor_guess
from tilth.catalog.inspect.ground import Overlap, common_ground
from tilth.catalog.inspect.groups import find_groups
from tilth.catalog.inspect.labels import Label, describe_label, read_names
from tilth.catalog.inspect.layout import SetKind, Splits, Tie
from tilth.catalog.inspect.listing import Listing
from tilth.catalog.inspect.roles import Part, judge
from tilth.catalog.inspect.sensor_guess import Proposal
from tilth.errors import SensorMismatchError
from tilth.imagery.raster import RasterInfo
from tilth.sensors import Sensor, get_sensor


@dataclass(frozen=True, eq=False)
class DataSet:
    """One data set and everything that was found out about it.

    Attributes:
        listing: its files.
        kind: how its parts belong together.
        parts: groups of rasters with their roles.
        labels: what the label parts hold, in the order of ``parts``.
        ties: how each label belongs to which images: positions in ``images`` and ``labels``.
        splits: or None.
        dates: found in file names, sorted.
        before_after: images of two dates in folders of their own, or None.
        boxes: text files of oriented boxes.
        proposals: a sensor for each of ``images``; None where none can be made.
        problems: files that cannot be read.
    """

    listing: Listing
    kind: SetKind
    parts: tuple[Part, ...]
    labels: tuple[Label, ...]
    ties: dict[tuple[int, int], Tie]
    splits: Splits | None
    dates: tuple[str, ...]
    before_after: tuple[Part, Part] | None
    boxes: tuple[Path, ...]
    proposals: tuple[Proposal | None, ...]
    problems: tuple[Problem, ...] = field(default=())

    @property
    def root(self) -> Path:
        """The folder."""
        return self.listing.root

    @cached_property
    def images(self) -> tuple[Part, ...]:
        """The parts that are imagery."""
        return tuple(part for part in self.parts if part.role == "image")

    @cached_property
    def targets(self) -> tuple[Part, ...]:
        """The parts that are measured quantities to estimate."""
        return tuple(part for part in self.parts if part.role == "target")

    @cached_property
    def infos(self) -> tuple[RasterInfo, ...]:
        """Headers of the imagery that was looked at."""
        return tuple(info for part in self.images for info in part.group.infos)

    @cached_property
    def compared(self) -> tuple[RasterInfo, ...]:
        """Headers of the images that should not share ground: all, or those of the main imagery where several sensors or dates are."""
        if self.kind in {"scenes", "unlabelled pool", "image/label pairs"}:
            return self.infos
        return self.images[self.main].group.infos if self.images else ()

    @cached_property
    def overlap(self) -> Overlap:
        """Images of :attr:`compared` that see common ground, by position."""
        return common_ground(self.compared)

    @cached_property
    def main(self) -> int:
        """Position of the imagery that a first training would take: labelled, most files, sound numbers, most bands."""
        tied = {image for image, _ in self.ties}

        def worth(place: int) -> tuple[bool, int, bool, bool, int]:
            part = self.images[place]
            sound = not sensor_guess.raised_images(part)
            return place in tied, len(part.group.members), self.proposals[place] is not None, sound, part.group.count

        return max(range(len(self.images)), key=worth) if self.images else 0

    @cached_property
    def best_label(self) -> int | None:
        """Position of the label that a first training would take: taken as it is, clean, tied to the main imagery."""
        tied = [label for image, label in self.ties if image == self.main]

        def worth(place: int) -> tuple[bool, bool, bool, bool, int]:
            label = self.labels[place]
            return (
                label.usable,
                label.kind == "class ids",
                label.kind in {"codes", "colours"},
                not label.noisy,
                self.ties[self.main, place].images,
            )

        return max(tied, key=worth) if tied else None

    def labels_of(self, image: int) -> list[int]:
        """Positions of the labels that belong to some imagery."""
        return [label for place, label in self.ties if place == image]


def look_at(listing: Listing, sensor: str | None = None) -> DataSet:
    """Find out what one data set is.

    Args:
        listing: its files.
        sensor: what the user says took the images; checked against them and used instead of a guess.

    Raises:
        SensorMismatchError: no imagery has that sensor's bands and number type.
        ConfigError: no such sensor.
    """
    groups, problems = find_groups(listing.folders.values())
    parts = tuple(judge(group) for group in groups)
    for part in parts:
        problems += [*(part.sample.problems if part.sample else ()), *(part.values.problems if part.values else ())]
    parts = tuple(part for part in parts if part.values is None or part.values.looked)
    images = [part for part in parts if part.role == "image" and part.sample and part.sample.statistics]
    parts = tuple(part for part in parts if part.role != "image" or part in images)
    found = read_names([listing.root, *(listing.root / folder for part in parts if part.role == "label" for folder in part.group.folders)])
    labels = [describe_label(part, found) for part in parts if part.role == "label"]
    ties = {}
    for row, image in enumerate(images):
        for column, label in enumerate(labels):
            tie = layout.tie(image.group, label.part.group)
            if tie is not None:
                ties[row, column] = tie
    boxes = layout.box_files(listing)
    before_after = layout.change_pair(images)
    target_ties = [tie for image in images for part in parts if part.role == "target" if (tie := layout.tie(image.group, part.group))]
    return DataSet(
        listing=listing,
        kind=_kind(listing, parts, labels, ties, target_ties, boxes, before_after),
        parts=parts,
        labels=tuple(labels),
        ties=ties,
        splits=layout.read_splits(listing, groups),
        dates=tuple(layout.dates_of(part.group for part in images)),
        before_after=before_after,
        boxes=tuple(boxes),
        proposals=_proposals(images, sensor),
        problems=tuple({problem.file: problem for problem in problems}.values()),
    )


def _kind(
    listing: Listing,
    parts: tuple[Part, ...],
    labels: list[Label],
    ties: dict[tuple[int, int], Tie],
    target_ties: list[Tie],
    boxes: list[Path],
    before_after: tuple[Part, Part] | None,
) -> SetKind:
    """How the parts of a data set belong together."""
    images = [part for part in parts if part.role == "image"]
    if not images:
        tables = any(file.suffix.lower() != ".json" for folder in listing.folders.values() for file in folder.of("table"))
        return "labels only" if labels else "tables" if tables and not parts else "nothing tilth reads"
    if before_after is not None:
        return "change pairs"
    if boxes and not ties:
        return "oriented boxes"
    if any(layout.is_series(part, [*ties.values(), *target_ties]) for part in images):
        return "time series"
    layers = [part for part in parts if part.role in {"image", "elevation"}]
    if any(layout.show_one_place(one.group, two.group) for place, one in enumerate(layers) for two in layers[place + 1 :]):
        return "several rasters of one place"
    if any(tie.how in {"stem", "key"} for tie in ties.values()) and not all(layout.looks_like_scenes(part) for part in images):
        return "image/label pairs"
    if all(layout.are_map_tiles(part.group) for part in images):
        return "web-map tiles"
    if all(layout.looks_like_scenes(part) for part in images):
        return "scenes"
    return "image/label pairs" if ties else "unlabelled pool"


def _proposals(images: list[Part], sensor: str | None) -> tuple[Proposal | None, ...]:
    if sensor is None:
        return tuple(sensor_guess.propose_sensor(part) for part in images)
    given = get_sensor(sensor)
    fits = [part.group.count == len(given) and part.group.dtype == given.dtype for part in images]
    if images and not any(fits):
        there = ", ".join(dict.fromkeys(f"{part.group.title}: {part.group.count} x {part.group.dtype}" for part in images))
        raise SensorMismatchError(
            f"sensor {sensor!r} has {len(given)} bands of {given.dtype}; there is no such imagery ({there}); "
            "leave --sensor out to see what fits"
        )
    return tuple(_as_told(given, sensor) if fit else sensor_guess.propose_sensor(part) for part, fit in zip(images, fits, strict=True))


def _as_told(given: Sensor, name: str) -> Proposal:
    physical = not given.unit.startswith("digital number")
    return Proposal(name, given, False, given.unit, ("as you say",), physical=physical)
