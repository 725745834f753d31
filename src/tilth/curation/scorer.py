"""The one function that all ways of running curation share: tiles in, what their pixels and the model say out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tilth.catalog.reading import read_ahead, tile_pixels
from tilth.catalog.rows import Tile
from tilth.curation.config import ScoringConfig
from tilth.curation.entropy import background_classes
from tilth.curation.measure import Look, look_at
from tilth.curation.opinion import Observer, Opinion
from tilth.imagery.raster import Pixels
from tilth.models.tiles import Running
from tilth.sensors import Sensor

if TYPE_CHECKING:
    from tilth.models.segmenter import Segmenter


@dataclass(frozen=True)
class Scored:
    """One tile: what its pixels show and what the model says of them, or why there is neither.

    Attributes:
        look: None for a tile that cannot be read.
        opinion: None for a tile that cannot be read or has no valid pixel.
        problem: why not, for a tile that cannot be read or judged.
    """

    look: Look | None = None
    opinion: Opinion | None = None
    problem: str | None = None


class TileScorer:
    """Scores tiles with a model; the numbers of a tile do not depend on which come with it, but for rounding on accelerators.

    Attributes:
        classes: number of classes K of the model.
        width: length d of features.
    """

    def __init__(self, segmenter: Segmenter, scoring: ScoringConfig, running: Running, readers: int = 2) -> None:
        """Take a model.

        Args:
            segmenter: the model, moved to the device.
            scoring: what is asked.
            running: how the model is run.
            readers: threads that read ahead.

        Raises:
            UsageError: background classes that the model does not have, or windows that make no sense.
        """
        self._sensor = segmenter.sensor
        self._observer = Observer(segmenter, background_classes(segmenter.scheme, scoring.background), scoring.feature_input, running)
        self._readers = readers
        self.classes = len(segmenter.scheme)
        self.width = self._observer.width

    def __call__(self, tiles: Sequence[Tile]) -> Iterator[Scored]:
        """Score tiles, in their order."""
        # Tiles of one shape that wait to be judged together.
        batch: list[tuple[Pixels, Look]] = []
        with self._observer.ready():
            for item in read_ahead(tiles, lambda tile: read_tile(tile, self._sensor), self._readers):
                judged = not isinstance(item, str) and bool(item[0].valid.any())
                if batch and (not judged or len(batch) == self._observer.together or _shape(item) != _shape(batch[0])):
                    yield from self._judge(batch)
                    batch = []
                if isinstance(item, str):
                    yield Scored(problem=item)
                elif not judged:
                    yield Scored(look=item[1])
                else:
                    batch.append(item)
            if batch:
                yield from self._judge(batch)

    def _judge(self, batch: list[tuple[Pixels, Look]]) -> Iterator[Scored]:
        opinions = self._observer.judge([pixels for pixels, _ in batch])
        for (_, look), opinion in zip(batch, opinions, strict=True):
            yield Scored(look, opinion, None if opinion is not None else "the model's output is not finite; try inference.precision=32")


def read_tile(tile: Tile, sensor: Sensor) -> tuple[Pixels, Look] | str:
    """Read and measure a tile; a text says why it cannot be."""
    pixels = tile_pixels(tile, sensor)
    return pixels if isinstance(pixels, str) else (pixels, look_at(pixels, sensor))


def _shape(item: object) -> object:
    return item[0].data.shape if isinstance(item, tuple) else None
