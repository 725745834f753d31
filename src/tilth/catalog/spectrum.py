"""Whether bands lie where a sensor says, judged by which of them resemble each other and by the colours of smooth and rough ground.

*Spectrum*: visible bands resemble each other, so do near-infrared ones and short-wave ones; across these groups plants and water drive
them apart. If another order of the bands makes the groups far more distinct, the declared one is doubted.

*Red and blue* cannot be told apart by their levels, since most pictures were stretched band by band. Two structures survive a stretch. Wet
ground and shadow differ from bare ground more in red than in blue, so red varies more than blue, and what is bright is redder than what
is dark. And wide smooth areas of strong colour beside rough bright ground that has none are water, which is never strongly orange while
the ground around it is bluish.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tilth.catalog.statistics import RasterStatistics
from tilth.sensors import Sensor

# Parts of the spectrum whose bands resemble each other, in nm; the gaps hold bands that go with neither side.
_GROUPS_NM = ((400, 720), (730, 1000), (1500, 2500))

_RED_NM, _BLUE_NM, _COASTAL_NM = (620, 690), (455, 520), (425, 454)
_GREEN_NM, _NIR_NM = (520, 600), (770, 900)
_BEYOND_RED_NM = ((695, 720), (1500, 2500))

LEAST_GAIN = 0.35
"""By how much another order must make groups more distinct, in units of Fisher's z."""

LEAST_DISTINCT = 0.6
"""How distinct the groups must then be, in units of Fisher's z: pictures without plants and water are not judged."""

LEAST_AGREEMENT = 0.8
"""Share of images that must show it."""

_HIGHEST_CORRELATION = 0.999
_LEAST_PATCHES = 32
# Variation misleads in one of 50 threes of neighbouring images of a sound source, in none of 300 sixes.
_LEAST_IMAGES = 5


def misplaced_bands(images: Sequence[RasterStatistics], sensor: Sensor) -> list[str]:
    """Doubt an order of optical bands under which the groups of the spectrum are not what resembles each other.

    Args:
        images: with as many bands as the sensor.
        sensor: what was declared; without two groups of the spectrum nothing can be told.

    Returns:
        At most one sentence.
    """
    centres = np.array([(band.centre_nm or 0) if band.kind == "optical" else 0 for band in sensor.bands])
    groups = np.full(len(sensor), -1)
    for number, (first, last) in enumerate(_GROUPS_NM):
        groups[(centres >= first) & (centres <= last)] = number
    members = np.flatnonzero(groups >= 0)
    if len(members) < 4 or len(set(groups[members].tolist())) < 2:
        return []
    likeness = _likeness(images)[:, members[:, None], members]
    likeness = likeness[np.isfinite(likeness).all(axis=(1, 2))]
    if not len(likeness):
        return []
    typical = np.median(likeness, axis=0)
    declared = _distinctness(typical, groups[members])
    orders = list(_other_orders(len(members)))
    scores = [_distinctness(typical[order][:, order], groups[members]) for order in orders]
    best = int(np.argmax(scores))
    gains = np.array(
        [_distinctness(one[orders[best]][:, orders[best]], groups[members]) - _distinctness(one, groups[members]) for one in likeness]
    )
    if scores[best] - declared < LEAST_GAIN or scores[best] < LEAST_DISTINCT or (gains > 0).mean() < LEAST_AGREEMENT:
        return []
    names = [sensor.band_names[index] for index in members]
    kinds = groups[members]
    moved = [f"{names[new]} stored as {names[old]}" for new, old in enumerate(orders[best]) if kinds[new] != kinds[old]]
    return [
        "bands look out of order: those of one part of the spectrum should resemble each other and do so only in another order, for "
        f"example with {', '.join(moved)} (groups distinct by {scores[best]:.2f} instead of {declared:.2f}, in {(gains > 0).mean():.0%} of "
        f"{len(gains)} images)"
    ]


def exchanged_colours(images: Sequence[RasterStatistics], sensor: Sensor) -> list[str]:
    """Doubt red and blue whose colours make sense only when exchanged.

    Args:
        images: with as many bands as the sensor.
        sensor: what was declared; without a red, a green and a blue band nothing can be told.

    Returns:
        At most one sentence.
    """
    red, green, blue = (_find(sensor, *span) for span in (_RED_NM, (525, 605), _BLUE_NM))
    if red is None or green is None or blue is None:
        return []

    def colours(shown: Sequence[RasterStatistics]) -> list[NDArray[np.float64]]:
        return [image.patches[:, [red, green, blue]].astype(np.float64) for image in shown if image.patches.shape[2] >= _LEAST_PATCHES]

    # Over open water blue varies more than red, as it should, and next to nothing beyond red.
    land = [image for image, is_water in zip(images, mostly_water(images, sensor), strict=True) if not is_water]
    return [*_by_water(colours(images)), *(_by_neighbours(land, sensor, red, blue) or _by_variation(colours(land)))][:1]


def mostly_water(images: Sequence[RasterStatistics], sensor: Sensor) -> list[bool]:
    """Tell which images show little but open water: most of each is darker in near infrared than in green.

    Args:
        images: with as many bands as the sensor.
        sensor: what was declared; without near infrared nothing can be told, and no image counts as water.
    """
    green, infrared = _find(sensor, *_GREEN_NM), _find(sensor, *_NIR_NM)
    if green is None or infrared is None:
        return [False] * len(images)
    levels = [
        [image.bands[index].p50 * sensor.bands[index].scale + sensor.bands[index].offset for index in (infrared, green)] for image in images
    ]
    return [first < second for first, second in levels]


def _by_water(colours: Sequence[NDArray[np.float64]]) -> list[str]:
    """Count images with smooth strongly orange areas beside rough bright ground without that colour."""
    judged = [pair for pair in map(_smooth_and_rough, colours) if pair is not None]
    wrong = [smooth for smooth, rough in judged if smooth > 0.25 and rough < 0.1 and smooth - rough > 0.25]
    right = [smooth for smooth, rough in judged if smooth - rough < -0.1]
    if len(wrong) < 3 or len(wrong) < 0.5 * len(judged) or len(wrong) < 4 * len(right):
        return []
    return [
        f"red and blue look exchanged: in {len(wrong)} of {len(judged)} images with smooth areas (water?) these are orange, "
        f"(red - blue) / (red + blue) = {np.median(wrong):.2f}, while rough bright ground beside them is not"
    ]


def _smooth_and_rough(colour: NDArray[np.float64]) -> tuple[float, float] | None:
    """Median redness, -1 to 1, of smooth areas and of rough bright ones; None where one of them is missing."""
    mean, deviation = colour
    level = mean.mean(axis=0)
    redness = (mean[0] - mean[2]) / np.maximum(mean[0] + mean[2], 1e-9)
    texture = deviation.mean(axis=0) / np.maximum(level, 1e-9)
    # Neither black nor saturated: there colours are those of the stretch.
    saturated = ((mean >= 0.98 * mean.max()) & (deviation < 0.002 * mean.max())).any(axis=0)
    coloured = (level > 0.03 * level.max()) & ~saturated
    smooth, rough = (texture < 0.04) & coloured, texture > 0.08
    if smooth.mean() < 0.05 or rough.sum() < 16:
        return None
    bright = rough & (level >= np.percentile(level[rough], 60))
    return float(np.median(redness[smooth])), float(np.median(redness[bright]))


def _by_variation(colours: Sequence[NDArray[np.float64]]) -> list[str]:
    """Doubt images in which blue varies far more than red and what is bright is bluer than what is dark."""
    signs = []
    for mean, _ in colours:
        level, difference = mean.mean(axis=0), mean[0] - mean[2]
        if min(mean[0].std(), mean[2].std(), difference.std()) > 1e-9 * max(1.0, level.max()):
            signs.append((np.log(mean[0].std() / mean[2].std()), np.corrcoef(level, difference)[0, 1]))
    if len(signs) < _LEAST_IMAGES:
        return []
    ratio, slope = np.array(signs).T
    if np.median(ratio) > -0.15 or np.median(slope) > -0.35 or ((ratio < 0) & (slope < 0)).mean() < LEAST_AGREEMENT:
        return []
    return [
        f"red and blue look exchanged: blue varies {np.exp(-np.median(ratio)):.2f} times as much as red and bright ground is bluer than "
        f"dark (correlation {np.median(slope):.2f}) in {((ratio < 0) & (slope < 0)).mean():.0%} of {len(ratio)} images; on land it is the "
        "other way round"
    ]


def _by_neighbours(images: Sequence[RasterStatistics], sensor: Sensor, red: int, blue: int) -> list[str]:
    """Doubt red that resembles the bands below blue, and blue that resembles those beyond red."""
    below = _find(sensor, *_COASTAL_NM)
    beyond = [index for span in _BEYOND_RED_NM for index in [_find(sensor, *span)] if index is not None]
    if not images or (below is None and not beyond):
        return []
    likeness = _likeness(images)
    signs = [likeness[:, index, red] - likeness[:, index, blue] for index in beyond]
    if below is not None:
        signs.append(likeness[:, below, blue] - likeness[:, below, red])
    mean = np.mean(signs, axis=0)
    mean = mean[np.isfinite(mean)]
    if not mean.size or np.median(mean) > -0.05 or (mean < 0).mean() < LEAST_AGREEMENT:
        return []
    return [
        f"red ({sensor.band_names[red]}) and blue ({sensor.band_names[blue]}) look exchanged: each resembles the neighbours of the other "
        f"in the spectrum, by {-np.median(mean):.2f} (Fisher's z), in {(mean < 0).mean():.0%} of {mean.size} images"
    ]


def _likeness(images: Sequence[RasterStatistics]) -> NDArray[np.float64]:
    """Fisher's z of the correlations of bands: float64 (N, C, C)."""
    clipped = np.clip(np.stack([image.correlation for image in images]), -_HIGHEST_CORRELATION, _HIGHEST_CORRELATION)
    result: NDArray[np.float64] = np.arctanh(clipped)
    return result


def _distinctness(likeness: NDArray[np.float64], groups: NDArray[np.int64]) -> float:
    """How much more bands resemble those of their own group than those of others, (C, C) and (C,)."""
    same = groups[:, None] == groups
    apart = ~np.eye(len(groups), dtype=bool)
    return float(likeness[same & apart].mean() - likeness[~same].mean())


def _other_orders(count: int) -> Iterator[NDArray[np.int64]]:
    """Orders that files come in by mistake: two bands exchanged, one band moved, all reversed. Position to stored position."""
    straight = np.arange(count)
    for first in range(count):
        for second in range(first + 1, count):
            order = straight.copy()
            order[[first, second]] = second, first
            yield order
    for source in range(count):
        rest = np.delete(straight, source)
        for target in range(count):
            if abs(source - target) > 1:
                yield np.insert(rest, target, source)
    yield straight[::-1].copy()


def _find(sensor: Sensor, first: float, last: float) -> int | None:
    """The first optical band whose centre lies in a span of nm, or None."""
    for index, band in enumerate(sensor.bands):
        if band.kind == "optical" and band.centre_nm is not None and first <= band.centre_nm <= last:
            return index
    return None
