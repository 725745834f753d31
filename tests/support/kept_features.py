"""Maps of a tiny noise predictor, kept for a training as the verb does it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor

from support.training_sample import tiny_model
from tilth.augment.config import WeakConfig
from tilth.catalog.table import Catalog
from tilth.imagery.read import read_label, read_pixels
from tilth.methods.base import build_method
from tilth.models.config import NetworkConfig
from tilth.models.network import pad_to_multiple
from tilth.models.segmenter import Segmenter
from tilth.training.config import LoopConfig
from tilth.training.feature_cache import FeatureCache
from tilth.training.feature_plan import plan_features
from tilth.training.order import Order
from tilth.training.samples import TileDataset

TINY = {"unet_options": {"width": 8, "norm_groups": 4, "res_blocks": 1, "multipliers": [1, 2, 2, 4, 4]}, "times": [50, 150]}
FABRIC = Fabric(accelerator="cpu", devices=1)


class Listener:
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.warned: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def status(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        self.warned.append(text)


def diffusion_model(options: dict[str, Any] | None = None, **more: Any) -> Segmenter:
    return tiny_model(network=NetworkConfig(name="ddpm_segmentor", options={**TINY, **(options or {})}), **more)


def planned(
    catalog: Catalog,
    folder: Path | None,
    *,
    model: Segmenter | None = None,
    size: int = 32,
    loop: dict[str, Any] | None = None,
    **settings: Any,
) -> tuple[FeatureCache | None, Listener, Any]:
    """What the verb decides; returns the method, too."""
    given = {"cache": "disk", "cache_folder": folder, **settings}
    built = build_method("ddpm", {"variant": "segment", **given}, model or diffusion_model())
    config = LoopConfig(**{"steps": 40, "batch_size": 2, "accelerator": "cpu", "transfer": {"frozen": "always"}, **(loop or {})})
    weak = WeakConfig(size=size, scale_min=1, scale_max=1)
    order = Order(0, built.streams, {"labelled": len(catalog)}, config.batch_size)
    told = Listener()
    tiles = TileDataset(order, {"labelled": catalog}, len(built.model.scheme), weak)
    return plan_features(built, tiles, config, weak, FABRIC, told), told, built


def filled(catalog: Catalog, folder: Path, **more: Any) -> tuple[FeatureCache, Listener, Any]:
    """The same, made."""
    cache, told, built = planned(catalog, folder, **more)
    assert cache is not None, told.said
    cache.fill(FABRIC, told)
    return cache, told, built


def extracted(cache: FeatureCache, catalog: Catalog, model: Segmenter, place: int, variant: int) -> tuple[list[Tensor], Tensor]:
    """Maps and labels of a crop, made straight from its tile: cut, padded, then mirrored and turned by hand, then noise."""
    crop, side = cache.dataset.crops[place], cache.store.layout.side
    tile, draw = catalog.tile(crop.row), crop.geometry.draw
    pixels = read_pixels(tile.image, tile.window)
    arrays = {"image": (pixels.data, 0), "mask": (read_label(tile.label, tile.window), 255), "valid": (pixels.valid, 0)}
    part: dict[str, Tensor] = {}
    for name, (whole, filling) in arrays.items():
        cut = torch.from_numpy(whole[..., draw.y : draw.y + side, draw.x : draw.x + side])
        space = (0, side - cut.shape[-1], 0, side - cut.shape[-2])
        part[name] = by_hand(torch.nn.functional.pad(cut, space, value=filling), variant)
    part["mask"][~part["valid"]] = 255
    model.eval()
    with torch.no_grad():
        image = model.normalise(part["image"][None].float(), part["valid"][None])
        row, column = tile.origin
        origin = torch.tensor([[row + draw.y, column + draw.x]])
        return model.network.encoder(pad_to_multiple(image, model.network.divisor), origin, draw=variant), part["mask"][None].long()


def by_hand(image: Tensor, variant: int) -> Tensor:
    if variant & 1:
        image = image.flip(-1)
    if variant & 2:
        image = image.flip(-2)
    return image.rot90(1, (-2, -1)) if variant & 4 else image
