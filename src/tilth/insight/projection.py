"""Many channels as three colours, and many pixels as points on a sheet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tilth import seeds
from tilth.errors import needs_extra
from tilth.imagery.picture import NO_DATA_GREY
from tilth.insight.config import TsneConfig

_DARKEST, _BRIGHTEST = 2.0, 98.0
"""Percentiles of a component that are black and white."""


def colours_of(maps: Sequence[NDArray[np.float32]], valid: Sequence[NDArray[np.bool_]]) -> list[NDArray[np.uint8]]:
    """Show the three strongest principal components of some maps as red, green and blue; one scale for all, so colours compare.

    Args:
        maps: the same map of several tiles: (c, h, w) each.
        valid: bool (h, w) each; other pixels do not count and are grey.

    Returns:
        uint8 (h, w, 3) each. A component that is the same everywhere is black.
    """
    points = np.concatenate([one[:, seen].T for one, seen in zip(maps, valid, strict=True)]).astype(np.float64)
    pictures = [np.full((*seen.shape, 3), NO_DATA_GREY, np.uint8) for seen in valid]
    if not len(points):
        return pictures
    centre = points.mean(axis=0)
    points -= centre
    _, vectors = np.linalg.eigh(points.T @ points)
    axes = vectors[:, ::-1][:, :3]
    # The sign of an axis is arbitrary: its largest part points upwards, so that the same maps give the same picture.
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    low, high = np.percentile(points @ axes, (_DARKEST, _BRIGHTEST), axis=0)
    for picture, one, seen in zip(pictures, maps, valid, strict=True):
        unit = ((one[:, seen].T - centre) @ axes - low) / np.maximum(high - low, 1e-12)
        colours = np.zeros((int(seen.sum()), 3), np.uint8)
        colours[:, : axes.shape[1]] = np.rint(np.clip(unit, 0, 1) * 255)
        picture[seen] = colours
    return pictures


def embed_pixels(features: NDArray[np.float32], config: TsneConfig, seed: int) -> NDArray[np.float32]:
    """Lay pixels on a sheet by t-SNE: standardised, and reduced by principal components before.

    Args:
        features: (n, c).
        config: components and perplexity; where there are few pixels, the perplexity is at most a third of them.
        seed: of the solvers.

    Returns:
        float32 (n, 2). Zeros below four pixels, which have no neighbourhoods, and where all pixels are the same.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    with needs_extra("insight", "t-SNE"):
        from sklearn.decomposition import PCA
        from sklearn.manifold import TSNE
        from sklearn.preprocessing import StandardScaler

    # Pixels without any difference would crash the solver itself.
    if len(features) < 4 or not (np.ptp(features, axis=0) > 0).any():
        return np.zeros((len(features), 2), np.float32)
    number = seeds.derive(seed, "t-SNE") % 2**32
    kept = min(config.components, *features.shape)
    reduced = PCA(kept, random_state=number).fit_transform(StandardScaler().fit_transform(features))
    perplexity = min(config.perplexity, (len(features) - 1) / 3)
    start = "pca" if kept >= 2 else "random"
    found: NDArray[np.float32] = TSNE(perplexity=perplexity, init=start, random_state=number).fit_transform(reduced).astype(np.float32)
    return found
