"""Splits that share no ground, and labelled subsets that lie inside each other.

Neighbouring tiles look alike, so a random split measures memory. Here whole blocks of ground go to one split. Labels are reduced by one
ranking: the first k tiles of it are the subset of k, so the 5 % lie inside the 10 %.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tilth.catalog import uris
from tilth.catalog.config import SplitConfig
from tilth.catalog.geometry import footprint_centres, overlapping_pairs
from tilth.catalog.origin import source_images
from tilth.catalog.ranking import RANK_COLUMN, SUBSET_COLUMN, label_ranks
from tilth.catalog.rows import name_splits
from tilth.catalog.table import Catalog
from tilth.errors import CatalogError
from tilth.seeds import derive

# Metres along a meridian for one degree of latitude, on a sphere; blocks need no more.
_METRES_A_DEGREE = 111_195.0

_AT = "location "

_OPEN = ""
"""In place of a split, while it is not known."""

__all__ = ["RANK_COLUMN", "label_ranks", "split_catalog", "subset"]


def split_catalog(catalog: Catalog, config: SplitConfig, progress: Callable[[int, int], None] | None = None) -> Catalog:
    """Divide tiles into splits by blocks, rank the training labels and, if asked, reduce them.

    With ``unit`` ``block``, tiles with a footprint belong to the square block of ground that holds their centre; tiles without one to the
    block of their ``location_id`` where they have one, else of their image file.
    Tiles that reach over the border of their block into ground of another split are left without a split, in the larger of the two.

    Args:
        catalog: tiles; an existing split column is replaced unless ``keep_splits``.
        config: fractions, what stays together, seed, subsets.
        progress: told (labels read, labels in all).

    Returns:
        The catalog with columns ``split``, ``block`` and ``label_rank``, and ``subset`` if asked for; a pure function of catalog and
        seed, whatever the order of rows.

    Raises:
        CatalogError: fewer blocks than splits, fewer images than are set aside, tiles that ``unit`` or ``group`` does not know, a catalog
            of ``without`` that shares no image, labels to be ranked for subsets that are not there, ``label_tiles`` above their number,
            or ``only`` leaves no tile.
        DataError: a label cannot be read.
    """
    if not config.keep_splits:
        blocks, splits = np.array(_units(catalog, config), dtype=object), _set_aside(catalog, config)
        open_ = np.flatnonzero(splits == _OPEN)
        if not open_.size:
            raise CatalogError("no tile is left to be divided; see set_aside, unlabelled and without")
        part = catalog if open_.size == len(catalog) else catalog.take(open_)
        splits[open_] = _without_overlap(part, _spread(blocks[open_].tolist(), config), config)
        catalog = catalog.with_columns(split=pa.array(splits.tolist(), pa.string()), block=pa.array(blocks.tolist(), pa.string()))
        # What was ranked and named is of other splits.
        if RANK_COLUMN in catalog.table.column_names:
            catalog = catalog.with_columns(label_rank=pa.nulls(len(catalog), pa.int32()))
        if SUBSET_COLUMN in catalog.table.column_names:
            catalog = catalog.with_columns(subset=pa.nulls(len(catalog), pa.string()))
    # Ranking reads every label of the split, which is no use to a result without it.
    if not config.only or config.train in config.only:
        catalog = _rank(catalog, config, progress)
    if not config.only:
        return catalog
    part = catalog.filter(split=config.only)
    if not len(part):
        raise CatalogError(f"only: no tile in split {', '.join(config.only)}; splits there: {name_splits(catalog.table['split'])}")
    return part


def _rank(catalog: Catalog, config: SplitConfig, progress: Callable[[int, int], None] | None) -> Catalog:
    """Rank the training labels, name their subsets and reduce them, each if asked."""
    # Without a label to rank, what rests on a ranking fails by the message of label_ranks.
    asked = config.subsets or config.label_tiles is not None or config.label_percent is not None
    if config.rank_labels and (asked or len(catalog.filter(split=config.train).labelled())):
        catalog = catalog.with_columns(label_rank=label_ranks(catalog, config.seed, split=config.train, progress=progress))
    if config.subsets:
        catalog = catalog.with_columns(subset=_name_subsets(catalog, config.subsets))
    if config.label_tiles is not None or config.label_percent is not None:
        catalog = subset(catalog, tiles=config.label_tiles, percent=config.label_percent, split=config.train)
    return catalog


def _units(catalog: Catalog, config: SplitConfig) -> list[str]:
    """Name what each tile goes to a split with."""
    if config.group is not None:
        return _groups(catalog, re.compile(config.group))
    if config.unit == "tile":
        return catalog.column("tile_id")
    if config.unit == "image":
        return _files(catalog)
    if config.unit == "location":
        if not all(catalog.column("location_id")):
            raise CatalogError("unit=location: there are tiles without location_id, so their place is not known; see unit=image")
        return _places(catalog)
    return assign_blocks(catalog, config)


def _groups(catalog: Catalog, pattern: re.Pattern[str]) -> list[str]:
    found = [pattern.search(name) for name in catalog.column("tile_id")]
    groups = [None if match is None else match[1] for match in found]
    if None in groups:
        raise CatalogError(f"group: {pattern.pattern!r} is not found in tile id {catalog.column('tile_id')[groups.index(None)]!r}")
    return [str(name) for name in groups]


def _set_aside(catalog: Catalog, config: SplitConfig) -> NDArray[np.object_]:
    """Say which split tiles have before the others are divided: (N,), None for none at all, and ``_OPEN`` for those others."""
    splits = np.full(len(catalog), _OPEN, dtype=object)
    if not (config.without or config.unlabelled or config.set_aside):
        return splits
    files = np.array(_files(catalog), dtype=object)
    names = [Path(file).stem for file in files]
    for path in config.without:
        closed = {Path(file).stem for file in _files(Catalog.open(path))}
        if closed.isdisjoint(names):
            raise CatalogError(f"without: {path} has no image of this catalog by file name: {min(closed)!r} there, {min(names)!r} here")
        splits[[name in closed for name in names]] = None
    if config.unlabelled is not None:
        bare = [label is None for label in catalog.column("label")]
        splits[bare & (splits == _OPEN)] = config.unlabelled
    for name, count in sorted(config.set_aside.items()):
        there = sorted(set(files[splits == _OPEN]), key=lambda file: derive(config.seed, "set aside", file))
        if count >= len(there):
            raise CatalogError(f"set_aside: {count} images asked for as {name!r}, {len(there)} are there to be divided")
        splits[np.isin(files, there[:count]) & (splits == _OPEN)] = name
    return splits


def assign_blocks(catalog: Catalog, config: SplitConfig) -> list[str]:
    """Name the block of each tile: ``<row>/<column>`` of a grid on the ground; without a footprint the place or the image file."""
    if catalog.table["geometry"].null_count == len(catalog):
        return _places(catalog)
    longitude, latitude = footprint_centres(catalog.table["geometry"]).T
    if config.block_deg is not None:
        row, column = np.floor(latitude / config.block_deg), np.floor(longitude / config.block_deg)
    else:
        row = np.floor(latitude * _METRES_A_DEGREE / config.block_m)
        # Columns of one row share the scale of its middle, so that blocks keep their width towards the poles.
        middle = np.clip((row + 0.5) * config.block_m / _METRES_A_DEGREE, -89.9, 89.9)
        column = np.floor(longitude * _METRES_A_DEGREE * np.cos(np.radians(middle)) / config.block_m)
    known = np.isfinite(row)
    # Each block is named once, however many tiles it has.
    cells, places = np.unique(np.stack([row[known], column[known]], axis=1).astype(np.int64), axis=0, return_inverse=True)
    blocks = np.empty(len(catalog), dtype=object)
    blocks[known] = np.array([f"{down}/{across}" for down, across in cells.tolist()], dtype=object)[places.reshape(-1)]
    if not known.all():
        blocks[~known] = np.array(_places(catalog), dtype=object)[~known]
    named: list[str] = blocks.tolist()
    return named


def _places(catalog: Catalog) -> list[str]:
    """Name the place of each tile, so that tiles of one place or of one image file have one name."""
    files = _files(catalog)
    locations = catalog.column("location_id")
    if not any(locations):
        return files
    # A file may show several places, and a place lies in several files: what hangs together is one block, called by its first place.
    above: dict[str, str] = {}

    def find(name: str) -> str:
        while (upper := above.setdefault(name, name)) != name:
            above[name] = name = above[upper]
        return name

    for file, location in zip(files, locations, strict=True):
        if location:
            first, second = sorted((find(f"file {file}"), find(f"{_AT}{location}")), key=lambda name: (not name.startswith(_AT), name))
            above[second] = first
    return [find(f"file {file}").removeprefix("file ") for file in files]


def _files(catalog: Catalog) -> list[str]:
    """Name the image file of each tile, from the folder that all lie in."""
    images = source_images(catalog.table)
    folder = uris.common_folder(uris.distinct_folders(images))
    names = uris.make_relative(images, Path(folder)) if folder else images
    return [str(name) for name in names.to_pylist()]


def _spread(blocks: list[str], config: SplitConfig) -> list[str]:
    """Give every block a split: blocks in an order drawn from the seed, each to the split that is furthest behind its fraction."""
    sizes: dict[str, int] = {}
    for block in blocks:
        sizes[block] = sizes.get(block, 0) + 1
    if len(sizes) < len(config.fractions):
        what = "groups" if config.group is not None else f"{config.unit}s"
        mend = "make block_m smaller, or ask for fewer splits" if what == "blocks" else "ask for fewer splits"
        raise CatalogError(f"{len(sizes)} {what} cannot fill {len(config.fractions)} splits ({', '.join(config.fractions)}); {mend}")
    filled = dict.fromkeys(config.fractions, 0)
    chosen: dict[str, str] = {}
    for block in sorted(sizes, key=lambda name: derive(config.seed, "block", name)):
        # Relative filling, so that small splits get a block too when there are few; ties go to the larger split.
        split = min(filled, key=lambda name: (filled[name] / config.fractions[name], -config.fractions[name], name))
        chosen[block] = split
        filled[split] += sizes[block]
    return [chosen[block] for block in blocks]


def _without_overlap(catalog: Catalog, splits: list[str], config: SplitConfig) -> list[str | None]:
    """Take tiles that see ground of a tile in another split out of the larger split."""
    result: list[str | None] = list(splits)
    if catalog.table["geometry"].null_count == len(catalog):
        return result
    codes = {name: code for code, name in enumerate(sorted(config.fractions, key=lambda name: (-config.fractions[name], name)))}
    code = np.array([codes[split] for split in splits], dtype=np.int64)
    pairs = overlapping_pairs(catalog.table["geometry"], code)
    # The larger split has the smaller code.
    losers = np.where(code[pairs[:, 0]] < code[pairs[:, 1]], pairs[:, 0], pairs[:, 1])
    for index in np.unique(losers).tolist():
        result[index] = None
    return result


def subset(
    catalog: Catalog, *, tiles: int | None = None, percent: float | None = None, split: str = "train", drop_others: bool = False
) -> Catalog:
    """Keep the labels of the first tiles of the ranking only.

    Args:
        catalog: with the column ``label_rank``, as :func:`split_catalog` makes it. Where catalogs were joined that were ranked apart,
            their rankings interlock: the first tile of each, in order of tile id, then the second of each.
        tiles: how many training tiles stay labelled.
        percent: or which share of the ranked tiles, rounded, at least one.
        split: the split that was ranked; labels of other splits are kept.
        drop_others: return the labelled subset alone instead of all rows.

    Returns:
        All rows, those of the split beyond the subset without label; or the rows of the subset, in catalog order.

    Raises:
        CatalogError: no ranking, not exactly one of ``tiles`` and ``percent``, or more tiles asked for than are ranked.
    """
    if (tiles is None) == (percent is None):
        raise CatalogError("subset: give either tiles or percent")
    if RANK_COLUMN not in catalog.table.column_names:
        raise CatalogError(f"subset: the catalog has no column {RANK_COLUMN!r}; rank its labels with: tilth catalog split")
    ranks = _joint_ranks(catalog)
    ranked = int((ranks >= 0).sum())
    count = tiles if tiles is not None else _share(ranked, percent or 0)
    if not 1 <= count <= ranked or (percent is not None and not 0 < percent <= 100):
        asked = f"{tiles} tiles" if tiles is not None else f"{percent:g} %"
        raise CatalogError(f"subset: {asked} asked for, {ranked} tiles are ranked; ask for 1 to {ranked} tiles or more than 0 to 100 %")
    chosen = (ranks >= 0) & (ranks < count)
    result = catalog.take(np.flatnonzero(chosen))
    if len(result.labelled()) < count:
        raise CatalogError(f"subset: {count - len(result.labelled())} of these {count} tiles lost their label; start from the full catalog")
    if drop_others:
        return result
    lost = np.array([value == split for value in catalog.column("split")], dtype=bool) & ~chosen
    nothing = pa.array(lost)
    return catalog.with_columns(
        label=pc.if_else(nothing, pa.scalar(None, pa.string()), catalog.table["label"]),
        label_kind=pc.if_else(nothing, "none", catalog.table["label_kind"]),
        scheme=pc.if_else(nothing, pa.scalar(None, pa.string()), catalog.table["scheme"]),
    )


def _name_subsets(catalog: Catalog, subsets: dict[str, float]) -> pa.Array:
    """Name the smallest subset that each ranked tile belongs to; null for others."""
    ranks = catalog.column(RANK_COLUMN)
    ranked = sum(rank is not None for rank in ranks)
    sizes = sorted((_share(ranked, percent), name) for name, percent in subsets.items())
    names = [None if rank is None else next((name for size, name in sizes if rank < size), None) for rank in ranks]
    return pa.array(names, pa.string())


def _share(ranked: int, percent: float) -> int:
    return max(1, round(ranked * percent / 100))


def _joint_ranks(catalog: Catalog) -> NDArray[np.int64]:
    """Ranks 0, 1, ... without gaps or repetitions, int64 (N,); -1 for tiles that are not ranked."""
    given = catalog.table[RANK_COLUMN].fill_null(-1).to_numpy().astype(np.int64)
    ranked = np.flatnonzero(given >= 0)
    names = catalog.column("tile_id")
    order = sorted(ranked.tolist(), key=lambda index: (given[index], names[index]))
    ranks = np.full(len(catalog), -1, dtype=np.int64)
    ranks[order] = np.arange(ranked.size)
    return ranks
