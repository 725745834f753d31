"""Terrain and the water that runs over it."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilth.errors import needs_extra
from tilth.imagery.landscape.config import LandscapeConfig
from tilth.imagery.landscape.fields import Chain, Field, blur, distance_to_chains, smooth_chain, spectral_noise
from tilth.seeds import generator

GRID_PX = 6
"""Spacing in pixels of the coarse grid on which rivers and roads find their way."""


@dataclass(frozen=True)
class Terrain:
    """Ground and water; every field float32 or bool (H, W).

    Attributes:
        elevation: ground or water surface in metres.
        slope: tangent of the steepest slope.
        water: rivers and lakes.
        river_distance: distance to the nearest river bank in pixels, negative inside.
        moisture: wetness of the ground in [0, 1].
    """

    elevation: Field
    slope: Field
    water: NDArray[np.bool_]
    river_distance: Field
    moisture: Field


def make_terrain(config: LandscapeConfig) -> Terrain:
    """Raise a terrain, let water collect on it and find out where the ground is wet."""
    random = generator(config.seed, "landscape", config.index, "terrain")
    side = max(config.shape)
    base = spectral_noise(random, config.shape, longest_px=side)
    ridges = 1 - np.abs(spectral_noise(random, config.shape, longest_px=side * 0.6, shortest_px=8, slope=1.7))
    tilt = np.add.outer(*(np.linspace(-1, 1, count) * random.normal() for count in config.shape))
    raw = base + 0.6 * ridges * np.clip(base + 0.5, 0, 1.5) + 0.8 * tilt
    metres = 0.05 * side * config.gsd_m * config.composition.relief
    elevation = ((raw - raw.min()) / np.ptp(raw) * metres).astype(np.float32)

    coarse = blur(elevation, 2)[::GRID_PX, ::GRID_PX]
    # Small hollows and sills turn the water aside; without them it would run straight.
    coarse = coarse + 0.035 * metres * spectral_noise(random, coarse.shape, 9, 2, 0.5)
    order, receiver, filled = drain(coarse)
    chains, widths = _rivers(config, order, receiver, coarse.shape)
    distance, width = distance_to_chains(config.shape, chains, widths)
    # Banks are not parallel lines: the width wavers, but no river runs dry.
    waver = np.clip(0.3 * spectral_noise(random, config.shape, 40, 6), -0.4, 0.6)
    river_distance = (distance - width / 2 * (1 + waver)).astype(np.float32)
    lake = _lakes(config, random, coarse, filled)
    # Rivers run in valleys they have cut themselves.
    reach = 6 + 2 * width
    elevation = elevation - (0.12 * metres * np.exp(-((np.maximum(river_distance, 0) / (3 * reach)) ** 2))).astype(np.float32)
    elevation = blur(elevation, 1.0)
    slope = np.hypot(*np.gradient(elevation, config.gsd_m)).astype(np.float32)
    low = 1 - (elevation - elevation.min()) / max(float(np.ptp(elevation)), 1e-6)
    near = np.exp(-np.maximum(river_distance, 0) / 40)
    moisture = np.clip(0.35 * low + 0.35 * near + 0.12 * spectral_noise(random, config.shape, 120, 4, 1.2) + 0.15, 0, 1)
    return Terrain(elevation, slope, (river_distance < 0) | lake, river_distance, moisture.astype(np.float32))


def drain(elevation: Field) -> tuple[list[int], NDArray[np.int64], Field]:
    """Route water over a grid to the lowest cell of its border (priority flood, Barnes et al. 2014).

    Args:
        elevation: (h, w) heights.

    Returns:
        Cells (flat indices) from the outlet upwards, so that each comes after the one it drains to; the cell each drains to,
        the outlet to itself; and heights (h, w) with hollows filled to their rim.
    """
    height, width = elevation.shape
    flat = elevation.ravel().astype(float).tolist()
    border = [cell for cell in range(height * width) if cell // width in (0, height - 1) or cell % width in (0, width - 1)]
    outlet = min(border, key=flat.__getitem__)
    receiver = np.full(height * width, -1, np.int64)
    receiver[outlet] = outlet
    level, seen, order = list(flat), bytearray(height * width), []
    seen[outlet] = 1
    queue = [(flat[outlet], outlet)]
    while queue:
        here, cell = heapq.heappop(queue)
        order.append(cell)
        row, column = divmod(cell, width)
        for other_row in range(max(row - 1, 0), min(row + 2, height)):
            for other_column in range(max(column - 1, 0), min(column + 2, width)):
                other = other_row * width + other_column
                if not seen[other]:
                    seen[other] = 1
                    receiver[other] = cell
                    level[other] = max(flat[other], here)
                    heapq.heappush(queue, (level[other], other))
    return order, receiver, np.asarray(level, np.float32).reshape(elevation.shape)


def to_pixels(cells: NDArray[np.int64], grid: tuple[int, ...], shape: tuple[int, int]) -> Chain:
    """Place coarse cells (N,) in the scene: (N, 2) row, column in pixels, border cells on the scene's border."""
    row, column = np.divmod(cells, grid[1])
    return np.stack([row * (shape[0] - 1) / max(grid[0] - 1, 1), column * (shape[1] - 1) / max(grid[1] - 1, 1)], axis=1)


def _rivers(
    config: LandscapeConfig, order: list[int], receiver: NDArray[np.int64], grid: tuple[int, ...]
) -> tuple[list[Chain], list[NDArray[np.float64]]]:
    """Follow the water from every spring down to a river that is there already, or out of the scene."""
    if config.composition.rivers == 0:
        return [], []
    area = np.ones(len(order))
    for cell in reversed(order):
        if receiver[cell] != cell:
            area[receiver[cell]] += area[cell]
    # Area in cells that feeds a river; a brook starts at about 130 x 130 pixels of catchment.
    wet = area > min(470, len(order) / 8) / config.composition.rivers
    fed = np.zeros(len(order), np.bool_)
    fed[receiver[np.flatnonzero(wet)]] = True
    springs = [cell for cell in order if wet[cell] and not fed[cell]]
    taken = np.zeros(len(order), np.bool_)
    chains, widths = [], []
    for spring in sorted(springs, key=lambda cell: (area[cell], cell), reverse=True):
        path, beyond = [spring], 0
        # A tributary runs on a little in the bed of its river, so that both stay joined after smoothing.
        while receiver[path[-1]] != path[-1] and beyond < 6:
            path.append(int(receiver[path[-1]]))
            beyond += bool(taken[path[-1]])
        taken[path] = True
        cells = np.asarray(path)
        chains.append(smooth_chain(to_pixels(cells, grid, config.shape), 2.0))
        # Widths grow with the root of the catchment (Leopold and Maddock 1953), here up to about 20 pixels.
        widths.append(np.clip(0.22 * np.sqrt(area[cells]), config.pixels(4, 2.2), 20.0))
    return chains, widths


def _lakes(config: LandscapeConfig, random: np.random.Generator, coarse: Field, filled: Field) -> NDArray[np.bool_]:
    """Fill the deepest hollows, up to the share of the scene that lakes may cover."""
    with needs_extra("geo", "landscapes"):
        from scipy import ndimage

    depth = blur(filled - coarse, 2.5)
    share = config.composition.lakes * random.random()
    if share == 0 or depth.max() <= 0:
        return np.zeros(config.shape, np.bool_)
    zoom = (config.height / coarse.shape[0], config.width / coarse.shape[1])
    fine = ndimage.zoom(depth, zoom, order=1, mode="nearest", grid_mode=True)
    fine = blur(fine, 3) * (1 + 0.1 * spectral_noise(random, config.shape, 60, 8, 1.8))
    shore = max(float(np.quantile(fine, 1 - share)), 0.1 * float(fine.max()))
    return np.asarray(ndimage.binary_fill_holes(ndimage.binary_opening(fine > shore, iterations=3)))
