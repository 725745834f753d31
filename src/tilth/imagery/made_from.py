"""What a made file says of itself: which sources and settings it was made from, so that work that was stopped goes on where it was.

Only files that say so are ever replaced: others are somebody's own.
"""

from __future__ import annotations

import glob
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

from tilth.errors import TilthError, UsageError
from tilth.imagery.files import atomic_path
from tilth.imagery.raster import RasterInfo
from tilth.imagery.references import files_behind, is_virtual

STAMP = "TILTH_MADE_FROM"
"""Name of the TIFF tag, PNG text or VRT metadata that holds the stamp."""

_FORMER = "TILTH_LABEL_CODES"

_STAMPED = "the sources named here"

_FORMAT = 2
"""Changes whenever the same sources and settings give other pixels than before."""


def stamp_of(settings: Any, rasters: Iterable[RasterInfo] = (), files: Iterable[str] = ()) -> str:
    """Hash settings and sources.

    Args:
        settings: what else decides the result; JSON-ready.
        rasters: headers of rasters; the bytes of all files that they are made of count (the names of remote ones), and what the header
            says, wherever it has it from.
        files: other files; their bytes count.

    Returns:
        SHA-256 as hexadecimal digits.
    """
    digest = hashlib.sha256(json.dumps([_FORMAT, settings], sort_keys=True).encode())
    named = list(files)
    for info in rasters:
        header = [*grid_settings(info), info.count, info.dtype, None if info.nodata is None else repr(info.nodata)]
        digest.update(json.dumps(header).encode())
        named += files_behind(info.uri)
    for file in named:
        if Path(file).is_file():
            with Path(file).open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        else:
            digest.update(file.encode())
    return digest.hexdigest()


def grid_settings(info: RasterInfo) -> list[Any]:
    """Return what says where the pixels of a raster lie, for a stamp."""
    return [info.width, info.height, info.crs, info.transform]


def stamp_in(target: Path) -> str | None:
    """Read the stamp of a file that is about to be made.

    Returns:
        The stamp; None where there is no such file, or a damaged one.

    Raises:
        UsageError: the file was not made by tilth, and would be lost.
    """
    if not target.exists():
        return None
    try:
        texts = _texts(target)
    # Whatever a damaged file makes the readers say, it is not whole and is written anew.
    except (TilthError, OSError, SyntaxError, ValueError, RuntimeError):
        return None
    found = texts.get(STAMP, texts.get(_FORMER))
    if found is None:
        raise UsageError(f"{target}: is in the way of a file to be made, and was not made by tilth; move it away, or choose another folder")
    return found


def _texts(target: Path) -> dict[str, str]:
    if is_virtual(str(target)):
        text = target.read_text(encoding="utf-8")
        if not text.rstrip().endswith("</VRTDataset>"):
            raise ValueError("cut short")
        return {STAMP: ""} if STAMP in text else {}
    if target.suffix.lower() == ".png":
        with Image.open(target) as image:
            return {str(name): str(text) for name, text in image.info.items()}
    from tilth.imagery.gdal import raster_tags

    return raster_tags(str(target))


def remove_unused_parts(place: Path, used: set[str]) -> None:
    """Remove the warped sources ``<stem>.<number>.vrt`` that an earlier virtual raster of this name had and this one has not."""
    for file in place.parent.glob(f"{glob.escape(place.stem)}.*.vrt"):
        number = file.name[len(place.stem) + 1 : -len(".vrt")]
        if number.isdecimal() and str(file) not in used and STAMP in file.read_text(encoding="utf-8", errors="replace"):
            file.unlink()


def write_virtual(place: Path, text: str) -> None:
    """Write the text of a virtual raster; a file that says this already is left, so that it keeps its date.

    Raises:
        UsageError: a file that was not made by tilth is in the way.
    """
    # What a warped source is made from stands in it; this says who wrote it.
    head, mark, rest = text.partition(">")
    text = f'{head}{mark}\n  <Metadata>\n    <MDI key="{STAMP}">{_STAMPED}</MDI>\n  </Metadata>{rest}'
    stamp_in(place)
    if place.is_file() and place.read_bytes() == text.encode():
        return
    with atomic_path(place) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
