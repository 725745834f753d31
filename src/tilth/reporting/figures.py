"""Curves as inline SVG.

Why not bokeh: its inline script alone is 1.3 to 3.9 MB a file, more than all pictures together, and it paints on a canvas that neither
follows the reader's light or dark setting nor prints as lines. Why not matplotlib: its SVG fixes the colours too, and cannot be
explored. The SVG made here takes its colours from the page and carries its numbers along (a few kB a chart); ``curves.js`` adds reading
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
MOST_SEED_POINTS = 60
_DASHES = ("", "6 3", "2 3", "8 3 2 3")

Format = Literal["percent", "number"]
WRITERS: dict[Format, Callable[[Any], str]] = {"percent": percent, "number": significant}


@dataclass(frozen=True)
class Band:
    """How far several runs lie apart.

    Attributes:
        low: smallest value of any run, at the steps of the curve it belongs to.
        high: largest value.
        seeds: the runs themselves.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    seeds: tuple[Curve, ...]


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        name: as the legend calls it.
        curve: points, already thin enough to draw.
        colour: CSS colour.
        dash: number of the dash pattern, 0 = solid; tells lines apart without colour.
        band: spread over seeds, where the line is their mean.
    """

    name: str
    curve: Curve
    colour: str
    dash: int = 0
    band: Band | None = None

    @property
    def reach(self) -> list[float]:
        """All values to make room for."""
        band = self.band
        seeds = [value for seed in band.seeds for value in seed.values] if band else []
        return [*self.curve.values, *seeds, *(band.low + band.high if band else ())]

    @property
    def steps(self) -> list[int]:
        """All steps to make room for."""
        return [*self.curve.steps, *(step for seed in (self.band.seeds if self.band else ()) for step in seed.steps)]


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
    def banded(self) -> bool:
        """Whether a line is the mean of several seeds."""
        return any(item.band for item in self.series)

    @property
    def svg(self) -> Markup:
        """The drawing."""
        return draw_lines(self)

    @property
    def payload(self) -> Markup:
        """The numbers for ``curves.js``, as JSON that is safe inside a script element."""
        tree = {
            "form": self.form,
            "zero": self.from_zero,
            "low": bounds(self)[0],
            "series": [_numbers(item) for item in self.series],
        }
        return Markup(json.dumps(tree, separators=(",", ":")).replace("<", "\\u003c"))  # noqa: S704 - numbers and our own words only

    @property
    def rows(self) -> list[tuple[str, list[str]]]:
        """Up to eight steps with the value of every series, for the table under the drawing."""
        steps = sorted({step for item in self.series for step in item.curve.steps})
        if len(steps) > 8:
            steps = [steps[round(index * (len(steps) - 1) / 7)] for index in range(8)]
        return [(whole(step), [_written(item, step, self.form) for item in self.series]) for step in steps]


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


def spread_curve(curves: Sequence[Curve]) -> tuple[Curve, Band, int] | None:
    """Average the curves of several seeds over the steps that all of them have, with the range they span.

    Returns:
        Mean and range, thin enough to draw, and how many points were averaged into one; None where two steps or more are not shared.
    """
    mean = mean_curve(curves)
    if len(mean.steps) < 2:
        return None
    lookups = [dict(zip(curve.steps, curve.values, strict=True)) for curve in curves]
    low = Curve(mean.steps, tuple(min(lookup[step] for lookup in lookups) for step in mean.steps))
    high = Curve(mean.steps, tuple(max(lookup[step] for lookup in lookups) for step in mean.steps))
    thinner, size = thin(mean)
    return thinner, Band(thin(low)[0].values, thin(high)[0].values, tuple(thin(curve, MOST_SEED_POINTS)[0] for curve in curves)), size


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
    steps = [step for item in chart.series for step in item.steps]
    values = [value for item in chart.series for value in item.reach]
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

    def path(steps: Sequence[int], values: Sequence[float]) -> str:
        return " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in zip(steps, values, strict=True))

    for item in chart.series:
        parts.append(f'<g style="stroke:{escape(item.colour)};fill:{escape(item.colour)}">')
        curve = item.curve
        if item.band is not None:
            outline = path([*curve.steps, *reversed(curve.steps)], [*item.band.high, *reversed(item.band.low)])
            parts.append(f'<polygon class="band" points="{outline}"/>')
            parts += [f'<polyline class="seed" points="{path(seed.steps, seed.values)}"/>' for seed in item.band.seeds]
        if len(curve.steps) == 1:
            parts.append(f'<circle class="curve" cx="{across(curve.steps[0]):.1f}" cy="{down(curve.values[0]):.1f}" r="3.5"/>')
        else:
            parts.append(f'<polyline class="curve" points="{path(curve.steps, curve.values)}" style="stroke-dasharray:{dash(item.dash)}"/>')
        parts.append("</g>")
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


def _value_at(curve: Curve, step: int) -> float | None:
    """Return the value at the latest point that is not after a step; None before the first."""
    earlier = [value for at, value in zip(curve.steps, curve.values, strict=True) if at <= step]
    return earlier[-1] if earlier else None


def _written(item: Series, step: int, form: Format) -> str:
    """Write the value of a series at a step, with the range of its seeds."""
    value = _value_at(item.curve, step)
    if item.band is None or value is None:
        return WRITERS[form](value)
    low, high = (_value_at(Curve(item.curve.steps, ends), step) for ends in (item.band.low, item.band.high))
    return f"{WRITERS[form](value)} ({WRITERS[form](low)} to {WRITERS[form](high)})"


def _numbers(item: Series) -> dict[str, Any]:
    """The numbers of a series for the page's script."""

    def short(values: Sequence[float]) -> list[float]:
        return [float(f"{value:.5g}") for value in values]

    found: dict[str, Any] = {"x": item.curve.steps, "y": short(item.curve.values)}
    if item.band is not None:
        seeds = [{"x": seed.steps, "y": short(seed.values)} for seed in item.band.seeds]
        found |= {"low": short(item.band.low), "high": short(item.band.high), "seeds": seeds}
    return found


def _spoken(chart: Chart) -> str:
    """Say a chart in words for those who cannot see it."""
    write = WRITERS[chart.form]
    ends = "; ".join(f"{item.name} from {write(item.curve.values[0])} to {write(item.curve.values[-1])}" for item in chart.series)
    return f"{chart.title}: {ends}"
