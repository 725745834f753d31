"""A scene becomes a map: windows with overlap, smooth blending, a Cloud Optimized GeoTIFF of class ids.

Reading, computing and writing go on side by side. Finished strips are kept in a folder beside the map until it is whole, so a prediction
that was killed goes on where it was, to the same bytes.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tilth.errors import DataError, OutputExistsError, RunError, TilthWarning, UsageError
from tilth.imagery.gdal import bounded_cache
from tilth.imagery.read import Window, read_label
from tilth.models.classifier import PixelClassifier
from tilth.models.inference import check_windows, evaluating
from tilth.models.windows import fit_window
from tilth.prediction.beside import refuse_inputs, remove_outdated
from tilth.prediction.checks import resolution_note
from tilth.prediction.grid import Grid, panel_width
from tilth.prediction.interest import Interest
from tilth.prediction.output import MapFiles, Tally, behind, strip_writer
from tilth.prediction.partial import PartialMap
from tilth.prediction.provenance import Provenance, is_finished
from tilth.prediction.sources import Scene, open_scene
from tilth.prediction.strips import Manner, Strip, predict_strips
from tilth.prediction.target import area_grid

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ScenePrediction:
    """What predicting a scene gave.

    Attributes:
        path: the map, class ids uint8, 255 = no data.
        confidence_path: highest probability in percent, uint8, 255 = no data; None if not asked for.
        probabilities_path: probability of each class in percent, uint8, one band a class, 255 = no data; None if not asked for.
        width: columns in pixels.
        height: rows in pixels.
        georeferenced: whether the scene, and so the map, has a CRS and a transform.
        valid_pixels: pixels that got a class.
        black_border: whether a black surrounding without image was found and left as no data.
        class_pixels: pixels by class name.
        class_area_m2: ground in square metres by class name, corrected for the map projection; None without a place on Earth.
        seconds: wall time.
        windows: windows done.
        windows_kept: how many of them an earlier, interrupted prediction had done; all where the map was there already.
    """

    path: Path
    confidence_path: Path | None
    probabilities_path: Path | None
    width: int
    height: int
    georeferenced: bool
    valid_pixels: int
    black_border: bool
    class_pixels: dict[str, int]
    class_area_m2: dict[str, float] | None
    seconds: float
    windows: int
    windows_kept: int


def predict_scene(
    segmenter: PixelClassifier,
    scene: str | Path | Scene,
    out: str | Path,
    *,
    window: int = 512,
    overlap: int = 128,
    batch_size: int = 4,
    device: str | torch.device = "cpu",
    precision: str = "32",
    flips: str = "none",
    confidence: bool = False,
    probabilities: bool = False,
    black_border: bool = True,
    area: Interest | None = None,
    overwrite: bool = False,
    panel: int | None = None,
    progress: Progress | None = None,
) -> ScenePrediction:
    """Predict the classes of a whole scene and write them as a map.

    The map is a Cloud Optimized GeoTIFF on the scene's grid, with overviews of the most frequent class, the scheme's colour table, GDAL
    category names (in ``<out>.aux.xml``), and tags: ``CLASS_NAMES``, ``CLASS_0`` ..., and where it comes from, see
    :mod:`tilth.prediction.provenance`. Memory does not grow with the scene, except for plain images (jpg, png), which have to be decoded
    whole. The same model, scene and settings give the same bytes, whatever the panel, on a CPU whatever the batch size.

    If the process is killed or interrupted, or the disk or the memory is full, the same call goes on where it was. A scene or a model that
    turns out to be damaged leaves nothing behind. A map that is there already and was made from the same is left as it is; a scene that is
    not on this machine's own disks is mapped anew each time, for it may have changed.

    Args:
        segmenter: the model.
        scene: a raster with the bands of the model's sensor, or what :mod:`tilth.prediction.sources` made of one or several.
        out: the map to write, ``.tif``. Confidence goes to ``<stem of out>_confidence.tif``, probabilities to
            ``<stem of out>_probabilities.tif``.
        window: side of the windows in pixels; smaller for a smaller scene, see :func:`tilth.models.windows.fit_window`.
        overlap: pixels that neighbouring windows share at least.
        batch_size: windows computed at once on an accelerator, where labels of pixels that are all but level may depend on it.
        device: where to compute.
        precision: ``32``, ``bf16-mixed`` or ``16-mixed``.
        flips: mirrored views whose probabilities are averaged, a key of :data:`tilth.models.flips.FLIPS`.
        confidence: also write the highest probability in percent.
        probabilities: also write the probabilities of all classes in percent.
        black_border: treat large, nearly black regions at the border of 8-bit optical scenes that name no nodata as nodata; see
            :mod:`tilth.imagery.black_border`. For a scene that is opened already, that is settled.
        area: the part of the scene to map, the rest of its rectangle being no data. Windows lie as for the whole scene, so labels are the
            same.
        overwrite: replace files that were made from something else; confidence and probabilities of the map that is replaced, which no
            longer belong to it, go with it.
        panel: columns summed at once; bounds memory, does not alter the map.
        progress: called with windows done and windows in all.

    Returns:
        Paths, sizes, pixels and ground by class, wall time.

    Raises:
        SensorMismatchError: band count, number type or band names are not the sensor's.
        UsageError: ``out`` is the scene or no ``.tif``, or settings that make no sense.
        OutputExistsError: a file that would be written exists, made from something else.
        MissingFileError: no such scene.
        UnreadableFileError: the scene is truncated or damaged.
        RunError: the network gives values that are not numbers.
        TilthError: the map cannot be written, or another process is making it.
    """
    started = time.perf_counter()
    check_windows(window, overlap, batch_size, precision, flips)
    if panel is not None and panel < 1:
        raise UsageError(f"panel {panel}: expected 1 column or more")
    files = MapFiles.beside(Path(out), confidence=confidence, probabilities=probabilities)
    refuse_inputs(files.paths(), scene.sources if isinstance(scene, Scene) else (str(scene),))
    source = scene if isinstance(scene, Scene) else open_scene(scene, segmenter.sensor, black_border=black_border)
    note = resolution_note(source.info, segmenter.sensor)
    if note is not None:
        warnings.warn(note, TilthWarning, stacklevel=2)
    side, shared = fit_window(window, overlap, source.info.height, source.info.width)
    width = panel or _panel_width(side, segmenter, source, 1 + confidence + probabilities * len(segmenter.scheme))
    grid = Grid(source.info.width, source.info.height, side, shared, width, None if area is None else area.window)
    info = area_grid(source.info, grid.area)
    work = _Work(
        segmenter,
        source,
        grid,
        Manner(batch_size, torch.device(device), precision, flips, confidence, probabilities),
        area,
        files,
        Tally(info, grid.area, len(segmenter.scheme)),
        overwrite,
        progress or (lambda _done, _windows: None),
    )
    made_from = Provenance.of(segmenter, source, grid, work.manner, area)
    kept = work.count(made_from) if work.is_finished(made_from) else work.make(made_from)
    tally = work.tally
    return ScenePrediction(
        path=files.classes,
        confidence_path=files.confidence,
        probabilities_path=files.probabilities,
        width=info.width,
        height=info.height,
        georeferenced=info.crs is not None and info.transform is not None,
        valid_pixels=sum(tally.pixels),
        black_border=source.black_border,
        class_pixels=dict(zip(segmenter.scheme.names, tally.pixels, strict=True)),
        class_area_m2=None if tally.areas is None else dict(zip(segmenter.scheme.names, tally.areas, strict=True)),
        seconds=time.perf_counter() - started,
        windows=grid.count(),
        windows_kept=kept,
    )


def _panel_width(window: int, segmenter: PixelClassifier, source: Scene, layers: int) -> int:
    pixel = source.info.count * np.dtype(source.info.dtype).itemsize + 1
    return panel_width(window, len(segmenter.scheme), pixel_bytes=pixel, layers=layers)


@dataclass(frozen=True)
class _Work:
    """All that making the files of one map takes."""

    segmenter: PixelClassifier
    source: Scene
    grid: Grid
    manner: Manner
    area: Interest | None
    files: MapFiles
    tally: Tally
    overwrite: bool
    progress: Progress

    def is_finished(self, made_from: Provenance) -> bool:
        """Whether there is nothing left to do; raises where there is something in the way."""
        return is_finished(self.files.paths(), made_from, self.source, overwrite=self.overwrite)

    def make(self, made_from: Provenance) -> int:
        """Make the files; returns how many windows had been done before."""
        partial = self._partial()
        with partial.opened(made_from.stamp_of_strips()), _kept_on_failure(partial), bounded_cache():
            # Another process may have been at it until now.
            self.is_finished(made_from)
            with behind(self._writer(partial, made_from)) as write, evaluating(self.segmenter, self.manner.device):
                saved, kept = 0, 0
                for strip in self._saved(partial):
                    write((None, strip))
                    saved, kept = saved + 1, kept + strip.windows
                done, windows = kept, self.grid.count()
                if kept:
                    self.progress(done, windows)
                wanted = None if self.area is None else self.area.mask
                strips = predict_strips(self.segmenter, self.source.read, self.grid, self.manner, wanted=wanted, skip=saved)
                with closing(strips):
                    for number, strip in enumerate(strips, start=saved):
                        write((number, strip))
                        done += strip.windows
                        self.progress(done, windows)
            partial.finish(self.files.paths())
            if self.overwrite:
                remove_outdated(self.files.classes, made_from.stamp())
        return kept

    def count(self, made_from: Provenance) -> int:
        """Count what is in files that are there already; returns the number of windows behind them."""
        self._partial().remove_left(made_from.stamp_of_strips())
        column, row = self.grid.area[:2]
        for place in self.grid.places():
            left, top, width, height = place.window
            classes = read_label(str(self.files.classes), Window(left - column, top - row, width, height))
            self.tally.add(Strip(place.window, classes, None, None, len(place.panel.columns)))
        return self.grid.count()

    def _partial(self) -> PartialMap:
        classes = len(self.segmenter.scheme) if self.manner.probabilities else 0
        return PartialMap(self.files.classes, confidence=self.manner.confidence, probabilities=classes)

    def _saved(self, partial: PartialMap) -> Iterator[Strip]:
        """Strips that an interrupted prediction left, up to the first that is missing."""
        for number, place in enumerate(self.grid.places()):
            strip = partial.load(number, place)
            if strip is None:
                return
            yield strip

    @contextmanager
    def _writer(self, partial: PartialMap, made_from: Provenance) -> Iterator[Callable[[tuple[int | None, Strip]], None]]:
        """Write strips into the files; one that comes with its number is kept first."""
        scheme, tags = self.segmenter.scheme, made_from.tags()
        with strip_writer(partial.built, self.files, self.tally.info, self.grid.area, scheme, tags) as write:

            def take(item: tuple[int | None, Strip]) -> None:
                number, strip = item
                if number is not None:
                    partial.save(number, strip)
                write(strip)
                self.tally.add(strip)

            yield take


@contextmanager
def _kept_on_failure(partial: PartialMap) -> Iterator[None]:
    """Keep finished strips, as after a kill or Ctrl-C, unless the error lies in the scene or the model: then nothing is left."""
    try:
        yield
    except Exception as error:
        if isinstance(error, DataError | RunError | OutputExistsError) or not partial.strips():
            partial.remove()
        else:
            partial.remove_built()
            warnings.warn(f"{partial.folder}: keeps what is done; the same command goes on from there", TilthWarning, stacklevel=2)
        raise
