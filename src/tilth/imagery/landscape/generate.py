"""A landscape from its configuration: every layer in turn, the label last and exact."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilth.errors import needs_extra
from tilth.imagery.landscape.config import LandscapeConfig
from tilth.imagery.landscape.fields import Field, mean_by, rank, spectral_noise
from tilth.imagery.landscape.materials import CROPS, class_of_material, material
from tilth.imagery.landscape.parcels import Parcels, divide
from tilth.imagery.landscape.roads import Roads, connect
from tilth.imagery.landscape.scheme import BARE, BUILDING, CROPLAND, GRASSLAND
from tilth.imagery.landscape.settlements import NO_LOT, Built, build
from tilth.imagery.landscape.terrain import Terrain, make_terrain
from tilth.seeds import generator

NOTHING = 255
"""Value of ``former`` where nothing else was there before."""


@dataclass(frozen=True)
class Landscape:
    """The truth of a scene: its label and the hidden state that observation needs. Rasters are (H, W).

    Attributes:
        config: what it was made from.
        label: uint8, exact class ids of :func:`~tilth.imagery.landscape.scheme.landscape_scheme`; no ignored pixels.
        material: uint8, position in :data:`~tilth.imagery.landscape.materials.MATERIALS`: crop type, roof, kind of forest.
        objects: int32, id 0 to N-1 of the object a pixel belongs to: parcel, building, stand of trees, stretch of road, water body.
        traits: float32 (N, 3) in [0, 1], drawn once an object: tone of its ground, vigour of its plants, age.
        elevation: float32, metres of the ground above an arbitrary zero.
        height: float32, metres of crowns, shrubs, boulders and roofs above the ground.
        moisture: float32 in [0, 1], wetness of the ground.
        rows: float32 in [-1, 1], furrows and wheel tracks of worked fields, 0 elsewhere.
        former: uint8, class that was there before where the use has changed, 255 elsewhere.
        former_objects: int32, id of the changed object, -1 where ``former`` is 255.
    """

    config: LandscapeConfig
    label: NDArray[np.uint8]
    material: NDArray[np.uint8]
    objects: NDArray[np.int32]
    traits: NDArray[np.float32]
    elevation: Field
    height: Field
    moisture: Field
    rows: Field
    former: NDArray[np.uint8]
    former_objects: NDArray[np.int32]


def generate_landscape(config: LandscapeConfig) -> Landscape:
    """Make a landscape; equal configurations give equal bytes.

    Example:
        >>> landscape = generate_landscape(LandscapeConfig(seed=1, height=64, width=64))
        >>> landscape.label.shape, landscape.label.dtype.name, int(landscape.label.max()) < 7
        ((64, 64), 'uint8', True)
    """
    terrain = make_terrain(config)
    parcels = divide(config)
    roads = connect(config, terrain)
    built = build(config, terrain, roads)
    ground, farmed = _ground(config, terrain, parcels)
    cover, crown = _plant(config, terrain, parcels, built, ground, farmed)
    surface, cell = _pave(config, terrain, parcels, roads, built, cover)
    objects, traits = _objects(config, surface, cell)
    former, former_objects = _history(built, surface, objects)
    height = np.where(class_of_material()[surface] == BUILDING, built.height, crown * (surface == cover))
    return Landscape(
        config=config,
        label=class_of_material()[surface],
        material=surface,
        objects=objects,
        traits=traits,
        elevation=terrain.elevation,
        height=height.astype(np.float32),
        moisture=terrain.moisture,
        rows=_furrows(config, parcels, surface),
        former=former,
        former_objects=former_objects,
    )


def _ground(config: LandscapeConfig, terrain: Terrain, parcels: Parcels) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Give the land its use: parcels where it is flat, forest, grass and rock elsewhere. Returns material and where parcels are."""
    random = generator(config.seed, "landscape", config.index, "ground")
    composition = config.composition
    steep = rank(terrain.slope)
    noise = [spectral_noise(random, config.shape, longest, 5, 1.4) for longest in (220.0, 180.0, 140.0)]
    fertile = mean_by(parcels.parcel, -1.2 * steep + 0.5 * noise[0] + 0.5 * terrain.moisture)
    sizes = np.bincount(parcels.parcel.ravel())
    best = np.argsort(-fertile, kind="stable")
    farmed = np.zeros(len(fertile), np.bool_)
    farmed[best[np.cumsum(sizes[best]) <= composition.farmland * sizes.sum()]] = True

    wild = ~farmed[parcels.parcel]
    # Woods keep partly to old parcel boundaries, partly to the terrain.
    wooded = 0.6 * steep + 0.7 * noise[1]
    wooded = np.where((parcels.block % 3 == 0), mean_by(parcels.parcel, wooded)[parcels.parcel], wooded).astype(np.float32)
    forest = rank(wooded, wild) > 1 - composition.forest
    needle = noise[2] + 0.8 * rank(terrain.elevation) > 0.6
    stony = (
        rank((steep + 0.5 * noise[2] + 0.3 * spectral_noise(random, config.shape, 30, 3)).astype(np.float32), wild) > 1 - composition.bare
    )
    poor = noise[0] * noise[2] > 0.3
    ground = np.where(poor, np.where(noise[1] > -0.4, material("shrub"), material("pasture")), material("meadow"))
    ground[forest] = np.where(needle, material("conifer"), material("broadleaf"))[forest]
    ground[stony & (terrain.slope > 0.12)] = material("rock")
    ground[stony & (terrain.slope <= 0.12)] = material("pit")

    use = random.choice(CROPS, len(fertile))
    use[random.random(len(fertile)) < 0.16] = material("meadow")
    use[random.random(len(fertile)) < 0.06] = material("pasture")
    use[random.random(len(fertile)) < composition.bare / 3] = material("pit")
    ground = np.where(wild, ground, use[parcels.parcel])
    gravel = (terrain.river_distance < 5 + 4 * noise[1]) & (noise[2] > 0.3)
    ground[gravel] = material("gravel")
    return ground.astype(np.uint8), ~wild


def _plant(
    config: LandscapeConfig, terrain: Terrain, parcels: Parcels, built: Built, ground: NDArray[np.uint8], farmed: NDArray[np.bool_]
) -> tuple[NDArray[np.uint8], Field]:
    """Add margins, hedges, single trees and riverside woods; returns the material and the height of plants and boulders in metres."""
    random = generator(config.seed, "landscape", config.index, "plants")
    crown_px = config.pixels(8, 2.4)
    crowns = spectral_noise(random, config.shape, 3 * crown_px, 1.5 * crown_px, 0.3)
    chance = rank(crowns)
    thicket = spectral_noise(random, config.shape, 60, 8, 1.0)

    half_px = config.pixels(3.5, 1.0)
    cover = ground.copy()
    margin = farmed & (parcels.parcel_edge < 0.35 * half_px + 0.3) & (parcels.block % 4 != 0)
    cover[margin | (farmed & (parcels.block_edge < half_px))] = material("meadow")
    hedge = farmed & (parcels.block_edge < half_px) & (parcels.border > 0.66)

    forest = np.isin(ground, (material("broadleaf"), material("conifer")))
    density = np.where(np.isin(cover, (material("meadow"), material("pasture"), material("shrub"))), 0.015 + 0.10 * (thicket > 1.1), 0.0)
    density[hedge] = 0.75
    riverside = (terrain.river_distance > 0) & (terrain.river_distance < config.pixels(14, 4)) & (thicket > 0)
    density[riverside] = 0.6
    density[built.inside] = built.green[built.inside]
    cover[built.inside] = material("garden")
    tree = (chance < density) & ~(forest & ~built.inside)
    cover[tree] = material("broadleaf")
    forest &= ~built.inside

    tall = 9 + 7 * rank(thicket)
    shape = 1 - chance  # crowns are where the noise is low, their tops where it is lowest
    height = np.where(forest, tall * (0.55 + 0.45 * shape), 0.0)
    height = np.where(tree, np.minimum(tall, 4 + 30 * np.maximum(density - chance, 0)), height)
    height = np.where(cover == material("orchard"), 3.0 * (np.sin(parcels.across * 2 * np.pi / config.pixels(6, 3.2)) > 0), height)
    height = np.where(cover == material("shrub"), 2.0 * (chance < 0.35), height)
    # Boulders, ledges and heaps of spoil: bare ground is rough where worked soil is furrowed.
    height = np.where(np.isin(cover, (material("rock"), material("pit"))), 1.8 * np.abs(crowns), height)
    return cover, height.astype(np.float32)


def _pave(
    config: LandscapeConfig, terrain: Terrain, parcels: Parcels, roads: Roads, built: Built, cover: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Lay water, tracks, roads and houses over the land; returns the final material and a cell number that splits it into objects."""
    with needs_extra("geo", "landscapes"):
        from scipy import ndimage

    surface = cover.copy()
    farm = np.isin(class_of_material()[cover], (CROPLAND, GRASSLAND))
    track = (parcels.block_edge < config.pixels(2.2, 0.9)) & (parcels.border < 0.5) & farm & (terrain.slope < 0.3)
    surface[track & ~built.inside] = material("track")
    surface[terrain.water] = material("water")
    surface[built.street] = material("asphalt")
    house = built.lot != NO_LOT
    if house.any():
        house[house] = built.standing[built.lot[house]]
    surface[house] = built.roof[house]
    surface[roads.paved] = material("asphalt")
    cell = np.where(house & ~roads.paved, built.lot + int(parcels.parcel.max()) + 2, parcels.parcel + 1)
    # Water that hangs together is one object, wherever parcels would have been.
    bodies = ndimage.label(surface == material("water"))[0]
    return surface, np.where(bodies > 0, -bodies, cell)


def _objects(config: LandscapeConfig, surface: NDArray[np.uint8], cell: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Number the objects and draw their traits."""
    random = generator(config.seed, "landscape", config.index, "traits")
    # Roads and streets of a parcel are one stretch whatever they are made of; fields differ by material.
    objects = np.unique(cell * 256 + surface, return_inverse=True)[1].astype(np.int32)
    traits = random.random((int(objects.max()) + 1, 3), dtype=np.float32)
    return objects, traits


def _history(built: Built, surface: NDArray[np.uint8], objects: NDArray[np.int32]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Say what was there before: other uses of parcels, and houses that no longer stand."""
    label = class_of_material()[surface]
    before = np.full(256, NOTHING, np.uint8)
    before[[CROPLAND, GRASSLAND, BARE]] = GRASSLAND, CROPLAND, CROPLAND
    former = before[label]
    former_objects = np.where(former == NOTHING, -1, objects).astype(np.int32)
    gone = built.lot != NO_LOT
    if gone.any():
        gone[gone] = ~built.standing[built.lot[gone]]
    gone &= np.isin(label, (GRASSLAND, BARE))
    former[gone] = BUILDING
    former_objects[gone] = (int(objects.max()) + 1 + built.lot[gone]).astype(np.int32)
    return former, former_objects


def _furrows(config: LandscapeConfig, parcels: Parcels, surface: NDArray[np.uint8]) -> Field:
    """Draw furrows and wheel tracks along the working direction of every field, none outside cropland."""
    random = generator(config.seed, "landscape", config.index, "furrows")
    count = int(parcels.parcel.max()) + 1
    spacing = config.pixels(2.5, 2.6) * random.uniform(1.0, 2.2, count)
    depth = random.uniform(0.3, 1.0, count)
    lane_px = config.pixels(22, 9)
    wave = np.sin(2 * np.pi * parcels.across / spacing[parcels.parcel])
    lane = np.abs(parcels.across / lane_px - np.rint(parcels.across / lane_px)) * lane_px < 0.8
    rows = depth[parcels.parcel] * (0.75 * wave - 0.6 * lane)
    return np.clip(np.where(class_of_material()[surface] == CROPLAND, rows, 0), -1, 1).astype(np.float32)
