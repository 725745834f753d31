"""What kept maps are of: a header that says everything their numbers depend on, and the first difference to what is wanted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tilth.errors import ConfigError, UnreadableFileError
from tilth.imagery.write import write_json
from tilth.models.diffusion.feature_rows import BLOCK, RowLayout
from tilth.models.diffusion.segmentation import DiffusionSegmentor

if TYPE_CHECKING:
    from tilth.models.segmenter import Segmenter

HEADER_FILE = "features.json"
VERSION = 1
_OTHERWISE = "choose another settings.cache_folder, or remove it"


@dataclass(frozen=True)
class KeptTile:
    """A tile whose maps are kept.

    Attributes:
        tile_id: of the catalog.
        stamp: hash of where in which files its pixels and labels lie, how large these are and when they changed last.
        crops: how many rows of one variant it has.
    """

    tile_id: str
    stamp: str
    crops: int


def describe_maps(model: Segmenter, layout: RowLayout, variants: int, precision: str) -> dict[str, Any]:
    """Say everything but the tiles that kept numbers depend on, as JSON knows it; what is looked at first comes first."""
    network = model.network
    assert isinstance(network, DiffusionSegmentor), "only these have maps to keep"
    return {
        "version": VERSION,
        "weights": _hash_of(network.encoder.unet.state_dict()),
        **network.encoder.describe(),
        "sensor": model.sensor.model_dump(mode="json", exclude={"name"}),
        "classes": [item.name for item in model.scheme.classes],
        "precision": precision,
        "crop": layout.side,
        "variants": variants,
        "dtype": layout.dtype,
        "block": BLOCK,
        "maps": [list(item) for item in layout.maps],
    }


def write_header(folder: Path, maps: Mapping[str, Any], tiles: Sequence[KeptTile], file_rows: int) -> None:
    """Write what :func:`describe_maps` says, the tiles, and how many rows a file holds."""
    write_json(folder / HEADER_FILE, {**maps, "file_rows": file_rows, "tiles": [[tile.tile_id, tile.stamp, tile.crops] for tile in tiles]})


def compare_header(folder: Path, maps: Mapping[str, Any], wanted: Sequence[KeptTile]) -> tuple[list[KeptTile], int]:
    """Read which tiles a folder has, and how many rows a file holds, if its rows can stand for what is wanted.

    Args:
        folder: has a header.
        maps: what :func:`describe_maps` says.
        wanted: tiles that must be among them.

    Raises:
        ConfigError: they cannot; the message names the first difference.
        UnreadableFileError: a damaged header.
    """
    file = folder / HEADER_FILE
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
        tiles, file_rows = [KeptTile(*item) for item in tree.pop("tiles")], int(tree["file_rows"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise UnreadableFileError(f"{file}: not the header of kept features; choose another settings.cache_folder") from None
    for name, value in json.loads(json.dumps(maps)).items():
        if tree.get(name) != value:
            raise ConfigError(f"{folder}: holds other features, made with {name}: {_both(tree.get(name), value)}; {_OTHERWISE}")
    there = {tile.tile_id: tile for tile in tiles}
    for tile in wanted:
        if tile.tile_id not in there:
            raise ConfigError(f"{folder}: holds features of other tiles, none of {tile.tile_id!r}; {_OTHERWISE}")
        if there[tile.tile_id] != tile:
            raise ConfigError(f"{folder}: files or window of tile {tile.tile_id!r} changed since its features were kept; {_OTHERWISE}")
    return tiles, file_rows


def stamp_of(parts: Any) -> str:
    """Hash what JSON knows, in 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _both(there: Any, here: Any) -> str:
    """Name two values, or where in them they differ first."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        name = next(name for name in {**there, **here} if there.get(name) != here.get(name))
        return f"{name}, {_both(there.get(name), here.get(name))}"
    if isinstance(there, list) and isinstance(here, list) and len(there) == len(here) and any(isinstance(item, Mapping) for item in here):
        place = next(place for place, (one, other) in enumerate(zip(there, here, strict=True)) if one != other)
        return f"number {place + 1}, {_both(there[place], here[place])}"
    return f"{_short(there)} there, {_short(here)} here"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _hash_of(weights: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        held = value.detach().to("cpu").contiguous()
        # numpy has no bfloat16.
        digest.update(f"{name} {held.dtype} {tuple(held.shape)}\n".encode())
        digest.update(held.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
