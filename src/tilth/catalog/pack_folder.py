"""The folder of a packed store: what lies in it, whom it belongs to, and what is taken away again."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tilth.catalog.pack_plan import Plan, Shard, needed_bytes
from tilth.errors import OutputExistsError, TilthError
from tilth.imagery.files import folder_lock, make_folder
from tilth.imagery.packing import FORMAT, Codec, read_stamp

CATALOG_NAME = "catalog.parquet"
RECORD_NAME = "pack.json"
"""Says what a folder of shards was made from; written first, as the catalog is written last."""

_SHARD_NAME = re.compile(r"^(images|labels|references)-\d{5,}\.arrow$")
# What a killed process leaves behind; see imagery.files.atomic_path.
_TEMPORARY_NAME = re.compile(r"^\.((images|labels|references)-\d{5,}|catalog|pack)\.\d+-\d+\.(arrow|parquet|json)$")


def whole_shard(folder: Path, shard: Shard, skip_bad: bool) -> list[str] | None:
    """Tile ids in a shard that is there and as it should be; None if it must be made."""
    stamped = read_stamp(folder / shard.name)
    if stamped is None or stamped[0] != shard.stamp:
        return None
    # Tiles that were left out are tried again, unless leaving them out is still what is wanted.
    return stamped[1] if skip_bad or len(stamped[1]) == len(shard.entries) else None


def refuse_others(folder: Path, plan: Plan, codec: Codec, shard_mb: int) -> None:
    """Refuse a folder that something else would be lost in.

    Raises:
        OutputExistsError: it is a file, or holds something else, or the pack of other tiles or settings.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise OutputExistsError(f"{folder}: is a file; packed tiles need a folder: choose another --out")
    names = [path.name for path in folder.iterdir() if not _TEMPORARY_NAME.match(path.name)]
    record = folder / RECORD_NAME
    if not names:
        return
    try:
        made = json.loads(record.read_text(encoding="utf-8"))
        known = {name: made[name] for name in ("format", "identity", "codec", "shard_mb")}
    except (OSError, ValueError, KeyError, TypeError):
        raise OutputExistsError(
            f"{folder}: holds {len(names)} files ({', '.join(sorted(names)[:3])}) and no pack of tilth; choose another --out"
        ) from None
    wanted = {"format": FORMAT, "codec": codec, "shard_mb": shard_mb}
    changes = [f"{name} {known[name]} -> {value}" for name, value in wanted.items() if known[name] != value]
    if changes or known["identity"] != plan.identity:
        what = ", ".join(changes) or "other tiles, windows or labels"
        raise OutputExistsError(f"{folder}: holds another pack ({what}); remove the folder, or choose another --out")


def refuse_full_disk(folder: Path, missing: Sequence[Shard], codec: Codec) -> None:
    """Refuse a disk that has no room for shards.

    Raises:
        TilthError: both sizes are named.
    """
    place = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free, needed = shutil.disk_usage(place).free, needed_bytes(missing, codec)
    if needed > free:
        raise TilthError(f"{folder}: needs {needed / 2**20:,.1f} MiB, {free / 2**20:,.1f} MiB free; choose another --out, or fewer tiles")


def clear(folder: Path, plan: Plan, missing: Sequence[Shard]) -> None:
    """Remove what a killed process left, shards of a former division, and a catalog whose shards are about to change."""
    planned = {shard.name for shard in plan.shards}
    for path in folder.iterdir():
        surplus = _SHARD_NAME.match(path.name) and path.name not in planned
        if surplus or _TEMPORARY_NAME.match(path.name) or (missing and path.name == CATALOG_NAME):
            path.unlink(missing_ok=True)


@contextmanager
def begun(folder: Path, found: Mapping[str, list[str] | None]) -> Iterator[None]:
    """Make the folder and work in it alone; take it back after a failure, unless a shard with tiles is done, from which one can go on.

    Args:
        folder: of the pack.
        found: tile ids of the shards that are whole, by name; filled meanwhile.

    Raises:
        TilthError: the folder cannot be made or written to, or another process is packing into it.
    """
    made = make_folder(folder)
    with folder_lock(folder, "packing into"):
        # Looked at alone: what another process is writing is not ours to remove.
        was_empty = not any(folder.iterdir())
        try:
            yield
        except Exception:
            if was_empty and not any(found.values()):
                for file in folder.iterdir():
                    file.unlink(missing_ok=True)
                for place in made:
                    place.rmdir()
            raise
