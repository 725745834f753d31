"""Pictures as data URIs, so that the page needs no other file.

Photographs become JPEG, class pictures palette PNG (lossless and small). Everything is encoded anew: no metadata travels along, and
the same picture always gives the same bytes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tilth.errors import MissingFileError, UnreadableFileError
from tilth.reporting.inputs import Rgb

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

NEUTRAL: tuple[Rgb, ...] = (
    (68, 119, 170),
    (204, 187, 68),
    (34, 136, 51),
    (238, 102, 119),
    (102, 204, 238),
    (170, 51, 119),
    (187, 187, 187),
    (153, 153, 51),
)
"""Colours for classes that came without: Paul Tol's "bright" scheme, which colour-blind readers can tell apart, and one olive."""


@dataclass(frozen=True)
class Picture:
    """An embedded picture.

    Attributes:
        uri: ``data:`` URI.
        width: in pixels.
        height: in pixels.
        pixelated: enlarge with hard edges, for class pictures.
    """

    uri: str
    width: int
    height: int
    pixelated: bool = False


def embed_file(path: str | Path, kind: Literal["photo", "classes"], longest: int) -> Picture:
    """Read a PNG, JPEG or other common picture and embed it, made smaller where its longest side exceeds ``longest`` pixels.

    Raises:
        MissingFileError: no such file.
        UnreadableFileError: it is not a picture, or is truncated.
    """
    return embed(open_picture(path), kind, longest)


def open_picture(path: str | Path) -> Image:
    """Read a PNG, JPEG or other common picture as RGB; see :func:`embed_file`."""
    from PIL import Image as Pillow

    file = Path(path)
    if not file.is_file():
        raise MissingFileError(f"{file}: no such picture; evaluate again, or leave this folder out of the report")
    try:
        with Pillow.open(file) as opened:
            return opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError) as error:
        raise UnreadableFileError(f"{file}: cannot be read as a picture: {error}") from None


def embed(image: Image, kind: Literal["photo", "classes"], longest: int) -> Picture:
    """Embed an RGB picture; see :func:`embed_file`."""
    from PIL import Image as Pillow

    scale = longest / max(image.size)
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        # Mixing neighbouring class colours would invent colours that are not in the legend.
        image = image.resize(size, Pillow.Resampling.NEAREST if kind == "classes" else Pillow.Resampling.LANCZOS)
    if kind == "photo":
        return _encoded(image, "jpeg", quality=86, optimize=True)
    exact = image.getcolors(256) is not None
    return _encoded(image.quantize(256, dither=Pillow.Dither.NONE) if exact else image, "png", optimize=True)


def _encoded(image: Image, media: Literal["jpeg", "png"], **options: Any) -> Picture:
    buffer = io.BytesIO()
    image.save(buffer, media.upper(), **options)
    uri = f"data:image/{media};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
    return Picture(uri, image.width, image.height, media == "png")


def distinct(colours: Mapping[int, Rgb]) -> dict[int, Rgb]:
    """Make every colour occur once, so that a value can be read back from its colour; equal colours move apart by what no eye sees.

    Args:
        colours: 8-bit RGB by value, at most 256.

    Returns:
        The same, in order of value; of two equal colours the later one is altered.

    Example:
        >>> distinct({0: (10, 10, 10), 1: (10, 10, 10), 2: (255, 255, 255)})
        {0: (10, 10, 10), 1: (10, 10, 11), 2: (255, 255, 255)}
    """
    taken: set[Rgb] = set()
    found: dict[int, Rgb] = {}
    for value in sorted(colours):
        red, green, blue = colours[value]
        # The nearest free blue, upwards first; at most 256 colours leave one of the 256 there are.
        steps = (blue + sign * step for step in range(256) for sign in (1, -1))
        found[value] = next((red, green, near) for near in steps if 0 <= near < 256 and (red, green, near) not in taken)
        taken.add(found[value])
    return found


def embed_values(values: np.ndarray, colours: Mapping[int, Rgb], hidden: np.ndarray) -> Picture:
    """Embed class ids or other small numbers as palette PNG, from which the page's script reads them back exactly.

    Args:
        values: uint8 (h, w); those that are shown must have a colour.
        colours: RGB by value, all different, see :func:`distinct`; at most 255.
        hidden: bool (h, w), pixels without data; transparent.
    """
    import numpy as np
    from PIL import Image as Pillow

    order = sorted(colours)
    places = np.zeros(256, np.uint8)
    places[order] = np.arange(len(order))
    indexes = places[values]
    palette = [channel for value in order for channel in colours[value]]
    options: dict[str, int] = {}
    if hidden.any() or not order:
        indexes[hidden] = len(order)
        palette += [255, 255, 255]
        options["transparency"] = len(order)
    image = Pillow.fromarray(indexes)
    image.putpalette(palette)
    # On a large picture the last tenth of its size takes ten times as long.
    return _encoded(image, "png", optimize=values.size <= 1_000_000, **options)


def stretch(bands: np.ndarray, valid: np.ndarray) -> Image:
    """Make a picture of one to three bands: 8-bit values as they are, others stretched between their 2nd and 98th percentile.

    Args:
        bands: (C, h, w), any numeric type; the first three bands are shown, a single one in grey.
        valid: bool (h, w); pixels without data become white.
    """
    import numpy as np
    from PIL import Image as Pillow

    shown = bands[:3] if len(bands) >= 3 else np.repeat(bands[:1], 3, axis=0)
    if shown.dtype != np.uint8:
        values = shown.astype(np.float32)
        inside = valid & np.isfinite(values).all(axis=0)
        if inside.any():
            low, high = np.percentile(values[:, inside], (2, 98), axis=1)
            values = (values - low[:, None, None]) / np.maximum(high - low, 1e-12)[:, None, None]
        shown = (np.clip(np.nan_to_num(values), 0, 1) * 255).astype(np.uint8)
    picture = np.ascontiguousarray(np.moveaxis(shown, 0, -1))
    picture[~valid] = 255
    return Pillow.fromarray(picture)
