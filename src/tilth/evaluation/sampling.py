"""A stratified random sample of the pixels of a map, to be looked at by an interpreter: which pixels, and how many of each class.

Olofsson, Foody, Herold, Stehman, Woodcock and Wulder 2014, "Good practices for estimating area and assessing accuracy of land change",
Remote Sensing of Environment 148, section 5.1: the strata are the mapped classes, the size follows from the standard error that the
overall accuracy shall have (eq. 13), small classes get a fixed number of points and the others share the rest by their size.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tilth import seeds
from tilth.errors import OutputExistsError, UsageError, needs_extra, suggest
from tilth.evaluation.map_strata import Strata
from tilth.imagery.gdal import bounded_cache
from tilth.imagery.read import read_label
from tilth.imagery.vector import write_geopackage
from tilth.imagery.write import write_text

COLUMNS = ("id", "x", "y", "map_id", "map_class", "reference")
"""Columns of a file of points; ``reference`` is empty, to be filled with the name (or id) of the true class."""

LAYER = "points"

_SUFFIXES = (".gpkg", ".csv")


@dataclass(frozen=True)
class SamplePoints:
    """Pixels drawn from a map, in random order.

    Attributes:
        columns: int64 (n,), column of each pixel.
        rows: int64 (n,), row of each pixel.
        ids: int64 (n,), class that the map shows there.
    """

    columns: NDArray[np.int64]
    rows: NDArray[np.int64]
    ids: NDArray[np.int64]


def sample_size(
    shares: Sequence[float] | NDArray[np.float64],
    users_accuracies: Sequence[float] | NDArray[np.float64],
    standard_error: float,
    pixels: float = math.inf,
) -> int:
    """Compute how many points the overall accuracy needs for a given standard error (Olofsson et al. 2014, eq. 13).

    ``n = (sum W S)^2 / (S(O)^2 + (sum W S^2) / N)`` with ``S = sqrt(U (1 - U))``.

    Args:
        shares: W, share of each stratum, sum 1.
        users_accuracies: U, what the user's accuracy of each stratum is thought to be, 0 to 1.
        standard_error: S(O), of the overall accuracy, as a fraction above 0.
        pixels: N, of the map.

    Returns:
        Number of points, rounded up; at least 1.

    Raises:
        UsageError: a number outside of its range.

    Example:
        >>> sample_size([0.020, 0.015, 0.320, 0.645], [0.7, 0.6, 0.9, 0.95], 0.01)
        641
    """
    weights, users = np.asarray(shares, dtype=np.float64), np.asarray(users_accuracies, dtype=np.float64)
    if not 0 < standard_error < 1:
        raise UsageError(f"standard error {standard_error:g}: expected a fraction above 0 and below 1, such as 0.01")
    if (users < 0).any() or (users > 1).any():
        raise UsageError("user's accuracies: expected fractions from 0 to 1")
    deviation = np.sqrt(users * (1 - users))
    needed = float(weights @ deviation) ** 2 / (standard_error**2 + float(weights @ deviation**2) / pixels)
    # A hair above a whole number is that number; this is what rounding leaves.
    return max(1, math.ceil(needed - 1e-9))


def allocate(pixels: Sequence[int] | NDArray[np.int64], total: int, minimum: int) -> list[int]:
    """Divide points among strata: a minimum for each, the rest by size (Olofsson et al. 2014, section 5.1.2).

    Strata whose share of the points would be below the minimum get the minimum; the others divide what is left in proportion to their
    size. A stratum with fewer pixels than points gets all of its pixels.

    Args:
        pixels: of each stratum, at least 1.
        total: number of points; more are given where the minima demand it.
        minimum: of points a stratum.

    Returns:
        Points of each stratum.

    Example:
        >>> allocate([200_000, 150_000, 3_200_000, 6_450_000], 641, 75)
        [75, 75, 163, 328]
    """
    sizes = np.asarray(pixels, dtype=np.int64)
    floors = np.minimum(minimum, sizes)
    fixed = np.zeros(len(sizes), dtype=bool)
    while True:
        left = max(0, total - int(floors[fixed].sum()))
        wanted = np.where(fixed, floors, left * sizes / max(1, int(sizes[~fixed].sum())))
        short = ~fixed & (wanted < floors)
        if not short.any():
            break
        fixed |= short
    result = np.floor(wanted).astype(np.int64)
    # Largest remainders first, so that the sum is the total.
    spare = round(float(wanted.sum())) - int(result.sum())
    for place in np.argsort(-(wanted - result), kind="stable")[:spare]:
        result[place] += 1
    return [int(number) for number in np.minimum(result, sizes)]


def plan_points(
    strata: Strata,
    *,
    samples: int | None = None,
    minimum: int = 50,
    standard_error: float = 0.01,
    users_accuracy: float = 0.9,
    users_accuracies: Mapping[str, float] | None = None,
) -> list[int]:
    """Decide how many points each mapped class gets.

    Args:
        strata: of the map.
        samples: number of all points; None computes it from the standard error.
        minimum: points of each class; of a class with fewer pixels all of them.
        standard_error: that the overall accuracy shall have.
        users_accuracy: what the user's accuracy of the classes is thought to be.
        users_accuracies: the same by class name, for those that are thought to be better or worse.

    Returns:
        Points of each stratum.

    Raises:
        UsageError: an unknown class name, a number out of range, or fewer samples than the minimum of all classes together.
    """
    expected = dict(users_accuracies or {})
    for name in expected:
        if name not in strata.names:
            raise UsageError(f"users_accuracies: the map shows no class {name!r}; {suggest(name, strata.names)}")
    if minimum < 1:
        raise UsageError(f"minimum {minimum}: expected 1 point or more a class")
    if samples is None:
        users = [expected.get(name, users_accuracy) for name in strata.names]
        samples = sample_size(strata.shares, users, standard_error, float(strata.pixels.sum()))
    else:
        least = int(np.minimum(minimum, strata.pixels).sum())
        if samples < least:
            raise UsageError(
                f"samples {samples}: {len(strata.ids)} mapped classes with at least {minimum} points each need {least}; "
                "give more samples or a lower minimum"
            )
    return allocate(strata.pixels, samples, minimum)


def draw_points(strata: Strata, numbers: Sequence[int], seed: int = 0) -> SamplePoints:
    """Draw pixels of each class, each with the same probability, without repeats.

    The ranks of the pixels among those of their class are drawn first; then the blocks that hold one are read again. So a map of any
    size needs the memory of one block.

    Args:
        strata: of the map.
        numbers: points of each stratum, at most its pixels.
        seed: of the draw.
    """
    uri = strata.header.info.uri
    wanted: dict[int, list[tuple[int, NDArray[np.int64]]]] = {}
    for index, (value, number) in enumerate(zip(strata.ids, numbers, strict=True)):
        ranks = np.sort(seeds.generator(seed, "sample", value).choice(int(strata.pixels[index]), number, replace=False, shuffle=False))
        ends = np.cumsum(strata.block_pixels[:, index])
        places = np.searchsorted(ends, ranks, side="right")
        for block in np.unique(places).tolist():
            inside = ranks[places == block] - (ends[block] - strata.block_pixels[block, index])
            wanted.setdefault(block, []).append((value, inside))
    found: list[NDArray[np.int64]] = []
    with bounded_cache():
        for block, draws in sorted(wanted.items()):
            window = strata.blocks[block]
            values = read_label(uri, window)
            for value, inside in draws:
                rows, columns = np.divmod(np.flatnonzero(values == value)[inside], window.width)
                found.append(np.stack((columns + window.column, rows + window.row, np.full(len(rows), value))))
    drawn = np.concatenate(found, axis=1)
    # In random order: whoever stops half-way has still looked at a random sample.
    columns, rows, ids = drawn[:, seeds.generator(seed, "sample order").permutation(drawn.shape[1])]
    return SamplePoints(columns, rows, ids)


def write_points(strata: Strata, points: SamplePoints, out: str | Path) -> Path:
    """Write points at the centres of their pixels, in the CRS of the map (in pixels where it has none).

    Args:
        strata: of the map.
        points: to write.
        out: ``.gpkg`` or ``.csv``; the columns are :data:`COLUMNS`.

    Raises:
        UsageError: another suffix.
        OutputExistsError: the file exists; it may hold an interpreter's work.
        MissingExtraError: geopandas is not installed and the file is no CSV.
    """
    path = check_target(out)
    a, b, c, d, e, f = strata.header.info.transform or (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    across, down = points.columns + 0.5, points.rows + 0.5
    x, y = a * across + b * down + c, d * across + e * down + f
    names = [strata.header.name(value) for value in points.ids.tolist()]
    if path.suffix.lower() == ".csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for index, name in enumerate(names):
            writer.writerow([index + 1, repr(float(x[index])), repr(float(y[index])), int(points.ids[index]), name, ""])
        return write_text(path, text.getvalue())
    with needs_extra("geo", "points in a GeoPackage"):
        import geopandas
        import pandas
    values = (np.arange(1, len(x) + 1), x, y, points.ids, names, pandas.array([None] * len(x), dtype="string"))
    frame = geopandas.GeoDataFrame(
        dict(zip(COLUMNS, values, strict=True)), geometry=geopandas.points_from_xy(x, y), crs=strata.header.info.crs
    )
    return write_geopackage(path, frame, LAYER)


def check_target(out: str | Path) -> Path:
    """Refuse a place that points cannot be written to, before the map is read.

    Raises:
        UsageError: neither ``.gpkg`` nor ``.csv``.
        OutputExistsError: the file exists.
    """
    path = Path(out)
    if path.suffix.lower() not in _SUFFIXES:
        raise UsageError(f"{path}: points are written as {' or '.join(_SUFFIXES)}")
    if path.exists():
        raise OutputExistsError(f"{path}: exists and may hold reference classes that were filled in; choose another name")
    return path
