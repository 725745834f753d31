"""Several rasters of one place as one: GDAL virtual rasters (VRT), which hold no pixels and point to the files they are made of.

Imagery is large and stays where it is. A source on the grid wanted is referred to as it is; another is warped onto it whenever it is
read, by a second VRT beside the first. Paths inside are relative, so that a tree moves as a whole.
"""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from xml.sax.saxutils import escape

import numpy as np

from tilth.errors import DataError, UnreadableFileError, UsageError
from tilth.imagery.gdal import rasterio_module
from tilth.imagery.grid import grid_difference, pixel_ratio, shares_ground
from tilth.imagery.made_from import remove_unused_parts, write_virtual
from tilth.imagery.raster import RasterInfo
from tilth.imagery.read import read_info

Resampling = Literal["nearest", "bilinear", "cubic", "average", "mode"]
"""How pixels of another grid are taken over: ``bilinear`` suits imagery, ``nearest`` numbers that stand for something."""

_VRT_TYPES = {
    "uint8": "Byte",
    "int8": "Int8",
    "uint16": "UInt16",
    "int16": "Int16",
    "uint32": "UInt32",
    "int32": "Int32",
    "float32": "Float32",
    "float64": "Float64",
}
_REMOTE_FOLDERS = {"http": "/vsicurl/http://", "https": "/vsicurl/https://", "s3": "/vsis3/", "gs": "/vsigs/", "az": "/vsiaz/"}
_ARRAYS = ".npy"
_MAXIMUM_ERROR = re.compile(r"<MaxError>[^<]*</MaxError>")
_UNIFIED = re.compile(r'<Option name="UNIFIED_SRC_NODATA">[^<]*</Option>')
_SOURCE = re.compile(r'<SourceDataset relativeToVRT="[01]">.*?</SourceDataset>', re.DOTALL)


@dataclass(frozen=True)
class _Part:
    """One file that a virtual raster refers to: its bands, and what says where it has data.

    Attributes:
        name: of the file, as GDAL knows it.
        bands: 1-based positions of the bands taken.
        types: NumPy names of their types.
        descriptions: of the bands, for people.
        nodata: of the bands; None where a band has none.
        masks: what has to be greater than 0 where the part has data, as VRT names it: ``3`` for a band, ``mask,1`` for a mask.
        by_nodata: whether nodata values alone say where data is.
    """

    name: str
    bands: tuple[int, ...]
    types: tuple[str, ...]
    descriptions: tuple[str, ...]
    nodata: tuple[float | None, ...]
    masks: tuple[str, ...]
    by_nodata: bool


def write_stack(
    target: str | Path,
    sources: Sequence[str | Path],
    *,
    like: RasterInfo | str | Path | None = None,
    resampling: Resampling = "bilinear",
    dtype: str | None = None,
) -> Path:
    """Write one virtual raster of the bands of several rasters of one place.

    A source of the same CRS, extent and resolution is referred to as it is. Another is warped on read, through
    ``<target>.<number>.vrt`` beside the target. Pixels that any source does not cover, or says are no data, are not valid. Rasters
    without a place on the Earth must have the same size. The same call writes the same bytes; a file that is the same already is left
    untouched.

    Args:
        target: the file to write, ending in ``.vrt``.
        sources: rasters that GDAL reads, in the order of their bands; an alpha channel is no band.
        like: a raster, or its header, that gives the grid; by default the first source.
        resampling: for sources on another grid.
        dtype: NumPy name of the type of all bands; by default the narrowest that holds the types of all.

    Returns:
        The path written.

    Raises:
        UsageError: no source, the target is no ``.vrt`` or one of the sources, or a file that was not made by tilth is in the way.
        MissingFileError: a source does not exist.
        UnreadableFileError: a source is damaged or of an unknown format.
        DataError: a source on another grid that cannot be warped, for want of a CRS, that covers none of it, or that GDAL does not read as
            tilth does.
        MissingExtraError: rasterio is not installed.
        TilthError: the place cannot be written to.
    """
    place = Path(target)
    if place.suffix.lower() != ".vrt":
        raise UsageError(f"{place}: virtual rasters end in .vrt")
    if not sources:
        raise UsageError(f"{place}: a virtual raster needs at least one source")
    if place.exists() and any(Path(source).exists() and place.samefile(source) for source in sources):
        raise UsageError(f"{place}: is one of its own sources; originals are not replaced")
    infos = [read_info(str(source)) for source in sources]
    grid = infos[0] if like is None else like if isinstance(like, RasterInfo) else read_info(str(like))
    parts = []
    for number, info in enumerate(infos, start=1):
        _check_readable(info)
        if grid_difference(grid, info) is None:
            parts.append(_part(info, _gdal_name(info.uri)))
        else:
            parts.append(_warped_part(info, grid, place.with_name(f"{place.stem}.{number}.vrt"), resampling))
    write_virtual(place, _stack_xml(parts, grid, place.parent, dtype))
    remove_unused_parts(place, {part.name for part in parts})
    return place


def write_warped(target: str | Path, source: str | Path, *, like: RasterInfo | str | Path, resampling: Resampling = "bilinear") -> Path:
    """Write a virtual raster of one raster on the grid of another; see :func:`write_stack`."""
    return write_stack(target, [source], like=like, resampling=resampling)


def _check_readable(info: RasterInfo) -> None:
    """Refuse what tilth reads by itself and GDAL otherwise: arrays, and palettes, whose colours are bands to tilth."""
    path = Path(info.uri)
    if path.suffix.lower() == _ARRAYS:
        raise DataError(f"{path}: NumPy arrays cannot be part of a virtual raster; write it as GeoTIFF")
    part = _part(info, _gdal_name(info.uri))
    if len(part.bands) != info.count:
        raise DataError(f"{path}: a palette image cannot be part of a virtual raster; write its colours as GeoTIFF")


def _part(info: RasterInfo, name: str) -> _Part:
    """Look at what a file offers."""
    with _opened(info.uri, name) as dataset:
        bands = tuple(
            index
            for index, (meaning, text) in enumerate(zip(dataset.colorinterp, dataset.descriptions, strict=True), start=1)
            if meaning.name != "alpha" or (text and "alpha" not in text.lower())
        )
        alpha = tuple(str(index) for index in range(1, dataset.count + 1) if index not in bands)
        flags = [{flag.name for flag in dataset.mask_flag_enums[index - 1]} for index in bands]
        masked = tuple(f"mask,{index}" for index, kinds in zip(bands, flags, strict=True) if kinds != {"all_valid"})
        if all("per_dataset" in kinds for kinds in flags):
            masked = masked[:1]
        return _Part(
            name=name,
            bands=bands,
            types=tuple(dataset.dtypes[index - 1] for index in bands),
            descriptions=tuple(dataset.descriptions[index - 1] or "" for index in bands),
            nodata=tuple(dataset.nodatavals[index - 1] for index in bands),
            masks=alpha or masked,
            by_nodata=not alpha and all(kinds in ({"nodata"}, {"all_valid"}) for kinds in flags),
        )


def _warped_part(info: RasterInfo, grid: RasterInfo, place: Path, resampling: Resampling) -> _Part:
    """Write the virtual raster that warps a source onto a grid whenever it is read, and look at that."""
    for header in (info, grid):
        if header.crs is None or header.transform is None:
            raise DataError(
                f"{info.uri}: {info.width} x {info.height} pixels do not lie on the grid of {grid.uri} ({grid.width} x {grid.height}), "
                f"and {header.uri} has no {'CRS' if header.crs is None else 'geotransform'} to warp it by"
            )
    if not shares_ground(info, grid):
        raise DataError(f"{info.uri}: covers none of the ground of {grid.uri}; are they of one place?")
    write_virtual(place, _warped_xml(info, grid, place, resampling))
    part = _part(replace(grid, uri=str(place)), str(place))
    if len(part.bands) != info.count:
        raise DataError(
            f"{info.uri}: a band of pixels is marked as alpha, which cannot be warped; mark it as grey (gdal_translate -colorinterp)"
        )
    return replace(part, descriptions=_part(info, _gdal_name(info.uri)).descriptions)


def _warped_xml(info: RasterInfo, grid: RasterInfo, place: Path, resampling: Resampling) -> str:
    rasterio = rasterio_module()
    from rasterio.enums import Resampling as Kind
    from rasterio.vrt import WarpedVRT

    assert grid.transform is not None
    name = _gdal_name(info.uri)
    part = _part(info, name)
    has_alpha = any(not mask.startswith("mask") for mask in part.masks)
    options = {"crs": grid.crs, "transform": rasterio.Affine(*grid.transform), "width": grid.width, "height": grid.height}
    # Without a value that stands for "no data", an alpha channel says where the source lies.
    options |= {"resampling": Kind[resampling], "add_alpha": not has_alpha and None in part.nodata}
    with _opened(info.uri, name) as dataset, WarpedVRT(dataset, **options) as warped:
        text = str(warped.tags(ns="xml:VRT")["xml:VRT"])
    # Left as it is, a pixel without data in some bands only would count as data, and 0 would turn into 1 where 0 means "no data".
    text = _UNIFIED.sub('<Option name="UNIFIED_SRC_NODATA">NO</Option>', text)
    # An approximate transformer places pixels a little otherwise in every window that is read.
    text = _MAXIMUM_ERROR.sub("<MaxError>0</MaxError>", text)
    # Left to GDAL, they are guessed anew from every window that is read, and pixels would depend on how they are read.
    across, down = pixel_ratio(info, grid)
    scales = f'<Option name="XSCALE">{across:.9g}</Option><Option name="YSCALE">{down:.9g}</Option>'
    relative, path = _reference(name, place.parent)
    # A function, so that backslashes of a path are not taken for escapes.
    return _SOURCE.sub(lambda _: f'{scales}<SourceDataset relativeToVRT="{relative}">{escape(path)}</SourceDataset>', text)


def _stack_xml(parts: Sequence[_Part], grid: RasterInfo, folder: Path, dtype: str | None) -> str:
    widest = dtype or np.result_type(*(np.dtype(kind) for part in parts for kind in part.types)).name
    if widest not in _VRT_TYPES:
        raise DataError(f"{parts[0].name}: bands of {widest} cannot be part of a virtual raster; choices: {', '.join(_VRT_TYPES)}")
    stored = _VRT_TYPES[widest]
    size = f'rasterXSize="{grid.width}" rasterYSize="{grid.height}"'
    lines = [f"<VRTDataset {size}>"]
    if grid.crs is not None:
        lines.append(f"  <SRS>{escape(grid.crs)}</SRS>")
    if grid.transform is not None:
        a, b, c, d, e, f = grid.transform
        lines.append(f"  <GeoTransform>{', '.join(repr(float(value)) for value in (c, a, b, f, d, e))}</GeoTransform>")
    number = 0
    for part in parts:
        for band, text, nodata in zip(part.bands, part.descriptions, part.nodata, strict=True):
            number += 1
            lines.append(f'  <VRTRasterBand dataType="{stored}" band="{number}">')
            lines += [f"    <Description>{escape(text)}</Description>"] if text else []
            lines += [f"    <NoDataValue>{_number(nodata)}</NoDataValue>"] if nodata is not None else []
            lines.append("    <ColorInterp>Undefined</ColorInterp>")
            lines += _source(part.name, str(band), grid, folder, "    ")
            lines.append("  </VRTRasterBand>")
    lines += _mask_xml(parts, grid, folder)
    return "\n".join([*lines, "</VRTDataset>", ""])


def _mask_xml(parts: Sequence[_Part], grid: RasterInfo, folder: Path) -> list[str]:
    """One mask for all bands, greater than 0 where every source has data; none where nodata values say it all."""
    if all(part.by_nodata for part in parts):
        return []
    sources = [line for part in parts for mask in part.masks for line in _source(part.name, mask, grid, folder, "      ")]
    if sum(len(part.masks) for part in parts) == 1:
        head = ['    <VRTRasterBand dataType="Byte">']
    else:
        # The pixel function of GDAL itself; it wants at least two sources.
        head = ['    <VRTRasterBand dataType="Byte" subClass="VRTDerivedRasterBand">', "      <PixelFunctionType>mul</PixelFunctionType>"]
        head.append("      <SourceTransferType>Float64</SourceTransferType>")
    return ["  <MaskBand>", *head, *sources, "    </VRTRasterBand>", "  </MaskBand>"]


def _source(name: str, band: str, grid: RasterInfo, folder: Path, indent: str) -> list[str]:
    relative, path = _reference(name, folder)
    whole = f'xOff="0" yOff="0" xSize="{grid.width}" ySize="{grid.height}"'
    return [
        f"{indent}<SimpleSource>",
        f'{indent}  <SourceFilename relativeToVRT="{relative}">{escape(path)}</SourceFilename>',
        f"{indent}  <SourceBand>{band}</SourceBand>",
        f"{indent}  <SrcRect {whole}/>",
        f"{indent}  <DstRect {whole}/>",
        f"{indent}</SimpleSource>",
    ]


def _reference(name: str, folder: Path) -> tuple[int, str]:
    """Say how a file is named inside a VRT of a folder: (1, relative path), or (0, name) where there is no relative one."""
    if name.startswith("/vsi") or re.match(r"[A-Za-z][A-Za-z0-9_+.-]+:", name):
        return 0, name
    try:
        # Real folders on both sides: ".." is wrong behind a link.
        path = os.path.relpath(Path(name).parent.resolve() / Path(name).name, folder.resolve())
    except ValueError:  # another drive
        return 0, name
    return 1, path.replace(os.sep, "/")


def _gdal_name(uri: str) -> str:
    scheme, mark, rest = uri.partition("://")
    return f"{_REMOTE_FOLDERS[scheme]}{rest}" if mark and scheme in _REMOTE_FOLDERS else uri


def _number(value: float) -> str:
    return "nan" if math.isnan(value) else repr(int(value)) if float(value).is_integer() else repr(float(value))


@contextmanager
def _opened(uri: str, name: str) -> Iterator[Any]:
    """Open a raster; what GDAL reports while it is open becomes one line that names it."""
    rasterio = rasterio_module()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        try:
            with rasterio.open(name) as dataset:
                yield dataset
        except rasterio.errors.RasterioError as error:
            raise UnreadableFileError(f"{uri}: cannot be read or warped: {' '.join(str(error.__cause__ or error).split())}") from None
