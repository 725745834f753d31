"""Clean labels beside noisy ones: the column ``reference`` of a catalog, taken from another catalog of the same tiles."""

from __future__ import annotations

import pyarrow.compute as pc

from tilth.catalog import schema
from tilth.catalog.table import Catalog
from tilth.errors import CatalogError


def add_references(noisy: Catalog, clean: Catalog, named: str) -> Catalog:
    """Take the labels of one catalog as the references of another; both name their tiles alike.

    Args:
        noisy: whose labels may be wrong.
        clean: tiles with labels that are right. Tiles that ``noisy`` has not do not matter; those that it lacks, or has no label of, get
            no reference.
        named: what to call ``clean`` in messages.

    Returns:
        ``noisy`` with the column ``reference``.

    Raises:
        CatalogError: no tile in common, or a tile with another window or labels of other classes.
    """
    found = pc.index_in(noisy.table["tile_id"], clean.table["tile_id"].combine_chunks())
    if found.null_count == len(found):
        raise CatalogError(
            f"{named}: none of its {len(clean)} tiles is among the {len(noisy)} of this catalog, such as {noisy.tile(0).tile_id!r}; build "
            "both from the same inputs, with the same windows and prefix"
        )
    theirs = clean.table.take(found)
    ours, others = (zip(tiles["window"].to_pylist(), tiles["scheme"].to_pylist(), strict=True) for tiles in (noisy.table, theirs))
    for tile, (window, scheme), (other_window, other_scheme) in zip(noisy.column("tile_id"), ours, others, strict=True):
        if other_window is not None and other_window != window:
            raise CatalogError(
                f"{named}: tile {tile!r} is window {tuple(other_window)}, here {tuple(window)}; cut both into the same windows"
            )
        if scheme and other_scheme and clean.schemes[other_scheme].names != noisy.schemes[scheme].names:
            raise CatalogError(
                f"{named}: tile {tile!r} has labels of scheme {other_scheme!r}, here of {scheme!r}; give both the same scheme"
            )
    return noisy.with_columns(**{schema.REFERENCE_COLUMN: theirs["label"]})
