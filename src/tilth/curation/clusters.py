"""Kinds of imagery: k-means over features that need not fit into memory, and the nearest prototype of every tile (s5_pretrain.md 2.4).

Lloyd's algorithm, exactly, one chunk of rows after the other. What it is at is a function of centres and number of iterations alone, so
whoever keeps those can go on from them and ends up with the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from tilth.errors import DataError
from tilth.models.tensors import save_tensors
from tilth.seeds import generator

CHUNK = 8192
"""Rows that are looked at together."""

Floats = NDArray[np.float32]


class Rows(Protocol):
    """N feature vectors, wherever they lie."""

    def __len__(self) -> int:
        """Return N."""

    def take(self, positions: NDArray[np.int64]) -> Floats:
        """Copy some of them: float32 (n, d)."""

    def part(self, start: int, stop: int) -> Floats:
        """Give those from start to stop, to be read only: float32 (stop - start, d)."""


@dataclass(frozen=True)
class ArrayRows:
    """Feature vectors in memory: float32 (N, d)."""

    values: Floats

    def __len__(self) -> int:
        """Return N."""
        return len(self.values)

    def take(self, positions: NDArray[np.int64]) -> Floats:
        """Copy some of them."""
        return self.values[positions]

    def part(self, start: int, stop: int) -> Floats:
        """Give those from start to stop."""
        return self.values[start:stop]


@dataclass(frozen=True)
class Clusters:
    """What k-means found.

    Attributes:
        centres: float32 (M, d), means of their rows.
        counts: int64 (M,), rows of each; of the centres before the last step while it has not converged.
        iterations: steps done.
        converged: whether a further step would change nothing.
    """

    centres: Floats
    counts: NDArray[np.int64]
    iterations: int = 0
    converged: bool = False


def seed_centres(rows: Rows, clusters: int, *, seed: int, seeding_rows: int) -> Floats:
    """Draw first centres by k-means++: each next one with a chance in proportion to its squared distance from those before.

    Args:
        rows: N feature vectors.
        clusters: how many centres are wanted.
        seed: another one draws others.
        seeding_rows: drawn from so many rows at most, chosen evenly; of fewer rows than these, from all.

    Returns:
        float32 (M, d), distinct; M is smaller than asked for where there are not so many distinct rows.

    Raises:
        DataError: no row at all.
    """
    if not len(rows):
        raise DataError("no feature to find clusters of")
    chosen = np.arange(len(rows))
    if len(rows) > seeding_rows:
        chosen = np.sort(generator(seed, "k-means sample").choice(len(rows), seeding_rows, replace=False))
    values = torch.from_numpy(rows.take(chosen))
    lengths = (values * values).sum(dim=1)
    draw = generator(seed, "k-means++")
    picked = [int(draw.integers(len(chosen)))]
    nearest = torch.full_like(lengths, torch.inf)
    while len(picked) < clusters:
        last = values[picked[-1]]
        torch.minimum(nearest, (lengths + last.dot(last) - 2 * (values @ last)).clamp_(min=0), out=nearest)
        # What rounding leaves of the distance of equal rows is no distance.
        chances = torch.where(nearest > 1e-6 * lengths, nearest, 0.0).numpy().astype(np.float64).cumsum()
        if not chances[-1]:
            break
        picked.append(int(np.searchsorted(chances, draw.random() * chances[-1], side="right")))
    return values[picked].numpy()


def lloyd(
    rows: Rows,
    start: Clusters,
    *,
    iterations: int,
    after: Callable[[Clusters], None] | None = None,
) -> Clusters:
    """Improve centres by Lloyd's algorithm until nothing changes: every row to its nearest centre, every centre to the mean of its rows.

    A centre without rows moves to the row that lies furthest from its own centre. Sums are taken in float32 within a chunk and in float64
    over chunks.

    Args:
        rows: N feature vectors.
        start: where to go on from.
        iterations: steps in all, those done before included.
        after: told after every step.

    Returns:
        The clusters, after so many steps or as soon as centres stay as they are.
    """
    found = start
    while not found.converged and found.iterations < iterations:
        found = _step(rows, found)
        if after is not None:
            after(found)
    return found


def assign(rows: Rows, prototypes: Floats, progress: Callable[[int], None] | None = None) -> tuple[NDArray[np.int32], Floats]:
    """Find the prototype of the highest cosine similarity for every row; ties go to the lower index.

    Args:
        rows: N feature vectors; of zeros the similarity is 0.
        prototypes: float32 (M, d).
        progress: told how many rows are done.

    Returns:
        int32 (N,), index of the prototype, and float32 (N,), the similarity, -1 to 1.
    """
    unit = torch.nn.functional.normalize(torch.from_numpy(prototypes), dim=1)
    nearest, likeness = np.empty(len(rows), dtype=np.int32), np.empty(len(rows), dtype=np.float32)
    for begin, end, values in _chunks(rows):
        highest, index = (torch.nn.functional.normalize(values, dim=1) @ unit.T).max(dim=1)
        nearest[begin:end], likeness[begin:end] = index.numpy(), highest.numpy()
        if progress is not None:
            progress(end)
    return nearest, likeness


def count_rows(rows: Rows, centres: Floats) -> NDArray[np.int64]:
    """Count the rows that are nearest to each centre, by Euclidean distance: int64 (M,)."""
    counts = np.zeros(len(centres), dtype=np.int64)
    places = torch.from_numpy(centres)
    for _, _, values in _chunks(rows):
        counts += np.bincount(_nearest(values, places)[0].numpy(), minlength=len(centres))
    return counts


def _step(rows: Rows, before: Clusters) -> Clusters:
    """One step of Lloyd's algorithm."""
    centres = torch.from_numpy(before.centres)
    sums, counts = torch.zeros(centres.shape, dtype=torch.float64), np.zeros(len(centres), dtype=np.int64)
    # The rows that lie furthest from their centres, for centres that lose all theirs: never more than there are centres.
    far_distances, far_rows = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    for begin, _, values in _chunks(rows):
        nearest, score = _nearest(values, centres)
        sums += torch.zeros(centres.shape).index_add_(0, nearest, values)
        counts += np.bincount(nearest.numpy(), minlength=len(centres))
        distances = (values * values).sum(dim=1) - 2 * score
        top = distances.topk(min(len(centres), len(distances)))
        far_distances, far_rows = torch.cat([far_distances, top.values]), torch.cat([far_rows, top.indices + begin])
        far_distances, kept = far_distances.topk(min(len(centres), len(far_distances)))
        far_rows = far_rows[kept]
    means = np.divide(sums.numpy(), counts[:, None], where=counts[:, None] > 0, out=np.zeros(centres.shape)).astype(np.float32)
    empty = np.flatnonzero(counts == 0)
    if empty.size:
        means[empty] = rows.take(far_rows[: empty.size].numpy())
    return replace(before, centres=means, counts=counts, iterations=before.iterations + 1, converged=bool((means == before.centres).all()))


def _nearest(values: torch.Tensor, centres: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Index of the nearest centre of rows (n, d), ties to the lower one, and x.c - |c|^2 / 2 for it, which falls with the distance."""
    score, index = torch.addmm(centres.pow(2).sum(dim=1).mul(-0.5), values, centres.T).max(dim=1)
    return index, score


def _chunks(rows: Rows) -> Iterator[tuple[int, int, torch.Tensor]]:
    """Give rows chunk by chunk, with first position and the one after the last."""
    for begin in range(0, len(rows), CHUNK):
        end = min(begin + CHUNK, len(rows))
        yield begin, end, torch.from_numpy(np.require(rows.part(begin, end), np.float32, ["C", "W"]))


def write_clusters(path: Path, stamp: str, found: Clusters) -> None:
    """Keep how far k-means is, in one go; ``stamp`` says what it was at.

    Raises:
        TilthError: the place cannot be written to.
    """
    header = {"stamp": stamp, "iterations": found.iterations, "converged": found.converged}
    # One key, since the library writes several in any order.
    save_tensors(
        path, {"centres": torch.from_numpy(found.centres), "counts": torch.from_numpy(found.counts)}, {"tilth": json.dumps(header)}
    )


def read_clusters(path: Path, stamp: str) -> Clusters | None:
    """Read how far k-means was; None if it was at something else, or nothing is there."""
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["tilth"])
            if header["stamp"] != stamp:
                return None
            centres, counts = (file.get_tensor(name).numpy() for name in ("centres", "counts"))
            return Clusters(centres, counts, int(header["iterations"]), bool(header["converged"]))
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
