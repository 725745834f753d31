"""Palettes of one-band rasters that GDAL reads: there the stored numbers are ids, and the colours stand in a table."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tilth.errors import UnreadableFileError
from tilth.imagery.gdal import rasterio_module


def has_palette(uri: str) -> bool:
    """Say whether a raster has one band of ids with a table of colours; false for what GDAL cannot read."""
    try:
        return read_palette(uri) is not None
    except UnreadableFileError:
        return False


def read_palette(uri: str) -> NDArray[np.uint8] | None:
    """Read the colours of a raster's only band.

    Args:
        uri: of a raster that GDAL reads.

    Returns:
        uint8 (3, 256 or 65,536): red, green and blue by stored number, black where the table says nothing; None without a palette.

    Raises:
        UnreadableFileError: truncated, damaged or of an unknown format.
        MissingExtraError: rasterio is not installed.
    """
    rasterio = rasterio_module()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        try:
            with rasterio.open(uri) as dataset:
                if dataset.count != 1 or dataset.colorinterp[0].name != "palette" or dataset.dtypes[0] not in {"uint8", "uint16"}:
                    return None
                listed = dataset.colormap(1)
                size = int(np.iinfo(dataset.dtypes[0]).max) + 1
        except rasterio.errors.RasterioError as error:
            raise UnreadableFileError(f"{Path(uri)}: cannot be read: {' '.join(str(error).split())}") from None
    colours = np.zeros((3, size), dtype=np.uint8)
    for number, colour in listed.items():
        colours[:, number] = colour[:3]
    return colours
