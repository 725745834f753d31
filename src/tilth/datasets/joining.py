"""Several rasters that make one image of a data set: bands in files of their own, and sensors that passed on other days."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

from tilth.datasets.config import Layer
from tilth.datasets.patterns import fill, placeholders
from tilth.errors import DataError

_DATE = re.compile(r"(?<!\d)(\d{8})(?:T(\d{6}))?(?!\d)")
_FAR_DAYS = 60
"""Between two images of one season; sets take them from about a month around a date, and seasons are three months apart."""


class Found(Protocol):
    """A raster, as far as its place is concerned."""

    @property
    def path(self) -> str:
        """Absolute path."""
        ...

    @property
    def source(self) -> int:
        """Position of the folder it was found in."""
        ...

    @property
    def values(self) -> Mapping[str, str]:
        """What the placeholders of the pattern stand for."""
        ...


def date_in(text: str) -> datetime | None:
    """Find the first date in a name, ``YYYYMMDD`` with ``THHMMSS`` behind it or not, as UTC.

    Example:
        >>> date_in("S1A_IW_GRDH_1SDV_20200604T183141_x").isoformat(), date_in("0000042")
        ('2020-06-04T18:31:41+00:00', None)
    """
    for day, time in _DATE.findall(text):
        try:
            return datetime.strptime(day + (time or "000000"), "%Y%m%d%H%M%S").replace(tzinfo=UTC)
        except ValueError:
            continue
    return None


def join_rasters(layer: Layer, images: Sequence[Found], find: Callable[[str], Iterable[Found]]) -> dict[str, list[str]]:
    """Find the rasters that belong to each image.

    Rasters with a placeholder of their own are of other dates: a place's are paired with its images in the order of dates, which is the
    pairing with the least time between.

    Args:
        layer: patterns; without ``joined`` nothing is looked for.
        images: the rasters of its own pattern.
        find: the files that fit a pattern.

    Returns:
        For each image its rasters in the order of bands; a list is shorter than ``joined`` where some are missing.

    Raises:
        DataError: two rasters for one image.
    """
    if not layer.joined:
        return {}
    rasters: dict[str, list[str]] = {image.path: [] for image in images}
    seasons = _by_location(layer, images) if layer.location is not None else {}
    for pattern in layer.joined:
        if pattern in layer.pattern:
            for image in images:
                rasters[image.path].append(image.path)
            continue
        names = placeholders(pattern)
        shared, own = sorted(names & layer.placeholders), sorted(names - layer.placeholders)
        others: dict[tuple[str, ...], dict[str, Found]] = defaultdict(dict)
        for match in find(pattern):
            of_place = others[tuple(match.values[name] for name in shared)]
            name = match.values[own[0]] if own else ""
            if name in of_place and of_place[name].source == match.source:
                raise DataError(f"{match.path}: the same raster of a place as {of_place[name].path}; keep one of them")
            of_place[name] = match
        if own:
            for mine in seasons.values():
                theirs = others.get(tuple(mine[0].values[name] for name in shared), {})
                if len(theirs) == len(mine):
                    for image, name in zip(mine, sorted(theirs, key=_order), strict=True):
                        rasters[image.path].append(theirs[name].path)
        else:
            for image in images:
                rasters[image.path] += [found.path for found in others.get(tuple(image.values[name] for name in shared), {}).values()]
    return rasters


def check_joined(
    layer: Layer, images: Sequence[Found], rasters: Mapping[str, Sequence[str]], *, partial: bool, warn: Callable[[str], None]
) -> set[str]:
    """Refuse images that lack a raster, or leave them out.

    Returns:
        Paths of the images that are whole.

    Raises:
        DataError: without ``partial``, an image that lacks a band or a season; what was expected is named.
    """
    lacking = [image for image in images if layer.joined and len(rasters[image.path]) != len(layer.joined)]
    if lacking:
        first = lacking[0]
        wanted = ", ".join(fill(pattern, first.values) for pattern in layer.joined if pattern not in layer.pattern)
        seasons = "one of each for each of the place's dates, " if any(placeholders(p) - layer.placeholders for p in layer.joined) else ""
        line = f"{first.path}: {len(lacking):,} of {len(images):,} images lack a band or a season, expected {seasons}{wanted}"
        if not partial or len(lacking) == len(images):
            raise DataError(f"{line}; complete the folder, or use --partial to go on without such images")
        warn(f"{line}; left out")
    whole = {image.path for image in images} - {image.path for image in lacking}
    _tell_far_dates(layer, [image for image in images if image.path in whole], rasters, warn)
    return whole


def _tell_far_dates(layer: Layer, images: Sequence[Found], rasters: Mapping[str, Sequence[str]], warn: Callable[[str], None]) -> None:
    """Warn where rasters of one image are so far apart in time that a sensor may lack one season, and the other another."""
    if layer.dated is None:
        return
    other_dates = [place for place, pattern in enumerate(layer.joined) if placeholders(pattern) - layer.placeholders]
    far: list[tuple[int, str, str]] = []
    for image in images:
        for path in (rasters[image.path][place] for place in other_dates[:1]):
            mine, theirs = date_in(image.values[layer.dated]), _date_in_path(path)
            days = 0 if mine is None or theirs is None else abs((mine - theirs).days)
            if days > _FAR_DAYS:
                far.append((days, image.path, path))
    if far:
        days, first, second = max(far)
        warn(
            f"{first}: {days} days from {second}, and {len(far):,} of {len(images):,} images are made of rasters more than {_FAR_DAYS} "
            "days apart; a place may lack one season of one sensor and another of the other: remove those without a partner"
        )


def _date_in_path(path: str) -> datetime | None:
    """Find the date in the file name, or in the folders above, the nearest first."""
    return next(filter(None, map(date_in, reversed(path.split("/")))), None)


def _by_location(layer: Layer, images: Sequence[Found]) -> dict[str, list[Found]]:
    """Images of each place, in the order of their dates."""
    assert layer.location is not None
    found: dict[str, list[Found]] = defaultdict(list)
    for image in images:
        found[image.values[layer.location]].append(image)
    for mine in found.values():
        mine.sort(key=lambda image: _order(image.values[layer.dated]) if layer.dated else _order(""))
    return found


def _order(name: str) -> tuple[datetime, str]:
    return date_in(name) or datetime.min.replace(tzinfo=UTC), name
