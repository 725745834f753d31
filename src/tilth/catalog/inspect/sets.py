"""Which folders are data sets: the whole folder, or several below it."""

from __future__ import annotations

from tilth.catalog.inspect import names
from tilth.catalog.inspect.listing import Folder, Listing
from tilth.errors import DataError, MissingFileError
from tilth.imagery.read import read_info

_HEADERS = 40
# A picture or two of the data set beside its folders are no imagery.
_PREVIEWS = 3


def find_sets(listing: Listing) -> list[str]:
    """Names of the folders that are data sets, in order; ``.`` where the whole folder is one."""
    return _sets_below(listing, ".")


def _sets_below(listing: Listing, name: str) -> list[str]:
    children = [child for child in listing.children(name) if _holds_data(listing, child)]
    own = listing.folders[name]
    if not children:
        return [name] if _has_data(own) else []
    if _is_one(listing, own, children):
        return [name]
    return [found for child in children for found in _sets_below(listing, child)]


def _has_data(folder: Folder) -> bool:
    return bool(folder.rasters or folder.of("container") or folder.of("archive") or folder.of("vector") or _tables(folder))


def _tables(folder: Folder) -> bool:
    return any(file.suffix.lower() != ".json" for file in folder.of("table"))


def _holds_data(listing: Listing, name: str) -> bool:
    return any(_has_data(folder) for folder in listing.below(name))


def _is_one(listing: Listing, own: Folder, children: list[str]) -> bool:
    """Say whether a folder with folders of data in it is one data set: by what lies beside them, their names, or their files' names."""
    small = len(own.rasters) <= _PREVIEWS and all(file.suffix.lower() in {".jpg", ".jpeg", ".png"} for file in own.rasters)
    if own.rasters and not small:
        return True
    lasts = [child.rpartition("/")[2] for child in listing.children(own.name)]
    lower = {last.lower() for last in lasts}
    if "splits" in lower or any(file.name.lower().startswith("classes.") for kind in own.others.values() for file in kind):
        return True
    if any(lower >= set(pair) for pair in names.CHANGE_PAIRS) or any(names.is_split(child.rpartition("/")[2]) for child in children):
        return True
    if len(lasts) > 1 and any(
        names.words(last) & (names.LABEL_WORDS | {"labeltxt"}) and listing.folders[_join(own, last)] for last in lasts
    ):
        return True
    leaves = [folder for folder in listing.below(own.name) if folder.rasters and folder is not own]
    return _share_stems([listing.folders[child] for child in children]) or _are_one_pool(leaves)


def _join(own: Folder, last: str) -> str:
    return last if own.name == "." else f"{own.name}/{last}"


def _share_stems(folders: list[Folder]) -> bool:
    stems = [{file.stem for file in folder.rasters} for folder in folders if folder.rasters]
    for place, first in enumerate(stems):
        for second in stems[place + 1 :]:
            if len(first & second) >= max(1, 0.5 * min(len(first), len(second))):
                return True
    return False


def _are_one_pool(leaves: list[Folder]) -> bool:
    """Say whether all folders hold pictures of one kind, as a pool sorted into folders does."""
    kinds = set()
    for folder in leaves[:: max(1, len(leaves) // _HEADERS)]:
        if names.words(folder.name.rpartition("/")[2]) & names.LABEL_WORDS:
            return False
        try:
            info = read_info(str(folder.rasters[0]))
        except (DataError, MissingFileError):
            continue
        kinds.add((info.count, info.dtype, info.crs is None, bool(info.band_names and info.band_names[0])))
    return len(kinds) == 1
