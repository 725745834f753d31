"""What is looked at of a catalog: squares of some tiles, and single labelled pixels of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tilth import seeds
from tilth.catalog.reading import read_ahead, tile_pixels
from tilth.classes import IGNORE_INDEX
from tilth.errors import DataError, MissingFileError
from tilth.imagery.raster import Pixels, Window
from tilth.imagery.read import read_label

if TYPE_CHECKING:
    from tilth.catalog.rows import Tile
    from tilth.catalog.table import Catalog
    from tilth.classes import ClassScheme
    from tilth.sensors import Sensor


_LEAST_SHARE = 0.02


@dataclass(frozen=True)
class View:
    """A square of a tile, or all of a small one.

    Attributes:
        tile_id: of the tile.
        pixels: stored values (C, h, w), valid (h, w), and where in its raster it lies.
        mask: uint8 (h, w), class ids, 255 where there is no label or no image.
    """

    tile_id: str
    pixels: Pixels
    mask: NDArray[np.uint8]

    def labelled(self, most: int) -> int:
        """Count labelled pixels, up to a number."""
        return min(most, int(np.count_nonzero(self.mask != IGNORE_INDEX)))

    def variety(self) -> int:
        """Count the classes that at least one labelled pixel in fifty has."""
        found = np.bincount(self.mask[self.mask != IGNORE_INDEX])
        return int((found > found.sum() * _LEAST_SHARE).sum())


@dataclass(frozen=True)
class Picks:
    """Pixels of a view.

    Attributes:
        rows: int64 (n,).
        columns: int64 (n,).
        classes: uint8 (n,), 255 without label.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    classes: NDArray[np.uint8]


def choose(catalog: Catalog, count: int, seed: int) -> Catalog:
    """Draw tiles, always the same ones, in an order of chance."""
    order = sorted(range(len(catalog)), key=lambda row: seeds.derive(seed, "tiles to look at", catalog.tile(row).tile_id))
    return catalog.take(order[:count])


def read_views(catalog: Catalog, sensor: Sensor, scheme: ClassScheme | None, window: int, seed: int) -> Iterator[View | str]:
    """Read a square of every tile, in order and the next while one is looked at; a text says why one cannot be.

    Args:
        catalog: the tiles.
        sensor: theirs.
        scheme: of their labels; None: labels are not read.
        window: side of the square in pixels; where a tile is larger, it lies at random, always the same.
        seed: of that.
    """

    def read(tile: Tile) -> View | str:
        part = _square(tile, window, seed)
        found = tile_pixels(part, sensor)
        if isinstance(found, str):
            return f"tile {tile.tile_id!r}: {found}"
        try:
            mask = _mask(part, found, None if scheme is None else len(scheme))
        except (DataError, MissingFileError, OSError) as error:
            return f"tile {tile.tile_id!r}: {' '.join(str(error).split())}"
        return View(tile.tile_id, found, mask)

    return read_ahead(catalog.tiles(), read, 1)


def _square(tile: Tile, window: int, seed: int) -> Tile:
    """The tile cut down; origins follow from the window."""
    whole = tile.window
    width, height = min(window, whole.width), min(window, whole.height)
    draw = seeds.generator(seed, "part to look at", tile.tile_id)
    right, down = int(draw.integers(whole.width - width + 1)), int(draw.integers(whole.height - height + 1))
    origin = tile.packed_from_window
    moved = None if origin is None else (int(origin[0]) + right, int(origin[1]) + down, width, height)
    return replace(tile, window=Window(whole.column + right, whole.row + down, width, height), packed_from_window=moved)


def _mask(tile: Tile, pixels: Pixels, classes: int | None) -> NDArray[np.uint8]:
    """Labels where there is an image.

    Raises:
        DataError: a label of another size, or a value that is no class.
    """
    nothing = np.full(pixels.valid.shape, IGNORE_INDEX, np.uint8)
    if tile.label is None or tile.label_kind == "none" or classes is None:
        return nothing
    label = read_label(tile.label, tile.window)
    if label.shape != pixels.valid.shape:
        raise DataError(f"label {tile.label} is {label.shape[1]} x {label.shape[0]} pixels, its image is not; both must lie on one grid")
    wrong = label[(label >= classes) & (label != IGNORE_INDEX)]
    if wrong.size:
        raise DataError(f"label {tile.label} holds {int(wrong[0])}; expected a class id, 0 to {classes - 1}, or {IGNORE_INDEX}")
    return np.where(pixels.valid, label, nothing)


def spread_picks(view: View, count: int, seed: int) -> Picks:
    """Draw labelled pixels of a view evenly, without repetition; all where there are not more. A function of seed and tile alone."""
    there = np.flatnonzero(view.mask != IGNORE_INDEX)
    draw = seeds.generator(seed, "pixels of probes", view.tile_id)
    taken = np.sort(draw.choice(there, min(count, len(there)), replace=False)) if len(there) else there
    return _picks(view, taken)


class ClassPicks:
    """Draws the same number of pixels of each class out of all views, view by view.

    Every pixel gets a number by chance, and those with the smallest stay: so each pixel of a class is as likely as any other, however many
    views there are, and only what may stay is kept.
    """

    def __init__(self, count: int, seed: int) -> None:
        """Begin without pixels.

        Args:
            count: pixels of each class, at most; pixels without label count as a class of their own.
            seed: of the draw.
        """
        self._count, self._seed = count, seed
        self._kept: dict[int, list[tuple[float, str, int]]] = {}

    def look(self, view: View, *, unlabelled: bool) -> None:
        """Consider the pixels of a view: labelled ones, or those without label."""
        chance = seeds.generator(self._seed, "pixels of classes", view.tile_id).random(view.mask.size)
        flat = np.where(view.pixels.valid, view.mask, IGNORE_INDEX).reshape(-1)
        wanted = view.pixels.valid.reshape(-1) if unlabelled else flat != IGNORE_INDEX
        for value in np.unique(flat[wanted]).tolist():
            places = np.flatnonzero(wanted & (flat == value))
            lowest = places[np.argsort(chance[places], kind="stable")[: self._count]]
            kept = self._kept.setdefault(value, [])
            kept += [(float(chance[place]), view.tile_id, int(place)) for place in lowest]
            self._kept[value] = sorted(kept)[: self._count]

    def of(self, view: View) -> Picks:
        """Say which pixels of a view stayed."""
        places = sorted(place for kept in self._kept.values() for _, name, place in kept if name == view.tile_id)
        return _picks(view, np.array(places, np.int64))

    def __len__(self) -> int:
        return sum(map(len, self._kept.values()))


def _picks(view: View, places: NDArray[np.int64]) -> Picks:
    rows, columns = np.divmod(places, view.mask.shape[1])
    return Picks(rows, columns, view.mask.reshape(-1)[places])


def look_up(found: Tensor, stride: int, picks: Picks) -> NDArray[np.float32]:
    """Read a map at pixels of its image, bilinearly between its own: what resizing it to the size of the image would give there.

    Args:
        found: float (c, h, w), of an image padded at its lower and right border.
        stride: sides of that image over those of the map.
        picks: n pixels.

    Returns:
        float32 (n, c).
    """
    if not len(picks.rows):
        return np.empty((0, len(found)), np.float32)
    height, width = (size * stride for size in found.shape[1:])
    places = torch.stack(
        [torch.from_numpy(2 * (picks.columns + 0.5) / width - 1), torch.from_numpy(2 * (picks.rows + 0.5) / height - 1)], dim=-1
    )
    looked: NDArray[np.float32] = (
        F.grid_sample(found[None].float(), places[None, None].float(), mode="bilinear", padding_mode="border", align_corners=False)[0, :, 0]
        .T.contiguous()
        .numpy()
    )
    return looked
