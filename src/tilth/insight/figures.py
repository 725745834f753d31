"""Figures of features, as PNG, and those made of points and lines as SVG, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tilth.classes import IGNORE_INDEX, ClassScheme, Colour
from tilth.errors import needs_extra
from tilth.imagery.picture import NO_DATA_GREY
from tilth.imagery.write import atomic_path
from tilth.insight.clusters import NO_CLUSTER
from tilth.insight.encoders import Level

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tilth.evaluation.feature_result import MapScores

DPI = 120
# Pixels of a sheet: side of a picture, what lies between two, and what is above and left of all.
_CELL, _GAP, _HEAD, _EDGE = 156, 6, 60, 34
_UNLABELLED = (110, 110, 110)
_TIME_COLOURS = ("#1b6ca8", "#d1740f", "#2f8f4e", "#a63a79", "#6a5acd", "#8c6d1f", "#3b3b3b")
_LEGEND_ROWS = 24


@dataclass(frozen=True)
class Sheet:
    """Pictures of all maps of one tile.

    Attributes:
        title: line above.
        picture: uint8 (h, w, 3), the image.
        label: uint8 (h, w, 3), its labels in colours; None without.
        maps: uint8 (h', w', 3) by time and level.
    """

    title: str
    picture: NDArray[np.uint8]
    label: NDArray[np.uint8] | None
    maps: Mapping[tuple[int | None, Level], NDArray[np.uint8]]


@dataclass(frozen=True)
class Panel:
    """One panel of a t-SNE figure.

    Attributes:
        title: line above.
        points: float (n, 2).
        classes: uint8 (n,), 255 without label.
    """

    title: str
    points: NDArray[np.float32]
    classes: NDArray[np.uint8]


def level_name(level: Level) -> str:
    """Call a level by side and stride: ``decoder H/8``."""
    return "bands" if level.side == "bands" else f"{level.side} H/{level.stride}"


def time_name(time: int | None) -> str:
    """Call a time by its number."""
    return "" if time is None else f"t = {time}"


def paint_clusters(
    clusters: NDArray[np.uint8], shown: NDArray[np.uint8] | None, scheme: ClassScheme | None, palette: Sequence[Colour]
) -> NDArray[np.uint8]:
    """Colour clusters by the class that each shows.

    Args:
        clusters: uint8 (h, w), 255 without.
        shown: class of each cluster, 255 where none is known; None where there are no labels at all.
        scheme: of the classes.
        palette: colours by number of the cluster, where there are no labels.

    Returns:
        uint8 (h, w, 3). Of the clusters of one class the largest has its colour, the others lighter and darker shades of it. Clusters of
        which no class is known are of greys, too, pixels without image of one light grey.
    """
    table = np.full((256, 3), NO_DATA_GREY, np.uint8)
    if shown is None or scheme is None:
        table[: len(palette)] = palette
    else:
        sizes = np.bincount(clusters[clusters != NO_CLUSTER], minlength=len(shown))
        for value in np.unique(shown).tolist():
            mine = sorted(np.flatnonzero(shown == value).tolist(), key=lambda number: -int(sizes[number]))
            for place, number in enumerate(mine):
                table[number] = _shade(_UNLABELLED if value == IGNORE_INDEX else scheme.colours[value], place)
    table[NO_CLUSTER] = NO_DATA_GREY
    return table[clusters]


def _shade(colour: Colour, place: int) -> Colour:
    """Make a colour lighter and darker by turns, by more for each turn."""
    towards = 255 if place % 2 else 0
    share = 0.0 if place == 0 else min(0.2 + 0.09 * place, 0.75)
    red, green, blue = (round(value + (towards - value) * share) for value in colour)
    return red, green, blue


def cluster_palette(count: int) -> list[Colour]:
    """Colours for clusters without labels: hues spread evenly, light and dark by turns."""
    import colorsys

    made = (colorsys.hsv_to_rgb(number / count, 0.65, 0.9 if number % 2 else 0.65) for number in range(count))
    return [(round(255 * red), round(255 * green), round(255 * blue)) for red, green, blue in made]


def draw_sheet(sheet: Sheet, path: Path) -> Path:
    """Draw image, labels and all maps: a column for each level, a row for each time."""
    times = list(dict.fromkeys(time for time, _ in sheet.maps))
    levels = list(dict.fromkeys(level for _, level in sheet.maps))
    first = {"image": sheet.picture} | ({} if sheet.label is None else {"labels": sheet.label})
    width, height = _EDGE + (len(first) + len(levels)) * (_CELL + _GAP), _HEAD + len(times) * (_CELL + _GAP)
    figure = _figure((width / DPI, height / DPI))

    def write(left: float, top: float, text: str, **style: Any) -> None:
        figure.text(left / width, 1 - top / height, text, **{"fontsize": 8, "ha": "center", "va": "center", **style})

    def paste(column: int, row: int, picture: NDArray[np.uint8]) -> None:
        fitted = _fitted(picture)
        left, top = _EDGE + column * (_CELL + _GAP), _HEAD + row * (_CELL + _GAP)
        figure.figimage(fitted, left, height - top - fitted.shape[0], origin="upper")

    write(_GAP, _HEAD / 4, sheet.title, fontsize=9, ha="left")
    for column, name in enumerate([*first, *map(level_name, levels)]):
        write(_EDGE + column * (_CELL + _GAP) + _CELL / 2, _HEAD - 12, name)
    for column, picture in enumerate(first.values()):
        paste(column, 0, picture)
    for row, time in enumerate(times):
        write(_EDGE / 2, _HEAD + row * (_CELL + _GAP) + _CELL / 2, time_name(time), rotation=90)
        for column, level in enumerate(levels, start=len(first)):
            if (found := sheet.maps.get((time, level))) is not None:
                paste(column, row, found)
    return _save(figure, path)


def _fitted(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Resize a picture so that its longer side fills a cell; pixels of maps and labels keep their borders."""
    from PIL import Image

    scale = _CELL / max(picture.shape[:2])
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.NEAREST))


def draw_tsne(panels: Sequence[Panel], scheme: ClassScheme | None, path: Path) -> Path:
    """Draw panels side by side, three in a row, with one legend of classes."""
    across = min(len(panels), 3)
    down = -(-len(panels) // across)
    figure = _figure((across * 3.6 + 1.6, down * 3.6 + 0.3))
    for number, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(down, across, number)
        axes.set_title(panel.title, fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
        # Drawn in an order of chance that is always the same: classes drawn last would hide the others.
        order = np.random.default_rng(0).permutation(len(panel.points))
        colours = np.array([*(scheme.colours if scheme else ()), _UNLABELLED], np.float64) / 255
        places = np.minimum(panel.classes, len(colours) - 1)[order]
        # As pixels even in SVG: thousands of marks would make a file of megabytes.
        axes.scatter(*panel.points[order].T, c=colours[places], s=5, linewidths=0.15, edgecolors=(0, 0, 0, 0.35), rasterized=True)
    there = sorted({int(value) for panel in panels for value in panel.classes if value != IGNORE_INDEX})
    if scheme is not None and there:
        _legend(figure, scheme, there)
    _save(figure, path.with_suffix(".svg"))
    return _save(figure, path)


def draw_probes(maps: Sequence[MapScores], path: Path) -> Path:
    """Draw the mean IoU of both probes over the levels of each encoder, one line for each time; colours alone as a dashed line."""
    names = list(dict.fromkeys(item.encoder for item in maps if item.side != "bands"))
    floor = next((item for item in maps if item.side == "bands"), None)
    figure = _figure((max(3.4, 3.9 * len(names)), 6.4))
    axes = figure.subplots(2, len(names), squeeze=False, sharey=True)
    for column, name in enumerate(names):
        mine = [item for item in maps if item.encoder == name]
        levels = list(dict.fromkeys(level_name(Level(item.side, item.stride)) for item in mine))
        for row, (score, title) in enumerate((("linear_mean_iou", "linear"), ("neighbour_mean_iou", "k-NN"))):
            _draw_lines(axes[row, column], mine, levels, score)
            if floor is not None and getattr(floor, score) is not None:
                axes[row, column].axhline(100 * getattr(floor, score), color="#777777", linestyle="--", linewidth=1, label="bands alone")
            axes[row, column].set_title(f"{name}: {title} probe", fontsize=9)
            axes[row, column].set_ylabel("mIoU in %" if column == 0 else "", fontsize=8)
            axes[row, column].legend(fontsize=7, frameon=False)
    figure.tight_layout()
    _save(figure, path.with_suffix(".svg"))
    return _save(figure, path)


def _draw_lines(axes: Axes, maps: Sequence[MapScores], levels: Sequence[str], score: str) -> None:
    """One line for each time; sides are not joined."""
    for place, time in enumerate(dict.fromkeys(item.time for item in maps)):
        colour = _TIME_COLOURS[place % len(_TIME_COLOURS)]
        label = time_name(time) or None
        for side in dict.fromkeys(item.side for item in maps):
            mine = [item for item in maps if item.time == time and item.side == side and getattr(item, score) is not None]
            places = [levels.index(level_name(Level(item.side, item.stride))) for item in mine]
            axes.plot(places, [100 * getattr(item, score) for item in mine], marker="o", markersize=4, color=colour, label=label)
            label = None
    axes.set_xticks(range(len(levels)), levels, rotation=40, ha="right", fontsize=7)
    axes.tick_params(axis="y", labelsize=7)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)


def _legend(figure: Figure, scheme: ClassScheme, there: Sequence[int]) -> None:
    with needs_extra("report", "figures of features"):
        from matplotlib.lines import Line2D

    marks = [
        Line2D([], [], marker="o", linestyle="", markersize=6, color=_unit(scheme.colours[value]), label=scheme.names[value])
        for value in there
    ]
    figure.tight_layout(rect=(0, 0, 1 - 1.5 / figure.get_size_inches()[0], 1))
    figure.legend(handles=marks, loc="center right", fontsize=7, frameon=False, ncols=-(-len(marks) // _LEGEND_ROWS))


def _unit(colour: Colour) -> tuple[float, float, float]:
    red, green, blue = colour
    return red / 255, green / 255, blue / 255


def _figure(inches: tuple[float, float]) -> Any:
    with needs_extra("report", "figures of features"):
        from matplotlib.figure import Figure

    return Figure(figsize=inches, dpi=DPI, facecolor="white")


def _save(figure: Figure, path: Path) -> Path:
    """Write a figure; the same figure gives the same bytes."""
    with needs_extra("report", "figures of features"):
        from matplotlib import rc_context

    kind = path.suffix.lstrip(".")
    # Neither the time nor random names go into the file.
    with atomic_path(path) as beside, rc_context({"svg.hashsalt": "tilth"}):
        figure.savefig(beside, format=kind, dpi=DPI, metadata={"Date": None} if kind == "svg" else None)
    return path
