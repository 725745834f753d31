"""Pictures of what was kept and dropped: one contact sheet a reason."""

from __future__ import annotations

from pathlib import Path

from tilth.catalog.show import contact_sheet
from tilth.catalog.table import Catalog
from tilth.curation.filters import DROPPED, KEPT


def draw_sheets(decisions: Catalog, folder: Path, *, count: int, seed: int = 0) -> dict[str, Path]:
    """Draw some tiles of every reason, at random.

    Args:
        decisions: all tiles, with their reasons.
        folder: for the pictures; earlier ones are removed.
        count: tiles of each reason.
        seed: another one shows other tiles.

    Returns:
        Picture by reason, kept ones first; tiles that could not be read show why.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    there = decisions.counts("reason")
    found = {}
    for reason in (*KEPT, *DROPPED):
        if reason in there:
            name = f"{'kept' if reason in KEPT else 'dropped'}-{reason.replace(' ', '-')}.png"
            found[reason] = contact_sheet(decisions.filter(reason=reason), folder / name, count=count, seed=seed)
    return found
