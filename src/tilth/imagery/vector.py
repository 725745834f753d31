"""Shapes out: GeoPackages, each in one go; see :func:`tilth.imagery.files.atomic_path`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tilth.errors import TilthError
from tilth.imagery.files import atomic_path


def write_geopackage(path: Path, frame: Any, layer: str) -> Path:
    """Write a table of shapes as the only layer of a GeoPackage; an earlier file is replaced.

    Args:
        path: the file to write.
        frame: a ``geopandas.GeoDataFrame``.
        layer: its name.

    Returns:
        The path written.

    Raises:
        TilthError: the place cannot be written to, or the disk is full.
    """
    if not str(path.parent).isprintable():
        raise TilthError(f"{path}: lies in a folder whose name holds a line break, which GDAL leaves out; choose another place")
    with atomic_path(path) as temporary:
        try:
            frame.to_file(temporary, layer=layer, driver="GPKG", engine="pyogrio")
        # The errors of GDAL's drivers are RuntimeErrors; they spell the whole statement that failed, and then why.
        except RuntimeError as error:
            reason = " ".join(str(error).split()).rpartition("failed: ")[2]
            raise TilthError(f"{path}: cannot be written: {reason[:200]}; is there room on the disk?") from error
    return path
