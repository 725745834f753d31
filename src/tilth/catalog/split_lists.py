"""Split lists, as S5, UniMatch and their kin read them: a line for each image, its path, a blank, and the path of its mask.

Source: s5_pretrain.md section 3. Paths start from one root; of images without labels the first field is enough, and further fields of a
line mean nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from PIL import Image

from tilth.catalog.table import Catalog
from tilth.catalog.uris import absolute_uri, common_folder, file_name, is_remote
from tilth.errors import DataError, TilthError, UnreadableFileError, UsageError
from tilth.imagery.files import atomic_path
from tilth.imagery.packed import is_packed
from tilth.imagery.read import Window, read_info, read_label, read_pixels
from tilth.imagery.write import write_text

Progress = Callable[[int, int], None]
"""Told (tiles done, all of them)."""

LIST_SUFFIX = ".txt"

_Given = TypeVar("_Given")
_Made = TypeVar("_Made")

_THREADS = 8
_PART = 20_000
"""Tiles that are under way at once."""


@dataclass(frozen=True)
class SplitLists:
    """Lists that were written.

    Attributes:
        files: list by name.
        root: folder that the paths in them start from.
        cut: image and mask files that were written for them.
    """

    files: Mapping[str, Path]
    root: Path
    cut: tuple[Path, ...]


def read_list(file: Path) -> pa.Table:
    """Read a split list as a table with the columns ``image`` and, where any line has a second field, ``label``; empty lines do not count.

    Raises:
        UnreadableFileError: no text.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UnreadableFileError(
            f"{file}: no text; expected a line for each image: its path, and that of its mask after a blank"
        ) from None
    fields = [words for line in lines if (words := line.split(maxsplit=2))]
    columns = {"image": pa.array([words[0] for words in fields], pa.string())}
    if any(len(words) > 1 for words in fields):
        columns["label"] = pa.array([words[1] if len(words) > 1 else None for words in fields], pa.string())
    return pa.table(columns)


def write_lists(
    catalog: Catalog, folder: str | Path, *, root: str | Path | None = None, cut: bool = False, progress: Progress | None = None
) -> SplitLists:
    """Write the tiles of a catalog as split lists: ``<split>.txt`` for labelled tiles, ``<split>_unlabelled.txt`` for others.

    Tiles without a split are in ``labelled.txt`` and ``unlabelled.txt``. Other programs read whole image files, so a tile has to be one, or
    is cut.

    Args:
        catalog: tiles, in the order of the lists.
        folder: where the lists are written; lists of the same name are replaced.
        root: folder that the paths start from; by default the one that all files share.
        cut: write each tile that is no image file of its own as PNG files, ``images/<tile>.png`` and ``masks/<tile>.png`` in ``folder``: it
            needs 8 bits and one band or three. What file names and lists cannot take of a tile id, such as blanks, is replaced.
        progress: told after each tile.

    Raises:
        UsageError: tiles that are windows of larger rasters, packed, or virtual, without ``cut``; or ``cut`` would replace an original.
        DataError: no tile, a path with a blank in it or outside of ``root``, or a tile that cannot be a PNG.
        UnreadableFileError: a damaged image.
    """
    place = Path(folder).absolute()
    tiles = list(zip(*(catalog.column(name) for name in ("tile_id", "image", "window", "label", "split")), strict=True))
    if not tiles:
        raise DataError("the catalog has no tile, so there is nothing to list")
    made = _each(partial(_files_to_cut, folder=place if cut else None), tiles, progress)
    parts = [(tile, pair) for tile, pair in zip(tiles, made, strict=True) if pair is not None]
    originals = {file for tile in tiles for file in (tile[1], tile[3])} - {None}
    hit = min(originals & {file for _, pair in parts for file in pair}, default=None)
    if hit is not None:
        raise UsageError(f"{hit}: is an original of the catalog, and a cut tile would replace it; choose another --out")
    files = [(tile[1], tile[3]) if pair is None else pair for tile, pair in zip(tiles, made, strict=True)]
    named = [file for pair in files for file in pair if file is not None]
    top = Path(absolute_uri(str(root))) if root is not None else Path(common_folder(named))
    shown = dict(zip(named, (_below(file, top) for file in named), strict=True))
    # All that can be refused without a look at pixels is refused before the first file is written.
    _each(_cut, parts, progress)
    lists: dict[str, list[str]] = {}
    for (image, label), (*_, split) in zip(files, tiles, strict=True):
        ending = "" if label is not None else "_unlabelled"
        name = f"{split}{ending}" if split is not None else "labelled" if label is not None else "unlabelled"
        lists.setdefault(name, []).append(shown[image] if label is None else f"{shown[image]} {shown[label]}")
    written = {
        name: write_text(place / f"{file_name(name)}{LIST_SUFFIX}", "\n".join([*lines, ""])) for name, lines in sorted(lists.items())
    }
    return SplitLists(written, top, tuple(Path(file) for _, pair in parts for file in pair if file is not None))


def _each(work: Callable[[_Given], _Made], items: Sequence[_Given], progress: Progress | None) -> list[_Made]:
    """Do something with each of many items, several at once."""
    results: list[_Made] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(items), _PART):
            for done in pool.map(work, items[start : start + _PART]):
                results.append(done)
                if progress is not None:
                    progress(len(results), len(items))
    return results


def _files_to_cut(tile: tuple[Any, ...], folder: Path | None) -> tuple[str, str | None] | None:
    """Name the image file and the mask file to cut for a tile; None where its own will do."""
    tile_id, image, window, label, _ = tile
    whole = not is_packed(image) and not is_remote(image) and Path(image).suffix.lower() != ".vrt"
    if whole:
        info = read_info(image)
        whole = list(window) == [0, 0, info.width, info.height] and (label is None or Path(label).suffix.lower() != ".vrt")
    if whole:
        return None
    if folder is None:
        raise UsageError(f"{tile_id}: is a part of {image}, and lists name whole image files; use --cut to write such tiles as PNG files")
    name = f"{file_name(tile_id)}.png"
    return str(folder / "images" / name), None if label is None else str(folder / "masks" / name)


def _cut(item: tuple[tuple[Any, ...], tuple[str, str | None]]) -> None:
    """Write the files of a tile."""
    (tile_id, image, window, label, _), (image_file, label_file) = item
    part = Window(*window)
    pixels = read_pixels(image, part).data
    if pixels.dtype != np.uint8 or pixels.shape[0] not in {1, 3}:
        raise DataError(f"{tile_id}: {pixels.shape[0]} bands of {pixels.dtype}; a PNG file takes 1 or 3 bands of uint8")
    _write_png(Path(image_file), pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    if label_file is not None:
        _write_png(Path(label_file), read_label(label, part))


def _write_png(target: Path, pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    with atomic_path(target) as temporary:
        try:
            Image.fromarray(pixels).save(temporary, format="PNG", compress_level=3)
        except OSError as error:
            raise TilthError(f"{target}: cannot be written: {error.strerror or error}") from error


def _below(file: str, top: Path) -> str:
    """Write a path as it stands in a list."""
    relative = os.path.relpath(file, top).replace(os.sep, "/")
    if relative.startswith("../"):
        raise DataError(f"{file}: lies outside of {top}, which paths of the list start from; give a --root that holds all files")
    if relative.split() != [relative]:
        raise DataError(f"{file}: has a blank in its path, and lists divide their fields by blanks; rename it")
    return relative
