"""Whether a training keeps the maps of its frozen noise predictor: what it asks for, what is to be gained, what there is room for."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from tilth.augment.config import WeakConfig
from tilth.catalog.fingerprint import content_of
from tilth.catalog.table import Catalog
from tilth.errors import ConfigError, TilthError
from tilth.imagery.packed import containing_file
from tilth.imagery.packing import SHARD_SUFFIX
from tilth.imagery.references import file_state, files_behind
from tilth.methods.base import Method
from tilth.methods.ddpm.segment import Segment, SegmentConfig
from tilth.models.config import NetworkConfig
from tilth.models.diffusion.feature_header import KeptTile, describe_maps, stamp_of
from tilth.models.diffusion.feature_rows import RowLayout
from tilth.models.diffusion.feature_store import FeatureStore
from tilth.models.diffusion.segmentation import DiffusionSegmentor
from tilth.models.networks import build_network, for_sensor
from tilth.training.config import LoopConfig
from tilth.training.feature_cache import FeatureCache, Listener, size_in_words, size_of_rows
from tilth.training.feature_samples import Crop, crops_of
from tilth.training.samples import TileDataset

if TYPE_CHECKING:
    from lightning.fabric import Fabric

SPARED = 2**30
"""Bytes of a disk that are left free."""


def plan_features(
    method: Method, tiles: TileDataset, loop: LoopConfig, weak: WeakConfig, fabric: Fabric, console: Listener
) -> FeatureCache | None:
    """Decide whether maps are kept, tell the method, and say why; nothing is written or computed.

    Args:
        method: one without such settings is left as it is.
        tiles: of the training.
        loop: steps, batch, precision, what is frozen.
        weak: its size is that of the crops; nothing else of it goes with kept maps.
        fabric: the first process decides for all.
        console: is told.

    Returns:
        None where maps are made anew in every step.

    Raises:
        ConfigError: maps are to be kept, and the encoder learns, or the folder holds others.
        TilthError: maps are to be kept, and there is no room.
    """
    if not isinstance(method, Segment):
        return None
    config = method.config
    wish, frozen = config.cache, loop.transfer.frozen == "always"
    if wish == "online":
        return None
    if wish == "disk" and not frozen:
        raise ConfigError(
            f"settings.cache=disk keeps what a frozen encoder says, and loop.transfer.frozen is {loop.transfer.frozen}; "
            "set loop.transfer.frozen=always, or settings.cache=online"
        )
    stream = next(iter(method.streams))
    crops = crops_of(tiles.catalogs[stream], weak.size)
    uses = _uses(loop, crops, config)
    layout = RowLayout.of(cast("DiffusionSegmentor", method.model.network), weak.size, config.cache_dtype)
    cache, why_not = None, _not_worth_it(config, loop, uses)
    if why_not is None and config.cache_folder is None:
        size = size_of_rows(len(crops), config.cache_variants, layout.row_bytes)
        why_not = f"settings.cache_folder=FOLDER would keep them, {size}, and use each {uses:.3g} times"
    elif why_not is None:
        cache, refused, no_room = _cache(method, tiles, stream, crops, loop, layout)
        refused, no_room = fabric.broadcast((refused, no_room))
        problem = refused or (no_room if wish == "disk" else None)
        if problem is not None:
            raise problem
        why_not = None if no_room is None else str(no_room)
    if cache is None or why_not is not None:
        console.say(f"features: made anew in every step: {why_not}")
        method.config = config.model_copy(update={"cache": "online"})
        return None
    method.config = config.model_copy(update={"cache": "disk"})
    method.use_kept_features()
    console.say(f"features: kept on disk, each is used {uses:.3g} times")
    fresh = method.model.config.network.options.get("noise") != "fixed"
    left_out = _left_out(config, weak, cut=len(crops) > len(tiles.catalogs[stream]), fresh=fresh)
    if left_out:
        console.say(f"features: what is kept does not change any more, so left out are: {left_out}")
    return cache


def foresee_features(
    kind: type[Method], settings: Mapping[str, Any], network: NetworkConfig, catalog: Catalog, classes: int, size: int, loop: LoopConfig
) -> str | None:
    """Say how large the kept maps of a training would be; nothing is read but the table.

    Args:
        kind: of method.
        settings: its own.
        network: which network.
        catalog: tiles to learn from.
        classes: how many there are.
        size: side of the crops in pixels.
        loop: steps, batch, what is frozen.

    Returns:
        None where none would be kept, whatever room there is.
    """
    if not issubclass(kind, Segment):
        return None
    config = SegmentConfig.parse(settings, source="settings")
    if config.cache == "online" or config.cache_folder is None:
        return None
    crops = crops_of(catalog, size)
    if _not_worth_it(config, loop, _uses(loop, crops, config)) is not None:
        return None
    sensor = catalog.sensor()
    with torch.device("meta"):
        built = build_network(for_sensor(network, sensor), len(sensor), classes)
    row_bytes = RowLayout.of(cast("DiffusionSegmentor", built), size, config.cache_dtype).row_bytes
    kept = size_of_rows(len(crops), config.cache_variants, row_bytes)
    return f"features: {kept} in {config.cache_folder}; what is counted for a step makes them anew"


def _uses(loop: LoopConfig, crops: Sequence[Crop], config: SegmentConfig) -> float:
    """How often a training takes each of what would be kept."""
    return loop.steps * loop.batch_size / (len(crops) * config.cache_variants)


def _not_worth_it(config: SegmentConfig, loop: LoopConfig, uses: float) -> str | None:
    """Say why nothing is kept where that was left open."""
    if config.cache != "auto":
        return None
    if loop.transfer.frozen != "always":
        return "the encoder learns"
    return f"each would be used {uses:.2g} times" if uses < 2 else None


def _cache(
    method: Segment, tiles: TileDataset, stream: str, crops: Sequence[Crop], loop: LoopConfig, layout: RowLayout
) -> tuple[FeatureCache | None, TilthError | None, TilthError | None]:
    """Lay out what would be kept; or say what is wrong with the folder, or that there is no room."""
    config, model = method.config, method.model
    assert config.cache_folder is not None, "nothing is kept without"
    maps = describe_maps(model, layout, config.cache_variants, loop.precision)
    try:
        store = FeatureStore(config.cache_folder, layout, maps, _kept_tiles(tiles, stream, crops))
        if store.missing() and store.crops > len(crops):
            raise ConfigError(
                f"{store.folder}: was begun for {len(store.tiles)} tiles and is not finished; go on with the training that began it, "
                "or choose another settings.cache_folder"
            )
    except TilthError as error:
        return None, error, None
    return FeatureCache(model, tiles, stream, store, crops, loop.precision), None, _no_room(store, config)


def _left_out(config: SegmentConfig, weak: WeakConfig, *, cut: bool, fresh: bool) -> str:
    """Name the augmentations that were asked for and do not go with kept maps."""
    flips = weak.horizontal_flip > 0 or weak.vertical_flip > 0 or weak.rot90
    asked = {
        "linear stretch": config.stretch.probability > 0,
        "photometric augmentation": config.strong is not None,
        "resize": (weak.scale_min, weak.scale_max) != (1, 1),
        "rotation": weak.rotation > 0,
        "flips and turns (see settings.cache_variants)": flips and config.cache_variants == 1,
        "random places of crops": cut,
        "fresh noise": fresh,
    }
    return ", ".join(name for name, wanted in asked.items() if wanted)


def _kept_tiles(tiles: TileDataset, stream: str, crops: Sequence[Crop]) -> list[KeptTile]:
    catalog = tiles.catalogs[stream]
    counts: dict[int, int] = {}
    for crop in crops:
        counts[crop.row] = counts.get(crop.row, 0) + 1
    contents: dict[str, Any] = {}

    def content(uri: str | None) -> Any:
        if uri is None:
            return None
        file = containing_file(uri)
        if file not in contents:
            # Labels are kept with the maps, and a file that was edited often has the size it had: its time of change counts, too. Of a
            # shard the checksums of its tiles say more.
            contents[file] = content_of(file) if file.endswith(SHARD_SUFFIX) else [file_state(part)[:2] for part in files_behind(file)]
        return [Path(uri).name, contents[file]]

    return [
        KeptTile(tile.tile_id, stamp_of([tile.window, tile.origin, content(tile.image), content(tile.label)]), counts[row])
        for row, tile in enumerate(catalog.tiles())
    ]


def _no_room(store: FeatureStore, config: SegmentConfig) -> TilthError | None:
    """Say that kept maps would be too large for the limit or the disk."""
    limit, needed = config.cache_limit_gb * 2**30, store.bytes_to_come()
    size = size_of_rows(store.crops, store.variants, store.layout.row_bytes)
    if store.size > limit:
        return ConfigError(
            f"kept features take {size}, more than settings.cache_limit_gb={config.cache_limit_gb:g}; raise it, or take "
            f"{'fewer tiles' if config.cache_variants == 1 else 'settings.cache_variants=1'}, or settings.cache=online"
        )
    place = next(folder for folder in (store.folder, *store.folder.absolute().parents) if folder.exists())
    free = shutil.disk_usage(place).free - SPARED
    if needed > free:
        return TilthError(
            f"{store.folder}: kept features take {size}, of which {size_in_words(needed)} are missing, and there is room for "
            f"{size_in_words(max(0, free))}; choose another settings.cache_folder, or settings.cache=online"
        )
    return None
