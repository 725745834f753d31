"""Tiles off the disk, some ahead of the one that is worked on; one that cannot be read says why and stops nobody."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from tilth.catalog.rows import Tile
from tilth.errors import DataError, MissingFileError, SensorMismatchError
from tilth.imagery.raster import Pixels
from tilth.imagery.read import read_pixels
from tilth.sensors import Sensor

# Items that are read ahead for every thread that reads.
_AHEAD = 2

Given = TypeVar("Given")
Found = TypeVar("Found")


def tile_pixels(tile: Tile, sensor: Sensor) -> Pixels | str:
    """Read the pixels of a tile, with its origin; a text, in one line, says why they cannot be."""
    try:
        pixels = replace(read_pixels(tile.image, tile.window), origin=tile.origin)
        if len(pixels.data) != len(sensor):
            raise SensorMismatchError(f"{tile.image} has {len(pixels.data)} bands, sensor {sensor.name!r} has {len(sensor)}")
    except (DataError, MissingFileError, OSError) as error:
        return " ".join(str(error).split())
    return pixels


def read_ahead(items: Iterable[Given], read: Callable[[Given], Found], threads: int) -> Iterator[Found]:
    """Apply a function in threads, in the order of the items and only a few of them ahead of the one that is asked for.

    Args:
        items: what to read.
        read: reads one of them.
        threads: how many read at once.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="read-ahead") as pool:
        waiting: deque[Future[Found]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(read, item))
                if len(waiting) > _AHEAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
