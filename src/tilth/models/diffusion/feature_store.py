"""Maps kept on disk: rows of one set of tiles, in files that are mapped into memory, under a header that says what they are of.

``features.json`` says everything that the numbers depend on, and is compared before one is used. Rows lie in ``features-<n>.bin``: all
crops as they lie, then all crops in the next variant. A file that is not full yet is called ``.part``, and is gone on with.
"""

from __future__ import annotations

import bisect
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from tilth.errors import ConfigError, OutputExistsError, TilthError, UnreadableFileError
from tilth.imagery.claims import Claims
from tilth.imagery.files import make_folder, move_into_place, reason_of
from tilth.models.diffusion.feature_header import HEADER_FILE, KeptTile, compare_header, write_header
from tilth.models.diffusion.feature_rows import RowLayout

Make = Callable[[Sequence[int]], Sequence[NDArray[np.uint8]]]
"""Makes the rows of some numbers."""

_FILE_BYTES = 2**28
_OPEN_FILES = 128
_WAIT_S = 0.2
_HEADER_CLAIM = 2**40
_OURS = re.compile(r"\.?features[.-]")


class FeatureStore:
    """Rows of tiles in one folder.

    Attributes:
        folder: where they are.
        layout: of each row.
        tiles: whose rows are there or will be, in order; more than were asked for where the folder holds more.
        variants: rows of each crop.
    """

    def __init__(self, folder: str | Path, layout: RowLayout, maps: Mapping[str, Any], tiles: Sequence[KeptTile]) -> None:
        """Look at a folder; nothing is written.

        Args:
            folder: one that holds rows, or nothing, or is not there yet.
            layout: of the rows.
            maps: what :func:`describe_maps` says.
            tiles: whose rows are wanted.

        Raises:
            ConfigError: it holds rows of something else; the message names the first difference.
            OutputExistsError: it holds other files.
            UnreadableFileError: a damaged header or file.
        """
        self.folder, self.layout, self.variants = Path(folder), layout, int(maps["variants"])
        self._maps = dict(maps)
        self.tiles, self._file_rows = list(tiles), max(1, _FILE_BYTES // layout.row_bytes)
        if (self.folder / HEADER_FILE).is_file():
            self.tiles, self._file_rows = compare_header(self.folder, self._maps, tiles)
        elif self.folder.is_file():
            raise OutputExistsError(f"{self.folder}: is a file; choose another settings.cache_folder")
        elif self.folder.is_dir() and any(not _OURS.match(file.name) for file in self.folder.iterdir()):
            raise OutputExistsError(f"{self.folder}: holds other files than features; choose another settings.cache_folder")
        firsts = np.cumsum([0, *(tile.crops for tile in self.tiles)]).tolist()
        self._starts: list[int] = firsts[:-1]
        self._first = dict(zip((tile.tile_id for tile in self.tiles), self._starts, strict=True))
        self.crops = int(firsts[-1])
        self._open: dict[int, NDArray[np.uint8]] = {}

    @property
    def rows(self) -> int:
        """Rows of all crops and variants."""
        return self.crops * self.variants

    @property
    def size(self) -> int:
        """Bytes of all rows together, those of the files when all are full."""
        return self.rows * self.layout.row_bytes

    def missing(self) -> list[int]:
        """List the files that are not full yet.

        Raises:
            UnreadableFileError: a full file has another size than it must have.
        """
        count = -(-self.rows // self._file_rows)
        missing = []
        for number in range(count):
            file = self._file(number)
            if not file.is_file():
                missing.append(number)
            elif file.stat().st_size != len(self._rows_of(number)) * self.layout.row_bytes:
                raise UnreadableFileError(f"{file}: damaged, {file.stat().st_size} bytes; remove it, and it is made anew")
        return missing

    def bytes_to_come(self) -> int:
        """Bytes that are not on the disk yet."""
        return sum(
            len(self._rows_of(number)) * self.layout.row_bytes - (part.stat().st_size if (part := self._part(number)).is_file() else 0)
            for number in self.missing()
        )

    def number(self, tile_id: str, crop: int, variant: int) -> int:
        """Say which row a crop of a tile has."""
        return int(variant * self.crops + self._first[tile_id] + crop)

    def name_of(self, place: int) -> tuple[str, int]:
        """Say which tile, and which crop of it, is at a place among all crops."""
        index = bisect.bisect_right(self._starts, place) - 1
        return self.tiles[index].tile_id, place - self._starts[index]

    def place_of(self, number: int) -> tuple[int, int]:
        """Say which crop of all, and which variant, a row is of."""
        variant, crop = divmod(number, self.crops)
        return crop, variant

    def read(self, number: int) -> NDArray[np.uint8]:
        """Look at a row: uint8 (row_bytes,), a view of the file."""
        file, place = divmod(number, self._file_rows)
        if file not in self._open:
            if len(self._open) >= _OPEN_FILES:
                self._open.pop(next(iter(self._open)))
            shape = (len(self._rows_of(file)), self.layout.row_bytes)
            self._open[file] = np.memmap(self._file(file), np.uint8, mode="r", shape=shape)
        return cast("NDArray[np.uint8]", self._open[file][place])

    def first_missing(self) -> int:
        """Say which row will be made first; at least one must be missing."""
        number = self.missing()[0]
        return self._rows_of(number).start + self._whole_rows(number)

    def fill(self, make: Make, together: int, progress: Callable[[int], None]) -> None:
        """Make what is missing. Several processes may do so at once, and each does its part; returns when all is there.

        Args:
            make: gets at most ``together`` numbers, neighbours of one variant.
            together: rows made at once.
            progress: told how many rows this process has made since the last time.

        Raises:
            TilthError: the folder cannot be written to, or the disk is full; what ``make`` raises.
        """
        make_folder(self.folder)
        with Claims(self.folder / "features.lock") as claims:
            self._begin(claims)
            while waiting := self.missing():
                for number in waiting:
                    if claims.take(number):
                        try:
                            self._fill_file(number, make, together, progress)
                        finally:
                            claims.let_go(number)
                if self.missing():
                    time.sleep(_WAIT_S)  # for what others are at; who dies lets go of it

    def __getstate__(self) -> dict[str, Any]:
        """Leave open files behind: each loader process maps its own."""
        return self.__dict__ | {"_open": {}}

    def _begin(self, claims: Claims) -> None:
        """Write the header, unless another process of the same mind has done so."""
        while not claims.take(_HEADER_CLAIM):
            time.sleep(_WAIT_S)
        if (self.folder / HEADER_FILE).is_file():
            if compare_header(self.folder, self._maps, self.tiles) != (self.tiles, self._file_rows):
                raise ConfigError(f"{self.folder}: features of other tiles are being kept there now; choose another settings.cache_folder")
        else:
            write_header(self.folder, self._maps, self.tiles, self._file_rows)
        claims.let_go(_HEADER_CLAIM)

    def _fill_file(self, number: int, make: Make, together: int, progress: Callable[[int], None]) -> None:
        if self._file(number).is_file():
            return
        rows, part, size = self._rows_of(number), self._part(number), self.layout.row_bytes
        done = self._whole_rows(number)
        try:
            with part.open("r+b" if part.is_file() else "x+b") as file:
                file.seek(done * size)
                while done < len(rows):
                    variant_ends = (rows[done] // self.crops + 1) * self.crops
                    wanted = range(rows[done], min(rows[done] + together, rows.stop, variant_ends))
                    for row in make(wanted):
                        file.write(row.tobytes())
                    file.flush()
                    done += len(wanted)
                    progress(len(wanted))
            move_into_place(part, self._file(number))
        except OSError as error:
            if isinstance(error, TilthError):
                raise
            raise TilthError(f"{part}: cannot be written: {reason_of(error)}") from error

    def _whole_rows(self, number: int) -> int:
        """Count the rows at the beginning of a file that were written to their end; what lies behind is written anew."""
        part, size = self._part(number), self.layout.row_bytes
        if not part.is_file():
            return 0
        done = 0
        with part.open("rb") as file:
            while done < len(self._rows_of(number)) and self.layout.whole(np.frombuffer(file.read(size), np.uint8)):
                done += 1
        return done

    def _rows_of(self, number: int) -> range:
        return range(number * self._file_rows, min((number + 1) * self._file_rows, self.rows))

    def _file(self, number: int) -> Path:
        return self.folder / f"features-{number:05d}.bin"

    def _part(self, number: int) -> Path:
        return self._file(number).with_suffix(".part")
