"""When a scene was taken: by a pattern, by its tags, or by its name."""

from __future__ import annotations

import re
from datetime import date, datetime
from pathlib import Path

from tilth.errors import DataError, TilthError
from tilth.imagery import gdal, plain

TAGS = ("ACQUISITIONDATETIME", "ACQUISITION_DATE", "ACQUISITION_DATETIME", "DATE_ACQUIRED", "SENSING_TIME", "PRODUCT_START_TIME")
"""Tags that say when an image was taken, in the order in which they are believed.

``TIFFTAG_DATETIME`` is none of them: most programs write there when they wrote the file.
"""

_IN_NAME = re.compile(r"(?<!\d)((?:19|20)\d\d)([-_]?)(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])(?!\d{1,5}(?!\d))")
"""YYYYMMDD, YYYY-MM-DD or YYYY_MM_DD, alone or with a time of six digits after it."""


def scene_date(source: str, pattern: str | None = None) -> date | None:
    """Find the day on which a scene was taken.

    Args:
        source: raster.
        pattern: regular expression with one group that finds the date in the file name, ``YYYYMMDD`` or ``YYYY-MM-DD``; nothing else is
            asked then.

    Returns:
        The day; None where nothing names one.

    Raises:
        DataError: the pattern finds what is no date.
    """
    name = Path(source).name
    if pattern is not None:
        match = re.search(pattern, name)
        if match is None or not match[1]:
            return None
        try:
            return datetime.fromisoformat(match[1]).date()
        except ValueError:
            raise DataError(f"{source}: datetime_pattern found {match[1]!r}, which is no date (YYYYMMDD or YYYY-MM-DD)") from None
    tags = _tags(source)
    named = _IN_NAME.search(name)
    texts = [*(tags.get(tag) for tag in TAGS), f"{named[1]}-{named[3]}-{named[4]}" if named else None]
    return next((found for text in texts if text and (found := _day(text)) is not None), None)


def _tags(source: str) -> dict[str, str]:
    if Path(source).suffix.lower() in {".npy", *plain.IMAGE_SUFFIXES}:
        return {}
    try:
        return {name.upper(): value for name, value in gdal.raster_tags(source).items()}
    except TilthError:
        # That it cannot be read is said where it is read.
        return {}


def _day(text: str) -> date | None:
    """Read ``2019-09-04T10:11:12Z``, ``2019:09:04 10:11:12`` and their like."""
    digits = re.match(r"\s*(\d{4})[-:/]?(\d{2})[-:/]?(\d{2})(?!\d)", text) or re.match(r"\s*(\d{4})(\d{2})(\d{2})", text)
    try:
        return date(int(digits[1]), int(digits[2]), int(digits[3])) if digits else None
    except ValueError:
        return None
