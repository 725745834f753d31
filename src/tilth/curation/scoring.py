"""The pass over the pixels: every tile once, shard by shard, in this process or on a Ray cluster; what is done already is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tilth.catalog.shards import ShardPlan, read_stamp
from tilth.catalog.table import Catalog
from tilth.curation.config import ScoringConfig
from tilth.curation.entropy import background_classes
from tilth.curation.scorer import TileScorer
from tilth.curation.store import Scores, plan_shards, write_shard
from tilth.models.identity import model_hash
from tilth.models.tiles import Running

if TYPE_CHECKING:
    from tilth.models.segmenter import Segmenter

Progress = Callable[[int, int], None]
"""Told how many tiles are scored, and how many there are."""


@dataclass(frozen=True)
class Work:
    """Tiles to score, and where their scores go.

    Attributes:
        catalog: N tiles.
        folder: for the shards.
        plans: which shards.
    """

    catalog: Catalog
    folder: Path
    plans: tuple[ShardPlan, ...]

    def missing(self) -> list[int]:
        """Numbers of the shards that are still to be made."""
        return [number for number in range(len(self.plans)) if not self.is_made(number)]

    def is_made(self, number: int) -> bool:
        """Say whether a shard is there, made from what it would be made from now."""
        plan = self.plans[number]
        return read_stamp(self.folder / plan.name) == plan.stamp

    def make(self, number: int, scorer: TileScorer) -> None:
        """Score the tiles of one shard and write it; doing so twice leaves the same bytes."""
        plan = self.plans[number]
        tiles = list(self.catalog.take(range(plan.start, plan.stop)).tiles())
        write_shard(self.folder / plan.name, plan.stamp, scorer(tiles), scorer.classes, scorer.width)

    def rows(self, numbers: Sequence[int]) -> int:
        """Number of tiles in some of the shards."""
        return sum(self.plans[number].stop - self.plans[number].start for number in numbers)

    def scores(self) -> Scores:
        """Open the scores; all shards must be there."""
        return Scores(self.folder, self.plans)


def scoring_identity(segmenter: Segmenter, scoring: ScoringConfig, running: Running) -> str:
    """Hash what scores depend on besides the tiles: model, settings, windows and precision; not the device nor the size of batches."""
    settings = scoring.model_dump(mode="json", exclude={"shard_tiles", "background"})
    settings["background"] = list(background_classes(segmenter.scheme, scoring.background))
    settings |= {name: value for name, value in asdict(running).items() if name not in {"device", "batch_size"}}
    return hashlib.sha256(json.dumps([model_hash(segmenter), settings]).encode()).hexdigest()


def plan_work(catalog: Catalog, folder: Path, kind: str, identity: str, shard_tiles: int) -> Work:
    """Plan the pass over a catalog."""
    return Work(catalog, folder, plan_shards(catalog, kind, identity, shard_tiles))


def score_here(work: Work, make_scorer: Callable[[], TileScorer], progress: Progress | None = None) -> int:
    """Make the shards that are missing, one after the other, in this process.

    Args:
        work: tiles and folder.
        make_scorer: called if there is anything to do.
        progress: told before every shard.

    Returns:
        Number of tiles that were scored.
    """
    missing = work.missing()
    done = kept = len(work.catalog) - work.rows(missing)
    scorer = make_scorer() if missing else None
    for number in missing:
        assert scorer is not None
        if progress is not None:
            progress(done, len(work.catalog))
        work.make(number, scorer)
        done += work.rows([number])
    return done - kept
