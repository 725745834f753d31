"""What curation leaves behind: a catalog with a decision and its reason in every row, and a record of counts, clusters and classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tilth.catalog.table import Catalog
from tilth.classes import ClassScheme
from tilth.curation.decide import Decisions, Labelled, Plan
from tilth.curation.filters import DROPPED, KEPT, REASONS, foreground_pixels
from tilth.curation.store import Scores

RECORD_VERSION = 1
"""Raised when readers of the old record would misunderstand the new one."""


def describe_rows(pool: Catalog, scores: Scores, plan: Plan, made: Decisions, labelled: Labelled | None) -> Catalog:
    """Add what is known and was decided of every tile as columns.

    Args:
        pool: N tiles.
        scores: theirs.
        plan: what was wanted.
        made: what was decided.
        labelled: for the names of labelled tiles that tiles are copies of.

    Returns:
        The pool with the columns ``selected``, ``reason``, ``entropy`` (of the reading that was asked for), ``entropy_rank``,
        ``confidence``, ``foreground_pixels``, ``predicted_pixels`` (of each class), ``cluster``, ``similarity``, ``copy_of``,
        ``valid_share``, ``brightness``, ``contrast``, ``bright_share`` and ``problem``.
    """
    read = scores.table["problem"].is_valid().to_numpy()
    counts = foreground_pixels(scores, plan.background)
    return pool.with_columns(
        selected=pa.array(made.selected()),
        reason=pa.array(REASONS).take(pa.array(made.codes)),
        entropy=scores.table[f"entropy_{plan.entropy}"],
        entropy_rank=pa.array(made.rank, mask=made.rank < 0),
        confidence=scores.table["confidence"],
        foreground_pixels=pa.array(counts, mask=read),
        predicted_pixels=scores.table["pixels"],
        cluster=pa.array(made.clusters, mask=made.clusters < 0),
        similarity=pa.array(made.similarity, mask=made.clusters < 0),
        copy_of=_names(pool, made.copy_of, labelled),
        valid_share=scores.table["valid"],
        brightness=scores.table["brightness"],
        contrast=scores.table["contrast"],
        bright_share=scores.table["bright"],
        problem=scores.table["problem"],
    )


def make_record(
    pool: Catalog, scores: Scores, plan: Plan, made: Decisions, labelled: Labelled | None, scheme: ClassScheme, model: dict[str, Any]
) -> dict[str, Any]:
    """Sum up: the content of ``curation.json``, JSON-ready; the same work gives the same record.

    Args:
        pool: N tiles.
        scores: theirs.
        plan: what was wanted.
        made: what was decided.
        labelled: the labelled tiles, if there are any.
        scheme: classes of the model.
        model: which model, and how it was run.
    """
    counts = np.bincount(made.codes, minlength=len(REASONS)).tolist()
    reasons = dict(zip(REASONS, counts, strict=True))
    taken = len(made.taken)
    return {
        "schema_version": RECORD_VERSION,
        "tiles": len(pool),
        "passed": int(made.passed.sum()),
        "selected": taken,
        "wanted": plan.tiles,
        "kept": {reason: reasons[reason] for reason in KEPT if reasons[reason]},
        "dropped": {reason: reasons[reason] for reason in DROPPED if reasons[reason]},
        "shortfall": int((made.quotas - made.used).sum()),
        "model": model,
        "background": [scheme.names[index] for index in plan.background],
        "entropy": {"reading": plan.entropy, **_entropies(scores.entropies(plan.entropy), made)},
        "filters": plan.filters.model_dump(mode="json"),
        "diversity": plan.diversity.model_dump(mode="json"),
        "clustering": {"steps": made.iterations, "converged": made.converged} if made.quotas.size else None,
        "clusters": _clusters(made),
        "classes": _classes(scores, made, labelled, scheme),
        "sources": _sources(pool, made),
    }


def _names(pool: Catalog, copy_of: NDArray[np.int64], labelled: Labelled | None) -> pa.Array:
    """Tile ids of what tiles are copies of; null for those that are none."""
    ids = pool.table["tile_id"].combine_chunks()
    ahead = 0
    if labelled is not None:
        ids, ahead = pa.concat_arrays([*labelled.catalog.table["tile_id"].chunks, *pool.table["tile_id"].chunks]), len(labelled.catalog)
    places = np.where(copy_of >= 0, copy_of + ahead, -copy_of - 2)
    return ids.take(pa.array(places, mask=copy_of == -1))


def _entropies(values: NDArray[np.float64], made: Decisions) -> dict[str, float | None]:
    """Mean entropy of the tiles that passed, and of those that were selected."""
    return {
        "mean_passed": float(values[made.passed].mean()) if made.passed.any() else None,
        "mean_selected": float(values[made.taken].mean()) if len(made.taken) else None,
    }


def _clusters(made: Decisions) -> list[dict[str, int]]:
    within = np.bincount(made.clusters[made.clusters >= 0], minlength=len(made.quotas))
    chosen = np.bincount(made.clusters[made.taken][made.clusters[made.taken] >= 0], minlength=len(made.quotas))
    rows = zip(made.examples.tolist(), made.quotas.tolist(), within.tolist(), made.used.tolist(), chosen.tolist(), strict=False)
    return [
        {"cluster": index, "examples": examples, "quota": quota, "passed": passed, "within_quota": used, "selected": selected}
        for index, (examples, quota, passed, used, selected) in enumerate(rows)
    ]


def _classes(scores: Scores, made: Decisions, labelled: Labelled | None, scheme: ClassScheme) -> list[dict[str, Any]]:
    """Share of every class in what the model sees: in the whole pool, in what passed, in what was selected, in the labelled tiles."""
    pixels = scores.pixels()
    groups = {"pool": pixels, "passed": pixels[made.passed], "selected": pixels[made.taken]}
    if labelled is not None:
        groups["labelled"] = labelled.scores.pixels()[labelled.rows]
    sums = {name: group.sum(axis=0, dtype=np.int64) for name, group in groups.items()}
    return [
        {
            "name": item.name,
            "colour": list(item.colour),
            **{name: float(counts[index] / counts.sum()) if counts.sum() else None for name, counts in sums.items()},
            "tiles": {name: int((group[:, index] > 0).sum()) for name, group in groups.items()},
        }
        for index, item in enumerate(scheme.classes)
    ]


def _sources(pool: Catalog, made: Decisions) -> dict[str, dict[str, int]]:
    """Tiles of each source: in the pool, passed, selected."""
    column = pool.table["source"].fill_null("unknown")
    groups = {"tiles": np.ones(len(pool), dtype=bool), "passed": made.passed, "selected": made.selected()}
    counted = {
        name: {item["values"]: item["counts"] for item in pc.value_counts(column.filter(pa.array(mask))).to_pylist()}
        for name, mask in groups.items()
    }
    return {source: {name: found.get(source, 0) for name, found in counted.items()} for source in counted["tiles"]}
