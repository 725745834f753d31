"""Parcels: blocks of land divided into fields that share one direction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilth.errors import needs_extra
from tilth.imagery.landscape.config import LandscapeConfig
from tilth.imagery.landscape.fields import Field, spectral_noise
from tilth.seeds import generator


@dataclass(frozen=True)
class Parcels:
    """A division of the whole scene; every array (H, W).

    Attributes:
        block: id of the block, int64.
        block_edge: distance to the nearest boundary with another block, in pixels.
        border: number in [0, 1) that belongs to that boundary, the same on both sides; says what runs along it.
        parcel: id of the parcel, 0 to P-1, int64.
        parcel_edge: distance in pixels to the nearest boundary with another parcel of the block.
        across: coordinate in pixels across the working direction of the block; furrows run where it is constant.
    """

    block: NDArray[np.int64]
    block_edge: Field
    border: Field
    parcel: NDArray[np.int64]
    parcel_edge: Field
    across: Field


def divide(config: LandscapeConfig) -> Parcels:
    """Divide a scene: Voronoi cells as blocks, each cut into staggered strips."""
    with needs_extra("geo", "landscapes"):
        from scipy import spatial

    random = generator(config.seed, "landscape", config.index, "parcels")
    row, column = np.indices(config.shape, np.float32)
    # Boundaries are a little crooked, as old ones are.
    sway = 0.10 * config.parcel_px
    row += sway * spectral_noise(random, config.shape, 4 * config.parcel_px, 6)
    column += sway * spectral_noise(random, config.shape, 4 * config.parcel_px, 6)

    spacing = 2.4 * config.parcel_px
    counts = [int(np.ceil(side / spacing)) + 4 for side in config.shape]
    centres = np.stack(np.meshgrid(*(np.arange(count) - 1.5 for count in counts), indexing="ij"), axis=-1).reshape(-1, 2)
    centres = (centres + random.uniform(-0.42, 0.42, centres.shape)) * spacing
    points = np.stack([row, column], axis=-1).reshape(-1, 2)
    distance, nearest = spatial.cKDTree(centres).query(points, k=2)
    block, neighbour = nearest.T
    apart = np.linalg.norm(centres[block] - centres[neighbour], axis=1)
    block_edge = (distance[:, 1] ** 2 - distance[:, 0] ** 2) / (2 * apart)

    count = len(centres)
    # Neighbouring blocks tend to follow the same direction, some lie across it.
    angle = random.uniform(0, np.pi) + random.normal(0, 0.25, count) + np.pi / 2 * (random.random(count) < 0.3)
    width = config.parcel_px * random.uniform(0.35, 0.9, count)
    length = config.parcel_px * random.uniform(1.0, 2.4, count)
    offset = points - centres[block]
    sine, cosine = np.sin(angle)[block], np.cos(angle)[block]
    across, along = offset[:, 0] * cosine + offset[:, 1] * sine, offset[:, 1] * cosine - offset[:, 0] * sine
    strip = across / width[block]
    stagger = np.sin(np.floor(strip) * 12.9898 + block) * 0.5
    piece = along / length[block] + stagger
    key = (block * 4096 + np.floor(strip).astype(np.int64) + 2048) * 4096 + np.floor(piece).astype(np.int64) + 2048
    parcel = np.unique(key, return_inverse=True)[1]
    from_side = np.abs(strip - np.rint(strip)) * width[block]
    from_end = np.abs(piece - np.rint(piece)) * length[block]

    def image(values: NDArray[np.float64]) -> Field:
        return values.reshape(config.shape).astype(np.float32)

    return Parcels(
        block=block.reshape(config.shape),
        block_edge=image(block_edge),
        border=image((np.minimum(block, neighbour) * 7919 + np.maximum(block, neighbour) * 104729) % 97 / 97),
        parcel=parcel.reshape(config.shape).astype(np.int64),
        parcel_edge=image(np.minimum(from_side, from_end)),
        across=image(across),
    )
