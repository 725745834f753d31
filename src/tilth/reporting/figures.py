"""Curves and strip plots as inline SVG.

Why not bokeh: its inline script alone is 1.3 to 3.9 MB a file, more than all pictures together, and it paints on a canvas that neither
follows the reader's light or dark setting nor prints as lines. Why not matplotlib: its SVG fixes the colours too, and cannot be
explored. The SVG made here takes its colours from the page and carries its numbers along (a few kB a chart); ``report.js`` adds reading
values under the pointer or with arrow keys, zooming and hiding lines. Without a script, and on paper, the drawing still stands.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from markupsafe import Markup, escape

from tilth.reporting.collect import Curve
from tilth.reporting.numbers import percent, significant, whole

WIDTH, HEIGHT = 480, 250
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 30
MOST_POINTS = 120
_DASHES = ("", "6 3", "2 3", "8 3 2 3")

Format = Literal["percent", "number"]
_WRITERS: dict[Format, Callable[[Any], str]] = {"percent": percent, "number": significant}


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        name: as the legend calls it.
        curve: points, already thin enough to draw.
        colour: CSS colour.
        dash: number of the dash pattern, 0 = solid; tells lines apart without colour.
    """

    name: str
    curve: Curve
    colour: str
    dash: int = 0


@dataclass(frozen=True)
class Chart:
    """One chart with everything the page needs to show it.

    Attributes:
        key: identifier, unique on the page.
        title: what is plotted, with its unit.
        description: what to look for; may be empty.
        form: how values are written.
        series: the lines.
        from_zero: the axis starts at zero.
        outlined: lines have colours of classes, which may be close to the ground, and need an outline.
    """

    key: str
    title: str
    description: str
    form: Format
    series: tuple[Series, ...]
    from_zero: bool = False
    outlined: bool = False

    @property
    def svg(self) -> Markup:
        """The drawing."""
        return draw_lines(self)

    @property
    def payload(self) -> Markup:
        """The numbers for ``report.js``, as JSON that is safe inside a script element."""
        tree = {
            "form": self.form,
            "zero": self.from_zero,
            "low": bounds(self)[0],
            "series": [{"x": item.curve.steps, "y": [float(f"{value:.5g}") for value in item.curve.values]} for item in self.series],
        }
        return Markup(json.dumps(tree, separators=(",", ":")).replace("<", "\\u003c"))  # noqa: S704 - numbers and our own words only

    @property
    def rows(self) -> list[tuple[str, list[str]]]:
        """Up to eight steps with the value of every series, for the table under the drawing."""
        steps = sorted({step for item in self.series for step in item.curve.steps})
        if len(steps) > 8:
            steps = [steps[round(index * (len(steps) - 1) / 7)] for index in range(8)]
        return [(whole(step), [_WRITERS[self.form](_value_at(item.curve, step)) for item in self.series]) for step in steps]


def thin(curve: Curve, most: int = MOST_POINTS) -> tuple[Curve, int]:
    """Average neighbouring points until a curve has at most ``most``.

    Returns:
        The thinner curve, each point at the last step of its group, and how many points were averaged into one.
    """
    size = math.ceil(len(curve.steps) / most)
    if size <= 1:
        return curve, 1
    starts = range(0, len(curve.steps), size)
    groups = [curve.values[start : start + size] for start in starts]
    steps = tuple(curve.steps[min(start + size, len(curve.steps)) - 1] for start in starts)
    return Curve(steps, tuple(math.fsum(group) / len(group) for group in groups)), size


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Average several curves over the steps that all of them have."""
    lookups = [dict(zip(curve.steps, curve.values, strict=True)) for curve in curves]
    steps = sorted(set.intersection(*(set(lookup) for lookup in lookups)))
    return Curve(tuple(steps), tuple(math.fsum(lookup[step] for lookup in lookups) / len(lookups) for step in steps))


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Choose round numbers that span [low, high], about ``count`` of them.

    Example:
        >>> ticks(0, 97)
        [0.0, 20.0, 40.0, 60.0, 80.0]
    """
    if not high > low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def bounds(chart: Chart) -> tuple[float, float, float, float]:
    """Return the data range to show: x low, x high, y low, y high."""
    steps = [step for item in chart.series for step in item.curve.steps]
    values = [value for item in chart.series for value in item.curve.values]
    x_low, x_high = min(steps), max(steps)
    if x_low <= x_high / 4:
        x_low = 0
    y_low, y_high = (min(0.0, *values) if chart.from_zero else min(values)), max(values)
    margin = (y_high - y_low) * 0.06 or abs(y_high) * 0.1 or 0.1
    return x_low, max(x_high, x_low + 1), y_low if y_low == 0 else y_low - margin, y_high + margin


def draw_lines(chart: Chart) -> Markup:
    """Draw a line chart; colours and text sizes come from the style sheet."""
    x_low, x_high, y_low, y_high = bounds(chart)

    def across(step: float) -> float:
        return LEFT + (step - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def down(value: float) -> float:
        return HEIGHT - BOTTOM - (value - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<svg class="lines" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(_spoken(chart))}">', '<g class="axes">']
    for value in ticks(y_low, y_high):
        y = f"{down(value):.1f}"
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y}" dy="0.35em" text-anchor="end">{tick_text(value, chart.form)}</text>')
    parts += [
        f'<text x="{across(step):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{tick_text(step, "steps")}</text>'
        for step in ticks(x_low, x_high, 4)
    ]
    parts.append(f'<text x="{LEFT - 8}" y="{HEIGHT - BOTTOM + 18}" text-anchor="end">step</text></g><g class="curves">')
    for item in chart.series:
        path = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in zip(item.curve.steps, item.curve.values, strict=True))
        style = f"stroke:{escape(item.colour)};stroke-dasharray:{dash(item.dash)}"
        if len(item.curve.steps) == 1:
            centre = f'cx="{across(item.curve.steps[0]):.1f}" cy="{down(item.curve.values[0]):.1f}"'
            parts.append(f'<circle class="curve" {centre} r="3.5" style="{style};fill:{escape(item.colour)}"/>')
        else:
            parts.append(f'<polyline class="curve" points="{path}" style="{style}"/>')
    parts.append(f'</g><line class="cursor" y1="{TOP}" y2="{HEIGHT - BOTTOM}" visibility="hidden"/></svg>')
    return Markup("".join(parts))  # noqa: S704 - every foreign text in it is escaped above


def dash(number: int) -> str:
    """Return the dash pattern of a series as CSS."""
    return _DASHES[number % len(_DASHES)] or "none"


def tick_text(value: float, form: Literal["percent", "number", "steps"]) -> str:
    """Write the number at an axis tick, without needless zeros."""
    if form == "steps":
        return whole(value) if value == round(value) else f"{value:.4g}"
    if form == "percent":
        return f"{value * 100:.4g}\u202f%"
    if value != 0 and not 1e-3 <= abs(value) < 1e5:
        return re.sub(r"e([+-])0?", lambda match: "e" + ("\u2212" if match[1] == "-" else ""), f"{value:.3g}")
    return f"{value:.4g}".replace("-", "\u2212")


@dataclass(frozen=True)
class Strip:
    """One row of a strip plot: a group's single values, their mean and spread (fractions)."""

    name: str
    values: tuple[float, ...]
    mean: float | None
    sd: float | None
    colour: str


def draw_strips(rows: Sequence[Strip], plain: bool = False) -> Markup:
    """Draw one dot for each value, a band for mean ± standard deviation and a stroke for the mean.

    Args:
        rows: the groups, from top to bottom.
        plain: write values as they are instead of in percent, for kappa.
    """
    form: Format = "number" if plain else "percent"
    pairs = [(row.mean, row.sd or 0.0) for row in rows if row.mean is not None]
    reach = [value for row in rows for value in row.values] + [mean - sd for mean, sd in pairs] + [mean + sd for mean, sd in pairs]
    if not reach:
        return Markup("")
    low, high = min(reach), max(reach)
    margin = max((high - low) * 0.08, 0.004)
    # Scores end at 1; none but kappa goes below 0.
    low, high = low - margin if plain else max(low - margin, 0.0), min(high + margin, 1.01)
    pitch, left, right = 52, 14, 14
    height = len(rows) * pitch + 34

    def across(value: float) -> float:
        return left + (value - low) / (high - low) * (WIDTH - left - right)

    spoken = "; ".join(f"{row.name}: {', '.join(_WRITERS[form](value) for value in row.values)}" for row in rows)
    parts = [f'<svg class="strips" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(spoken)}"><g class="axes">']
    for value in ticks(low, high):
        x = f"{across(value):.1f}"
        parts.append(f'<line x1="{x}" x2="{x}" y1="4" y2="{height - 26}"/>')
        parts.append(f'<text x="{x}" y="{height - 8}" text-anchor="middle">{tick_text(value, form)}</text>')
    parts.append("</g>")
    for index, row in enumerate(rows):
        middle = index * pitch + 36
        colour = escape(row.colour)
        parts.append(f'<text class="row" x="{left}" y="{middle - 16}">{escape(row.name)}</text>')
        if row.mean is not None:
            if row.sd:
                width = across(row.mean + row.sd) - across(row.mean - row.sd)
                parts.append(
                    f'<rect class="spread" x="{across(row.mean - row.sd):.1f}" y="{middle - 7}" width="{width:.1f}" height="14" rx="3" '
                    f'style="fill:{colour}"/>'
                )
            x = f"{across(row.mean):.1f}"
            parts.append(f'<line class="mean" x1="{x}" x2="{x}" y1="{middle - 10}" y2="{middle + 10}" style="stroke:{colour}"/>')
        parts += [
            f'<circle cx="{across(value):.1f}" cy="{middle}" r="5" style="fill:{colour}"><title>{_WRITERS[form](value)}</title></circle>'
            for value in row.values
        ]
    parts.append("</svg>")
    return Markup("".join(parts))  # noqa: S704 - every foreign text in it is escaped above


def _value_at(curve: Curve, step: int) -> float | None:
    """Return the value at the latest point that is not after a step; None before the first."""
    earlier = [value for at, value in zip(curve.steps, curve.values, strict=True) if at <= step]
    return earlier[-1] if earlier else None


def _spoken(chart: Chart) -> str:
    """Say a chart in words for those who cannot see it."""
    write = _WRITERS[chart.form]
    ends = "; ".join(f"{item.name} from {write(item.curve.values[0])} to {write(item.curve.values[-1])}" for item in chart.series)
    return f"{chart.title}: {ends}"
