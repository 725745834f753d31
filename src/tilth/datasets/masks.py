"""Masks of a data set: coded ones become index rasters beside the catalog, plain ones are checked and used where they lie."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from itertools import repeat
from pathlib import Path

import numpy as np

from tilth.catalog.align import align_label
from tilth.classes import IGNORE_INDEX
from tilth.errors import DataError
from tilth.imagery.grid import grid_difference
from tilth.imagery.label_codes import LabelCodes, write_coded_label
from tilth.imagery.plain import IMAGE_SUFFIXES
from tilth.imagery.raster import Window
from tilth.imagery.read import read_info, read_label

Progress = Callable[[int, int], None]

# Decoding and compressing let go of the interpreter; a thread holds a strip or a plain image.
_THREADS = min(8, os.cpu_count() or 1)
_STRIP_PIXELS = 2**24


def prepare_masks(
    masks: Sequence[tuple[str, str] | None],
    codes: LabelCodes | None,
    classes: int,
    folder: Path,
    progress: Progress,
    *,
    images: Sequence[str] | None = None,
) -> list[str | None]:
    """Decode or check every mask, several at once; what was decoded before is left as it is.

    Args:
        masks: path and unique name of each place's mask, or None.
        codes: what is stored in them; None for class ids, which stay where they are.
        classes: number of classes K of the scheme.
        folder: where index rasters are written, by name.
        progress: told after each mask.
        images: whose grids the masks are brought onto by nearest neighbour; None where they are on it.

    Returns:
        The index raster of each place.

    Raises:
        DataError: masks that cannot be read or hold what is not listed; the first is named, and how many there are.
    """

    def index_raster(path: str, name: str) -> str:
        if codes is None:
            _check_ids(path, classes)
            return path
        suffix = ".png" if Path(path).suffix.lower() in IMAGE_SUFFIXES else ".tif"
        return str(write_coded_label(path, folder / f"{name}{suffix}", codes))

    def work(mask: tuple[str, str] | None, image: str | None) -> str | DataError | None:
        if mask is None:
            return None
        try:
            made = index_raster(*mask)
            return made if image is None else _on_grid(made, image, folder / f"{mask[1]}_resampled.tif")
        except DataError as error:
            return error

    done: list[str | None] = []
    problems: list[DataError] = []
    with _cache(masks), ThreadPoolExecutor(_THREADS) as pool:
        for index, result in enumerate(pool.map(work, masks, images or repeat(None)), start=1):
            if isinstance(result, DataError):
                problems.append(result)
            else:
                done.append(result)
            progress(index, len(masks))
    if problems:
        more = f" ({len(problems) - 1} more masks with problems)" if len(problems) > 1 else ""
        raise type(problems[0])(f"{problems[0]}{more}")
    return done


def _on_grid(mask: str, image: str, target: Path) -> str:
    """Return a mask on the grid of its image: itself, or a copy by nearest neighbour."""
    grid = read_info(image)
    if grid_difference(grid, read_info(mask), "mask") is None:
        return mask
    align_label(mask, grid, target)
    return str(target)


def _check_ids(path: str, classes: int) -> None:
    """Refuse a mask with ids outside of its scheme; read strip by strip."""
    info = read_info(path)
    counts = np.zeros(IGNORE_INDEX + 1, dtype=np.int64)
    height = max(256, _STRIP_PIXELS // info.width)
    for row in range(0, info.height, height):
        label = read_label(path, Window(0, row, info.width, min(height, info.height - row)))
        counts += np.bincount(label.reshape(-1), minlength=IGNORE_INDEX + 1)
    outside = np.flatnonzero(counts[classes:IGNORE_INDEX]) + classes
    if outside.size:
        named = ", ".join(f"value {value} in {counts[value]:,} pixels" for value in outside[:3].tolist())
        more = f" and {outside.size - 3} more values" if outside.size > 3 else ""
        raise DataError(f"{path}: {named}{more}, expected class ids 0 to {classes - 1}, and {IGNORE_INDEX} for no label")


def _cache(masks: Sequence[tuple[str, str] | None]) -> AbstractContextManager[None]:
    """Bound what GDAL keeps, where it is needed at all."""
    if all(mask is None or Path(mask[0]).suffix.lower() in IMAGE_SUFFIXES for mask in masks):
        return nullcontext()
    from tilth.imagery.gdal import bounded_cache

    return bounded_cache()
