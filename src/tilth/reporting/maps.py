"""Reading a class map for the page: its pictures, what each class covers, where on Earth it lies, and what lies beside it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilth.errors import DataError, TilthWarning, needs_extra
from tilth.imagery.area import value_areas_m2
from tilth.imagery.class_map import class_names
from tilth.imagery.raster import Window
from tilth.prediction.beside import confidence_beside, stamp_of, stamps_differ
from tilth.reporting.ground import Grid, opened, pixel_text, round_length, row_bands
from tilth.reporting.inputs import VIEWER_PIXELS, MapInput, PathLike, Rgb
from tilth.reporting.layers import NOTHING, Agreement, agreement, differences, names_tag, read_scene, read_values
from tilth.reporting.pictures import NEUTRAL, embed, embed_values
from tilth.reporting.viewer import DIFFERENCE_COLOURS, Layer, Viewer, class_rows, confidence_colours

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class MapClass:
    """What one class covers on a map: share of the pixels with data, ground in m² (None without a place on Earth)."""

    name: str
    colour: Rgb
    pixels: int
    share: float | None
    area_m2: float | None


@dataclass(frozen=True)
class MapView:
    """A map, ready to be shown.

    Attributes:
        name: as shown.
        file: file name.
        viewer: its pictures and those of what lies beside it.
        classes: those that occur, or are named in the file.
        crs: authority code or name; None for a map without.
        pixel: size of one pixel with unit; empty without CRS.
        width: of the map, in pixels.
        height: of the map, in pixels.
        shown: width and height of the pictures.
        nodata_share: share of pixels without data.
        bar_metres: round length on the ground for a scale bar; None without a place on Earth.
        bar_share: its length as a share of the picture's width.
        agreements: how far reference, map and further maps agree, counted on every pixel.
    """

    name: str
    file: str
    viewer: Viewer
    classes: tuple[MapClass, ...]
    crs: str | None
    pixel: str
    width: int
    height: int
    shown: tuple[int, int]
    nodata_share: float
    bar_metres: float | None
    bar_share: float
    agreements: tuple[Agreement, ...] = ()


@dataclass(frozen=True)
class _Legend:
    """Names and colours of classes by id, as far as a file tells them."""

    names: dict[int, str]
    colours: dict[int, Rgb]

    def colour(self, value: int) -> Rgb:
        return self.colours.get(value, NEUTRAL[value % len(NEUTRAL)])


def read_map(item: MapInput | PathLike, longest: int = VIEWER_PIXELS) -> MapView:
    """Read a class map and what is named beside it.

    Pictures are thinned to at most ``longest`` pixels a side; shares, areas and agreements count every pixel, block by block, whatever
    the map's size.

    Raises:
        MissingFileError: the map or something beside it does not exist.
        UnreadableFileError: it cannot be read.
        DataError: the map is not one band of 8-bit class ids, or something beside it has other classes, another type, or lies elsewhere.
        MissingExtraError: rasterio is not installed.
    """
    with needs_extra("geo", "maps in a report"):
        import rasterio  # noqa: F401 - named here so that its absence is told in the words of this page
    import numpy as np

    given = _with_confidence(item if isinstance(item, MapInput) else MapInput(item))
    file = Path(given.path)
    with opened(file, "map") as source:
        if source.dtypes[0] != "uint8" or source.count != 1:
            found = f"{source.count} band{'s' * (source.count > 1)} of {source.dtypes[0]}"
            raise DataError(f"{file}: expected one band of 8-bit class ids, found {found}; give the class map of a prediction")
        grid = Grid.of(source, file, longest)
        pixels, areas = _count(source, grid)
        nodata = int(source.nodata) if source.nodata is not None and 0 <= source.nodata <= 255 else NOTHING
        legend = _legend(source)
        pixel = pixel_text(source)
    counted = int(pixels.sum() - sum(pixels[index] for index in {nodata, NOTHING}))
    present = sorted(({int(index) for index in np.nonzero(pixels)[0]} | set(legend.names)) - {nodata, NOTHING})
    classes = tuple(
        MapClass(
            name=legend.names.get(index, f"class {index}"),
            colour=legend.colour(index),
            pixels=int(pixels[index]),
            share=int(pixels[index]) / counted if counted else None,
            area_m2=None if areas is None else float(areas[index]),
        )
        for index in present
    )
    viewer, agreements = _layers(given, grid, legend, present)
    ground_m = viewer.ground.metres if viewer.ground else None
    bar = round_length(ground_m / 4) if ground_m else None
    return MapView(
        name=given.name or file.stem,
        file=file.name,
        viewer=viewer,
        classes=classes,
        crs=grid.crs,
        pixel=pixel,
        width=grid.width,
        height=grid.height,
        shown=grid.shown,
        nodata_share=1 - counted / max(int(pixels.sum()), 1),
        bar_metres=bar,
        bar_share=bar / ground_m if bar and ground_m else 0.0,
        agreements=agreements,
    )


def _with_confidence(given: MapInput) -> MapInput:
    """Add the confidence that a prediction leaves beside its map, if it is this map's."""
    path = Path(given.path)
    if given.confidence is not None:
        fault = stamps_differ(stamp_of(path), str(path), str(given.confidence))
        if fault is not None:
            raise DataError(fault)
        return given
    beside, why_not = confidence_beside(path) if path.is_file() else (None, None)
    if why_not is not None:
        warnings.warn(f"the confidence beside {path} is left out: {why_not}", TilthWarning, stacklevel=3)
    return given if beside is None else replace(given, confidence=beside)


def _layers(given: MapInput, grid: Grid, legend: _Legend, present: list[int]) -> tuple[Viewer, tuple[Agreement, ...]]:
    """Read every layer of the viewer: imagery, reference, map, further maps, confidence, differences."""
    name, file = given.name or grid.file.stem, Path(given.path)
    files = {"Reference": Path(given.label)} if given.label is not None else {}
    own = "Prediction"
    for other in given.others:
        if other in {"Image", "Reference", "Prediction", "Confidence"}:
            raise DataError(f"{file}: a map to compare with cannot be called {other!r}, as another layer is; give it another name")
    files |= {own: file} | {other: Path(path) for other, path in given.others.items()}
    values = {layer: _classes_of(path, grid, legend, layer) for layer, path in files.items()}
    shown = {int(value) for part in values.values() for value in _distinct_values(part)} | set(present)
    rows = class_rows(legend.names, {value: legend.colour(value) for value in sorted(shown - {NOTHING})})
    colours = {value: colour for value, _, colour in rows}
    layers: list[Layer] = []
    if given.scene is not None:
        picture = embed(read_scene(Path(given.scene), grid), "photo", max(grid.shown))
        layers.append(Layer("Image", "picture", picture, f"Image of the ground of the map {name}", stacked=True))
    words = {"Reference": f"Reference classes of the ground of the map {name}", own: f"Class map {name}"}
    for layer, part in values.items():
        picture = embed_values(part, colours, part == NOTHING)
        layers.append(Layer(layer, "classes", picture, words.get(layer, f"Class map {layer} of the same ground"), stacked=layer == own))
    if given.confidence is not None:
        percent = read_values(Path(given.confidence), grid, "confidence")
        picture = embed_values(percent, confidence_colours(), percent == NOTHING)
        layers.append(Layer("Confidence", "confidence", picture, f"Confidence of the map {name}: dark where the model is unsure"))
    basis = "Reference" if "Reference" in files else own
    agreements = []
    for layer in files:
        if layer != basis:
            marked = differences(values[basis], values[layer])
            picture = embed_values(marked, DIFFERENCE_COLOURS, marked == NOTHING)
            title = f"{'Errors' if basis == 'Reference' else 'Differences'}{'' if layer == own else f', {layer}'}"
            alt = f"Where {layer} differs from {basis}, in red"
            layers.append(Layer(title, "difference", picture, alt, side=not given.others or layer == own))
            agreements.append(agreement((basis, files[basis]), (layer, files[layer]), grid))
    width, height = grid.width, grid.height
    return Viewer(f"Layers of the map {name}", width, height, tuple(layers), rows, grid.ground()), tuple(agreements)


def _classes_of(file: Path, grid: Grid, legend: _Legend, layer: str) -> np.ndarray:
    """Read a layer of classes, uint8 (h, w); one whose classes are not the map's is refused, for its colours would lie."""
    what = "reference" if layer == "Reference" else "map"
    if file != grid.file:
        with opened(file, what) as source:
            theirs = _legend(source).names
        if theirs and legend.names and theirs != legend.names:
            odd = next(value for value in sorted({*theirs, *legend.names}) if theirs.get(value) != legend.names.get(value))
            raise DataError(
                f"{file}: class {odd} is {theirs.get(odd, 'not there')!r}, but {legend.names.get(odd, 'not there')!r} in {grid.file.name}; "
                "give layers of one class scheme"
            )
    values = read_values(file, grid, "reference" if layer == "Reference" else "map")
    unknown = sorted({int(value) for value in _distinct_values(values)} - set(legend.names) - {NOTHING})
    if unknown and legend.names and file != grid.file:
        raise DataError(
            f"{file}: holds class {unknown[0]}, which {grid.file.name} does not name ({len(legend.names)} classes, 255 = none); "
            "give layers of one class scheme"
        )
    return values


def _distinct_values(values: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.flatnonzero(np.bincount(values.ravel(), minlength=256))


def _count(source: Any, grid: Grid) -> tuple[np.ndarray, np.ndarray | None]:
    """Count pixels, int64 (256,), and ground in m², float64 (256,) or None without a place on Earth, a band of rows at a time."""
    import numpy as np

    pixels = np.zeros(256, np.int64)
    areas = None if grid.place is None else np.zeros(256, np.float64)
    for first, rows in row_bands(source.height, source.width):
        block = source.read(1, window=((first, first + rows), (0, source.width)))
        pixels += np.bincount(block.ravel(), minlength=256)
        if areas is not None and grid.place is not None:
            ground = value_areas_m2(block, Window(0, first, source.width, rows), *grid.place)
            areas = None if ground is None else areas + ground
    return pixels, areas


def _legend(source: Any) -> _Legend:
    """Read class names and the colour table."""
    names = class_names(names_tag(source))
    try:
        table = source.colormap(1)
    except ValueError:
        return _Legend(names, {})
    # A palette always has 256 entries; those that are neither named nor drawn are fillers.
    return _Legend(names, {index: (entry[0], entry[1], entry[2]) for index, entry in table.items()})
