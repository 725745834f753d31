"""Tiles that show the same picture: exactly, by a hash of their pixels, or nearly, by a hash that recompression does not change.

The *portrait* of a tile is a grey picture of 32 x 32 pixels, each the mean of its part of the tile, standardised: brightness and contrast
do not count, and any number of bands gives one. Its *perceptual hash* is the sign of 64 low frequencies of it (cosine transform). Tiles
whose hashes differ in few bits are compared by their portraits, as a whole and in their details alone: all fields under one haze look
alike as a whole. Candidates come from tables of parts of the hash, so the work grows with the tiles and not with their square.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilth.imagery.raster import Pixels
from tilth.seeds import generator

SIDE = 32
"""Side of a portrait in pixels; smaller tiles have none."""

LEAST_VALID = 0.5
"""Tiles with a smaller share of valid pixels have no portrait."""

HASH_BITS = 64

MOST_BITS = 12
"""Bits of the hash in which near duplicates may differ."""

LEAST_CORRELATION = 0.95
"""Of the portraits of near duplicates."""

LEAST_DETAIL = 0.85
"""Correlation of the details of near duplicates: portraits without their 4 x 4 lowest frequencies."""

_COARSE = 4
# Portraits are kept in one byte a pixel; one standard deviation is this many steps.
_STEPS = 24
# Details weaker than this, in standard deviations, drown in the rounding to bytes.
_FAINT = 0.06
# Parts of the hash of which one must agree for a pair to be looked at. Parts grow with the catalog, so that groups stay small: of pairs
# that differ in 4 bits less than 1 in 1,000 is missed among a million tiles, and as few of those that differ in 8 among a thousand.
_TABLES, _FEWEST_BITS, _MOST_TABLE_BITS = 24, 10, 16
# In a larger group each tile is compared with this many neighbours in the order of hashes.
_NEIGHBOURS = 64
_PAIRS = 1 << 18
_AT_ONCE = 4096
_MOST_SLOT_BITS = 22
_ONES_OF_A_BYTE = np.array([number.bit_count() for number in range(256)])


@dataclass(frozen=True, eq=False)
class Portraits:
    """Portraits of the tiles that have one.

    Attributes:
        tiles: int64 (n,), positions of the tiles in the catalog, ascending.
        pictures: int8 (m, 32, 32).
        rows: int64 (n,), position of each tile's portrait among the pictures; None where they are parallel.
    """

    tiles: NDArray[np.int64]
    pictures: NDArray[np.int8]
    rows: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """Return the number of tiles."""
        return len(self.tiles)

    def draw(self, numbers: NDArray[np.int64]) -> NDArray[np.int8]:
        """Copy the portraits of some of the tiles, by number from 0 to n - 1: int8 (k, 32, 32)."""
        return self.pictures[numbers if self.rows is None else self.rows[numbers]]


def pixel_digest(pixels: Pixels) -> bytes:
    """Hash the stored values, their type and shape: 16 bytes, equal for equal pixels whatever file they come from."""
    digest = hashlib.blake2b(f"{pixels.data.dtype.str} {pixels.data.shape}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels.data).data)
    return digest.digest()


def portrait(pixels: Pixels) -> NDArray[np.int8] | None:
    """Draw the portrait of a tile.

    Args:
        pixels: data (C, h, w) and what of it is valid; bands count alike, whatever their units.

    Returns:
        int8 (32, 32), standardised over its pixels; None for tiles that are too small, too empty or constant.
    """
    count, height, width = pixels.data.shape
    if min(height, width) < SIDE or pixels.valid.mean() < LEAST_VALID:
        return None
    rows, columns = (np.arange(SIDE) * size // SIDE for size in (height, width))
    if pixels.valid.all():
        parts = np.diff(np.append(rows, height))[:, None] * np.diff(np.append(columns, width))
        sums = _block_sums(pixels.data, rows, columns)
    else:
        parts = _block_sums(pixels.valid[None], rows, columns)[0]
        sums = _block_sums(np.where(pixels.valid, pixels.data, 0), rows, columns)
    known = parts > 0
    means = sums / np.maximum(parts, 1)
    grey = np.zeros((SIDE, SIDE))
    for band in range(count):
        spread = means[band][known].std()
        if spread > 1e-6 * max(1.0, float(np.abs(means[band]).max())):
            grey[known] += (means[band][known] - means[band][known].mean()) / spread
    if not grey[known].std():
        return None
    drawn: NDArray[np.int8] = np.clip(np.rint(grey / grey.std() * _STEPS), -127, 127).astype(np.int8)
    return drawn


def perceptual_hashes(pictures: NDArray[np.int8]) -> NDArray[np.uint64]:
    """Signs of 64 low frequencies of portraits (n, 32, 32): uint64 (n,)."""
    waves = _waves(9)
    # One row more than columns, since the mean tells nothing.
    chosen = np.array([(row, column) for row in range(9) for column in range(8) if (row, column) != (0, 0)][:HASH_BITS])
    weights = (np.uint64(1) << np.arange(HASH_BITS, dtype=np.uint64)).astype(np.uint64)
    hashes = np.zeros(len(pictures), dtype=np.uint64)
    for start in range(0, len(pictures), _AT_ONCE):
        part = waves @ pictures[start : start + _AT_ONCE].astype(np.float32) @ waves[:8].T
        hashes[start : start + _AT_ONCE] = ((part[:, chosen[:, 0], chosen[:, 1]] > 0) * weights).sum(axis=1, dtype=np.uint64)
    return hashes


def near_pairs(portraits: Portraits) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find tiles that nearly show the same picture.

    Args:
        portraits: of n tiles.

    Returns:
        int64 (M, 2) positions of tiles in the catalog, the first smaller than the second, sorted; and the correlation of each pair's
        portraits.
    """
    found = list(judged_pairs(portraits, lambda pairs: np.ones(len(pairs), dtype=bool)))
    if not found:
        return np.zeros((0, 2), dtype=np.int64), np.zeros(0)
    pairs, first = np.unique(np.concatenate([item[0] for item in found]), axis=0, return_index=True)
    return pairs, np.concatenate([item[1] for item in found])[first]


def judged_pairs(
    portraits: Portraits, wanted: Callable[[NDArray[np.int64]], NDArray[np.bool_]]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Find tiles that nearly show the same picture, a part at a time, so that nothing grows with the number of pairs.

    Of a place seen a hundred times every pair is alike; whoever wants one partner for each tile says so.

    Args:
        portraits: of n tiles.
        wanted: tells which of pairs (M, 2) of positions in the catalog are worth comparing; asked anew for every part, after the part
            before was given.

    Yields:
        As :func:`near_pairs`; a pair may come again.
    """
    count = len(portraits)
    starts = range(0, count, _AT_ONCE)
    hashes = np.concatenate(
        [np.zeros(0, np.uint64), *(perceptual_hashes(portraits.draw(np.arange(at, min(at + _AT_ONCE, count)))) for at in starts)]
    )
    # The pair judged last in each slot: most pairs come from several tables.
    slots = np.full(1 << min(_MOST_SLOT_BITS, max(10, math.ceil(math.log2(64 * count + 1)))), -1)
    for first, second in _candidates(hashes):
        numbers = np.stack([np.minimum(first, second), np.maximum(first, second)], axis=1)
        numbers = numbers[wanted(portraits.tiles[numbers])]
        keys = numbers[:, 0] * count + numbers[:, 1]
        # Fibonacci hashing; products wrap around.
        places = (keys.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(40)).astype(np.int64) & (len(slots) - 1)
        fresh = slots[places] != keys
        numbers, slots[places[fresh]] = numbers[fresh], keys[fresh]
        for start in range(0, len(numbers), _AT_ONCE):
            part = numbers[start : start + _AT_ONCE]
            whole = _agreement(portraits.draw(part[:, 0]), portraits.draw(part[:, 1]))
            if (whole > 0).any():
                yield portraits.tiles[part[whole > 0]], whole[whole > 0]


def _candidates(hashes: NDArray[np.uint64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs of positions whose hashes agree in one of several parts and differ in few bits; a pair may come several times."""
    random = generator(0, "near duplicates")
    bits = min(max(math.ceil(math.log2(max(len(hashes), 2))), _FEWEST_BITS), _MOST_TABLE_BITS)
    for _ in range(_TABLES):
        mask = np.bitwise_or.reduce(np.uint64(1) << random.choice(HASH_BITS, bits, replace=False).astype(np.uint64))
        keys = hashes & mask
        # Equal keys beside each other, and within them alike hashes.
        order = np.lexsort((hashes, keys))
        ends = np.searchsorted(keys[order], keys[order], side="right")
        for step in range(1, _NEIGHBOURS + 1):
            place = np.flatnonzero(np.arange(len(order)) + step < ends)
            if not place.size:
                break
            for part in np.array_split(place, -(-place.size // _PAIRS)):
                first, second = order[part], order[part + step]
                close = _ones(hashes[first] ^ hashes[second]) <= MOST_BITS
                if close.any():
                    yield first[close], second[close]


def _agreement(first: NDArray[np.int8], second: NDArray[np.int8]) -> NDArray[np.float64]:
    """Correlation of pairs of portraits (n, 32, 32); 0 where whole or details differ too much or details are too faint to tell."""
    whole = _correlate(first.astype(np.float32), second.astype(np.float32))
    left, right = _details(first), _details(second)
    told = np.minimum(left.std(axis=(1, 2)), right.std(axis=(1, 2))) >= _FAINT * _STEPS
    good = told & (whole >= LEAST_CORRELATION) & (_correlate(left, right) >= LEAST_DETAIL)
    return np.where(good, whole, 0.0)


def _correlate(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float64]:
    one, other = (side - side.mean(axis=(1, 2), dtype=np.float64, keepdims=True) for side in (left, right))
    lengths = np.sqrt((one**2).sum(axis=(1, 2)) * (other**2).sum(axis=(1, 2)))
    result: NDArray[np.float64] = (one * other).sum(axis=(1, 2)) / np.maximum(lengths, 1e-9)
    return result


def _details(pictures: NDArray[np.int8]) -> NDArray[np.float32]:
    """Take the lowest frequencies out of portraits (n, 32, 32)."""
    numbers, waves = pictures.astype(np.float32), _waves(_COARSE)
    return np.asarray(numbers - waves.T @ (waves @ numbers @ waves.T) @ waves, dtype=np.float32)


def _ones(numbers: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Count the bits that are 1 in each of n numbers."""
    counted: NDArray[np.int64] = _ONES_OF_A_BYTE[numbers.view(np.uint8).reshape(-1, 8)].sum(axis=1)
    return counted


def _waves(count: int) -> NDArray[np.float32]:
    """The first cosine waves over a portrait's side, orthonormal: float32 (count, 32)."""
    waves = np.cos(np.pi * np.arange(count)[:, None] * (np.arange(SIDE) + 0.5) / SIDE)
    unit: NDArray[np.float32] = (waves / np.sqrt((waves**2).sum(axis=1, keepdims=True))).astype(np.float32)
    return unit


def _block_sums(data: NDArray[np.generic], rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sums over blocks that begin at rows and columns: float64 (C, 32, 32)."""
    result: NDArray[np.float64] = np.add.reduceat(np.add.reduceat(data, columns, axis=2, dtype=np.float64), rows, axis=1)
    return result
