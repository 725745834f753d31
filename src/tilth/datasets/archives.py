"""Archives as publishers hand them out: verified, and unpacked whole, safely and so that a stopped unpacking goes on.

Nothing in an archive is trusted: what would land outside of the folder, links and special files are refused before a byte is written.
"""

from __future__ import annotations

import glob
import gzip
import hashlib
import json
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tilth.datasets.config import Archive
from tilth.errors import DataError, TilthError, UnreadableFileError

Progress = Callable[[int, int], None]
"""Told (members done, all of them)."""

_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, EOFError, NotImplementedError, RuntimeError)
_CHUNK = 2**20

VERSION_FILE = ".tilth-archive"
"""Says in a folder of which version of an archive it was made."""


@dataclass(frozen=True)
class Member:
    """One file in an archive.

    Attributes:
        name: path with forward slashes, below the folder it is unpacked into.
        size: bytes when unpacked.
        mark: what the archive's directory says of its contents: a checksum in zip, the time of change in tar.
        entry: what the archive's own reader knows it by.
    """

    name: str
    size: int
    mark: float
    entry: Any


def verify_sum(path: Path, archive: Archive) -> None:
    """Compare a file with its published checksum; without one nothing is read.

    Raises:
        DataError: they differ.
    """
    for kind, wanted in (("md5", archive.md5), ("sha256", archive.sha256)):
        if wanted is None:
            continue
        with path.open("rb") as file:
            found = hashlib.file_digest(file, kind).hexdigest()
        if found != wanted:
            raise DataError(f"{path}: {kind} is {found}, expected {wanted}: damaged or of another version; fetch it again, or move it away")


def unpack(path: Path, unpacked: Sequence[Path], target: Path, progress: Progress | None = None) -> Path | None:
    """Unpack a zip or tar archive, unless its files lie there already.

    Args:
        path: the archive.
        unpacked: folders that the user may have unpacked it into; files are compared by size.
        target: folder to make; it appears when it is complete, and is made anew when the archive has other contents.
        progress: told after each file.

    Returns:
        The folder made, or None where one of ``unpacked`` holds every file in its full size.

    Raises:
        UnreadableFileError: no zip or tar archive, damaged, or encrypted.
        DataError: a member that is a link, no plain file, or would land outside of the folder.
        TilthError: no room for it, or the place cannot be written to.
    """
    with _opened(path) as (members, read):
        if any(_holds(folder, members) for folder in unpacked):
            return None
        version = _version(path, members)
        if _holds(target, members) and _version_in(target) == version:
            return target
        # The version is part of the name, so that the beginnings of another one are not taken for this one's.
        part = target.with_name(f".{target.name}.{version[:16]}.part")
        missing = [member for member in members if not _is_whole(part, member)]
        _check_room(path, target, sum(member.size for member in missing))
        try:
            for done, member in enumerate(missing, start=1 + len(members) - len(missing)):
                _write(read(member.entry), part / member.name, member, path)
                if progress is not None:
                    progress(done, len(members))
            part.mkdir(parents=True, exist_ok=True)
            (part / VERSION_FILE).write_text(version, encoding="ascii")
            if target.exists():
                shutil.rmtree(target)
            part.rename(target)
            for stale in target.parent.glob(f".{glob.escape(target.name)}.*.part"):
                shutil.rmtree(stale)
        # These are OSErrors too, and say already what is wrong.
        except (TilthError, gzip.BadGzipFile):
            raise
        except OSError as error:
            raise TilthError(f"{target}: cannot be written: {error.strerror or error}") from error
    return target


def folder_name(archive: str) -> str:
    """Name the folder an archive is unpacked into.

    Example:
        >>> folder_name("images.tar.gz"), folder_name("Train.zip")
        ('images', 'Train')
    """
    for suffix in (".tar.gz", ".tar.bz2", ".tar.xz", ".tgz", ".tar", ".zip"):
        if archive.lower().endswith(suffix):
            return archive[: -len(suffix)]
    return archive


@contextmanager
def _opened(path: Path) -> Iterator[tuple[list[Member], Callable[[Any], IO[bytes]]]]:
    """Open an archive: its files, and how to read one of them; damage becomes one line that names the archive."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as file:
                yield _checked(path, (_zip_member(path, info) for info in file.infolist() if not info.is_dir())), file.open
        elif tarfile.is_tarfile(path):
            with tarfile.open(path) as tar:
                infos = [info for info in tar.getmembers() if not info.isdir()]
                yield _checked(path, (_tar_member(path, info) for info in infos)), tar.extractfile  # type: ignore[misc]  # files only
        else:
            raise UnreadableFileError(f"{path}: neither a zip nor a tar archive, or damaged; fetch it again")
    except _DAMAGE as error:
        if isinstance(error, TilthError):
            raise
        raise UnreadableFileError(f"{path}: truncated, damaged or encrypted: {' '.join(str(error).split())}") from None


def _zip_member(path: Path, info: zipfile.ZipInfo) -> Member:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in {0, stat.S_IFREG}:
        raise DataError(f"{path}: {info.filename!r} is a link or special file; archives with these are not unpacked")
    return Member(info.filename, info.file_size, info.CRC, info)


def _tar_member(path: Path, info: tarfile.TarInfo) -> Member:
    if not info.isreg():
        raise DataError(f"{path}: {info.name!r} is a link or special file; archives with these are not unpacked")
    return Member(info.name.removeprefix("./"), info.size, info.mtime, info)


def _checked(path: Path, members: Iterator[Member]) -> list[Member]:
    """Refuse names that lead out of the folder or stand for two files."""
    found: dict[str, Member] = {}
    for member in members:
        parts = member.name.split("/")
        if "\\" in member.name or ":" in parts[0] or {"", ".", ".."} & set(parts) or "\0" in member.name:
            raise DataError(f"{path}: {member.name!r} would land outside of the folder it is unpacked into; this archive is not unpacked")
        if found.setdefault(member.name, member) is not member:
            raise DataError(f"{path}: holds {member.name!r} twice")
    return list(found.values())


def _version(path: Path, members: Sequence[Member]) -> str:
    """Hash the directory of an archive and its size, which change with the contents."""
    listed = [path.stat().st_size, *([member.name, member.size, member.mark] for member in members)]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def _version_in(folder: Path) -> str | None:
    """Read of which archive a folder was made; None where it does not say so."""
    try:
        return (folder / VERSION_FILE).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return None


def _holds(folder: Path, members: Sequence[Member]) -> bool:
    return all(_is_whole(folder, member) for member in members) if folder.is_dir() else False


def _is_whole(folder: Path, member: Member) -> bool:
    try:
        status = (folder / member.name).stat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == member.size


def _check_room(path: Path, target: Path, needed: int) -> None:
    place = next(folder for folder in (target, *target.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise TilthError(f"{path}: unpacked it takes {needed / 1e9:,.1f} GB, {place} has {free / 1e9:,.1f} GB free; choose another --out")


def _write(stream: IO[bytes], target: Path, member: Member, path: Path) -> None:
    """Write one member under another name first, so that a file of the right size is a whole one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # The name tells what is unfinished from what an archive may hold.
    temporary = target.with_name(f".{target.name}.unfinished")
    left = member.size
    with stream, temporary.open("wb") as file:
        while block := stream.read(_CHUNK):
            left -= len(block)
            if left < 0:
                break
            file.write(block)
    if left:
        temporary.unlink()
        raise UnreadableFileError(f"{path}: {member.name!r} is not as long as the archive says; fetch it again")
    temporary.replace(target)
