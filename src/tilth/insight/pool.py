"""Which tiles are looked at, and which single pixels of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tilth.catalog.overlap import shares_pixels
from tilth.catalog.table import Catalog
from tilth.errors import CatalogError
from tilth.insight.config import LookConfig
from tilth.insight.views import ClassPicks, View, choose, read_views

if TYPE_CHECKING:
    from tilth.classes import ClassScheme
    from tilth.sensors import Sensor


@dataclass(frozen=True)
class Pool:
    """Tiles to look at.

    Attributes:
        learn: what probes learn from.
        test: what they are tested on; no pixel of these is in the others.
        shared: how many tiles were left out of ``learn``.
        sensor: of all.
        scheme: of the labels; None where nothing is labelled.
        probing: whether there are probes.
    """

    learn: Catalog
    test: Catalog
    shared: int
    sensor: Sensor
    scheme: ClassScheme | None
    probing: bool


@dataclass(frozen=True)
class Scan:
    """What a look at the labels alone says.

    Attributes:
        picks: pixels for t-SNE.
        learn_tiles: tiles to learn from that can be read.
        test_tiles: tiles to test on that can be read.
        learn_pixels: labelled pixels to learn from.
        test_pixels: labelled pixels to test on.
        shown: ids of the tiles of which maps are drawn: of those to test on, if there are any, those that show most classes.
        problems: what is wrong with other tiles.
    """

    picks: ClassPicks
    learn_tiles: int
    test_tiles: int
    learn_pixels: int
    test_pixels: int
    shown: tuple[str, ...]
    problems: tuple[str, ...]


def choose_pool(learn: Catalog, test: Catalog, config: LookConfig) -> Pool:
    """Choose tiles.

    Args:
        learn: tiles that may be learnt from.
        test: tiles that may be tested on.
        config: how many.

    Raises:
        CatalogError: no tile; several sensors or class schemes; or labels on one side alone, or on tiles that show the same pixels.
    """
    if not len(learn) + len(test):
        raise CatalogError("there is no tile to look at; name other splits, or split=[] for all tiles")
    marked, asked = learn.labelled(), test.labelled()
    probing = bool(config.probes.pixels and len(marked) + len(asked))
    if probing:
        for what, found, option in (("learn from", marked, "split"), ("test on", asked, "test_split")):
            if not len(found):
                raise CatalogError(
                    f"there is no labelled tile to {what}: probes need some; give another {option}, or probes.pixels=0 for pictures alone"
                )
        learn, test = marked, asked
    test = choose(test, config.test_tiles, config.seed)
    shared = shares_pixels(learn, test)
    if probing and shared.all():
        raise CatalogError(
            f"all {len(learn)} labelled tiles to learn from show pixels of tiles to test on; name other splits, or split the catalog anew: "
            "tilth catalog split"
        )
    learn = choose(learn.take(np.flatnonzero(~shared)), config.tiles, config.seed)
    both = Catalog.concat([learn, test])
    scheme = both.scheme() if len(both.labelled()) else None
    return Pool(learn, test, int(shared.sum()), both.sensor(), scheme, probing)


def views_of(pool: Pool, config: LookConfig) -> Iterator[tuple[str, View | str]]:
    """Read all tiles, one by one: ``learn`` or ``test`` and the view, or why there is none."""
    for role, catalog in (("learn", pool.learn), ("test", pool.test)):
        if len(catalog):
            for view in read_views(catalog, pool.sensor, pool.scheme, config.window, config.seed):
                yield role, view


def scan(pool: Pool, config: LookConfig, progress: Callable[[], None]) -> Scan:
    """Look at all labels, and choose pixels.

    Raises:
        CatalogError: no tile can be read, or no labelled pixel is there to learn from or to test on.
    """
    picks = ClassPicks(config.tsne.pixels, config.seed)
    tiles, pixels, problems = {"learn": 0, "test": 0}, {"learn": 0, "test": 0}, list[str]()
    variety: dict[str, dict[str, int]] = {"learn": {}, "test": {}}
    for role, view in views_of(pool, config):
        progress()
        if isinstance(view, str):
            problems.append(view)
            continue
        picks.look(view, unlabelled=pool.scheme is None)
        variety[role][view.tile_id] = view.variety()
        tiles[role] += 1
        pixels[role] += view.labelled(config.probes.pixels)
    if not sum(tiles.values()):
        raise CatalogError(f"none of the {len(problems)} tiles can be used; the first: {problems[0]}")
    for role, what in (("learn", "learn from"), ("test", "test on")):
        if pool.probing and not pixels[role]:
            raise CatalogError(
                f"the {tiles[role]} tiles to {what} have no labelled pixel; look at more, or give probes.pixels=0 for pictures alone"
            )
    drawn = variety["test"] or variety["learn"]
    # Sorting keeps the order of chance where tiles show as many.
    shown = tuple(sorted(drawn, key=lambda name: -drawn[name])[: config.pictures])
    return Scan(picks, tiles["learn"], tiles["test"], pixels["learn"], pixels["test"], shown, tuple(problems))
