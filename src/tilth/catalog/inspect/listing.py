"""The files below a folder, sorted by what they can be, without opening one."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tilth.catalog.config import DEFAULT_SUFFIXES
from tilth.errors import MissingFileError, TilthError, UsageError

MOST_ENTRIES = 1_000_000
"""Files and folders listed at most, in all."""

MOST_IN_FOLDER = 100_000
"""Files listed at most of one folder."""

RASTERS = frozenset(DEFAULT_SUFFIXES)
_KINDS = {
    "table": frozenset({".csv", ".tsv", ".parquet", ".xlsx", ".json", ".geoparquet"}),
    "vector": frozenset({".gpkg", ".geojson", ".shp", ".kml", ".fgb"}),
    "container": frozenset({".h5", ".hdf5", ".hdf", ".nc", ".npz", ".mat", ".zarr", ".img", ".safe", ".grib"}),
    "archive": frozenset({".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".bz2", ".xz"}),
    "text": frozenset({".txt", ".xml", ".md", ".yaml", ".yml", ".rst", ".pdf"}),
}
_SIDECARS = (".aux.xml", ".ovr", ".tfw", ".jgw", ".pgw", ".wld", ".prj", ".msk", ".dbf", ".shx", ".cpg")
_RUBBISH = frozenset({"thumbs.db", "desktop.ini", "__macosx", "$recycle.bin"})


@dataclass
class Folder:
    """One folder's own files.

    Attributes:
        name: path below the root, ``.`` for the root itself.
        rasters: files that may be imagery, sorted.
        others: other files by kind: table, vector, container, archive, text, other.
    """

    name: str
    rasters: list[Path] = field(default_factory=list)
    others: dict[str, list[Path]] = field(default_factory=dict)

    def of(self, kind: str) -> list[Path]:
        """Files of one kind that are no rasters."""
        return self.others.get(kind, [])


@dataclass
class Listing:
    """All files below a folder.

    Attributes:
        root: the folder.
        folders: by name, in order of path; folders without files of their own included.
        files: number of files.
        size_bytes: of all files together.
        suffixes: number of files by suffix.
        empty: files of no bytes.
        rubbish: hidden files, previews of file managers and the like, passed over.
        world_files: files that hold the position of a picture beside them.
        complete: whether everything was listed.
    """

    root: Path
    folders: dict[str, Folder] = field(default_factory=dict)
    files: int = 0
    size_bytes: int = 0
    suffixes: Counter[str] = field(default_factory=Counter)
    empty: list[Path] = field(default_factory=list)
    rubbish: list[Path] = field(default_factory=list)
    world_files: int = 0
    complete: bool = True

    def below(self, name: str) -> list[Folder]:
        """A folder and all below it."""
        return [folder for folder in self.folders.values() if name == "." or folder.name == name or folder.name.startswith(f"{name}/")]

    def part(self, name: str) -> Listing:
        """What lies in one folder, as a listing of its own."""
        if name == ".":
            return self
        inside = Listing(self.root / name, complete=self.complete)
        for folder in self.below(name):
            shorter = folder.name[len(name) + 1 :] or "."
            inside.folders[shorter] = Folder(shorter, folder.rasters, folder.others)
            files = [*folder.rasters, *(file for kind in folder.others.values() for file in kind)]
            inside.files += len(files)
            inside.suffixes.update(file.suffix.lower() or "(none)" for file in files)
        inside.empty, inside.rubbish = ([file for file in files if inside.root in file.parents] for files in (self.empty, self.rubbish))
        return inside

    def children(self, name: str) -> list[str]:
        """Names of the folders directly inside one."""
        lead = "" if name == "." else f"{name}/"
        return [other for other in self.folders if other != "." and other.startswith(lead) and "/" not in other[len(lead) :]]


def list_folder(root: Path) -> Listing:
    """List the files below a folder; links are followed once.

    Raises:
        MissingFileError: no such folder.
        UsageError: it is a file.
        TilthError: the folder cannot be read.
    """
    if not root.exists():
        raise MissingFileError(f"{root}: no such folder; give a folder of imagery")
    if not root.is_dir():
        raise UsageError(f"{root}: is a file; give the folder that holds it, such as {root.parent}")
    listing = Listing(root)
    seen: set[tuple[int, int]] = set()
    waiting = [root]
    entries = 0
    while waiting:
        place = waiting.pop()
        identity = place.stat()
        if (identity.st_dev, identity.st_ino) in seen:
            continue
        seen.add((identity.st_dev, identity.st_ino))
        if entries >= MOST_ENTRIES:
            listing.complete = False
            break
        inside, count = _list_one(listing, place)
        entries += count
        waiting += sorted(inside, reverse=True)
    return listing


def _list_one(listing: Listing, place: Path) -> tuple[list[Path], int]:
    """List one folder's own files; returns the folders in it, and how many entries were seen."""
    name = place.relative_to(listing.root).as_posix()
    folder = listing.folders.setdefault(name, Folder(name))
    inside: list[Path] = []
    try:
        scan = os.scandir(place)
    except OSError as error:
        if place == listing.root:
            raise TilthError(f"{place}: cannot be read: {error.strerror or error}") from None
        listing.rubbish.append(place)
        return inside, 1
    count = 0
    with scan:
        for count, entry in enumerate(scan, start=1):
            if count > MOST_IN_FOLDER:
                listing.complete = False
                break
            path = Path(entry.path)
            if entry.name.startswith((".", "~")) or entry.name.lower() in _RUBBISH:
                listing.rubbish.append(path)
            elif _is_folder(entry):
                inside.append(path)
            else:
                _take(listing, folder, path, entry)
    folder.rasters.sort()
    for files in folder.others.values():
        files.sort()
    return inside, count


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # Links that go in a circle.
        return False


def _take(listing: Listing, folder: Folder, path: Path, entry: os.DirEntry[str]) -> None:
    """Note one file."""
    try:
        size = entry.stat().st_size
    except OSError:
        # A link that leads nowhere.
        listing.empty.append(path)
        return
    suffix = path.suffix.lower()
    listing.files += 1
    listing.size_bytes += size
    listing.suffixes[suffix or "(none)"] += 1
    if entry.name.lower().endswith(_SIDECARS):
        listing.world_files += suffix in {".tfw", ".jgw", ".pgw", ".wld"}
    elif size == 0:
        listing.empty.append(path)
    elif suffix in RASTERS:
        folder.rasters.append(path)
    else:
        kind = next((kind for kind, known in _KINDS.items() if suffix in known), "other")
        folder.others.setdefault(kind, []).append(path)
