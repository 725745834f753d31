"""Rasters that belong together: those of one folder whose headers agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from PIL import Image

from tilth.catalog.discover import Problem
from tilth.catalog.inspect import names
from tilth.catalog.inspect.listing import Folder
from tilth.errors import DataError, MissingFileError
from tilth.imagery.palette import has_palette
from tilth.imagery.raster import RasterInfo
from tilth.imagery.read import read_info

MOST_HEADERS = 400
"""Headers read at most of one folder."""

_FEW_LABELS = 6
_ROLES = names.LABEL_WORDS | names.QUALITY_WORDS | names.ELEVATION_WORDS | names.IMAGE_WORDS


@dataclass(frozen=True)
class Member:
    """One raster of a group.

    Attributes:
        path: the file.
        stem: path below the group's folder, without suffix; led by the split that a folder names, wherever that lies.
        split: that a folder on the way names, or None.
    """

    path: Path
    stem: str
    split: str | None


@dataclass(frozen=True, eq=False)
class Group:
    """Rasters of one folder with one number of bands, one type and the same band names.

    Attributes:
        name: folder below the root, without the names of splits; ``.`` for the root.
        folders: the real folders, below the root.
        members: all files, sorted; those beyond the headers that were read are taken to be like the others.
        infos: the headers that were read, with ``members`` at the same positions first.
        palette: the files hold indices into a palette of colours.
        file_kind: what the ends of the file names say: ``label``, ``quality``, ``elevation`` or nothing.
    """

    name: str
    folders: tuple[str, ...]
    members: tuple[Member, ...]
    infos: tuple[RasterInfo, ...]
    palette: bool = False
    file_kind: str = ""

    @property
    def count(self) -> int:
        """Number of bands."""
        return self.infos[0].count

    @property
    def dtype(self) -> str:
        """NumPy name of the stored type."""
        return self.infos[0].dtype

    @property
    def band_names(self) -> tuple[str, ...]:
        """Descriptions of the bands; empty strings where there are none."""
        return self.infos[0].band_names

    @cached_property
    def words(self) -> frozenset[str]:
        """Words of the folder's name and, where all files share them, of the files' names."""
        last = names.words(self.name.rpartition("/")[2]) if self.name != "." else frozenset()
        return last | frozenset.intersection(*(names.words(member.path.stem) for member in self.members[:50]))

    @cached_property
    def by_stem(self) -> dict[str, Member]:
        """Members by stem."""
        return {member.stem: member for member in self.members}

    @property
    def sizes(self) -> Counter[tuple[int, int]]:
        """How many of the headers have which (width, height), in pixels."""
        return Counter((info.width, info.height) for info in self.infos)

    @property
    def systems(self) -> Counter[str | None]:
        """How many of the headers have which CRS."""
        return Counter(info.crs for info in self.infos)

    @property
    def suffixes(self) -> Counter[str]:
        """How many files have which suffix."""
        return Counter(member.path.suffix.lower() for member in self.members)

    @property
    def title(self) -> str:
        """What to call the group in a sentence."""
        if self.name != "." and not self.file_kind:
            return self.name
        paths = [member.path.name for member in self.members]
        return paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"


@dataclass
class _Draft:
    folders: list[str] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)


def evenly(items: Sequence[Member], most: int) -> list[Member]:
    """At most so many items, spread evenly over all of them."""
    if len(items) <= most:
        return list(items)
    return [items[(2 * place + 1) * len(items) // (2 * most)] for place in range(most)]


def find_groups(folders: Iterable[Folder]) -> tuple[list[Group], list[Problem]]:
    """Read headers and group rasters.

    Args:
        folders: as listed.

    Returns:
        The groups in order of their names, and files whose header cannot be read.
    """
    drafts: dict[tuple[str, str, str], _Draft] = {}
    for folder in folders:
        single = _single_labels(folder)
        parts = () if folder.name == "." else tuple(folder.name.split("/"))
        split = names.split_of(parts)
        kept = [part for part in parts if not names.is_split(part)]
        # Folders below images/ or masks/ are part of the files' names, as catalog build takes them.
        depth = next((place for place, part in enumerate(kept, start=1) if names.words(part) & _ROLES), len(kept))
        name, lead = "/".join(kept[:depth]) or ".", "/".join(kept[depth:])
        for path in folder.rasters:
            # A few label files of different names are a label each, not one label of several images.
            kind = names.name_kind(path.stem)
            draft = drafts.setdefault((name, kind, path.stem if path in single else ""), _Draft())
            # Splits number their files anew, so the split is part of what tells them apart.
            draft.members.append(Member(path, "/".join(part for part in (split, lead, path.stem) if part), split))
            if folder.name not in draft.folders:
                draft.folders.append(folder.name)
    groups: list[Group] = []
    problems: list[Problem] = []
    for (name, kind, _), draft in sorted(drafts.items()):
        found, lost = _by_header(name, kind, draft)
        groups += found
        problems += lost
    return groups, problems


def _single_labels(folder: Folder) -> set[Path]:
    """Label files such as ``label_crops.tif`` beside ``label_roads.tif``."""
    found = [path for path in folder.rasters if names.words(path.stem.partition("_")[0]) & names.LABEL_WORDS and "_" in path.stem]
    return set(found) if len(found) <= _FEW_LABELS < len(folder.rasters) or len(found) == len(folder.rasters) <= _FEW_LABELS else set()


def _by_header(name: str, kind: str, draft: _Draft) -> tuple[list[Group], list[Problem]]:
    """Divide the files of one folder by what their headers say."""
    alike: dict[tuple[object, ...], list[tuple[Member, RasterInfo]]] = {}
    problems: list[Problem] = []
    looked = evenly(draft.members, MOST_HEADERS)
    for member in looked:
        try:
            info = read_info(str(member.path))
        except (DataError, MissingFileError) as error:
            problems.append(Problem(str(member.path), str(error).removeprefix(f"{member.path}: ")))
            continue
        palette = _has_palette(member.path)
        alike.setdefault((info.count, info.dtype, info.band_names, palette), []).append((member, info))
    if not alike:
        return [], problems
    # Files that were not looked at go with the largest part.
    known = {member.path for member in looked}
    rest = [member for member in draft.members if member.path not in known]
    largest = max(alike.values(), key=len)
    groups = []
    for signature, pairs in alike.items():
        members = [member for member, _ in pairs] + (rest if pairs is largest else [])
        infos = tuple(info for _, info in pairs)
        groups.append(Group(name, tuple(draft.folders), tuple(members), infos, palette=bool(signature[3]), file_kind=kind))
    return groups, problems


def _has_palette(path: Path) -> bool:
    if path.suffix.lower() in {".tif", ".tiff"}:
        return has_palette(str(path))
    if path.suffix.lower() not in {".png", ".bmp"}:
        return False
    try:
        with Image.open(path) as image:
            return image.mode == "P"
    except (OSError, SyntaxError, ValueError):
        return False
