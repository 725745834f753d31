"""Strip plots as inline SVG: single values of every group, their mean and spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from tilth.reporting.figures import WIDTH, WRITERS, Format, tick_text, ticks


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

    spoken = "; ".join(f"{row.name}: {', '.join(WRITERS[form](value) for value in row.values)}" for row in rows)
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
            f'<circle cx="{across(value):.1f}" cy="{middle}" r="5" style="fill:{colour}"><title>{WRITERS[form](value)}</title></circle>'
            for value in row.values
        ]
    parts.append("</svg>")
    return Markup("".join(parts))  # noqa: S704 - every foreign text in it is escaped above
