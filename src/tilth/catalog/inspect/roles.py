"""What the rasters of a group are for: imagery, labels, measurements to estimate, elevation, quality flags."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from tilth.catalog.inspect import names
from tilth.catalog.inspect.groups import Group
from tilth.catalog.inspect.sampling import Sample, Values, count_values, sample_group

Role = Literal["image", "label", "target", "elevation", "quality"]

_JPEG = frozenset({".jpg", ".jpeg"})
_FEW_VALUES = 40
_SMOOTH = 0.8
# A mask that JPEG has blurred keeps most of its pixels near a few colours; a photograph does not.
_NEAR_COLOURS = 24
_NEAR_SHARE = 0.95


@dataclass(frozen=True, eq=False)
class Part:
    """A group and what it is for.

    Attributes:
        group: the rasters.
        role: ``image``; ``label`` (classes); ``target`` (a measured quantity, one number a pixel); ``elevation``; ``quality``.
        sample: pixels of some of its images; None for labels.
        values: values of its labels; None for what is no label.
        lossy: a label stored as JPEG, or by the look of its values once stored so.
    """

    group: Group
    role: Role
    sample: Sample | None = None
    values: Values | None = None
    lossy: bool = False


def judge(group: Group) -> Part:
    """Tell what a group is for, from its name first and from its pixels where the name says nothing or cannot be right."""
    described = group.words | frozenset(word for name in group.band_names for word in names.words(name))
    integers = not group.dtype.startswith("float")
    if group.count == 1 or (group.count == 2 and "prob" in group.band_names[1].lower()):
        if group.file_kind == "quality" or described & names.QUALITY_WORDS:
            return Part(group, "quality", sample_group(group))
        named = group.file_kind == "label" or bool(described & names.LABEL_WORDS)
        if described & names.ELEVATION_WORDS and not named:
            return Part(group, "elevation", sample_group(group))
        if named:
            return _named_label(group)
        if integers and (found := _label_by_look(group)):
            return found
    elif group.count == 3 and group.dtype == "uint8":
        named = group.file_kind == "label" or bool(described & names.LABEL_WORDS)
        if named or group.palette or not group.suffixes.keys() <= _JPEG:
            found = _coloured_label(group, named)
            if found:
                return found
    return Part(group, "image", sample_group(group))


def _named_label(group: Group) -> Part:
    values = count_values(group, group.members)
    if values.fractions or (values.too_many and not _is_blurred(values)):
        return Part(group, "target", sample_group(group), values)
    return Part(group, "label", None, values, lossy=_is_lossy(group, values))


def _label_by_look(group: Group) -> Part | None:
    few = count_values(group, group.members[:8])
    if few.too_many or not 1 < len(few.pixels) <= _FEW_VALUES or few.smooth < _SMOOTH or not few.looked:
        return None
    values = count_values(group, group.members)
    return None if values.too_many or len(values.pixels) > 2 * _FEW_VALUES else Part(group, "label", None, values, _is_lossy(group, values))


def _coloured_label(group: Group, named: bool) -> Part | None:
    """A label stored in colours or as indices into a palette; None where the pictures are photographs after all."""
    few = count_values(group, group.members[:4])
    if not few.looked or (len(few.pixels) == 1 and not named):
        return None
    if not few.too_many and len(few.pixels) <= _FEW_VALUES and few.smooth >= _SMOOTH:
        values = count_values(group, group.members)
        return Part(group, "label", None, values, lossy=_is_lossy(group, values))
    return Part(group, "label", None, few, lossy=True) if named and _is_blurred(few) else None


def _is_lossy(group: Group, values: Values) -> bool:
    """Say whether JPEG has altered the values: many of them, most of which hardly occur."""
    rare = sum(1 for value in values.pixels if values.share(value) < 0.002)
    return len(values.pixels) > 8 and rare > 0.6 * len(values.pixels) and _is_blurred(values) and bool(group.suffixes.keys() & _JPEG)


def _is_blurred(values: Values) -> bool:
    """Say whether nearly all pixels lie near a few values or colours."""
    near: Counter[int] = Counter()
    for value, count in values.pixels.items():
        number = int(value)
        key = (number >> 20) << 8 | (number >> 12 & 15) << 4 | (number >> 4 & 15) if values.colours else number >> 4
        near[key] += count
    limit = _NEAR_COLOURS if values.colours else 6
    return sum(count for _, count in near.most_common(limit)) >= _NEAR_SHARE * values.total and values.smooth > 0.3
