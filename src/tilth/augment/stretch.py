"""Linear stretch: each image between two of its values, drawn anew, and what lies beyond is cut; ddpm.md section 10."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tilth import seeds
from tilth.augment.normalise import from_unit, percentiles, to_unit
from tilth.sensors import Sensor


def linear_stretch(
    image: Tensor,
    valid: Tensor | None,
    sensor: Sensor,
    draws: Sequence[int],
    *,
    probability: float,
    share: tuple[float, float],
    percentile: bool = False,
) -> Tensor:
    """Stretch some images of a batch: ``clip((x - lo) / (hi - lo), 0, 1)``, x between the sensor's low (0) and high (1).

    For each image that is stretched s is drawn evenly from ``share``; lo is s and hi is 1 - s, or the quantiles s / 2 and 1 - s / 2 of all
    its values together, so that bands keep their balance.

    Args:
        image: float (B, C, H, W), normalised, bands in sensor order.
        valid: bool (B, H, W); pixels that are not stay as they are and count for no quantile. None: all are valid.
        sensor: whose bands.
        draws: B seeds, one a sample; what happens to an image is a function of its own.
        probability: with which an image is stretched.
        share: least and greatest s, 0 to 0.5.
        percentile: take quantiles.

    Returns:
        float32 (B, C, H, W), a new tensor; normalised again.

    Raises:
        SensorMismatchError: the number of bands is not the sensor's.
    """
    unit = to_unit(image, sensor)
    changed = []
    for place, draw in enumerate(draws):
        generator = seeds.generator(draw, "stretch")
        if generator.random() >= probability:
            continue
        drawn = float(generator.uniform(*share))
        low, high = torch.tensor(drawn), torch.tensor(1 - drawn)
        if percentile:
            values = unit[place] if valid is None else unit[place][:, valid[place]]
            if not values.numel():
                continue
            low, high = percentiles(values.flatten(), (50 * drawn, 100 - 50 * drawn))
        # A flat image has nothing between its quantiles.
        unit[place] = ((unit[place] - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
        changed.append(place)
    stretched = image.float().clone()
    stretched[changed] = from_unit(unit[changed], sensor)
    return stretched if valid is None else torch.where(valid[:, None], stretched, image.float())
