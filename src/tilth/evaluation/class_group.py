"""Means over some of the classes, for tables that report some of them: one confusion matrix of all classes, fewer rows in the mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tilth.classes import class_groups
from tilth.errors import ConfigError, suggest
from tilth.evaluation.record import Record, mean

if TYPE_CHECKING:
    from tilth.evaluation.result import ClassScore, Evaluation

MEANS = {"mIoU": "iou", "mF1": "f1", "AA": "recall", "mPrecision": "precision", "bIoU": "boundary_iou"}
"""Field of a class's scores by the name of its mean over classes."""


class ClassGroup(Record):
    """Means over some of the classes. Pixels of the others count in them as they always do: as misses and false alarms.

    Attributes:
        name: what was asked for, where that was one word.
        classes: names of the classes, in id order.
        absent: those of them that no counted pixel of the reference belongs to; they enter no mean.
        means: unweighted means as fractions, by the names of the summary: mIoU, mF1, AA, mPrecision, bIoU; only those that are defined.
    """

    name: str | None
    classes: tuple[str, ...]
    absent: tuple[str, ...]
    means: dict[str, float]

    @property
    def title(self) -> str:
        """What to call it: ``paper12``, or ``3 classes``."""
        return self.name if self.name is not None else f"{len(self.classes)} classes"


def find_classes(scheme: str, classes: Sequence[str], asked: Sequence[str]) -> tuple[str, ...]:
    """Return the classes that a mean runs over.

    Args:
        scheme: name of the class scheme.
        classes: names of its classes, in id order.
        asked: names of classes, and of groups that come with the scheme, such as ``paper12`` of ``minifrance``.

    Returns:
        Names in id order, each once.

    Raises:
        ConfigError: neither a class of the scheme nor a group of it.
    """
    groups = class_groups(scheme)
    wanted = {member for name in asked for member in groups.get(name, (name,))}
    for name in sorted(wanted):
        if name not in classes:
            known = suggest(name, [*classes, *groups])
            raise ConfigError(f"over: {name!r} is no class of scheme {scheme!r} and no group of its classes; {known}")
    return tuple(name for name in classes if name in wanted)


def score_group(asked: Sequence[str], classes: Sequence[str], per_class: Sequence[ClassScore]) -> ClassGroup:
    """Average the scores of some classes; absent ones enter no mean.

    Args:
        asked: what was asked for; one word names the group.
        classes: what :func:`find_classes` made of it.
        per_class: scores of all classes.
    """
    chosen = [item for item in per_class if item.name in classes]
    means = {name: mean([value for item in chosen if (value := getattr(item, field)) is not None]) for name, field in MEANS.items()}
    return ClassGroup(
        name=asked[0] if len(asked) == 1 else None,
        classes=tuple(classes),
        absent=tuple(item.name for item in chosen if item.absent),
        means={name: value for name, value in means.items() if value is not None},
    )


def group_of(evaluation: Evaluation, asked: Sequence[str]) -> ClassGroup:
    """Average the scores of some classes of a stored evaluation; arguments and errors as for :func:`find_classes`."""
    return score_group(asked, find_classes(evaluation.scheme, evaluation.classes, asked), evaluation.per_class)
