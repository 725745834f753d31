"""Diagrams of evaluations as inline SVG: reliability, areas with their intervals, classes of several models.

Like the curves, they take their colours from the page and stand without a script; every mark says its numbers when pointed at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from tilth.evaluation.result import Calibration
from tilth.reporting import numbers
from tilth.reporting.figures import WIDTH, tick_text, ticks
from tilth.reporting.inputs import Rgb

_SIDE = 300
_LEFT, _TOP, _GAP, _HISTOGRAM = 52, 10, 14, 54


def draw_reliability(calibration: Calibration) -> Markup:
    """Draw how often the model is right (bars) against how sure it is (diagonal), and below it how many pixels are how sure.

    A bar that ends below the diagonal is a model that promises too much; the gap is marked.
    """
    bins = [item for item in calibration.bins if item.accuracy is not None and item.confidence is not None]
    if not bins:
        return Markup("")
    total, most = sum(item.pixels for item in bins), max(item.pixels for item in bins)
    width, foot = _LEFT + _SIDE + 12, _TOP + _SIDE + _GAP
    height = foot + _HISTOGRAM + 44

    def across(value: float) -> float:
        return _LEFT + value * _SIDE

    def down(value: float) -> float:
        return _TOP + (1 - value) * _SIDE

    spoken = "; ".join(f"said {numbers.percent(item.confidence)}, right {numbers.percent(item.accuracy)}" for item in bins)
    parts = [f'<svg class="reliability" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(spoken)}"><g class="axes">']
    for value in ticks(0, 1):
        parts.append(f'<line x1="{_LEFT}" x2="{_LEFT + _SIDE}" y1="{down(value):.1f}" y2="{down(value):.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{down(value):.1f}" dy="0.35em" text-anchor="end">{tick_text(value, "percent")}</text>')
        parts.append(
            f'<text x="{across(value):.1f}" y="{foot + _HISTOGRAM + 18}" text-anchor="middle">{tick_text(value, "percent")}</text>'
        )
    parts.append(f'<line x1="{_LEFT}" x2="{_LEFT + _SIDE}" y1="{foot + _HISTOGRAM}" y2="{foot + _HISTOGRAM}"/></g>')
    for item in bins:
        said, right = item.confidence or 0.0, item.accuracy or 0.0
        x, wide = across(item.lower) + 1, (item.upper - item.lower) * _SIDE - 2
        tall = max(item.pixels / most * _HISTOGRAM, 0.8)
        words = (
            f"said {numbers.percent(said)}, right {numbers.percent(right)}, "
            f"{numbers.whole(item.pixels)} pixels ({numbers.percent(item.pixels / total)})"
        )
        gap = "over" if said > right else "under"
        column = f'x="{x:.1f}" width="{wide:.1f}"'
        parts.append(
            f"<g><title>{words}</title>"
            f'<rect class="right" {column} y="{down(right):.1f}" height="{right * _SIDE:.1f}"/>'
            f'<rect class="gap {gap}" {column} y="{down(max(said, right)):.1f}" height="{abs(said - right) * _SIDE:.1f}"/>'
            f'<rect class="count" {column} y="{foot + _HISTOGRAM - tall:.1f}" height="{tall:.1f}"/></g>'
        )
    parts.append(f'<line class="diagonal" x1="{_LEFT}" y1="{down(0):.1f}" x2="{_LEFT + _SIDE}" y2="{down(1):.1f}"/>')
    parts.append(f'<text x="{_LEFT}" y="{_TOP + 12}" dx="8" class="row">share that is right</text>')
    parts.append(f'<text x="{_LEFT}" y="{foot + 10}" dx="8">pixels</text>')
    parts.append(f'<text x="{_LEFT + _SIDE}" y="{height - 6}" text-anchor="end" class="row">how sure the model is</text></svg>')
    return Markup("".join(parts))  # noqa: S704 - numbers and our own words only


@dataclass(frozen=True)
class AreaBar:
    """One class of an assessment: area as mapped and as estimated with its interval, in one unit; None where there is none."""

    name: str
    mapped: float | None
    estimate: float | None
    interval: tuple[float, float] | None
    colour: Rgb | None


def draw_areas(rows: Sequence[AreaBar], unit: str) -> Markup:
    """Draw a bar for the estimate of every class with a whisker for its 95 % interval, and a triangle where the map alone puts it.

    Args:
        rows: the classes, from top to bottom.
        unit: of all values, as written on the axis.
    """
    reach = [value for row in rows for value in (row.mapped, row.estimate, *(row.interval or ())) if value is not None]
    high = max(reach, default=0.0)
    if high <= 0:
        return Markup("")
    pitch, left, right, top = 50, 14, 22, 6
    height = len(rows) * pitch + top + 34

    def across(value: float) -> float:
        return left + value / (high * 1.03) * (WIDTH - left - right)

    spoken = "; ".join(f"{row.name}: {_area_words(row, unit)}" for row in rows)
    parts = [f'<svg class="areas" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(spoken)}"><g class="axes">']
    for value in ticks(0, high * 1.03):
        x = f"{across(value):.1f}"
        parts.append(f'<line x1="{x}" x2="{x}" y1="{top}" y2="{height - 28}"/>')
        label = f"{tick_text(value, 'number')}{numbers.SPACE}{escape(unit)}" if value else "0"
        parts.append(f'<text x="{x}" y="{height - 10}" text-anchor="{"start" if value == 0 else "middle"}">{label}</text>')
    parts.append("</g>")
    for place, row in enumerate(rows):
        middle = top + place * pitch + 32
        fill = f"rgb({','.join(map(str, row.colour))})" if row.colour else "var(--accent)"
        parts.append(f"<g><title>{escape(row.name)}: {escape(_area_words(row, unit))}</title>")
        parts.append(f'<text class="row" x="{left}" y="{middle - 14}">{escape(row.name)}</text>')
        if row.estimate is not None:
            wide = f"{across(row.estimate) - left:.1f}"
            parts.append(f'<rect class="estimate" x="{left}" y="{middle - 7}" width="{wide}" height="14" style="fill:{fill}"/>')
        if row.interval is not None:
            low, far = (f"{across(end):.1f}" for end in row.interval)
            parts.append(f'<path class="whisker" d="M{low} {middle}H{far}M{low} {middle - 5}v10M{far} {middle - 5}v10"/>')
        if row.mapped is not None:
            parts.append(f'<path class="mapped" d="M{across(row.mapped):.1f} {middle + 7}l-5 9h10z"/>')
        parts.append("</g>")
    parts.append("</svg>")
    return Markup("".join(parts))  # noqa: S704 - every foreign text in it is escaped above


def _area_words(row: AreaBar, unit: str) -> str:
    def write(value: float | None) -> str:
        return "unknown" if value is None else f"{numbers.significant(value)}{numbers.SPACE}{unit}"

    between = f", 95 % interval {write(row.interval[0])} to {write(row.interval[1])}" if row.interval else ""
    return f"estimated {write(row.estimate)}{between}; mapped {write(row.mapped)}"


@dataclass(frozen=True)
class ClassDots:
    """One class in several models: its name, and a fraction or None for each model."""

    name: str
    values: tuple[float | None, ...]


def draw_classes(rows: Sequence[ClassDots], names: Sequence[str], colours: Sequence[str]) -> Markup:
    """Draw one row a class with one dot a model, joined by a line: how far the models lie apart.

    Args:
        rows: the classes, from top to bottom.
        names: of the models.
        colours: CSS colour of every model.
    """
    reach = [value for row in rows for value in row.values if value is not None]
    if not reach:
        return Markup("")
    pitch, left, right, top = 30, 150, 18, 6
    height = len(rows) * pitch + top + 32
    low, high = max(min(reach) - 0.03, 0.0), min(max(reach) + 0.03, 1.0)

    def across(value: float) -> float:
        return left + (value - low) / (high - low) * (WIDTH - left - right)

    spoken = "; ".join(f"{row.name}: {', '.join(_spoken_value(value) for value in row.values)}" for row in rows)
    parts = [f'<svg class="dots" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(spoken)}"><g class="axes">']
    for value in ticks(low, high):
        x = f"{across(value):.1f}"
        parts.append(f'<line x1="{x}" x2="{x}" y1="{top}" y2="{height - 26}"/>')
        parts.append(f'<text x="{x}" y="{height - 8}" text-anchor="middle">{tick_text(value, "percent")}</text>')
    parts.append("</g>")
    for place, row in enumerate(rows):
        middle = top + place * pitch + pitch / 2
        known = [value for value in row.values if value is not None]
        if not known:
            parts.append(f'<text x="{left}" y="{middle}" dy="0.35em">absent</text>')
        shown = row.name if len(row.name) <= 20 else f"{row.name[:19]}…"
        parts.append(f'<text class="row" x="{left - 14}" y="{middle}" dy="0.35em" text-anchor="end">{escape(shown)}</text>')
        if len(known) > 1:
            parts.append(f'<line class="apart" x1="{across(min(known)):.1f}" x2="{across(max(known)):.1f}" y1="{middle}" y2="{middle}"/>')
        for name, colour, fraction in zip(names, colours, row.values, strict=True):
            if fraction is not None:
                title = f"{escape(row.name)}, {escape(name)}: {numbers.percent(fraction)}"
                dot = f'<circle cx="{across(fraction):.1f}" cy="{middle}" r="5.5" style="fill:{escape(colour)}">'
                parts.append(f"{dot}<title>{title}</title></circle>")
    parts.append("</svg>")
    return Markup("".join(parts))  # noqa: S704 - every foreign text in it is escaped above


def _spoken_value(value: float | None) -> str:
    return "absent" if value is None else numbers.percent(value)
