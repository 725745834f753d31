"""Labels as people and older maps give them: wrong in known ways and amounts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tilth.classes import IGNORE_INDEX
from tilth.errors import needs_extra
from tilth.imagery.landscape.config import NoiseConfig
from tilth.imagery.landscape.fields import Field, rank, spectral_noise
from tilth.imagery.landscape.generate import Landscape
from tilth.imagery.landscape.scheme import landscape_scheme
from tilth.seeds import generator

Label = NDArray[np.uint8]


def noisy_labels(landscape: Landscape, noise: NoiseConfig) -> Label:
    """Spoil the exact label of a landscape.

    Args:
        landscape: the truth.
        noise: kinds and amounts; see :class:`~tilth.imagery.landscape.config.NoiseConfig` for their order.

    Returns:
        uint8 (H, W), 255 where there is no label. Without noise it equals ``landscape.label``.
    """

    def random(purpose: str) -> np.random.Generator:
        # Each kind draws from its own source: switching one on leaves the others as they were.
        return generator(noise.seed, "label noise", landscape.config.seed, landscape.config.index, purpose)

    label = landscape.label.copy()
    if noise.stale_objects:
        label = add_stale(landscape, label, noise.stale_objects, random("stale"))
    if noise.missing_objects:
        label = drop_objects(landscape, label, noise.missing_objects, noise.missing_classes, random("missing"))
    if noise.confusion:
        label = confuse_objects(landscape, label, noise.confusion, random("confusion"))
    if noise.boundary_shift_px:
        label = shift_boundaries(label, noise.boundary_shift_px, random("boundary"))
    if noise.coarse_factor > 1:
        label = coarsen(label, noise.coarse_factor)
    if noise.ignore_share:
        label = leave_out(label, noise.ignore_share, random("ignore"))
    return label


def add_stale(landscape: Landscape, label: Label, share: float, random: np.random.Generator) -> Label:
    """Show a share of the changed objects as they were before."""
    old = landscape.former_objects
    kept = random.random(int(old.max()) + 2) < share
    return np.where(kept[old] & (old >= 0), landscape.former, label).astype(np.uint8)


def drop_objects(landscape: Landscape, label: Label, share: float, classes: tuple[str, ...], random: np.random.Generator) -> Label:
    """Leave out a share of the objects of some classes; the nearest pixel that stays gives the label instead."""
    with needs_extra("geo", "landscapes"):
        from scipy import ndimage

    wanted = np.isin(landscape.label, [landscape_scheme().index(name) for name in classes])
    dropped = wanted & (random.random(len(landscape.traits)) < share)[landscape.objects]
    # Ground shows through, not the next house or road.
    source = ~wanted if not wanted.all() else ~dropped
    if not dropped.any() or not source.any():
        return label
    rows, columns = ndimage.distance_transform_edt(~source, return_distances=False, return_indices=True)
    return np.where(dropped, label[rows, columns], label).astype(np.uint8)


def confuse_objects(landscape: Landscape, label: Label, confusion: dict[str, dict[str, float]], random: np.random.Generator) -> Label:
    """Give whole objects another class: of the objects of class a, the share ``confusion[a][b]`` becomes class b."""
    scheme = landscape_scheme()
    draw = random.random(len(landscape.traits))[landscape.objects]
    spoiled = label.copy()
    for name, row in confusion.items():
        # Only pixels still labelled with their true class; what is stale or missing stays so.
        here = (landscape.label == scheme.index(name)) & (label == landscape.label)
        below = 0.0
        for given, probability in row.items():
            spoiled[here & (draw >= below) & (draw < below + probability)] = scheme.index(given)
            below += probability
    return spoiled


def displacement(shape: tuple[int, int], shift_px: float, random: np.random.Generator) -> tuple[Field, Field]:
    """Draw smooth displacements in pixels along rows and columns, each float32 (H, W) with root mean square ``shift_px``.

    Wavelengths lie between 8 and 32 times the shift: boundaries wander, objects keep their shape.
    """

    def one() -> Field:
        # Displacements of many pixels vary slowly, so that the map does not fold over itself.
        field = spectral_noise(random, shape, longest_px=max(32 * shift_px, 24), shortest_px=max(8 * shift_px, 8), slope=1.0)
        return np.asarray(field * np.float32(shift_px), np.float32)

    return one(), one()


def shift_boundaries(label: Label, shift_px: float, random: np.random.Generator) -> Label:
    """Move boundaries as a careless hand draws them; every pixel takes the label found at its displaced position."""
    by_row, by_column = displacement((label.shape[0], label.shape[1]), shift_px, random)
    row, column = np.indices(label.shape)
    row = np.clip(np.rint(row + by_row), 0, label.shape[0] - 1).astype(int)
    column = np.clip(np.rint(column + by_column), 0, label.shape[1] - 1).astype(int)
    return np.asarray(label[row, column], np.uint8)


def coarsen(label: Label, factor: int) -> Label:
    """Give every block of factor x factor pixels its most frequent label (the lowest id among equals); edge blocks may be smaller."""
    height, width = label.shape
    rows, columns = -(-height // factor), -(-width // factor)
    row, column = np.indices(label.shape) // factor
    block = row * columns + column
    values, dense = np.unique(label, return_inverse=True)
    votes = np.bincount((block * len(values) + dense.reshape(label.shape)).ravel(), minlength=rows * columns * len(values))
    return np.asarray(values[votes.reshape(-1, len(values)).argmax(axis=1)][block], np.uint8)


def leave_out(label: Label, share: float, random: np.random.Generator) -> Label:
    """Leave a share of the pixels unlabelled, in patches some tens of pixels wide."""
    patches = rank(spectral_noise(random, (label.shape[0], label.shape[1]), 60, 8, 1.5))
    return np.where(patches < share if share < 1 else True, IGNORE_INDEX, label).astype(np.uint8)
