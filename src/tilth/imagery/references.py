"""The files that a raster is made of: what a virtual raster refers to, and what lies beside a raster. No pixel is read, no library used."""

# Asked before every window of a virtual raster that is read; path objects take longer to make than files to answer.
# ruff: noqa: PTH110, PTH116, PTH118, PTH120

from __future__ import annotations

import functools
import os
import re
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import unescape

from tilth.imagery.files import SIDECAR

VIRTUAL_SUFFIX = ".vrt"

MASK_SUFFIX = ".msk"
"""Appended by GDAL to the name of a raster for the mask that lies beside it."""

_REFERENCE = re.compile(r"<(?:SourceFilename|SourceDataset|SourceVRT)\b([^>]*)>([^<]*)<")
_SOURCE = re.compile(r"<SimpleSource\b.*?</SimpleSource>", re.DOTALL)
_RECTANGLE = re.compile(r"<(Src|Dst)Rect ([^>]*?)/?>")
_WARPED = 'subClass="VRTWarpedDataset"'
_KEPT_TEXTS = 4096

State = tuple[int, int, int]
"""Size in bytes, time of change in nanoseconds and inode of a file; -1 for what is no local file."""


class _Virtual(NamedTuple):
    """What the text of a virtual raster refers to: all files, and the first whose pixels are its own pixels."""

    files: tuple[str, ...]
    shown: str | None
    warped: bool


def file_state(path: str) -> State:
    """Return what tells a file from one that replaced it under the same name."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return (-1, -1, -1)
    return (status.st_size, status.st_mtime_ns, status.st_ino)


def is_virtual(uri: str) -> bool:
    """Say whether a local path is the name of a virtual raster."""
    return uri[-4:].lower() == VIRTUAL_SUFFIX and "://" not in uri


def files_behind(uri: str) -> list[str]:
    """List the local files that decide what is read from a raster: itself, then what it refers to however deep, masks and sidecars.

    Args:
        uri: path of a raster; of a virtual one all that its sources are made of is listed, too.

    Returns:
        Paths, each once, in a fixed order. A file that a virtual raster names is listed even where it is gone.
    """
    found: dict[str, None] = {}
    waiting = [uri]
    while waiting:
        path = waiting.pop(0)
        if path in found:
            continue
        found[path] = None
        found |= dict.fromkeys(beside for beside in (path + MASK_SUFFIX, path + SIDECAR) if os.path.exists(beside))
        if is_virtual(path):
            waiting += _virtual(path, file_state(path)).files
    return list(found)


def shown_raster(uri: str) -> str:
    """Find the raster whose pixels a virtual raster shows pixel by pixel on the same grid, through others of its kind.

    Args:
        uri: of a raster.

    Returns:
        The first source that fills the virtual raster unchanged and is not warped; ``uri`` itself where there is none.
    """
    seen: list[str] = []
    while is_virtual(uri) and uri not in seen:
        seen.append(uri)
        shown = _virtual(uri, file_state(uri)).shown
        if shown is None:
            break
        uri = shown
    return uri


@functools.lru_cache(_KEPT_TEXTS)
def _virtual(path: str, _state: State) -> _Virtual:
    """Read a virtual raster's text; the state is part of what is remembered."""
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return _Virtual((), None, False)
    folder = os.path.dirname(os.path.realpath(path))
    files = tuple(dict.fromkeys(_place(folder, *match) for match in _REFERENCE.findall(text)))
    if _WARPED in text:
        return _Virtual(files, None, True)
    size = re.search(r'rasterXSize="(\d+)" rasterYSize="(\d+)"', text)
    if size is None:
        return _Virtual(files, None, False)
    for source in _SOURCE.findall(text):
        named = _REFERENCE.search(source)
        rectangles = {which: re.findall(r'="([^"]*)"', values) for which, values in _RECTANGLE.findall(source)}
        if named is None or rectangles.get("Src") != ["0", "0", *size.groups()] or rectangles.get("Dst") != rectangles["Src"]:
            continue
        file = _place(folder, named[1], named[2])
        if not (is_virtual(file) and _virtual(file, file_state(file)).warped):
            return _Virtual(files, file, False)
    return _Virtual(files, None, False)


def _place(folder: str, attributes: str, name: str) -> str:
    """Name a file as it is named from anywhere."""
    file = unescape(name.strip(), {"&quot;": '"', "&apos;": "'"})
    return os.path.normpath(os.path.join(folder, file)) if re.search(r"""relativeToVRT=["']1["']""", attributes) else file
