"""From scores to decisions: filters, order of entropy, clusters and quotas, and a reason for every tile."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tilth.catalog.table import Catalog
from tilth.curation import filters as words
from tilth.curation.clusters import Clusters, assign, count_rows, lloyd, read_clusters, seed_centres, write_clusters
from tilth.curation.config import DiversityConfig, EntropyReading, FilterConfig
from tilth.curation.filters import REASONS, judge_alone, judge_copies, reason_code
from tilth.curation.selection import entropy_order, share_out, walk
from tilth.curation.store import ChosenRows, Scores
from tilth.errors import DataError

Say = Callable[[str], None]


@dataclass(frozen=True)
class Labelled:
    """The labelled tiles, scored.

    Attributes:
        catalog: all of them, whatever split.
        scores: theirs.
        rows: int64, positions of those that clusters are found of.
    """

    catalog: Catalog
    scores: Scores
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class Plan:
    """What is wanted.

    Attributes:
        tiles: how many tiles to select; None for all that pass the filters.
        entropy: which reading gives the order.
        filters: which tiles are dropped.
        diversity: how places are shared out.
        background: ids of background classes.
    """

    tiles: int | None
    entropy: EntropyReading
    filters: FilterConfig
    diversity: DiversityConfig
    background: tuple[int, ...]


@dataclass(frozen=True)
class Decisions:
    """What became of N tiles.

    Attributes:
        codes: int8 (N,), positions among :data:`tilth.curation.filters.REASONS`.
        taken: int64 (n,), positions of the tiles that were selected, in the order in which they were accepted.
        rank: int64 (N,), place in the order of entropy, from 0; -1 for tiles that were dropped before.
        clusters: int32 (N,), -1 for tiles without.
        similarity: float32 (N,), cosine similarity to the prototype of the cluster; NaN for tiles without.
        copy_of: int64 (N,), see :func:`tilth.curation.filters.judge_copies`.
        quotas: int64 (M,), places of each cluster; empty without clusters.
        used: int64 (M,), places taken within them.
        examples: int64 (M,), tiles that each cluster was made of.
        iterations: steps of k-means.
        converged: whether it came to an end.
    """

    codes: NDArray[np.int8]
    taken: NDArray[np.int64]
    rank: NDArray[np.int64]
    clusters: NDArray[np.int32]
    similarity: NDArray[np.float32]
    copy_of: NDArray[np.int64]
    quotas: NDArray[np.int64]
    used: NDArray[np.int64]
    examples: NDArray[np.int64]
    iterations: int = 0
    converged: bool = True

    @property
    def passed(self) -> NDArray[np.bool_]:
        """Tiles that passed the filters: bool (N,)."""
        return np.asarray(self.rank >= 0)

    def selected(self) -> NDArray[np.bool_]:
        """Tiles that were selected: bool (N,)."""
        found = np.zeros(len(self.codes), dtype=bool)
        found[self.taken] = True
        return found


def decide(
    scores: Scores,
    plan: Plan,
    sources: pa.ChunkedArray,
    labelled_ground: NDArray[np.bool_],
    labelled: Labelled | None,
    centres_file: Path,
    say: Say = lambda _: None,
) -> Decisions:
    """Decide about every tile of a pool.

    Args:
        scores: of the N tiles.
        plan: what is wanted.
        sources: column ``source`` of the pool.
        labelled_ground: bool (N,), tiles that show pixels of a labelled one.
        labelled: needed for quotas that follow the labelled tiles.
        centres_file: where k-means keeps how far it is.
        say: told what is being done.

    Returns:
        The decisions.

    Raises:
        DataError: no tile of the pool, or of the labelled tiles, can be used.
    """
    codes = judge_alone(scores, plan.filters, plan.background, sources, labelled_ground)
    say("looking for copies")
    codes, copy_of = judge_copies(codes, scores, plan.filters, None if labelled is None else labelled.scores)
    eligible = np.flatnonzero(codes < 0)
    if not eligible.size:
        raise DataError(f"none of the {len(scores)} tiles of the pool passes the filters: {count_reasons(codes)}")
    order = eligible[entropy_order(scores.entropies(plan.entropy)[eligible])]
    rank = np.full(len(scores), -1, dtype=np.int64)
    rank[order] = np.arange(len(order))
    clusters, similarity = np.full(len(scores), -1, dtype=np.int32), np.full(len(scores), np.nan, dtype=np.float32)
    none = np.zeros(0, dtype=np.int64)
    if plan.tiles is None or plan.diversity.quotas == "none":
        taken = np.sort(eligible) if plan.tiles is None else order[: plan.tiles]
        codes[eligible] = reason_code(words.TOO_UNSURE)
        codes[taken] = reason_code(words.PASSED if plan.tiles is None else words.SUREST)
        return Decisions(codes, taken, rank, clusters, similarity, copy_of, none, none, none)
    found = _find_clusters(scores, eligible, plan.diversity, labelled, centres_file, say)
    pool = ChosenRows(scores.features, eligible)
    say("assigning tiles to clusters")
    clusters[eligible], similarity[eligible] = assign(pool, found.centres)
    weights = found.counts if plan.diversity.quotas == "labelled" else np.ones(len(found.centres), dtype=np.int64)
    quotas = share_out(plan.tiles, weights)
    chosen = walk(order, clusters.astype(np.int64), quotas, fill_shortfall=plan.diversity.fill_shortfall)
    codes[eligible] = reason_code(words.CLUSTER_FULL)
    codes[chosen.taken[: chosen.within]] = reason_code(words.WITHIN_QUOTA)
    codes[chosen.taken[chosen.within :]] = reason_code(words.FILLS_UP)
    return Decisions(
        codes, chosen.taken, rank, clusters, similarity, copy_of, quotas, chosen.used, found.counts, found.iterations, found.converged
    )


def count_reasons(codes: NDArray[np.int8]) -> str:
    """Say how often each reason was given: ``3 blank, 12 duplicate``."""
    counts = np.bincount(codes[codes >= 0], minlength=len(REASONS))
    return ", ".join(f"{count} {reason}" for reason, count in zip(REASONS, counts.tolist(), strict=True) if count) or "nothing dropped"


def _find_clusters(
    scores: Scores, eligible: NDArray[np.int64], wanted: DiversityConfig, labelled: Labelled | None, file: Path, say: Say
) -> Clusters:
    """Find kinds of imagery among the labelled tiles, or those of the pool, going on from where an interrupted search was."""
    if wanted.quotas == "labelled":
        assert labelled is not None, "whoever asks for quotas of the labelled tiles has some"
        judged = labelled.rows[~np.isnan(labelled.scores.entropies("all_classes")[labelled.rows])]
        rows, identity = ChosenRows(labelled.scores.features, judged), labelled.scores.identity
        if not judged.size:
            raise DataError(f"none of the {len(labelled.rows)} labelled tiles can be read; see: tilth catalog check")
    else:
        rows, identity = ChosenRows(scores.features, eligible), scores.identity
    settings: list[Any] = [identity, hashlib.sha256(rows.positions.tobytes()).hexdigest()]
    settings += [wanted.clusters, wanted.seed, wanted.seeding_rows]
    stamp = hashlib.sha256(json.dumps(settings).encode()).hexdigest()
    found = read_clusters(file, stamp)
    # Fewer steps than were done already are asked for: from the start.
    if found is None or found.iterations > wanted.iterations:
        say("drawing the first centres of clusters")
        centres = seed_centres(rows, wanted.clusters, seed=wanted.seed, seeding_rows=wanted.seeding_rows)
        found = Clusters(centres, np.zeros(len(centres), dtype=np.int64))

    def after(now: Clusters) -> None:
        say(f"finding clusters, step {now.iterations}/{wanted.iterations}")
        write_clusters(file, stamp, now)

    say(f"finding clusters, step {found.iterations}/{wanted.iterations}")
    found = lloyd(rows, found, iterations=wanted.iterations, after=after)
    return found if found.converged else Clusters(found.centres, count_rows(rows, found.centres), found.iterations, converged=False)
