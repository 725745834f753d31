"""One pass over all tiles at one time: what is kept of the maps, which themselves are let go."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tilth.insight.clusters import best_classes, cluster, enlarge, overlap, shown_map, shrink
from tilth.insight.config import LookConfig
from tilth.insight.encoders import Level, MapSource, check_finite
from tilth.insight.figures import cluster_palette, level_name, paint_clusters
from tilth.insight.pool import Pool, Scan, views_of
from tilth.insight.probes import Sampled
from tilth.insight.projection import colours_of
from tilth.insight.views import View, look_up, spread_picks


@dataclass
class Gathered:
    """What is kept of one level.

    Attributes:
        width: channels.
        learn: features and classes of pixels to learn from, tile by tile.
        test: the same to test on.
        points: features of the pixels for t-SNE, in the order of the tiles.
        clusters: k-means maps in colours, by tile, uint8 (h, w, 3).
        right: labelled pixels of drawn tiles that are of the class of their cluster.
        counted: labelled pixels of drawn tiles.
        drawn: maps of tiles that are drawn, by tile: float32 (c, h, w) and where there is an image.
    """

    width: int
    learn: list[tuple[NDArray[np.float32], NDArray[np.uint8]]] = field(default_factory=list)
    test: list[tuple[NDArray[np.float32], NDArray[np.uint8]]] = field(default_factory=list)
    points: list[NDArray[np.float32]] = field(default_factory=list)
    clusters: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    right: int = 0
    counted: int = 0
    drawn: dict[str, tuple[NDArray[np.float32], NDArray[np.bool_]]] = field(default_factory=dict)

    def sampled(self, role: str) -> Sampled:
        """Put the pixels of all tiles together."""
        parts = self.learn if role == "learn" else self.test
        return Sampled(np.concatenate([features for features, _ in parts]), np.concatenate([classes for _, classes in parts]))

    def colours(self) -> dict[str, NDArray[np.uint8]]:
        """Show the strongest components of the drawn maps as colours, by tile."""
        if not self.drawn:
            return {}
        maps, valid = zip(*self.drawn.values(), strict=True)
        return dict(zip(self.drawn, colours_of(maps, valid), strict=True))


def gather(
    source: MapSource,
    time: int | None,
    pool: Pool,
    scanned: Scan,
    config: LookConfig,
    *,
    name: str,
    pictured: bool,
    near: int | None,
    progress: Callable[[], None],
) -> dict[Level, Gathered]:
    """Compute the maps of all tiles at one time.

    Args:
        source: of the maps.
        time: one of its times.
        pool: tiles.
        scanned: pixels for t-SNE.
        config: how many of what.
        name: of the encoder, for messages.
        pictured: whether maps are drawn.
        near: of each side, pixels for t-SNE are kept of the level whose stride is next to this; None: of none.
        progress: called for each tile.

    Raises:
        DataError: a map is not finite.
    """
    found: dict[Level, Gathered] = {}
    for role, view in views_of(pool, config):
        progress()
        if isinstance(view, str):
            continue
        picks = spread_picks(view, config.probes.pixels, config.seed) if pool.probing else None
        points = None if near is None else scanned.picks.of(view)
        maps = source.maps(view.pixels, time)
        laid_out = [] if near is None else _nearest(maps, near)
        for level, one in maps.items():
            check_finite(one, f"{name}, {level_name(level)}, tile {view.tile_id!r}")
            kept = found.setdefault(level, Gathered(len(one)))
            if picks is not None and len(picks.rows):
                (kept.learn if role == "learn" else kept.test).append((look_up(one, level.stride, picks), picks.classes))
            if points is not None and level in laid_out:
                kept.points.append(look_up(one, level.stride, points))
            if pictured and view.tile_id in scanned.shown:
                _draw(kept, one, level, view, pool, config)
    return found


def _nearest(levels: Iterable[Level], stride: int) -> list[Level]:
    """Choose a level of each side, the finer one where two are as near."""
    there = sorted(levels, key=lambda level: (abs(level.stride - stride), level.stride))
    return list({level.side: level for level in reversed(there)}.values())


def _draw(kept: Gathered, one: Tensor, level: Level, view: View, pool: Pool, config: LookConfig) -> None:
    """Cluster a map, colour the clusters and count how well they fit; keep the map for its components."""
    shape = (view.mask.shape[0], view.mask.shape[1])
    shown, step = shown_map(one, level.stride, shape, native=config.clusters.size == "native")
    valid = shrink(view.pixels.valid, step)
    clusters = cluster(shown, valid, config.clusters, config.seed)
    best = None
    if pool.scheme is not None:
        counts = overlap(enlarge(clusters, step, shape), view.mask, config.clusters.count, len(pool.scheme))
        best = best_classes(counts)
        kept.right += int(counts.max(axis=1).sum())
        kept.counted += int(counts.sum())
    kept.clusters[view.tile_id] = paint_clusters(clusters, best, pool.scheme, cluster_palette(config.clusters.count))
    kept.drawn[view.tile_id] = shown, valid
