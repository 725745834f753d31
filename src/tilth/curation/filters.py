"""Which tiles are dropped for what they are, and the words for it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tilth.curation.config import FilterConfig
from tilth.curation.copies import exact_copies, near_copies
from tilth.curation.store import Scores

UNREADABLE = "unreadable"
LABELLED_GROUND = "labelled ground"
NO_DATA = "no data"
BLANK = "blank"
BRIGHT = "bright"
NO_FOREGROUND = "no foreground"
DUPLICATE = "duplicate"
NEAR_DUPLICATE = "near duplicate"
CLUSTER_FULL = "cluster full"
TOO_UNSURE = "entropy too high"
DROPPED = (UNREADABLE, LABELLED_GROUND, NO_DATA, BLANK, BRIGHT, NO_FOREGROUND, DUPLICATE, NEAR_DUPLICATE, CLUSTER_FULL, TOO_UNSURE)
"""Reasons to drop a tile, in the order in which they are asked: the first that holds is given."""

PASSED = "passed"
WITHIN_QUOTA = "within quota"
FILLS_UP = "fills up"
SUREST = "lowest entropy"
KEPT = (PASSED, WITHIN_QUOTA, FILLS_UP, SUREST)
"""Reasons to keep a tile: no selection was asked for, its cluster had room, others had too few, or no clusters were asked for."""

REASONS = (*DROPPED, *KEPT)


def reason_code(reason: str) -> int:
    """Position of a reason among :data:`REASONS`."""
    return REASONS.index(reason)


def judge_alone(
    scores: Scores, filters: FilterConfig, background: tuple[int, ...], sources: pa.ChunkedArray, labelled_ground: NDArray[np.bool_]
) -> NDArray[np.int8]:
    """Say for every tile by itself whether it is dropped.

    Args:
        scores: of N tiles.
        filters: the thresholds.
        background: ids of background classes; without any every pixel is foreground.
        sources: where each tile is from, for tiles that the foreground guard lets pass.
        labelled_ground: bool (N,), tiles that show pixels of a labelled one.

    Returns:
        int8 (N,), positions among :data:`REASONS`, -1 for tiles that pass.
    """
    foreground = foreground_pixels(scores, background)
    exempt = np.zeros(len(scores), dtype=bool)
    if filters.foreground_exempt:
        exempt = pc.is_in(sources, value_set=pa.array(filters.foreground_exempt, pa.string())).to_numpy()
    valid, contrast, bright = (scores.numbers(name) for name in ("valid", "contrast", "bright"))
    guard = np.full(len(scores), filters.foreground_guard) & ~exempt
    found = np.full(len(scores), -1, dtype=np.int8)
    tests = {
        UNREADABLE: scores.table["problem"].is_valid().to_numpy(),
        LABELLED_GROUND: labelled_ground,
        # A tile without a valid pixel is no use, whatever share is asked for.
        NO_DATA: (valid < filters.least_valid) | ~(valid > 0),
        BLANK: contrast < filters.least_contrast,
        BRIGHT: (bright > filters.most_bright) if filters.most_bright < 1 else np.zeros(len(scores), dtype=bool),
        NO_FOREGROUND: guard & (foreground < filters.min_foreground_pixels),
    }
    for reason, holds in tests.items():
        found[(found < 0) & holds] = reason_code(reason)
    return found


def judge_copies(
    codes: NDArray[np.int8], scores: Scores, filters: FilterConfig, others: Scores | None = None
) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """Drop the copies among the tiles that passed so far; of those alike the first stays.

    Args:
        codes: int8 (N,) of :func:`judge_alone`.
        scores: of the N tiles.
        filters: which copies.
        others: scores of tiles that come before all of them and are none of the pool.

    Returns:
        The codes, and int64 (N,): position of the tile that stays among the N, for one of the others minus its position minus 2, -1 for
        tiles that are no copies.
    """
    ahead = 0 if others is None else len(others)
    tables = [scores] if others is None else [others, scores]
    same = np.full(ahead + len(scores), -1, dtype=np.int64)
    if filters.duplicates == "none":
        return codes, same[ahead:]
    digests = np.concatenate([table.digests() for table in tables])
    rows = np.concatenate([np.arange(ahead), ahead + np.flatnonzero(codes < 0)])
    rows = rows[digests[rows].any(axis=1)]
    same = exact_copies(digests, rows)
    result = codes.copy()
    result[same[ahead:] >= 0] = reason_code(DUPLICATE)
    if filters.duplicates == "near":
        near = near_copies(tables, rows[same[rows] < 0])
        result[near[ahead:] >= 0] = reason_code(NEAR_DUPLICATE)
        same = np.where(same >= 0, same, near)
    keepers = same[ahead:]
    return result, np.where(keepers < 0, -1, np.where(keepers >= ahead, keepers - ahead, -keepers - 2))


def foreground_pixels(scores: Scores, background: tuple[int, ...]) -> NDArray[np.int64]:
    """Count the valid pixels that the model gives to a class that is no background: int64 (N,)."""
    pixels = scores.pixels()
    kept = [index for index in range(pixels.shape[1]) if index not in background]
    return np.asarray(pixels[:, kept].sum(axis=1, dtype=np.int64))
