"""Boundary IoU: how well the outlines of the classes are found, where plain IoU mostly sees their insides.

The measure is that of Cheng, Girshick, Dollár, Berg and Kirillov 2021, "Boundary IoU: Improving Object-Centric Image Segmentation
Evaluation", CVPR, section 4: the IoU of the two bands of pixels that lie inside of a class and within a distance d of its contour.
Distance is counted as in the paper's program, by d erosions with a 3 x 3 square: the larger of the steps along rows and columns. As
there, the border of the image counts as outside of every class, so a class that is cut off by the border has a contour there. So has it
where it meets ignored pixels.

Unlike the paper, which averages over objects, intersections and unions are summed over all tiles before they are divided.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilth.classes import IGNORE_INDEX

DEFAULT_SHARE = 0.02
"""Distance d as a share of the image diagonal; the paper's choice for images of a few hundred pixels."""


def band_width(height: int, width: int, share: float = DEFAULT_SHARE) -> int:
    """Return the distance d in pixels: a share of the image diagonal, at least 1.

    Example:
        >>> band_width(512, 512), band_width(20, 20)
        (14, 1)
    """
    return max(1, round(share * math.hypot(height, width)))


def boundary_band(classes: NDArray[Any], distance: int) -> NDArray[np.bool_]:
    """Find the pixels within a distance of the contour of their own class.

    All classes are treated at once: a pixel survives d erosions of its class just where the square of side 2 d + 1 around it is of that
    class throughout. That is looked up in running counts of changes, so the time depends neither on d nor on the number of classes.

    Args:
        classes: integer (h, w), class ids; 255 = no class, which has no band.
        distance: d in pixels, at least 1.

    Returns:
        bool (h, w).
    """
    # Beyond the border lies no class at all.
    framed = np.pad(classes, distance, constant_values=IGNORE_INDEX)
    height, width = classes.shape
    # Changes between neighbours of a row, in the 2 d pairs that make up the row of a square.
    mixed = _running(framed[:, 1:] != framed[:, :-1], 2 * distance, axis=1)[:, :width] > 0
    inner = framed[:, distance : distance + width]
    uneven = _running(inner[1:] != inner[:-1], 2 * distance, axis=0)[:height] > 0
    uneven |= _running(mixed, 2 * distance + 1, axis=0)[:height] > 0
    found: NDArray[np.bool_] = uneven & (classes != IGNORE_INDEX)
    return found


def boundary_counts(
    prediction: NDArray[np.uint8], mask: NDArray[np.uint8], num_classes: int, share: float = DEFAULT_SHARE
) -> NDArray[np.int64]:
    """Count what the boundary IoU of one image is made of.

    Args:
        prediction: uint8 (h, w), class ids; anything is allowed where ``mask`` is 255.
        mask: uint8 (h, w), the reference, 255 = ignored: such pixels belong to no class on either side.
        num_classes: number of classes K.
        share: distance d as a share of the image diagonal.

    Returns:
        int64 (2, K): pixels in both bands of a class, and pixels in at least one; sum them over images, then divide.
    """
    counted = np.where(mask == IGNORE_INDEX, np.uint8(IGNORE_INDEX), prediction)
    height, width = mask.shape
    distance = band_width(height, width, share)
    reference_band, predicted_band = boundary_band(mask, distance), boundary_band(counted, distance)

    def by_class(values: NDArray[np.uint8]) -> NDArray[np.int64]:
        return np.bincount(values, minlength=num_classes)[:num_classes].astype(np.int64)

    both = by_class(mask[reference_band & predicted_band & (mask == counted)])
    return np.stack((both, by_class(mask[reference_band]) + by_class(counted[predicted_band]) - both))


def _running(flags: NDArray[np.bool_], length: int, axis: int) -> NDArray[np.int32]:
    """Count the flags among ``length`` neighbours along an axis; the result is shorter by ``length - 1``."""
    moved = np.moveaxis(flags, axis, 0)
    total = np.zeros((len(moved) + 1, *moved.shape[1:]), dtype=np.int32)
    np.cumsum(moved, axis=0, dtype=np.int32, out=total[1:])
    return np.moveaxis(total[length:] - total[:-length], 0, axis)
