"""What a user must know before training on a data set: one line each, the consequence first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tilth.catalog.inspect import traps_images, traps_labels, traps_places
from tilth.catalog.inspect.inspection import DataSet


@dataclass(frozen=True)
class Trap:
    """One thing to watch out for.

    Attributes:
        key: short name for programs.
        text: one line that begins with what it means.
        weight: the more, the more important.
    """

    key: str
    text: str
    weight: int


_FINDERS: tuple[Callable[[DataSet], Iterator[tuple[str, int, str]]], ...] = (
    traps_labels.unusable_labels,
    traps_labels.values_outside,
    traps_labels.several_labels,
    traps_labels.splits,
    traps_labels.absent_classes,
    traps_labels.imbalance,
    traps_labels.other_sizes,
    traps_images.band_order,
    traps_images.scale,
    traps_images.composites,
    traps_places.map_tiles,
    traps_places.scene_classes,
    traps_images.no_data,
    traps_images.odd_bands,
    traps_places.places,
    traps_places.sizes_and_types,
    traps_places.shared_ground,
    traps_places.files,
)


def find_traps(data: DataSet) -> list[Trap]:
    """Everything to watch out for, most important first."""
    found = [Trap(key, text, weight) for finder in _FINDERS for key, weight, text in finder(data)]
    return sorted(found, key=lambda trap: -trap.weight)
