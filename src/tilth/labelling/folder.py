"""The folder of a labelling: who may work in it, and what is left there that belongs to nobody."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tilth.catalog.shards import read_stamp
from tilth.errors import OutputExistsError, TilthError, UsageError
from tilth.imagery.claims import Claims
from tilth.imagery.files import make_folder, remove_empty
from tilth.imagery.made_from import stamp_in
from tilth.imagery.write import write_json
from tilth.labelling.plan import Plan
from tilth.labelling.rasters import CONFIDENCE, MASKS
from tilth.labelling.shards import SHARDS

LABELS, TRUST = "labels", "trust"
"""What a folder is for: labels of a model, or how sure one may be of given labels."""

_NOTE = "job.json"
_CLAIMS = ".claims"
# What a killed process leaves behind; see imagery.files.atomic_path.
_TEMPORARY = re.compile(r"^\..+\.\d+-\d+\.(parquet|json|arrow|png|tif|tif\.aux\.xml)$")
_TRIES, _PAUSE_S = 20, 0.05


def refuse_foreign(out: Path, kind: str = LABELS) -> None:
    """Refuse a place that holds something else than what is to be made.

    Args:
        out: the place.
        kind: :data:`LABELS` or :data:`TRUST`.

    Raises:
        OutputExistsError: naming what is there.
    """
    if out.exists() and not out.is_dir():
        raise OutputExistsError(f"{out}: is a file; labelling needs a folder: choose another --out")
    note = out / SHARDS / _NOTE
    there = sorted(path.name for path in out.glob("*") if not path.name.startswith(".") and path.name != SHARDS)
    there += [path.name for path in note.parent.glob("*") if not path.name.startswith(".")]
    if there and identity_of(out) is None:
        raise OutputExistsError(f"{out}: holds {', '.join(there[:3])} and no {kind} that tilth made; choose another --out")
    if there and (found := _note_in(out).get("kind", LABELS)) != kind:
        raise OutputExistsError(f"{out}: holds {found} that tilth made, and no {kind}; choose another --out")


@contextmanager
def begun(out: Path, plan: Plan, kind: str = LABELS) -> Iterator[Claims]:
    """Make the folder and join those who do the same job in it; take it back after a failure, unless labels are there to go on from.

    Shards of another job are removed before the first of their rasters is overwritten: what a shard says of rasters must not outlive them.

    Raises:
        OutputExistsError: it is a file, or holds something else.
        TilthError: it cannot be made, or another process is at another job in it.
    """
    refuse_foreign(out, kind)
    note = out / SHARDS / _NOTE
    made = make_folder(note.parent)
    with Claims(note.parent / _CLAIMS) as claims:
        for attempt in range(_TRIES):
            if claims.alone() and identity_of(out) != plan.identity:
                wanted = {shard.name: shard.stamp for shard in plan.shards}
                for path in note.parent.glob("*.arrow"):
                    if read_stamp(path) != wanted.get(path.name):
                        path.unlink(missing_ok=True)
                write_json(note, {"identity": plan.identity, "kind": kind})
            claims.join()
            if identity_of(out) == plan.identity:
                break
            claims.leave()
            time.sleep(_PAUSE_S * (attempt > 0))
        else:
            raise TilthError(f"{out}: another process is labelling into it for another model or pool; wait for it, or choose another --out")
        try:
            yield claims
        except Exception:
            if made and claims.alone() and not any(note.parent.glob("*.arrow")):
                clear(out, ())
                for path in (note, note.parent / _CLAIMS):
                    path.unlink(missing_ok=True)
                remove_empty(made)
            raise


def identity_of(out: Path) -> str | None:
    """Read which job was begun in a folder; None if there is none."""
    found = _note_in(out).get("identity")
    return None if found is None else str(found)


def _note_in(out: Path) -> dict[str, Any]:
    """Read what is said of the job of a folder; nothing if there is none."""
    try:
        found = json.loads((out / SHARDS / _NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def clear(out: Path, rasters: Collection[str]) -> None:
    """Remove rasters that a former job left and what a killed process left half written; nobody else's files. Nobody must be at work.

    Args:
        out: folder of the job.
        rasters: names of those that belong to it, below the folder, with forward slashes.
    """
    for folder in (MASKS, CONFIDENCE):
        for path in (out / folder).iterdir() if (out / folder).is_dir() else ():
            if f"{folder}/{path.name}" not in rasters and (_TEMPORARY.match(path.name) or _is_ours(path)):
                path.unlink(missing_ok=True)
        with suppress(OSError):
            (out / folder).rmdir()
    for path in (*out.iterdir(), *(out / SHARDS).iterdir()):
        if _TEMPORARY.match(path.name):
            path.unlink(missing_ok=True)


def _is_ours(path: Path) -> bool:
    """Say whether labelling wrote a raster, whole."""
    try:
        return path.is_file() and stamp_in(path) is not None
    except UsageError:
        return False
