"""What lies beside a map: whether it belongs to it, and whether it may be replaced."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tilth.errors import OutputExistsError, TilthError, UsageError, needs_extra
from tilth.imagery import gdal
from tilth.imagery.class_map import ClassMap, read_class_map
from tilth.imagery.files import SIDECAR
from tilth.imagery.grid import grid_difference
from tilth.imagery.read import read_info

STAMP_TAG = "TILTH_STAMP"
"""Tag of a hash of all that a map follows from; its confidence and probabilities carry the same one."""

LAYER = "land_cover"
"""Name of the layer of polygons in a GeoPackage."""

COLUMNS = ("class_id", "class", "pixels", "area_m2")
"""Attributes that the polygons of a map always have."""


def stamp_of(path: str | Path) -> str | None:
    """Read the stamp of a raster; None where it has none, or is none."""
    try:
        return gdal.raster_tags(str(path)).get(STAMP_TAG)
    except TilthError:
        return None


def sibling(target: Path, what: str) -> Path:
    """Name the ``confidence`` or the ``probabilities`` of a map."""
    return target.with_name(f"{target.stem}_{what}{target.suffix}")


def confidence_fault(found: ClassMap, uri: str) -> str | None:
    """Say why a raster is not the confidence of a map.

    Args:
        found: header of the map.
        uri: the raster.

    Returns:
        One line; None where nothing speaks against it. Stamps count where both have one.

    Raises:
        MissingFileError: no such file.
        UnreadableFileError: it cannot be read.
    """
    info, expected = read_info(uri), found.info
    if (info.width, info.height, info.count, info.dtype) != (expected.width, expected.height, 1, "uint8"):
        return (
            f"{uri}: expected one band of uint8 on the grid of the map, {expected.width} x {expected.height} pixels; "
            f"found {info.count} of {info.dtype}, {info.width} x {info.height}"
        )
    elsewhere = grid_difference(expected, info, "confidence")
    if elsewhere is not None:
        return f"{uri}: lies elsewhere than the map {expected.uri}: {elsewhere}"
    return stamps_differ(found.tags.get(STAMP_TAG), expected.uri, uri)


def stamps_differ(stamp: str | None, source: str, uri: str) -> str | None:
    """Say that a raster was made from something else than a map of this stamp; None where that is not so, or nobody knows."""
    theirs = stamp_of(uri)
    if stamp is None or theirs is None or stamp == theirs:
        return None
    return f"{uri}: was made from another model, scene or settings than the map {source} ({STAMP_TAG} differs); predict both together"


def confidence_beside(source: str | Path) -> tuple[Path | None, str | None]:
    """Find the confidence that was predicted with a map.

    Args:
        source: the map.

    Returns:
        ``<stem>_confidence.tif`` beside it, or None where there is none that belongs to it; and why one that is there does not.
    """
    beside = sibling(Path(source), "confidence")
    if not beside.is_file():
        return None, None
    try:
        fault = confidence_fault(read_class_map(str(source)), str(beside))
    except TilthError as error:
        fault = str(error)
    return (beside, None) if fault is None else (None, fault)


def remove_outdated(target: Path, stamp: str) -> None:
    """Remove the confidence and probabilities of an earlier map of this name, which do not belong to the one that replaced it."""
    for what in ("confidence", "probabilities"):
        path = sibling(target, what)
        if path.is_file() and stamp_of(path) not in (None, stamp):
            path.unlink()
            Path(f"{path}{SIDECAR}").unlink(missing_ok=True)


def refuse_inputs(targets: Sequence[Path], inputs: Iterable[str | Path]) -> None:
    """Refuse to write two things into one file, or anything over what is read.

    Raises:
        UsageError: naming the file.
    """
    twice = next((path for index, path in enumerate(targets) if path in targets[:index]), None)
    if twice is not None:
        raise UsageError(f"{twice}: two outputs would be written there; give other names, or another --out")
    read = [Path(place) for place in inputs]
    for target in targets:
        if any(_same(target, place) for place in read):
            raise UsageError(f"{target}: is read to make the map, and would be replaced; give another --out")


def refuse_foreign(target: Path, *, overwrite: bool) -> None:
    """Refuse to replace polygons or an item that tilth did not write.

    Args:
        target: ``.gpkg`` or ``.json``; nothing need be there.
        overwrite: whether anything may be replaced.

    Raises:
        OutputExistsError: a file of another make is there.
    """
    if overwrite or not target.is_file():
        return
    ours = _is_item(target) if target.suffix.lower() == ".json" else _is_polygons(target)
    if not ours:
        what = "a STAC item" if target.suffix.lower() == ".json" else "polygons"
        raise OutputExistsError(
            f"{target}: exists already and is not {what} of a map; move it away, give another --out, or --overwrite to replace it"
        )


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _is_item(path: Path) -> bool:
    try:
        tree: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    properties = tree.get("properties") if isinstance(tree, dict) and "stac_version" in tree else None
    return isinstance(properties, dict) and any(name.startswith("tilth:") for name in properties)


def _is_polygons(path: Path) -> bool:
    """Whether a GeoPackage holds the layer of a map, and nothing else."""
    with needs_extra("geo", "polygons"):
        import geopandas
    try:
        layers = geopandas.list_layers(path)["name"].tolist()
        columns = set(geopandas.read_file(path, layer=LAYER, rows=0).columns) if layers == [LAYER] else set()
    # What reads the file has no root of its own for its errors.
    except Exception:
        return False
    return set(COLUMNS) <= columns <= {*COLUMNS, "mean_confidence", "geometry"}
