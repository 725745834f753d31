"""What the names of files and folders tell: roles, splits, dates, places, map tiles."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import PurePosixPath


def _all(text: str) -> frozenset[str]:
    return frozenset(text.split())


LABEL_WORDS = _all(
    "label labels lbl mask masks gt gts groundtruth truth annotation annotations annot ann target targets lulc landcover lc class classes "
    "seg segmentation segmentations segmentationclass reference worldcover"
)
QUALITY_WORDS = _all("qa quality qc scl fmask clp cloudmask clouds cloud validity")
ELEVATION_WORDS = _all("dem dsm dtm ndsm elevation height srtm slope chm")
IMAGE_WORDS = _all(
    "image images img imgs sat satellite rgb rgbn irrg rgbir optical s1 s2 sentinel1 sentinel2 sar s1grd s1rtc s2l1c s2l2a hls landsat "
    "naip top tiles scenes imagery aerial"
)
NOISY_WORDS = _all("noisy noise weak pseudo auto automatic otsu osm predicted prediction model worldcover dynamicworld")
RADAR_WORDS = _all("s1 sar sentinel1 radar s1grd s1rtc grd rtc")
SENTINEL2_WORDS = _all("s2 sentinel2 s2l1c s2l2a msil1c msil2a l1c l2a msi")
CHANGE_PAIRS = (("a", "b"), ("before", "after"), ("pre", "post"), ("t1", "t2"), ("im1", "im2"), ("time1", "time2"), ("2012", "2016"))

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_MONTH, _DAY = "(0[1-9]|1[0-2])", "(0[1-9]|[12][0-9]|3[01])"
# Longest form first: a number after a month is a day only if it is joined as the month is.
_DATES = tuple(
    re.compile(rf"(?<!\d)((?:19|20)\d\d){form}(?!\d)")
    for form in (rf"([-_]){_MONTH}\2{_DAY}", f"(){_MONTH}{_DAY}", f"(-){_MONTH}()", f"(){_MONTH}()")
)
_MONTH_NUMBER = re.compile(r"^(.+)[_-](\d\d)$")
_NUMBERS = re.compile(r"^(\d+)[-_](\d+)[-_](\d+)$")
_MOST_ZOOM = 24


def words(name: str) -> frozenset[str]:
    """Lower-case words of a name, cut where letters and digits end.

    Example:
        >>> sorted(words("label_noisy-S1otsu"))
        ['label', 'noisy', 's1otsu']
    """
    return frozenset(part for part in re.split(r"[^a-z0-9]+", name.lower()) if part)


def split_of(parts: Sequence[str]) -> str | None:
    """Split that a part of a path names, as train, val or test; None where none does."""
    return next((_SPLITS[part.lower()] for part in parts if part.lower() in _SPLITS), None)


def is_split(part: str) -> bool:
    """Say whether the name of a folder is that of a split."""
    return part.lower() in _SPLITS


def name_kind(stem: str) -> str:
    """What the last word of a file name says it is: ``label``, ``quality``, ``elevation``, or nothing."""
    last = re.split(r"[^a-z0-9]+", stem.lower())
    for kind, known in (("quality", QUALITY_WORDS), ("label", LABEL_WORDS), ("elevation", ELEVATION_WORDS)):
        if len(last) > 1 and ({last[-1], last[0]} & known):
            return kind
    return ""


def stem_key(stem: str) -> str:
    """A stem without the words that say whether it is image or label: what ``7_sat`` and ``7_mask`` have in common.

    Example:
        >>> stem_key("top_potsdam_2_10_RGB") == stem_key("top_potsdam_2_10_label")
        True
    """
    folder, _, last = stem.rpartition("/")
    parts = re.split(r"([^A-Za-z0-9]+)", last)
    kept = [part for part in parts[::2] if part.lower() not in LABEL_WORDS | {"sat", "image", "img", "rgb", "rgbir", "irrg", "leftimg8bit"}]
    return f"{folder}/{'_'.join(kept)}" if folder else "_".join(kept)


def date_in(name: str) -> str | None:
    """The date a name holds, as ``YYYY-MM-DD`` or ``YYYY-MM``.

    Example:
        >>> date_in("S2A_MSIL2A_20170617T113321_4_55"), date_in("2020-11"), date_in("202412_14")
        ('2017-06-17', '2020-11', '2024-12')
    """
    for pattern in _DATES:
        match = pattern.search(name)
        if match:
            return "-".join(part for part in (match[1], match[3], match[4]) if part)
    return None


def place_in(stem: str) -> str:
    """A stem without its date or trailing two-digit month number: what the images of one place have in common."""
    for pattern in _DATES:
        shorter, count = pattern.subn("", stem, count=1)
        if count:
            return re.sub(r"[-_.T]+", "_", shorter).strip("_")
    match = _MONTH_NUMBER.match(stem)
    return match[1] if match else stem


def tile_address(stem: str) -> tuple[int, int, int] | None:
    """Column, row and zoom of a web-map tile named ``x-y-z`` or ``z-x-y``, or None."""
    match = _NUMBERS.match(PurePosixPath(stem).name)
    if not match:
        return None
    first, second, third = (int(part) for part in match.groups())
    for column, row, zoom in ((first, second, third), (second, third, first)):
        # Small numbers are indices of anything; a zoom below 10 shows countries.
        if 10 <= zoom <= _MOST_ZOOM and max(column, row) < 2**zoom and min(column, row) >= 2 ** (zoom - 8):
            return column, row, zoom
    return None


def ground_of_tile_m(zoom: int, row: int) -> float:
    """Metres on the ground of one of 256 pixels of a web-map tile."""
    latitude = math.atan(math.sinh(math.pi * (1 - 2 * (row + 0.5) / 2**zoom)))
    return float(40_075_016.686 / 256 / 2**zoom * math.cos(latitude))


def common_affix(image: str, label: str) -> str | None:
    """Pattern that leads from an image's stem to its label's, with ``{stem}`` for the image's; None where there is no such one."""
    if image and image in label:
        before, _, after = label.partition(image)
        return f"{before}{{stem}}{after}"
    return None
