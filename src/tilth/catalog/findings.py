"""What a check found, as a report that people and programs read."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Literal

from tilth.catalog.table import Catalog

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        severity: ``error``: a stage would stop or learn nonsense; ``warning``: worth knowing.
        tile_id: the tile, or empty when it concerns the whole catalog.
        file: the file, or empty.
        what: kind of finding, one of ``KINDS``.
        expected: what should be there.
        found: what is there.
    """

    severity: Severity
    tile_id: str
    file: str
    what: str
    expected: str
    found: str

    def __str__(self) -> str:
        """Return one line."""
        place = " ".join(part for part in (self.file, f"({self.tile_id})" if self.tile_id else "") if part)
        return f"{self.severity}: {place + ': ' if place else ''}{self.what}: expected {self.expected}, found {self.found}"


KINDS: dict[str, Severity] = {
    "missing file": "error",
    "unreadable": "error",
    "size": "error",
    "bands": "error",
    "type": "error",
    "label size": "error",
    "label grid": "error",
    "label value": "error",
    "confidence": "error",
    "not finite": "error",
    "no data": "error",
    "constant": "error",
    "split overlap": "error",
    "location in two splits": "error",
    "same ground in two splits": "error",
    "duplicate in two splits": "error",
    "near duplicate in two splits": "error",
    "duplicate": "warning",
    "near duplicate": "warning",
    "copies labelled differently": "warning",
    "scaling": "warning",
    "band order": "warning",
    "constant band": "warning",
    "mixed CRS": "warning",
    "no CRS": "warning",
    "mixed resolution": "warning",
    "reference": "warning",
    "part empty": "warning",
    "all ignored": "warning",
    "class absent": "warning",
    "class absent in split": "warning",
    "rare class": "warning",
}
"""Kinds of findings and how bad they are, in the order in which a summary lists them."""

DROPPED = ("duplicate",)
"""Kinds of warnings whose tiles a clean catalog leaves out, too."""


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    Attributes:
        tiles: number of tiles looked at.
        files: number of distinct image and label files.
        findings: in catalog order, those of the whole catalog last.
        class_pixels: per scheme and class name, pixels in all labels; empty when pixels were not read.
    """

    tiles: int
    files: int
    findings: tuple[Finding, ...]
    class_pixels: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether there is no error; warnings do not count."""
        return not self.errors

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings of severity ``error``."""
        return tuple(item for item in self.findings if item.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Findings of severity ``warning``."""
        return tuple(item for item in self.findings if item.severity == "warning")

    def sound(self, catalog: Catalog) -> Catalog:
        """Keep the tiles of the checked catalog that have no error, and of tiles with the same pixels one.

        What concerns two tiles is found at one of them, and only that one goes. Of copies, and of nearly the same pictures in two splits,
        the one with the better label stays (clean, then noisy, then pseudo, then none); then, and where ground or pixels of one image lie
        in two splits, the tile of the smaller split, as in splitting, so that small validation sets stay what they are; then the first.
        Near duplicates within one split stay: they are other pixels. Several windows of one image in two splits lose the earlier.
        """
        bad = {item.tile_id for item in self.findings if item.severity == "error" or item.what in DROPPED}
        return catalog.take([index for index, name in enumerate(catalog.column("tile_id")) if name not in bad])

    def to_json(self) -> str:
        """Write the report as JSON text."""
        tree = {"ok": self.ok, "tiles": self.tiles, "files": self.files, "class_pixels": self.class_pixels}
        return json.dumps(tree | {"findings": [asdict(item) for item in self.findings]}, indent=1)

    def summary(self, limit: int = 5) -> str:
        """Say in lines what was found: a headline, then each kind with its first findings.

        Args:
            limit: findings shown of each kind.
        """
        lines = [f"{self.tiles} tiles in {self.files} files: {len(self.errors)} errors, {len(self.warnings)} warnings"]
        for what in KINDS:
            items = [item for item in self.findings if item.what == what]
            lines += [str(item) for item in items[:limit]]
            if len(items) > limit:
                lines.append(f"  ... and {len(items) - limit} more of kind '{what}'")
        return "\n".join(lines)


def make_finding(what: str, tile_id: str, file: str, expected: object, found: object) -> Finding:
    """Make a finding of the severity that its kind has."""
    return Finding(KINDS[what], tile_id, file, what, str(expected), str(found))
