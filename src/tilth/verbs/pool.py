"""The pool of tiles that a verb works on: rows of several catalogs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tilth.catalog.table import Catalog


def open_pool(paths: tuple[Path, ...], splits: tuple[str | None, ...], *, fill_split: str | None = None, labels: bool = True) -> Catalog:
    """Open catalogs; of those with splits the rows that were asked for, others whole.

    Args:
        paths: of the catalogs.
        splits: wanted; none for all rows.
        fill_split: split that tiles of catalogs without any split get; None leaves them without.
        labels: keep the labels that tiles have; without them it does not matter whether their schemes agree.

    Raises:
        CatalogError: no tile is left, though there are some, or a tile id is there twice.
    """
    from tilth.catalog.confidence import without_labels
    from tilth.catalog.rows import name_splits
    from tilth.catalog.table import Catalog
    from tilth.errors import CatalogError

    parts = [Catalog.open(path) for path in paths]
    chosen = []
    for part in parts:
        divided = bool(set(part.counts("split")) - {None})
        kept = part.filter(split=splits) if divided and splits else part
        kept = kept if divided or fill_split is None else kept.with_columns(split=[fill_split] * len(kept))
        chosen.append(kept if labels else without_labels(kept))
    whole = Catalog.concat(chosen)
    if not len(whole) and any(map(len, parts)):
        wanted = ", ".join(str(split or "none") for split in splits)
        raise CatalogError(f"{paths[0]}: no tile in split {wanted}; splits there: {name_splits(parts[0].table['split'])}")
    return whole
