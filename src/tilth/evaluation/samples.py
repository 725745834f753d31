"""Labelled tiles for evaluation: checked against the model, read ahead, and predicted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from tilth.catalog.rows import Tile
from tilth.classes import IGNORE_INDEX
from tilth.errors import CatalogError, DataError, SensorMismatchError
from tilth.evaluation.result import InferenceSettings
from tilth.imagery.read import Pixels, read_label, read_pixels
from tilth.models.inference import check_windows, predict_tile
from tilth.sensors import Sensor

if TYPE_CHECKING:
    from tilth.catalog.table import Catalog
    from tilth.models.segmenter import Segmenter


# Other names of one precision; results speak of it in the words of the command line.
_ALIASES = {"32-true": "32", "bf16": "bf16-mixed", "16": "16-mixed"}

OnBad = Callable[[str, str], None]
"""Told the id of a tile that cannot be used and why."""


@dataclass(frozen=True)
class Sample:
    """A labelled tile in memory: pixels in storage units, mask uint8 (h, w) with 255 where unlabelled or not valid."""

    tile: Tile
    pixels: Pixels
    mask: NDArray[np.uint8]


@dataclass(frozen=True)
class Prediction:
    """What a model says of a tile.

    Attributes:
        classes: uint8 (h, w), the most probable class.
        confidence: its probability (h, w), floats from 0 to 1.
        loss: cross-entropy of the labels, summed over labelled pixels.
    """

    classes: NDArray[np.uint8]
    confidence: NDArray[Any]
    loss: float = 0.0


@dataclass(frozen=True)
class Inference:
    """A model and how to run it; see :func:`tilth.models.inference.predict_tile`."""

    segmenter: Segmenter
    window: int
    overlap: int
    batch_size: int
    device: str | torch.device
    precision: str
    flips: str = "none"

    def __post_init__(self) -> None:
        check_windows(self.window, self.overlap, self.batch_size, self.precision, self.flips)

    def settings(self) -> InferenceSettings:
        """Return what decides the result, for the record; the size of batches and the device do not."""
        precision = _ALIASES.get(self.precision, self.precision)
        return InferenceSettings(window=self.window, overlap=self.overlap, flips=self.flips, precision=precision)

    def predict(self, sample: Sample) -> Prediction:
        """Predict a tile.

        Raises:
            DataError: the model's output is not finite.
        """
        probabilities = predict_tile(
            self.segmenter,
            sample.pixels,
            window=self.window,
            overlap=self.overlap,
            batch_size=self.batch_size,
            device=self.device,
            precision=self.precision,
            flips=self.flips,
        )
        highest, classes = probabilities.max(dim=0)
        if not bool(highest.isfinite().all()):
            raise DataError(
                f"tile {sample.tile.tile_id!r}: the model's output is not finite (precision {self.precision}); "
                "try precision 32, else the weights are damaged"
            )
        return Prediction(classes.to(torch.uint8).numpy(), highest.numpy(), _cross_entropy(probabilities, sample.mask))


def _cross_entropy(probabilities: torch.Tensor, mask: NDArray[np.uint8]) -> float:
    """Sum -log p(label) over labelled pixels; a probability of 0 counts as the smallest float."""
    known = torch.from_numpy(mask < len(probabilities))
    label = torch.from_numpy(mask.astype(np.int64)).clamp(max=len(probabilities) - 1)
    right = probabilities.gather(0, label[None])[0][known]
    return float(-right.clamp(min=torch.finfo(right.dtype).tiny).log().sum(dtype=torch.float64))


def labelled_tiles(segmenter: Segmenter, catalog: Catalog) -> Catalog:
    """Return the labelled tiles, after checking that model and tiles speak of the same bands and classes.

    Names, colours and mappings of the schemes may differ: they do not change what a class id means. A scheme is often named after its
    folder.

    Raises:
        CatalogError: no labelled tile, several class schemes, or other classes than the model's.
        SensorMismatchError: the tiles come from another sensor than the model's.
    """
    labelled = catalog.labelled()
    if not len(labelled):
        raise CatalogError(f"none of the {len(catalog)} tiles has a label; evaluate on a catalog, or a split of it, with labels")
    sensor, scheme = labelled.sensor(), labelled.scheme()
    if sensor != segmenter.sensor:
        raise SensorMismatchError(
            f"the tiles are of sensor {sensor.name!r}, the model wants {segmenter.sensor.name!r}: "
            f"{sensor_difference(sensor, segmenter.sensor)}; use tiles of the model's sensor, or a model of theirs"
        )
    if scheme.names != segmenter.scheme.names:
        raise CatalogError(
            f"the labels follow scheme {scheme.name!r} ({', '.join(scheme.names)}), the model predicts "
            f"{segmenter.scheme.name!r} ({', '.join(segmenter.scheme.names)}); map the labels to the model's scheme first"
        )
    return labelled


def sensor_difference(found: Sensor, wanted: Sensor) -> str:
    """Say where two sensors differ first."""
    if found.band_names != wanted.band_names:
        return f"bands {', '.join(found.band_names)} instead of {', '.join(wanted.band_names)}"
    for band, other in zip(found.bands, wanted.bands, strict=True):
        for name, value in other.model_dump().items():
            if getattr(band, name) != value:
                return f"band {band.name!r} has {name} {getattr(band, name)} instead of {value}"
    parts = [name for name in ("name", "dtype", "unit", "rgb") if getattr(found, name) != getattr(wanted, name)]
    return "; ".join(f"{name} {getattr(found, name)!r} instead of {getattr(wanted, name)!r}" for name in parts)


def read_samples(labelled: Catalog, sensor: Sensor, on_bad: OnBad | None = None) -> Iterator[Sample]:
    """Read tile after tile, the next one while the current one is predicted.

    Args:
        labelled: tiles with labels.
        sensor: theirs.
        on_bad: told of tiles that :func:`read_sample` refuses, which are then left out; without it they raise.
    """
    with ThreadPoolExecutor(max_workers=1) as reader:
        coming: tuple[Tile, Future[Sample]] | None = None
        # The None at the end lets the last tile out.
        for tile in (*labelled.tiles(), None):
            current, coming = coming, None if tile is None else (tile, reader.submit(read_sample, tile, sensor))
            if current is None:
                continue
            try:
                sample = current[1].result()
            except (DataError, OSError) as error:
                if on_bad is None:
                    raise
                on_bad(current[0].tile_id, str(error))
                continue
            yield sample


def read_sample(tile: Tile, sensor: Sensor) -> Sample:
    """Read pixels, with their origin, and label of a tile.

    Raises:
        SensorMismatchError: the image has another number of bands than the sensor.
        DataError: the label does not lie on the grid of the image.
    """
    pixels = replace(read_pixels(tile.image, tile.window), origin=tile.origin)
    if len(pixels.data) != len(sensor):
        raise SensorMismatchError(
            f"tile {tile.tile_id!r}: {tile.image} has {len(pixels.data)} bands, sensor {sensor.name!r} has {len(sensor)}; "
            "see: tilth catalog check"
        )
    assert tile.label is not None, "labelled tiles have a label"
    label = read_label(tile.label, tile.window)
    if label.shape != pixels.valid.shape:
        raise DataError(
            f"tile {tile.tile_id!r}: label {tile.label} is {label.shape[1]} x {label.shape[0]} pixels, its image "
            f"{pixels.valid.shape[1]} x {pixels.valid.shape[0]}; both must lie on one grid"
        )
    return Sample(tile, pixels, np.where(pixels.valid, label, np.uint8(IGNORE_INDEX)))
