"""What labelling leaves behind: a catalog whose labels are the model's, and a record of counts and classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tilth.catalog import schema, uris
from tilth.catalog.confidence import FULL, UNKNOWN, WINDOW_COLUMN, without_labels
from tilth.catalog.rows import window_array
from tilth.catalog.table import Catalog
from tilth.classes import IGNORE_INDEX, ClassScheme
from tilth.imagery.write import write_json
from tilth.labelling.plan import Plan

CATALOG_FILE = "catalog.parquet"
"""The tiles that have a label, in the order of the pool."""

RECORD_FILE = "label.json"
"""Counts, classes, and the tiles that have no label; written last."""

RECORD_VERSION = 1
"""Raised when readers of the old record would misunderstand the new one."""


@dataclass(frozen=True)
class Outcome:
    """What is there when all shards are.

    Attributes:
        catalog: the labelled tiles.
        record: content of ``label.json``.
    """

    catalog: Catalog
    record: dict[str, Any]


def join(plan: Plan, whole: pa.Table, out: Path, scheme: ClassScheme, model: Mapping[str, Any], ignore_below: float) -> Outcome:
    """Write the catalog and the record; the same work writes the same bytes.

    Columns: ``label`` is the model's, ``label_kind`` pseudo, ``scheme`` the model's. Beside them, of each tile, ``mean_confidence`` (of the
    highest probability) and ``mean_entropy`` (over all classes, natural logarithm), both over pixels with data and null without;
    ``ignored_share`` (pixels of 255 among all); ``class_shares`` (list of K, of the labelled pixels; null without); and where confidence
    was written, ``confidence_raster`` and ``confidence_window``.

    Args:
        plan: the work.
        whole: what the shards say, in the order of the work.
        out: folder of the job.
        scheme: classes of the model.
        model: which model, and how it was run.
        ignore_below: as labels were made.
    """
    found = in_catalog_order(plan, whole)
    kept = pc.is_null(found["problem"])
    pixels = per_class(found, "pixels")
    record = _record(plan, found, pixels, scheme, model, ignore_below)
    table = without_labels(plan.catalog).table.filter(kept)
    found, pixels = found.filter(kept), pixels[np.asarray(kept)]
    root = uris.absolute_uri(out)
    count = len(table)
    columns: dict[str, Any] = {
        "label": below(root, found["mask"]),
        "label_kind": pa.repeat(pa.scalar("pseudo"), count),
        "scheme": pa.repeat(pa.scalar(scheme.name), count),
        "mean_confidence": found["confidence"],
        "mean_entropy": found["entropy"],
        "ignored_share": found["ignored"],
        "class_shares": _shares(pixels),
    }
    if pc.any(pc.is_valid(found["sure"])).as_py():
        columns |= {schema.CONFIDENCE_COLUMN: below(root, found["sure"]), WINDOW_COLUMN: table["window"]}
    catalog = Catalog(table, plan.catalog.sensors, {scheme.name: scheme}).with_columns(**columns)
    catalog.save(out / CATALOG_FILE)
    write_json(out / RECORD_FILE, record)
    return Outcome(catalog, record)


def _record(
    plan: Plan, found: pa.Table, pixels: NDArray[np.int64], scheme: ClassScheme, model: Mapping[str, Any], ignore_below: float
) -> dict[str, Any]:
    problems = problems_of(plan, found)
    bad = [row for row, _ in problems]
    totals = pixels.sum(axis=0)
    labelled = int(totals.sum())
    sides = window_array(plan.catalog.table)[:, 2:].astype(np.int64)
    everything = int(np.delete(sides, bad, axis=0).prod(axis=1).sum())
    return {
        "schema_version": RECORD_VERSION,
        "tiles": len(plan),
        "labelled": len(plan) - len(problems),
        "model": dict(model),
        "scheme": scheme.name,
        "ignore_below": ignore_below,
        "ignored_share": 1 - labelled / everything if everything else None,
        "mean_confidence": mean_of(found["confidence"]),
        "mean_entropy": mean_of(found["entropy"]),
        "confidence": {"unit": "percent", "full": FULL, "unknown": UNKNOWN},
        "ignored": IGNORE_INDEX,
        "classes": [
            {"name": name, "pixels": int(count), "share": int(count) / labelled if labelled else None}
            for name, count in zip(scheme.names, totals.tolist(), strict=True)
        ],
        "without_label": [problem for _, problem in problems],
    }


def problems_of(plan: Plan, found: pa.Table) -> list[tuple[int, dict[str, str]]]:
    """List the tiles that came to nothing: row, and id with the reason; ``found`` is in the order of the catalog."""
    bad = np.flatnonzero(np.asarray(pc.is_valid(found["problem"])))
    ids = plan.catalog.table["tile_id"].take(pa.array(bad)).to_pylist()
    reasons = found["problem"].take(pa.array(bad)).to_pylist()
    return [(row, {"tile_id": name, "problem": reason}) for row, name, reason in zip(bad.tolist(), ids, reasons, strict=True)]


def in_catalog_order(plan: Plan, whole: pa.Table) -> pa.Table:
    """Bring what shards say, in the order of the work, into the order of the catalog."""
    back = np.empty(len(plan), np.int64)
    back[plan.order] = np.arange(len(plan))
    return whole.take(pa.array(back))


def per_class(table: pa.Table, name: str) -> NDArray[np.int64]:
    """Get a column of numbers by class: int64 (N, K)."""
    column = table[name]
    flat: NDArray[np.int64] = pc.list_flatten(column).to_numpy()
    return flat.reshape(len(column), column.type.list_size)


def _shares(pixels: NDArray[np.int64]) -> pa.Array:
    """Shares of the classes in the labelled pixels of each tile: lists of float32, null for tiles without any."""
    totals = pixels.sum(axis=1)
    shares = pixels / np.maximum(totals, 1)[:, None]
    starts = np.arange(len(pixels) + 1, dtype=np.int32) * pixels.shape[1]
    return pa.ListArray.from_arrays(pa.array(starts), pa.array(shares.astype(np.float32).reshape(-1)), mask=pa.array(totals == 0))


def below(root: str, names: pa.ChunkedArray) -> pa.ChunkedArray:
    """Make URIs of names of files in a folder."""
    return pc.binary_join_element_wise(root, names, "/")


def mean_of(column: pa.ChunkedArray) -> float | None:
    """Average what is not null; None where everything is."""
    found = pc.mean(column.cast(pa.float64())).as_py()
    return None if found is None else float(found)
