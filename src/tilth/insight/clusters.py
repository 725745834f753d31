"""k-means of the pixels of one map, and which class each cluster shows; ddpm.md section 14."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tilth import seeds
from tilth.classes import IGNORE_INDEX
from tilth.errors import needs_extra
from tilth.insight.config import ClusterConfig

NO_CLUSTER = 255
"""Where there is no image."""

QUARTER = 4


def shown_map(found: Tensor, stride: int, shape: tuple[int, int], *, native: bool) -> tuple[NDArray[np.float32], int]:
    """Resize a map and cut off what the padding of its image brought.

    Args:
        found: float (c, h, w).
        stride: sides of the padded image over those of the map.
        shape: rows and columns of the image.
        native: leave its size.

    Returns:
        float32 (c, h', w') and the pixels of the image that one of its own is wide.
    """
    step = stride if native else QUARTER
    if step != stride:
        size = [side * stride // step for side in found.shape[1:]]
        found = F.interpolate(found[None].float(), size=size, mode="bilinear", align_corners=False, antialias=False)[0]
    rows, columns = (-(-side // step) for side in shape)
    return found[:, :rows, :columns].float().numpy(), step


def shrink(valid: NDArray[np.bool_], step: int) -> NDArray[np.bool_]:
    """Say which pixels of a map that is ``step`` times smaller show something: those with a valid pixel in them."""
    rows, columns = (-(-side // step) for side in valid.shape)
    padded = np.zeros((rows * step, columns * step), np.bool_)
    padded[: valid.shape[0], : valid.shape[1]] = valid
    return np.asarray(padded.reshape(rows, step, columns, step).any(axis=(1, 3)), np.bool_)


def enlarge(small: NDArray[Any], step: int, shape: tuple[int, int]) -> NDArray[Any]:
    """Repeat each pixel (h', w') until the picture has the size of the image."""
    return small.repeat(step, axis=0).repeat(step, axis=1)[: shape[0], : shape[1]]


def cluster(shown: NDArray[np.float32], valid: NDArray[np.bool_], config: ClusterConfig, seed: int) -> NDArray[np.uint8]:
    """Cluster the pixels of a map, each scaled to length 1.

    Args:
        shown: (c, h, w).
        valid: bool (h, w); other pixels are left out.
        config: number of clusters and of beginnings; of fewer different pixels there are fewer clusters.
        seed: of the beginnings.

    Returns:
        uint8 (h, w): number of the cluster, 255 where not valid.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    with needs_extra("insight", "k-means maps"):
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning

    labels = np.full(valid.shape, NO_CLUSTER, np.uint8)
    points = shown[:, valid].T
    if len(points):
        points = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
        number = seeds.derive(seed, "k-means") % 2**32
        with warnings.catch_warnings():
            # Fewer different pixels than clusters: the clusters that are left empty do not show.
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = KMeans(min(config.count, len(points)), n_init=config.restarts, random_state=number).fit_predict(points)
        labels[valid] = found.astype(np.uint8)
    return labels


def overlap(clusters: NDArray[np.uint8], mask: NDArray[np.uint8], count: int, classes: int) -> NDArray[np.int64]:
    """Count labelled pixels by cluster and class.

    Args:
        clusters: (h, w), 255 without.
        mask: (h, w), class ids, 255 ignored.
        count: clusters.
        classes: number of classes.

    Returns:
        int64 (count, classes).
    """
    both = (clusters != NO_CLUSTER) & (mask != IGNORE_INDEX)
    cells = clusters[both].astype(np.int64) * classes + mask[both]
    return np.bincount(cells, minlength=count * classes).reshape(count, classes).astype(np.int64)


def best_classes(counts: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Give each cluster the class that most of its labelled pixels have; 255 without such a pixel, the smaller id where two are as many."""
    best = counts.argmax(axis=1).astype(np.uint8) if counts.shape[1] else np.zeros(len(counts), np.uint8)
    best[counts.sum(axis=1) == 0] = IGNORE_INDEX
    return best
