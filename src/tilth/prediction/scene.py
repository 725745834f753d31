"""A scene becomes a map: windows with overlap, smooth blending, a Cloud Optimized GeoTIFF of class ids."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tilth.classes import IGNORE_INDEX
from tilth.errors import UsageError
from tilth.imagery.area import value_areas_m2
from tilth.imagery.black_border import BlackBorder, find_black_border
from tilth.imagery.gdal import bounded_cache
from tilth.imagery.geotiff import BlockWriter, Legend, raster_file
from tilth.imagery.read import Pixels, RasterInfo, Window, read_info, read_pixels
from tilth.models.inference import PixelClassifier, check_windows, evaluating, fit_window
from tilth.prediction.checks import check_sensor
from tilth.prediction.strips import PANEL, Grid, Strip, predict_strips
from tilth.sensors import Sensor


@dataclass(frozen=True)
class ScenePrediction:
    """What predicting a scene gave.

    Attributes:
        path: the map, class ids uint8, 255 = no data.
        confidence_path: highest probability in percent, uint8, 255 = no data; None if not asked for.
        width: columns in pixels.
        height: rows in pixels.
        georeferenced: whether the scene, and so the map, has a CRS and a transform.
        valid_pixels: pixels that got a class.
        black_border: whether a black surrounding without image was found and left as no data.
        class_pixels: pixels by class name.
        class_area_m2: ground in square metres by class name, corrected for the map projection; None without a place on Earth.
        seconds: wall time.
    """

    path: Path
    confidence_path: Path | None
    width: int
    height: int
    georeferenced: bool
    valid_pixels: int
    black_border: bool
    class_pixels: dict[str, int]
    class_area_m2: dict[str, float] | None
    seconds: float


def predict_scene(
    segmenter: PixelClassifier,
    scene: str | Path,
    out: str | Path,
    *,
    window: int = 512,
    overlap: int = 128,
    batch_size: int = 4,
    device: str | torch.device = "cpu",
    precision: str = "32",
    confidence: bool = False,
    black_border: bool = True,
    panel: int = PANEL,
    progress: Callable[[int, int], None] | None = None,
) -> ScenePrediction:
    """Predict the classes of a whole scene and write them as a map.

    The map is a Cloud Optimized GeoTIFF on the scene's grid, with overviews of the most frequent class, the scheme's colour table, GDAL
    category names (in ``<out>.aux.xml``) and tags ``CLASS_NAMES``, ``CLASS_0`` ..., ``TILTH_SENSOR``, ``TILTH_SCHEME``. Memory does not
    grow with the scene, except for plain images (jpg, png), which have to be decoded whole. On failure nothing is left behind.

    Args:
        segmenter: the model.
        scene: any raster :func:`tilth.imagery.read.read_pixels` reads, bands as the model's sensor.
        out: the map to write, ``.tif``; replaced if it exists. Confidence goes to ``<stem of out>_confidence.tif``.
        window: side of the windows in pixels; smaller for a smaller scene, see :func:`tilth.models.inference.fit_window`.
        overlap: pixels that neighbouring windows share at least.
        batch_size: windows computed at once.
        device: where to compute.
        precision: ``32``, ``bf16-mixed`` or ``16-mixed``.
        confidence: also write the highest probability in percent.
        black_border: treat large, nearly black regions at the border of 8-bit optical scenes that name no nodata as nodata; see
            :mod:`tilth.imagery.black_border`.
        panel: columns summed at once; bounds memory, does not alter the map.
        progress: called with windows done and windows in all.

    Returns:
        Paths, sizes, pixels and ground by class, wall time.

    Raises:
        SensorMismatchError: band count, number type or band names are not the sensor's.
        UsageError: ``out`` is the scene or no ``.tif``, or settings that make no sense.
        MissingFileError: no such scene.
        UnreadableFileError: the scene is truncated or damaged.
        RunError: the network gives values that are not numbers.
        TilthError: the map cannot be written.
    """
    started = time.perf_counter()
    check_windows(window, overlap, batch_size, precision)
    if panel < 1:
        raise UsageError(f"panel {panel}: expected 1 column or more")
    source, target, place = str(scene), Path(out), torch.device(device)
    if Path(source).exists() and target.exists() and target.samefile(source):
        raise UsageError(f"{target}: the map would replace the scene; give another path")
    info = read_info(source)
    check_sensor(info, segmenter.sensor)
    border = find_black_border(source) if black_border and _is_eight_bit_optical(segmenter.sensor) else None
    grid = Grid(info.width, info.height, *fit_window(window, overlap, info.height, info.width), panel)
    tally = _Tally(info, [0] * len(segmenter.scheme), [0.0] * len(segmenter.scheme))
    confidence_path = target.with_name(f"{target.stem}_confidence{target.suffix}") if confidence else None
    with ExitStack() as stack:
        stack.enter_context(bounded_cache())
        write_classes = stack.enter_context(_map_file(target, info, _class_legend(segmenter)))
        write_confidence = stack.enter_context(_map_file(confidence_path, info, _confidence_legend(segmenter))) if confidence_path else None
        stack.enter_context(evaluating(segmenter, place))
        read = _SceneReader(source, border)
        strips = predict_strips(segmenter, read, grid, batch_size=batch_size, device=place, precision=precision, confidence=confidence)
        done, windows = 0, grid.count()
        for strip in stack.enter_context(closing(strips)):
            write_classes(strip.classes, strip.window.column, strip.window.row)
            if write_confidence is not None and strip.confidence is not None:
                write_confidence(strip.confidence, strip.window.column, strip.window.row)
            tally.add(strip)
            done += strip.windows
            if progress is not None:
                progress(done, windows)
    names = segmenter.scheme.names
    return ScenePrediction(
        path=target,
        confidence_path=confidence_path,
        width=info.width,
        height=info.height,
        georeferenced=_is_georeferenced(info),
        valid_pixels=sum(tally.pixels),
        black_border=border is not None,
        class_pixels=dict(zip(names, tally.pixels, strict=True)),
        class_area_m2=None if tally.areas is None else dict(zip(names, tally.areas, strict=True)),
        seconds=time.perf_counter() - started,
    )


@dataclass(frozen=True)
class _SceneReader:
    """Reads windows of the scene, its black surroundings as not valid."""

    source: str
    border: BlackBorder | None

    def __call__(self, window: Window) -> Pixels:
        pixels = read_pixels(self.source, window)
        if self.border is None:
            return pixels
        return Pixels(pixels.data, pixels.valid & ~self.border.mask(pixels.data, window))


@dataclass
class _Tally:
    """Counts pixels and ground by class while strips pass by; ``areas`` turns None for good where ground cannot be told."""

    info: RasterInfo
    pixels: list[int]
    areas: list[float] | None

    def add(self, strip: Strip) -> None:
        counts = np.bincount(strip.classes.ravel(), minlength=IGNORE_INDEX + 1)[: len(self.pixels)].tolist()
        self.pixels = [before + count for before, count in zip(self.pixels, counts, strict=True)]
        if self.areas is None:
            return
        crs, transform = self.info.crs, self.info.transform
        ground = None if crs is None or transform is None else value_areas_m2(strip.classes, strip.window, crs, transform)
        self.areas = None if ground is None else [before + more for before, more in zip(self.areas, ground.tolist(), strict=False)]


def _is_eight_bit_optical(sensor: Sensor) -> bool:
    return sensor.dtype == "uint8" and all(band.kind == "optical" for band in sensor.bands)


def _is_georeferenced(info: RasterInfo) -> bool:
    return info.crs is not None and info.transform is not None


def _map_file(path: Path, info: RasterInfo, legend: Legend) -> AbstractContextManager[BlockWriter]:
    return raster_file(
        path,
        width=info.width,
        height=info.height,
        count=1,
        dtype="uint8",
        crs=info.crs,
        transform=info.transform,
        legend=legend,
        cog=True,
    )


def _tags(segmenter: PixelClassifier) -> dict[str, str]:
    return {"TILTH_SENSOR": segmenter.sensor.name, "TILTH_SCHEME": segmenter.scheme.name}


def _class_legend(segmenter: PixelClassifier) -> Legend:
    scheme = segmenter.scheme
    return Legend(colours=scheme.colours, class_names=scheme.names, tags=_tags(segmenter), nodata=IGNORE_INDEX)


def _confidence_legend(segmenter: PixelClassifier) -> Legend:
    return Legend(tags=_tags(segmenter) | {"UNIT": "percent, highest class probability"}, nodata=IGNORE_INDEX)
