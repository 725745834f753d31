"""What the linked viewer of the page is made of: layers of one piece of ground, and the facts its script needs to read them.

Every layer is an ordinary embedded picture, so paper and a browser without script show them side by side. The script finds the class or
percentage of a pixel from its colour, which is why no two values of a layer share one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from markupsafe import Markup

from tilth.reporting.inputs import Rgb
from tilth.reporting.pictures import Picture, distinct

Kind = Literal["picture", "classes", "confidence", "difference"]

SAME, DIFFERENT = 0, 1
DIFFERENCE_COLOURS: dict[int, Rgb] = {SAME: (205, 205, 200), DIFFERENT: (214, 39, 40)}
"""Colours of pixels where two layers agree (grey) and differ (red), as in galleries."""

# From what the model does not know, dark and strong, to what it is sure of, pale: doubt is what a reader looks for.
_RAMP: tuple[tuple[float, Rgb], ...] = ((0, (40, 16, 66)), (45, (142, 36, 98)), (75, (222, 120, 92)), (100, (252, 244, 222)))


def confidence_colours() -> dict[int, Rgb]:
    """Return the colour of every whole percentage from 0 to 100."""
    colours: dict[int, Rgb] = {}
    for percent in range(101):
        (low, one), (high, other) = next((a, b) for a, b in pairwise(_RAMP) if percent <= b[0])
        share = (percent - low) / (high - low)
        red, green, blue = (round(first + share * (second - first)) for first, second in zip(one, other, strict=True))
        colours[percent] = (red, green, blue)
    return distinct(colours)


@dataclass(frozen=True)
class Layer:
    """One layer of a viewer.

    Attributes:
        name: as shown.
        kind: how the script reads its pixels; those of a ``picture`` mean nothing but themselves.
        picture: embedded.
        alt: what it shows, for those who cannot see it.
        side: shown at first when layers stand side by side.
        stacked: shown at first when layers lie on each other.
    """

    name: str
    kind: Kind
    picture: Picture
    alt: str
    side: bool = True
    stacked: bool = False


@dataclass(frozen=True)
class Ground:
    """Where a viewer's layers lie on the Earth.

    Attributes:
        crs: authority code or name.
        transform: affine coefficients (a, b, c, d, e, f) from pixel of the map to CRS coordinates.
        decimals: of a coordinate that are worth showing.
        metres: ground that the width of the map covers; None without a place on the Earth.
        degrees: longitude and latitude of ``nodes`` x ``nodes`` points over the map, row by row; empty without.
        nodes: points a side.
    """

    crs: str
    transform: tuple[float, ...]
    decimals: int
    metres: float | None
    degrees: tuple[tuple[float, ...], tuple[float, ...]] | tuple[()] = ()
    nodes: int = 0


@dataclass(frozen=True)
class Viewer:
    """Layers of one piece of ground, all of one extent.

    Attributes:
        label: what is shown, for its heading in a screen reader.
        width: of the map in pixels, before thinning.
        height: of the map in pixels, before thinning.
        layers: in the order in which they lie on each other, the lowest first.
        classes: id, name and colour of the classes in the layers of classes; colours differ.
        ground: where it lies; None where that is not known.
        compact: small, among many on a page.
    """

    label: str
    width: int
    height: int
    layers: tuple[Layer, ...]
    classes: tuple[tuple[int, str, Rgb], ...] = ()
    ground: Ground | None = None
    compact: bool = False

    @property
    def aspect(self) -> float:
        """Width by height of a pane: that of the map, but neither a strip nor a tower."""
        return round(min(max(self.width / self.height, 0.7), 2.2), 4)

    @property
    def columns(self) -> int:
        """Panes in a row on a wide page."""
        number = sum(layer.side for layer in self.layers)
        if self.compact:
            return min(number, 6)
        return number if number < 4 else 2 if number == 4 else 3

    @property
    def confident(self) -> bool:
        """Whether there is a layer of confidence."""
        return any(layer.kind == "confidence" for layer in self.layers)

    @property
    def payload(self) -> Markup:
        """The facts for the page's script, as JSON that is safe inside a script element."""
        tree: dict[str, Any] = {
            "width": self.width,
            "height": self.height,
            "layers": [{"name": item.name, "kind": item.kind, "side": item.side, "stacked": item.stacked} for item in self.layers],
            "classes": [[value, name, *colour] for value, name, colour in self.classes],
        }
        if self.ground is not None:
            ground = self.ground
            tree["ground"] = {"crs": ground.crs, "transform": ground.transform, "decimals": ground.decimals, "metres": ground.metres}
            if ground.degrees:
                longitude, latitude = ground.degrees
                tree["ground"] |= {"nodes": ground.nodes, "longitude": longitude, "latitude": latitude}
        text = json.dumps(tree, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
        return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))  # noqa: S704 - no markup is left in it


def class_rows(names: Mapping[int, str], colours: Mapping[int, Rgb]) -> tuple[tuple[int, str, Rgb], ...]:
    """List id, name and colour of classes in id order, every colour once."""
    return tuple((value, names.get(value, f"class {value}"), colour) for value, colour in distinct(colours).items())


def ramp_css(stops: Sequence[int] = (0, 45, 75, 100)) -> str:
    """Return the colours of confidence as the stops of a CSS gradient, from 0 to 100 %."""
    colours = confidence_colours()
    return ", ".join(f"rgb({','.join(map(str, colours[stop]))}) {stop}%" for stop in stops)


def confidence_payload() -> Markup:
    """Return the colours of confidence, by percentage, as JSON for the page's script."""
    return Markup(json.dumps(list(confidence_colours().values()), separators=(",", ":")))  # noqa: S704 - numbers only
