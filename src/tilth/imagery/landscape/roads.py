"""Where towns lie and how roads join them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilth.errors import needs_extra
from tilth.imagery.landscape.config import LandscapeConfig
from tilth.imagery.landscape.fields import Chain, Field, distance_to_chains, smooth_chain, spectral_noise
from tilth.imagery.landscape.terrain import GRID_PX, Terrain, to_pixels
from tilth.seeds import generator


@dataclass(frozen=True)
class Town:
    """A settlement.

    Attributes:
        row: row of its centre in pixels.
        column: column of its centre in pixels.
        radius_px: radius within which people build.
        angle: direction of its streets in radians.
    """

    row: float
    column: float
    radius_px: float
    angle: float


@dataclass(frozen=True)
class Roads:
    """Towns and the roads between them.

    Attributes:
        towns: towns, then hamlets along the roads.
        paved: bool (H, W), carriageways between settlements.
    """

    towns: tuple[Town, ...]
    paved: NDArray[np.bool_]


def connect(config: LandscapeConfig, terrain: Terrain) -> Roads:
    """Choose places for towns and lay roads between them and out of the scene."""
    random = generator(config.seed, "landscape", config.index, "roads")
    slope, water = terrain.slope[::GRID_PX, ::GRID_PX], terrain.water[::GRID_PX, ::GRID_PX]
    grid = slope.shape
    steep = slope / (0.15 + slope)
    cost = 1 + 6 * steep + 10 * water + 0.6 * np.abs(spectral_noise(random, grid, 20, 3))
    sites = _sites(config, random, steep + 2 * water)
    exits = _exits(random, grid, water)
    stops = [*sites, *exits]
    paths: list[NDArray[np.int64]] = []
    for position in range(1, len(stops)):
        path = _cheapest(cost, stops[position], stops[:position])
        paths.append(path)
        # New roads join old ones where they can.
        cost.ravel()[path] = 0.35
    chains = [smooth_chain(to_pixels(path, grid, config.shape), 2.5) for path in paths]
    widths = [np.full(len(chain), config.pixels(9 if position < 2 else 7, 1.9)) for position, chain in enumerate(chains)]
    distance, width = distance_to_chains(config.shape, chains, widths)
    towns = [_town(config, random, site, grid) for site in sites]
    towns += _hamlets(config, random, chains, towns, terrain)
    return Roads(tuple(towns), distance < width / 2)


def _sites(config: LandscapeConfig, random: np.random.Generator, burden: Field) -> list[int]:
    """Pick flat, dry cells that keep their distance from each other."""
    grid = burden.shape
    usual = 2 * config.height * config.width / 512**2
    count = max(1, int(random.poisson(config.composition.settlements * usual))) if config.composition.settlements else 0
    score = random.random(grid) - 2.5 * burden
    row, column = np.indices(grid)
    margin = min(grid) // 8
    outside = (row < margin) | (column < margin) | (row >= grid[0] - margin) | (column >= grid[1] - margin)
    score[outside] = -np.inf
    found: list[int] = []
    while len(found) < count and np.isfinite(score.max()):
        best = int(score.argmax())
        found.append(best)
        score[np.hypot(row - best // grid[1], column - best % grid[1]) < 150 / GRID_PX] = -np.inf
    return found


def _exits(random: np.random.Generator, grid: tuple[int, ...], water: NDArray[np.bool_]) -> list[int]:
    """Pick one dry cell on each of three or four borders."""
    height, width = grid
    borders = [
        np.arange(width),
        np.arange(width) + (height - 1) * width,
        np.arange(height) * width,
        np.arange(height) * width + width - 1,
    ]
    chosen = random.permutation(4)[: int(random.integers(2, 5))]
    found = []
    for side in chosen:
        cells = borders[side][2:-2]
        dry = cells[~water.ravel()[cells]]
        found.append(int(random.choice(dry if dry.size else cells)))
    return found


def _cheapest(cost: Field, start: int, targets: list[int]) -> NDArray[np.int64]:
    """Find the cheapest way over the grid from a cell to the nearest of several; returns its cells, both ends included."""
    with needs_extra("geo", "landscapes"):
        from scipy import sparse
        from scipy.sparse import csgraph

    height, width = cost.shape
    cells = np.arange(height * width).reshape(height, width)
    tails, heads, prices = [], [], []
    for rows, columns in ((0, 1), (1, 0), (1, 1), (1, -1)):
        here = np.s_[: height - rows, max(-columns, 0) : width - max(columns, 0)]
        there = np.s_[rows:, max(columns, 0) : width - max(-columns, 0)]
        tails.append(cells[here].ravel())
        heads.append(cells[there].ravel())
        prices.append((cost[here] + cost[there]).ravel() * np.hypot(rows, columns) / 2)
    graph = sparse.csr_array((np.concatenate(prices), (np.concatenate(tails), np.concatenate(heads))), shape=(cost.size, cost.size))
    price, before = csgraph.dijkstra(graph, directed=False, indices=start, return_predecessors=True)
    path = [min(targets, key=lambda cell: (price[cell], cell))]
    while path[-1] != start:
        path.append(int(before[path[-1]]))
    return np.asarray(path)


def _town(config: LandscapeConfig, random: np.random.Generator, site: int, grid: tuple[int, ...]) -> Town:
    row, column = to_pixels(np.asarray([site]), grid, config.shape)[0]
    # Where houses are drawn large a town needs more room to hold as many.
    radius = min(random.uniform(45, 95) * float(np.clip(4 / config.gsd_m, 1, 4)) ** 0.4, 0.35 * min(config.shape))
    return Town(float(row), float(column), float(radius), float(random.uniform(0, np.pi)))


def _hamlets(config: LandscapeConfig, random: np.random.Generator, chains: list[Chain], towns: list[Town], terrain: Terrain) -> list[Town]:
    """Scatter hamlets along the roads, lined up with them."""
    found: list[Town] = []
    for chain in chains:
        for _ in range(int(random.poisson(config.composition.settlements * len(chain) / 12))):
            start = int(random.integers(0, max(len(chain) - 4, 1)))
            here, there = chain[start], chain[min(start + 3, len(chain) - 1)]
            row, column = here
            inside = 12 < row < config.height - 12 and 12 < column < config.width - 12
            far = all(np.hypot(row - town.row, column - town.column) > town.radius_px + 20 for town in (*towns, *found))
            if inside and far and terrain.river_distance[int(row), int(column)] > 12:
                angle = float(np.arctan2(there[0] - row, there[1] - column))
                found.append(Town(float(row), float(column), float(random.uniform(11, 26)), angle))
    return found
