"""What became of every tensor of a file, and of every parameter of the network."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_ROOM = 180
BEHIND_ENCODER = ("encoder.pyramid.", "encoder.norms.", "encoder.unused_")
"""Beginnings of our names of what sits behind an encoder for segmentation alone, or is there for the count."""


@dataclass
class LoadReport:
    """What loading did.

    Attributes:
        layout: name of the layout that was recognised.
        title: the same, for people.
        matched: our names of tensors taken as they are.
        resized: our names of tensors fitted to this network, with what was done: "32 x 32 to 14 x 14 positions, bicubic".
        missing: our names of what the file does not bring; stays fresh.
        unexpected: names in the file that nobody knows.
        lacking: names in the file of what its own network computes with and this one does not have; in ``unexpected`` or ``dropped``, too.
        dropped: names in the file left out on purpose, with the reason.
        matched_parameters: numbers in ``matched`` and ``resized``, buffers not counted.
        parameters: numbers in the network, buffers not counted.
        source: the file or name that was read.
        sha256: of that file, or None for a dictionary.
        notes: what was taken off around the weights, and warnings.
        class_layers: our names of the layers whose shape follows the classes.
    """

    layout: str
    title: str
    matched: list[str] = field(default_factory=list)
    resized: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)
    lacking: list[str] = field(default_factory=list)
    matched_parameters: int = 0
    parameters: int = 0
    source: str = ""
    sha256: str | None = None
    notes: list[str] = field(default_factory=list)
    class_layers: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Share of the network's parameters that the file brought, 0 to 1."""
        return self.matched_parameters / self.parameters if self.parameters else 0.0

    @property
    def verdict(self) -> str:
        """One of ``complete``, ``complete but for the classes``, ``encoder only``, or ``partial, 87 % of the parameters``.

        An encoder counts as whole without what sits behind it for segmentation alone: a feature pyramid, norms of the maps. Whatever was
        brought, a file that computes with more is of ``another network: ...``, and one with unknown parts is never called complete.
        """
        if self.lacking:
            return f"another network: the file also computes with {groups(self.lacking)}"
        if self.unexpected:
            known = self._known.replace("complete", "filled")
            return f"{known}, but parts of the file are unknown: {groups(self.unexpected)}"
        return self._known

    @property
    def _known(self) -> str:
        if not self.missing:
            return "complete"
        if set(self.missing) <= set(self.class_layers):
            return "complete but for the classes"
        lacking = any(name.startswith("encoder") and not name.startswith(BEHIND_ENCODER) for name in self.missing)
        if not lacking and all(name.startswith("encoder") for name in [*self.matched, *self.resized]):
            return "encoder only"
        return f"partial, {min(99, math.floor(100 * self.share))} % of the parameters"

    def lines(self) -> list[str]:
        """Say it for people: a verdict and a line for each kind, names grouped, never more than a few lines."""
        brought = len(self.matched) + len(self.resized)
        told = [
            f"{self.source or 'weights'}: {self.title} ({self.layout})",
            f"verdict: {self.verdict}; {brought} tensors, {self.matched_parameters:,} of {self.parameters:,} parameters",
        ]
        by_action: dict[str, list[str]] = {}
        for name, action in self.resized.items():
            by_action.setdefault(action, []).append(name)
        told += [f"resized: {groups(names)}: {action}" for action, names in by_action.items()]
        if self.missing:
            told.append(f"missing, left as they were: {groups(self.missing)}")
        if self.unexpected:
            told.append(f"unexpected, left out: {groups(self.unexpected)}")
        by_reason: dict[str, list[str]] = {}
        for name, reason in self.dropped.items():
            by_reason.setdefault(reason, []).append(name)
        told += [f"dropped: {groups(names)}: {reason}" for reason, names in by_reason.items()]
        told += [f"note: {note}" for note in self.notes]
        if self.sha256:
            told.append(f"sha256: {self.sha256}")
        return told

    def __str__(self) -> str:
        return "\n".join(self.lines())


def groups(names: Iterable[str]) -> str:
    """Sum up names: beginnings that they share once, numbers as a star, with how many there are; as detailed as a line has room for.

    Example:
        >>> groups(["decoder.blocks.0.weight", "decoder.blocks.1.weight", "head.bias"])
        'decoder.blocks.*.weight (2), head.bias'
        >>> groups([f"{part}.layer_{i}.{j}" for part in ("one", "two") for i in "abcdefghijklm" for j in "nopqrstuvw"])
        'one.* (130), two.* (130)'
    """
    found: dict[str, _Group] = {}
    for name in names:
        parts = re.sub(r"\d+", "*", name).split(".")
        found.setdefault(parts[0], _Group(1)).members.append((name, parts))
    told = list(found.values())
    grown = True
    while grown:
        grown = False
        for group in list(told):
            at = told.index(group)
            split = group.split()
            if split != [group] and len(_line([*told[:at], *split, *told[at + 1 :]])) <= _ROOM:
                told[at : at + 1] = split
                grown = True
    text = _line(told)
    return text if len(text) <= _ROOM else f"{text[:_ROOM]} ... ({sum(len(group.members) for group in told)} in all)"


@dataclass
class _Group:
    """Names that share their first parts.

    Attributes:
        depth: how many parts they share.
        members: names in full, and their parts with stars for numbers.
    """

    depth: int
    members: list[tuple[str, list[str]]] = field(default_factory=list)

    def split(self) -> list[_Group]:
        """Divide by one more part; a group that has none is returned itself."""
        if len(self.members) == 1 or all(len(parts) <= self.depth for _, parts in self.members):
            return [self]
        found: dict[str, _Group] = {}
        for name, parts in self.members:
            found.setdefault(".".join(parts[: self.depth + 1]), _Group(self.depth + 1)).members.append((name, parts))
        return list(found.values())

    def __str__(self) -> str:
        if len(self.members) == 1:
            return self.members[0][0]
        deeper = any(len(parts) > self.depth for _, parts in self.members)
        return f"{'.'.join(self.members[0][1][: self.depth])}{'.*' if deeper else ''} ({len(self.members)})"


def _line(told: list[_Group]) -> str:
    return ", ".join(str(group) for group in told)
