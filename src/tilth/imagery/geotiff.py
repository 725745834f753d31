"""GeoTIFF out, in blocks: the file is built beside its place and appears whole, as a plain tiled GeoTIFF or a Cloud Optimized one."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tilth.errors import DataError, TilthError, UsageError
from tilth.imagery.files import SIDECAR, atomic_path
from tilth.imagery.gdal import rasterio_module
from tilth.imagery.legend_xml import legend_xml

if TYPE_CHECKING:
    from tilth.classes import Colour

BlockWriter = Callable[[NDArray[Any], int, int], None]
"""Takes a block (C, h, w) or (h, w) and the column and row of its upper left pixel."""

BLOCK = 512
"""Side of the internal tiles of a Cloud Optimized GeoTIFF, in pixels."""

_SUFFIXES = frozenset({".tif", ".tiff"})

_READ_BYTES = 2**24
"""Read back at once."""

_VALUES = 256


@dataclass(frozen=True)
class Legend:
    """What the values of a raster mean.

    Attributes:
        colours: 8-bit RGB by value; empty for none. One uint8 band only.
        class_names: names by value; empty for none. One uint8 band only.
        tags: text by name, kept inside the file.
        nodata: stored value that means "no data", or None.
    """

    colours: tuple[Colour, ...] = ()
    class_names: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    nodata: float | None = None


@contextmanager
def raster_file(
    path: str | Path,
    *,
    width: int,
    height: int,
    count: int,
    dtype: str,
    crs: str | None,
    transform: tuple[float, float, float, float, float, float] | None,
    legend: Legend,
    band_names: tuple[str, ...] | None = None,
    cog: bool = False,
) -> Iterator[BlockWriter]:
    """Build a GeoTIFF block by block; it takes its place when the block of code ends well, and nothing is left otherwise.

    Every pixel is written once. The file is read again before it takes its place, for GDAL does not always tell when a disk is full.

    8-bit bands carry their statistics (tags ``STATISTICS_MINIMUM`` ... as GDAL computes them); a raster with class names also has a
    sidecar ``<path>.aux.xml`` with category names and an attribute table: value, pixels, name, colour.

    Overviews of a Cloud Optimized GeoTIFF hold the most frequent class where there is a legend of classes, and means otherwise; nodata
    never counts.

    Args:
        path: the file to write, ending in ``.tif`` or ``.tiff``.
        width: columns.
        height: rows.
        count: bands.
        dtype: NumPy name of the type to store.
        crs: ``EPSG:code`` or WKT, or None.
        transform: affine coefficients (a, b, c, d, e, f), or None.
        legend: nodata, colours, class names, tags.
        band_names: one description a band.
        cog: write a Cloud Optimized GeoTIFF.

    Yields:
        A function that writes one block.

    Raises:
        UsageError: the path does not end in ``.tif`` or ``.tiff``.
        DataError: legend, names or type do not fit the raster.
        TilthError: the place cannot be written to.
    """
    target = Path(path)
    _check(target, count, dtype, legend, band_names)
    rasterio = rasterio_module()
    grid = {"crs": _parsed_crs(target, crs), "transform": None if transform is None else rasterio.Affine(*transform)}
    with atomic_path(target) as temporary:
        built = temporary.with_name(f"{temporary.stem}-built.tif") if cog else temporary
        sidecar = Path(f"{temporary}{SIDECAR}")
        try:
            with _quiet(target):
                layout = _layout(width, height, dtype, legend, count) | {"count": count, "dtype": dtype, "nodata": legend.nodata} | grid
                if cog:
                    # What is copied and removed need not be small.
                    layout["zlevel"] = 1
                with rasterio.open(built, "w", driver="GTiff", width=width, height=height, **layout) as dataset:
                    _describe(dataset, legend, band_names)
                    seen = np.zeros((count, _VALUES), np.int64) if dtype == "uint8" else None
                    written = Written()
                    yield _block_writer(dataset, seen, written)
                    if seen is not None:
                        for band, counts in enumerate(seen, start=1):
                            dataset.update_tags(band, **_statistics(counts, legend.nodata))
                if cog:
                    _copy_to_cog(built, temporary, categorical=bool(legend.class_names or legend.colours))
                _refuse_torn(temporary, target, written)
            sidecar.unlink(missing_ok=True)
            if legend.class_names:
                sidecar.write_text(legend_xml(legend.class_names, legend.colours, None if seen is None else seen[0]), encoding="utf-8")
        finally:
            if cog:
                built.unlink(missing_ok=True)
                Path(f"{built}{SIDECAR}").unlink(missing_ok=True)


def class_tags(names: tuple[str, ...]) -> dict[str, str]:
    """Return the tags that name the classes inside the file: ``CLASS_NAMES`` (JSON list) and ``CLASS_0``, ``CLASS_1`` ..."""
    return {"CLASS_NAMES": json.dumps(names, ensure_ascii=False)} | {f"CLASS_{index}": name for index, name in enumerate(names)}


def _check(target: Path, count: int, dtype: str, legend: Legend, band_names: tuple[str, ...] | None) -> None:
    if target.suffix.lower() not in _SUFFIXES:
        raise UsageError(f"{target}: rasters are written as GeoTIFF; give a path that ends in .tif")
    if (legend.colours or legend.class_names) and (count != 1 or dtype != "uint8"):
        raise DataError(f"{target}: colours and class names need one band of uint8, found {count} of {dtype}")
    if max(len(legend.colours), len(legend.class_names)) > 256:
        raise DataError(f"{target}: at most 256 colours and class names fit 8 bits")
    if band_names is not None and len(band_names) != count:
        raise DataError(f"{target}: {len(band_names)} band names for {count} bands")
    if dtype not in {"uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"}:
        raise DataError(f"{target}: GeoTIFF cannot store {dtype}; convert it, for example to float32")


def _parsed_crs(target: Path, crs: str | None) -> Any:
    rasterio = rasterio_module()
    try:
        return None if crs is None else rasterio.CRS.from_user_input(crs)
    # rasterio lets the failure to read the digits of "EPSG:x" through as it is.
    except (rasterio.errors.CRSError, ValueError):
        raise DataError(f"{target}: unknown coordinate reference system {crs!r}; give EPSG:code or WKT") from None


def _layout(width: int, height: int, dtype: str, legend: Legend, count: int) -> dict[str, Any]:
    """Return creation options: tiles (unless the raster is smaller than one), compression, and bands that are just bands."""
    predictor = 1 if legend.class_names or legend.colours else 3 if dtype.startswith("float") else 2
    layout: dict[str, Any] = {"compress": "deflate", "predictor": predictor, "zlevel": 6, "BIGTIFF": "IF_SAFER"}
    if width > 256 or height > 256:
        layout |= {"tiled": True, "blockxsize": 256, "blockysize": 256}
    if not legend.colours and count != 3:
        # Left alone, GDAL takes the fourth of four 8-bit bands for alpha.
        layout["photometric"] = "MINISBLACK"
        layout["ALPHA"] = "NO"
    return layout


def _describe(dataset: Any, legend: Legend, band_names: tuple[str, ...] | None) -> None:
    if band_names is not None:
        dataset.descriptions = band_names
    if legend.colours:
        table = {value: (*colour, 255) for value, colour in enumerate(legend.colours)}
        if legend.nodata is not None and int(legend.nodata) not in table:
            table[int(legend.nodata)] = (0, 0, 0, 0)
        dataset.write_colormap(1, table)
    dataset.update_tags(**{**class_tags(legend.class_names), **legend.tags} if legend.class_names else legend.tags)


@dataclass
class Written:
    """What was handed to GDAL, to be found again in the file.

    Attributes:
        total: sum of all bytes.
    """

    total: int = 0

    def add(self, block: NDArray[Any]) -> None:
        """Count a block of any shape."""
        self.total += int(np.ascontiguousarray(block).view(np.uint8).sum(dtype=np.int64))


def _refuse_torn(file: Path, target: Path, written: Written) -> None:
    """Read a file back, a few rows at a time.

    Raises:
        TilthError: it does not hold what was written.
    """
    rasterio = rasterio_module()
    found = Written()
    with suppress(rasterio.errors.RasterioError), rasterio.open(file) as dataset:
        deep = BLOCK * dataset.count * np.dtype(dataset.dtypes[0]).itemsize
        across = max(1, _READ_BYTES // (deep * BLOCK)) * BLOCK
        for row in range(0, dataset.height, BLOCK):
            for column in range(0, dataset.width, across):
                rows, columns = min(BLOCK, dataset.height - row), min(across, dataset.width - column)
                found.add(dataset.read(window=((row, row + rows), (column, column + columns))))
    if found != written:
        raise TilthError(f"{target}: was not written whole; {_room(target)}: make room, or choose another place")


def _room(target: Path) -> str:
    return f"{shutil.disk_usage(target.parent).free / 2**20:,.1f} MiB are free there"


def _block_writer(dataset: Any, seen: NDArray[np.int64] | None, written: Written) -> BlockWriter:
    """Return the writer of blocks; ``seen`` (bands, 256) receives how many pixels have each 8-bit value."""

    def write(block: NDArray[Any], column: int, row: int) -> None:
        bands = block[None] if block.ndim == 2 else block
        height, width = bands.shape[1:]
        dataset.write(np.ascontiguousarray(bands), window=((row, row + height), (column, column + width)))
        written.add(bands)
        if seen is not None:
            for counts, band in zip(seen, bands, strict=True):
                counts += np.bincount(band.ravel(), minlength=_VALUES)

    return write


def _statistics(counts: NDArray[np.int64], nodata: float | None) -> dict[str, str]:
    """Statistics of a band of 8-bit values, (256,) pixels by value, under the names by which GDAL and desktop tools know them."""
    total = int(counts.sum())
    known = counts.copy()
    if nodata is not None and 0 <= nodata < _VALUES:
        known[int(nodata)] = 0
    pixels = int(known.sum())
    if pixels == 0:
        return {}
    values = np.arange(_VALUES)
    present = np.flatnonzero(known)
    mean = float(known @ values) / pixels
    deviation = float(np.sqrt(known @ (values - mean) ** 2 / pixels))
    return {
        "STATISTICS_MINIMUM": str(present[0]),
        "STATISTICS_MAXIMUM": str(present[-1]),
        "STATISTICS_MEAN": f"{mean:.10g}",
        "STATISTICS_STDDEV": f"{deviation:.10g}",
        "STATISTICS_VALID_PERCENT": f"{100 * pixels / total:.4g}",
    }


def _copy_to_cog(source: Path, target: Path, *, categorical: bool) -> None:
    from rasterio.shutil import copy

    resampling = "MODE" if categorical else "AVERAGE"
    options = {"COMPRESS": "DEFLATE", "PREDICTOR": "NO" if categorical else "YES", "LEVEL": 6, "BLOCKSIZE": BLOCK, "BIGTIFF": "IF_SAFER"}
    options["NUM_THREADS"] = "ALL_CPUS"
    copy(str(source), str(target), driver="COG", OVERVIEWS="AUTO", OVERVIEW_RESAMPLING=resampling, **options)


@contextmanager
def _quiet(target: Path) -> Iterator[None]:
    """Turn what GDAL reports into one line that names the file, and keep its own lines off the terminal."""
    rasterio = rasterio_module()
    # Not among rasterio's public errors, yet this is what copying a file that is cut short ends in.
    from rasterio._err import CPLE_BaseError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        try:
            with rasterio.Env():
                yield
        except (rasterio.errors.RasterioError, CPLE_BaseError) as error:
            raise TilthError(f"{target}: cannot be written: {' '.join(str(error.__cause__ or error).split())}; {_room(target)}") from error
