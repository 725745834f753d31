"""Clean labels beside noisy ones: the column ``reference`` of a catalog, taken from another catalog of the same tiles."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from tilth.catalog import schema
from tilth.catalog.table import Catalog
from tilth.errors import CatalogError


def add_references(noisy: Catalog, clean: Catalog, named: str) -> Catalog:
    """Take the labels of one catalog as the references of another; both name their tiles alike.

    Args:
        noisy: whose labels may be wrong.
        clean: tiles with labels that are right. Those that ``noisy`` has not do not matter; tiles that it lacks, or that have no label,
            get no reference.
        named: what to call ``clean`` in messages.

    Returns:
        ``noisy`` with the column ``reference``.

    Raises:
        CatalogError: no tile in common, other classes, or a tile with another window.
    """
    found = pc.index_in(noisy.table["tile_id"], pa.chunked_array(clean.table["tile_id"]).combine_chunks())
    if found.null_count == len(found):
        raise CatalogError(
            f"{named}: none of its tiles is among those with noisy labels (it has {clean.tile(0).tile_id!r}, they "
            f"{noisy.tile(0).tile_id!r}); build both from the same inputs, with the same windows and prefix"
            if len(clean) and len(noisy)
            else f"{named}: no tiles; build it from the same inputs"
        )
    theirs = clean.table.take(found)
    for tile, given, window, other in zip(
        *(noisy.table[name].to_pylist() for name in ("tile_id", "scheme", "window")), theirs["window"].to_pylist(), strict=True
    ):
        if other is not None and other != window:
            raise CatalogError(f"{named}: tile {tile!r} has window {tuple(other)}, with noisy labels {tuple(window)}; build both with the same windows")
        del given
    classes = {name: scheme.names for name, scheme in {**clean.schemes, **noisy.schemes}.items()}
    wrong = next(
        (
            (ours, other)
            for ours, other in zip(noisy.table["scheme"].to_pylist(), theirs["scheme"].to_pylist(), strict=True)
            if ours is not None and other is not None and classes[ours] != clean.schemes[other].names
        ),
        None,
    )
    if wrong is not None:
        raise CatalogError(f"{named}: its labels are of scheme {wrong[1]!r}, the noisy ones of {wrong[0]!r}, whose classes differ; give both the same")
    return noisy.with_columns(**{schema.REFERENCE_COLUMN: theirs["label"]})
