"""Streets, lots and houses of towns and hamlets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilth.imagery.landscape.config import LandscapeConfig
from tilth.imagery.landscape.fields import Field, mean_by, spectral_noise
from tilth.imagery.landscape.materials import ROOFS
from tilth.imagery.landscape.roads import Roads, Town
from tilth.imagery.landscape.terrain import Terrain
from tilth.seeds import generator

NO_LOT = -1


@dataclass(frozen=True)
class Built:
    """What people have built; every array (H, W).

    Attributes:
        inside: bool, land of a settlement.
        street: bool, paved streets and yards.
        lot: int64, id of the lot whose house footprint covers the pixel, -1 where none; ids 0 to L-1.
        standing: bool (L,), whether the house of a lot stands; the others were demolished or never built.
        roof: uint8, material of the roof on house footprints, 0 elsewhere.
        height: float32, metres of roof above ground on house footprints, 0 elsewhere.
        green: float32, density of trees in gardens and parks, 0 elsewhere.
    """

    inside: NDArray[np.bool_]
    street: NDArray[np.bool_]
    lot: NDArray[np.int64]
    standing: NDArray[np.bool_]
    roof: NDArray[np.uint8]
    height: Field
    green: Field


def build(config: LandscapeConfig, terrain: Terrain, roads: Roads) -> Built:
    """Lay out every settlement in turn."""
    random = generator(config.seed, "landscape", config.index, "settlements")
    edge = 1 + 0.3 * spectral_noise(random, config.shape, 60, 12)
    closed = terrain.water | (terrain.slope > 0.6) | roads.paved
    inside, street = np.zeros(config.shape, np.bool_), np.zeros(config.shape, np.bool_)
    lot = np.full(config.shape, NO_LOT, np.int64)
    roof, height, green = np.zeros(config.shape, np.uint8), np.zeros(config.shape, np.float32), np.zeros(config.shape, np.float32)
    standing: list[NDArray[np.bool_]] = []
    count = 0
    for town in roads.towns:
        box = _box(town, config.shape)
        plan = _plan(config, random, town, box, edge[box], closed[box])
        free = ~inside[box]
        inside[box] |= plan.inside
        street[box] |= plan.street & free
        here = free & (plan.lot >= 0)
        lot[box][here] = plan.lot[here] + count
        for target, source in ((roof, plan.roof), (height, plan.height), (green, plan.green)):
            target[box][free] = source[free]
        standing.append(plan.standing)
        count += len(plan.standing)
    return Built(inside, street & ~terrain.water, lot, np.concatenate(standing) if standing else np.zeros(0, np.bool_), roof, height, green)


def _box(town: Town, shape: tuple[int, int]) -> tuple[slice, slice]:
    reach = town.radius_px * 1.5
    return (
        slice(max(int(town.row - reach), 0), min(int(town.row + reach) + 1, shape[0])),
        slice(max(int(town.column - reach), 0), min(int(town.column + reach) + 1, shape[1])),
    )


def _plan(
    config: LandscapeConfig, random: np.random.Generator, town: Town, box: tuple[slice, slice], edge: Field, closed: NDArray[np.bool_]
) -> Built:
    """Lay out one settlement inside its box: a turned grid of streets, lots on both sides, one house a lot."""
    rows, columns = np.mgrid[box]
    sine, cosine = np.sin(town.angle), np.cos(town.angle)
    along = (columns - town.column) * cosine + (rows - town.row) * sine
    across = (rows - town.row) * cosine - (columns - town.column) * sine
    inside = np.hypot(along, across) * edge < town.radius_px

    house = config.pixels(12, 3.4)
    street_px, lot_px, deep_px = config.pixels(6, 1.6), 1.6 * house, 1.9 * house
    wide = street_px + lot_px * int(random.integers(3, 7))
    high = street_px + 2 * deep_px
    # The through road of a hamlet is its middle street.
    u, v = along + street_px / 2 + wide * random.random(), across + street_px / 2
    block_u, block_v = np.floor(u / wide), np.floor(v / high)
    u, v = u - block_u * wide, v - block_v * high
    street = inside & ((u < street_px) | (v < street_px))

    block = np.unique((block_u * 1024 + block_v).astype(np.int64), return_inverse=True)[1]
    block_kind = random.random(int(block.max()) + 1)[block]
    hall, park = block_kind < 0.12, (block_kind > 0.9) & (town.radius_px > 30)
    # A hall takes the whole block, a house half its depth.
    number, side = np.floor((u - street_px) / lot_px), (v - street_px) > deep_px
    key = block * 64 + np.where(hall, 0, 2 * number + side + 2).astype(np.int64)
    lot = np.unique(key, return_inverse=True)[1]
    draw = random.random((int(lot.max()) + 1, 6))[lot]

    lot_wide, lot_deep = np.where(hall, wide - street_px, lot_px), np.where(hall, high - street_px, deep_px)
    from_left = u - street_px - np.where(hall, 0, number * lot_px)
    from_street = np.where(hall | ~side, v - street_px, high - v)
    size_u, size_v = lot_wide * (0.6 + 0.3 * draw[..., 0]), lot_deep * np.where(hall, 0.5 + 0.3 * draw[..., 1], 0.45 + 0.25 * draw[..., 1])
    middle_u = size_u / 2 + (lot_wide - size_u) * draw[..., 2]
    middle_v = size_v / 2 + (lot_deep - size_v) * np.where(hall, draw[..., 3], 0.1 + 0.2 * draw[..., 3])
    off_u, off_v = np.abs(from_left - middle_u), np.abs(from_street - middle_v)
    footprint = (off_u < size_u / 2) & (off_v < size_v / 2) & ~street & ~park

    # Houses that would stand in water, on a road or beyond the edge of town are not there at all.
    spoiled = mean_by(lot, footprint & (closed | ~inside)) > 0
    footprint &= ~spoiled[lot]
    standing = random.random(len(spoiled)) > 0.15
    roof = np.where(
        hall, ROOFS.halls[(draw[..., 4] * len(ROOFS.halls)).astype(int)], ROOFS.houses[(draw[..., 4] * len(ROOFS.houses)).astype(int)]
    )
    eaves = np.where(hall, 7 + 4 * draw[..., 5], 4 + 4 * draw[..., 5])
    gable = np.where(hall, 0.0, 0.7) * (size_v / 2 - off_v) * config.gsd_m
    height = np.where(footprint & standing[lot], eaves + np.minimum(gable, 5), 0)
    yard = inside & hall & ~footprint & ~spoiled[lot]
    green = np.where(inside & ~street & ~hall, np.where(park, 0.55, 0.22), 0)
    ids = np.where(footprint, lot, NO_LOT)
    return Built(
        inside,
        (street | yard) & inside,
        ids,
        standing,
        np.where(footprint, roof, 0).astype(np.uint8),
        height.astype(np.float32),
        green.astype(np.float32),
    )
