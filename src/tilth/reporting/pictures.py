"""Pictures as data URIs, so that the page needs no other file.

Photographs become JPEG, class pictures palette PNG (lossless and small). Everything is encoded anew: no metadata travels along, and
the same picture always gives the same bytes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

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
    from PIL import Image as Pillow

    file = Path(path)
    if not file.is_file():
        raise MissingFileError(f"{file}: no such picture; evaluate again, or leave this folder out of the report")
    try:
        with Pillow.open(file) as opened:
            image = opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError) as error:
        raise UnreadableFileError(f"{file}: cannot be read as a picture: {error}") from None
    return embed(image, kind, longest)


def embed(image: Image, kind: Literal["photo", "classes"], longest: int) -> Picture:
    """Embed an RGB picture; see :func:`embed_file`."""
    from PIL import Image as Pillow

    scale = longest / max(image.size)
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        # Mixing neighbouring class colours would invent colours that are not in the legend.
        image = image.resize(size, Pillow.Resampling.NEAREST if kind == "classes" else Pillow.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if kind == "photo":
        image.save(buffer, "JPEG", quality=86, optimize=True)
    else:
        exact = image.getcolors(256) is not None
        (image.quantize(256, dither=Pillow.Dither.NONE) if exact else image).save(buffer, "PNG", optimize=True)
    media = "jpeg" if kind == "photo" else "png"
    uri = f"data:image/{media};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
    return Picture(uri, image.width, image.height, kind == "classes")


def paint(ids: np.ndarray, colours: Sequence[Rgb], hidden: np.ndarray) -> Image:
    """Colour class ids.

    Args:
        ids: uint8 (h, w).
        colours: RGB of ids 0 to K-1; other ids are painted light grey.
        hidden: bool (h, w), pixels without data; painted white.

    Returns:
        An RGB picture (h, w).
    """
    import numpy as np
    from PIL import Image as Pillow

    table = np.full((256, 3), 225, np.uint8)
    table[: len(colours)] = np.asarray(colours, np.uint8).reshape(-1, 3)
    painted = table[ids]
    painted[hidden] = 255
    return Pillow.fromarray(painted)


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
