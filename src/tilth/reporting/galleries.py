"""Galleries as linked viewers: the pictures of a tile enlarge and move together; several models can stand beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tilth.evaluation.result import Evaluation, GalleryEntry
from tilth.reporting.collect import NamedEvaluation
from tilth.reporting.inputs import Rgb
from tilth.reporting.layers import NOTHING
from tilth.reporting.pictures import Picture, embed, embed_values, open_picture
from tilth.reporting.viewer import DIFFERENCE_COLOURS, DIFFERENT, SAME, Layer, Viewer, class_rows, confidence_colours

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

PICTURE_SIDE = 384
MOST_SIDE_BY_SIDE = 4
"""Models whose galleries are laid side by side at most, and tiles that they are shown on."""


@dataclass(frozen=True)
class GalleryTile:
    """One tile of a gallery; ``rank`` is "worst", "best" or empty, ``scores`` the mIoU by model (one without a name for one model)."""

    tile_id: str
    rank: str
    scores: tuple[tuple[str, float | None], ...]
    viewer: Viewer


def gallery(named: NamedEvaluation, most: int) -> list[GalleryTile]:
    """Embed the worst and the best tiles, ``most`` together.

    Raises:
        MissingFileError: a picture of the gallery is not there.
        UnreadableFileError: a picture cannot be read.
    """
    entries: list[GalleryEntry] = list(named.result.gallery)
    if len(entries) > most:
        worst = (most + 1) // 2
        entries = entries[:worst] + entries[len(entries) - (most - worst) :]
    tiles = []
    for place, entry in enumerate(entries):
        rank = "" if len(entries) < 2 else "worst" if place == 0 else "best" if place == len(entries) - 1 else ""
        viewer = _viewer(entry.tile_id, named.result, [(named, entry)])
        tiles.append(GalleryTile(entry.tile_id, rank, (("", entry.mean_iou),), viewer))
    return tiles


def side_by_side(evaluations: Sequence[NamedEvaluation], most: int) -> list[GalleryTile]:
    """Show tiles that are in the galleries of two or more models, those first that all models together do worst.

    Only evaluations of the same tiles and classes as the first one take part, at most four of them, on at most four tiles.

    Raises:
        MissingFileError: a picture of a gallery is not there.
        UnreadableFileError: a picture cannot be read.
    """
    if len(evaluations) < 2 or most < 1:
        return []
    first = evaluations[0].result
    alike = [item for item in evaluations if _same_ground(first, item.result)][:MOST_SIDE_BY_SIDE]
    by_tile: dict[str, list[tuple[NamedEvaluation, GalleryEntry]]] = {}
    for item in alike:
        for entry in item.result.gallery:
            by_tile.setdefault(entry.tile_id, []).append((item, entry))
    shared = [found for found in by_tile.values() if len(found) > 1]
    # Tiles that more models show tell more; among them the worst come first.
    shared.sort(key=lambda found: (-len(found), _mean([entry.mean_iou for _, entry in found]), found[0][1].tile_id))
    tiles = []
    for found in shared[: min(most, MOST_SIDE_BY_SIDE)]:
        scores = tuple((item.name, entry.mean_iou) for item, entry in found)
        tile_id = found[0][1].tile_id
        tiles.append(GalleryTile(tile_id, "", scores, _viewer(tile_id, first, found)))
    return tiles


def _same_ground(one: Evaluation, other: Evaluation) -> bool:
    return (one.catalog_fingerprint, one.scheme, one.classes) == (other.catalog_fingerprint, other.scheme, other.classes)


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else 0.0


def _viewer(tile_id: str, result: Evaluation, found: Sequence[tuple[NamedEvaluation, GalleryEntry]]) -> Viewer:
    """Lay out one tile: image and reference once, prediction, confidence and errors of every model."""
    rows = class_rows(dict(enumerate(result.classes)), dict(enumerate(result.colours)))
    item, entry = found[0]
    image = open_picture(item.folder / entry.image)
    layers = [
        Layer("Image", "picture", embed(image, "photo", PICTURE_SIDE), f"Image of tile {tile_id}", stacked=True),
        _class_layer("Reference", item.folder / entry.label, f"Reference classes of tile {tile_id}", result, rows),
    ]
    several = len(found) > 1
    for named, picture in found:
        whose = named.name if several else "Prediction"
        alt = f"Predicted classes of tile {tile_id}{f', {named.name}' if several else ''}"
        layers.append(_class_layer(whose, named.folder / picture.prediction, alt, result, rows, stacked=named is found[-1][0]))
    for named, picture in found:
        of = f", {named.name}" if several else ""
        if picture.confidence is not None and not several:
            shown = _confidence(open_picture(named.folder / picture.confidence))
            layers.append(Layer("Confidence", "confidence", shown, f"Confidence of the prediction of tile {tile_id}"))
        layers.append(Layer(f"Errors{of}", "difference", _errors(named.folder / picture.errors), f"Wrong pixels of tile {tile_id}{of}"))
    return Viewer(f"Tile {tile_id}", image.width, image.height, tuple(layers), rows, compact=True)


def _errors(file: Path) -> Picture:
    """Bring the picture of errors, red where wrong, grey where right, white where not judged, into the colours of differences."""
    import numpy as np

    pixels = np.asarray(_small(file)).astype(np.int16)
    marked = np.where(pixels[..., 0] - pixels[..., 1] > 60, DIFFERENT, SAME).astype(np.uint8)
    marked[pixels.min(axis=-1) > 250] = NOTHING
    return embed_values(marked, DIFFERENCE_COLOURS, marked == NOTHING)


def _small(file: Path) -> Image:
    """Read a picture of classes, made smaller without mixing neighbouring colours, which would invent new ones."""
    from PIL import Image as Pillow

    picture = open_picture(file)
    picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE), Pillow.Resampling.NEAREST)
    return picture


def _class_layer(
    name: str, file: Path, alt: str, result: Evaluation, rows: Sequence[tuple[int, str, Rgb]], *, stacked: bool = False
) -> Layer:
    import numpy as np

    values = _ids(np.asarray(_small(file)), {colour: value for value, colour in reversed(list(enumerate(result.colours)))})
    return Layer(
        name, "classes", embed_values(values, {value: colour for value, _, colour in rows}, values == NOTHING), alt, stacked=stacked
    )


def _ids(picture: np.ndarray, values: Mapping[Rgb, int]) -> np.ndarray:
    """Turn a picture in class colours, uint8 (h, w, 3), into class ids, uint8 (h, w); 255 where it has no class's colour."""
    import numpy as np

    keys = picture.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    ids = np.full(keys.shape, NOTHING, np.uint8)
    for (red, green, blue), value in values.items():
        ids[keys == red * 65536 + green * 256 + blue] = value
    return ids


def _confidence(image: Image) -> Picture:
    """Bring a grey picture, black (0) to white (1), into the colours of confidence."""
    import numpy as np

    percent = np.rint(np.asarray(image)[..., 0] / 255 * 100).astype(np.uint8)
    return embed_values(percent, confidence_colours(), np.zeros(percent.shape, bool))
