"""The gallery of an evaluation: image, label, prediction, errors and confidence of tiles from the worst to the best."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilth.classes import IGNORE_INDEX, ClassScheme
from tilth.evaluation.result import GalleryEntry, TileScore
from tilth.evaluation.samples import Prediction
from tilth.imagery.picture import NO_DATA_GREY, colourise, to_rgb
from tilth.imagery.read import Pixels
from tilth.imagery.write import atomic_path
from tilth.sensors import Sensor

FOLDER = "gallery"
MAX_SIDE_PX = 384
PICTURES = ("image", "label", "prediction", "errors", "confidence")

CORRECT, WRONG, IGNORED = (190, 190, 190), (214, 39, 40), (255, 255, 255)
"""Grey, red and white of the picture of errors."""

_OURS = re.compile(rf"\d+_({'|'.join(PICTURES)})\.png")


def choose(tiles: Sequence[TileScore], number: int, worst: int = 0) -> list[int]:
    """Choose tiles evenly over the ranking by mIoU, the worst first and the best last.

    Args:
        tiles: scores; tiles without a counted pixel are never chosen.
        number: how many to choose evenly; fewer where there are fewer.
        worst: how many of the worst to choose beforehand; the others are then spread over the rest.

    Returns:
        Positions in ``tiles``, without repeats. One alone is the worst. Ties are broken by tile id, so the choice is always the same.
    """
    ranked = sorted((tile.mean_iou, tile.tile_id, place) for place, tile in enumerate(tiles) if tile.mean_iou is not None)
    first, rest = ranked[:worst], ranked[worst:]
    steps = np.linspace(0, len(rest) - 1, min(number, len(rest)))
    return [entry[2] for entry in [*first, *(rest[int(step)] for step in np.floor(steps + 0.5))]]


def error_picture(prediction: NDArray[Any], mask: NDArray[Any]) -> NDArray[np.uint8]:
    """Show where a prediction is right (grey), wrong (red) and not judged (white).

    Args:
        prediction: integer (h, w), class ids.
        mask: integer (h, w), the reference, 255 = ignored.

    Returns:
        uint8 (h, w, 3), red green blue.
    """
    picture = np.empty((*mask.shape, 3), dtype=np.uint8)
    picture[...] = CORRECT
    picture[prediction != mask] = WRONG
    picture[mask == IGNORE_INDEX] = IGNORED
    return picture


def draw_tile(
    pixels: Pixels, mask: NDArray[Any], prediction: Prediction, sensor: Sensor, scheme: ClassScheme
) -> dict[str, NDArray[np.uint8]]:
    """Draw the pictures of a tile.

    Args:
        pixels: of the tile, in storage units.
        mask: integer (h, w), the reference as it was counted, 255 = ignored.
        prediction: of the tile, with confidence as uint8 from 0 to 255.
        sensor: of the pixels.
        scheme: of mask and prediction.

    Returns:
        By the names of :data:`PICTURES`: uint8 (h', w', 3), ``confidence`` uint8 (h', w'); shrunk so that no side exceeds 384 pixels.
        Image and confidence are averaged, classes and errors take the nearest pixel. Pixels without imagery are grey in the prediction
        and the confidence, too.
    """
    shown = np.where(pixels.valid, prediction.classes, IGNORE_INDEX)
    confidence = np.where(pixels.valid, prediction.confidence, np.uint8(NO_DATA_GREY))
    return {
        "image": _shrink(to_rgb(pixels.data, pixels.valid, sensor), average=True),
        "label": _shrink(colourise(mask, scheme)),
        "prediction": _shrink(colourise(shown, scheme)),
        "errors": _shrink(error_picture(prediction.classes, mask)),
        "confidence": _shrink(confidence, average=True),
    }


def encode_gallery(
    tiles: Iterable[tuple[TileScore, dict[str, NDArray[np.uint8]]]],
) -> tuple[tuple[GalleryEntry, ...], dict[str, bytes]]:
    """Draw all pictures of a gallery before the first is written, so that a failure while drawing leaves an old gallery whole.

    Args:
        tiles: score and pictures of each tile, in order.

    Returns:
        The entries of ``metrics.json``, and what :func:`write_gallery` writes: PNG files by name.
    """
    from PIL import Image

    entries, drawn = [], {}
    for number, (tile, pictures) in enumerate(tiles):
        paths = {kind: f"{FOLDER}/{number}_{kind}.png" for kind in PICTURES}
        for kind, path in paths.items():
            buffer = io.BytesIO()
            Image.fromarray(pictures[kind]).save(buffer, format="PNG", optimize=True)
            drawn[Path(path).name] = buffer.getvalue()
        entries.append(GalleryEntry(tile_id=tile.tile_id, mean_iou=tile.mean_iou, **paths))
    return tuple(entries), drawn


def write_gallery(out: Path, drawn: Mapping[str, bytes]) -> None:
    """Write ``gallery/<n>_{image,label,prediction,errors,confidence}.png`` and remove such files of an earlier, longer gallery.

    Args:
        out: folder of the evaluation; made if missing.
        drawn: as :func:`encode_gallery` returns it.

    Raises:
        TilthError: the folder cannot be made or written to.
    """
    folder = out / FOLDER
    for name, content in drawn.items():
        with atomic_path(folder / name) as file:
            file.write_bytes(content)
    for old in folder.iterdir() if folder.is_dir() else ():
        if _OURS.fullmatch(old.name) and old.name not in drawn:
            old.unlink()


def _shrink(picture: NDArray[np.uint8], *, average: bool = False) -> NDArray[np.uint8]:
    """Shrink (never enlarge) so that the longer side is at most ``MAX_SIDE_PX``."""
    from PIL import Image

    height, width = picture.shape[:2]
    scale = MAX_SIDE_PX / max(height, width)
    if scale >= 1:
        return picture
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX if average else Image.Resampling.NEAREST))
