"""What the pixels of a group are like, from a bounded number of thinned images; and which values its labels hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilth.catalog.discover import Problem
from tilth.catalog.inspect.groups import Group, Member, evenly
from tilth.catalog.statistics import RasterStatistics, pixel_statistics
from tilth.errors import DataError, MissingFileError
from tilth.imagery import plain
from tilth.imagery.raster import Pixels
from tilth.imagery.read import read_info, read_overview, read_pixels

MOST_IMAGES = 24
"""Images of a group whose pixels are looked at."""

MOST_LABELS = 240
"""Labels of a group whose pixels are counted."""

SIDE = 256
"""Images are thinned to this side."""

_WHOLE_PIXELS = 2**21
_LABEL_SIDE = 1024
MOST_VALUES = 1024
"""Different values of labels that are kept."""

# Values that stand for "no data" where nothing says so.
_FILLERS = (0, 255, 65535, -32768, -9999, 32767)


@dataclass(frozen=True, eq=False)
class Sample:
    """Pixels of some images of a group.

    Attributes:
        statistics: one entry an image.
        fillers: share of the valid pixels in which every band is this value, by value; values that hardly occur are left out.
        empty_edges: images with an edge that is 0 in every band for more than half its length.
        opaque: positions of bands that are 255 (or 65535) nearly everywhere.
        problems: images that cannot be read.
    """

    statistics: tuple[RasterStatistics, ...]
    fillers: dict[int, float]
    empty_edges: tuple[str, ...]
    opaque: tuple[int, ...]
    problems: tuple[Problem, ...]

    def pooled(self, what: str) -> NDArray[np.float64]:
        """Median over the images of a statistic of each band, float64 (C,); see ``BandStatistics``."""
        rows = [[getattr(band, what) for band in item.bands] for item in self.statistics if item.bands]
        return np.median(np.array(rows, dtype=np.float64), axis=0) if rows else np.zeros(0)

    def extreme(self, what: str) -> NDArray[np.float64]:
        """Smallest minimum or largest maximum of each band over the images, float64 (C,)."""
        rows = np.array([[getattr(band, what) for band in item.bands] for item in self.statistics if item.bands], dtype=np.float64)
        return (rows.min(axis=0) if what == "minimum" else rows.max(axis=0)) if rows.size else np.zeros(0)


def sample_group(group: Group) -> Sample:
    """Look at the pixels of some images of a group, thinned."""
    found, problems, edges = [], [], []
    fillers: dict[int, list[float]] = {value: [] for value in _FILLERS}
    known = {info.uri: info for info in group.infos}
    for member in evenly(group.members, MOST_IMAGES):
        uri = str(member.path)
        try:
            info = known.get(uri) or read_info(uri)
            pixels = read_overview(uri, SIDE)
        except (DataError, MissingFileError) as error:
            problems.append(Problem(uri, str(error).removeprefix(f"{uri}: ")))
            continue
        if info.count != group.count:
            continue
        found.append(pixel_statistics(pixels, info))
        for value, shares in fillers.items():
            shares.append(_share_of(pixels, value))
        if info.nodata is None and _has_empty_edge(pixels):
            edges.append(uri)
    frequent = {value: float(np.mean(items)) for value, items in fillers.items() if items and np.mean(items) > 0.002}
    return Sample(tuple(found), frequent, tuple(edges), _opaque(found), tuple(problems))


def _share_of(pixels: Pixels, value: int) -> float:
    data, valid = pixels.data, pixels.valid
    if not valid.any() or (data.dtype.kind in "iu" and not np.iinfo(data.dtype).min <= value <= np.iinfo(data.dtype).max):
        return 0.0
    return float((data == value).all(axis=0)[valid].mean())


def _has_empty_edge(pixels: Pixels) -> bool:
    empty = (pixels.data == 0).all(axis=0)
    # Three cells deep: a single dark line is no missing piece; half the edge: swaths are cut aslant.
    edges = (empty[:3].all(axis=0), empty[-3:].all(axis=0), empty[:, :3].all(axis=1), empty[:, -3:].all(axis=1))
    return bool(min(empty.shape) > 12 and any(edge.mean() > 0.5 for edge in edges))


def _opaque(statistics: Sequence[RasterStatistics]) -> tuple[int, ...]:
    rows = [item.bands for item in statistics if item.bands]
    if not rows or len(rows[0]) < 2:
        return ()
    return tuple(
        place
        for place in range(len(rows[0]))
        if all(bands[place].p02 == bands[place].p98 and bands[place].p50 in {255.0, 65535.0, 1.0} for bands in rows)
    )


@dataclass(eq=False)
class Values:
    """Values of the labels of a group, in whole files where those are small.

    Attributes:
        pixels: pixels of each value; packed ``0xRRGGBB`` for colours. Pixels that the file calls no data are left out.
        files: in how many files each value occurs.
        by_file: values of each file that was read, by stem.
        looked: number of files read.
        no_data: share of pixels that the files call no data.
        fractions: some values are no integers.
        too_many: more values than are kept; the others are not counted.
        smooth: share of pixels whose right neighbour has the same value.
        colours: values are colours.
        problems: files that cannot be read.
    """

    pixels: Counter[float] = field(default_factory=Counter)
    files: Counter[float] = field(default_factory=Counter)
    by_file: dict[str, frozenset[float]] = field(default_factory=dict)
    looked: int = 0
    no_data: float = 0.0
    fractions: bool = False
    too_many: bool = False
    smooth: float = 0.0
    colours: bool = False
    problems: list[Problem] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Pixels counted."""
        return sum(self.pixels.values())

    def share(self, value: float) -> float:
        """Share of the counted pixels that have this value."""
        return self.pixels[value] / max(1, self.total)


def count_values(group: Group, members: Sequence[Member], *, band: int = 0, indices: bool = True) -> Values:
    """Count the values of labels.

    Args:
        group: of the labels.
        members: those to read, at most :data:`MOST_LABELS` of them, spread evenly.
        band: which band of several holds the classes; three bands of 8 bits are counted as colours.
        indices: take the indices of palette images instead of their colours.
    """
    values = Values(colours=group.count == 3 and not (group.palette and indices))
    smooth, no_data = [], []
    for member in evenly(members, MOST_LABELS):
        try:
            # As read_label does: indices of a palette, 0 and 1 of a bilevel image.
            plainly = member.path.suffix.lower() in plain.IMAGE_SUFFIXES and (group.palette or group.count == 1)
            pixels = _read(str(member.path), plainly and indices and not plain.is_beyond_pillow(member.path))
        except (DataError, MissingFileError) as error:
            values.problems.append(Problem(str(member.path), str(error).removeprefix(f"{member.path}: ")))
            continue
        stored = _packed(pixels.data) if values.colours and len(pixels.data) == 3 else pixels.data[min(band, len(pixels.data) - 1)]
        kinds, counts = np.unique(stored[pixels.valid], return_counts=True)
        values.looked += 1
        no_data.append(1 - float(pixels.valid.mean()))
        smooth.append(float((stored[:, 1:] == stored[:, :-1]).mean()) if stored.shape[1] > 1 else 1.0)
        values.fractions |= bool(kinds.dtype.kind == "f" and (kinds != np.rint(kinds)).any())
        if len(kinds) > MOST_VALUES:
            values.too_many = True
            kinds, counts = kinds[:MOST_VALUES], counts[:MOST_VALUES]
        values.by_file[member.stem] = frozenset(kinds.tolist())
        for kind, count in zip(kinds.tolist(), counts.tolist(), strict=True):
            if kind in values.pixels or len(values.pixels) < MOST_VALUES:
                values.pixels[kind] += count
                values.files[kind] += 1
            else:
                values.too_many = True
        if values.too_many and values.looked >= 8:
            break
    values.smooth = float(np.mean(smooth)) if smooth else 0.0
    values.no_data = float(np.mean(no_data)) if no_data else 0.0
    return values


def _read(uri: str, indices: bool) -> Pixels:
    if indices:
        return plain.image_pixels(uri, None, indices=True)
    info = read_info(uri)
    return read_pixels(uri) if info.width * info.height <= _WHOLE_PIXELS else read_overview(uri, _LABEL_SIDE)


def _packed(data: NDArray[Any]) -> NDArray[np.uint32]:
    red, green, blue = data.astype(np.uint32)
    packed: NDArray[np.uint32] = (red << 16) | (green << 8) | blue
    return packed
