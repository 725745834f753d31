"""Making the maps that a training keeps: how much and how long it takes, and the making itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray

from tilth.catalog.table import Tile
from tilth.errors import TilthError
from tilth.models.diffusion.feature_store import FeatureStore
from tilth.models.diffusion.segmentation import DiffusionSegmentor
from tilth.models.inference import PRECISIONS, evaluating
from tilth.models.network import pad_to_multiple
from tilth.training.collate import collate, to_batch
from tilth.training.feature_samples import Crop, FeatureDataset, turned
from tilth.training.samples import Sample, TileDataset
from tilth.training.wording import time_in_words

if TYPE_CHECKING:
    from lightning.fabric import Fabric

_TOGETHER = 8
_QUICK_S = 5.0


class Listener(Protocol):
    """Takes what is said meanwhile; the console of the command line is one."""

    def say(self, text: str) -> None:
        """Tell something that stays to be read."""

    def status(self, text: str) -> None:
        """Show where the work is; replaces the status before."""

    def warn(self, text: str) -> None:
        """Tell something that the user should look into."""


class FeatureCache:
    """The kept maps of one training: what it reads, and how they come to be.

    Attributes:
        dataset: reads them.
        store: where they are.
    """

    def __init__(self, model: Any, tiles: TileDataset, stream: str, store: FeatureStore, crops: Sequence[Crop], precision: str) -> None:
        self.store = store
        self.dataset = FeatureDataset(tiles.order, stream, tiles.catalogs[stream], crops, store)
        self._model, self._tiles, self._stream, self._precision = model, tiles, stream, precision
        self._catalog = tiles.catalogs[stream]
        ids = self._catalog.column("tile_id")
        self._place = {(ids[crop.row], crop.number): crop for crop in crops}
        self._warn: Callable[[str], None] = lambda _text: None

    def fill(self, fabric: Fabric, console: Listener) -> None:
        """Make what is missing, after it was said what it takes; returns on all processes when everything is there.

        Raises:
            DataError: values that cannot be kept.
            TilthError: the folder cannot be written to.
        """
        store, device = self.store, fabric.device
        size = f"{size_of_rows(store.crops, store.variants, store.layout.row_bytes)} in {store.folder}"
        # One view for all: another training may be filling the same folder.
        if not fabric.broadcast(bool(store.missing())):
            console.say(f"features: {size}, all there")
            fabric.barrier()
            return
        self._model.to(device)
        self._warn = console.warn
        timed: dict[int, NDArray[np.uint8]] = {}
        to_do = max(1, round(store.bytes_to_come() / store.layout.row_bytes))
        done, began = 0, 0.0

        def make(numbers: Sequence[int]) -> Sequence[NDArray[np.uint8]]:
            return [timed.pop(numbers[0])] if len(numbers) == 1 and numbers[0] in timed else self._make(numbers, device)

        def progress(count: int) -> None:
            nonlocal done
            done += count
            left = (time.monotonic() - began) / done * max(0, to_do - done)
            console.status(f"features: {done} of {to_do} made, {time_in_words(left)} left")

        with evaluating(self._model):
            if fabric.is_global_zero:
                number = store.first_missing()
                timed[number], seconds = self._time(number, device)
                console.say(
                    f"features: {size}; {to_do:,} to be made, {time_in_words(seconds)} each, {time_in_words(to_do * seconds)} in all"
                )
            fabric.barrier()
            began = time.monotonic()
            store.fill(make, 1 if device.type == "cpu" else _TOGETHER, progress)
        fabric.barrier()

    def _time(self, number: int, device: torch.device) -> tuple[NDArray[np.uint8], float]:
        """Make a row, and take the time. Quick ones are made twice: the first call of a device is slow."""
        for _ in range(2):
            began = time.perf_counter()
            row = self._make([number], device)[0]
            seconds = time.perf_counter() - began
            if seconds > _QUICK_S:
                break
        return row, seconds

    def _make(self, numbers: Sequence[int], device: torch.device) -> list[NDArray[np.uint8]]:
        """Make neighbouring rows of one variant."""
        variant = self.store.place_of(numbers[0])[1]
        rows = [self.store.layout.unreadable()] * len(numbers)
        samples, origins, places = [], [], []
        for place, number in enumerate(numbers):
            crop = self._crop(self.store.place_of(number)[0])
            tile = self._catalog.tile(crop.row)
            try:
                samples.append(self._read(tile, crop, variant))
            except (TilthError, OSError) as error:
                self._warn(f"tile {tile.tile_id} left out: {error}")
                continue
            (row, column), draw = tile.origin, crop.geometry.draw
            origins.append((row + draw.y, column + draw.x))
            places.append(place)
        if not samples:
            return rows
        layout, network = self.store.layout, cast("DiffusionSegmentor", self._model.network)
        batch = to_batch(collate(samples), self._model.sensor, layout.side, device)
        kind = PRECISIONS[self._precision]
        with torch.autocast(device.type, dtype=kind, enabled=kind is not None):
            image = pad_to_multiple(batch["image"], network.divisor)
            # Turned first, then noise, each way with noise of its own; as it lies, that of evaluation.
            maps = network.encoder(image, torch.tensor(origins), draw=variant)
        for index, place in enumerate(places):
            rows[place] = layout.pack([level[index] for level in maps], batch["mask"][index], batch["valid"][index])
        return rows

    def _read(self, tile: Tile, crop: Crop, variant: int) -> Sample:
        wanted, sensor = self._tiles.order.streams[self._stream], self._catalog.sensors[tile.sensor]
        return self._tiles.read(tile, turned(crop.geometry, variant), 0, (), sensor, wanted)

    def _crop(self, place: int) -> Crop:
        """The crop at a place among all that the folder holds."""
        return self._place[self.store.name_of(place)]


def size_of_rows(crops: int, variants: int, row_bytes: int) -> str:
    """Say how large kept maps are, and why."""
    ways = "" if variants == 1 else f" x {variants} ways"
    total = crops * variants * row_bytes
    return f"{crops:,} crops{ways} x {row_bytes:,} bytes = {total:,} bytes ({size_in_words(total)})"


def size_in_words(count: int) -> str:
    """Say how many bytes these are."""
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"
