"""CutMix: a box of one sample is replaced by the same box of another (s5_pretrain.md sections 4 and 5).

Axis letters: B samples, C bands, H rows, W columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tilth import seeds
from tilth.augment.config import CutMixConfig
from tilth.errors import DataError

Box = tuple[int, int, int, int]


def fit_box(area_px: float, ratio: float, x: int, y: int, height: int, width: int) -> Box | None:
    """Accept or refuse one try of a CutMix box; pure arithmetic on the draws.

    Args:
        area_px: wanted area in pixels.
        ratio: wanted height / width.
        x: column of the left edge.
        y: row of the upper edge.
        height: rows of the image.
        width: columns of the image.

    Returns:
        (y, x, h, w) in pixels, or None if the box does not lie inside the image.
    """
    box_width = int(math.sqrt(area_px / ratio))
    box_height = int(math.sqrt(area_px * ratio))
    if x + box_width > width or y + box_height > height:
        return None
    return y, x, box_height, box_width


def draw_box(generator: np.random.Generator, size: int | tuple[int, int], config: CutMixConfig) -> Box | None:
    """Draw a box as S5 does: the area once, ratio and place again until the box fits.

    The order of draws is: whether there is a box, area, then ratio, x, y for each try.

    Args:
        generator: source of the draws.
        size: side of a square image, or (height, width); on an oblong image the ratio is height / width of the box in pixels times
            width / height of the image, so that any share that fits a square fits here.
        config: probability and ranges.

    Returns:
        (y, x, h, w) in pixels, or None for no box.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if generator.random() >= config.probability:
        return None
    area_px = generator.uniform(*config.area) * height * width
    while True:
        ratio = generator.uniform(*config.ratio) * (height / width)
        x, y = int(generator.integers(0, width)), int(generator.integers(0, height))
        box = fit_box(area_px, ratio, x, y, height, width)
        if box is not None:
            return box


def boxes(draws: Sequence[int], height: int, width: int, config: CutMixConfig, view: int = 0) -> Tensor:
    """Draw the boxes of a batch, each a pure function of its sample's seed.

    Args:
        draws: B seeds, ``Batch["draw"]``.
        height: rows H of the image.
        width: columns W of the image.
        config: probability and ranges.
        view: 0, 1, ...: independent boxes for several strong views (UniMatch, s5_pretrain.md section 8).

    Returns:
        bool (B, H, W) on the CPU, True inside the box; all False for a sample without one.
    """
    inside = np.zeros((len(draws), height, width), dtype=np.bool_)
    for sample, draw in enumerate(draws):
        box = draw_box(seeds.generator(draw, "cutmix", view), (height, width), config)
        if box is not None:
            y, x, box_height, box_width = box
            inside[sample, y : y + box_height, x : x + box_width] = True
    return torch.from_numpy(inside)


def mix(box: Tensor, pasted: Tensor, base: Tensor) -> Tensor:
    """Put ``pasted`` inside the box and keep ``base`` outside.

    Images, labels, confidences, ignore maps and ``valid`` of one batch go through the same box, so an ignored pixel travels with its image.

    Args:
        box: bool (B, H, W), any device; it is moved to that of ``base``.
        pasted: (B, C, H, W) or (B, H, W), any dtype: the partner samples.
        base: same shape, dtype and device as ``pasted``.

    Returns:
        A new tensor like ``base``.

    Raises:
        DataError: the shapes do not belong together.
    """
    if pasted.shape != base.shape or box.ndim != 3 or base.ndim not in (3, 4) or box.shape != (base.shape[0], *base.shape[-2:]):
        raise DataError(
            f"cannot mix {tuple(pasted.shape)} into {tuple(base.shape)} with boxes {tuple(box.shape)};"
            " expected twice (B, C, H, W) or twice (B, H, W), and boxes (B, H, W)"
        )
    inside = box.to(base.device)
    return torch.where(inside.unsqueeze(1) if base.ndim == 4 else inside, pasted, base)
