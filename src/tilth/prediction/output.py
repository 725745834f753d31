"""The files of a map: which there are, what is written into them, and a thread that does the writing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from tilth.classes import IGNORE_INDEX, ClassScheme
from tilth.errors import UsageError
from tilth.imagery.area import value_areas_m2
from tilth.imagery.geotiff import BlockWriter, Legend, raster_file
from tilth.imagery.raster import RasterInfo, Window
from tilth.prediction.beside import sibling
from tilth.prediction.strips import Strip

WAITING = 2
"""Strips that may wait to be written; more would only take memory."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class MapFiles:
    """Where the files of a map go.

    Attributes:
        classes: class ids.
        confidence: highest probability; None if not asked for.
        probabilities: probabilities of all classes; None if not asked for.
    """

    classes: Path
    confidence: Path | None
    probabilities: Path | None

    @classmethod
    def beside(cls, target: Path, *, confidence: bool, probabilities: bool) -> MapFiles:
        """Name the files of a map.

        Raises:
            UsageError: the map is no ``.tif``.
        """
        if target.suffix.lower() not in {".tif", ".tiff"}:
            raise UsageError(f"{target}: maps are written as GeoTIFF; give a path that ends in .tif")

        def named(what: str, wanted: bool) -> Path | None:
            return sibling(target, what) if wanted else None

        return cls(target, named("confidence", confidence), named("probabilities", probabilities))

    def paths(self) -> list[Path]:
        """All of them, the map itself last: when it is there, all are."""
        return [path for path in (self.probabilities, self.confidence, self.classes) if path is not None]


@contextmanager
def strip_writer(
    folder: Path, files: MapFiles, info: RasterInfo, area: Window, scheme: ClassScheme, tags: Mapping[str, str]
) -> Iterator[Callable[[Strip], None]]:
    """Build the files of a map in a folder, under their names, strip by strip.

    Args:
        folder: where they are built.
        files: which, and their names.
        info: grid of the map.
        area: where it lies in the scene that the strips are of.
        scheme: the classes.
        tags: provenance, kept in each file.
    """
    legend = Legend(colours=scheme.colours, class_names=scheme.names, tags=tags, nodata=IGNORE_INDEX)
    percent = Legend(tags={**tags, "UNIT": "percent, highest class probability"}, nodata=IGNORE_INDEX)
    shares = Legend(tags={**tags, "UNIT": "percent, class probability"}, nodata=IGNORE_INDEX)

    def build(path: Path, of: Legend, names: tuple[str, ...] | None = None) -> AbstractContextManager[BlockWriter]:
        return raster_file(
            folder / path.name,
            width=info.width,
            height=info.height,
            count=len(names or "1"),
            dtype="uint8",
            crs=info.crs,
            transform=info.transform,
            legend=of,
            band_names=names,
            cog=True,
        )

    with ExitStack() as stack:
        classes = stack.enter_context(build(files.classes, legend))
        confidence = stack.enter_context(build(files.confidence, percent)) if files.confidence else None
        probabilities = stack.enter_context(build(files.probabilities, shares, scheme.names)) if files.probabilities else None

        def write(strip: Strip) -> None:
            column, row = strip.window.column - area.column, strip.window.row - area.row
            classes(strip.classes, column, row)
            if confidence is not None and strip.confidence is not None:
                confidence(strip.confidence, column, row)
            if probabilities is not None and strip.probabilities is not None:
                probabilities(strip.probabilities, column, row)

        yield write


@dataclass
class Tally:
    """Counts pixels and ground by class while strips pass by.

    Attributes:
        info: grid of the map.
        area: where it lies in the scene that the strips are of.
        pixels: by class.
        areas: square metres by class; None for good where ground cannot be told.
        windows: that were computed for the strips.
    """

    info: RasterInfo
    area: Window
    classes: int
    pixels: list[int] = field(init=False)
    areas: list[float] | None = field(init=False)

    def __post_init__(self) -> None:
        self.pixels, self.areas = [0] * self.classes, [0.0] * self.classes

    def add(self, strip: Strip) -> None:
        """Count a strip."""
        counts = np.bincount(strip.classes.ravel(), minlength=IGNORE_INDEX + 1)[: self.classes].tolist()
        self.pixels = [before + count for before, count in zip(self.pixels, counts, strict=True)]
        if self.areas is None:
            return
        crs, transform = self.info.crs, self.info.transform
        column, row, width, height = strip.window
        place = Window(column - self.area.column, row - self.area.row, width, height)
        ground = None if crs is None or transform is None else value_areas_m2(strip.classes, place, crs, transform)
        self.areas = None if ground is None else [before + more for before, more in zip(self.areas, ground.tolist(), strict=False)]


@contextmanager
def behind(manager: AbstractContextManager[Callable[[Item], None]]) -> Iterator[Callable[[Item], None]]:
    """Let another thread do what a function does with each item, in order, while the caller goes on.

    The thread opens, uses and closes what the manager stands for, for GDAL keeps settings by thread. At most :data:`WAITING` items wait.
    What goes wrong there is raised here, at the next item or at the end. When the caller fails, what waits is dropped.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="tilth-write") as thread:
        work = thread.submit(manager.__enter__).result()
        waiting: deque[Future[None]] = deque()

        def put(item: Item) -> None:
            waiting.append(thread.submit(work, item))
            while len(waiting) > WAITING:
                waiting.popleft().result()

        try:
            yield put
            while waiting:
                waiting.popleft().result()
        except BaseException as error:
            # After Ctrl-C what is finished is still worth keeping.
            for future in waiting if isinstance(error, Exception) else ():
                future.cancel()
            thread.submit(manager.__exit__, type(error), error, error.__traceback__).result()
            raise
        thread.submit(manager.__exit__, None, None, None).result()
